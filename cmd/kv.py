"""`engine kv`: a replicated key/value store."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from engine.errors import ConnectionFailed, EngineError, NotFoundError, UsageError
from engine_cmd.flags import Family, Parser, client_flags, connection_flags, named, natural, shown
from engine_cmd.replicas import plan_of, replica_flags

if TYPE_CHECKING:
    from engine.kv.calls import Found
    from engine.kv.client import Store
    from engine.kv.up import Keeper, Seat

EXAMPLES = """\
examples:
  engine kv up --replicas 3 --dir store     three replicas, until Ctrl-C; in another terminal:
  export ENGINE_CLUSTER=store
  engine kv put greeting hello
  engine kv get greeting
  engine kv watch --prefix g
  engine kv status

A cluster is named by the folder of `engine kv up`, or by the clients' endpoints of its replicas.
Exit codes: 3 not found or not as expected, 4 nobody leads or can be reached, 5 the outcome is
unknown, 6 refused.
"""

SNAPSHOT_BYTES = 64 << 20
TXN_HELP = """\
Do `then` if all compares hold, else `else`. FILE has one JSON object:
  {"if": [["key", "version", "=", 0], ["key", "value", "!=", "text"]],
   "then": [["put", "key", "text"], ["append", "key", "text"], ["delete", "key"]],
   "else": [["get", "key"], ["range", "start", "end"]]}
