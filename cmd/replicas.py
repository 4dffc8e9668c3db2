"""Flags of whoever serves as a member of a replicated group, and what they mean."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from engine.errors import UsageError
from engine_cmd.flags import natural

if TYPE_CHECKING:
    from engine.raft.replica import Plan
    from engine.raft.server import Limits

SEGMENT_BYTES_MIN = 4096


def replica_flags(parser: ArgumentParser) -> None:
    """Where it is, where it listens, and how patient it is."""
    parser.add_argument("--dir", metavar="DIR", required=True, help="made by `engine raft init`")
    parser.add_argument(
        "--initial",
        metavar="MEMBER=ENDPOINT,…",
        default="",
        help="who founds the group; counts at the first start only, and without it the member "
        "waits until it is added",
    )
    for name, who in (("listen", "peers"), ("clients", "clients"), ("admin", "operators")):
        where = "admin" if name == "admin" else who
        parser.add_argument(
            f"--{name}", metavar="ENDPOINT", default="", help=f"for {who} (default: DIR/{where})"
        )
    for name, who in (("", "peers"), ("clients", "clients"), ("admin", "operators")):
        parser.add_argument(
            f"--advertise-{name}".removesuffix("-"),
            metavar="ENDPOINT",
            default="",
            help=f"what {who} are told, if it is not where this member listens for them",
        )
    parser.add_argument(
        "--timing", choices=("lan", "labs"), default="lan", help="patience (default: lan)"
    )
    parser.add_argument(
        "--segment-bytes",
        metavar="N",
        type=natural,
        default=64 << 20,
        help="size of the log's files (default: 64 MiB)",
    )


def plan_of(
    flags: Namespace, limits: Limits, *, trace: str = "", cache_bytes: int | None = None
) -> Plan:
    """What the flags say. UsageError. `cache_bytes` of the log's end stay in memory."""
    from engine.raft.replica import Plan, parse_initial
    from engine.raft.settings import LABS, LAN
    from engine.storage.log import LogSettings
    from engine_cmd.flags import token_made

    endpoints = (flags.listen, flags.clients, flags.admin)
    if flags.segment_bytes < SEGMENT_BYTES_MIN:
        raise UsageError(f"Segments of the log have {SEGMENT_BYTES_MIN} bytes or more.")
    tcp = next((one for one in endpoints if one.startswith("tcp://")), "")
    log = LogSettings(flags.segment_bytes)
    if cache_bytes is not None:
        log = log._replace(cache_bytes=cache_bytes)
    return Plan(
        flags.dir,
        *endpoints,
        advertised=(flags.advertise, flags.advertise_clients, flags.advertise_admin),
        initial=parse_initial(flags.initial.split(",") if flags.initial else ()),
        timing={"lan": LAN, "labs": LABS}[flags.timing],
        limits=limits,
        log=log,
        token=token_made(tcp, flags.token),
        via=dict(flags.via),
        trace=trace,
        as_json=flags.json,
    )
