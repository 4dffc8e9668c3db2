"""What is said to Redis clients: values of Python as RESP2 or RESP3, and the store's refusals."""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.kv import commands

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
UNKNOWN = (
    b"-UNKNOWN no answer in time: it may have been done, or may yet be; whoever repeats it may do "
    b"it twice\r\n"
)
DOWN = b"-CLUSTERDOWN no leader answers; nothing was done\r\n"
CONTENDED = "TRYAGAIN others write these keys all the time; nothing was done"


REPLY_MAX = 64 << 20
"""Bytes of values in one reply: what is longer is not put together."""
TOO_LONG = "ERR the reply would be longer than is said at once here"


class Simple(str):
    """A status, as `OK` is one."""


class Text(bytes):
    """For people: a verbatim string in RESP3."""


class Encoded(bytes):
    """A reply as it goes out."""


class Problem(Exception):
    """A command is refused: an error reply."""


SYNTAX = Problem("ERR syntax error")
NO_INTEGER = Problem("ERR value is not an integer or out of range")


def reply(value: Any, resp3: bool) -> bytes:
    """Of None, int, bytes, str (as bytes), list, tuple, dict, and of the classes above."""
    out: list[bytes] = []
    _put(out, value, resp3)
    return b"".join(out)


def _put(out: list[bytes], value: Any, resp3: bool) -> None:
    kind = type(value)
    if kind is int:
        out.append(b":%d\r\n" % value)
    elif kind is bytes:
        out.append(b"$%d\r\n%b\r\n" % (len(value), value))
    elif value is None:
        out.append(b"_\r\n" if resp3 else b"$-1\r\n")
    elif kind is Simple:
        out.append(b"+%b\r\n" % value.encode())
    elif kind is str:
        _put(out, value.encode(), resp3)
    elif kind is Text:
        if resp3:
            out.append(b"=%d\r\ntxt:%b\r\n" % (len(value) + 4, value))
        else:
            _put(out, bytes(value), resp3)
    elif kind is Encoded:
        out.append(value)
    elif kind is Problem:
        out.append(error(str(value)))
    elif kind is dict:
        out.append((b"%%%d\r\n" if resp3 else b"*%d\r\n") % (len(value) * (1 if resp3 else 2)))
        for pair in value.items():
            for one in pair:
                _put(out, one, resp3)
    elif kind in (list, tuple):
        out.append(b"*%d\r\n" % len(value))
        for one in value:
            _put(out, one, resp3)
    else:
        raise TypeError(f"no reply is {value!r}")


def size(value: Any) -> int:
    """Bytes of the values in it."""
    if isinstance(value, bytes):
        return len(value)
    return sum([size(one) for one in value]) if type(value) is list else 0


def no_array(resp3: bool) -> bytes:
    """In place of an array: EXEC of what was not done."""
    return b"_\r\n" if resp3 else b"*-1\r\n"


def error(text: str) -> bytes:
    """In one line, as clients read them."""
    line = text.replace("\r", " ").replace("\n", " ")
    return b"-%b\r\n" % line.encode("utf-8", "surrogateescape")


REFUSALS: dict[tuple[Any, ...], str] = {
    (commands.TOO_LARGE, "key"): "ERR the key is longer than the store allows",
    (commands.TOO_LARGE, "value"): "ERR the value is longer than the store allows",
    (commands.TOO_LARGE, "request"): "ERR the command is longer than the store allows",
    (commands.TOO_LARGE, "space"): "OOM the store has no space left",
    (commands.TOO_LARGE, "answer"): "ERR the answer is longer than the store allows",
    (commands.TOO_MANY, "sessions"): "OOM the store has too many sessions; nothing was done",
    (commands.TOO_MANY, "leases"): "OOM the store has too many keys that expire; nothing was done",
}
"""By code and what it is about."""


def refusal(answer: tuple[Any, ...]) -> str:
    """What an answer of the store that is not OK says."""
    if answer[0] in (commands.SESSION_EXPIRED, commands.LATE):
        return "UNKNOWN the gateway's session has expired: it may have been done"
    known = REFUSALS.get(answer[:2])
    return known or f"ERR the store refuses: {', '.join(map(str, answer))}"


def explain(raw: bytes) -> bytes:
    """The reply to an answer, packed, that is not OK."""
    return error(refusal(tuple(msgpack.unpackb(raw, use_list=False))))
