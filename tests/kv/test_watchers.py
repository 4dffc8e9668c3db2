"""Watches on the replica's side, with a real machine: who is told what, and what that costs."""

from __future__ import annotations

from typing import Any

import pytest

from engine.contract import Link
from engine.kv import commands as c
from engine.kv import watchers
from engine.kv import watchers as watchers_module
from engine.kv.machine import Machine
from engine.kv.requests import Watch, Watched
from engine.kv.watchers import Watchers

ME, OTHER = Link("client", 1), Link("client", 2)


class Replica:
    """A machine with its watchers."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.watchers = Watchers(self.machine)
        self.time = 0

    def do(self, *requests: c.Command) -> None:
        """In one entry, each a revision of its own."""
        self.time += 1
        frame = c.pack_frame(1, *[c.request(b"", 1, one) for one in requests])
        self.machine.apply(c.pack_entry(1, self.time, [(1, frame)]))

    def watch(
        self, start: bytes, end: bytes | None = None, *, link: Link = ME, number: int = 1,
        after: int = 0, credit: int = 16,
    ) -> None:  # fmt: skip
        self.watchers.ask(link, Watch(number, start, end, after, credit))

    def news(self) -> dict[tuple[Link, int], Watched]:
        found = {}
        for link, told in self.watchers.news():
            assert (link, told.number) not in found
            found[link, told.number] = told
        return found

    def told(self) -> list[tuple[Any, ...]]:
        """To the only watch: (revision, key, deleted, value) of each event."""
        return [event[:4] for one in self.news().values() for event in one.events]


@pytest.fixture
def replica() -> Replica:
    return Replica()


def test_whole_events(replica: Replica) -> None:
    replica.do(c.put(b"k", b"1"), c.put(b"k", b"2"), c.delete(b"k"), c.put(b"k", b"3"))
    replica.watch(b"k")
    (told,) = replica.news().values()
    assert told == Watched(
        0, 1, 0, 4, 0,
        (
            (1, b"k", False, b"1", 1, 1),
            (2, b"k", False, b"2", 1, 2),
            (3, b"k", True, b"", 0, 0),
            (4, b"k", False, b"3", 4, 1),
        ),
    )  # fmt: skip
    assert replica.news() == {}


def test_the_lease_of_a_value_is_no_part_of_it(replica: Replica) -> None:
    replica.do(c.lease_grant(1000, 5), c.put(b"k", b"v", 5))
    replica.watch(b"k")
    assert replica.told() == [(1, b"k", False, b"v")]


@pytest.mark.parametrize(
    ("start", "end", "keys"),
    [
        (b"b", None, [b"b"]),
        (b"b", b"c", [b"b", b"bb"]),
        (b"b", b"", [b"b", b"bb", b"c"]),
        (b"", b"", [b"a", b"b", b"bb", b"c"]),
        (b"x", None, []),
        (b"c", b"b", []),
    ],
)
def test_ranges(replica: Replica, start: bytes, end: bytes | None, keys: list[bytes]) -> None:
    replica.do(*[c.put(key, b"v") for key in (b"a", b"b", b"bb", b"c")])
    replica.watch(start, end)
    assert [event[1] for event in replica.told()] == keys


def test_only_what_is_after_is_told(replica: Replica) -> None:
    replica.watch(b"k", after=2)
    assert replica.news() == {}
    replica.do(*[c.put(b"k", b"%d" % number) for number in range(4)])
    assert [event[0] for event in replica.told()] == [3, 4]


def test_a_revision_is_told_as_a_whole(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers_module, "EVENTS_MAX", 2)
    replica.do(c.txn((), [c.put(b"%d" % number, b"v") for number in range(5)]))
    replica.do(c.put(b"9", b"v"))
    replica.watch(b"", b"")
    (first,) = replica.news().values()
    assert [event[0] for event in first.events] == [1] * 5
    assert first.after == 1
    (second,) = replica.news().values()
    assert ([event[0] for event in second.events], second.after) == ([2], 2)


def test_what_is_not_for_it_moves_it_on(replica: Replica) -> None:
    """Silently: so it is not told that it is compacted when that comes."""
    replica.watch(b"k")
    replica.do(c.put(b"other", b"v"))
    assert replica.news() == {}
    replica.do(c.compact(1))
    replica.do(c.put(b"k", b"v"))
    assert replica.told() == [(2, b"k", False, b"v")]


def test_each_says_after_which_it_comes(replica: Replica) -> None:
    """What was not for it does not count."""
    replica.watch(b"k")
    replica.do(c.put(b"k", b"1"))
    (first,) = replica.news().values()
    for _ in range(3):
        replica.do(c.put(b"other", b"x"))
        assert replica.news() == {}
    replica.do(c.put(b"k", b"2"))
    (second,) = replica.news().values()
    assert (first.since, first.after, second.since, second.after) == (0, 1, 1, 5)


def test_compacted_ends_it(replica: Replica) -> None:
    replica.do(c.put(b"k", b"1"), c.put(b"k", b"2"), c.compact(1))
    replica.watch(b"k")
    assert replica.news() == {(ME, 1): Watched(0, 1, 0, 1, 1, ())}
    assert replica.watchers.many == 0
    replica.do(c.put(b"k", b"3"))
    assert replica.news() == {}
    replica.watch(b"k", after=1)
    assert [event[0] for event in replica.told()] == [2, 3]


def test_credit_is_spent_and_given(replica: Replica) -> None:
    replica.watch(b"k", credit=2)
    for number in range(2):
        replica.do(c.put(b"k", b"v"))
        assert [event[0] for event in replica.told()] == [number + 1]
    replica.do(c.put(b"k", b"v"))
    assert replica.news() == {}, "it has none left"
    replica.watch(b"k", after=2, credit=1)
    assert [event[0] for event in replica.told()] == [3]


def test_without_credit_it_ends(replica: Replica) -> None:
    replica.watch(b"k")
    replica.watch(b"k", credit=0)
    assert replica.watchers.many == 0
    replica.do(c.put(b"k", b"v"))
    assert replica.news() == {}
    replica.watch(b"never", number=9, credit=0)


def test_asking_again_begins_anew(replica: Replica) -> None:
    replica.do(c.put(b"k", b"v"))
    replica.watch(b"k")
    replica.watch(b"k")
    assert len(replica.told()) == 1
    replica.watch(b"k")
    assert len(replica.told()) == 1


def test_links_and_numbers_are_told_apart(replica: Replica) -> None:
    replica.watch(b"k")
    replica.watch(b"l", number=2)
    replica.watch(b"k", link=OTHER)
    replica.do(c.put(b"k", b"v"), c.put(b"l", b"v"))
    assert replica.news().keys() == {(ME, 1), (ME, 2), (OTHER, 1)}
    replica.watchers.gone(ME)
    assert replica.watchers.many == 1
    replica.do(c.put(b"k", b"v"), c.put(b"l", b"v"))
    assert replica.news().keys() == {(OTHER, 1)}
    replica.watchers.gone(ME)


def test_a_turn_is_bounded_and_fair(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        replica.watch(b"k", number=number)
    assert replica.news() == {}
    monkeypatch.setattr(watchers_module, "STEPS_MAX", 2 * watchers_module.TELL)
    replica.do(c.put(b"k", b"v"))
    turns = [sorted(number for _, number in replica.news()) for _ in range(5)]
    assert turns == [[0, 1], [2, 3], [4, 5], [6, 7], []]


def test_a_link_has_so_many_and_no_more(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers_module, "WATCHES_MAX", 2)
    for number in range(3):
        replica.watch(b"k", number=number)
        replica.watch(b"k", number=number, link=OTHER)
    assert replica.watchers.many == 4
    replica.watch(b"k", number=1)
    replica.do(c.put(b"k", b"v"))
    assert len(replica.news()) == 4


def test_a_snapshot_that_was_loaded_has_the_history(replica: Replica) -> None:
    replica.do(c.put(b"k", b"1"), c.put(b"k", b"2"))
    other = Replica()
    other.machine.load(iter(list(replica.machine.pieces())))
    other.watch(b"k", after=1)
    assert [event[0] for event in other.told()] == [2]


def test_what_no_message_can_carry_has_to_be_read(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "REVISION_BYTES_MAX", 200)
    replica.watch(b"a", b"")
    long = [c.put(b"a%d" % n, bytes(60)) for n in range(4)]
    replica.do(c.txn((), long))
    assert replica.news() == {(ME, 1): Watched(0, 1, 0, 1, 1, ())}
    assert replica.watchers.many == 0
