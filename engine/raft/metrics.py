"""Figures of replicas as text for Prometheus (exposition format 0.0.4), and a server for it.

The server is a process of its own that asks the replicas' admin endpoints whenever it is asked: a
replica's loop has better things to do than HTTP.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import NoReturn

from engine.errors import RefusedError, UsageError
from engine.raft.requests import Status
from engine.wire.addresses import holder_of

HOST = "127.0.0.1"
TYPE = "text/plain; version=0.0.4; charset=utf-8"

GAUGES = {
    "term": "The member's term.",
    "commit": "Index of the last entry that it knows to be committed.",
    "applied": "Index of the last entry that it applied.",
    "last": "Index of the last entry of its log.",
    "durable": "Index of the last entry that is on its disk.",
    "base": "Index of the last entry that its log does not hold any more.",
    "snapshot": "Index of the last entry of its newest snapshot.",
    "commands": "Commands applied since the group was founded.",
    "lost": "1 while a damaged log is being repaired, and the member does not vote.",
    "full": "1 while its disk has no space.",
    "log_bytes": "Bytes of live entries.",
    "disk_bytes": "Bytes of all its files.",
}


def text_of(addresses: Sequence[str], statuses: Mapping[str, Status]) -> str:
    """The text, for replicas at these addresses of which some have answered."""
    lines = [*_head("up", "gauge", "1 if the replica answers.")]
    lines += [f'engine_raft_up{{admin="{_text(one)}"}} {int(one in statuses)}' for one in addresses]
    known = [statuses[one] for one in addresses if one in statuses]
    for name, what in GAUGES.items():
        lines += _head(name, "gauge", what)
        lines += [f"{_series(name, one)} {int(getattr(one, name))}" for one in known]
    lines += _head("leads", "gauge", "1 if the member leads its term.")
    lines += [f"{_series('leads', one)} {int(one.role == 'leader')}" for one in known]
    lines += _head("up_seconds", "gauge", "Age of the process.")
    lines += [f"{_series('up_seconds', one)} {one.up_ms / 1000:.3f}" for one in known]
    for name in sorted({name for one in known for name, _ in one.counters}):
        lines += _head(f"{name}_total", "counter", "Since the process was started.")
        for one in known:
            counters = dict(one.counters)
            if name in counters:
                lines.append(f"{_series(f'{name}_total', one)} {counters[name]}")
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP engine_raft_{name} {what}", f"# TYPE engine_raft_{name} {kind}"]


def _series(name: str, status: Status) -> str:
    return f'engine_raft_{name}{{group="{status.group}",member="{status.member}"}}'


def _text(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def serve_text(listen: str, text: Callable[[], str], *, as_json: bool) -> None:
    """Answer GET /metrics at 127.0.0.1:PORT (0: any) until a signal ends it.

    UsageError, RefusedError if the port is taken.
    """
    host, _, port = listen.rpartition(":")
    if host != HOST or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{listen} is not {HOST}:PORT: figures are served on this machine only.")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404, "There is /metrics and nothing else.")
                return
            body = text().encode()
            self.send_response(200)
            self.send_header("Content-Type", TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Who asks is of no interest."""

    try:
        server = HTTPServer((HOST, int(port)), Handler)
    except OSError as error:
        holder = holder_of(f"tcp://{listen}") if port != "0" else "nobody"
        why = f"Cannot listen at {listen}: {error.strerror}; {holder} does so already."
        raise RefusedError(why) from None
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    address = f"http://{HOST}:{server.server_port}/metrics"
    if as_json:
        print(json.dumps({"address": address, "pid": os.getpid()}), flush=True)
    else:
        print(f"engine: figures are served at {address}", file=sys.stderr, flush=True)
    with server:
        server.serve_forever()


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(0)
