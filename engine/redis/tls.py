"""TLS in front of the gateway: certificates, handshakes, and sockets like all others behind them.

Handshakes are done by the replica's loop, a few steps in each turn, for one costs as much as
hundreds of commands. There are a bounded number of them, and each has some seconds. Whoever is
through is a `Client` like any other: the only difference is in what its socket does.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import stat
from typing import Any

from engine.errors import NotFoundError, RefusedError
from engine.redis.door import READ_BYTES, Client, Door
from engine.wire.curve import file_state

SECONDS = 5.0
"""For a handshake."""
HANDSHAKES_MAX = 256
"""With more, the oldest has to go: honest ones take milliseconds."""
STEPS = 4
"""Of handshakes, in one turn."""
RECORD = 1 << 14
"""Bytes of plain text in a record of TLS, at most. Whoever reads so many has all of a record, and
nothing is left where epoll does not see it."""
HANDSHAKE = b"\x16"
"""What a handshake begins with, and no plain text does."""


class Tls(ssl.SSLSocket):
    """A socket that has to wait says so as others do; `over`: the other end has ended."""

    over = False

    def recv(self, buflen: int = READ_BYTES, flags: int = 0) -> bytes:
        """Whatever is there, up to about so much."""
        size, found = 0, list[bytes]()
        while size <= buflen - RECORD:
            try:
                data = super().recv(RECORD)
            except ssl.SSLWantReadError:
                if not found:
                    raise BlockingIOError from None
                break
            except OSError:
                if not found:
                    raise
                break  # it fails the next time as well
            if not data:
                self.over = True
                break
            found.append(data)
            size += len(data)
            if len(data) < RECORD:
                break  # that was a record's end, and epoll tells of the next
        return b"".join(found)

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except ssl.SSLWantWriteError:
            raise BlockingIOError from None


class Certificate:
    """A certificate with its key, and of whom clients need one, if they do; read again when one of
    the files has changed. As long as new ones are no good the old ones stay: `broken` says why."""

    def __init__(self, certificate: str, key: str, ca: str = "") -> None:
        """NotFoundError, RefusedError."""
        self._files = [one for one in (certificate, key, ca) if one]
        self._certificate, self._key, self._ca = certificate, key, ca
        self.broken = ""
        self._seen = self._state()
        self._context = self._made()

    def fresh(self) -> None:
        """Look again."""
        seen = self._state()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._context, self.broken = self._made(), ""
        except (NotFoundError, RefusedError) as error:
            self.broken = str(error)

    def wrap(self, plain: socket.socket) -> Tls:
        """A server's end that has shaken no hands yet. OSError."""
        made = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        assert isinstance(made, Tls)
        return made

    def _state(self) -> list[tuple[int, ...]]:
        return [file_state(path) for path in self._files]

    def _made(self) -> ssl.SSLContext:
        for path in self._files:
            _check(path, private=path == self._key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
        context.num_tickets = 0  # a session that goes on would not be asked for its certificate
        context.sslsocket_class = Tls
        try:
            context.load_cert_chain(self._certificate, self._key, _no_passphrase)
        except (OSError, ValueError) as error:
            raise RefusedError(
                f"{self._certificate} and {self._key} are not a certificate and its key in PEM: "
                f"{_reason(error)}."
            ) from None
        if self._ca:
            try:
                context.load_verify_locations(self._ca)
            except (OSError, ValueError) as error:
                raise RefusedError(
                    f"{self._ca} has no certificates in PEM: {_reason(error)}."
                ) from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _check(path: str, *, private: bool) -> None:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
    except FileNotFoundError:
        raise NotFoundError(f"There is no certificate or key {path} for TLS.") from None
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}.") from None
    if private and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RefusedError(f"The key {path} is open to other users: run chmod 600 {path}.")


def _no_passphrase() -> str:
    raise ValueError("it asks for a passphrase, which nobody is here to give")


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).lower().replace("_", " ").rstrip(".")


class Shaking:
    """A connection that has not shaken hands yet; it costs little before it says anything."""

    __slots__ = ("mask", "socket", "until")

    def __init__(self, plain: socket.socket, until: float) -> None:
        self.socket, self.until, self.mask = plain, until, select.EPOLLIN


class TlsDoor(Door):
    """A door for those only who speak TLS."""

    full = b""

    def __init__(self, *arguments: Any, certificate: Certificate, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.certificate = certificate
        self._shaking: dict[int, Shaking] = {}
        """By descriptor, oldest first."""
        self._steps = STEPS
        self.counts["handshakes"] = 0

    @property
    def crowd(self) -> int:
        return len(self.clients) + len(self._shaking)

    @property
    def complaint(self) -> str:
        broken = self.certificate.broken
        return f"The certificate from before is used on: {broken}" if broken else ""

    def drain(self, now: float) -> None:
        self._steps = STEPS
        super().drain(now)

    def look(self, now: float) -> None:
        for fd, one in list(self._shaking.items()):
            if one.until > now:
                break
            self._fail(fd, "late")
        self.certificate.fresh()

    # --- handshakes ------------------------------------------------------------------------------

    def _let_in(self, made: socket.socket, now: float) -> None:
        if len(self._shaking) >= HANDSHAKES_MAX:
            self._fail(next(iter(self._shaking)), "crowd")
        fd = made.fileno()
        self._epoll.register(fd, select.EPOLLIN)
        self._shaking[fd] = Shaking(made, now + SECONDS)

    def _other(self, fd: int, now: float) -> None:
        if fd not in self._shaking:
            super()._other(fd, now)
        elif self._steps > 0:  # the others' turn comes: epoll says it again
            self._steps -= 1
            self._step(fd, self._shaking[fd], now)

    def _step(self, fd: int, one: Shaking, now: float) -> None:
        mask = select.EPOLLIN
        try:
            if not isinstance(one.socket, Tls):
                first = one.socket.recv(1, socket.MSG_PEEK)
                if first != HANDSHAKE:
                    self._fail(fd, "plaintext" if first else "")
                    return
                one.socket = self.certificate.wrap(one.socket)
            assert isinstance(one.socket, Tls)
            one.socket.do_handshake()
        except (BlockingIOError, InterruptedError):
            return
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            mask = select.EPOLLOUT
        except (OSError, ValueError):
            self._fail(fd, "tls")
            return
        else:
            del self._shaking[fd]
            self._epoll.unregister(fd)
            self.counts["handshakes"] += 1
            super()._let_in(one.socket, now)
            return
        if mask != one.mask:
            one.mask = mask
            self._epoll.modify(fd, mask)

    def _fail(self, fd: int, why: str) -> None:
        """Close it; those who said nothing at all and went are nobody's business."""
        one = self._shaking.pop(fd)
        if why:
            self.refused(why)
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass  # it was closed under our hands, and epoll knows
        one.socket.close()

    # --- those who are through -------------------------------------------------------------------

    def _read(self, client: Client) -> int:
        size = super()._read(client)
        made: Any = client.socket
        if made.over and not client.stream.closed and not client.ending:
            client.ending = True
            self._dirty[client] = None
        return size

    def drop(self, client: Client, *, ended: bool = False) -> None:
        made: Any = client.socket
        if ended and not client.stream.closed:
            try:
                made.unwrap()  # which says that nothing is missing, and does not wait
            except (OSError, ValueError):
                pass  # it does not listen any more
        super().drop(client, ended=ended)

    def close(self) -> None:
        for fd in list(self._shaking):
            self._fail(fd, "")
        super().close()
