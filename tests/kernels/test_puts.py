"""Plain puts by the kernel, against the way that all other requests go.

A machine whose kernel never takes anything does every put by `Machine._one`; what both have in the
end, and what both answer, must be the same to the byte.
"""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest

from engine.kernels.puts import dropped, puts
from engine.kernels.table import Table
from engine.kv import machine as machines
from engine.kv.commands import (
    append,
    delete,
    lease_grant,
    new_session,
    pack_entry,
    pack_frame,
    put,
    request,
)
from engine.kv.limits import Limits
from engine.kv.machine import Machine


def _takes_nothing(frames: list[bytes], first: int, *rest: Any) -> tuple[int, int, int, int]:
    return first, rest[6], 0, 0


def _entries(rng: random.Random) -> list[bytes]:
    """Mostly plain puts, and everything that is nearly one."""
    sessions = [new_session(0, rng.randbytes(8)) for _ in range(6)]
    sequences = dict.fromkeys(sessions, 0)
    entries = []
    for time in range(60):
        frames = []
        for _ in range(rng.randrange(12)):
            session = rng.choice(sessions)
            sequences[session] += rng.choice((0, 1, 1, 1, 1, 300, 70_000))
            key = b"k" * rng.choice((1, 1, 2, 3, 40, 41)) + b"%d" % rng.randrange(3)
            value = rng.randbytes(rng.choice((0, 1, 30, 100, 255, 300)))
            command = rng.choice(
                (
                    *[put(key, value)] * 8,
                    put(key, value, rng.choice((-1, 1, 99))),
                    append(key, value),
                    delete(key),
                    lease_grant(5),
                )
            )
            number = rng.choice((0, 127, 128, 255, 256, 65_535, 65_536, 1 << 32, (1 << 63) - 1))
            asked = [request(session, sequences[session], command)]
            if rng.random() < 0.1:
                asked.append(request(session, sequences[session] + 1, put(key, b"second")))
            frame = pack_frame(number, *asked)
            if rng.random() < 0.1:
                frame = _damaged(frame, rng)
            frames.append((0, frame))
        entries.append(pack_entry(1, time * 2_000_000, frames))
    return entries


def _wide_entries(rng: random.Random) -> list[bytes]:
    """Frames of many plain puts, and nearly such; sessions and keys come twice at times."""
    sessions = [new_session(0, rng.randbytes(8)) for _ in range(60)]
    sequences = dict.fromkeys(sessions, 0)
    entries = []
    for time in range(40):
        frames = []
        for _ in range(rng.randrange(4)):
            asked = []
            for session in rng.sample(sessions, rng.choice((1, 2, 5, 14, 15, 16, 40))):
                sequences[session] += rng.choice((1, 1, 1, 300))
                key = b"key %d" % rng.randrange(rng.choice((4, 40)))
                value = rng.randbytes(rng.choice((0, 9, 200, 255)))
                asked.append(request(session, sequences[session], put(key, value)))
            if rng.random() < 0.3:
                session = rng.choice(sessions)
                sequences[session] += rng.choice((0, 1, 1))
                command = rng.choice((put(b"key 1", b"!"), delete(b"key 1"), put(b"k", b"", 7)))
                late = request(session, max(1, sequences[session]), command)
                asked.insert(rng.randrange(len(asked) + 1), late)
            frames.append((0, pack_frame(time, *asked)))
        entries.append(pack_entry(1, time * 2_000_000, frames))
    return entries


def _damaged(frame: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(frame))
    how = rng.randrange(3)
    if how == 0:
        return frame[:at]
    if how == 1:
        return frame + rng.randbytes(1)
    return frame[:at] + rng.randbytes(1) + frame[at + 1 :]


