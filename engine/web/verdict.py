"""What is wrong with a cluster, in sentences, the worst first."""

from __future__ import annotations

from collections.abc import Iterable

from engine.raft.membership import LEAVING, VOTER
from engine.raft.requests import Status
from engine.record import Record
from engine.web.lookout import Sight

GOOD, CARE, BAD = "good", "care", "bad"
"""All is well; it serves, and somebody should look; it does not serve."""
BEHIND = 10_000
"""Entries that a replica may be behind before anything is said of it."""


class Verdict(Record):
    """`level` and the sentences that say why."""

    level: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of them."""
        return " ".join(self.sentences)


class Members(Record):
    """Who belongs to the group: the voters and the learners, by the seats' `id`, as far as they
    have a seat, and how many voters there are in all."""

    voters: tuple[int, ...]
    learners: tuple[int, ...]
    votes: int
    joint: bool


def best(sight: Sight) -> Status | None:
    """The leader's status, or else that of whoever has committed most."""
    leader = sight.statuses.get(sight.leader)
    return leader or max(
        sight.statuses.values(), key=lambda one: (one.commit, one.term), default=None
    )


def members(sight: Sight) -> Members:
    """As `best` has it; if nobody knows, all who sit there."""
    ids = {seat.member: seat.id for seat in sight.seats}
    told = best(sight)
    if told is None or not told.seats:
        return Members(tuple(ids.values()), (), len(ids), False)
    voting = [seat.id for seat in told.seats if seat.role in (VOTER, LEAVING)]
    learning = [seat.id for seat in told.seats if seat.id not in voting]
    return Members(
        tuple(ids[member] for member in voting if member in ids),
        tuple(ids[member] for member in learning if member in ids),
        len(voting),
        told.joint,
    )


def verdict(sight: Sight) -> Verdict:
    """Of what was seen just now."""
    if sight.problem:
        return Verdict(BAD, (sight.problem,))
    if not sight.statuses:
        return Verdict(BAD, ("No replica answers: is the cluster up?",))
    group = members(sight)
    here = [number for number in group.voters if number in sight.statuses]
    reachable = f"{len(here)} of {group.votes} voters reachable"
    needed = group.votes // 2 + 1
    silent = _silent([seat.id for seat in sight.seats if seat.id not in sight.statuses])
    leader = sight.leader
    if len(here) < needed:
        return Verdict(BAD, (f"Nothing can be written: {reachable}, {needed} needed{silent}.",))
    troubles = _troubles(sight, group)
    if not leader:
        return Verdict(BAD, (f"Nobody leads: {reachable}{silent}.", *troubles))
    leads = f"replica {leader} leads term {sight.statuses[leader].term}"
    if len(here) == group.votes:
        all_here = f"All {group.votes} voters" if group.votes > 1 else "The only voter"
        first = f"{all_here} reachable; {leads}{silent}."
    else:
        first = f"{reachable[:1].upper()}{reachable[1:]}{silent}; {leads}."
        if len(here) == needed:
            troubles = ["If one more ends, nothing can be written.", *troubles]
    return Verdict(CARE if troubles or silent else GOOD, (first, *troubles))


def _silent(numbers: list[int]) -> str:
    if not numbers:
        return ""
    return f"; {_named(numbers)} {'does' if len(numbers) == 1 else 'do'} not answer"


def _named(numbers: Iterable[int]) -> str:
    """`replica 3`, `replicas 1 and 3`, `replicas 1, 2 and 3`."""
    *most, last = map(str, sorted(numbers))
    return f"replicas {', '.join(most)} and {last}" if most else f"replica {last}"


def _troubles(sight: Sight, group: Members) -> list[str]:
    """What else somebody should know."""
    found = []
    for what, number in _states(sight):
        found.append(f"Replica {number} {what}.")
    belongs = {*group.voters, *group.learners}
    strange = [number for number in sight.statuses if number not in belongs]
    if strange:
        verb = "is no member" if len(strange) == 1 else "are no members"
        found.append(f"{_capital(_named(strange))} {verb} of the group.")
    if group.learners:
        verb = "learns and does" if len(group.learners) == 1 else "learn and do"
        found.append(f"{_capital(_named(group.learners))} {verb} not vote yet.")
    if group.joint:
        found.append("The members are being changed.")
    return found


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _states(sight: Sight) -> Iterable[tuple[str, int]]:
    first = max((one.commit for one in sight.statuses.values()), default=0)
    for number, one in sorted(sight.statuses.items()):
        if one.lost:
            yield "repairs its log, and does not vote before", number
        if one.full:
            yield "has no space on its disk", number
        if behind := _behind(one, first):
            yield f"is {behind:,} entries behind", number


def _behind(status: Status, first: int) -> int:
    """Far behind what is committed, or 0."""
    behind = first - status.applied
    return behind if behind > BEHIND else 0
