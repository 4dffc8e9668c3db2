"""Answers GET for a few paths, to browsers and programs of this machine.

It stands on the standard library's server: what is served are some kilobytes a second to a handful
of readers, and a framework would be more to trust than to gain. What that server leaves open is
closed here. It listens on the loopback address only, and answers under that name only, so that no
page from elsewhere can have a browser read it under a name of its own (DNS rebinding). A request
changes nothing, has no body, and has to be complete within seconds; so many connections at a time,
and no more.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, NoReturn

from engine.errors import RefusedError, UsageError
from engine.record import Record
from engine.wire.addresses import holder_of

HOST = "127.0.0.1"
CONNECTIONS_MAX = 32
SECONDS = 5.0
"""For a whole request, and for its answer to be taken."""
TURN_SECONDS = 0.25
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Of what is no page: it may load nothing."""
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"


class Answer(Record):
    """What there is at a path just now. `policy` is its Content-Security-Policy."""

    kind: str
    body: bytes
    policy: str = POLICY


OUR_NAMES = re.compile(r"(?i:127\.0\.0\.1|localhost)(:\d+)?", re.ASCII)
"""Whatever the port: whoever comes through a tunnel may have another one. A page from elsewhere
that resolves to us goes by a name of its own."""
Paths = Mapping[str, Callable[[], Answer]]


class Handler(BaseHTTPRequestHandler):
    """One request; its connection ends with it."""

    server: Server
    timeout = SECONDS
    server_version, sys_version = "engine", ""

    def do_GET(self) -> None:
        """What is at the path."""
        self._answer()

    def do_HEAD(self) -> None:
        """The same without the body."""
        self._answer()

    def _answer(self) -> None:
        names = self.headers.get_all("Host") or []
        origin = self.headers.get("Origin")
        if len(names) != 1 or not OUR_NAMES.fullmatch(names[0]):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, f"I am {self.server.name} only.")
        elif origin not in (None, f"http://{names[0]}"):
            self.send_error(HTTPStatus.FORBIDDEN, "Other pages have no business here.")
        elif (make := self.server.paths.get(self.path.partition("?")[0])) is None:
            there = " and ".join(self.server.paths)
            self.send_error(HTTPStatus.NOT_FOUND, f"There is {there}, and nothing else.")
        else:
            self._send(HTTPStatus.OK, make())

    def _send(self, status: int, answer: Answer) -> None:
        self.send_response(status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Content-Security-Policy", answer.policy)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """As a sentence; what was asked is not repeated."""
        self.close_connection = True
        if code == HTTPStatus.NOT_IMPLEMENTED:  # there is no method of ours for that word
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "There is GET and HEAD, and no more."
        if self.request_version == "HTTP/0.9":
            return  # no headers can be sent, and nobody speaks it any more
        text = message if code in OURS and message else HTTPStatus(code).phrase
        self._send(code, Answer(PLAIN, text.encode() + b"\n"))

    def log_message(self, *_: object) -> None:
        """Who asks is of no interest."""


OURS = (404, 405, 403, 421)
"""Errors whose texts are made here."""


class Server(ThreadingHTTPServer):
    """`paths` are asked from threads. RefusedError if the port is taken."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, port: int, paths: Paths) -> None:
        self.paths = paths
        self._open: dict[socket.socket, float] = {}
        """Connections by when they came; changed by single steps, from several threads."""
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            holder = holder_of(f"tcp://{HOST}:{port}") if port else "nobody"
            why = f"Cannot listen at {HOST}:{port}: {error.strerror}; {holder} does so already."
            raise RefusedError(why) from None
        self.name = f"{HOST}:{self.server_port}"
        self.address = f"http://{self.name}"

    def server_bind(self) -> None:
        """Without asking what our address is called, which the base class does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more connection."""
        if len(self._open) >= CONNECTIONS_MAX:
            return False
        self._open[request] = monotonic()
        return True

    def shutdown_request(self, request: Any) -> None:
        """It has ended."""
        self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Now and then: whoever says a byte a second has not asked in time."""
        late = monotonic() - SECONDS
        for request, came in list(self._open.items()):
            if came < late:
                try:
                    request.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it has just ended

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Readers come and go; what is our own fault is said."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handle_error(request, client_address)


def port_of(listen: str) -> int:
    """Of `127.0.0.1:PORT`, or PORT alone; 0 for any that is free. UsageError."""
    host, _, port = listen.rpartition(":")
    good = port.isascii() and port.isdecimal() and int(port) <= 65535
    if not good or host not in ("", HOST) or listen.startswith(":"):
        raise UsageError(f"{listen} is not {HOST}:PORT: figures are served on this machine only.")
    return int(port)


def serve(listen: str, paths: Paths, *, as_json: bool, first: str = "/") -> NoReturn:
    """Answer for these paths until a signal ends it. `first` is the one to be told of.

    UsageError, RefusedError if the port is taken.
    """
    with Server(port_of(listen), paths) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
        told(server.address + first, as_json=as_json)
        server.serve_forever(TURN_SECONDS)
    raise AssertionError("it serves for ever")


def serve_text(listen: str, text: Callable[[], str], *, as_json: bool) -> NoReturn:
    """`serve` this at /metrics, for Prometheus."""
    paths = {"/metrics": lambda: Answer(PROMETHEUS, text().encode())}
    serve(listen, paths, as_json=as_json, first="/metrics")


def told(address: str, *, as_json: bool) -> None:
    """Say where it is, to whoever has started us."""
    if as_json:
        print(json.dumps({"address": address, "pid": os.getpid()}), flush=True)
    else:
        print(f"engine: served at {address}", file=sys.stderr, flush=True)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(0)
