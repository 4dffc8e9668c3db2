"""What may reach a member: messages between members, with values that one could have sent.

Whoever may speak as a member is trusted to follow the protocol, and yet a bit may flip on the way,
or another version err. What is refused here is like a lost message; what the machine would stumble
over does not get that far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.kernels.checksum import crc32c
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

if TYPE_CHECKING:
    from engine.raft.machine import Raft

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


def sane(raft: Raft, message: Any) -> bool:
    """Whether this message may be handed to the member."""
    kind = type(message)
    if kind not in MESSAGES:
        return False
    for value in message:
        if type(value) is int and not 0 <= value < NUMBER_MAX:
            return False
    if kind is AppendEntries:
        return _entries(message)
    if kind is AppendReply:
        # Whoever leads knows how far its own log goes.
        return bool(message.term != raft.term or message.match <= raft.log.last)
    if kind is InstallSnapshot:
        return bool(message.last and message.offset + len(message.data) <= message.size)
    return True


def _entries(ask: AppendEntries) -> bool:
    """Terms that do not fall, and bodies that are what their sums say."""
    term = ask.previous_term
    for entry in ask.entries:
        if not term <= entry.term <= ask.term or entry.kind not in KINDS:
            return False
        if crc32c(entry.body) != entry.crc or (entry.kind == CONFIG and not _configuration(entry)):
            return False
        term = entry.term
    return True


def _configuration(entry: Entry) -> bool:
    try:
        return bool(unpack(entry.body).voters)
    except WireError:
        return False
