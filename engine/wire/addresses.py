"""Where a server may listen: a private ipc socket, loopback TCP behind a token, or TCP with keys.

=========================  ====================================================================
`ipc://*`                  a socket in a fresh directory that only its owner can enter
`ipc://PATH`               the same in a directory of the caller's, which must be as private
`tcp://127.0.0.1:PORT`     loopback, PORT may be `*`; needs a token (`engine.wire.keys`) or keys
`tcp://ADDRESS:PORT`       any other; needs keys (`engine.wire.curve`), and all is encrypted
=========================  ====================================================================

A server is given the number of its interface, 0.0.0.0 for all, and never a name; whoever dials may
say a name. An IPv6 address stands in [brackets]. Anything else is refused, in both directions: what
is not encrypted may not leave the machine.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from typing import Any

from engine.errors import RefusedError, UsageError
from engine.wire import keys

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
    if os.path.islink(directory):
        raise RefusedError(
            f"{directory} is a symbolic link, which may lead elsewhere tomorrow: name the folder."
        )
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
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not address.startswith(_LOOPBACK):
        if not address.startswith("tcp://") or token is None or not keys.is_keys(token):
            raise RefusedError(
                f"{address} is not on this machine's loopback: use ipc://PATH or {_LOOPBACK}PORT, "
                "or tcp:// with a folder of keys (`engine keys --help`)."
            )
        _check_host(address, host, listens=allow_wildcard)
    if not (allow_wildcard and port == "*") and not (port.isascii() and port.isdigit()):
        raise UsageError(f"{address} names no port: use {_LOOPBACK}PORT.")
    if port != "*" and not 0 < int(port) < 65536:
        raise UsageError(f"{address}: a port is a number from 1 to 65535.")
    if token is None:
        raise RefusedError(
            f"{address} can be reached by every user of this machine, so it needs a token file."
        )


def _check_host(address: str, host: str, *, listens: bool) -> None:
    """UsageError. A name is looked up anew whenever it is dialed, which keys make harmless."""
    import ipaddress

    try:
        number = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        if listens or not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", host, re.ASCII):
            what = "the number of an interface" if listens else "a host"
            raise UsageError(f"{address} does not name {what}: use tcp://10.0.0.1:PORT.") from None
        return
    if (number.version == 6) != host.startswith("["):
        raise UsageError(f"{address}: an IPv6 address, and no other, stands in [brackets].")
    if number.is_unspecified and not listens:
        raise UsageError(f"{address} is nobody's address: dial the one that a server advertises.")


def _is_text(path: str) -> bool:
    """False for a path with bytes that are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
