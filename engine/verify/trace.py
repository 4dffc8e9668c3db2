"""Judging traces: what the members of a group did, by their own account, against the invariants.

The traces of all members of one group on one machine (`engine.raft.trace` has the grammar) are
merged by their clock and gone through once. The judge keeps books of its own: what each member
wrote and what of that is durable, who voted for whom, who leads, what is decided. It knows the
format and nothing of the program that wrote it. This is smart casual verification, as Howard and
others call it ("Smart Casual Verification of the Confidential Consortium Framework", NSDI 2025).

The rules, by the names that a violation bears (figure 3 of the Raft paper, and beyond):

* *election safety*: one leader a term; nobody else speaks for it, or places entries of its term;
* *promises*: a vote is given once a term, by a member in all its lives, and terms, votes and
  acknowledgements are said when they are on the disk of whoever says so, no sooner;
* *quorum*: whoever leads was voted for by enough of the voters that it goes by;
* *log matching*: the same index and term, so the same entry, behind the same one; no gap;
* *append only*: a leader replaces nothing, and nobody replaces what is committed;
* *leader completeness*: whoever leads has all that was committed in earlier terms until then;
* *state machine safety*: all apply the same, in order, nothing twice, and only what is committed;
* *commit*: what a leader commits is of its term and on the disks of enough voters, what others
  commit was committed by a leader before;
* *monotone*: terms and commit indexes never fall, and a later term that is heard is taken;
* *recovery*: each life begins with what was durable, or with more of what was being written;
* *tickets*: groups of writes in order, and what waits for one leaves no sooner;
* *members*: everybody goes by the last configuration in its log; the next one has no quorum that
  misses one of this one, and is placed when this one and an entry of the leader's term are decided;
* *reads*: one is confirmed as of no less than what was committed when it came;
* *snapshots*: one ends where the state was when it was taken.

Members without a trace, or before its first life, are believed to have done what they should.
"""
# ruff: noqa: A005 (nobody runs this folder as a path)

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from engine.record import Record
from engine.verify.trace_books import Member
from engine.verify.trace_disks import Disks, Enough, Violation
from engine.verify.trace_files import merged

__all__ = ["Judged", "Violation", "judge"]

LEADS = ("AppendEntries", "InstallSnapshot", "TimeoutNow")
"""What only a leader says."""


class Judged(Record):
    """The verdict on some traces, and what was in them."""

    violations: list[Violation]
    events: int
    members: int
    lives: int
    elections: int
    entries: int


def judge(paths: Iterable[str]) -> Judged:
    """The traces of one group. UsageError, NotFoundError: a file is none, and why."""
    paths = list(dict.fromkeys(paths))
    one = _Judge()
    try:
        for _, _, place, line, row in merged(paths):
            one.take(paths[place], line, place, row)
    except Enough:
        pass
    return Judged(
        one.violations, one.events, len(one.members), one.lives, len(one.leaders), len(one.placed)
    )


