"""Commands that go through many keys: SCAN, KEYS, DBSIZE.

A cursor is a number, and stands for the key after which a scan goes on, which only this gateway
knows, for some time. Keys that are there all the while are found, once each, for they are in order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.kv import commands
from engine.kv.commands import COUNT_ONLY, KEYS_ONLY, OK
from engine.kv.requests import READ
from engine.redis.replies import SYNTAX, Encoded, Problem, refusal
from engine.redis.strings import integer

if TYPE_CHECKING:
    from engine.redis.door import Client
    from engine.redis.gateway import Gateway

CURSORS_MAX = 1 << 14
"""Scans that may be under way; the one that was asked for longest ago is forgotten."""
STEP_MAX = 1000
PATTERN_MAX = 4096
KEYS_STEP = 1000
KEYS_LOOKED_AT = 100_000
KEYS_FOUND = 20_000


class Scans:
    """`commands` are those that it runs."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._cursors: OrderedDict[int, bytes] = OrderedDict()
        self._last = 0
        self.commands: dict[str, Callable[[Client, Sequence[bytes]], None]] = {
            "scan": self._scan,
            "keys": self._keys,
            "dbsize": self._size,
        }

    def run(self, client: Client, name: str, args: Sequence[bytes]) -> None:
        """Its connection is busy until it is over. Problem."""
        try:
            self.commands[name](client, args)
        except Problem:
            client.busy = False
            raise

    def _size(self, client: Client, _: Sequence[bytes]) -> None:
        count = [commands.key_range(b"", b"", 0, COUNT_ONLY)]
        self._gateway.ask(client, READ, count, lambda answers: _page(answers)[3])

    # --- SCAN ------------------------------------------------------------------------------------

    def _scan(self, client: Client, args: Sequence[bytes]) -> None:
        if not args[1].isdigit() or len(args[1]) > 20:
            raise Problem("ERR invalid cursor")
        pattern, many, wanted = self._options(args)
        cursor = int(args[1])
        start, end = bounds(pattern)
        if cursor:
            begin = self._cursors.get(cursor)
            if begin is None:
                raise Problem(
                    "ERR invalid cursor: this replica does not know it (any more); begin with 0"
                )
            start = max(start, begin)
        ask = [commands.key_range(start, end, min(many, STEP_MAX), KEYS_ONLY)]

        def then(answers: list[Any]) -> Any:
            _, _, more, _, rows = _page(answers)
            keys = [row[0] for row in rows]
            found = matching(pattern, keys) if wanted else []
            onward = commands.after(keys[-1]) if keys else start
            return [b"%d" % (self._cursor(onward) if more else 0), found]

        self._gateway.ask(client, READ, ask, then)

    def _options(self, args: Sequence[bytes]) -> tuple[bytes, int, bool]:
        """(pattern, count, whether strings are wanted)."""
        pattern, many, wanted = b"*", 10, True
        for at in range(2, len(args), 2):
            word = args[at].upper()
            if word not in (b"MATCH", b"COUNT", b"TYPE") or at + 1 == len(args):
                raise SYNTAX
            value = args[at + 1]
            if word == b"MATCH":
                pattern = checked(value)
            elif word == b"TYPE":
                wanted = value.lower() == b"string"
            else:
                many = integer(value)
                if many < 1:
                    raise SYNTAX
        return pattern, many, wanted

    def _cursor(self, key: bytes) -> int:
        self._last += 1
        self._cursors[self._last] = key
        if len(self._cursors) > CURSORS_MAX:
            self._cursors.popitem(last=False)
        return self._last

    # --- KEYS ------------------------------------------------------------------------------------

    def _keys(self, client: Client, args: Sequence[bytes]) -> None:
        pattern = checked(args[1])
        start, end = bounds(pattern)
        found: list[bytes] = []
        looked = 0

        def ask(start: bytes) -> None:
            page = [commands.key_range(start, end, KEYS_STEP, KEYS_ONLY)]
            self._gateway.call(READ, page, then)

        def then(answers: list[Any] | Encoded) -> None:
            nonlocal looked
            if isinstance(answers, Encoded):
                self._gateway.finish(client, answers)
                return
            if answers[0][0] != OK:
                self._gateway.finish(client, Problem(refusal(answers[0])))
                return
            _, _, more, _, rows = answers[0]
            keys = [row[0] for row in rows]
            looked += len(keys)
            found.extend(matching(pattern, keys))
            if looked > KEYS_LOOKED_AT or len(found) > KEYS_FOUND:
                many = f"more than {KEYS_LOOKED_AT} keys, or {KEYS_FOUND} that match"
                self._gateway.finish(client, Problem(f"ERR {many}: use SCAN"))
            elif more and not client.stream.closed:
                ask(commands.after(keys[-1]) if keys else start)
            else:
                self._gateway.finish(client, found)

        ask(start)


