"""The flags of `engine kv` for Redis clients, and what they mean."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, UsageError
from engine_cmd.flags import natural

if TYPE_CHECKING:
    from engine.kv.up import Seat
    from engine.raft.replica import Gateway

PORT_MAX = 65535


def up_flag(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--redis",
        metavar="PORT",
        type=natural,
        help="serve Redis clients of this machine too: replica 1 at this port, replica 2 at the "
        "next one, and so on; 0 for any ports that are free",
    )


def serve_flags(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--redis",
        metavar="[HOST:]PORT",
        help="serve Redis clients of this machine too, there; 0 for any port that is free",
    )
    parser.add_argument(
        "--redis-others",
        metavar="MEMBER=ENDPOINT,…",
        default="",
        help="where clients find the other members, for what Redis clients ask while one of those "
        "leads (default: as the folder of `engine kv up` has it)",
    )


def ports(flags: Namespace, held: ExitStack) -> Callable[[Seat], int] | None:
    """Which port a replica has, each held until the end. UsageError."""
    if flags.redis is None:
        return None
    from engine.redis.door import reserved

    def port_of(seat: Seat) -> int:
        port = flags.redis + seat.id - 1 if flags.redis else 0
        if port > PORT_MAX:
            raise UsageError(f"There is no port {port} for replica {seat.id}.")
        made = held.enter_context(reserved(port))
        return int(made.getsockname()[1])

    return port_of


def gate(flags: Namespace) -> Callable[[], Gateway] | None:
    """What makes the gateway. UsageError, RefusedError."""
    if flags.redis is None:
        return None
    from engine.redis.door import parse_address

    address = parse_address(flags.redis)
    others = _others(flags)

    def made() -> Gateway:
        from engine.redis.gateway import Gateway

        return Gateway(address, others, token=flags.token, shared=bool(flags.parent))

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


def told(counters: Mapping[str, Any]) -> str | None:
    """Where a replica serves Redis clients, by its counters."""
    port = counters.get("redis_port")
    return f"127.0.0.1:{port}" if port else None
