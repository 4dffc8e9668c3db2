"""Which replica is broken, by what all of them say they have."""

from __future__ import annotations

import pytest

from engine.kv.digests import EVERY, PLACES_MAX, Digests

VOTERS = (1, 2, 3, 4, 5)


def noted(place: int, digests: dict[int, int]) -> Digests:
    made = Digests()
    for member, digest in digests.items():
        made.note(member, place, digest)
    return made


@pytest.mark.parametrize(
    ("digests", "broken"),
    [
        ({1: 7, 2: 7, 3: 7, 4: 7, 5: 7}, ()),
        ({1: 7, 2: 7, 3: 7, 4: 7, 5: 8}, (5,)),
        ({1: 7, 2: 7, 3: 7, 4: 8, 5: 8}, (4, 5)),
        ({1: 7, 2: 7, 3: 8}, ()),  # two are no majority of five
        ({1: 7, 2: 7, 3: 7}, ()),
        ({1: 7, 2: 7, 3: 8, 4: 8, 5: 9}, ()),  # somebody is broken, and nobody knows who
        ({1: 7, 2: 8, 3: 9, 4: 10, 5: 11}, ()),
    ],
)
def test_a_majority_knows(digests: dict[int, int], broken: tuple[int, ...]) -> None:
    made = noted(EVERY, digests)
    found = [member for member in VOTERS if made.broken(member, VOTERS)]
    assert tuple(found) == broken
    assert all(made.broken(member, VOTERS) == EVERY for member in found)


def test_whoever_does_not_vote_does_not_judge() -> None:
    """But it is judged: it would vote one day."""
    made = noted(EVERY, {1: 7, 2: 7, 8: 9, 9: 9})
    assert not made.broken(1, (1, 2, 3))
    assert made.broken(9, (1, 2, 3)) == EVERY


def test_places_are_told_apart() -> None:
    made = noted(EVERY, {1: 7, 2: 8})
    made.note(3, 2 * EVERY, 8)
    assert not made.broken(1, (1, 2, 3))
    made.note(3, EVERY, 8)
    assert made.broken(1, (1, 2, 3)) == EVERY


def test_one_that_has_nothing_to_compare_is_not_broken() -> None:
    assert not noted(EVERY, {2: 7, 3: 7}).broken(1, (1, 2, 3))
    assert not Digests().broken(1, (1,))


def test_an_only_replica_is_never_broken() -> None:
    assert not noted(EVERY, {1: 7}).broken(1, (1,))


def test_the_oldest_places_are_forgotten() -> None:
    made = Digests()
    for number in range(1, PLACES_MAX + 1):
        made.note(1, number * EVERY, 1)
    made.note(2, EVERY, 2)
    made.note(3, EVERY, 2)
    assert made.broken(1, (1, 2, 3)) == EVERY
    made.note(1, (PLACES_MAX + 1) * EVERY, 1)
    assert not made.broken(1, (1, 2, 3))
    made.note(2, EVERY, 2)  # comes too late to count
    assert len(made._at) == PLACES_MAX
