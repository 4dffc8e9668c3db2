"""Redis clients of the plainest kind for tests: replies byte for byte; and servers to talk to."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import IN_CI, patience
from waiting import eventually

Address = str | tuple[str, int]


def packed(*args: bytes | str) -> bytes:
    words = [arg.encode() if isinstance(arg, str) else arg for arg in args]
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(w), w) for w in words])


class Wire:
    """A connection; `address` is a path, or (host, port)."""

    def __init__(self, address: Address) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(patience(10))
        self.socket.connect(address)
        self._read = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def say(self, *args: bytes | str) -> bytes:
        """A command, and the bytes of its reply."""
        self.send(packed(*args))
        return self.reply()

    def reply(self) -> bytes:
        """The next, whole."""
        line = self._line()
        kind, size = line[:1], line[1:-2]
        if kind in b"$=" and size != b"-1":
            return line + self._bytes(int(size) + 2)
        if kind in b"*%~>" and size != b"-1":
            many = int(size) * (2 if kind == b"%" else 1)
            return line + b"".join([self.reply() for _ in range(many)])
        return line

    def rest(self) -> bytes:
        """All that comes until the other end closes."""
        while self._more():
            pass
        found, self._read = self._read, b""
        return found

    def _line(self) -> bytes:
        while b"\r\n" not in self._read:
            assert self._more(), f"closed after {self._read!r}"
        line, _, self._read = self._read.partition(b"\r\n")
        return line + b"\r\n"

    def _bytes(self, size: int) -> bytes:
        while len(self._read) < size:
            assert self._more(), f"closed after {self._read!r}"
        found, self._read = self._read[:size], self._read[size:]
        return found

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._read += data
        return bool(data)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def tool(name: str) -> str:
    """Where a program is: on a laptop its absence skips the test by name, in CI it fails it."""
    found = shutil.which(name)
    if found:
        return found
    advice = f"{name} is missing: apt-get install redis"
    if IN_CI:
        pytest.fail(advice)
    pytest.skip(advice)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A real one, at a path."""
    path = str(folder / "redis")
    command = [tool("redis-server"), "--port", "0", "--unixsocket", path]
    command += ["--save", "", "--databases", "1"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        eventually(lambda: listens(path), 10, "redis-server")
        yield path
    finally:
        process.terminate()
        process.wait(patience(10))


def listens(path: str) -> bool:
    try:
        Wire(path).close()
    except OSError:
        return False
    return True


def addresses(said: dict[str, Any]) -> dict[int, tuple[str, int]]:
    """Of gateways, by replica, as `engine kv up --json` says."""
    return {
        one["id"]: (one["redis"].split(":")[0], int(one["redis"].split(":")[1]))
        for one in said["replicas"]
    }
