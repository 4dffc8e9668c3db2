"""What members say and do, in a few words, for golden scripts.

An entry is written command@term, one without a command as -@term, one with members as {1 2}@term:
`4+` is a voter that joins, `4~` a learner, `4-` a voter that leaves, and `{1 2 | 1 3}` is joint,
with the voters before behind the bar.
"""

from __future__ import annotations

from typing import Any

from engine.raft.candidate import Candidate
from engine.raft.leader import Leader
from engine.raft.machine import Raft
from engine.raft.membership import JOINING, LEARNER, LEAVING, Configuration, unpack
from engine.raft.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    SnapshotReply,
    VoteReply,
    VoteRequest,
)
from engine.storage.entries import COMMAND, NOOP, Entry

MARKS = {JOINING: "+", LEARNER: "~", LEAVING: "-"}


def configuration(now: Configuration) -> str:
    members = " ".join(f"{member.id}{MARKS.get(member.role, '')}" for member in now.members)
    before = " | " + " ".join(map(str, now.outgoing)) if now.outgoing else ""
    return f"{{{members}{before}}}"


def content(entry: Entry) -> str:
    if entry.kind == NOOP:
        return "-"
    return entry.body.decode() if entry.kind == COMMAND else configuration(unpack(entry.body))


def entries(some: tuple[Entry, ...]) -> str:
    return " ".join(f"{content(entry)}@{entry.term}" for entry in some)


def message(said: Any) -> str:
    kind = type(said)
    if kind is VoteRequest:
        ask = "would you vote" if said.pre else "vote"
        handed = ", as the leader asks" if said.transfer else ""
        return f"{ask} in term {said.term}, log ends {said.last_index}@{said.last_term}{handed}"
    if kind is VoteReply:
        verb = ("would" if said.granted else "would not") if said.pre else ""
        verb = verb or ("voted" if said.granted else "no vote")
        return f"{verb} in term {said.term}"
    if kind is AppendEntries:
        what = f"append {entries(said.entries)}" if said.entries else "beat"
        asks = f", round {said.round}" if said.round else ""
        place = f"after {said.previous}@{said.previous_term}, commit {said.commit}"
        return f"{what} {place}, term {said.term}{asks}"
    if kind is AppendReply:
        what = f"has {said.match}"
        if not said.accepted:
            what = f"rejects {said.previous}, try {said.hint}@{said.hint_term}"
        asks = f", round {said.round}" if said.round else ""
        flags = (", lost" if said.lost else "") + (", full" if said.full else "")
        return f"{what}, term {said.term}{asks}{flags}"
    if kind is InstallSnapshot:
        upto = said.offset + len(said.data)
        piece = f"bytes {said.offset}-{upto} of {said.size}"
        return f"snapshot {said.last}@{said.last_term}, {piece}, term {said.term}"
    if kind is SnapshotReply:
        return f"wants snapshot {said.last} from {said.offset}, term {said.term}"
    return f"take over, term {said.term}"


def role(raft: Raft) -> str:
    if isinstance(raft.role, Leader):
        return f"leads in term {raft.term}"
    if isinstance(raft.role, Candidate):
        verb = "asks around" if raft.role.pre else "is a candidate"
        return f"{verb} in term {raft.term}"
    return f"follows {raft.leader or 'nobody'} in term {raft.term}"


def state(raft: Raft) -> str:
    log = raft.log
    base = f"{log.base}@{log.base_term}| " if log.base else ""
    terms = " ".join(map(str, log.terms)) or "empty"
    flags = (", lost" if raft.lost is not None else "") + (", full" if raft.full else "")
    return (
        f"{role(raft)}, vote {raft.vote or '-'}, log {base}{terms}, "
        f"stable {raft.stable}, commit {raft.commit}{flags}"
    )
