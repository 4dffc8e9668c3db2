"""The explorer finds nothing wrong with the core, and finds each mistake that is planted in it."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from support import dose, run

from engine.raft import trial_explorer_member as one
from engine.raft.candidate import Candidate
from engine.raft.leader import Leader
from engine.raft.membership import Membership
from engine.raft.trial_explorer import BOUNDS, hunted
from engine.raft.trial_explorer_member import Disk, How, Member
from engine.raft.trial_explorer_numbers import NAMES
from engine.raft.trial_explorer_search import Bounds, Explorer, matching
from engine.sim.planting import Patch, planted
from engine.storage.entries import NOOP, Entry

ROOT = Path(__file__).resolve().parent.parent.parent


# --- nothing wrong -------------------------------------------------------------------------------

STATES = {
    "power": dose(40_000, 5_000_000),
    "quick": dose(20_000, 2_000_000),
    "stream": dose(20_000, 2_000_000),
    "pre-vote": dose(20_000, 2_000_000),
    "together": dose(20_000, 2_000_000),
    "old terms": dose(20_000, 2_000_000),
    "long log": dose(20_000, 2_000_000),
}


@pytest.mark.parametrize("name", STATES)
def test_no_counter_example(name: str) -> None:
    found = Explorer(BOUNDS[name]).explore(STATES[name])
    assert not found.problem, "\n".join((*found.steps, found.problem))
    assert found.states >= STATES[name] or found.whole


def test_all_states_within_small_bounds() -> None:
    """Two elections, a command and a power loss, with any two messages on their way."""
    explorer = Explorer(BOUNDS["whole"])
    found = explorer.explore(sys.maxsize)
    assert not found.problem, "\n".join((*found.steps, found.problem))
    assert found.whole
    assert found.states > 500_000
    members = explorer.numbers.members
    assert {member.leads() for member in members} == {0, 1, 2}
    assert max(member.commit for member in members) == 3
    assert max(len(member.pending) for member in members) >= 3
    logs = {tuple([entry.term for entry in member.entries()]) for member in members}
    assert logs == {(), (1,), (2,), (1, 1), (1, 2), (2, 2), (1, 1, 2), (1, 2, 2)}
    assert {history.led for history in explorer.numbers.decided} == {(), (1,), (2,), (1, 2)}


def test_names_do_not_matter() -> None:
    """There are up to six times as many states if members that are alike are told apart."""
    quick = How(slow_disk=False)
    bounds = Bounds(commands=0, power_losses=0, words=0, in_flight=2, losses=True, how=quick)
    alike, apart = Explorer(bounds), Explorer(bounds)
    apart.numbers.state = _as_it_is.__get__(apart.numbers)  # type: ignore[method-assign]
    few, many = alike.explore(sys.maxsize), apart.explore(sys.maxsize)
    assert few.whole
    assert many.whole
    assert few.depth == many.depth
    merged = {alike.numbers.state(*_in(alike, apart, state))[0] for state in apart.states}
    assert merged == set(alike.states)
    assert 3 * few.states < many.states <= 6 * few.states


def _as_it_is(
    self: Any, members: list[int], decided: int, budget: int, messages: list[int]
) -> tuple[bytes, int]:
    from array import array

    return array("I", (*members, decided, budget, *sorted(messages))).tobytes(), 0


def _in(alike: Explorer, apart: Explorer, state: bytes) -> tuple[Any, ...]:
    """What this state of `apart` is in the numbers of `alike`."""
    from array import array

    a, b, c, decided, budget, *messages = array("I", state)
    there, here = apart.numbers, alike.numbers
    return (
        [here.member(there.members[number]) for number in (a, b, c)],
        here.history(there.decided[decided]),
        budget,
        [here.message(there.messages[number]) for number in messages],
    )


# --- mistakes ------------------------------------------------------------------------------------

MISTAKES = [
    ("power", "vote_not_persisted", "before the candidate's own is durable"),
    ("power", "term_not_persisted", "a term is said that is not durable"),
    ("power", "term_persisted_after_reply", "a term is said that is not durable"),
    ("power", "vote_forgotten_when_given", "a vote is given that is not durable"),
    ("power", "leader_counts_itself_unsynced", "not durable on a majority"),
    ("quick", "no_up_to_date_check", "the leader of term 2 lacks committed entry 1"),
    ("quick", "heartbeat_of_the_past", "the core is not in order"),
    ("old terms", "commit_old_term_by_counting", "the leader of term 4 lacks committed entry 1"),
    ("old terms", "no_previous_term_check", "two logs agree on an entry"),
    ("old terms", "truncates_matching_tail", "not durable on a majority"),
    ("long log", "length_before_term", "the leader of term 4 lacks committed entry 1"),
]


@pytest.mark.parametrize(("bounds", "bug", "problem"), MISTAKES)
def test_a_mistake_is_found(bounds: str, bug: str, problem: str) -> None:
    found = hunted(bounds, bug, 250_000)
    assert problem in found.problem, found
    assert len(found.steps) == found.depth + 1


def test_half_is_no_majority() -> None:
    """Both of what asks for a majority: elections, and the commit index."""
    elects = Patch(
        Membership,
        "enough",
        lambda _: lambda self, agreeing: sum(map(agreeing, self.voters)) >= len(self.voters) // 2,
    )
    commits = Patch(
        Membership,
        "reached",
        lambda _: lambda self, value: sorted(map(value, self.voters))[len(self.voters) // 2 + 1],
    )
    for patch, problem in (
        (elects, "a second leader of term 1"),
        (commits, "what is committed is not durable on a majority"),
    ):
        with planted((patch,)):
            assert Explorer(BOUNDS["quick"]).explore(1000).problem == problem


@pytest.mark.parametrize(
    ("bug", "problem"),
    [
        ("vote_not_persisted", "a second leader of term 1"),
        ("acknowledged_before_fsync", "what is committed is not durable on a majority"),
        ("term_persisted_after_reply", "a second leader of term 1"),
    ],
)
def test_what_a_broken_promise_leads_to(
    bug: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power loss shows it, also to whoever does not look at what is promised."""
    bounds = Bounds(commands=0, words=0, in_flight=3, how=How(promises=False))
    monkeypatch.setitem(BOUNDS, "blind", bounds)
    assert hunted("blind", bug, 500_000).problem == problem


