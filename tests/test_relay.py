"""Operations on their way to a follower, over a network that loses, repeats and reorders them."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support import dose

from engine.contract import Link
from engine.record import Record
from engine.relay import PART_BYTES, Relay

RETRY = 50


class Operation(Record):
    """What a relay needs to know of one: whose it is, and how heavy."""

    client: int
    number: int
    size: int = 1


def weight(operation: Operation) -> int:
    return operation.size


def link(number: int) -> Link:
    return Link("client", number)


def relay(*operations: Operation) -> Relay:
    made = Relay(RETRY, weight)
    for operation in operations:
        made.add(operation, link(operation.client))
    return made


OPERATIONS = [Operation(client, client) for client in range(5)]


class Delivery(RuleBasedStateMachine):
    """A relay, a follower that applies in order, and what is on its way between them.

    The follower says how many it has; the relay's owner knows how many have left it already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.relay = relay()
        self.now = 0
        self.added: list[Operation] = []
        self.waiting: dict[int, Link] = {}
        self.applied: list[Operation] = []
        self.left: list[Operation] = []
        self.on_the_way: list[tuple[int, tuple[Operation, ...]]] = []
        self.acknowledgements: list[int] = []

    # --- what may happen -------------------------------------------------------------------------

    @rule(client=st.integers(0, 9), size=st.sampled_from((1, PART_BYTES // 2, PART_BYTES + 1)))
    def asks(self, client: int, size: int) -> None:
        """A client asks, or asks again, over another link: it waits once, and is answered there."""
        operation = Operation(client, len(self.added), size)
        over = link(100 * self.now + client)
        self.relay.add(operation, over)
        if client not in self.waiting:
            self.added.append(operation)
        self.waiting[client] = over

    @rule(later=st.integers(0, 2 * RETRY))
    def says(self, later: int) -> None:
        self.now += later
        for before, operations in self.relay.parts(self.now):
            assert operations
            assert sum(map(weight, operations[:-1])) < PART_BYTES, "a part that is full is sent"
            first = len(self.left) + before
            assert list(operations) == self.added[first : first + len(operations)]
            self.on_the_way.append((first, operations))
        if self.waiting:
            assert self.relay.wake_at is not None
            assert self.now < self.relay.wake_at <= self.now + RETRY, "it would be busy, or late"
        assert self.relay.parts(self.now) == [], "what was said is not said again at once"

    @rule()
    def says_to_another(self) -> None:
        self.relay.again()

    @precondition(lambda self: self.on_the_way)
    @rule(which=st.integers(0, 1 << 16), stays=st.booleans())
    def arrives(self, which: int, stays: bool) -> None:
        """Any of those on the way; a copy may arrive later still."""
        index = which % len(self.on_the_way)
        first, operations = self.on_the_way[index] if stays else self.on_the_way.pop(index)
        known = len(self.applied) - first
        if known >= 0:
            self.applied += operations[known:]
        self.acknowledgements.append(len(self.applied))

    @precondition(lambda self: self.on_the_way)
    @rule(which=st.integers(0, 1 << 16))
    def is_lost(self, which: int) -> None:
        self.on_the_way.pop(which % len(self.on_the_way))

    @precondition(lambda self: self.acknowledgements)
    @rule(which=st.integers(0, 1 << 16), lost=st.booleans())
    def is_acknowledged(self, which: int, lost: bool) -> None:
        number = self.acknowledgements.pop(which % len(self.acknowledgements))
        if not lost:
            self.take(max(0, number - len(self.left)))

    def take(self, count: int) -> None:
        for operation, over in self.relay.take(count):
            assert over == self.waiting.pop(operation.client), "its last link"
            self.left.append(operation)

    # --- what holds ------------------------------------------------------------------------------

    @invariant()
    def each_once_and_in_order(self) -> None:
        self.relay.check()
        assert self.applied == self.added[: len(self.applied)]
        assert self.left == self.applied[: len(self.left)], "nothing leaves that nobody has"
        assert len(self.relay) == len(self.waiting) == len(self.added) - len(self.left)
        if not self.waiting:
            assert self.relay.wake_at is None

    def teardown(self) -> None:
        """When the network is well, one `retry` is enough."""
        self.now = max(self.now, self.relay.wake_at or 0)
        self.says(0)
        while self.on_the_way:
            self.arrives(0, False)
        self.take(len(self.applied) - len(self.left))
        assert self.left == self.added
        assert not self.waiting


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(
    max_examples=dose(200, 5000), stateful_step_count=50, deadline=None
)


def test_only_what_is_new_is_said_until_it_is_time() -> None:
    it = relay(*OPERATIONS[:2])
    assert it.parts(0) == [(0, tuple(OPERATIONS[:2]))]
    it.add(OPERATIONS[2], link(2))
    assert it.parts(RETRY - 1) == [(2, (OPERATIONS[2],))]
    assert it.wake_at == 2 * RETRY - 1
    assert it.parts(2 * RETRY - 2) == []
    assert it.parts(2 * RETRY - 1) == [(0, tuple(OPERATIONS[:3]))]


def test_what_was_taken_is_not_said_again() -> None:
    it = relay(*OPERATIONS)
    it.parts(0)
    assert it.take(2) == [(o, link(o.client)) for o in OPERATIONS[:2]]
    it.again()
    assert it.parts(1) == [(0, tuple(OPERATIONS[2:]))]
    assert len(it.take(99)) == 3
    assert it.wake_at is None
    assert it.parts(99 * RETRY) == []
    assert it.take(1) == []


def test_taking_what_was_never_said_leaves_the_rest_unsaid() -> None:
    it = relay(*OPERATIONS[:2])
    it.parts(0)
    for operation in OPERATIONS[2:]:
        it.add(operation, link(operation.client))
    it.take(4)
    it.check()
    assert it.parts(1) == [(0, (OPERATIONS[4],))]


def test_a_client_may_ask_again_when_its_operation_has_left() -> None:
    it = relay(OPERATIONS[0])
    it.take(1)
    it.add(Operation(0, 9), link(8))
    assert it.parts(0) == [(0, (Operation(0, 9),))]
    assert it.take(1) == [(Operation(0, 9), link(8))]


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([PART_BYTES, 1], [1, 1]),
        ([PART_BYTES - 1, 1, 1], [2, 1]),
        ([3 * PART_BYTES, 3 * PART_BYTES], [1, 1]),
        ([PART_BYTES // 4] * 9, [4, 4, 1]),
        ([1] * 1000, [1000]),
    ],
)
def test_parts_are_as_full_as_they_may_be(sizes: list[int], parts: list[int]) -> None:
    operations = [Operation(n, n, size) for n, size in enumerate(sizes)]
    said: list[Any] = relay(*operations).parts(0)
    assert [len(part) for _, part in said] == parts
    assert [before for before, _ in said] == [sum(parts[:n]) for n in range(len(parts))]


@pytest.mark.parametrize("damage", [{"_said": -1}, {"_said": 3}, {"_askers": {}}])
def test_the_invariant_bites(damage: dict[str, Any]) -> None:
    it = relay(*OPERATIONS[:2])
    it.check()
    for name, value in damage.items():
        setattr(it, name, value)
    with pytest.raises(AssertionError):
        it.check()