def _all_of(machine: Machine) -> tuple[Any, ...]:
    return machine.digest, machine.info(), b"".join(machine.pieces())


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_a_put_is_a_put_whoever_does_it(
    seed: int, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    entries = _wide_entries(rng) if wide else _entries(rng)
    tight = Limits()._replace(
        key_bytes=40,
        value_bytes=255,
        request_bytes=rng.choice((5000, 20_000)) if wide else 300,
        state_bytes=rng.choice((800, 9000, 1 << 30)),
    )
    ours, slow = Machine(), Machine()
    ours.limits = slow.limits = tight
    taken = 0
    for at, body in enumerate(entries):
        if at == 20:  # what changes while a snapshot is read is put aside
            snapshot, copy = ours.pieces(), b"".join(slow.pieces())
        monkeypatch.setattr(machines, "puts", puts)
        answers = ours.apply(body)
        monkeypatch.setattr(machines, "puts", _takes_nothing)
        assert slow.apply(body) == answers
        taken += len(answers)
    assert taken > (30 if wide else 100)
    assert b"".join(snapshot) == copy
    assert _all_of(ours) == _all_of(slow)


def test_most_puts_are_taken() -> None:
    """Or the test above compares nothing."""
    session = new_session(0, bytes(8))
    frames = [pack_frame(n, request(session, n, put(b"key", b"value"))) for n in range(2, 300)]
    answers: list[bytes] = []
    rows = {session: bytes(16)}
    done = puts(frames, 0, answers, Table(), rows, [], None, (10, 10, 100), 5, 0, 0, 1 << 20)
    assert done[:2] == (298, 303)
    assert len(answers) == 298


@pytest.mark.parametrize("many", [1, 2, 14, 15, 16, 1024, 1025])
def test_a_frame_may_hold_many(many: int) -> None:
    sessions = [new_session(0, n.to_bytes(8, "big")) for n in range(many)]
    frame = pack_frame(
        7, *[request(one, 3, put(b"%d" % n, b"v")) for n, one in enumerate(sessions)]
    )
    answers: list[bytes] = []
    rows = {one: bytes(16) for one in sessions}
    done = puts([frame], 0, answers, Table(), rows, [], None, (10, 10, 1 << 20), 5, 0, 0, 1 << 20)
    if many > 1024:
        assert (done[0], answers) == (0, [])
        return
    assert done[:2] == (1, 5 + many)
    answer = msgpack.unpackb(answers[0], use_list=False)
    assert answer == (7, *[(0, 6 + n, 1) for n in range(many)])


def test_no_part_of_a_frame_is_done_alone() -> None:
    """What cannot be done by the kernel is left to the long way, from the frame's beginning."""
    one, other = (new_session(0, bytes([n]) * 8) for n in (1, 2))
    good = request(one, 3, put(b"key", b"value"))
    table = Table()
    rows = {one: bytes(16), other: bytes(16)}
    for bad in (
        request(other, 3, delete(b"key")),
        request(one, 4, put(b"key", b"again")),
        request(other, 3, put(b"key" * 9, b"")),
        request(new_session(0, b"unknown!"), 1, put(b"k", b"")),
    ):
        rest = (table, rows, [], None, (10, 10, 1000), 0, 0, 0, 1 << 20)
        answers: list[bytes] = []
        assert puts([pack_frame(1, good, bad)], 0, answers, *rest) == (0, 0, 0, 0)
        assert (answers, dict(table), rows) == ([], {}, {one: bytes(16), other: bytes(16)})


def test_it_stops_at_what_is_not_its_own() -> None:
    session = new_session(0, bytes(8))
    good = [pack_frame(n, request(session, n, put(b"key", b"value"))) for n in (1, 2)]
    other = pack_frame(1, request(session, 3, delete(b"key")))
    answers: list[bytes] = []
    rest = (Table(), {session: bytes(16)}, [], None, (10, 10, 100), 0, 0, 0, 1 << 20)
    assert puts([*good, other, *good], 0, answers, *rest)[:2] == (2, 2)
    assert len(answers) == 2
    assert puts([other], 0, answers, *rest)[0] == 0
    assert puts([b"", b"\x92"], 1, answers, *rest)[0] == 1


def test_dropped_events_are_counted_and_gone() -> None:
    filler = (0, 0, b"", b"")
    rng = random.Random(5)
    for _ in range(200):
        many = rng.randrange(30)
        events = [
            (n, 1, rng.randbytes(rng.randrange(9)), bytes(rng.randrange(99))) for n in range(many)
        ]
        first = rng.randrange(many + 1)
        upto = rng.randrange(first, many + 1)
        left = events[:first] + [filler] * (upto - first) + events[upto:]
        size = sum(len(key) + len(record) for _, _, key, record in events[first:upto])
        assert dropped(events, first, upto, filler) == size
        assert events == left
    with pytest.raises(IndexError, match="events 0 to 2 of 1"):
        dropped([filler], 0, 2, filler)
