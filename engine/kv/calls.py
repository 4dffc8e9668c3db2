"""What can be asked of the store, and what an answer means: shared by the faces of the client.

Keys and values are bytes; text is taken as UTF-8. Each function here makes a `Plan`, which a client
carries out and whose `meaning` turns the answer into what its caller gets, or raises. Errors are
those of `engine.errors`: RefusedError and its kind say that nothing was done, OutcomeUnknown that
it may have been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.errors import EngineError, NotFoundError, OutcomeUnknown, RefusedError, UsageError
from engine.kv import commands
from engine.kv.checks import well_formed_read, well_formed_write
from engine.kv.requests import LOCAL, READ, WRITE
from engine.record import Record

Text = bytes | str


class Found(Record):
    """A key as it is: its value, the revisions that made and last changed it, how often it was
    written since it was made, and the lease it ends with, 0 for none."""

    key: bytes
    value: bytes
    created: int
    modified: int
    version: int
    lease: int


class Page(Record):
    """Part of a range. `more`: go on at `commands.after` of the last key. `total` of the range."""

    revision: int
    found: tuple[Found, ...]
    more: bool
    total: int


class Txn(Record):
    """What became of a transaction: which branch it was, and the answers to its operations."""

    revision: int
    succeeded: bool
    answers: tuple[tuple[Any, ...], ...]


class Info(Record):
    """Of the whole store; `time` is replicated time in ns."""

    revision: int
    time: int
    keys: int
    size: int
    sessions: int
    leases: int
    compacted: int


class CompareFailed(EngineError):
    """The key was not as expected; nothing was done. `modified` and `version` are what it has, 0
    if there is no such key."""

    exit_code = 3

    def __init__(self, modified: int, version: int) -> None:
        now = f"it has version {version} of revision {modified}" if version else "there is none"
        super().__init__(f"The key is not as expected: {now}.")
        self.modified, self.version = modified, version


class Maybe(OutcomeUnknown):
    """A versioned put was repeated, and its version had gone: by itself or by another's."""


class Plan(Record):
    """A request: whether it is a `WRITE`, a `READ` or `LOCAL`, and whether the store must see to it
    that it is done only once. `meaning` takes the answer and how often the request was said."""

    how: int
    command: tuple[Any, ...]
    once: bool
    meaning: Callable[[tuple[Any, ...], int], Any]


def as_bytes(text: Text) -> bytes:
    """UTF-8 of text. UsageError for what is neither."""
    if isinstance(text, str):
        try:
            return text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise UsageError(f"{text[:40]!a} cannot be written as UTF-8.") from None
    if isinstance(text, bytes):
        return text
    raise UsageError(f"Keys and values are bytes or text, not {type(text).__name__}.")


def _lease(lease: int) -> int:
    if type(lease) is not int or not commands.KEEP_LEASE <= lease <= commands.INTEGER_MAX:
        raise UsageError(f"{lease!a} is no lease.")
    return lease


def _sound(how: int, command: commands.Command) -> commands.Command:
    """A command with numbers or parts of the caller's. UsageError: a store does not answer what is
    malformed, and whoever asked would wait in vain."""
    if how == WRITE:
        sound = well_formed_write((0, (b"", 1, *command)))
    else:
        sound = well_formed_read((0, command))
    if not sound:
        raise UsageError(f"The store could not make sense of {repr(command[1:])[:200]}.")
    return command


# --- meanings ------------------------------------------------------------------------------------

_LIMITS = {
    "key": "a key may not be so long",
    "value": "a value may not be so long",
    "request": "a request may not be so long",
    "space": "the store is full: delete something, or raise its limit",
    "answer": "the answer would be too long: ask for less at a time",
}


def _well(answer: tuple[Any, ...], said: int) -> tuple[Any, ...]:
    """What follows the code of an answer that is `OK`; else the error that it means."""
    code, *rest = answer
    if code == commands.OK:
        return tuple(rest)
    if code == commands.COMPARE_FAILED:
        raise CompareFailed(rest[1], rest[2])
    if code == commands.NOT_FOUND:
        raise NotFoundError("There is no such key or lease.")
    if code in (commands.LATE, commands.SESSION_EXPIRED):
        if said <= 1:
            raise RefusedError("The session is not known any more; nothing was done.")
        raise OutcomeUnknown("The session ended meanwhile: it may have been done.")
    what = str(rest[0]) if rest else ""
    if code == commands.TOO_LARGE:
        raise RefusedError(f"Nothing was done: {_LIMITS.get(what, what)}.")
    if code == commands.TOO_MANY:
        raise RefusedError(f"Nothing was done: the store has as many {what} as it may.")
    if code == commands.REFUSED:
        raise RefusedError(f"Nothing was done: {what}.")
    raise UsageError(f"The store cannot make sense of it: {what}.")


def _revision(answer: tuple[Any, ...], said: int) -> int:
    return int(_well(answer, said)[0])


def _deleted(answer: tuple[Any, ...], said: int) -> int:
    return int(_well(answer, said)[1])


def _changed(answer: tuple[Any, ...], said: int) -> bool:
    if answer[0] == commands.COMPARE_FAILED:
        return False
    _well(answer, said)
    return True