class _Judge(Disks):
    """Goes through the events of all members."""

    def __init__(self) -> None:
        super().__init__()
        self.events = self.lives = 0
        self._owners: dict[int, Member] = {}

    def take(self, path: str, line: int, place: int, row: dict[str, Any]) -> None:
        """One event, of the member whose life is going on in this file."""
        self.events += 1
        self.where = (path, line)
        event = row["event"]
        if event == "life":
            self.lives += 1
            self._owners[place] = self.life(row)
            return
        member = self._owners[place]
        if row["at"] != member.turn:
            self._turned(member)
            member.begin_turn(row["at"])
        RULES[event](self, member, row)

    def _turned(self, member: Member) -> None:
        """What can be said only when a turn is over."""
        if member.term < member.heard:
            self.wrong(
                "monotone",
                member,
                f"was told of term {member.heard}, and goes on in term {member.term}",
            )
        if member.change is not None:
            index, before = member.change
            if member.commit < before or member.commit < member.own:
                self.wrong(
                    "members",
                    member,
                    f"placed the configuration of entry {index}, and has committed "
                    f"{member.commit}, not {before} and {member.own}",
                )

    # --- what it says ----------------------------------------------------------------------------

    def _say(self, member: Member, row: dict[str, Any]) -> None:
        what, term, to = row["what"], row["term"], row["to"]
        if row["after"] > member.ticket:
            self.wrong("tickets", member, f"says {what} before group {row['after']} is durable")
        if row.get("pre"):
            return  # which promises nothing
        disk = member.durable
        if term > disk.term:
            self.wrong("promises", member, f"speaks in term {term}, and its disk has {disk.term}")
        if what == "VoteRequest":
            self.votes_for(member, term, member.number)
        elif what == "VoteReply" and row["granted"]:
            self.votes_for(member, term, to)
            self.granted.setdefault((to, term), set()).add(member.number)
        elif what == "AppendReply" and row["accepted"] and term == disk.term:
            self._acknowledges(member, to, row["match"])
        elif what in LEADS and not member.leads(term):
            self.wrong("election safety", member, f"speaks as the leader of term {term}")

    def _acknowledges(self, member: Member, to: int, match: int) -> None:
        disk, leader = member.durable, self.members.get(to)
        if match > disk.last:
            self.wrong(
                "promises",
                member,
                f"acknowledges entry {match}, and its disk ends with {disk.last}",
            )
        elif leader is not None and leader.leads(disk.term):
            ours, theirs = disk.at(match), leader.written.at(match)
            if min(ours, theirs) >= 0 and ours != theirs:
                self.wrong(
                    "promises",
                    member,
                    f"acknowledges entry {match} of term {theirs}, and has one of term {ours}",
                )

    # --- what it becomes -------------------------------------------------------------------------

    def _role(self, member: Member, row: dict[str, Any]) -> None:
        role, term = row["role"], row["term"]
        if term < member.term:
            self.wrong("monotone", member, f"goes from term {member.term} back to {term}")
        leader = row["leader"]
        known = leader == member.number or leader not in self.members
        if not known and self.leaders.get(term) != leader:
            self.wrong("election safety", member, f"follows {leader}, who does not lead {term}")
        if member.role == "leader":
            member.led = member.term
        member.role, member.term = role, term
        if role == "leader":
            self._elected(member, term)

    def _elected(self, member: Member, term: int) -> None:
        leader = self.leaders.setdefault(term, member.number)
        if leader != member.number:
            self.wrong("election safety", member, f"leads term {term}, as member {leader} does")
        disk, log = member.durable, member.written
        member.own = log.last + 1
        if (disk.term, disk.vote) != (term, member.number):
            self.wrong("promises", member, f"leads term {term}, and its disk does not know")
        voters = self.granted.get((member.number, term), set()) | {member.number}
        if not self.enough(log.config, voters.__contains__):
            self.wrong(
                "quorum",
                member,
                f"leads term {term} with the votes of {sorted(voters)} among {log.config}",
            )
        index = max(last for when, last in self.marks.items() if when < term)
        if index > log.base and index in self.decided and log.at(index) != self.decided[index]:
            self.wrong(
                "leader completeness",
                member,
                f"leads term {term} without entry {index}, which was committed before",
            )

    def _hear(self, member: Member, row: dict[str, Any]) -> None:
        member.heard = max(member.heard, row["term"])

    def _config(self, member: Member, row: dict[str, Any]) -> None:
        if (row["voters"], row["outgoing"]) != tuple(member.written.config):
            self.wrong(
                "members",
                member,
                f"goes by {row['voters']}, and its log says {member.written.config}",
            )

    # --- what is decided -------------------------------------------------------------------------

    def _commit(self, member: Member, row: dict[str, Any]) -> None:
        before, to, log = member.commit, row["to"], member.written
        member.commit = to
        if to < before:
            self.wrong("monotone", member, f"goes from commit index {before} back to {to}")
        if to > log.last:
            self.wrong("commit", member, f"commits entry {to}, and has {log}")
        leads = member.role == "leader"
        told = to <= self.known or self.strange(member)
        if leads or (member.led and not told):
            self._decides(member, member.term if leads else member.led, to)
        elif not told:
            self.wrong("commit", member, f"commits entry {to}, which no leader did")
        self.known = max(self.known, to)
        for index in range(max(before, log.base - 1) + 1, min(to, log.last) + 1):
            term = log.at(index)
            if term >= 0 and self.decided.setdefault(index, term) != term:
                self.wrong(
                    "state machine safety",
                    member,
                    f"commits entry {index} of term {term}, not {self.decided[index]}",
                )

    def _decides(self, member: Member, term: int, to: int) -> None:
        if member.written.at(to) != term:
            self.wrong(
                "commit",
                member,
                f"commits entry {to} of term {member.written.at(to)} as the leader of term {term}",
            )
        there = [n for n, one in self.members.items() if one.has(to, term)]
        if not any(self.enough(config, there.__contains__) for config in member.configs):
            self.wrong(
                "commit",
                member,
                f"commits entry {to} of term {term}, which only {there} have on their disks",
            )
        self.marks[term] = max(to, self.marks.get(term, 0))

    def _load(self, member: Member, row: dict[str, Any]) -> None:
        last, term = row["last"], row["term"]
        if last < member.applied:
            self.wrong(
                "state machine safety", member, f"goes from entry {member.applied} back to {last}"
            )
        if self.decided.get(last, term) != term:
            self.wrong(
                "state machine safety",
                member,
                f"loads a snapshot up to entry {last} of term {term}, not {self.decided[last]}",
            )
        member.applied = last

    def _apply(self, member: Member, row: dict[str, Any]) -> None:
        first, entries = row["first"], row["entries"]
        last = first + len(entries) - 1
        if first != member.applied + 1:
            self.wrong(
                "state machine safety",
                member,
                f"applies entry {first} after entry {member.applied}",
            )
        if last > member.commit:
            self.wrong(
                "state machine safety",
                member,
                f"applies entry {last}, and has committed {member.commit}",
            )
        for index, (term, crc) in enumerate(entries, first):
            known = self.decided.setdefault(index, term), self.sums.setdefault(index, crc)
            placed = self.placed.get((index, term), (None,))[0]
            if known != (term, crc) or placed not in (None, crc):
                self.wrong(
                    "state machine safety",
                    member,
                    f"applies another entry {index} than others do, or than was written",
                )
        member.applied = last

    # --- reads and snapshots ---------------------------------------------------------------------

    def _ask(self, member: Member, row: dict[str, Any]) -> None:
        member.asked_at[row["context"]] = self.known

    def _read(self, member: Member, row: dict[str, Any]) -> None:
        least = member.asked_at.pop(row["context"], 0)
        if row["last"] < least:
            self.wrong(
                "reads",
                member,
                f"confirms a read as of entry {row['last']}, and {least} was committed before it "
                "came",
            )

    def _take(self, member: Member, row: dict[str, Any]) -> None:
        member.covers = member.applied

    def _taken(self, member: Member, row: dict[str, Any]) -> None:
        if member.covers not in (None, row["last"]):
            self.wrong(
                "snapshots",
                member,
                f"has a snapshot that ends with entry {row['last']}, of the state after "
                f"{member.covers}",
            )


RULES: dict[str, Callable[[_Judge, Member, dict[str, Any]], None]] = {
    "write": _Judge.write,
    "durable": _Judge.durable,
    "say": _Judge._say,
    "role": _Judge._role,
    "commit": _Judge._commit,
    "config": _Judge._config,
    "load": _Judge._load,
    "apply": _Judge._apply,
    "ask": _Judge._ask,
    "read": _Judge._read,
    "take": _Judge._take,
    "taken": _Judge._taken,
    "hear": _Judge._hear,
    "end": lambda judge, member, row: None,
}
"""By event."""
