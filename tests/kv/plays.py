"""Random requests for the store and its oracle, and what must be equal after each entry."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest
from kv import oracle as oracle_module
from kv.oracle import Oracle

from engine.kv import commands as c
from engine.kv import history, pieces, store, writes
from engine.kv import state as kv_state
from engine.kv.history import Compacted
from engine.kv.machine import Machine
from engine.kv.sessions import ENDED, HEAD, HEAD_BYTES
from engine.kv.store import unpack_head, unpack_value

MS = 1_000_000
KEYS = [b"", b"a", b"a\0", b"ab", b"b", b"c", b"\xff", b"toolongakey"]
ENDS = [*KEYS[1:], b"", None]
VALUES = [b"", b"x", b"yy", b"z" * 20, b"l" * 41]
LIMITS = (10, 40, 190, 4, 4, 2, 12, 600, 420, 4000 * MS)
"""Small ones, so that all are met."""


class Player:
    """Draws requests that often mean something."""

    def __init__(self, rng: random.Random, oracle: Oracle) -> None:
        self.rng, self.oracle = rng, oracle
        self.time = 0
        self.sessions: list[bytes] = []
        self.sequences: dict[bytes, int] = {}

    def session(self) -> bytes:
        rng = self.rng
        if rng.random() < 0.2:
            return b""
        if len(self.sessions) < 3 or rng.random() < 0.1:
            birth = max(
                0, self.time + rng.choice([0, 0, 0, 0, -3100, -2000, 1000, 59_000, 61_000]) * MS
            )
            self.sessions.append(c.new_session(birth, rng.randbytes(8)))
        return rng.choice(self.sessions[-6:])

    def request(self) -> Any:
        rng = self.rng
        session = self.session()
        last = self.sequences.get(session, 0)
        sequence = max(1, last + rng.choice([1, 1, 1, 1, 1, 3, 0, -1]))
        self.sequences[session] = max(last, sequence)
        return session, sequence, *self.write()

    def put(self) -> Any:
        rng = self.rng
        return c.PUT, rng.choice(KEYS), rng.choice(VALUES), rng.choice([0, 0, -1, self.lease()])

    def lease(self) -> int:
        """One that is there, mostly."""
        there = [*self.oracle.leases]
        return self.rng.choice(there) if there and self.rng.random() < 0.9 else 7

    def span(self) -> Any:
        return self.rng.choice(KEYS), self.rng.choice(ENDS)

    def part(self) -> Any:
        rng = self.rng
        kind = rng.randrange(6)
        if kind < 2:
            return self.put()
        if kind == 2:
            return c.APPEND, rng.choice(KEYS), rng.choice(VALUES)
        if kind == 3:
            return c.DELETE, rng.choice(KEYS)
        if kind == 4:
            return c.DELETE_RANGE, *self.span()
        return self.ask()

    def ask(self) -> Any:
        if self.rng.random() < 0.5:
            return c.GET, self.rng.choice(KEYS)
        return c.RANGE, *self.span(), self.rng.randrange(4), self.rng.randrange(8)

    def compare(self) -> Any:
        rng = self.rng
        target = rng.randrange(5)
        operator = rng.randrange(4)
        if target == c.VALUE:
            operand = rng.choice([*VALUES, None] if operator < 2 else VALUES)
        else:
            operand = rng.randrange(6)
        return rng.choice(KEYS), target, operator, operand

    def several(self, draw: Any) -> Any:
        return tuple(draw() for _ in range(self.rng.randrange(4)))

    def write(self) -> Any:
        rng = self.rng
        kind = rng.randrange(24)
        if kind < 7:
            return self.put()
        if kind < 11:
            part = self.part()
            return part if part[0] < c.GET else self.put()
        key, value, lease = self.put()[1:]
        if kind == 11:
            return c.CAS_VALUE, key, rng.choice([*VALUES, None, None]), value, lease
        if kind == 12:
            return c.CAS_REVISION, key, rng.choice([0, 0, 1, 2, 5]), value, lease
        if kind == 13:
            return c.PUT_VERSION, key, value, rng.choice([0, 0, 1, 2])
        if kind < 17:
            return c.TXN, *map(self.several, (self.compare, self.part, self.part))
        if kind < 20:
            return (
                c.LEASE_GRANT,
                rng.choice([0, 100, 500, 500, 2000, 2000]),
                rng.choice([0, 0, 0, 2, 5, 9]),
            )
        if kind == 20:
            return c.LEASE_REVOKE, self.lease()
        if kind == 21:
            return c.LEASE_ALIVE, self.lease()
        if kind == 22:
            return rng.choice([(c.COMPACT, rng.randrange(30)), (c.END_SESSION,)])
        return self.configure()

    def configure(self) -> Any:
        rng = self.rng
        values: list[Any] = [None] * len(LIMITS)
        place = rng.randrange(len(LIMITS))
        values[place] = LIMITS[place] + rng.choice([0, 1, -1, LIMITS[place] // 2, -1 << 20])
        if values[place] < 0:
            values = [None] * (len(LIMITS) - 1)  # makes no sense
        return c.CONFIGURE, tuple(values)

    def entry(self) -> tuple[int, list[tuple[Any, ...]]]:
        rng = self.rng
        self.time += rng.choice([0, 0, 0, 0, 1, 50, 100, 300, 900]) * MS
        time = self.time - rng.choice([0, 0, 0, 5 * MS])
        frames = [
            (rng.randrange(1000), *[self.request() for _ in range(rng.choice([1, 1, 1, 2, 3]))])
            for _ in range(rng.randrange(5))
        ]
        return max(0, time), frames


def tupled(value: Any) -> Any:
    """Lists as tuples, however deep: as msgpack gives them."""
    return tuple(map(tupled, value)) if isinstance(value, list | tuple) else value


def unpacked(frame: bytes) -> Any:
    return msgpack.unpackb(frame, use_list=False)


def configured(machine: Machine, oracle: Oracle) -> None:
    both(machine, oracle, 0, [(0, (b"", 1, c.CONFIGURE, LIMITS))])


def both(machine: Machine, oracle: Oracle, time: int, frames: list[Any]) -> None:
    """Apply an entry to both: the answers are the same."""
    packed = [msgpack.packb(frame) for frame in frames]
    body = c.pack_entry(machine.group, time, [(7, frame) for frame in packed])
    wanted = oracle.apply(time, frames, [len(frame) for frame in packed])
    answers = [unpacked(answer) for answer in machine.apply(body)]
    told = [(number, *tupled(rest)) for number, rest in wanted]
    assert answers == told, (frames, answers, told)


def state(machine: Machine) -> dict[str, Any]:
    """All that a machine has, in the oracle's words."""
    table = machine.store.table
    rows = {key: (*unpack_head(table[key]), unpack_value(table[key])) for key in table}
    sessions = []
    for name in machine.sessions.order:
        row = machine.sessions.rows[name]
        last, used = HEAD.unpack_from(row)
        kept = [last % ENDED, used, unpacked(row[HEAD_BYTES:]), last >= ENDED]
        sessions.append([name, *kept])
    history = [
        (revision, key, (*unpack_head(row), unpack_value(row)) if row else None)
        for revision, _, key, row in machine.history.events[machine.history.head :]
    ]
    return {
        "keys": rows,
        "order": table.keys(),
        "sessions": sessions,
        "leases": {one: [lease.ttl, lease.deadline] for one, lease in machine.leases.by_id.items()},
        "history": history,
        "next": machine.next_deadline(),
        "numbers": tuple(machine.info()),
        "horizon": machine.sessions.horizon,
        "greatest": machine.leases.greatest,
        "limits": tuple(machine.limits),
        "sizes": (machine.sessions.bytes, machine.history.bytes),
    }


