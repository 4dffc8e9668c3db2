"""Many leases and many watches: what is to be done for each of them is spread over many turns, and
nothing is done for those whom it does not concern. Steps are counted, never times."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contract import Link
from engine.kv import commands as c
from engine.kv import leases as leases_module
from engine.kv import watchers as watchers_module
from engine.kv.history import Event, matches
from engine.kv.interest import Guest, Interest, Watcher
from engine.kv.leases import MILLISECOND, Leases
from engine.kv.machine import Machine
from engine.kv.recent import Recent
from engine.kv.requests import Watch, Watched, held_mark
from engine.kv.watchers import Watchers

CROWD = 4000
LINKS = [Link("client", number) for number in range(4)]


class Crowd:
    """A machine and its watchers; `spent` is what one turn took, of each kind of work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = Machine()
        self.watchers = Watchers(self.machine)
        self.time = 0
        self.spent: Counter[str] = Counter()
        self.told: Counter[tuple[Link, int]] = Counter()
        self._patch = monkeypatch
        self._count(Interest, "enter")
        self._count(Interest, "leave")
        self._count(Machine, "events")
        self._count(Watchers, "_lay_before")
        self._count(Watchers, "_bring_up")

    def _count(self, of: type, name: str) -> None:
        original = getattr(of, name)

        def counted(*arguments: Any) -> Any:
            self.spent[name] += 1
            return original(*arguments)

        self._patch.setattr(of, name, counted)

    def do(self, *requests: c.Command) -> None:
        self.time += 1
        asked = [c.request(b"", 1, one) for one in requests]
        frames = [(1, c.pack_frame(1, *asked[at : at + 100])) for at in range(0, len(asked), 100)]
        before = self.machine.revision
        self.machine.apply(c.pack_entry(1, self.time, frames))
        assert self.machine.revision == before + len(requests)

    def watch(self, many: int, key: Callable[[int], bytes], after: int = 0) -> None:
        for number in range(many):
            link = LINKS[number % len(LINKS)]
            self.watchers.ask(link, Watch(number, key(number), None, after, 16))

    def turn(self) -> Counter[str]:
        self.spent.clear()
        for link, told in self.watchers.news():
            assert not told.compacted
            self.spent["told"] += 1
            self.told[link, told.number] += len(told.events)
        return Counter(self.spent)

    def turns(self) -> list[Counter[str]]:
        """Until there is nothing to do."""
        found = []
        while self.watchers.busy:
            found.append(self.turn())
        return found


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Crowd:
    return Crowd(monkeypatch)


def own(number: int) -> bytes:
    return b"k%05d" % number


def most(turns: list[Counter[str]], what: str) -> int:
    return max(turn[what] for turn in turns)


def test_a_crowd_begins_in_many_turns(crowd: Crowd) -> None:
    crowd.do(c.put(b"x", b""))
    crowd.watch(CROWD, own)
    turns = crowd.turns()
    assert sum(turn["enter"] for turn in turns) == CROWD
    assert most(turns, "_bring_up") <= watchers_module.STEPS_MAX // watchers_module.BEGIN


def test_a_crowd_that_was_away_is_one_look_at_the_history(crowd: Crowd) -> None:
    """As when they all come from another replica, of which each heard up to somewhere else."""
    for at in range(0, 1000, 100):
        crowd.do(*[c.put(b"x%d" % number, b"") for number in range(at, at + 100)])
    for number in range(CROWD):
        crowd.watchers.ask(LINKS[0], Watch(number, own(number), None, number % 1000, 16))
    turns = crowd.turns()
    assert sum(turn["enter"] for turn in turns) == CROWD
    assert sum(turn["events"] for turn in turns) <= watchers_module.CROWD
    assert not crowd.told


def test_nobody_is_looked_at_whom_it_does_not_concern(crowd: Crowd) -> None:
    crowd.watch(CROWD, own)
    crowd.turns()
    for _ in range(10):
        crowd.do(c.put(b"x", b""))
        assert crowd.turn() == {"_lay_before": 1}
        assert crowd.turn() == {}
    crowd.do(c.put(own(7), b""))
    assert crowd.turn() == {"_lay_before": 1, "told": 1}


