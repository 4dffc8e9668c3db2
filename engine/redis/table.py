"""Which commands there are: how many arguments they have, where their keys are, what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.record import Record
from engine.redis import strings
from engine.redis.replies import Problem
from engine.redis.view import View

Run = Callable[[View, Sequence[bytes]], Any]


class Command(Record):
    """`arity` counts the name; below 0 it is the least. Keys are from `first` to `last` (below 0:
    from the end), each `step`; 0 for none. `timed`: it looks at the time that keys have to live."""

    name: str
    arity: int
    flags: str
    first: int = 0
    last: int = 0
    step: int = 0
    run: Run | None = None
    timed: bool = False

    def keys(self, args: Sequence[bytes]) -> list[bytes]:
        """Problem."""
        if self.name == "evalsha":
            return [args[3]] if args[2] == b"1" and len(args) > 3 else []
        if not self.first:
            return []
        last = self.last if self.last > 0 else len(args) + self.last
        return list(args[self.first : last + 1 : self.step])


def _of_keys(
    name: str, arity: int, flags: str, run: Run, first: int = 1, last: int = 1, step: int = 1
) -> Command:
    return Command(name, arity, flags, first, last, step, run)


def _timed(name: str, arity: int, flags: str, run: Run) -> Command:
    return Command(name, arity, flags, 1, 1, 1, run, timed=True)


_COMMANDS = (
    _of_keys("get", 2, "readonly fast", strings.get),
    _of_keys("set", -3, "write denyoom", strings.set_),
    _of_keys("setnx", 3, "write denyoom fast", strings.setnx),
    _of_keys("setex", 4, "write denyoom", strings.setex),
    _of_keys("psetex", 4, "write denyoom", strings.psetex),
    _of_keys("getset", 3, "write denyoom fast", strings.getset),
    _of_keys("getdel", 2, "write fast", strings.getdel),
    _timed("getex", -2, "write fast", strings.getex),
    _of_keys("del", -2, "write", strings.delete, 1, -1, 1),
    _of_keys("unlink", -2, "write fast", strings.delete, 1, -1, 1),
    _of_keys("exists", -2, "readonly fast", strings.exists, 1, -1, 1),
    _of_keys("touch", -2, "readonly fast", strings.exists, 1, -1, 1),
    _of_keys("mget", -2, "readonly fast", strings.mget, 1, -1, 1),
    _of_keys("mset", -3, "write denyoom", strings.mset, 1, -1, 2),
    _of_keys("msetnx", -3, "write denyoom", strings.msetnx, 1, -1, 2),
    _of_keys("incr", 2, "write denyoom fast", strings.incr),
    _of_keys("decr", 2, "write denyoom fast", strings.decr),
    _of_keys("incrby", 3, "write denyoom fast", strings.incrby),
    _of_keys("decrby", 3, "write denyoom fast", strings.decrby),
    _of_keys("append", 3, "write denyoom fast", strings.append),
    _of_keys("strlen", 2, "readonly fast", strings.strlen),
    _of_keys("type", 2, "readonly fast", strings.type_),
    _timed("expire", -3, "write fast", strings.expiring("expire", "EX")),
    _timed("pexpire", -3, "write fast", strings.expiring("pexpire", "PX")),
    _timed("expireat", -3, "write fast", strings.expiring("expireat", "EXAT")),
    _timed("pexpireat", -3, "write fast", strings.expiring("pexpireat", "PXAT")),
    _timed("ttl", 2, "readonly fast", strings.ttl),
    _timed("pttl", 2, "readonly fast", strings.pttl),
    _timed("persist", 2, "write fast", strings.persist),
    Command("evalsha", -3, "noscript movablekeys", timed=True),
    Command("eval", -3, "noscript movablekeys"),
    Command("script", -2, "noscript"),
    Command("scan", -2, "readonly"),
    Command("keys", 2, "readonly"),
    Command("dbsize", 1, "readonly fast"),
    Command("multi", 1, "noscript loading stale fast allow_busy"),
    Command("exec", 1, "noscript loading stale skip_slowlog"),
    Command("discard", 1, "noscript loading stale fast allow_busy"),
    Command("watch", -2, "noscript loading stale fast allow_busy", 1, -1, 1),
    Command("unwatch", 1, "noscript loading stale fast allow_busy"),
    Command("ping", -1, "fast"),
    Command("echo", 2, "loading stale fast"),
    Command("select", 2, "loading stale fast"),
    Command("auth", -2, "noscript loading stale fast no_auth allow_busy"),
    Command("hello", -1, "noscript loading stale fast no_auth allow_busy"),
    Command("acl", -2, "noscript loading stale"),
    Command("info", -1, "loading stale"),
    Command("config", -2, "admin noscript loading stale"),
    Command("command", -1, "loading stale"),
    Command("client", -2, "noscript loading stale"),
    Command("cluster", -2, "loading stale"),
    Command("readonly", 1, "loading stale fast"),
    Command("readwrite", 1, "loading stale fast"),
    Command("reset", 1, "noscript loading stale fast no_auth allow_busy"),
    Command("quit", -1, "noscript loading stale fast no_auth allow_busy"),
    Command("time", 1, "loading stale fast"),
)
COMMANDS = {command.name: command for command in _COMMANDS}

SCRIPTS: dict[str, tuple[int, Run]] = {
    "c3f8721cbb97f72bc19e972846bd7aaf91901658": (5, strings.delete_if_equal),
    "a4e8783852e6b949f9ef3a97212805108459a890": (7, strings.extend_if_equal),
    "1cac51482acf5858da00f6d685d68f886cd6b6b2": (6, strings.renew_if_equal),
}
"""By SHA-1 of their text: how many words EVALSHA has for it, and what it does. They are those with
which redis-py releases, extends and renews locks; there is no language for others."""


def find(args: Sequence[bytes], *, scripts: bool = True) -> Command:
    """Which command these words are, and with `scripts` which script. Problem."""
    name = args[0].decode("latin-1")
    command = COMMANDS.get(name.lower())
    if command is None:
        told = ""
        for arg in args[1:]:
            if len(told) >= 128:
                break
            told += f"'{arg[: 128 - len(told)].decode('utf-8', 'surrogateescape')}' "
        shown = args[0][:128].decode("utf-8", "surrogateescape")
        raise Problem(f"ERR unknown command '{shown}', with args beginning with: {told}")
    many = len(args)
    pairs = command.name in ("mset", "msetnx") and many % 2 == 0
    if (command.arity > 0 and many != command.arity) or many < -command.arity or pairs:
        raise wrong_number(command.name)
    if scripts and command.name == "evalsha":
        return _script(command, args)
    return command


def wrong_number(name: str) -> Problem:
    return Problem(f"ERR wrong number of arguments for '{name}' command")


def _script(command: Command, args: Sequence[bytes]) -> Command:
    known = SCRIPTS.get(args[1].decode("latin-1").lower())
    if known is None:
        raise Problem("NOSCRIPT No matching script. Please use EVAL.")
    many, run = known
    if args[2] != b"1" or len(args) != many:
        raise Problem("ERR Wrong number of keys or arguments for this script")
    return command._replace(run=run)
