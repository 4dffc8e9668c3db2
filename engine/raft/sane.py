"""What may reach a member: messages between members, with values that one could have sent.

Whoever may speak as a member is trusted to follow the protocol, and yet a bit may flip on the way,
or another version err. What is refused here is like a lost message; what the machine would stumble
over does not get that far. It is judged one by one, by what the member is when it takes them: what
came before in the same turn counts.
"""

from __future__ import annotations

from typing import Any

from engine.contract import Link
from engine.kernels.checksum import crc32c
from engine.raft.machine import Raft
from engine.raft.membership import unpack
from engine.raft.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from engine.storage.entries import COMMAND, CONFIG, NOOP, Entry
from engine.wire.codec import WireError

NUMBER_MAX = 1 << 62
KINDS = (NOOP, COMMAND, CONFIG)
MESSAGES = frozenset(
    (
        VoteRequest,
        VoteReply,
        AppendEntries,
        AppendReply,
        InstallSnapshot,
        SnapshotReply,
        TimeoutNow,
    )
)


class CarefulRaft(Raft):
    """A member that hears sane messages only."""

    malformed = 0
    """How many it did not hear."""

    def _receive(self, link: Link, message: Any) -> None:
        if sane(self, message):
            super()._receive(link, message)
        else:
            self.malformed += 1


def sane(raft: Raft, message: Any) -> bool:
    """Whether this message may be handed to the member."""
    kind = type(message)
    if kind not in MESSAGES:
        return False
    for value in message:
        if type(value) is int and not 0 <= value < NUMBER_MAX:
            return False
    if kind is AppendEntries:
        return _leads(raft, message) and _entries(raft, message)
    if kind is AppendReply:
        # Whoever leads knows how far its own log goes.
        return bool(message.term != raft.term or message.match <= raft.log.last)
    if kind is InstallSnapshot:
        whole = message.last and message.offset + len(message.data) <= message.size
        return bool(whole and message.last_term <= message.term and _leads(raft, message))
    return True


def _leads(raft: Raft, message: Any) -> bool:
    """Only one leads a term."""
    return message.term != raft.term or raft.leader in (0, message.sender)


def _entries(raft: Raft, ask: AppendEntries) -> bool:
    """Terms that do not fall, bodies that are what their sums say, and nothing else in the place of
    what is decided."""
    term = ask.previous_term
    if term > ask.term:
        return False
    for entry in ask.entries:
        if not term <= entry.term <= ask.term or entry.kind not in KINDS:
            return False
        if crc32c(entry.body) != entry.crc or (entry.kind == CONFIG and not _configuration(entry)):
            return False
        term = entry.term
    decided = ask.entries[: max(0, raft.commit - ask.previous)]
    for index, entry in enumerate(decided, ask.previous + 1):
        if index > raft.log.base and raft.log.term(index) != entry.term:
            return False
    return True


def _configuration(entry: Entry) -> bool:
    try:
        return bool(unpack(entry.body).voters)
    except WireError:
        return False