def wanted(oracle: Oracle) -> dict[str, Any]:
    """The same of an oracle."""
    rows = oracle.do_info()
    return {
        "keys": oracle.keys,
        "order": sorted(oracle.keys),
        "sessions": [[*row[:3], tupled(row[3]), row[4]] for row in oracle.sessions],
        "leases": oracle.leases,
        "history": oracle.history,
        "next": min((deadline for _, deadline in oracle.leases.values()), default=None),
        "numbers": rows[1:],
        "horizon": oracle.horizon,
        "greatest": oracle.greatest,
        "limits": tuple(oracle.limits.values()),
        "sizes": (
            sum(32 + len(msgpack.packb(row[3])) for row in oracle.sessions),
            sum(map(oracle.event_bytes, oracle.history)),
        ),
    }


def same(machine: Machine, oracle: Oracle) -> None:
    found, right = state(machine), wanted(oracle)
    for name in right:
        assert found[name] == right[name], name
    assert machine.size == oracle.size()


def reads(player: Player, machine: Machine, oracle: Oracle) -> None:
    """Ask both for something."""
    more: list[Any] = [(c.LEASE_GET, player.lease()), (c.LEASES, 2), (c.LIMITS,), (c.INFO,)]
    asks = [player.rng.choice([player.ask(), player.ask(), *more]) for _ in range(3)]
    for some in (asks, asks[:1]):
        number, rest = oracle.read(9, *some)
        assert unpacked(machine.read(c.pack_frame(9, *some))) == (number, *tupled(rest)), some


