"""Commands that need not look before they write, or only look: one frame, and one answer each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.kv import commands
from engine.kv.commands import COUNT_ONLY, NOT_FOUND, OK
from engine.kv.requests import READ, WRITE
from engine.record import Record
from engine.redis import strings
from engine.redis.leases import Leases
from engine.redis.replies import Problem, Simple, refusal
from engine.redis.view import KEEP, NEVER, TTL_MAX

SHARED = 900
"""Requests that certainly share a frame, which is done at one moment. More of them follow in
others."""

KEYS_MAX = 20_000

Args = Sequence[bytes]


class Direct(Record):
    """What to ask, and what to make of the answers."""

    how: int
    requests: Sequence[commands.Command]
    reply: Callable[[list[Any]], Any]


def direct(name: str, args: Args, leases: Leases, now: int) -> Direct | None:
    """None: it has to be done in another way. Problem."""
    make = _MAKERS.get(name)
    if make is None:
        return None
    if len(args) > KEYS_MAX:
        raise Problem(f"ERR at most {KEYS_MAX} keys are asked for at once here")
    return make(args, leases, now)


def _well(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if answer[0] != OK:
            raise Problem(refusal(answer))
    return answers


def _get(args: Args, _: Leases, __: int) -> Direct:
    return Direct(READ, [commands.get(args[1])], lambda answers: _value(answers[0]))


def _mget(args: Args, _: Leases, __: int) -> Direct:
    gets = [commands.get(key) for key in args[1:]]
    return Direct(READ, gets, lambda answers: [_value(answer) for answer in answers])


def _value(answer: Any) -> bytes | None:
    if answer[0] == NOT_FOUND:
        return None
    found: bytes = _well([answer])[0][2]
    return found


def _exists(args: Args, _: Leases, __: int) -> Direct:
    ranges = [commands.key_range(key, None, 0, COUNT_ONLY) for key in args[1:]]
    return Direct(READ, ranges, lambda answers: sum([one[3] for one in _well(answers)]))


def _type(args: Args, _: Leases, __: int) -> Direct:
    there = [commands.key_range(args[1], None, 0, COUNT_ONLY)]
    return Direct(READ, there, lambda a: Simple("string" if _well(a)[0][3] else "none"))


def _delete(args: Args, _: Leases, __: int) -> Direct:
    deletes = [commands.delete(key) for key in args[1:]]
    return Direct(WRITE, deletes, lambda answers: sum([one[2] for one in _well(answers)]))


def _mset(args: Args, _: Leases, __: int) -> Direct:
    last = dict(zip(args[1::2], args[2::2], strict=True))
    if len(last) > SHARED:
        raise Problem(f"ERR at most {SHARED} keys are set at once here")
    return Direct(WRITE, [commands.put(*pair) for pair in last.items()], _ok)


def _ok(answers: list[Any]) -> Simple:
    _well(answers)
    return Simple("OK")


def _set(args: Args, leases: Leases, now: int) -> Direct | None:
    wanted = strings.set_options(now, args)
    if wanted.keys() & {"NX", "XX", "GET"}:
        return None
    return _put(args[1], args[2], wanted["ttl"], leases)


def _setex(args: Args, leases: Leases, now: int) -> Direct | None:
    return _put(args[1], args[3], strings.time_to_live(args[2], "EX", now, "setex"), leases)


def _psetex(args: Args, leases: Leases, now: int) -> Direct | None:
    return _put(args[1], args[3], strings.time_to_live(args[2], "PX", now, "psetex"), leases)


def _put(key: bytes, value: bytes, ttl: int, leases: Leases) -> Direct | None:
    if ttl < KEEP:
        return None
    if ttl <= NEVER:
        return Direct(WRITE, [commands.put(key, value, ttl)], _ok)
    lease = leases.new()
    grant = commands.lease_grant(min(ttl, TTL_MAX), lease)
    return Direct(WRITE, [grant, commands.put(key, value, lease)], _ok)


_MAKERS: dict[str, Callable[[Args, Leases, int], Direct | None]] = {
    "get": _get,
    "mget": _mget,
    "exists": _exists,
    "touch": _exists,
    "type": _type,
    "del": _delete,
    "unlink": _delete,
    "mset": _mset,
    "set": _set,
    "setex": _setex,
    "psetex": _psetex,
}