Compares are of value, version, create, mod or lease, with = != < >. Exit code 3 if they do not hold
and there is no `else`.
"""


# --- servers -------------------------------------------------------------------------------------


def up(argv: list[str]) -> int:
    """start a cluster on this machine, and keep it up"""
    parser = KV.parser("up", "Start a cluster in a folder, made if need be, and keep it up.")
    _up_flags(parser)
    flags = parser.parse_args(argv)
    if flags.detach:
        return _detached(argv)
    from engine.kv.up import Keeper, keep

    more = ["--snapshot-bytes", str(flags.snapshot_bytes), "--timing", flags.timing]
    with Keeper(flags.dir, flags.replicas, more, restart=not flags.no_restart) as keeper:
        keep(keeper, lambda keeper: _told(flags, keeper))
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
    if flags.json:
        shown({"dir": os.path.abspath(flags.dir), "replicas": seats})
        return
    for seat in seats:
        print(f"replica {seat['id']} (pid {seat['pid']}) at {seat['client']}")
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
    as_json = "--json" in rest
    said = 0
    for line in process.stdout:
        sys.stdout.write(line.decode())
        said += 1
        if as_json or line.startswith(b"engine kv status"):
            break
    sys.stdout.flush()
    if process.poll() is not None or not said:
        code = process.wait()
        if not as_json:
            with open(log_name, encoding="utf-8", errors="replace") as told:
                sys.stderr.write("".join(told.readlines()[-1:]))
        return code or 1
    return 0


def down(argv: list[str]) -> int:
    """end a cluster that is up"""
    parser = KV.parser("down", "End the cluster that is up in a folder; nothing is lost.")
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
    parser = KV.parser("serve", "Be the replica whose folder this is, until it is ended.")
    replica_flags(parser)
    _store_flags(parser)
    parser.add_argument(
        "--parent", metavar="PID", type=natural, default=0, help="end when this parent does"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object when it serves")
    connection_flags(parser, "; made if it is not there")
    flags = parser.parse_args(argv)
    if flags.parent:
        _end_with(flags.parent)
    from engine.kv.server import serve as serve_replica
    from engine.raft.server import Limits

    reserve = min(1 << 20, flags.segment_bytes // 4)
    serve_replica(plan_of(flags, Limits(0, flags.snapshot_bytes, reserve)))
    return 0


def _end_with(parent: int) -> None:
    import signal

    from engine.kernels.process import parent_death_signal

    parent_death_signal(signal.SIGTERM)
    if os.getppid() != parent:
        raise ConnectionFailed(f"Process {parent} is not my parent (any more).")


def status(argv: list[str]) -> int:
    """say what the replicas know of themselves"""
    parser = KV.parser("status", "Say what each replica of a cluster's folder knows of itself.")
    client_flags(parser, "the folder of `engine kv up`")
    flags = parser.parse_args(argv)
    from engine.kv.up import found, statuses

    seats = found(named(flags.cluster, "DIR"))
    told = statuses(seats, min(flags.timeout or 2.0, 2.0))
    leaders = [(one.term, seat.id) for seat in seats if (one := told.get(seat.id)) and _leads(one)]
    leader = max(leaders)[1] if leaders else None
    if flags.json:
        replicas = [_plain(seat, told.get(seat.id)) for seat in seats]
        term = max((one.term for one in told.values()), default=None)
        shown({"leader": leader, "term": term, "replicas": replicas, "error": None})
    else:
        for seat in seats:
            print(_line(seat, told.get(seat.id)))
        if leader is None:
            print(f"nobody leads: {len(told)} of {len(seats)} replicas reachable")
    if not told:
        raise ConnectionFailed(f"0 of {len(seats)} replicas reachable.")
    return 0 if leader is not None else ConnectionFailed.exit_code


def _leads(status: Any) -> bool:
    return bool(status.role == "leader")


def _plain(seat: Seat, status: Any) -> dict[str, Any]:
    if status is None:
        return {"id": seat.id, "member": seat.member, "client": seat.client, "reachable": False}
    return {
        "id": seat.id,
        "member": seat.member,
        "client": seat.client,
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
        "counters": dict(status.counters),
    }


def _line(seat: Seat, status: Any) -> str:
    if status is None:
        return f"replica {seat.id}: nobody answers at {seat.admin}"
    return (
        f"replica {seat.id} (pid {status.pid}): {status.role} of term {status.term}, revision "
        f"{status.commands}, committed {status.commit}, applied {status.applied}"
    )


def member(argv: list[str]) -> int:
    """add, remove and replace replicas, or let another one lead"""
    parser = KV.parser("member", "Change who belongs to a cluster, while it serves.")
    parser.add_argument("what", choices=("list", "add", "remove", "replace", "lead"))
    parser.add_argument(
        "id", metavar="ID", type=natural, nargs="?", default=0, help="as `engine kv status` has it"
    )
    flags = _asked(parser, argv)
    from engine.kv import members
    from engine.kv.up import found

    folder = named(flags.cluster, "DIR")
    if flags.what in ("remove", "replace") and not flags.id:
        raise UsageError(f"Which replica? Give `engine kv member {flags.what}` its ID.")
    if flags.what == "lead":
        members.lead(folder, flags.id)
    elif flags.what == "remove":
        members.remove(folder, flags.id)
    elif flags.what != "list":
        new = members.add(folder) if flags.what == "add" else members.replace(folder, flags.id)
        return _said(flags, {"id": new.id, "member": new.member}, str(new.id))
    seats = [{"id": s.id, "member": s.member, "client": s.client} for s in found(folder)]
    lines = "\n".join(f"{seat['id']}\t{seat['client']}" for seat in seats)
    return _said(flags, {"replicas": seats}, lines if flags.what == "list" else "")


def snapshot(argv: list[str]) -> int:
    """write a backup of a running cluster into a file"""
    parser = KV.parser("snapshot", "Write a backup: all that was acknowledged by now is in it.")
    parser.add_argument("file", metavar="FILE")
    flags = _asked(parser, argv)
    from engine.kv.backup import save

    taken = save(named(flags.cluster, "DIR"), flags.file, timeout=flags.timeout)
    result = {"file": flags.file, "revision": taken.revision, "bytes": taken.size}
    return _said(flags, result, f"revision {taken.revision}, {taken.size} bytes")


def restore(argv: list[str]) -> int:
    """make a new cluster from a backup"""
    parser = KV.parser("restore", "Make a new cluster in a folder from a backup, for `kv up`.")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--dir", metavar="DIR", required=True, help="a new folder")
    parser.add_argument("--replicas", metavar="N", type=natural, default=3, help="default: 3")
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    flags = parser.parse_args(argv)
    from engine.kv.backup import restore as restored

    seats = restored(flags.file, flags.dir, flags.replicas)
    result = {"dir": os.path.abspath(flags.dir), "replicas": [{"id": seat.id} for seat in seats]}
    return _said(flags, result, f"engine kv up --dir {flags.dir}")


def hash_(argv: list[str]) -> int:
    """compare what the replicas have"""
    parser = KV.parser("hash", "A sum over all keys of each replica; 1 if they are not the same.")
    flags = _asked(parser, argv)
    from engine.kv.backup import hashes

    told = hashes(named(flags.cluster, "DIR"), timeout=flags.timeout)
    rows = {
        number: one and {"revision": one.revision, "hash": f"{one.crc:08x}"}
        for number, one in told.items()
    }
    of: dict[int, set[int]] = {}
    for one in told.values():
        if one is not None:
            of.setdefault(one.revision, set()).add(one.crc)
    if flags.json:
        shown({"replicas": [{"id": n, **(row or {})} for n, row in rows.items()], "error": None})
    else:
        for number, row in rows.items():
            what = f"{row['hash']} at revision {row['revision']}" if row else "nobody answers"
            print(f"replica {number}: {what}")
    if any(len(sums) > 1 for sums in of.values()):
        raise EngineError("Replicas of one revision differ: replace the one that is alone.")
    return 0


# --- keys ----------------------------------------------------------------------------------------


def get(argv: list[str]) -> int:
    """print the value of a key"""
    parser = KV.parser("get", "Print the value of a key, as it is; 3 if there is none.")
    parser.add_argument("key", metavar="KEY")
    _local_flag(parser)
    flags = _asked(parser, argv)
    with _store(flags) as store:
        found = store.get(_text(flags.key), local=flags.local)
    if found is None:
        raise NotFoundError(f"There is no key {flags.key!a}.")
    if flags.json:
        shown({**_row(found), "error": None})
    else:
        sys.stdout.buffer.write(found.value + b"\n")
    return 0


def put(argv: list[str]) -> int:
    """write a key"""
    parser = KV.parser("put", "Write a key; returns when it can no longer be lost.")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("value", metavar="VALUE", help="the text, or - to read stdin")
    parser.add_argument("--lease", metavar="ID", type=natural, default=0, help="ends with it")
    flags = _asked(parser, argv)
    with _store(flags) as store:
        revision = store.put(_text(flags.key), _value(flags.value), lease=flags.lease)
    return _said(flags, {"revision": revision}, str(revision))


def append(argv: list[str]) -> int:
    """write behind what a key has"""
    parser = KV.parser("append", "Write behind what a key has, if anything.")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("value", metavar="VALUE", help="the text, or - to read stdin")
    flags = _asked(parser, argv)
    with _store(flags) as store:
        revision = store.append(_text(flags.key), _value(flags.value))
    return _said(flags, {"revision": revision}, str(revision))


def delete(argv: list[str]) -> int:
    """remove a key, or all with a prefix"""
    parser = KV.parser("delete", "Remove a key; 3 if there is none.")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("--prefix", action="store_true", help="all keys that begin with it")
    flags = _asked(parser, argv)
    with _store(flags) as store:
        if flags.prefix:
            many = store.delete_prefix(_text(flags.key))
        else:
            many = int(store.delete(_text(flags.key)))
    if not many:
        raise NotFoundError(f"There is no key {flags.key!a}.")
    return _said(flags, {"deleted": many}, str(many))


def cas(argv: list[str]) -> int:
    """write a key if it is as expected"""
    parser = KV.parser("cas", "Write a key if its value is as expected; 3 if it is not.")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("value", metavar="VALUE", help="the text, or - to read stdin")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--expected", metavar="VALUE", help="what it has now")
    what.add_argument("--revision", metavar="N", type=natural, help="what changed it last")
    what.add_argument("--absent", action="store_true", help="there is no such key")
    flags = _asked(parser, argv)
    key, value = _text(flags.key), _value(flags.value)
    with _store(flags) as store:
        if flags.revision is not None:
            done = store.cas_revision(key, flags.revision, value)
        else:
            done = store.cas(key, None if flags.absent else _text(flags.expected), value)
    if not done:
        raise NotFoundError(f"The key {flags.key!a} is not as expected; nothing was done.")
    return _said(flags, {"done": True}, "")


def txn(argv: list[str]) -> int:
    """do one or the other, all of it or nothing"""
    parser = KV.parser("txn", TXN_HELP)
    parser.add_argument("file", metavar="FILE", help="JSON, or - for stdin")
    flags = _asked(parser, argv)
    from engine.kv.transcript import parsed, told

    if flags.file == "-":
        text = sys.stdin.read()
    else:
        try:
            with open(flags.file, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise UsageError(f"{flags.file} cannot be read: {error.strerror}.") from None
    compares, then, otherwise = parsed(text)
    with _store(flags) as store:
        done = store.txn(compares, then, otherwise)
    answers = told(then if done.succeeded else otherwise, done.answers)
    shown(
        {
            "succeeded": done.succeeded,
            "revision": done.revision,
            "answers": answers,
            "error": None,
        }
    )
    return 0 if done.succeeded or otherwise else NotFoundError.exit_code


def lock(argv: list[str]) -> int:
    """hold a lock while a command runs"""
    parser = KV.parser(
        "lock",
        "Wait for a lock, run a command while it is held, and release it. The command has the "
        "fencing token in ENGINE_LOCK_TOKEN, and is killed if the lock is lost. Without a command, "
        "hold it until stdin ends.",
    )
    parser.add_argument("--ttl", metavar="S", type=float, default=10.0, help="of the lease")
    parser.add_argument("--wait", metavar="S", type=float, help="at most (default: for ever)")
    own, command = argv, []
    if "--" in argv:
        own, command = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    parser.add_argument("name", metavar="NAME")
    parser.epilog = "usage: engine kv lock NAME [flags] [-- COMMAND …]"
    flags = _asked(parser, own)
    from engine.locks.fenced import FencedLock
    from engine.locks.holding import hold

    if flags.ttl <= 0:
        raise UsageError("A lease lasts a positive number of seconds.")
    with _store(flags) as store:
        held = FencedLock(store, flags.name, ttl=flags.ttl)
        token = held.acquire(flags.wait)
        if flags.json:
            shown({"lock": flags.name, "token": token})
        elif not command:
            print(token, flush=True)
        return hold(held, command)


def range_(argv: list[str]) -> int:
    """list keys in order"""
    parser = KV.parser("range", "List keys and values in order, from START to before END.")
    parser.add_argument("start", metavar="START", nargs="?", default="")
    parser.add_argument("end", metavar="END", nargs="?", default="")
    parser.add_argument("--prefix", action="store_true", help="keys that begin with START")
    parser.add_argument("--limit", metavar="N", type=natural, default=0)
    parser.add_argument("--count", action="store_true", help="only say how many there are")
    _local_flag(parser)
    flags = _asked(parser, argv)
    from engine.kv.commands import prefix_end

    start = _text(flags.start)
    end = prefix_end(start) if flags.prefix else _text(flags.end)
    with _store(flags) as store:
        if flags.count:
            many = store.count(start, end)
            return _said(flags, {"count": many}, str(many))
        rows = store.range(start, end, limit=flags.limit, local=flags.local)
        if flags.json:
            shown({"keys": [_row(found) for found in rows], "error": None})
        else:
            for found in rows:
                sys.stdout.buffer.write(found.key + b"\t" + found.value + b"\n")
    return 0


def watch(argv: list[str]) -> int:
    """print what happens to a key, until it is ended"""
    parser = KV.parser("watch", "Print what happens to a key, one line each, until it is ended.")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("--prefix", action="store_true", help="all keys that begin with it")
    parser.add_argument("--after", metavar="REVISION", type=natural, help="default: from now on")
    parser.add_argument("--limit", metavar="N", type=natural, default=0, help="end after so many")
    flags = _asked(parser, argv)
    with _store(flags) as store:
        events = store.watch(_text(flags.key), prefix=flags.prefix, after=flags.after)
        for many, event in enumerate(events, 1):
            if flags.json:
                what = "delete" if event.deleted else "put"
                key, value = _shown(event.key), _shown(event.value)
                shown({"event": what, "revision": event.revision, "key": key, "value": value})
            else:
                what = "DELETE" if event.deleted else "PUT"
                fields = (b"%d" % event.revision, what.encode(), event.key, event.value)
                sys.stdout.buffer.write(b"\t".join(fields) + b"\n")
                sys.stdout.flush()
            if many == flags.limit:
                break
    return 0


def lease(argv: list[str]) -> int:
    """grant, keep alive, look at and revoke leases"""
    parser = KV.parser("lease", "Leases: what is put with one ends with it.")
    parser.add_argument("what", choices=("grant", "alive", "show", "revoke"))
    parser.add_argument("argument", metavar="SECONDS|ID")
    flags = _asked(parser, argv)
    from engine.kv import calls

    with _store(flags) as store:
        if flags.what == "grant":
            try:
                ttl = float(flags.argument)
            except ValueError:
                raise UsageError(f"{flags.argument!a} is not a number of seconds.") from None
            made = store.lease(ttl)
            return _said(flags, {"lease": made.id, "ttl": made.ttl}, str(made.id))
        if not flags.argument.isdecimal():
            raise UsageError(f"{flags.argument!a} is no lease.")
        number = int(flags.argument)
        if flags.what == "alive":
            left = store.run(calls.lease_alive(number))
            return _said(flags, {"lease": number, "remaining": left}, f"{left:g}")
        if flags.what == "show":
            ttl, left, keys = store.run(calls.lease_left(number))
            names = [_shown(key) for key in keys]
            more = {"lease": number, "ttl": ttl, "remaining": left, "keys": names}
            return _said(flags, more, f"{left:g} of {ttl:g} s, {len(keys)} keys")
        store.run(calls.lease_revoke(number))
        return _said(flags, {"lease": number}, "")


# --- flags and text ------------------------------------------------------------------------------


def _local_flag(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--local", action="store_true", help="ask a single replica, which may be behind"
    )


def _asked(parser: Parser, argv: list[str]) -> Namespace:
    client_flags(parser, "the folder of `engine kv up`, or the replicas' clients' endpoints: A,B,C")
    flags: Namespace = parser.parse_args(argv)
    return flags


def _store(flags: Namespace) -> Store:
    from engine.kv.client import Store

    cluster = named(flags.cluster, "DIR or ENDPOINTS")
    return Store(cluster, timeout=flags.timeout, token=flags.token, via=dict(flags.via))


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _value(text: str) -> bytes:
    return sys.stdin.buffer.read() if text == "-" else _text(text)


def _shown(data: bytes) -> str | dict[str, str]:
    """Text where it is text; else in base64, and it says so."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        from base64 import b64encode

        return {"base64": b64encode(data).decode()}


def _row(found: Found) -> dict[str, Any]:
    return {
        "key": _shown(found.key),
        "value": _shown(found.value),
        "created": found.created,
        "modified": found.modified,
        "version": found.version,
        "lease": found.lease,
    }


def _said(flags: Namespace, result: dict[str, Any], line: str) -> int:
    if flags.json:
        shown({**result, "error": None})
    elif line:
        print(line)
    return 0


KV = Family(
    "kv",
    EXAMPLES,
    {
        "up": up,
        "down": down,
        "serve": serve,
        "status": status,
        "member": member,
        "snapshot": snapshot,
        "restore": restore,
        "hash": hash_,
        "get": get,
        "put": put,
        "append": append,
        "delete": delete,
        "cas": cas,
        "txn": txn,
        "range": range_,
        "watch": watch,
        "lease": lease,
        "lock": lock,
    },
)
main = KV.main