def watch(player: Player, machine: Machine, oracle: Oracle) -> None:
    """Follow a range from some revision on: in the end that is all that happened, in whole
    revisions."""
    rng = player.rng
    after = rng.randrange(machine.revision + 2)
    start, end = player.span()
    right = oracle.events(after, start, end)
    gone = None
    try:
        found: list[Any] = []
        while after < machine.revision:
            most, size = rng.randrange(1, 4), rng.randrange(1, 100)
            part, next_after = machine.events(after, start, end, most, size)
            assert after < next_after, "no progress"
            revisions = [event[0] for event in part]
            assert all(after < revision <= next_after for revision in revisions)
            assert len(part) <= most or len(set(revisions)) == 1
            found += [(one[0], one[2]) for one in part]
            after = next_after
    except Compacted as compacted:
        gone = compacted.revision
    if gone is not None:
        assert (right, gone) == (None, oracle.compacted)
    else:
        assert right is not None or not found
        assert [event[:2] for event in right or ()] == found


class Photographer:
    """Takes snapshots while entries are applied: what is loaded from one must be what was there
    when it began."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.pieces: Iterator[bytes] | None = None

    def turn(self, machine: Machine) -> None:
        if self.pieces is None:
            if self.rng.random() < 0.7:
                return
            self.pieces, self.taken = machine.pieces(), []
            self.right = state(machine), machine.digest
            self.hash, self.sum = machine.state_hash(), list(machine.state_hash())[-1]
        for _ in range(self.rng.randrange(4)):
            next(self.hash, None)
            piece = next(self.pieces, None)
            if piece is None:
                self.pieces = None
                return self.check(machine)
            self.taken.append(piece)
        return None

    def check(self, machine: Machine) -> None:
        other = loaded(machine, self.taken)
        assert (state(other), other.digest) == self.right
        assert list(other.state_hash())[-1] == self.sum
        assert [*self.hash][-1:] in ([], [self.sum])
        assert not any(walk.ended for walk in machine.store.walks)


def loaded(machine: Machine, pieces: list[bytes]) -> Machine:
    """Another one of its kind, from pieces, but for empty ones, which are not written."""
    other = type(machine)(machine.group)
    other.load(filter(None, pieces))
    return other


def play(machine: Machine, rng: random.Random, entries: int) -> Machine:
    """Entries for a machine and an oracle, with a look at everything after each. Now and then the
    machine is replaced by what is loaded from its snapshot."""
    oracle = Oracle()
    player, photographer = Player(rng, oracle), Photographer(rng)
    configured(machine, oracle)
    for _ in range(entries):
        both(machine, oracle, *player.entry())
        same(machine, oracle)
        reads(player, machine, oracle)
        watch(player, machine, oracle)
        photographer.turn(machine)
        if rng.random() < 0.05:
            machine = loaded(machine, list(machine.pieces()))
            photographer.pieces = None
    return machine


@contextmanager
def small() -> Iterator[None]:
    """With what is bounded bounded narrowly, so that a few keys are many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "STEP_KEYS", 2)
        patch.setattr(pieces, "PIECE_BYTES", 100)
        patch.setattr(pieces, "_ROWS", 2)
        patch.setattr(history, "SCAN_MAX", 5)
        patch.setattr(history, "_SHIFT_MIN", 4)
        for module in (kv_state, writes):
            patch.setattr(module, "EXPIRE_KEYS_MAX", 2)
        patch.setattr(oracle_module, "EXPIRE", 2)
        yield
