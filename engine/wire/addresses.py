"""Where a server may listen: a private ipc socket, or loopback TCP behind a token.

=========================  ====================================================================
`ipc://*`                  a socket in a fresh directory that only its owner can enter
`ipc://PATH`               the same in a directory of the caller's, which must be as private
`tcp://127.0.0.1:PORT`     loopback, PORT may be `*`; needs a token (`engine.wire.keys`)
=========================  ====================================================================

Anything else is refused, in both directions: there is no encryption here, so no byte of ours may
leave the machine.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Any

from engine.errors import RefusedError, UsageError

IPC_PATH_MAX = 107 if sys.platform == "linux" else 103
"""Bytes of a Unix socket's path, from `struct sockaddr_un`."""

_LOOPBACK = "tcp://127.0.0.1:"


def private_address() -> str:
    """An ipc address in a new directory of mode 0700, short enough to bind."""
    for root in (os.environ.get("TMPDIR"), os.environ.get("XDG_RUNTIME_DIR"), "/tmp"):
        path = os.path.join(root or "", f"engine-{os.urandom(8).hex()}")
        if root and fits_socket(path + "/s") and os.access(root, os.W_OK):
            os.mkdir(path, 0o700)
            return f"ipc://{path}/s"
    raise UsageError("No directory for a private socket: set TMPDIR to a short writable path.")


def fits_socket(path: str) -> bool:
    """Whether a socket can have this path: short enough, and text as ZeroMQ takes it."""
    return len(os.fsencode(path)) <= IPC_PATH_MAX and _is_text(path)


def check_listen(address: str, token: str | None) -> None:
    """RefusedError or UsageError, with a sentence, unless a server may listen there.

    Two servers that check the same path at the same moment are kept apart by the caller's lock on
    its directory, not here.
    """
    _check_kind(address, token, allow_wildcard=True)
    if not address.startswith("ipc://"):
        return
    path = address.removeprefix("ipc://")
    directory = os.path.dirname(os.path.abspath(path))
    try:
        status = os.stat(directory)
    except OSError as error:
        raise UsageError(f"Cannot listen at {address}: {error.strerror}.") from None
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RefusedError(
            f"{directory} is open to other users, who could then give orders here: "
            f"listen in a directory of your own with mode 0700."
        )
    _clear(path)


def _clear(path: str) -> None:
    """Remove the socket of a server that died. A second bind would take a living one's place."""
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise RefusedError(f"{path} is a file, not a socket: name another address.")
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise RefusedError(
                f"{holder_of(f'ipc://{path}').capitalize()} listens at {path}: stop it or name "
                "another address."
            )
    os.unlink(path)


def holder_of(address: str) -> str:
    """Who listens at an address of this machine, in words, as far as this user can find out."""
    import psutil

    tcp = address.startswith(_LOOPBACK)
    place = address.removeprefix(_LOOPBACK if tcp else "ipc://")
    try:
        for found in psutil.net_connections("tcp" if tcp else "unix"):
            where: Any = found.laddr
            if tcp:
                there = found.status == psutil.CONN_LISTEN and str(where.port) == place
            else:
                there = where == place
            if there and found.pid:
                return f"process {found.pid} ({' '.join(psutil.Process(found.pid).cmdline())})"
    except psutil.Error:
        pass  # it ended meanwhile, or belongs to somebody else
    return "another process"


def remove(path: str) -> None:
    """Unlink our own socket; one that is gone already is fine. OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def check_dial(address: str, token: str | None) -> None:
    """RefusedError or UsageError, with a sentence, unless it may be dialled."""
    _check_kind(address, token, allow_wildcard=False)


def _check_kind(address: str, token: str | None, *, allow_wildcard: bool) -> None:
    if address.startswith("ipc://"):
        if not _is_text(address):
            raise RefusedError(
                f"The socket path in {address!a} is not UTF-8, and ZeroMQ takes no other: "
                "name another one, or set TMPDIR."
            )
        path = os.fsencode(address.removeprefix("ipc://"))
        if not 0 < len(path) <= IPC_PATH_MAX:
            raise UsageError(
                f"The socket path in {address} has {len(path)} bytes; 1 to {IPC_PATH_MAX} work."
            )
        return
    if not address.startswith(_LOOPBACK):
        raise RefusedError(
            f"{address} is not on this machine's loopback: use ipc://PATH or {_LOOPBACK}PORT."
        )
    port = address.removeprefix(_LOOPBACK)
    if not (allow_wildcard and port == "*") and not (port.isascii() and port.isdigit()):
        raise UsageError(f"{address} names no port: use {_LOOPBACK}PORT.")
    if port != "*" and not 0 < int(port) < 65536:
        raise UsageError(f"{address}: a port is a number from 1 to 65535.")
    if token is None:
        raise RefusedError(
            f"{address} can be reached by every user of this machine, so it needs a token file."
        )


def _is_text(path: str) -> bool:
    """False for a path with bytes that are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