def _page(answers: list[Any]) -> Any:
    if answers[0][0] != OK:
        raise Problem(refusal(answers[0]))
    return answers[0]


def bounds(pattern: bytes) -> tuple[bytes, bytes]:
    """The range in which all keys are that match."""
    prefix = pattern
    for at, byte in enumerate(pattern):
        if byte in SPECIAL:
            prefix = pattern[:at]
            break
    else:
        return prefix, commands.after(prefix)
    return prefix, commands.prefix_end(prefix) if prefix else b""


def checked(pattern: bytes) -> bytes:
    """Problem: no key is so long, and it would take long to try."""
    if len(pattern) > PATTERN_MAX:
        raise Problem(f"ERR a pattern has at most {PATTERN_MAX} bytes here")
    return pattern


def matching(pattern: bytes, keys: Sequence[bytes]) -> list[bytes]:
    """Of keys that are within `bounds`."""
    if pattern[-1:] == b"*" and not set(pattern[:-1]) & SPECIAL:
        return list(keys)
    return [key for key in keys if matches(pattern, key)]


def matches(pattern: bytes, key: bytes) -> bool:
    """As Redis matches globs: * ? [a-z] [^x] and backslashes. Takes no longer than the product of
    both lengths, whatever the pattern is."""
    at = found = 0
    star, mark = -1, 0
    parts = _parts(pattern)
    while found < len(key):
        part = parts[at] if at < len(parts) else None
        if part is None and star < 0:
            return False
        if part is not None and part is not STAR and key[found] in part:
            at, found = at + 1, found + 1
        elif part is STAR:
            star, mark, at = at, found, at + 1
        elif star >= 0:
            mark += 1
            at, found = star + 1, mark
        else:
            return False
    return all(part is STAR for part in parts[at:])


SPECIAL = frozenset(b"*?[\\")
STAR: frozenset[int] = frozenset()
ANY = frozenset(range(256))


@lru_cache(16)
def _parts(pattern: bytes) -> list[frozenset[int]]:
    parts: list[frozenset[int]] = []
    at = 0
    while at < len(pattern):
        byte = pattern[at]
        if byte == ord("*"):
            if not parts or parts[-1] is not STAR:
                parts.append(STAR)
        elif byte == ord("?"):
            parts.append(ANY)
        elif byte == ord("["):
            one, at = _class(pattern, at + 1)
            parts.append(one)
            continue
        else:
            if byte == ord("\\") and at + 1 < len(pattern):
                at += 1
            parts.append(frozenset(pattern[at : at + 1]))
        at += 1
    return parts


def _class(pattern: bytes, at: int) -> tuple[frozenset[int], int]:
    """What is between brackets, and where it goes on."""
    inverted = pattern[at : at + 1] == b"^"
    at += inverted
    chosen: set[int] = set()
    while at < len(pattern) and pattern[at] != ord("]"):
        if pattern[at] == ord("\\") and at + 1 < len(pattern):
            at += 1
            chosen.add(pattern[at])
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            chosen.update(range(low, high + 1))
            at += 2
        else:
            chosen.add(pattern[at])
        at += 1
    found = ANY - chosen if inverted else frozenset(chosen)
    return found or NONE, at + 1


NONE = frozenset({-1})
