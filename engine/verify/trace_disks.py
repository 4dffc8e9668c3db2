"""What is on the disks of a group's members, and the rules about it (`engine.verify.trace`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.record import Record
from engine.verify.trace_books import Config, Log, Member, Position, singly
from engine.verify.trace_files import CONFIG

MOST = 100
"""Violations after which nobody wants more."""


class Violation(Record):
    """What does not hold, and the line that shows it."""

    rule: str
    what: str
    file: str
    line: int


class Enough(Exception):
    """So many violations were found that more would say nothing."""


class Disks:
    """What is known of the whole group, and the rules about what is written.

    `where` is the line that is judged, (file, number).
    """

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.members: dict[int, Member] = {}
        self.placed: dict[tuple[int, int], tuple[int | None, int, int]] = {}
        """By index and term: sum, kind, and the term of the entry before."""
        self.votes: dict[tuple[int, int], int] = {}
        """By member and term: for whom."""
        self.granted: dict[tuple[int, int], set[int]] = {}
        """By candidate and term: who told it that it has their vote."""
        self.leaders: dict[int, int] = {}
        self.decided: dict[int, int] = {}
        """By index: the term of the entry that somebody committed."""
        self.sums: dict[int, int] = {}
        """By index: of the entry that somebody applied."""
        self.marks: dict[int, int] = {0: 0}
        """By term: the last index that its leader committed."""
        self.known = 0
        """The last index that anybody committed."""
        self.where = ("", 0)

    def wrong(self, rule: str, member: Member, what: str) -> None:
        self.violations.append(Violation(rule, f"{member} {what}", *self.where))
        if len(self.violations) >= MOST:
            raise Enough

    def strange(self, member: Member) -> bool:
        """Whether not all voters have a trace."""
        return any(n not in self.members for half in member.written.config for n in half)

    def enough(self, config: Config, agrees: Callable[[int], bool]) -> bool:
        """A majority in each half; whoever is not known agrees."""
        return bool(config[0]) and all(
            2 * sum(n not in self.members or agrees(n) for n in half) > len(half)
            for half in config
            if half
        )

    # --- a life begins ---------------------------------------------------------------------------

    def life(self, row: dict[str, Any]) -> Member:
        """A life begins."""
        terms = [term for term, many in row["terms"] for _ in range(many)]
        found = Log(row["term"], row["vote"], tuple(row["base"]), terms)
        found.configs = [(index, (now, before)) for index, now, before in row["configs"]]
        found.configs = found.configs or [(found.base, ([], []))]
        commit, lost = row["commit"], row["lost"] and tuple(row["lost"])
        member = self.members.get(row["member"])
        if member is None:
            member = self.members[row["member"]] = Member(row["member"])
            if lost is not None:
                member.owed = Log(0, 0, (lost[1], lost[0]), [])
            self.known = max(self.known, commit)
        else:
            self._recovered(member, found, lost)
        before = found.base_term
        for index, term in enumerate(terms, found.base + 1):
            self.placed.setdefault((index, term), (None, 0, before))
            before = term
        snapshot = row["snapshot"]
        if found.base > (snapshot[0] if snapshot else 0):
            self.wrong(
                "recovery",
                member,
                f"begins behind entry {found.base}, and no snapshot holds what is before it",
            )
        if commit > self.known:
            self.wrong(
                "recovery",
                member,
                f"has a snapshot up to entry {commit}, which nobody has committed",
            )
        member.begin(found, commit)
        return member

    def _recovered(self, member: Member, found: Log, lost: Position | None) -> None:
        had, owed = member.durable, member.owed
        end = found.end
        if lost is None:
            if owed is not None and end < owed.end:
                self.wrong("recovery", member, f"has forgotten that it lost {owed.end}")
            for _, records in member.pending:
                for record in singly(records):
                    if had.like(found) or found.like(had):
                        return
                    had.take(record)
            if not had.like(found):
                self.wrong("recovery", member, f"had {had} on its disk, and begins with {found}")
            return
        if max(end, lost) < had.end:
            self.wrong(
                "recovery", member, f"had {had} on its disk, and knows only of {max(end, lost)}"
            )
        if (found.term, found.vote) < (had.term, 0) or (
            found.term == had.term and had.vote not in (0, found.vote)
        ):
            self.wrong("recovery", member, f"has forgotten {had}: {found}")
        if owed is None or owed.end < had.end:
            member.owed = had

    # --- what it writes --------------------------------------------------------------------------

    def write(self, member: Member, row: dict[str, Any]) -> None:
        member.asked += 1
        if row["ticket"] != member.asked:
            self.wrong("tickets", member, f"writes group {row['ticket']}, the {member.asked}th")
            member.asked = row["ticket"]
        for record in row["records"]:
            if record[0] == "state":
                self._state(member, *record[1:])
            elif record[0] == "append":
                self._append(member, *record[1:])
            member.written.take(record)
        member.pending.append((row["ticket"], row["records"]))
        member.configs.append(member.written.config)

    def _state(self, member: Member, term: int, vote: int) -> None:
        log = member.written
        if term < log.term:
            self.wrong("monotone", member, f"writes term {term} after term {log.term}")
        if term == log.term and log.vote not in (0, vote):
            self.wrong("promises", member, f"voted for {log.vote} in term {term}, now for {vote}")

    def _append(self, member: Member, first: int, entries: list[list[Any]]) -> None:
        log = member.written
        if first <= member.commit:
            self.wrong(
                "append only", member, f"replaces entry {first}, and has committed {member.commit}"
            )
        if member.role == "leader" and first <= log.last:
            self.wrong("append only", member, f"leads, and replaces entry {first}")
        if first <= log.last and log.at(first) == entries[0][0]:
            self.wrong("append only", member, f"replaces entry {first} by itself")
        if not log.base < first <= log.last + 1:
            self.wrong("log matching", member, f"writes entry {first} into {log}")
        before = log.at(first - 1)
        for index, (term, kind, crc, *config) in enumerate(entries, first):
            if term < before:
                self.wrong(
                    "log matching",
                    member,
                    f"writes entry {index} of term {term} behind one of term {before}",
                )
            known = self.placed.get((index, term))
            if known is None:
                self._places(member, index, term)
            elif known[0] is None:
                known = None  # it was there before there were traces
            elif known[:2] != (crc, kind) or (known[2] != before and min(known[2], before) >= 0):
                self.wrong(
                    "log matching",
                    member,
                    f"writes another entry {index} of term {term} than others, or behind another",
                )
            if known is None:
                self.placed[index, term] = (crc, kind, before)
            if kind == CONFIG and member.role == "leader":
                self._changes(member, index, config)
            before = term

    def _changes(self, member: Member, index: int, then: Sequence[list[int]]) -> None:
        """A leader places a configuration: what must be committed by then is seen later."""
        before, now = member.written.configs[-1]
        member.change = (index, before)
        joint, plain = (now, then) if now[1] else (then, now)
        meets = plain[0] in list(joint) if joint[1] else len({*now[0]} ^ {*then[0]}) <= 1
        if not meets:
            self.wrong("members", member, f"goes from {now} to {then}, which decide on their own")

    def _places(self, member: Member, index: int, term: int) -> None:
        """An entry that nobody had before."""
        strange = self.strange(member)
        leader = self.leaders.get(term, member.number if strange else None)
        if leader != member.number:
            self.wrong(
                "election safety",
                member,
                f"makes entry {index} of term {term}, which is that of {leader or 'nobody'}",
            )

    def durable(self, member: Member, row: dict[str, Any]) -> None:
        ticket = row["ticket"]
        if not member.ticket <= ticket <= member.asked:
            self.wrong(
                "tickets",
                member,
                f"has group {ticket} on its disk, between {member.ticket} and {member.asked}",
            )
        member.ticket = ticket
        while member.pending and member.pending[0][0] <= ticket:
            for record in member.pending.popleft()[1]:
                member.durable.take(record)
                if record[0] == "state" and record[2]:
                    self.votes_for(member, *record[1:])
        if member.owed is not None and member.durable.end >= member.owed.end:
            member.owed = None

    def votes_for(self, member: Member, term: int, candidate: int) -> None:
        known = self.votes.setdefault((member.number, term), candidate)
        if known != candidate:
            self.wrong(
                "promises", member, f"votes for {candidate} in term {term}, and voted for {known}"
            )
        if term == member.durable.term and member.durable.vote != candidate:
            self.wrong(
                "promises",
                member,
                f"votes for {candidate} in term {term}, and its disk does not know",
            )
