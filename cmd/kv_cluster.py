"""The verbs of `engine kv` for whoever runs a cluster."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from engine.errors import ConnectionFailed, EngineError, UsageError
from engine_cmd import kv_redis
from engine_cmd.flags import Parser, client_flags, connection_flags, named, natural, shown
from engine_cmd.kv_flags import kv_parser, said
from engine_cmd.replicas import plan_of, replica_flags

if TYPE_CHECKING:
    from engine.kv.reach import Place, Reach
    from engine.kv.up import Keeper, Seat
    from engine.raft.requests import Slow

SNAPSHOT_BYTES = 64 << 20
CACHE_BYTES = 16 << 20
"""Of the log, for followers that are a little behind; the others read the disk."""

# --- servers -------------------------------------------------------------------------------------


def up(argv: list[str]) -> int:
    """start a cluster on this machine, and keep it up"""
    parser = kv_parser("up", "Start a cluster in a folder, made if need be, and keep it up.")
    _up_flags(parser)
    flags = parser.parse_args(argv)
    if flags.detach:
        return _detached(argv)
    from engine.kv.up import Keeper, keep

    more = ["--snapshot-bytes", str(flags.snapshot_bytes), "--timing", flags.timing]
    with ExitStack() as held:
        redis = kv_redis.Ports(flags, held)
        more += redis.flags
        restart, redis_of = not flags.no_restart, redis.address_of
        made = Keeper(flags.dir, flags.replicas, more, restart=restart, redis_of=redis_of)
        keep(held.enter_context(made), lambda keeper: _told(flags, keeper))
    return 0


def _up_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--dir", metavar="DIR", required=True)
    parser.add_argument(
        "--replicas", metavar="N", type=natural, default=0, help="1 to 9 (default: 3)"
    )
    parser.add_argument("--detach", action="store_true", help="return when somebody leads")
    parser.add_argument("--no-restart", action="store_true", help="let the dead be dead")
    parser.add_argument("--json", action="store_true", help="one JSON object once it serves")
    _store_flags(parser)
    parser.add_argument(
        "--timing", choices=("lan", "labs"), default="lan", help="patience (default: lan)"
    )
    kv_redis.up_flags(parser)


def _store_flags(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--snapshot-bytes",
        metavar="N",
        type=natural,
        default=SNAPSHOT_BYTES,
        help="of the log, after which a snapshot is taken (default: 64 MiB); 0 for never",
    )


def _told(flags: Namespace, keeper: Keeper) -> None:
    seats = [{"id": s.id, "pid": keeper.pid(s), "client": s.client} for s in keeper.seats]
    for seat in seats:
        if seat["id"] in keeper.redis:
            seat["redis"] = keeper.redis[seat["id"]]
    if flags.json:
        shown({"dir": os.path.abspath(flags.dir), "replicas": seats})
        return
    for seat in seats:
        redis = f", Redis clients at {seat['redis']}" if "redis" in seat else ""
        print(f"replica {seat['id']} (pid {seat['pid']}) at {seat['client']}{redis}")
    print(f"engine kv status --cluster {flags.dir}", flush=True)


def _detached(argv: list[str]) -> int:
    """Start it in a session of its own; its first words are ours."""
    import subprocess

    rest = [word for word in argv if word != "--detach"]
    folder = rest[rest.index("--dir") + 1] if "--dir" in rest else ""
    if not folder:
        folder = next(word for word in rest if word.startswith("--dir=")).removeprefix("--dir=")
    os.makedirs(folder, 0o700, exist_ok=True)
    command = [sys.executable, "-m", "engine_cmd.main", "kv", "up", *rest]
    log_name = os.path.join(folder, "up.log")
    with open(log_name, "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdout is not None
    as_json, serves = "--json" in rest, False
    for line in process.stdout:
        sys.stdout.write(line.decode())
        serves = _serves(line, as_json)
        if serves:
            break
    sys.stdout.flush()
    if serves:
        return 0
    code = process.wait()
    if not as_json:
        with open(log_name, encoding="utf-8", errors="replace") as told:
            sys.stderr.write("".join(told.readlines()[-1:]))
    return code or 1


def _serves(line: bytes, as_json: bool) -> bool:
    """Whether the cluster is up, by this line of its keeper's; it may be an error."""
    import json

    if as_json:
        return "replicas" in json.loads(line)
    return line.startswith(b"engine kv status")