# --- requests ------------------------------------------------------------------------------------


def put(key: Text, value: Text, lease: int = 0) -> Plan:
    return Plan(WRITE, commands.put(as_bytes(key), as_bytes(value), _lease(lease)), True, _revision)


def append(key: Text, value: Text) -> Plan:
    return Plan(WRITE, commands.append(as_bytes(key), as_bytes(value)), True, _revision)


def delete(key: Text) -> Plan:
    return Plan(WRITE, commands.delete(as_bytes(key)), True, _deleted)


def delete_range(start: Text, end: Text | None) -> Plan:
    last = None if end is None else as_bytes(end)
    return Plan(WRITE, commands.delete_range(as_bytes(start), last), True, _deleted)


def cas(key: Text, expected: Text | None, value: Text, lease: int = 0) -> Plan:
    was = None if expected is None else as_bytes(expected)
    command = commands.cas_value(as_bytes(key), was, as_bytes(value), _lease(lease))
    return Plan(WRITE, command, True, _changed)


def cas_revision(key: Text, expected: int, value: Text, lease: int = 0) -> Plan:
    command = commands.cas_revision(as_bytes(key), expected, as_bytes(value), _lease(lease))
    return Plan(WRITE, _sound(WRITE, command), True, _changed)


def put_version(key: Text, value: Text, version: int) -> Plan:
    def meaning(answer: tuple[Any, ...], said: int) -> int:
        if answer[0] in (commands.COMPARE_FAILED, commands.NOT_FOUND) and said > 1:
            raise Maybe("The version has gone: by this put, or by another one.")
        return int(_well(answer, said)[1])

    command = commands.put_version(as_bytes(key), as_bytes(value), version)
    return Plan(WRITE, _sound(WRITE, command), False, meaning)


def txn(
    compares: Sequence[commands.Command],
    then: Sequence[commands.Command],
    otherwise: Sequence[commands.Command] = (),
) -> Plan:
    def meaning(answer: tuple[Any, ...], said: int) -> Txn:
        revision, succeeded, answers = _well(answer, said)
        return Txn(revision, succeeded, answers)

    command = commands.txn(compares, then, otherwise)
    return Plan(WRITE, _sound(WRITE, command), True, meaning)


def get(key: Text, *, local: bool = False) -> Plan:
    name = as_bytes(key)

    def meaning(answer: tuple[Any, ...], said: int) -> Found | None:
        if answer[0] == commands.NOT_FOUND:
            return None
        return Found(name, *_well(answer, said)[1:])

    return Plan(LOCAL if local else READ, commands.get(name), False, meaning)


def page(
    start: Text, end: Text | None, limit: int = 0, flags: int = 0, *, local: bool = False
) -> Plan:
    def meaning(answer: tuple[Any, ...], said: int) -> Page:
        revision, more, total, rows = _well(answer, said)
        return Page(revision, tuple([Found(*row) for row in rows]), more, total)

    last = None if end is None else as_bytes(end)
    command = commands.key_range(as_bytes(start), last, limit, flags)
    return Plan(LOCAL if local else READ, _sound(READ, command), False, meaning)


def info() -> Plan:
    return Plan(READ, commands.get_info(), False, lambda a, said: Info(*_well(a, said)))


def limits() -> Plan:
    return Plan(READ, commands.get_limits(), False, lambda a, said: _well(a, said)[1])


def configure(values: Sequence[int | None]) -> Plan:
    return Plan(WRITE, _sound(WRITE, commands.configure(values)), True, _revision)


def compact(revision: int) -> Plan:
    return Plan(WRITE, _sound(WRITE, commands.compact(revision)), True, _deleted)


def lease_grant(ttl: float, lease: int = 0) -> Plan:
    """`ttl` in seconds; the answer is (id, ttl in seconds)."""
    if not 0 < ttl <= 1e9:
        raise UsageError(f"A lease lasts a positive number of seconds, not {ttl}.")

    def meaning(answer: tuple[Any, ...], said: int) -> tuple[int, float]:
        _, number, milliseconds = _well(answer, said)
        return number, milliseconds / 1000

    command = commands.lease_grant(max(1, round(ttl * 1000)), lease)
    return Plan(WRITE, _sound(WRITE, command), True, meaning)


def lease_revoke(lease: int) -> Plan:
    return Plan(WRITE, _sound(WRITE, commands.lease_revoke(lease)), True, _deleted)


def lease_alive(lease: int) -> Plan:
    """To go on: the answer is how many seconds it has now. NotFoundError once it has ended."""
    command = _sound(WRITE, commands.lease_alive(lease))
    return Plan(WRITE, command, True, lambda a, said: _well(a, said)[1] / 1000)


def lease_left(lease: int) -> Plan:
    """(ttl, what remains) in seconds, and how many keys hang on it. NotFoundError."""

    def meaning(answer: tuple[Any, ...], said: int) -> tuple[float, float, int]:
        _, ttl, remaining, keys = _well(answer, said)
        return ttl / 1000, remaining / 1000, keys

    return Plan(READ, _sound(READ, commands.lease_get(lease)), False, meaning)
