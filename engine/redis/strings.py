"""What commands do to keys, as Redis has it: functions of a view and of arguments.

Each returns its reply, or raises a Problem, which is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from engine.redis.replies import NO_INTEGER, SYNTAX, Problem, Simple
from engine.redis.view import KEEP, NEVER, View

Args = Sequence[bytes]
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
EXPIRED = -2
"""Milliseconds to live of what should have ended already."""
_INTEGER = re.compile(rb"-?[1-9][0-9]{0,18}|0")


def integer(text: bytes) -> int:
    """Of 64 bits, as Redis writes them. Problem."""
    if _INTEGER.fullmatch(text):
        number = int(text)
        if INT64_MIN <= number <= INT64_MAX:
            return number
    raise NO_INTEGER


# --- values --------------------------------------------------------------------------------------


def get(view: View, args: Args) -> Any:
    return view.value(args[1])


def mget(view: View, args: Args) -> Any:
    return [view.value(key) for key in args[1:]]


def mset(view: View, args: Args) -> Any:
    for key, value in zip(args[1::2], args[2::2], strict=True):
        view.put(key, value, NEVER)
    return Simple("OK")


def msetnx(view: View, args: Args) -> Any:
    found = [view.value(key) for key in args[1::2]]
    if any(value is not None for value in found):
        return 0
    mset(view, args)
    return 1


def set_(view: View, args: Args) -> Any:
    wanted = set_options(view.now, args)
    old = None
    if "GET" in wanted or "NX" in wanted or "XX" in wanted:
        old = view.value(args[1])
    if ("NX" in wanted and old is not None) or ("XX" in wanted and old is None):
        return old if "GET" in wanted else None
    view.put(args[1], args[2], wanted["ttl"])
    return old if "GET" in wanted else Simple("OK")


def set_options(now: int, args: Args) -> dict[str, int]:
    """Those of SET that are given, and `ttl`. Problem."""
    wanted = {"ttl": NEVER}
    at = 3
    while at < len(args):
        word = args[at].upper().decode("latin-1")
        timed = any(one in wanted for one in UNITS) or "KEEPTTL" in wanted
        if word == "GET" or OTHER.get(word, word) not in (word, *wanted):
            wanted[word] = 1
        elif word == "KEEPTTL" and not timed:
            wanted |= {word: 1, "ttl": KEEP}
        elif word in UNITS and (not timed or word in wanted) and at + 1 < len(args):
            wanted[word] = at = at + 1
        else:
            raise SYNTAX
        at += 1
    for word in UNITS:
        if word in wanted:
            wanted["ttl"] = time_to_live(args[wanted[word]], word, now, "set")
    return wanted


OTHER = {"NX": "XX", "XX": "NX"}
"""Options that exclude each other."""
UNITS = {"EX": 1000, "PX": 1, "EXAT": 1000, "PXAT": 1}


def time_to_live(text: bytes, unit: str, now: int, name: str) -> int:
    """Milliseconds; `EXPIRED` if there are none left. Problem."""
    number, scale = integer(text), UNITS[unit]
    if number <= 0 or number * scale > INT64_MAX:
        raise bad_time(name)
    if unit.endswith("AT"):
        return number * scale - now if number * scale > now else EXPIRED
    if number * scale + now > INT64_MAX:
        raise bad_time(name)
    return number * scale


def bad_time(name: str) -> Problem:
    return Problem(f"ERR invalid expire time in '{name}' command")


def setnx(view: View, args: Args) -> Any:
    if view.value(args[1]) is not None:
        return 0
    view.put(args[1], args[2], NEVER)
    return 1


def setex(view: View, args: Args) -> Any:
    view.put(args[1], args[3], time_to_live(args[2], "EX", view.now, "setex"))
    return Simple("OK")


def psetex(view: View, args: Args) -> Any:
    view.put(args[1], args[3], time_to_live(args[2], "PX", view.now, "psetex"))
    return Simple("OK")


def getset(view: View, args: Args) -> Any:
    old = view.value(args[1])
    view.put(args[1], args[2], NEVER)
    return old


def getdel(view: View, args: Args) -> Any:
    old = view.value(args[1])
    view.drop(args[1])
    return old


def getex(view: View, args: Args) -> Any:
    word = getex_option(args)
    value = view.value(args[1])
    if value is None or not word:
        return value
    ttl = NEVER if word == "PERSIST" else time_to_live(args[3], word, view.now, "getex")
    if ttl != NEVER or view.ttl(args[1]) is not None:
        view.put(args[1], value, ttl)
    return value


def getex_option(args: Args) -> str:
    """ "" if there is none. Problem."""
    if len(args) == 2:
        return ""
    word = args[2].upper().decode("latin-1")
    if (word == "PERSIST" and len(args) == 3) or (word in UNITS and len(args) == 4):
        return word
    raise SYNTAX


def delete(view: View, args: Args) -> Any:
    return sum([view.drop(key) for key in args[1:]])


def exists(view: View, args: Args) -> Any:
    return sum([view.value(key) is not None for key in args[1:]])


def append(view: View, args: Args) -> Any:
    value = (view.value(args[1]) or b"") + args[2]
    view.put(args[1], value)
    return len(value)


def strlen(view: View, args: Args) -> Any:
    return len(view.value(args[1]) or b"")


def type_(view: View, args: Args) -> Any:
    return Simple("none" if view.value(args[1]) is None else "string")


# --- numbers -------------------------------------------------------------------------------------


def add(view: View, key: bytes, by: int) -> int:
    old = view.value(key)
    total = by + (0 if old is None else integer(old))
    if not INT64_MIN <= total <= INT64_MAX:
        raise Problem("ERR increment or decrement would overflow")
    view.put(key, b"%d" % total)
    return total


def incr(view: View, args: Args) -> Any:
    return add(view, args[1], 1)


def decr(view: View, args: Args) -> Any:
    return add(view, args[1], -1)


def incrby(view: View, args: Args) -> Any:
    return add(view, args[1], integer(args[2]))


def decrby(view: View, args: Args) -> Any:
    by = integer(args[2])
    if by == INT64_MIN:
        raise Problem("ERR decrement would overflow")
    return add(view, args[1], -by)


# --- time to live --------------------------------------------------------------------------------


def expiring(name: str, unit: str) -> Callable[[View, Args], Any]:
    """EXPIRE and its like: `unit` as SET calls it."""

    def expire(view: View, args: Args) -> Any:
        flags = _flags(args[3:])
        number = integer(args[2])
        scaled = number * UNITS[unit]
        at = scaled if unit.endswith("AT") else scaled + view.now
        if not INT64_MIN <= scaled <= INT64_MAX or not INT64_MIN <= at <= INT64_MAX:
            raise bad_time(name)
        value = view.value(args[1])
        if value is None or not _allowed(flags, view.ttl(args[1]), at - view.now):
            return 0
        view.put(args[1], value, at - view.now if at > view.now else EXPIRED)
        return 1

    return expire


def _flags(words: Args) -> set[str]:
    flags = set()
    for word in words:
        flag = word.upper().decode("latin-1")
        if flag not in ("NX", "XX", "GT", "LT"):
            shown = word.decode("utf-8", "surrogateescape")
            raise Problem(f"ERR Unsupported option {shown}")
        flags.add(flag)
    if "NX" in flags and len(flags) > 1:
        raise Problem("ERR NX and XX, GT or LT options at the same time are not compatible")
    if {"GT", "LT"} <= flags:
        raise Problem("ERR GT and LT options at the same time are not compatible")
    return flags


def _allowed(flags: set[str], ttl: int | None, wanted: int) -> bool:
    """Whether these let a key that has `ttl` have another one; None is for ever."""
    if "NX" in flags and ttl is not None:
        return False
    if "XX" in flags and ttl is None:
        return False
    if "GT" in flags and (ttl is None or wanted <= ttl):
        return False
    return not ("LT" in flags and ttl is not None and wanted >= ttl)


def ttl(view: View, args: Args) -> Any:
    left = pttl(view, args)
    return left if left < 0 else (left + 500) // 1000


def pttl(view: View, args: Args) -> int:
    if view.value(args[1]) is None:
        return -2
    left = view.ttl(args[1])
    return -1 if left is None else left


def persist(view: View, args: Args) -> Any:
    value = view.value(args[1])
    if value is None or view.ttl(args[1]) is None:
        return 0
    view.put(args[1], value, NEVER)
    return 1


# --- scripts that libraries bring ----------------------------------------------------------------


def delete_if_equal(view: View, args: Args) -> Any:
    """Let a lock go: EVALSHA digest 1 key token."""
    return int(view.value(args[3]) == args[4] and view.drop(args[3]))


def extend_if_equal(view: View, args: Args) -> Any:
    """Hold a lock longer: EVALSHA digest 1 key token milliseconds replace."""
    value = view.value(args[3])
    left = None if value is None else view.ttl(args[3])
    if value != args[4] or left is None:
        return 0
    more = integer(args[5]) + (left if args[6] == b"0" else 0)
    view.put(args[3], value, more if more > 0 else EXPIRED)
    return 1


def renew_if_equal(view: View, args: Args) -> Any:
    """Hold a lock for its whole time again: EVALSHA digest 1 key token milliseconds."""
    value = view.value(args[3])
    if value != args[4] or value is None:
        return 0
    view.put(args[3], value, max(integer(args[5]), EXPIRED))
    return 1
