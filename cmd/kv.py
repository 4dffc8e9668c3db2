"""`engine kv`: a replicated key/value store."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from engine.errors import NotFoundError, UsageError
from engine_cmd.flags import Family, named, natural, shown
from engine_cmd.kv_cluster import (
    down,
    hash_,
    member,
    restore,
    serve,
    snapshot,
    status,
    up,
)
from engine_cmd.kv_flags import asked, kv_parser, said
from engine_cmd.kv_page import metrics, page

if TYPE_CHECKING:
    from engine.kv.calls import Found
    from engine.kv.client import Store

EXAMPLES = """\
examples:
  engine kv up --replicas 3 --dir store     three replicas, until Ctrl-C; in another terminal:
  export ENGINE_CLUSTER=store
  engine kv put greeting hello
  engine kv get greeting
  engine kv watch --prefix g
  engine kv status

A cluster is named by the folder of `engine kv up`, or by the endpoints of its replicas: those for
operators for status, hash, member and snapshot, those for clients otherwise.
Exit codes: 3 not found or not as expected, 4 nobody leads or can be reached, 5 the outcome is
unknown, 6 refused.
"""

TXN_HELP = """\
Do `then` if all compares hold, else `else`. FILE has one JSON object:
  {"if": [["key", "version", "=", 0], ["key", "value", "!=", "text"]],
   "then": [["put", "key", "text"], ["append", "key", "text"], ["delete", "key"]],
   "else": [["get", "key"], ["range", "start", "end"]]}