def test_what_concerns_all_is_told_in_many_turns(crowd: Crowd) -> None:
    crowd.watch(CROWD, lambda _: b"k")
    crowd.turns()
    crowd.do(c.put(b"k", b"1"))
    first = crowd.turn()
    assert crowd.watchers.busy
    crowd.do(c.put(b"k", b"2"))
    turns = [first, *crowd.turns()]
    assert most(turns, "told") <= watchers_module.STEPS_MAX // watchers_module.TELL + 1
    assert set(crowd.told.values()) == {2}
    assert len(crowd.told) == CROWD


def test_many_keys_at_once_are_told_in_many_turns(crowd: Crowd) -> None:
    crowd.watch(CROWD, own)
    crowd.turns()
    crowd.do(*[c.put(own(number), b"") for number in range(CROWD)])
    turns = crowd.turns()
    assert most(turns, "told") <= watchers_module.STEPS_MAX // watchers_module.TELL + 1
    assert most(turns, "_lay_before") <= watchers_module.STEPS_MAX // watchers_module.LOOK
    assert set(crowd.told.values()) == {1}
    assert len(crowd.told) == CROWD


def test_a_crowd_that_goes_at_once_is_forgotten_in_many_turns(crowd: Crowd) -> None:
    crowd.watch(CROWD, own)
    crowd.turns()
    for link in LINKS:
        crowd.watchers.gone(link)
    assert crowd.watchers.many == 0
    crowd.do(*[c.put(own(number), b"") for number in range(CROWD)])
    turns = crowd.turns()
    assert sum(turn["leave"] for turn in turns) == CROWD
    assert most(turns, "leave") <= watchers_module.STEPS_MAX // 8 // watchers_module.LEAVE + 1
    assert not crowd.told, "nobody is there"


def test_while_too_much_waits_to_be_told_nothing_else_is_looked_at(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers_module, "PENDING_MAX", 10)
    crowd.watch(100, own)
    crowd.turns()
    crowd.do(*[c.put(own(number), b"") for number in range(100)])
    monkeypatch.setattr(watchers_module, "STEPS_MAX", 8)
    assert crowd.turn()["_lay_before"] == 2
    monkeypatch.setattr(watchers_module, "STEPS_MAX", 20_000)
    assert most(crowd.turns(), "_lay_before") <= 10
    assert set(crowd.told.values()) == {1}
    assert len(crowd.told) == 100


# --- against what is slow and obvious ------------------------------------------------------------

RANGES: list[tuple[bytes, bytes | None]] = [
    (b"a", None), (b"b", None), (b"ba", None), (b"b", b"c"), (b"", b""), (b"a", b"bb"),
    (b"ba", b"bb"), (b"b", b""), (b"bb", b"a"), (b"\xff", b""), (b"a\xff", b"b"),
]  # fmt: skip
KEYS = [b"a", b"b", b"ba", b"bb", b"bab", b"c", b"\xff", b"\xff\xff", b"a\xff", b""]


class Heard:
    """A watch as its client has it: what it was told must be what happened, whole, in order."""

    def __init__(self, start: bytes, end: bytes | None, after: int) -> None:
        self.range = start, end
        self.after = after
        self.credit = 0

    def told(self, told: Watched, happened: list[Event]) -> None:
        assert told.since == self.after
        assert self.credit > 0
        expected = [
            (revision, key)
            for revision, _, key, _ in happened
            if self.after < revision <= told.after and matches(key, *self.range)
        ]
        assert [one[:2] for one in told.events] == expected
        assert expected
        self.after, self.credit = told.after, self.credit - 1


