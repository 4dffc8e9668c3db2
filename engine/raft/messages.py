"""What members say to each other, and what a server and its member do.

Every message between members says the term in which it was said, by whom, and to whom: a message
to a former member at the same address is not for this one.
"""

from __future__ import annotations

from engine.record import Record
from engine.storage.entries import Entry
from engine.wire.codec import message

# --- between members -----------------------------------------------------------------------------


@message(128)
class VoteRequest(Record):
    """RequestVote (Raft, 5.2 and 5.4.1), or the question whether it would be granted (pre-vote,
    Ongaro's thesis, 9.6), which promises nothing and changes nothing."""

    term: int
    """In which the sender is a candidate, or would be."""
    sender: int
    to: int
    last_term: int
    last_index: int
    """Where the sender's log ends."""
    pre: bool
    transfer: bool
    """The leader asked for this election: its followers need not wait for its silence."""


@message(129)
class VoteReply(Record):
    """`term` is that of a granted request, or the term in which it is refused."""

    term: int
    sender: int
    to: int
    pre: bool
    granted: bool


@message(130)
class AppendEntries(Record):
    """Replication (Raft, 5.3); without entries a heartbeat."""

    term: int
    sender: int
    to: int
    previous: int
    previous_term: int
    """The entry before the first of `entries`; index 0 is before everything, of term 0."""
    commit: int
    round: int
    """Grows with every batch of reads; the answer repeats it."""
    entries: tuple[Entry, ...]


@message(131)
class AppendReply(Record):
    """Answers `AppendEntries`.

    Accepted: the sender has the leader's log up to `match` on its disk. That may be less than was
    sent, since a sign of life must not wait for a disk. Rejected: it does not have the entry before
    the first; `hint` is the last of its entries that might be the leader's as well, of `hint_term`.
    """

    term: int
    sender: int
    to: int
    previous: int
    """Of the request."""
    round: int
    accepted: bool
    match: int
    hint: int
    hint_term: int
    lost: bool
    """The sender lost a part of its log: what it said to have before need not be there."""
    full: bool
    """The sender has no space for entries."""


@message(132)
class InstallSnapshot(Record):
    """A piece of the snapshot whose last entry is `last`, of `last_term` (Raft, 7)."""

    term: int
    sender: int
    to: int
    last: int
    last_term: int
    size: int
    """Of the whole file, in bytes."""
    offset: int
    data: bytes


@message(133)
class SnapshotReply(Record):
    """The piece that is wanted next; `offset` is the file's size when all are there."""

    term: int
    sender: int
    to: int
    last: int
    offset: int


@message(134)
class TimeoutNow(Record):
    """The leader wants this follower to take over (thesis, 3.10)."""

    term: int
    sender: int
    to: int


Message = (
    VoteRequest
    | VoteReply
    | AppendEntries
    | AppendReply
    | InstallSnapshot
    | SnapshotReply
    | TimeoutNow
)


# --- what the server completes before it is sent -------------------------------------------------


class WithEntries(Record):
    """`message` is to carry all entries after its `previous` up to `last`."""

    message: AppendEntries
    last: int


class WithPiece(Record):
    """`message` is to carry so many bytes of the snapshot from its `offset` on."""

    message: InstallSnapshot
    size: int


# --- from the server to its member ---------------------------------------------------------------


class Propose(Record):
    """Append these commands, each (CRC32C of its bytes, its bytes). `Placed` or `Refused`."""

    context: int
    commands: tuple[tuple[int, bytes], ...]


class Read(Record):
    """Confirm that no other leader can have answered anybody. `ReadAt` or `Refused`."""

    context: int


class Change(Record):
    """Make these the members: (id, address, whether it votes). `Placed` or `Refused`.

    A voter that is new becomes a learner first, and a voter when it has caught up.
    """

    context: int
    members: tuple[tuple[int, str, bool], ...]


class Transfer(Record):
    """Hand leadership to this member, or with 0 to the one that has most. Refused if it cannot be;
    otherwise it is tried for an election's time, and the outcome shows in who leads."""

    context: int
    target: int


class Snapshotted(Record):
    """A snapshot whose last entry is `last` is on the disk: a file of `size` bytes."""

    last: int
    size: int


class Room(Record):
    """Whether the disk has space for entries."""

    enough: bool


# --- from the member to its server ---------------------------------------------------------------


class Placed(Record):
    """The first entry of a proposal, or a change, is at index `first`, of `term`. If an entry of
    another term is committed there, it never took effect."""

    context: int
    first: int
    term: int


class Refused(Record):
    """Nothing was done. `leader` is whom to ask instead, 0 if nobody is known."""

    context: int
    why: str
    leader: int


class StoreChunk(Record):
    """Work: put these bytes into the snapshot that is being received. Result: the offset that is
    wanted next."""

    last: int
    term: int
    size: int
    offset: int
    data: bytes


class FinishSnapshot(Record):
    """Work: verify the snapshot that was received, and keep it. Result: `Installed`, or an error
    if it is damaged; then it is gone."""

    last: int
    term: int
    size: int


class Installed(Record):
    """A snapshot that was received and verified."""

    last: int
    term: int
    config: bytes
    size: int