def test_log_matching_is_told_from_its_opposite() -> None:
    def log(*terms: int) -> tuple[Entry, ...]:
        return tuple([Entry(term, NOOP, 0, b"") for term in terms])

    assert matching(log(1, 1, 2), log(1, 1, 3))
    assert matching(log(1, 1, 2), log(1))
    assert not matching(log(1, 2), log(2, 2))
    assert not matching(log(1), (Entry(1, NOOP, 0, b"x"),))


# --- the core and its value ----------------------------------------------------------------------


def test_every_field_of_the_core_is_accounted_for() -> None:
    raft = one.started(1, Disk(), How())
    things: list[Any] = [raft, raft.role, Candidate(raft, pre=True, transfer=False)]
    leader = Leader(raft)
    leader._follow_members()
    things += [leader, leader.reads, leader.progress[2]]
    assert [one.uncovered(thing) for thing in things] == [set()] * 6
    raft.more = 1  # type: ignore[attr-defined]
    assert one.uncovered(raft) == {"more"}


class Walk:
    """A group that lives on, turn after turn, beside the values that the explorer would keep."""

    def __init__(self, seed: int, how: How) -> None:
        self.rng, self.how = random.Random(seed), how
        self.live = [one.started(name, Disk(), how) for name in one.MEMBERS]
        for raft in self.live:
            raft.step(one.NOW, ())
            raft.ready()
        self.members = [one.born(name, Disk(), how) for name in one.MEMBERS]
        self.messages: list[Any] = []
        self.kinds: set[str] = set()

    def step(self) -> tuple[Member, str, Any]:
        """(the member, what happened to it): something that can."""
        rng = self.rng
        place, kind, value = rng.choice(self._possible())
        before = self.members[place]
        self.kinds.add(kind)
        if kind == one.DELIVER and rng.random() < 0.9:
            self.messages.remove(value[0])
        if kind == one.CRASH:
            self.members[place] = one.born(before.me, before.surviving(value), self.how)
            self.live[place] = one.started(before.me, before.surviving(value), self.how)
            self.live[place].step(one.NOW, ())
            self.live[place].ready()
            return before, kind, value
        fresh = one.turned(one.restored(before, self.how), before, kind, value, self.how)
        lived = one.turned(self.live[place], before, kind, value, self.how)
        assert fresh == lived
        assert not fresh.problem
        self.members[place] = lived.member
        self.messages += fresh.sends
        return before, kind, value

    def _possible(self) -> list[tuple[int, str, Any]]:
        found: list[tuple[int, str, Any]] = [
            (message.to - 1, one.DELIVER, (message,)) for message in self.messages[-12:]
        ]
        for place, member in enumerate(self.members):
            if one.can_campaign(member) and self.rng.random() < 0.1:
                found.append((place, one.TIMER, None))
            if member.pending:
                found += [(place, one.DURABLE, None)] * 4
                if self.rng.random() < 0.1:
                    found.append((place, one.CRASH, self.rng.randint(0, len(member.pending))))
            if member.leads():
                found.append((place, one.PROPOSE, self.rng.randint(1, 2)))
                found += [(place, one.BEAT, other) for other in one.MEMBERS if other != place + 1]
        return found or [(0, one.TIMER, None)]


