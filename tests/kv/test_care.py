"""Operators ask again while they wait, and that is one question all the same."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from engine.contract import Link
from engine.kv.care import Care
from engine.kv.requests import AskHash, Hash, Taken, TakeSnapshot

ONE, OTHER = Link("admin", 1, 1), Link("admin", 2, 1)


class Replica:
    """Takes snapshots when it is told that they are complete."""

    def __init__(self) -> None:
        self.applied = self.given_up = self.begun = 0
        self.taking = False
        self.raft = SimpleNamespace(snapshots=SimpleNamespace(kept=[]))

    def snapshot_now(self) -> bool:
        if self.taking:
            return False
        self.taking = True
        self.begun = self.applied
        return True

    def complete(self) -> None:
        self.taking = False
        self.raft.snapshots.kept.insert(0, SimpleNamespace(last=self.begun, term=1, size=10))

    def fail(self) -> None:
        self.taking = False
        self.given_up += 1


class Scene:
    def __init__(self) -> None:
        self.replica, self.sums = Replica(), 0
        self.machine = SimpleNamespace(revision=0, state_hash=self._hash)
        front: Any = SimpleNamespace(replica=self.replica, machine=self.machine)
        self.care = Care(front)

    def _hash(self) -> Iterator[int]:
        self.sums += 1
        yield from (1, 2, 3)

    def write(self) -> None:
        self.replica.applied += 1
        self.machine.revision += 1

    def turns(self, many: int = 9) -> list[tuple[Link, Any]]:
        return [answer for _ in range(many) for answer in self.care.answers()]


@pytest.fixture
def scene() -> Scene:
    found = Scene()
    found.write()
    return found


def test_who_asks_again_for_a_snapshot_is_given_one(scene: Scene) -> None:
    for _ in range(5):
        scene.care.ask(ONE, TakeSnapshot(1))
        assert scene.turns() == []
        scene.write()
    scene.replica.complete()
    told = (ONE, Taken(1, 1, 1, 10, 1))
    assert scene.turns() == [told]
    assert not scene.replica.taking
    scene.care.ask(ONE, TakeSnapshot(1))  # the answer was under way
    assert scene.turns() == [told]
    assert not scene.replica.taking
    scene.care.ask(ONE, TakeSnapshot(2))
    assert scene.turns() == []
    scene.replica.complete()
    assert scene.turns() == [(ONE, Taken(2, 6, 1, 10, 6))]


def test_who_comes_while_one_is_taken_is_given_the_next(scene: Scene) -> None:
    scene.care.ask(ONE, TakeSnapshot(1))
    scene.turns()
    scene.write()
    scene.care.ask(OTHER, TakeSnapshot(7))
    scene.turns()
    scene.replica.complete()
    assert scene.turns() == [(ONE, Taken(1, 1, 1, 10, 1))]
    scene.replica.complete()
    assert scene.turns() == [(OTHER, Taken(7, 2, 1, 10, 2))]
    assert not scene.replica.taking


def test_one_that_comes_to_nothing_is_taken_again(scene: Scene) -> None:
    scene.care.ask(ONE, TakeSnapshot(1))
    scene.turns()
    scene.replica.fail()
    scene.write()
    assert scene.turns() == []
    scene.replica.complete()
    assert scene.turns() == [(ONE, Taken(1, 2, 1, 10, 2))]


@pytest.mark.parametrize("begun", [False, True])
def test_nothing_is_taken_for_who_has_gone(scene: Scene, begun: bool) -> None:
    scene.replica.taking = not begun
    scene.care.ask(ONE, TakeSnapshot(1))
    scene.turns()
    scene.care.gone(ONE)
    scene.replica.complete()
    assert scene.turns() == []
    assert not scene.replica.taking


def test_who_asks_again_for_a_sum_is_told_one(scene: Scene) -> None:
    for _ in range(3):
        scene.care.ask(ONE, AskHash(1))
        assert scene.turns(1) == []
    assert scene.turns() == [(ONE, Hash(1, 1, 3))]
    scene.care.ask(ONE, AskHash(1))
    assert scene.turns() == [(ONE, Hash(1, 1, 3))]
    assert scene.sums == 1


def test_a_sum_for_who_has_gone_is_not_told_to_others(scene: Scene) -> None:
    scene.care.ask(ONE, AskHash(1))
    scene.turns(1)
    scene.care.gone(ONE)
    assert not scene.care.busy
    scene.write()
    scene.care.ask(OTHER, AskHash(2))
    assert scene.turns() == [(OTHER, Hash(2, 2, 3))]
    assert scene.sums == 2
