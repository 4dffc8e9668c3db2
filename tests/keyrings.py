"""Folders of keys for tests, and peers that keep to no rules."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path
from typing import Any

import zmq
from support import patience

from engine.contract import Event, Linked, Received
from engine.mapreduce.messages import Scanned, Stop
from engine.wire import curve
from engine.wire.curve import Allowed
from engine.wire.endpoint import Listener

LOOPBACK = "tcp://127.0.0.1:*"
FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class People:
    """Everybody has a folder of keys of their own, with what they allow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public: dict[str, str] = {}
        self.lists: dict[str, dict[str, Allowed]] = {}

    def make(self, *names: str) -> None:
        for name in names:
            public, secret = curve.new_pair()
            home = self.folder / name
            home.mkdir(mode=0o700)
            for what, key, mode in (("secret", secret, 0o600), ("public", public, 0o644)):
                path = home / f"{name}.{what}"
                path.touch(mode)
                path.write_bytes(curve.key_line(what, name, key))
            self.public[name] = public
            self.write(name, "")

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def allow(self, where: str, **roles: str) -> None:
        """Names and roles, or `role member=N` and the like."""
        entries = self.lists.setdefault(where, {})
        for name, role in roles.items():
            words = [role.split(" ")[0], self.public[name], name, *role.split(" ")[1:]]
            entries[name] = next(iter(curve.parse_allowed(" ".join(words)).values()))
        self.write(where, "".join(f"{entry}\n" for entry in entries.values()))

    def write(self, where: str, text: str) -> None:
        """A list, at once as those who look at it see it."""
        path = self.folder / where / "allowed"
        made = path.with_suffix(".new")
        made.touch(0o600)
        made.write_text(text)
        os.replace(made, path)

    def ring(self, name: str) -> curve.Keyring:
        return curve.Keyring(self.path(name))


class Service:
    """A listener with keys whose loop is a thread; answers `Scanned(n)` with `Stop("n")`."""

    def __init__(self, keys: str, address: str = LOOPBACK, **options: Any) -> None:
        self.listener = Listener(address, token=keys, **options)
        self.address, self.counts = self.listener.address, self.listener.counts
        self.events: list[Event] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        sources = [getattr(one, "socket", one) for one in self.listener.pollables()]
        while not self._ended.is_set():
            zmq.zmq_poll([(source, zmq.POLLIN) for source in sources], 10)
            for event in self.listener.drain(100, 1 << 20):
                self.events.append(event)
                if isinstance(event, Received) and isinstance(event.message, Scanned):
                    self.listener.send(event.link, Stop(str(event.message.attempt)))

    def links(self) -> list[tuple[str, str, bool]]:
        linked = [e for e in self.events if isinstance(e, Linked)]
        return [(e.link.role, e.link.principal, e.up) for e in linked]

    def messages(self) -> list[Any]:
        return [e.message for e in self.events if isinstance(e, Received)]

    def close(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            self.listener.close()


class Raw:
    """A DEALER with the options that one likes, and what becomes of its handshake."""

    def __init__(self, address: str, *, linger: int = 0, **options: Any) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, linger)
        self.socket.setsockopt(zmq.RCVTIMEO, int(patience(10) * 1000))
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | FAILED)
        self.socket.connect(address)

    def gets_in(self, seconds: float = 10.0) -> bool | None:
        """None: neither in nor out, for so long."""
        if not self.monitor.poll(int(patience(seconds) * 1000)):
            return None
        event: int = struct.unpack_from("=H", self.monitor.recv_multipart()[0])[0]
        return event == zmq.EVENT_HANDSHAKE_SUCCEEDED

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.disable_monitor()
        self.context.destroy()


def pair_of(ring: curve.Keyring, server: str) -> dict[str, Any]:
    """Options of who has these keys and expects this server."""
    public, secret = ring.pair
    return {
        "CURVE_PUBLICKEY": public,
        "CURVE_SECRETKEY": secret,
        "CURVE_SERVERKEY": bytes.fromhex(server),
    }