class World:
    """Random watches on a machine that is written to, in turns of a few steps."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.machine = Machine()
        self.watchers = Watchers(self.machine)
        self.heard: dict[tuple[Link, int], Heard] = {}
        self.happened: list[Event] = []
        self.compacted = 0

    def step(self) -> None:
        rng = self.rng
        what = rng.random()
        if what < 0.4:
            self._write()
        elif what < 0.6:
            self._ask()
        elif what < 0.63:
            link = rng.choice(LINKS)
            self.watchers.gone(link)
            self.heard = {at: one for at, one in self.heard.items() if at[0] != link}
        elif what < 0.65:
            revision = rng.randrange(max(0, self.machine.revision - 4), self.machine.revision + 1)
            self._do(c.compact(revision))
        else:
            self._turn()
        for link in LINKS:
            ours = [
                (at[1], one.after, one.credit) for at, one in self.heard.items() if at[0] == link
            ]
            held = len(ours), sum([held_mark(*one) for one in ours])
            assert self.watchers.held(link) == held
        assert self.watchers.many == len(self.heard)

    def _do(self, *requests: c.Command) -> None:
        frame = c.pack_frame(1, *[c.request(b"", 1, one) for one in requests])
        before = self.machine.revision
        self.machine.apply(c.pack_entry(1, 1, [(1, frame)]))
        events = self.machine.history.events
        self.happened += [event for event in events if event[0] > before]

    def _write(self) -> None:
        puts = [c.put(self.rng.choice(KEYS), b"v") for _ in range(self.rng.randrange(1, 6))]
        if self.rng.random() < 0.3:
            self._do(c.txn((), list({one[1]: one for one in puts}.values())))
        else:
            self._do(*puts, c.delete(self.rng.choice(KEYS)))

    def _ask(self) -> None:
        rng = self.rng
        at = rng.choice(LINKS), rng.randrange(6)
        one = self.heard.get(at)
        if one is not None and rng.random() < 0.3:
            self.watchers.ask(at[0], Watch(at[1], *one.range, one.after, 0))
            del self.heard[at]
            return
        if one is None:
            revision = self.machine.revision
            after = rng.choice((revision, max(0, revision - rng.randrange(30)), revision + 2))
            one = self.heard[at] = Heard(*rng.choice(RANGES), after)
        one.credit = rng.choice((1, 2, 16))
        self.watchers.ask(at[0], Watch(at[1], *one.range, one.after, one.credit))

    def _turn(self) -> None:
        for link, told in self.watchers.news():
            one = self.heard[link, told.number]
            if told.compacted:
                assert one.after < told.compacted == self.machine.history.compacted
                del self.heard[link, told.number]
                self.compacted += 1
            else:
                one.told(told, self.happened)

    def end(self) -> None:
        """In the end everybody who can be told was told all."""
        while self.watchers.busy:
            self._turn()
        for one in self.heard.values():
            rest = [e for e in self.happened if e[0] > one.after and matches(e[2], *one.range)]
            assert not rest or one.credit == 0


@pytest.mark.parametrize("steps", [16, 400, 20_000])
def test_everybody_is_told_what_happened(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers_module, "STEPS_MAX", steps)
    monkeypatch.setattr(watchers_module, "PENDING_MAX", 20)
    monkeypatch.setattr(watchers_module, "EVENTS_MAX", 3)
    monkeypatch.setattr(watchers_module, "CROWD", 2)
    monkeypatch.setattr(watchers_module, "KEPT", 12)
    monkeypatch.setattr("engine.kv.recent.KEPT", 4)
    compacted = 0
    for seed in range(40):
        world = World(random.Random(seed))
        for _ in range(250):
            world.step()
        world.end()
        compacted += world.compacted
    assert compacted, "some were away for too long"


@given(
    st.lists(st.tuples(st.binary(max_size=3), st.none() | st.binary(max_size=3)), max_size=12),
    st.lists(st.binary(max_size=4), max_size=12),
)
def test_whom_a_key_concerns(ranges: list[tuple[bytes, bytes | None]], keys: list[bytes]) -> None:
    interest, guest = Interest(), Guest(LINKS[0])
    all_of = [Watcher(guest, n, start, end, 0, 1) for n, (start, end) in enumerate(ranges)]
    for watcher in all_of:
        interest.enter(watcher)
    for left in range(len(all_of) + 1):
        for key in keys:
            found = {one.number for one in everybody(interest, key)}
            here = [one for one in all_of if one.number >= left]
            assert found == {one.number for one in here if matches(key, one.start, one.end)}
        if left < len(all_of):
            interest.leave(all_of[left])
    assert not interest
    assert interest.lengths == ()


def everybody(interest: Interest, key: bytes) -> list[Watcher]:
    places = [place for place, concerned in interest.ranges(key) if concerned]
    places += [interest.keys[key]] if key in interest.keys else []
    return [watcher for place in places for watcher in place.everybody()]


def test_prefixes_are_not_gone_through() -> None:
    interest, guest = Interest(), Guest(LINKS[0])
    for number in range(200):
        start = b"k%c" % number
        interest.enter(Watcher(guest, number, start, c.prefix_end(start), 0, 1))
    assert [place.start for place, _ in interest.ranges(b"k%c/4" % 123)] == [b"k%c" % 123]


def test_changes_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.kv.recent.KEPT", 2)
    recent = Recent(0, [(1, 1, b"a", b""), (2, 1, b"b", b"")])
    recent.turn(2)
    assert [recent.last(key) for key in (b"a", b"b", b"c")] == [1, 2, 0]
    recent.young[b"c"] = 3
    recent.young[b"a"] = 4
    recent.turn(4)
    assert (recent.floor, recent.last(b"a"), recent.last(b"b")) == (2, 4, 0)


# --- leases --------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("gkra"), st.integers(0, 7), st.integers(1, 60))))
def test_leases_end_in_order(plan: list[tuple[str, int, int]]) -> None:
    leases, time = Leases(), 0
    for what, number, ttl in plan:
        lease = leases.living(number, time)
        if what == "g" and number not in leases.by_id:
            leases.grant(number, ttl, time)
        elif what == "k" and lease:
            leases.keep_alive(lease, time)
        elif what == "r" and lease:
            leases.revoke(lease)
        elif what == "a":
            time += ttl * MILLISECOND
        ending = sorted((one.deadline, one.id) for one in leases.by_id.values())
        first = leases.first()
        assert first == (leases.by_id[ending[0][1]] if ending else None)
        if first is not None and first.deadline <= time:
            leases.drop_if_empty(first.id)


def test_leases_that_are_kept_alive_are_not_put_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many that live on, none is looked at to find which one ends next, when it is time that the
    first of them would have ended."""
    moved = Counter[str]()
    for name in ("heappop", "heappush", "heapify"):
        original = getattr(leases_module, name)

        def counted(heap: list[Any], *more: Any, name: str = name, original: Any = original) -> Any:
            moved[name] += len(heap) if name == "heapify" else 1
            return original(heap, *more)

        monkeypatch.setattr(leases_module, name, counted)
    leases, second = Leases(), 1000 * MILLISECOND
    for number in range(1, CROWD + 1):
        leases.grant(number, 30_000, second + number * MILLISECOND // 4)
    for turn in range(1, 6):
        for number in range(1, CROWD + 1):
            time = (1 + 10 * turn) * second + number * MILLISECOND // 4
            leases.keep_alive(leases.by_id[number], time)
            if number % 100 == 0:
                moved.clear()
                assert leases.first() is not None
                assert sum(moved.values()) <= 200
    moved.clear()
    leases.revoke(leases.by_id[17])
    leases.drop_if_empty(17)
    assert sum(moved.values()) <= 2


def test_a_key_of_a_lease_is_one_or_many() -> None:
    leases = Leases()
    leases.grant(1, 1000, 0)
    for keys in ([b"a"], [b"a", b"b"], [b"a", b"b", b"c"]):
        for key in keys + keys:
            leases.attach(1, key)
        assert (leases.size(1), leases.next_keys(1, 9)) == (len(keys), keys)
        for key in keys:
            leases.detach(1, key)
        assert (leases.size(1), leases.next_keys(1, 9)) == (0, [])
    leases.attach(1, b"a")
    with pytest.raises(KeyError):
        leases.detach(1, b"b")


def test_an_entry_ends_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    grants = [c.request(b"", 1, c.lease_grant(1000)) for _ in range(1000)]
    machine.apply(c.pack_entry(1, 0, [(1, c.pack_frame(1, *grants))]))
    left = []
    while machine.leases.by_id:
        machine.apply(c.pack_entry(1, 1000 * MILLISECOND, []))
        left.append(len(machine.leases.by_id))
    assert left == [750, 500, 250, 0]
