"""Every state that a small group can get into: breadth first, with the shipped core.

A state is three members (`engine.raft.trial_explorer_member`), the messages on their way, what was
decided so far, and how much of the bounds is left. From each, everything that can happen next is
tried: a message arrives, in any order or not at all; an election timer runs out; a disk completes a
group of writes, or loses those that wait when power is lost; a command is proposed. After each step
the invariants of Raft must hold (Ongaro and Ousterhout 2014, figure 3):

* election safety: at most one member ever leads a term, and at most once;
* log matching: two logs with an entry of the same index and term agree up to it;
* leader completeness: a leader has every entry that was committed in an earlier term;
* state machine safety: what anybody takes for committed is the same for all, for ever;
* what is committed is durable on a majority, and stays there;
* a member promises nothing that is not on its disk, and the core finds itself in order.

The first counter-example is one with the fewest steps. Members are alike, so states that differ in
their names alone are one. What a member does depends on its value alone, so the core runs once for
each value and event, and the search deals in numbers.

A message to a full network is lost, as may happen to any: with `losses`, all is tried that can
happen with so many messages on their way at once. One that can have no effect any more is
forgotten.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, permutations
from typing import Any

from engine.raft import trial_explorer_member as member_
from engine.raft.messages import AppendReply, VoteReply
from engine.raft.trial_explorer_member import (
    BEAT,
    CANDIDATE,
    CRASH,
    DELIVER,
    DURABLE,
    MEMBERS,
    PROPOSE,
    TIMER,
    Disk,
    How,
    Member,
)
from engine.raft.trial_explorer_numbers import PLACES, Decided, Numbers
from engine.record import Record
from engine.storage.entries import Entry

_EVENTS: list[tuple[str, Any]] = [
    (TIMER, None),
    (DURABLE, None),
    (PROPOSE, 1),
    (PROPOSE, 2),
    *((BEAT, name) for name in MEMBERS),
    *((CRASH, groups) for groups in range(16)),
]
"""What needs no message; a message's number follows."""
_TIMER, _DURABLE, _PROPOSE, _BEAT, _CRASH = 0, 1, 2, 4, 7
FIRST_MESSAGE = len(_EVENTS)
LOSS = -1

ELECTION, COMMAND, POWER_LOSS, WORD, COPY = 1, 8, 64, 512, 4096
"""What each costs; a budget is one number, with an octal digit for each."""


class Bounds(Record):
    """How far to go. The rest of what can happen needs no bound."""

    elections: int = 2
    """Election timers that run out."""
    commands: int = 2
    power_losses: int = 1
    words: int = 1
    """What leaders say of themselves: heartbeats."""
    copies: int = 0
    """Messages that arrive twice."""
    in_flight: int = 6
    """Messages that the network holds."""
    losses: bool = False
    """Any message may be lost at any time. Otherwise it is the last that a full network loses."""
    together: bool = False
    """Two messages may also arrive in one turn."""
    disks: tuple[Disk, ...] = (Disk(), Disk(), Disk())
    """With which the members begin; of a history in which nothing was committed."""
    how: How = How()

    def budget(self) -> int:
        return (
            self.elections * ELECTION
            + self.commands * COMMAND
            + self.power_losses * POWER_LOSS
            + self.words * WORD
            + self.copies * COPY
        )


class Outcome(Record):
    """`problem` is "" if all is well; `steps` lead to it. `whole` if there are no more states."""

    states: int
    depth: int
    """Steps within which all states were visited."""
    turns: int
    """Turns of the core."""
    whole: bool
    problem: str
    steps: tuple[str, ...]


class Step(Record):
    """From a state to the next: what happens to the member in this place, or if it is a `LOSS` to
    the message there. `way` of `NAMES` says how members are renamed after it."""

    state: bytes
    place: int
    event: int
    way: int
    problem: str