def down(argv: list[str]) -> int:
    """end a cluster that is up"""
    parser = kv_parser("down", "End the cluster that is up in a folder; nothing is lost.")
    parser.add_argument("--dir", metavar="DIR", required=True)
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    flags = parser.parse_args(argv)
    from engine.kv.up import end

    pid = end(flags.dir)
    if flags.json:
        shown({"dir": os.path.abspath(flags.dir), "ended": pid, "error": None})
    return 0


def serve(argv: list[str]) -> int:
    """be one replica, until it is ended"""
    parser = kv_parser("serve", "Be the replica whose folder this is, until it is ended.")
    replica_flags(parser)
    _store_flags(parser)
    parser.add_argument(
        "--parent", metavar="PID", type=natural, default=0, help="end when this parent does"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object when it serves")
    connection_flags(parser, "; made if it is not there")
    kv_redis.serve_flags(parser)
    flags = parser.parse_args(argv)
    gate = kv_redis.gate(flags)
    if flags.parent:
        _end_with(flags.parent)
    from engine.kv.server import serve as serve_replica
    from engine.raft.server import Limits

    reserve = min(1 << 20, flags.segment_bytes // 4)
    limits = Limits(0, flags.snapshot_bytes, reserve)
    serve_replica(plan_of(flags, limits, cache_bytes=CACHE_BYTES), gate)
    return 0


def _end_with(parent: int) -> None:
    import signal

    from engine.kernels.process import parent_death_signal

    parent_death_signal(signal.SIGTERM)
    if os.getppid() != parent:
        raise ConnectionFailed(f"Process {parent} is not my parent (any more).")


def operating(parser: Parser, argv: list[str]) -> Namespace:
    """With what every verb takes that asks replicas as their operator."""
    client_flags(parser, "the folder of `engine kv up`, or the replicas' --admin endpoints: A,B,C")
    flags: Namespace = parser.parse_args(argv)
    return flags


def _reach(flags: Namespace) -> Reach:
    from engine.kv.reach import reached

    return reached(named(flags.cluster, "DIR or ENDPOINTS"), flags.token, dict(flags.via))


def status(argv: list[str]) -> int:
    """say what the replicas know of themselves"""
    parser = kv_parser("status", "Say what each replica of a cluster knows of itself.")
    flags = operating(parser, argv)
    reach = _reach(flags)
    seats, told = reach.seats, reach.statuses(min(flags.timeout or 2.0, 2.0))
    here = f"{len(told)} of {len(seats)} replicas reachable"
    leaders = [(one.term, seat.id) for seat in seats if (one := told.get(seat.id)) and _leads(one)]
    leader = max(leaders)[1] if leaders else None
    if flags.json:
        replicas = [_plain(seat, told.get(seat.id)) for seat in seats]
        term = max((one.term for one in told.values()), default=None)
        error = None if leader is not None else f"Nobody leads: {here}."
        shown({"leader": leader, "term": term, "replicas": replicas, "error": error})
    else:
        for seat in seats:
            print(_line(seat, told.get(seat.id)))
        if leader is None:
            raise ConnectionFailed(f"Nobody leads: {here}.")
    return 0 if leader is not None else ConnectionFailed.exit_code


def _leads(status: Any) -> bool:
    return bool(status.role == "leader")


def _plain(seat: Seat | Place, status: Any) -> dict[str, Any]:
    known = _known(seat, status)
    if status is None:
        return {**known, "reachable": False}
    return {
        **known,
        "reachable": True,
        "pid": status.pid,
        "role": status.role,
        "term": status.term,
        "commit": status.commit,
        "applied": status.applied,
        "revision": status.commands,
        "digest": status.digest,
        "snapshot": status.snapshot,
        "disk_bytes": status.disk_bytes,
        "redis": status.redis or None,
        "log_bytes": status.log_bytes,
        "figures": dict(status.figures),
        "counters": dict(status.counters),
        "slow": [_slow(one) for one in status.slow],
    }


def _slow(one: Slow) -> dict[str, Any]:
    """A request that took long."""
    from engine.kv.slow import shown as shown_key

    return {**one._asdict(), "key": shown_key(one.key, one.cut)}


def _known(seat: Seat | Place, status: Any) -> dict[str, Any]:
    """Who it is, and where its clients are heard; null if nobody knows."""
    told = (None, None) if status is None else (status.member, status.clients)
    member, client = getattr(seat, "member", told[0]), getattr(seat, "client", told[1])
    return {"id": seat.id, "member": member, "client": client}


def _line(seat: Seat | Place, status: Any) -> str:
    if status is None:
        return f"replica {seat.id}: nobody answers at {seat.admin}"
    return (
        f"replica {seat.id} (pid {status.pid}): {status.role} of term {status.term}, revision "
        f"{status.commands}, committed {status.commit}, applied {status.applied}"
    )


def member(argv: list[str]) -> int:
    """add, remove and replace replicas, or let another one lead"""
    parser = kv_parser("member", "Change who belongs to a cluster, while it serves.")
    parser.add_argument("what", choices=("list", "add", "remove", "replace", "lead"))
    parser.add_argument(
        "id", metavar="ID", type=natural, nargs="?", default=0, help="as `engine kv status` has it"
    )
    flags = operating(parser, argv)
    from engine.kv import members

    reach = _reach(flags)
    folder = reach.folder
    if flags.what in ("remove", "replace") and not flags.id:
        raise UsageError(f"Which replica? Give `engine kv member {flags.what}` its ID.")
    if flags.what in ("add", "remove", "replace") and not folder:
        raise UsageError(
            f"`engine kv member {flags.what}` needs the folder of `engine kv up`, in which it "
            "makes and starts replicas; of others, `engine raft members` changes who belongs to "
            "them."
        )
    if flags.what == "lead":
        members.lead(reach, flags.id)
    elif flags.what == "remove":
        members.remove(folder, flags.id)
    elif flags.what != "list":
        new = members.add(folder) if flags.what == "add" else members.replace(folder, flags.id)
        said(flags, {"id": new.id, "member": new.member}, str(new.id))
        return 0
    told = {} if folder else reach.statuses()
    seats = [_known(seat, told.get(seat.id)) for seat in _reach(flags).seats]
    lines = "\n".join(f"{seat['id']}\t{seat['client'] or 'nobody answers'}" for seat in seats)
    said(flags, {"replicas": seats}, lines if flags.what == "list" else "")
    return 0


def snapshot(argv: list[str]) -> int:
    """write a backup of a running cluster into a file"""
    parser = kv_parser("snapshot", "Write a backup: all that was acknowledged by now is in it.")
    parser.add_argument("file", metavar="FILE")
    flags = operating(parser, argv)
    from engine.kv.backup import save

    taken = save(_reach(flags), flags.file, timeout=flags.timeout)
    result = {"file": flags.file, "revision": taken.revision, "bytes": taken.size}
    said(flags, result, f"revision {taken.revision}, {taken.size} bytes")
    return 0


def restore(argv: list[str]) -> int:
    """make a new cluster from a backup"""
    parser = kv_parser("restore", "Make a new cluster in a folder from a backup, for `kv up`.")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--dir", metavar="DIR", required=True, help="a new folder")
    parser.add_argument("--replicas", metavar="N", type=natural, default=3, help="default: 3")
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    flags = parser.parse_args(argv)
    from engine.kv.backup import restore as restored

    seats = restored(flags.file, flags.dir, flags.replicas)
    result = {"dir": os.path.abspath(flags.dir), "replicas": [{"id": seat.id} for seat in seats]}
    said(flags, result, f"engine kv up --dir {flags.dir}")
    return 0


def hash_(argv: list[str]) -> int:
    """compare what the replicas have"""
    parser = kv_parser("hash", "A sum over all keys of each replica; 1 if they are not the same.")
    flags = operating(parser, argv)
    from engine.kv.backup import hashes

    told = hashes(_reach(flags), timeout=flags.timeout)
    rows = {
        number: one and {"revision": one.revision, "hash": f"{one.crc:08x}"}
        for number, one in told.items()
    }
    of: dict[int, set[int]] = {}
    for one in told.values():
        if one is not None:
            of.setdefault(one.revision, set()).add(one.crc)
    differ = any(len(sums) > 1 for sums in of.values())
    error = "Replicas of one revision differ: replace the one that is alone." if differ else None
    if flags.json:
        replicas = [
            {"id": n, "reachable": row is not None, **(row or {})} for n, row in rows.items()
        ]
        shown({"replicas": replicas, "error": error})
        return EngineError.exit_code if error else 0
    for number, row in rows.items():
        what = f"{row['hash']} at revision {row['revision']}" if row else "nobody answers"
        print(f"replica {number}: {what}")
    if error:
        raise EngineError(error)
    return 0