@pytest.mark.parametrize("how", [How(), How(pre_vote=True, window=2, entries_max=1)])
def test_a_value_is_as_good_as_the_core(how: How) -> None:
    """However long the core has lived, one that is made from its value does the same."""
    elected, truncated, kinds = 0, False, set()
    for seed in range(dose(20, 400)):
        walk = Walk(seed, how)
        for _ in range(120):
            before, _, _ = walk.step()
            now = walk.members[before.me - 1]
            truncated |= now.entries()[: len(before.entries())] != before.entries()
        elected += max(member.leads() for member in walk.members) > 1
        kinds |= walk.kinds
    assert elected
    assert truncated
    assert kinds == {one.TIMER, one.DURABLE, one.DELIVER, one.PROPOSE, one.BEAT, one.CRASH}


def test_members_are_alike() -> None:
    """Whoever has another name does the same, under that name."""
    how = How()
    for seed in range(dose(4, 100)):
        walk = Walk(seed, how)
        for _ in range(100):
            before, kind, value = walk.step()
            names = walk.rng.choice(NAMES)
            theirs = value
            if kind == one.DELIVER:
                theirs = tuple([one.renamed_message(message, names) for message in value])
            elif kind == one.BEAT:
                theirs = names[value]
            turn = one.taken(before, kind, value, how)
            other = one.taken(one.renamed(before, names), kind, theirs, how)
            assert other.member == one.renamed(turn.member, names)
            said = [one.renamed_message(message, names) for message in turn.sends]
            assert sorted(map(repr, other.sends)) == sorted(map(repr, said))


# --- the command line ----------------------------------------------------------------------------


def explore(*arguments: str, seed: str = "0") -> Any:
    command = [sys.executable, "-m", "engine.raft.trial_explorer", *arguments]
    environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PATH": ""}
    return run(command, env=environment, cwd=ROOT)


def test_command_line_finds_nothing() -> None:
    one_seed, another = (explore("--states", "3000", seed=seed) for seed in ("1", "2"))
    assert one_seed.code == another.code == 0, one_seed.err
    assert "states/s" in one_seed.out
    assert one_seed.out.split(";")[0] == another.out.split(";")[0]
    assert one_seed.out.splitlines()[1:] == another.out.splitlines()[1:]


def test_command_line_tells_how_a_mistake_shows() -> None:
    ran = explore("--bounds", "old terms", "--with-bug", "commit_old_term_by_counting")
    assert ran.code == 1, ran.err
    assert ran.out.splitlines()[-1] == "the leader of term 4 lacks committed entry 1"
    assert ran.out.count("its election timer runs out") == 2