class Explorer:
    """A state is an array of `Numbers`. What a turn does is looked up if it was taken before."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.numbers = Numbers()
        self._turns: dict[int, tuple[int, tuple[int, ...], bool, str]] = {}
        self._dead: dict[int, bool] = {}
        self._judged: dict[tuple[int, ...], tuple[int, str]] = {}
        self.states: list[bytes] = []
        self.parents = array("I")

    # --- the search ------------------------------------------------------------------------------

    def explore(self, states: int) -> Outcome:
        """Visit so many states, or all if there are fewer, or as far as an invariant breaks."""
        first = self._first()
        self.states, self.parents = [first], array("I", [0])
        seen, depth, end = {first}, 0, 1
        number = 0
        while number < len(self.states):
            if number == end:
                depth, end = depth + 1, len(self.states)
            for step in self._steps(self.states[number]):
                if step.problem:
                    return self._outcome(depth, False, step.problem, self._story(number, step))
                if step.state not in seen:
                    seen.add(step.state)
                    self.states.append(step.state)
                    self.parents.append(number)
            number += 1
            if len(self.states) >= states:
                return self._outcome(depth, False, "", ())
        return self._outcome(depth, True, "", ())

    def _outcome(self, depth: int, whole: bool, problem: str, steps: tuple[str, ...]) -> Outcome:
        return Outcome(len(self.states), depth, len(self._turns), whole, problem, steps)

    def _first(self) -> bytes:
        """All members have just started."""
        bounds = self.bounds
        members = [
            self.numbers.member(member_.born(name, disk, bounds.how))
            for name, disk in zip(MEMBERS, bounds.disks, strict=True)
        ]
        led = sorted({entry.term for disk in bounds.disks for entry in disk.entries})
        decided = self.numbers.history(Decided(tuple(led), ()))
        return self.numbers.state(members, decided, bounds.budget(), [])[0]

    def _steps(self, state: bytes) -> Iterator[Step]:
        """All that can happen in this state."""
        numbers = array("I", state)
        members, (decided, budget), messages = list(numbers[:3]), numbers[3:5], list(numbers[5:])
        if self.bounds.losses:
            for at in range(len(messages)):
                rest = messages[:at] + messages[at + 1 :]
                child, way = self.numbers.state(members, decided, budget, rest)
                yield Step(child, at, LOSS, way, "")
        for place, event, left, rest in self._events(members, budget, messages):
            number = members[place]
            key = number << 32 | event
            turn = self._turns.get(key) or self._turn(key)
            after, sends, notable, problem = turn
            then = members.copy()
            then[place] = after
            history = decided
            if notable and not problem:
                history, problem = self._judge(decided, number, place, then)
            if problem:
                yield Step(b"", place, event, 0, problem)
                continue
            on = [m for m in (*rest, *sends) if not self._is_dead(m, then)]
            for kept in self._fitting(on):
                child, way = self.numbers.state(then, history, left, kept)
                yield Step(child, place, event, way, "")

    def _fitting(self, messages: list[int]) -> Iterable[Sequence[int]]:
        """What the network holds of these: the first, or with `losses` any that fit."""
        most = self.bounds.in_flight
        if len(messages) <= most:
            return (messages,)
        return (
            dict.fromkeys(combinations(messages, most))
            if self.bounds.losses
            else (messages[:most],)
        )

    def _events(
        self, members: list[int], budget: int, messages: list[int]
    ) -> Iterator[tuple[int, int, int, list[int]]]:
        """(place, event, budget after it, messages after it)."""
        known = self.numbers.messages
        before = -1
        for at, message in enumerate(messages):
            if message != before:
                before = message
                place = known[message][0].to - 1
                rest = messages[:at] + messages[at + 1 :]
                yield place, FIRST_MESSAGE + message, budget, rest
                if budget // COPY % 8:
                    yield place, FIRST_MESSAGE + message, budget - COPY, messages
        if self.bounds.together:
            yield from self._together(budget, messages)
        for place, number in enumerate(members):
            member = self.numbers.members[number]
            if member.pending:
                yield place, _DURABLE, budget, messages
            if budget // ELECTION % 8 and member_.can_campaign(member):
                yield place, _TIMER, budget - ELECTION, messages
            if budget // POWER_LOSS % 8:
                assert _CRASH + len(member.pending) < FIRST_MESSAGE, member
                for groups in range(len(member.pending) + 1):
                    yield place, _CRASH + groups, budget - POWER_LOSS, messages
            if member.leads():
                if budget // COMMAND % 8:
                    command = self.bounds.commands - budget // COMMAND % 8
                    yield place, _PROPOSE + command, budget - COMMAND, messages
                if budget // WORD % 8:
                    for other in MEMBERS:
                        if other != place + 1:
                            yield place, _BEAT + other - 1, budget - WORD, messages

    def _together(
        self, budget: int, messages: list[int]
    ) -> Iterator[tuple[int, int, int, list[int]]]:
        """Two messages for the same member, in either order."""
        known = self.numbers.messages
        for one, two in dict.fromkeys(permutations(messages, 2)):
            place = known[one][0].to - 1
            if known[two][0].to - 1 == place:
                both = self.numbers.message((*known[one], *known[two]))
                rest = messages.copy()
                rest.remove(one)
                rest.remove(two)
                yield place, FIRST_MESSAGE + both, budget, rest

    def _event(self, event: int) -> tuple[str, Any]:
        if event < FIRST_MESSAGE:
            return _EVENTS[event]
        return DELIVER, self.numbers.messages[event - FIRST_MESSAGE]

    def _turn(self, key: int) -> tuple[int, tuple[int, ...], bool, str]:
        """Let the core do it: (the member after it, what it says, whether `_judge` must look, what
        is wrong)."""
        number, event = key >> 32, key & 0xFFFFFFFF
        before = self.numbers.members[number]
        try:
            after, sends, problem = member_.taken(before, *self._event(event), self.bounds.how)
        except AssertionError as broken:
            after, sends, problem = before, (), f"the core is not in order: {broken!r}"
        notable = (
            after.leads() > before.leads()
            or after.commit > before.commit
            or after.disk.entries != before.disk.entries
            or after.entries() != before.entries()
        )
        said = tuple([self.numbers.message((message,)) for message in sends])
        result = self._turns[key] = self.numbers.member(after), said, notable, problem
        return result

    # --- what is over ----------------------------------------------------------------------------

    def _is_dead(self, message: int, members: list[int]) -> bool:
        """Whether it will have no effect whenever it arrives, power losses included: an answer to
        what its receiver, durably, does not ask any more. The core must ignore it now, too."""
        ask = self.numbers.messages[message][0]
        number = members[ask.to - 1]
        key = number << 32 | FIRST_MESSAGE + message
        dead = self._dead.get(key)
        if dead is None:
            dead = is_past(ask, self.numbers.members[number])
            if dead:
                after, sends, _, problem = self._turns.get(key) or self._turn(key)
                dead = after == number and not sends and not problem
            self._dead[key] = dead
        return dead

    # --- invariants ------------------------------------------------------------------------------

    def _judge(self, decided: int, before: int, place: int, then: list[int]) -> tuple[int, str]:
        """After a turn of the member in this place: (what is decided now, what is wrong)."""
        key = (decided, before, place, *then)
        result = self._judged.get(key)
        if result is None:
            members = [self.numbers.members[number] for number in then]
            history, problem = judged(
                self.numbers.decided[decided], self.numbers.members[before], members[place], members
            )
            result = self._judged[key] = self.numbers.history(history), problem
        return result

    # --- what to tell ----------------------------------------------------------------------------

    def _story(self, number: int, last: Step) -> tuple[str, ...]:
        """How the state of this number came about, and the step after it."""
        path = [number]
        while path[-1]:
            path.append(self.parents[path[-1]])
        path.reverse()
        now = list(range(len(MEMBERS) + 1))
        """What each member is called at first."""
        told = []
        for at, state in enumerate(path):
            step = last
            if at + 1 < len(path):
                child = self.states[path[at + 1]]
                step = next(s for s in self._steps(self.states[state]) if s.state == child)
            told.append(self._told(self.states[state], step, now))
            then = now.copy()
            for place, goes_to in enumerate(PLACES[step.way]):
                then[goes_to + 1] = now[place + 1]
            now = then
        return tuple(told)

    def _told(self, state: bytes, step: Step, names: list[int]) -> str:
        if step.event == LOSS:
            message = self.numbers.messages[array("I", state)[5 + step.place]][0]
            return f"lost: {member_.renamed_message(message, names)}"
        kind, value = self._event(step.event)
        if kind == DELIVER:
            value = ", ".join([str(member_.renamed_message(m, names)) for m in value])
        elif kind == BEAT:
            value = names[value]
        before = array("I", state)[step.place]
        after = self.numbers.members[self._turns[before << 32 | step.event][0]]
        told = "" if value is None else f" {value}"
        return f"member {names[step.place + 1]} {kind}{told}\n    {member_.renamed(after, names)}"


def is_past(message: Any, receiver: Member) -> bool:
    """Whether this answers a question of an earlier term, or an election that is over."""
    if type(message) not in (VoteReply, AppendReply):
        return False
    durable = receiver.disk.term
    over = type(message) is VoteReply and not message.pre and receiver.role[0] != CANDIDATE
    return bool(message.term < durable or (over and message.term == durable))


def judged(
    history: Decided, before: Member, after: Member, members: list[Member]
) -> tuple[Decided, str]:
    """What is decided after a turn that made `after` of `before`, and what is wrong with that."""
    led, committed = history
    log = after.entries()
    term = after.leads()
    if term and term != before.leads():
        if term in led:
            return history, f"a second leader of term {term}"
        led = tuple(sorted((*led, term)))
    new = [(entry, term) for entry in log[len(committed) : after.commit]]
    if new and not term:
        return history, "an entry is taken for committed that no leader has committed"
    if log[: after.commit] != tuple([entry for entry, _ in committed[: after.commit]]) + tuple(
        [entry for entry, _ in new]
    ):
        return history, "another entry was committed at that index"
    committed += tuple(new)
    entries = tuple([entry for entry, _ in committed])
    if sum([member.disk.entries[: len(entries)] == entries for member in members]) < 2:
        return history, "what is committed is not durable on a majority"
    for member in members:
        leads = member.leads()
        for index, (entry, when) in enumerate(committed):
            if 0 < when < leads and member.entries()[index : index + 1] != (entry,):
                return history, f"the leader of term {leads} lacks committed entry {index + 1}"
        if not matching(log, member.entries()):
            return history, "two logs agree on an entry and not on those before it"
    return Decided(led, committed), ""


def matching(one: tuple[Entry, ...], two: tuple[Entry, ...]) -> bool:
    """Log matching (Raft, 5.3): up to the last entry with the same index and term all are equal."""
    agree = True
    for mine, other in zip(one, two, strict=False):
        if mine.term == other.term and not (agree and mine == other):
            return False
        agree = agree and mine == other
    return True
