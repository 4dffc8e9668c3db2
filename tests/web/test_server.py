"""Who is answered, what, and for how long; by bytes over real connections."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from threading import Thread
from typing import NamedTuple

import pytest
from support import patience
from waiting import eventually

from engine.errors import RefusedError, UsageError
from engine.web import server as module
from engine.web.server import CONNECTIONS_MAX, Answer, Server, port_of


class Said(NamedTuple):
    code: int
    headers: dict[str, str]
    body: str


class Ask:
    """Says bytes to a server, and has what it says until it hangs up."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def connect(self) -> socket.socket:
        address = ("127.0.0.1", self.server.server_port)
        return socket.create_connection(address, timeout=patience(10))

    def raw(self, words: bytes) -> bytes:
        with self.connect() as connection:
            connection.sendall(words)
            return heard(connection)

    def __call__(self, line: str = "GET / HTTP/1.1", *headers: str, host: str = "") -> Said:
        host = host or self.server.name
        words = "\r\n".join([line, f"Host: {host}", *headers, "", ""])
        return said(self.raw(words.encode()))


def heard(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass  # hung up while we had more to say
    return b"".join(parts)


def said(data: bytes) -> Said:
    head, _, body = data.decode().partition("\r\n\r\n")
    line, *rest = head.split("\r\n")
    headers = dict(one.split(": ", 1) for one in rest)
    return Said(int(line.split()[1]), headers, body)


def broken() -> Answer:
    raise RuntimeError("a bug")


@pytest.fixture
def ask() -> Iterator[Ask]:
    paths: dict[str, Callable[[], Answer]] = {
        "/": lambda: Answer("text/html", b"<p>hello", "default-src 'self'"),
        "/status.json": lambda: Answer("application/json", b"{}"),
        "/broken": broken,
    }
    with Server(0, paths) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Ask(server)
        finally:
            server.shutdown()
            thread.join()


def test_get(ask: Ask) -> None:
    answer = ask()
    assert (answer.code, answer.body) == (200, "<p>hello")
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.headers["Content-Length"] == "8"
    assert answer.headers["Content-Security-Policy"] == "default-src 'self'"
    for name, value in module.HEADERS.items():
        assert answer.headers[name] == value
    assert answer.headers["Server"].strip() == "engine"
    assert not any(name.startswith("Access-Control") for name in answer.headers)
    assert ask("GET /status.json?x=1 HTTP/1.1").body == "{}"


def test_head(ask: Ask) -> None:
    answer = ask("HEAD / HTTP/1.1")
    assert (answer.code, answer.body, answer.headers["Content-Length"]) == (200, "", "8")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "evil.localhost",
        "[::1]:1",
        "a@",
        "127x0x0x1",
        "localhost:",
        "localhost:x",
        "127.0.0.1:1 evil.example",
    ],
)
def test_other_names(ask: Ask, host: str) -> None:
    """A page of evil.example, which resolves to 127.0.0.1 by now, is told nothing."""
    answer = ask(host=host)
    assert answer.code == 421
    assert answer.body == f"I am {ask.server.name} only.\n"


@pytest.mark.parametrize("host", ["LocalHost:{}", "127.0.0.1", "localhost:1"])
def test_our_names(ask: Ask, host: str) -> None:
    """Through a tunnel our port may be another one."""
    assert ask(host=host.format(ask.server.server_port)).code == 200


def test_a_host_is_said_once(ask: Ask) -> None:
    assert said(ask.raw(b"GET / HTTP/1.1\r\n\r\n")).code == 421
    assert ask("GET / HTTP/1.1", "Host: evil.example").code == 421


def test_other_pages(ask: Ask) -> None:
    assert ask("GET / HTTP/1.1", "Origin: http://evil.example").code == 403
    assert ask("GET / HTTP/1.1", "Origin: null").code == 403
    assert ask("GET / HTTP/1.1", "Origin: http://localhost:1").code == 403
    assert ask("GET / HTTP/1.1", f"Origin: {ask.server.address}").code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"])
def test_nothing_is_changed(ask: Ask, method: str) -> None:
    answer = ask(f"{method} / HTTP/1.1", "Content-Length: 0")
    assert (answer.code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_other_paths(ask: Ask) -> None:
    answer = ask("GET /%2e%2e/etc/passwd HTTP/1.1")
    assert answer.code == 404
    assert answer.body == "There is / and /status.json and /broken, and nothing else.\n"
    assert ask("GET /<script>alert(1)</script> HTTP/1.1").headers["Content-Type"] == module.PLAIN


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (b"GET /\x00 HTTP/1.1\r\n\r\n", 421),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"a" * (1 << 17) + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * (1 << 17) + b"\r\n\r\n", 431),
    ],
    ids=["zero", "tls", "version", "line", "headers", "header"],
)
def test_nonsense(ask: Ask, words: bytes, code: int) -> None:
    """Whatever comes, it is told no, and the next is answered."""
    answer = ask.raw(words)
    assert not answer or said(answer).code == code
    assert ask().code == 200


def test_the_oldest_protocol_is_hung_up_on(ask: Ask) -> None:
    """It has no Host, so it could be anybody's."""
    assert ask.raw(b"GET /\r\n\r\n") == b""


def test_who_is_slow_is_hung_up_on(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if there is always another byte before patience ends."""
    monkeypatch.setattr(module, "SECONDS", 0.3)
    with ask.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nA: ")
        connection.settimeout(0.05)
        closed = False

        def over() -> bool:
            nonlocal closed
            try:
                connection.sendall(b"b")
                closed = closed or connection.recv(1) == b""
            except TimeoutError:
                pass  # it listens still
            except OSError:
                closed = True
            return closed

        eventually(over, 10, "the end of its patience")
    monkeypatch.undo()
    assert ask().code == 200


def test_so_many_at_a_time_and_no_more(ask: Ask) -> None:
    there = [ask.connect() for _ in range(CONNECTIONS_MAX)]
    try:
        eventually(lambda: len(ask.server._open) == CONNECTIONS_MAX, what="all to be there")
        assert ask.raw(b"GET / HTTP/1.1\r\n\r\n") == b""
    finally:
        for one in there:
            one.close()
    eventually(lambda: not ask.server._open, what="all to have gone")
    assert ask().code == 200


def test_a_bug_ends_one_request(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.raw(f"GET /broken HTTP/1.1\r\nHost: {ask.server.name}\r\n\r\n".encode()) == b""
    assert ask().code == 200
    assert "a bug" in capsys.readouterr().err


def test_it_is_here_only(ask: Ask) -> None:
    assert ask.server.socket.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken(ask: Ask) -> None:
    with pytest.raises(RefusedError, match=f"Cannot listen at {re.escape(ask.server.name)}"):
        Server(ask.server.server_port, {})


@pytest.mark.parametrize(
    "listen",
    ["", "x", ":0", "0.0.0.0:0", "127.0.0.1:", "127.0.0.1:x", "[::1]:0", "localhost:0", "65536"],
)
def test_only_on_this_machine(listen: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{listen} is not 127.0.0.1:PORT")):
        port_of(listen)


def test_ports() -> None:
    assert (port_of("0"), port_of("127.0.0.1:0"), port_of("9100")) == (0, 0, 9100)