Compares are of value, version, create, mod or lease, with = != < >. Exit code 3 if they do not hold
and there is no `else`.
"""


# --- keys ----------------------------------------------------------------------------------------


def get(argv: list[str]) -> int:
    """print the value of a key"""
    parser = kv_parser("get", "Print the value of a key, as it is; 3 if there is none.")
    parser.add_argument("key", metavar="KEY")
    _local_flag(parser)
    flags = asked(parser, argv)
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
    parser = kv_parser("put", "Write a key; returns when it can no longer be lost.")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("value", metavar="VALUE", help="the text, or - to read stdin")
    parser.add_argument("--lease", metavar="ID", type=natural, default=0, help="ends with it")
    flags = asked(parser, argv)
    with _store(flags) as store:
        revision = store.put(_text(flags.key), _value(flags.value), lease=flags.lease)
    said(flags, {"revision": revision}, str(revision))
    return 0


def append(argv: list[str]) -> int:
    """write behind what a key has"""
    parser = kv_parser("append", "Write behind what a key has, if anything.")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("value", metavar="VALUE", help="the text, or - to read stdin")
    flags = asked(parser, argv)
    with _store(flags) as store:
        revision = store.append(_text(flags.key), _value(flags.value))
    said(flags, {"revision": revision}, str(revision))
    return 0


def delete(argv: list[str]) -> int:
    """remove a key, or all with a prefix"""
    parser = kv_parser("delete", "Remove a key; 3 if there is none.")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("--prefix", action="store_true", help="all keys that begin with it")
    flags = asked(parser, argv)
    with _store(flags) as store:
        if flags.prefix:
            many = store.delete_prefix(_text(flags.key))
        else:
            many = int(store.delete(_text(flags.key)))
    if not many:
        raise NotFoundError(f"There is no key {flags.key!a}.")
    said(flags, {"deleted": many}, str(many))
    return 0


def cas(argv: list[str]) -> int:
    """write a key if it is as expected"""
    parser = kv_parser("cas", "Write a key if its value is as expected; 3 if it is not.")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("value", metavar="VALUE", help="the text, or - to read stdin")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--expected", metavar="VALUE", help="what it has now")
    what.add_argument("--revision", metavar="N", type=natural, help="what changed it last")
    what.add_argument("--absent", action="store_true", help="there is no such key")
    flags = asked(parser, argv)
    key, value = _text(flags.key), _value(flags.value)
    with _store(flags) as store:
        if flags.revision is not None:
            done = store.cas_revision(key, flags.revision, value)
        else:
            done = store.cas(key, None if flags.absent else _text(flags.expected), value)
    if not done:
        raise NotFoundError(f"The key {flags.key!a} is not as expected; nothing was done.")
    said(flags, {"done": True}, "")
    return 0


def txn(argv: list[str]) -> int:
    """do one or the other, all of it or nothing"""
    parser = kv_parser("txn", TXN_HELP)
    parser.add_argument("file", metavar="FILE", help="JSON, or - for stdin")
    flags = asked(parser, argv)
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
    parser = kv_parser(
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
    flags = asked(parser, own)
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
    parser = kv_parser("range", "List keys and values in order, from START to before END.")
    parser.add_argument("start", metavar="START", nargs="?", default="")
    parser.add_argument("end", metavar="END", nargs="?", default="")
    parser.add_argument("--prefix", action="store_true", help="keys that begin with START")
    parser.add_argument("--limit", metavar="N", type=natural, default=0)
    parser.add_argument("--count", action="store_true", help="only say how many there are")
    _local_flag(parser)
    flags = asked(parser, argv)
    from engine.kv.commands import prefix_end

    start = _text(flags.start)
    end = prefix_end(start) if flags.prefix else _text(flags.end)
    with _store(flags) as store:
        if flags.count:
            many = store.count(start, end)
            said(flags, {"count": many}, str(many))
            return 0
        rows = store.range(start, end, limit=flags.limit, local=flags.local)
        if flags.json:
            shown({"keys": [_row(found) for found in rows], "error": None})
        else:
            for found in rows:
                sys.stdout.buffer.write(found.key + b"\t" + found.value + b"\n")
    return 0


def watch(argv: list[str]) -> int:
    """print what happens to a key, until it is ended"""
    parser = kv_parser("watch", "Print what happens to a key, one line each, until it is ended.")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("--prefix", action="store_true", help="all keys that begin with it")
    parser.add_argument("--after", metavar="REVISION", type=natural, help="default: from now on")
    parser.add_argument("--limit", metavar="N", type=natural, default=0, help="end after so many")
    flags = asked(parser, argv)
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
    parser = kv_parser("lease", "Leases: what is put with one ends with it.")
    parser.add_argument("what", choices=("grant", "alive", "show", "revoke"))
    parser.add_argument("argument", metavar="SECONDS|ID")
    flags = asked(parser, argv)
    from engine.kv import calls

    with _store(flags) as store:
        if flags.what == "grant":
            try:
                ttl = float(flags.argument)
            except ValueError:
                raise UsageError(f"{flags.argument!a} is not a number of seconds.") from None
            made = store.lease(ttl)
            said(flags, {"lease": made.id, "ttl": made.ttl}, str(made.id))
            return 0
        if not flags.argument.isdecimal():
            raise UsageError(f"{flags.argument!a} is no lease.")
        number = int(flags.argument)
        if flags.what == "alive":
            left = store.run(calls.lease_alive(number))
            said(flags, {"lease": number, "remaining": left}, f"{left:g}")
            return 0
        if flags.what == "show":
            ttl, left, keys = store.run(calls.lease_left(number))
            more = {"lease": number, "ttl": ttl, "remaining": left, "keys": keys}
            said(flags, more, f"{left:g} of {ttl:g} s, {keys} keys")
            return 0
        store.run(calls.lease_revoke(number))
        said(flags, {"lease": number}, "")
        return 0


# --- flags and text ------------------------------------------------------------------------------


def _local_flag(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--local", action="store_true", help="ask a single replica, which may be behind"
    )


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


KV = Family(
    "kv",
    EXAMPLES,
    {
        "up": up,
        "down": down,
        "serve": serve,
        "status": status,
        "page": page,
        "metrics": metrics,
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
