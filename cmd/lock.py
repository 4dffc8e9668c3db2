"""`engine lock`: a lock service on two servers, and its clients."""

from __future__ import annotations

from engine.errors import UsageError
from engine_cmd.flags import Family, client_flags, named, serve_flags, shown, token_made

EXAMPLES = """\
examples:
  engine lock serve --backup --listen ipc:///run/me/backup
  engine lock serve --primary --listen ipc:///run/me/primary --peer ipc:///run/me/backup
  export ENGINE_CLUSTER=ipc:///run/me/primary,ipc:///run/me/backup
  engine lock acquire printer && print && engine lock release printer

acquire and release do not wait: 0 if it was done, 3 if the lock was held (was free) already.
"""
CLUSTER = "PRIMARY,BACKUP"
UNCHANGED = 3


def serve(argv: list[str]) -> int:
    """serve as primary or as backup, in memory, until it is ended"""
    parser = LOCK.parser("serve", "Serve locks as primary or as backup, until it is ended.")
    role = parser.add_mutually_exclusive_group(required=True)
    role.add_argument("--primary", action="store_const", const="primary", dest="role")
    role.add_argument("--backup", action="store_const", const="backup", dest="role")
    parser.add_argument("--peer", metavar="ENDPOINT", default="", help="a primary's backup")
    serve_flags(parser)
    flags = parser.parse_args(argv)
    if flags.peer and flags.role == "backup":
        raise UsageError("--peer is for the primary: a backup is found, and looks for nobody.")
    from engine.locks.server import serve as serve_locks

    serve_locks(
        flags.role,
        flags.listen,
        flags.peer,
        token=token_made(flags.listen, flags.token),
        via=dict(flags.via),
        as_json=flags.json,
    )
    return 0


def acquire(argv: list[str]) -> int:
    """take a lock if it is free"""
    return _change("acquire", "Take a lock: 0 if it was free, 3 if somebody holds it.", argv)


def release(argv: list[str]) -> int:
    """free a lock, whoever took it"""
    return _change("release", "Free a lock, whoever took it: 0 if it was held, 3 if not.", argv)


def _change(verb: str, description: str, argv: list[str]) -> int:
    parser = LOCK.parser(verb, description)
    parser.add_argument("name", metavar="NAME")
    client_flags(parser, "the primary's address and the backup's: A,B")
    flags = parser.parse_args(argv)
    from engine.locks.client import Locks

    servers = named(flags.cluster, CLUSTER).split(",")
    with Locks(servers, timeout=flags.timeout, token=flags.token, via=dict(flags.via)) as locks:
        changed = locks.acquire(flags.name) if verb == "acquire" else locks.release(flags.name)
    if flags.json:
        shown({"name": flags.name, verb + "d": changed, "error": None})
    else:
        words = {"acquire": ("held already", "acquired"), "release": ("free already", "released")}
        print(f"{flags.name}: {words[verb][changed]}")
    return 0 if changed else UNCHANGED


LOCK = Family("lock", EXAMPLES, {"serve": serve, "acquire": acquire, "release": release})
main = LOCK.main
