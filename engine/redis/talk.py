"""Commands about the connection and the server: they touch no key, and are answered at once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from engine.redis import access, cluster, info
from engine.redis.replies import SYNTAX, Problem, Simple, Text
from engine.redis.strings import integer
from engine.redis.table import COMMANDS, SCRIPTS, Command, find, wrong_number

if TYPE_CHECKING:
    from engine.redis.door import Client
    from engine.redis.gateway import Gateway

Args = Sequence[bytes]
OK = Simple("OK")


def talk(gateway: Gateway, client: Client, name: str, args: Args) -> Any:
    """The reply. Problem."""
    return _TALK[name](gateway, client, args)


def _ping(_: Gateway, __: Client, args: Args) -> Any:
    if len(args) > 2:
        raise wrong_number("ping")
    return args[1] if len(args) > 1 else Simple("PONG")


def _select(_: Gateway, __: Client, args: Args) -> Any:
    if integer(args[1]) != 0:
        raise Problem("ERR DB index is out of range")
    return OK


def _time(_: Gateway, __: Client, args: Args) -> Any:
    micros = time.time_ns() // 1000
    return [b"%d" % (micros // 1_000_000), b"%d" % (micros % 1_000_000)]


def _quit(gateway: Gateway, client: Client, args: Args) -> Any:
    client.ending = client.over = True
    return OK


def _reset(gateway: Gateway, client: Client, args: Args) -> Any:
    client.queue, client.broken, client.watched = None, False, {}
    client.queued_bytes, client.queued_keys = 0, set()
    client.stream.resp3, client.name, client.no_evict = False, b"", False
    if gateway.access is not None:
        gateway.access.come(client)
    return Simple("RESET")


# --- who it is -----------------------------------------------------------------------------------


def _auth(gateway: Gateway, client: Client, args: Args) -> Any:
    if len(args) > 3:
        raise SYNTAX
    if len(args) == 2 and gateway.access is None:
        raise Problem(
            "ERR AUTH <password> called without any password configured for the default user. "
            "Are you sure your configuration is correct?"
        )
    _prove(gateway, client, args[1] if len(args) == 3 else access.DEFAULT.encode(), args[-1])
    return OK


def _prove(gateway: Gateway, client: Client, user: bytes, secret: bytes) -> None:
    """Problem. Where there are no users, whoever is on this machine is in."""
    if gateway.access is not None:
        gateway.access.prove(client, user, secret)
    elif user != access.DEFAULT.encode():
        raise Problem(access.WRONG)


def _acl(_: Gateway, client: Client, args: Args) -> Any:
    if args[1].upper() != b"WHOAMI" or len(args) > 2:
        return _no_subcommand("acl", args, ("WHOAMI",))
    return access.who(client).encode()


def _hello(gateway: Gateway, client: Client, args: Args) -> Any:
    version = 3 if client.stream.resp3 else 2
    name, proof = client.name, None
    if len(args) > 1:
        try:
            version = integer(args[1])
        except Problem:
            raise Problem("ERR Protocol version is not an integer or out of range") from None
        if version not in (2, 3):
            raise Problem("NOPROTO unsupported protocol version")
    at = 2
    while at < len(args):
        word, left = args[at].upper(), len(args) - at - 1
        if word == b"AUTH" and left >= 2:
            proof = args[at + 1], args[at + 2]
            at += 3
        elif word == b"SETNAME" and left >= 1:
            name = args[at + 1]
            at += 2
        else:
            shown = args[at].decode("utf-8", "surrogateescape")
            raise Problem(f"ERR Syntax error in HELLO option '{shown}'")
    if proof is not None:
        _prove(gateway, client, *proof)
    if client.find is access.for_guests:
        raise Problem(access.NO_HELLO)
    client.stream.resp3, client.name = version == 3, _name(name)
    return {
        b"server": b"redis",
        b"version": info.REDIS_VERSION.encode(),
        b"proto": version,
        b"id": client.id,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
    }


def _name(name: bytes) -> bytes:
    if any(not 33 <= byte <= 126 for byte in name):
        raise Problem("ERR Client names cannot contain spaces, newlines or special characters.")
    return name


def _client(gateway: Gateway, client: Client, args: Args) -> Any:
    word, many = args[1].upper().decode("latin-1"), len(args)
    rest = args[2:]
    if word == "ID" and many == 2:
        return client.id
    if word == "GETNAME" and many == 2:
        return client.name or None
    if word == "SETNAME" and many == 3:
        client.name = _name(rest[0])
        return OK
    if word == "SETINFO" and many == 4:
        return _library(client, rest)
    if word in ("NO-EVICT", "NO-TOUCH") and many == 3:
        if rest[0].upper() not in (b"ON", b"OFF"):
            raise SYNTAX
        client.no_evict = rest[0].upper() == b"ON"
        return OK
    if word == "INFO" and many == 2:
        return Text(info.of_client(client))
    if word == "LIST":
        return Text(b"".join([info.of_client(one) for one in gateway.door.clients.values()]))
    if word == "REPLY" and many == 3 and rest[0].upper() == b"ON":
        return OK
    known = ("ID", "GETNAME", "SETNAME", "SETINFO", "NO-EVICT", "NO-TOUCH", "INFO")
    return _no_subcommand("client", args, known)


def _library(client: Client, rest: Args) -> Any:
    what, value = rest[0].lower(), rest[1]
    if what not in client.library:
        raise Problem(f"ERR Unrecognized option '{rest[0].decode('utf-8', 'surrogateescape')}'")
    if any(not 33 <= byte <= 126 for byte in value):
        raise Problem(f"ERR {what.decode()} cannot contain spaces, newlines or special characters.")
    client.library[what] = value
    return OK


def _no_subcommand(name: str, args: Args, known: Sequence[str] = ()) -> Any:
    """Problem: it has too many arguments, or is none."""
    word = args[1].decode("utf-8", "surrogateescape")
    if word.upper() in known:
        raise wrong_number(f"{name}|{word.lower()}")
    raise Problem(f"ERR unknown subcommand '{word[:128]}'. Try {name.upper()} HELP.")


# --- what it is ----------------------------------------------------------------------------------


def _info(gateway: Gateway, client: Client, args: Args) -> Any:
    return Text(info.info(gateway, [one.decode("latin-1").lower() for one in args[1:]]))


def _config(gateway: Gateway, client: Client, args: Args) -> Any:
    if args[1].upper() != b"GET" or len(args) < 3:
        return _no_subcommand("config", args, ("GET",))
    settings = info.settings(gateway)
    found: dict[bytes, bytes] = {}
    for pattern in args[2:]:
        wanted = pattern.decode("latin-1").lower()
        found |= {
            name.encode(): value.encode()
            for name, value in settings.items()
            if fnmatchcase(name, wanted)
        }
    return found


def _command(gateway: Gateway, client: Client, args: Args) -> Any:
    word = args[1].upper() if len(args) > 1 else b""
    if not word:
        return [_told(command) for command in COMMANDS.values()]
    if word == b"COUNT" and len(args) == 2:
        return len(COMMANDS)
    if word == b"LIST":
        return [name.encode() for name in COMMANDS]
    if word == b"INFO":
        names = [one.decode("latin-1").lower() for one in args[2:]] or list(COMMANDS)
        return [_told(COMMANDS[name]) if name in COMMANDS else None for name in names]
    if word == b"DOCS":
        return {}
    if word == b"GETKEYS" and len(args) > 2:
        keys = find(args[2:]).keys(args[2:])
        if not keys:
            raise Problem("ERR The command has no key arguments")
        return keys
    return _no_subcommand("command", args, ("COUNT", "GETKEYS"))


def _told(command: Command) -> list[Any]:
    flags = [Simple(flag) for flag in command.flags.split()]
    place = [command.first, command.last, command.step]
    return [command.name.encode(), command.arity, flags, *place, [], [], [], []]


def _no_script(_: Gateway, __: Client, args: Args) -> Any:
    raise Problem("ERR scripts are not done here, but for those that let locks of redis-py go")


def _script(gateway: Gateway, client: Client, args: Args) -> Any:
    word = args[1].upper()
    if word == b"LOAD" and len(args) == 3:
        digest = hashlib.sha1(args[2], usedforsecurity=False).hexdigest()
        return digest.encode() if digest in SCRIPTS else _no_script(gateway, client, args)
    if word == b"EXISTS" and len(args) > 2:
        return [int(one.decode("latin-1").lower() in SCRIPTS) for one in args[2:]]
    return _no_subcommand("script", args, ("LOAD", "EXISTS"))


def _ok(_: Gateway, __: Client, args: Args) -> Any:
    return OK


_TALK: dict[str, Callable[[Gateway, Client, Args], Any]] = {
    "ping": _ping,
    "echo": lambda gateway, client, args: args[1],
    "select": _select,
    "time": _time,
    "quit": _quit,
    "reset": _reset,
    "auth": _auth,
    "acl": _acl,
    "hello": _hello,
    "client": _client,
    "info": _info,
    "config": _config,
    "command": _command,
    "cluster": lambda gateway, client, args: cluster.cluster(
        gateway, client.socket.getsockname(), args, _no_subcommand
    ),
    "readonly": _ok,
    "readwrite": _ok,
    "eval": _no_script,
    "script": _script,
    "unwatch": _ok,
}
