"""A gateway in a thread of this process, on a store that is a machine and no replica: for tests of
who is let in, and what they may do. And users and certificates for it."""

from __future__ import annotations

import os
import select
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack  # type: ignore[import-untyped]
from redis_wire import Wire
from support import need, patience

from engine.contract import SECOND
from engine.kv.commands import pack_entry
from engine.kv.machine import Machine
from engine.kv.requests import READ, Answered
from engine.redis import users
from engine.redis.gateway import LINK, Gateway
from engine.redis.users import UserList

ME = 1
LOCALHOST = "127.0.0.1"


class Users:
    """A folder of keys with users, whose secrets are known."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.path = folder / users.FILE
        self.folder = str(folder)
        self.lines: dict[str, str] = {}
        self.secrets = {name: f"the-secret-of-{name}" for name in ("alice", "bob", "default")}
        self.add("alice", users.WRITE)
        self.add("bob", users.READ)

    def add(self, name: str, role: str) -> None:
        secret = self.secrets.setdefault(name, f"the-secret-of-{name}")
        self.lines[name] = str(users.made(role, name, secret.encode()))
        self.write()

    def remove(self, name: str) -> None:
        del self.lines[name]
        self.write()

    def write(self, text: str | None = None) -> None:
        """At once, as those who look at it see it."""
        made = self.path.with_suffix(".new")
        made.touch(0o600)
        lines = "".join(f"{one}\n" for one in self.lines.values())
        made.write_text(lines if text is None else text)
        os.replace(made, self.path)

    def list(self) -> UserList:
        return UserList(self.folder)


class Inside:
    """Serves until `close`; `machine` has what was written."""

    def __init__(self, **options: Any) -> None:
        self.machine = Machine()
        self.raft = SimpleNamespace(
            leader=ME, term=1, me=ME, commit=0, role=None,
            members=SimpleNamespace(now=SimpleNamespace(members=())),
        )  # fmt: skip
        self.gateway = Gateway((LOCALHOST, 0), dict, **options)
        front = SimpleNamespace(machine=self.machine)
        replica: Any = SimpleNamespace(raft=self.raft, front=front, applied=0, up_seconds=0)
        self.gateway.attach(replica)
        self.door = self.gateway.door
        self.address = self.door.address
        self.now = SECOND
        self._ended = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def counts(self) -> dict[str, int]:
        return self.gateway.counts

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                ready, _, _ = select.select([self.door.fileno()], [], [], 0.002)
                if ready or self.gateway.restless:  # and no sooner, as the loop of a replica
                    self.turn()
        except BaseException as error:
            self._failed = error
            self.door.close()  # nobody has to wait for it

    def turn(self) -> None:
        self.now += 1
        for event in self.gateway.drain(100, 1 << 20):
            for _, body in event.batch:  # type: ignore[union-attr]
                how, frame = msgpack.unpackb(body)
                self.gateway.send(LINK, Answered(ME, (self._answer(how, frame),)))

    def _answer(self, how: int, frame: bytes) -> bytes:
        if how == READ:
            return self.machine.read(frame)
        return self.machine.apply(pack_entry(1, self.now, [(0, frame)]))[0]

    def value(self, key: bytes) -> bytes | None:
        return self.machine.store.value(key)

    def close(self) -> None:
        self._ended.set()
        self._thread.join(patience(10))
        if self._failed is not None:
            raise self._failed
        self.gateway.close()

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Papers:
    """A certificate authority, and what it has signed, in files."""

    def __init__(self, folder: Path) -> None:
        self._trustme = need("trustme", "test")
        self.folder = folder
        self.ca = self._trustme.CA()
        self.ca_path = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_path)
        self.issue()

    def issue(self, name: str = "server") -> tuple[str, str]:
        """Paths of another certificate and its key, in place of those with this name."""
        made = self.ca.issue_cert(LOCALHOST, "localhost")
        paths = str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")
        chain = b"".join([one.bytes() for one in made.cert_chain_pems])
        for path, data in zip(paths, (chain, made.private_key_pem.bytes()), strict=True):
            with open(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(data)
            os.replace(f"{path}.new", path)
        return paths

    @property
    def paths(self) -> tuple[str, str]:
        return str(self.folder / "server.pem"), str(self.folder / "server.key")

    def context(self, change: Callable[[ssl.SSLContext], None] | None = None) -> ssl.SSLContext:
        """Of a client who trusts the authority."""
        context = ssl.create_default_context(cafile=self.ca_path)
        if change is not None:
            change(context)
        return context


class TlsWire(Wire):
    """As `Wire`, over TLS."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(address)
        self.socket = context.wrap_socket(self.socket, server_hostname=LOCALHOST)
