"""Numbers for what the explorer meets, and one name for states that differ in names alone.

Members, messages and histories are numbered in the order in which they are found, so a state is a
short array of numbers: three members, what is decided, the budget, and the messages in order. The
members of a group are alike, so whatever can happen can happen with their names exchanged: of up to
six such states one stands for all.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import permutations, product
from typing import Any

from engine.raft.trial_explorer_member import MEMBERS, Member, renamed, renamed_message
from engine.record import Record
from engine.storage.entries import Entry

NAMES = [(0, *names) for names in permutations(MEMBERS)]
PLACES = [tuple([name - 1 for name in names[1:]]) for names in NAMES]
"""Where the member in place i goes, for each way to rename."""


def _pattern(one: int, two: int, three: int) -> int:
    """Which of three numbers are less than which."""
    return (
        (one < two)
        + 2 * (two < one)
        + 4 * (one < three)
        + 8 * (three < one)
        + 16 * (two < three)
        + 32 * (three < two)
    )


def _ways() -> dict[int, list[int]]:
    """For each pattern the ways after which the numbers are in order."""
    found: dict[int, list[int]] = {}
    for numbers in product(range(3), repeat=3):
        order = sorted(numbers)
        fit = [
            w
            for w, places in enumerate(PLACES)
            if order == [numbers[places.index(i)] for i in range(3)]
        ]
        found[_pattern(*numbers)] = fit
    return found


WAYS = _ways()


class Decided(Record):
    """What a state's history decided."""

    led: tuple[int, ...]
    """The terms that had a leader, in order."""
    committed: tuple[tuple[Entry, int], ...]
    """Each entry, and the term of the leader that committed it first."""


class Numbers:
    """A number for each value; `members[n]` and so on is the value of number n."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.messages: list[Any] = []
        self.decided: list[Decided] = []
        self._member_numbers: dict[Member, int] = {}
        self._message_numbers: dict[Any, int] = {}
        self._decided_numbers: dict[Decided, int] = {}
        self._member_names: list[tuple[int, ...]] = []
        """Each one's number under each of `NAMES`."""
        self._message_names: list[tuple[int, ...]] = []
        self._like: list[int] = []
        """The least of those numbers: the same for members that differ in names alone."""

    def member(self, member: Member) -> int:
        number = self._member_numbers.get(member)
        if number is None:
            all_names = [renamed(member, names) for names in NAMES]
            for one in all_names:
                if one not in self._member_numbers:
                    self._member_numbers[one] = len(self.members)
                    self.members.append(one)
            number = self._member_numbers[member]
            for one in self.members[len(self._member_names) :]:
                images = [self._member_numbers[renamed(one, names)] for names in NAMES]
                self._member_names.append(tuple(images))
                self._like.append(min(images))
        return number

    def message(self, messages: tuple[Any, ...]) -> int:
        """Of one message, or of some that arrive together."""
        number = self._message_numbers.get(messages)
        if number is None:
            images = [
                tuple([renamed_message(message, names) for message in messages]) for names in NAMES
            ]
            for one in images:
                self._message_numbers[one] = len(self.messages)
                self.messages.append(one)
            for one in images:
                named = [
                    tuple([renamed_message(message, names) for message in one]) for names in NAMES
                ]
                self._message_names.append(tuple([self._message_numbers[n] for n in named]))
            number = self._message_numbers[messages]
        return number

    def history(self, decided: Decided) -> int:
        number = self._decided_numbers.setdefault(decided, len(self.decided))
        if number == len(self.decided):
            self.decided.append(decided)
        return number

    def state(
        self, members: list[int], decided: int, budget: int, messages: Sequence[int]
    ) -> tuple[bytes, int]:
        """The state, of all that differ in names the one that stands for them, and `way` to it."""
        one, two, three = members
        like = self._like
        ways = WAYS[_pattern(like[one], like[two], like[three])]
        best, best_way = b"", 0
        for way in ways:
            places, names = PLACES[way], self._message_names
            named = [0, 0, 0, decided, budget, *sorted([names[m][way] for m in messages])]
            named[places[0]] = self._member_names[one][way]
            named[places[1]] = self._member_names[two][way]
            named[places[2]] = self._member_names[three][way]
            state = array("I", named).tobytes()
            if not best or state < best:
                best, best_way = state, way
        return best, best_way
