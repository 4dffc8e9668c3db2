"""Commands that look before they write, at two gateways of one store, in orders drawn at random."""

from __future__ import annotations

import random
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from support import dose

from engine.contract import SECOND
from engine.kernels.resp import Intake
from engine.kv import commands
from engine.kv.commands import KEYS_ONLY, get, key_range, pack_entry, pack_frame, put, request
from engine.kv.machine import Machine
from engine.kv.requests import READ, WRITE
from engine.redis.direct import direct
from engine.redis.gateway import Asked, cut_short
from engine.redis.groups import KEYS_MAX, Groups, Task
from engine.redis.leases import Leases
from engine.redis.replies import Encoded, Problem, explain
from engine.redis.table import find


class Store:
    """A machine, and gateways whose frames reach it in any order, some of them twice."""

    def __init__(self, seed: int, gateways: int = 2) -> None:
        self.rng = random.Random(seed)
        self.machine = Machine()
        self.now = self.time = 0
        self.intakes = [Intake(explain, self.rng.randbytes, 1000, 1 << 19, 600.0) for _ in "ab"]
        self.leases = [
            Leases(one.call, self.rng.randbytes, lambda: self.now) for one in self.intakes
        ]
        self.groups = [
            Groups(intake.call, leases, lambda: self.now, lambda: self.now // 1_000_000)
            for intake, leases in zip(self.intakes, self.leases, strict=True)
        ]
        self.batches: list[Any] = []
        del self.intakes[gateways:], self.groups[gateways:]

    def ask(self, gateway: int, *lines: str, watched: Any = None) -> list[Any]:
        """What becomes of it is in the list, once it is over."""
        said: list[Any] = []
        asked = [(find(words), words) for words in [line.encode().split() for line in lines]]
        self.groups[gateway].add(Task(asked, watched, said.append, self.now))
        return said

    def step(self) -> None:
        """Time passes, groups begin, and one frame is answered."""
        self.time += self.rng.randrange(1000)
        for groups, intake in zip(self.groups, self.intakes, strict=True):
            groups.begin()
            for how in (WRITE, READ):
                self.batches += [one for one in intake.take(how) if len(one)]
        if self.batches:
            batch = self.batches.pop(self.rng.randrange(len(self.batches)))
            for who, raw in batch.answer(self._answer(batch))[1]:
                who.hear(raw)

    def _answer(self, batch: Any) -> bytes:
        frame = batch.frame()
        if batch.how == READ:
            return self.machine.read(frame)
        many = self.rng.choice((1, 1, 2))
        return self.machine.apply(pack_entry(1, self.time, [(0, frame)] * many))[0]

    def settle(self) -> None:
        for _ in range(5000):
            self.step()
            waits = [one.pending(how) for one in self.intakes for how in (WRITE, READ)]
            waits += [groups.waiting for groups in self.groups]
            if not self.batches and not any(waits):
                return
        raise AssertionError("it does not end")

    def one(self, *lines: str, watched: Any = None) -> Any:
        """What a command, or a transaction, replies."""
        said = self.ask(0, *lines, watched=watched)
        self.settle()
        (found,) = said
        return found[0] if type(found) is list and len(lines) == 1 else found


@pytest.mark.parametrize("seed", range(dose(10, 500)))
def test_each_increment_is_done_once_at_whichever_gateway(seed: int) -> None:
    store = Store(seed)
    said: list[list[Any]] = []
    for _ in range(60):
        said.append(store.ask(store.rng.randrange(2), f"incr {store.rng.choice('ab')}"))
        for _ in range(store.rng.randrange(4)):
            store.step()
    store.settle()
    values = sorted(found[0] for (found,) in said)
    first, second = int(store.one("get a")), int(store.one("get b"))
    assert values == sorted([*range(1, first + 1), *range(1, second + 1)])
    assert first + second == 60


@pytest.mark.parametrize("seed", range(dose(10, 500)))
def test_money_is_neither_made_nor_lost_by_transactions(seed: int) -> None:
    store = Store(seed)
    store.one("mset a 100 b 100 c 100")
    for _ in range(40):
        giver, taker = store.rng.sample("abc", 2)
        store.ask(store.rng.randrange(2), f"decrby {giver} 7", f"incrby {taker} 7")
        for _ in range(store.rng.randrange(4)):
            store.step()
    store.settle()
    assert sum(map(int, store.one("mget a b c"))) == 300


def test_what_was_watched_must_be_so_still() -> None:
    store = Store(1)
    store.one("set k 1")
    mod = store.machine.store.head(b"k").mod
    assert store.one("set k 2", "get k", watched={b"k": mod})[1] == b"2"
    assert store.one("set k 3", "get k", watched={b"k": mod}) is None
    assert store.one("get k", watched={b"nope": 0}) == b"2"
    # Two of one gateway, which share a transaction: the first changes what the second watches.
    mod = store.machine.store.head(b"k").mod
    one = store.ask(0, "set k 4", watched={b"k": mod})
    two = store.ask(0, "set k 5", watched={b"k": mod})
    store.settle()
    assert sorted([one[0] is None, two[0] is None]) == [False, True]


def test_what_is_refused_alone_does_not_take_others_with_it() -> None:
    store = Store(1)
    store.machine.limits = store.machine.limits._replace(value_bytes=10)
    large, small = store.ask(0, "append k 12345678901"), store.ask(0, "incr c")
    store.settle()
    assert isinstance(large[0], Problem)
    assert "longer" in str(large[0])
    assert small == [[1]]


def test_whoever_is_always_too_late_is_told_so() -> None:
    store = Store(1, gateways=1)
    said = store.ask(0, "incr k")
    for n in range(2000):
        store.machine.apply(
            pack_entry(1, 0, [(0, pack_frame(1, request(b"", 1, put(b"k", b"%d" % n))))])
        )
        store.now += SECOND // 100
        store.step()
        if said:
            break
    assert "TRYAGAIN" in str(said[0])


def test_a_frame_that_is_lost_is_lost_for_all_who_share_it() -> None:
    store = Store(1, gateways=1)
    one, two = store.ask(0, "incr k"), store.ask(0, "incr k")
    store.groups[0].begin()
    (batch,) = store.intakes[0].take(READ)
    for who, _ in batch.fail(b"-GONE\r\n")[1]:
        who.fail(Encoded(b"-GONE\r\n"))
    assert one == two == [b"-GONE\r\n"]
    assert store.one("incr k") == 1


def test_keys_have_times_and_leases_that_are_empty_go() -> None:
    store = Store(1)
    leases = store.leases[0]
    assert store.one("getex k ex 9") is None
    store.one("set k v nx ex 9")
    assert 0 < store.one("pttl k") <= 9000
    assert store.one("expire k 99") == 1
    assert store.one("ttl k") == 99
    assert store.one("persist k") == 1
    assert store.one("ttl k") == -1
    made = direct("setex", [b"setex", b"k", b"50", b"w"], leases, 0)
    assert made is not None
    packed = [msgpack.packb(one) for one in made.requests]
    store.intakes[0].call(WRITE, Asked(2, lambda answers: None), packed)
    store.settle()
    assert len(store.machine.leases.by_id) == len(leases) == 3
    leases.look(store.machine)
    store.settle()
    assert len(store.machine.leases.by_id) == len(leases) == 1
    assert store.one("get k") == b"w"
    store.time += 60 * SECOND
    assert store.one("ttl k") == -2


def test_a_reply_that_nobody_could_put_together_is_refused_and_nothing_done() -> None:
    store = Store(1, gateways=1)
    frame = pack_frame(1, request(b"", 1, put(b"k", bytes(1 << 20))))
    store.machine.apply(pack_entry(1, 0, [(0, frame)]))
    long = store.ask(0, "set other x", *["get k"] * 65)
    short = store.ask(0, "incr c")
    store.settle()
    assert "longer" in str(long[0])
    assert short == [[1]]
    assert store.one("get other") is None


def test_a_group_takes_no_more_keys_than_a_transaction() -> None:
    store = Store(1)
    said = [store.ask(0, f"incr k{n}") for n in range(KEYS_MAX + 10)]
    store.settle()
    assert said == [[[1]]] * len(said)


def test_an_answer_without_room_is_no_answer() -> None:
    """A range that does not fit is shorter, and would look like a key that is not there."""
    machine = Machine()
    for key in (b"a", b"b"):
        frame = pack_frame(1, request(b"", 1, put(key, bytes(1 << 20))))
        machine.apply(pack_entry(1, 0, [(0, frame)]))
    asked = [get(b"a"), get(b"b"), key_range(b"b", None, 1, 0), key_range(b"b", None, 1, KEYS_ONLY)]
    asked += [key_range(b"nope", None, 1, KEYS_ONLY), get(b"nope")]
    _, answers = commands.unpack_answers(machine.read(pack_frame(1, *asked)))
    cut = [cut_short(*pair) for pair in zip(asked, answers, strict=True)]
    assert cut == [False, True, True, True, False, False]
