"""The flags of `engine kv` for Redis clients, and what they mean."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import EngineError, RefusedError, UsageError
from engine_cmd.flags import keys_flag

if TYPE_CHECKING:
    from engine.kv.up import Seat
    from engine.raft.replica import Gateway
    from engine.redis.tls import Certificate
    from engine.redis.users import UserList

PORT_MAX = 65535


def up_flags(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--redis",
        metavar="[HOST:]PORT",
        help="serve Redis clients too: replica 1 at this port, replica 2 at the next one, and so "
        "on; 0 for any ports that are free. HOST is 127.0.0.1, or with TLS and users any other",
    )
    _guard_flags(parser)
    keys_flag(parser, "token")


def serve_flags(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--redis",
        metavar="[HOST:]PORT",
        help="serve Redis clients too, there; 0 for any port that is free. HOST is 127.0.0.1, or "
        "with TLS and users any other",
    )
    _guard_flags(parser)
    parser.add_argument(
        "--redis-others",
        metavar="MEMBER=ENDPOINT,…",
        default="",
        help="where clients find the other members, for what Redis clients ask while one of those "
        "leads (default: as the folder of `engine kv up` has it)",
    )


TLS_FLAGS = ("redis_tls", "redis_tls_key", "redis_tls_ca")


def _guard_flags(parser: ArgumentParser) -> None:
    for name, metavar, what in (
        ("", "CERT", "have Redis clients speak TLS, with this certificate in PEM"),
        ("-key", "KEY", "its key in PEM, which nobody else can read"),
        ("-ca", "CA", "and let in those only whose certificate is by one of these"),
    ):
        parser.add_argument(f"--redis-tls{name}", metavar=metavar, default="", help=what)


class Guarded(NamedTuple):
    """Where Redis clients are served, and what is between them and the store."""

    host: str
    port: int
    certificate: Certificate | None
    users: UserList | None


def guarded(flags: Namespace) -> Guarded | None:
    """What the flags say, None without `--redis`; all that is to be read can be. UsageError,
    NotFoundError, RefusedError."""
    given = [f"--{name.replace('_', '-')}" for name in TLS_FLAGS if getattr(flags, name)]
    if flags.redis is None:
        if given:
            raise UsageError(f"{given[0]} is about Redis clients: give --redis as well.")
        return None
    if given and not (flags.redis_tls and flags.redis_tls_key):
        raise UsageError("--redis-tls and --redis-tls-key go together: a certificate and its key.")
    from engine.redis.door import beyond, parse_address
    from engine.redis.users import users_of

    host, port = parse_address(flags.redis)
    users, certificate = users_of(flags.token), None
    if beyond(host) and (users is None or not given):
        raise RefusedError(
            f"Redis clients are served beyond this machine, at {host}, with TLS and users only: "
            "give --redis-tls, --redis-tls-key, and --keys with users (`engine keys user add`)."
        )
    if given:
        from engine.redis.tls import Certificate

        certificate = Certificate(*[getattr(flags, name) for name in TLS_FLAGS])
    return Guarded(host, port, certificate, users)


class Ports:
    """Of the replicas that `engine kv up` starts, each held until the end."""

    def __init__(self, flags: Namespace, held: ExitStack) -> None:
        """UsageError, NotFoundError, RefusedError."""
        self._guarded, self._held = guarded(flags), held
        self.flags: Sequence[str] = ()
        """For all replicas."""
        given = [(f"--{n.replace('_', '-')}", getattr(flags, n)) for n in TLS_FLAGS]
        given.append(("--keys", flags.token if self._guarded is not None else ""))
        self.flags = [word for flag, value in given if value for word in (flag, value)]

    @property
    def address_of(self) -> Callable[[Seat], str] | None:
        """Where a replica serves Redis clients, if they are served."""
        return None if self._guarded is None else self._address_of

    def _address_of(self, seat: Seat) -> str:
        from engine.redis.door import reserved

        assert self._guarded is not None
        host, port, *_ = self._guarded
        port = port + seat.id - 1 if port else 0
        if port > PORT_MAX:
            raise UsageError(f"There is no port {port} for replica {seat.id}.")
        made = self._held.enter_context(reserved(port, host))
        return _shown(host, int(made.getsockname()[1]))


def gate(flags: Namespace) -> Callable[[], Gateway] | None:
    """What makes the gateway. UsageError, NotFoundError, RefusedError."""
    found = guarded(flags)
    if found is None:
        return None
    host, port, certificate, users = found
    others = _others(flags)

    def made() -> Gateway:
        from engine.redis.gateway import Gateway

        door: dict[str, Any] = {}
        if certificate is not None:
            from engine.redis.tls import TlsDoor

            door["door"] = partial(TlsDoor, certificate=certificate)
        shared = bool(flags.parent)
        return Gateway((host, port), others, token=flags.token, shared=shared, users=users, **door)

    return made


def _others(flags: Namespace) -> Callable[[], Mapping[int, str]]:
    from engine.raft.replica import parse_initial

    if flags.redis_others:
        fixed = parse_initial(flags.redis_others.split(","))
        return lambda: fixed
    folder = os.path.dirname(os.path.abspath(flags.dir))

    def as_the_folder_says() -> Mapping[int, str]:
        from engine.kv.up import found

        try:
            return {seat.member: seat.client for seat in found(folder)}
        except EngineError:
            return {}  # it is nobody's, or is being written: it is looked at again

    return as_the_folder_says


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
