"""Majorities against the enumeration of all quorums, and what a change of members leads through."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from support import dose

from engine.contract import peer
from engine.raft.membership import (
    JOINING,
    LEARNER,
    LEAVING,
    VOTER,
    Configuration,
    Member,
    Membership,
    between,
    founders,
    pack,
    promoted,
    settled,
    target,
    unpack,
)
from engine.wire.codec import WireError


def members(**roles: str) -> tuple[Member, ...]:
    return tuple([Member(int(name[1:]), f"a{name[1:]}", role) for name, role in roles.items()])


def voters(*numbers: int) -> Configuration:
    return founders({number: f"a{number}" for number in numbers})


def subsets(numbers: tuple[int, ...]) -> Iterator[set[int]]:
    for count in range(len(numbers) + 1):
        for some in itertools.combinations(numbers, count):
            yield set(some)


def decides(some: set[int], configuration: Configuration) -> bool:
    """Slow and obvious: more of each half agree than do not."""
    halves = [configuration.voters, configuration.outgoing]
    return bool(configuration.voters) and all(
        len([v for v in half if v in some]) > len([v for v in half if v not in some])
        for half in halves
        if half
    )


def configurations(rng: random.Random) -> Configuration:
    """A random one, sometimes joint."""
    roles = {n: rng.choice((VOTER, VOTER, VOTER, LEARNER, JOINING)) for n in range(1, 7)}
    now = Configuration(tuple([Member(n, f"a{n}", r) for n, r in sorted(roles.items())]))
    if rng.random() < 0.5 or not now.voters:
        return now
    wanted = [(n, f"a{n}", rng.random() < 0.7) for n in range(1, 7) if rng.random() < 0.7]
    return target(now, wanted)


@pytest.mark.parametrize("count", range(1, 8))
def test_a_majority_is_more_than_half(count: int) -> None:
    group = Membership(1, voters(*range(1, count + 1)))
    for some in subsets(group.voters):
        assert group.enough(some.__contains__) == (len(some) > count - len(some)), some


@pytest.mark.parametrize("seed", range(dose(60, 2000)))
def test_enough_and_reached_are_what_quorums_say(seed: int) -> None:
    rng = random.Random(seed)
    configuration = configurations(rng)
    group = Membership(1, configuration)
    everybody = tuple(range(1, 8))
    quorums = [some for some in subsets(everybody) if decides(some, configuration)]
    for some in subsets(everybody):
        assert group.enough(some.__contains__) == decides(some, configuration), some
    match = {number: rng.randint(0, 9) for number in everybody}
    # The greatest index that all of some deciding set have.
    slow = max((min(match[n] for n in some) for some in quorums), default=0)
    assert group.reached(match.__getitem__) == slow


@pytest.mark.parametrize("seed", range(dose(60, 2000)))
def test_decisions_before_and_after_a_step_have_a_member_in_common(seed: int) -> None:
    """Of any two configurations that follow each other; so no two leaders of one term."""
    rng = random.Random(seed)
    now = settled(configurations(rng))
    wanted = [(n, f"a{n}", rng.random() < 0.7) for n in range(1, 7) if rng.random() < 0.8]
    way = [now, target(now, wanted)]
    if not way[-1].voters:
        return
    if way[-1].joint:
        way.append(settled(way[-1]))
    for member in way[-1].members:
        if member.role == JOINING:
            way.append(promoted(way[-1], member.id))
    everybody = tuple(range(1, 7))
    for one, other in itertools.pairwise(way):
        if not one.voters:
            continue
        before = [some for some in subsets(everybody) if decides(some, one)]
        after = [some for some in subsets(everybody) if decides(some, other)]
        assert all(a & b for a in before for b in after), (one, other)
    assert not way[-1].joint
    assert {m.id: m.role == VOTER for m in way[-1].members} == {n: v for n, _, v in wanted}


def test_nobody_decides_for_a_group_without_voters() -> None:
    group = Membership(1, Configuration(members(m1=LEARNER)))
    assert not group.enough(lambda member: True)
    assert group.reached(lambda member: 5) == 0


def test_new_voters_learn_first() -> None:
    then = target(
        voters(1, 2), [(1, "a1", True), (2, "a2", True), (3, "a3", True), (4, "a4", False)]
    )
    assert then == Configuration(members(m1=VOTER, m2=VOTER, m3=JOINING, m4=LEARNER))
    assert promoted(then, 3).voters == (1, 2, 3)
    # Whoever joins already goes on to do so; a learner that is known may vote at once.
    again = target(then, [(1, "a1", True), (2, "a2", True), (3, "a3", True), (4, "a4", True)])
    assert again == Configuration(members(m1=VOTER, m2=VOTER, m3=JOINING, m4=VOTER))


def test_one_voter_more_or_less_is_one_step() -> None:
    now = voters(1, 2, 3)
    assert between(now, voters(1, 2)) == voters(1, 2)
    assert between(now, voters(1, 2, 3, 4)) == voters(1, 2, 3, 4)
    assert between(now, now) == now


def test_two_voters_more_or_less_go_through_a_joint_one() -> None:
    now = voters(1, 2, 3)
    joint = between(now, Configuration(members(m1=VOTER, m2=LEARNER, m4=VOTER)))
    assert joint.outgoing == (1, 2, 3)
    assert joint.members == members(m1=VOTER, m2=LEARNER, m3=LEAVING, m4=VOTER)
    assert settled(joint) == Configuration(members(m1=VOTER, m2=LEARNER, m4=VOTER))


def test_a_member_goes_by_the_last_configuration_in_its_log() -> None:
    group = Membership(3, voters(1, 2, 3))
    assert (group.index, group.votes, group.others) == (0, True, (1, 2))
    group.append(5, voters(1, 2))
    group.append(8, Configuration(members(m1=VOTER, m2=VOTER, m3=LEARNER)))
    assert (group.index, group.votes, group.links[3]) == (8, False, peer("a3"))
    assert [group.at(i).voters for i in (0, 4, 5, 7, 8, 99)] == [(1, 2, 3)] * 2 + [(1, 2)] * 4
    group.truncate(8)
    assert (group.index, group.votes, group.others) == (5, False, (1, 2))
    group.truncate(5)
    assert (group.index, group.votes) == (0, True)
    group.truncate(1)
    assert group.voters == (1, 2, 3), "what the base says is decided"


def test_what_is_compacted_is_the_base() -> None:
    group = Membership(1, voters(1))
    group.append(5, voters(1, 2))
    group.append(8, voters(1, 2, 3))
    group.compact(6)
    assert (group.at(6).voters, group.at(8).voters, group.index) == ((1, 2), (1, 2, 3), 8)
    group.truncate(7)
    assert (group.voters, group.index) == ((1, 2), 0)
    group.reset(voters(4))
    assert (group.voters, group.votes) == ((4,), False)


def test_those_who_leave_vote_until_they_have_left() -> None:
    joint = between(voters(1, 2, 3), voters(1, 4, 5))
    group = Membership(2, joint)
    assert group.votes
    assert group.electors == (1, 2, 3, 4, 5)
    group.append(9, settled(joint))
    assert not group.votes
    assert group.electors == (1, 4, 5)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_same_from_bytes(seed: int) -> None:
    configuration = configurations(random.Random(seed))
    assert unpack(pack(configuration)) == configuration


def test_no_bytes_are_no_members_and_others_must_make_sense() -> None:
    assert unpack(b"") == Configuration()
    with pytest.raises(WireError):
        unpack(b"\xc1")
