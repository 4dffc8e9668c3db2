"""The process around a member: gives messages their bytes, applies, and keeps snapshots.

The machine names entries and pieces of snapshots; the bytes are read here, from the log and from
the snapshot's file, when a message goes out. What is long runs as a `Job`, in `work`, on whatever
thread the world has for that: never the loop's, and never the one that syncs the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from engine.contract import (
    SECOND,
    Event,
    Finished,
    Job,
    Nanos,
    ReadAt,
    Ready,
    Received,
    Send,
    Server,
    Span,
    World,
)
from engine.kernels.records import measure
from engine.raft.machine import Raft
from engine.raft.membership import pack
from engine.raft.messages import (
    AppendEntries,
    FinishSnapshot,
    Installed,
    Propose,
    Room,
    Snapshotted,
    StoreChunk,
    WithEntries,
    WithPiece,
)
from engine.raft.snapshots import Kept
from engine.record import Record
from engine.storage.entries import Base, Entry, GroupLog, Position
from engine.storage.log import Log
from engine.storage.records import STATE_BYTES, record_bytes
from engine.storage.segments import full
from engine.storage.snapshots import Snapshot, SnapshotReceiver, Snapshots, SnapshotWriter

APPLY_BYTES: int = 1 << 20
"""Bodies handed to the state machine at a time."""
LOOK_AGAIN: Nanos = SECOND // 10
"""A full disk is looked at again after this time."""
STEP_EVERY: Nanos = SECOND // 200
"""From one step of what the log does behind the writes to the next: it shares their disk."""
HURRY = 4
"""Unless there is only room for so many times the reserve."""
MAINTAIN_EVERY = 16
"""Groups of writes, after which the log is asked whether something is to be done behind them."""


class StateMachine(Protocol):
    """What a group carries. Total: whatever an entry holds, every replica does the same with it."""

    def apply(self, first: int, entries: tuple[Entry, ...]) -> None:
        """These entries are decided; the first is at index `first`."""

    def pieces(self) -> Iterator[bytes]:
        """The state as it is at this call, a part at a time, however it changes meanwhile."""

    def load(self, pieces: Iterator[bytes]) -> None:
        """Become what these pieces say."""

    def confirmed(self, read: ReadAt) -> None:
        """A read that may be answered: all it must see is applied."""

    def answered(self, answer: Any) -> None:
        """What became of a proposal: `Placed` or `Refused`."""


class Limits(Record):
    """When a server does what the machine does not decide."""

    snapshot_every: int = 100_000
    """Entries applied since the last snapshot; 0 for never."""
    snapshot_bytes: int = 0
    """Or bytes of entries; 0 for never."""
    reserve: int = 1 << 20
    """Bytes of the log that are left to terms and votes when the disk is full."""


class WritePiece(Record):
    """Work: a part of our own snapshot."""

    data: bytes


class CloseSnapshot(Record):
    """Work: it is complete: verify it, make it durable, drop older ones."""


class Maintain(Record):
    """Work: a step of what the log does in the background."""


def _bytes_to_write(event: Any) -> int:
    """What an event may add to the log, at most."""
    kind = type(event)
    if kind is Received and type(event.message) is AppendEntries:
        return measure(event.message.entries) if event.message.entries else 0
    if kind is Propose:
        return sum([record_bytes(len(body)) for _, body in event.commands])
    return 0


def recover(group: int, log: Log, snapshots: Snapshots) -> tuple[GroupLog, list[Kept]]:
    """What a member begins with: its log, and the snapshots that verify, newest first.

    A log whose beginning is in a snapshot that is not there any more is of no use. Then all is
    lost, and its end stays known: the member must get all that again before it votes.
    """
    found = log.recovered.get(group) or GroupLog(0, 0, Base(group, 0, 0, b""), [], [], [], None)
    kept = [
        Kept(one.last, one.term, one.config, one.size)
        for one in snapshots.find()
        if snapshots.verify(one)
    ]
    newest = kept[0].last if kept else 0
    if newest >= found.base.last:
        return found, [one for one in kept if one.last >= found.base.last]
    end = Position(found.terms[-1] if found.terms else found.base.term, 0)
    end = end._replace(last=found.base.last + len(found.terms))
    lost = max(end, found.lost or end)
    log.forget(group, lost)
    return GroupLog(found.term, found.vote, Base(group, 0, 0, b""), [], [], [], lost), []


class RaftServer(Server):
    """One member of one group."""

    machine: Raft

    def __init__(
        self,
        machine: Raft,
        world: World,
        log: Log,
        snapshots: Snapshots,
        state: StateMachine,
        limits: Limits,
    ) -> None:
        super().__init__(machine, world)
        self.group = machine.settings.group
        self.log, self.snapshots, self.state, self.limits = log, snapshots, state, limits
        self.applied = self._applied_bytes = 0
        self._waiting: list[ReadAt] = []
        self._room = self._look_at_room = True
        self._tried = False
        self._refused = 0
        """Bytes for which there was no room."""
        self._receiver: SnapshotReceiver | None = None
        self._receiving = (0, 0, 0)
        self._writer: SnapshotWriter | None = None
        self._pieces: Iterator[bytes] | None = None
        self._overtaken = False
        """The state is another one since the snapshot that is being taken was begun."""
        self._jobs: dict[int, Any] = {}
        self._job = 0
        # A short life may end before the next time, so each begins with it.
        self._unmaintained, self._maintaining = MAINTAIN_EVERY, False
        self._more = False
        self._step_at: Nanos = 0
        self._look_at: Nanos = 0
        self._snapshot_at: Nanos = 0
        self.given_up = 0
        """Snapshots that were begun and came to nothing."""

    # --- what arrives ----------------------------------------------------------------------------

    def sift(self, events: list[Event]) -> list[Event]:
        heard: list[Any] = []
        for event in events:
            if type(event) is Finished and event.job < 0:
                heard += self._ended(event)
            else:
                heard.append(event)
        if self._look_at_room:
            heard += self._room_news()
        need = sum(map(_bytes_to_write, heard))
        if need and self._room and not self.log.prepare(need + STATE_BYTES):
            self._room, self._refused = False, need + STATE_BYTES
            rest = [event for event in heard if type(event) is not Room]  # which was for less
            return [Room(False), *rest]  # it is refused, rather than half done
        return heard

    def _room_news(self) -> list[Any]:
        """The disk is full only when the log has tried in vain to make room."""
        self._look_at_room = False
        tried, self._tried = self._tried, False
        enough = self.log.room() > self.limits.reserve
        if enough and self._refused:
            enough = self.log.prepare(self._refused)
            self._refused = 0 if enough else self._refused
        if not enough and not tried:
            self._unmaintained = MAINTAIN_EVERY
        elif enough != self._room:
            self._room = enough
            return [Room(enough)]
        return []

    def _ended(self, event: Finished) -> list[Any]:
        """A job of ours."""
        work = self._jobs.pop(event.job)
        if type(work) is Maintain:
            self._look_at_room = True
            self._maintaining, self._more = False, bool(event.result)
            self._tried = not event.result
            hurry = self.log.room() <= HURRY * self.limits.reserve
            self._step_at = self.world.now() + (0 if hurry else STEP_EVERY)
        elif event.error or (self._overtaken and type(work) is WritePiece):
            # No space, or the state has gone whose pieces they were: another one comes later.
            self._writer = self._pieces = None
            self._snapshot_at = self.world.now() + LOOK_AGAIN
            self.given_up += 1
        elif type(work) is WritePiece:
            self._next_piece()
        elif type(work) is CloseSnapshot:
            self._writer = self._pieces = None
            return [Snapshotted(event.result.last, event.result.size)]
        return []

    # --- what is said ----------------------------------------------------------------------------

    def complete(self, sends: Iterable[Send]) -> Iterable[Send]:
        self.log.tell()  # nothing has left yet that rests on what has become durable
        return [self._complete(send) for send in sends] if sends else sends

    def _complete(self, send: Send) -> Send:
        message = send.message
        if type(message) is WithEntries:
            ask, last = message
            entries = self._entries(ask.previous + 1, last)
            return Send(send.link, ask._replace(entries=entries))
        if type(message) is WithPiece:
            piece, size = message
            data = self.snapshot_bytes(piece.last, piece.offset, size)
            return Send(send.link, piece._replace(data=data))
        return send

    def _entries(self, first: int, last: int) -> tuple[Entry, ...]:
        return self.log.entries(self.group, first, last, 1 << 62)

    def snapshot_bytes(self, last: int, offset: int, size: int) -> bytes:
        """Of a snapshot; nothing if it is gone or damaged, and then its receiver asks again."""
        found = self._find(last)
        return self.snapshots.read(found, offset, size) if found else b""

    def _find(self, last: int) -> Snapshot | None:
        return next((one for one in self.snapshots.find() if one.last == last), None)

    # --- what is decided -------------------------------------------------------------------------

    def carry(self, ready: Ready) -> None:
        for span in ready.applies:
            self._apply(span)
        for answer in ready.answers:
            self.state.answered(answer)
        self._waiting += ready.reads
        if self._waiting:
            self._read()
        if ready.writes:
            self._unmaintained += 1
            self._look_at_room = True
        if self._more or self._unmaintained >= MAINTAIN_EVERY or not self._room:
            self._maintain_if_due()
        self._snapshot_if_due()

    def _apply(self, span: Span) -> None:
        if span.load:
            found = self._find(span.after)
            assert found is not None, span
            self._overtaken = self._pieces is not None
            self.state.load(self.snapshots.pieces(found))
            self.applied, self._applied_bytes = span.after, 0
        while self.applied < span.last:
            first = self.applied + 1
            entries = self.log.entries(self.group, first, span.last, APPLY_BYTES)
            self.state.apply(first, entries)
            self.applied += len(entries)
            self._applied_bytes += sum([len(entry.body) for entry in entries])

    def _read(self) -> None:
        due = [read for read in self._waiting if read.last <= self.applied]
        self._waiting = [read for read in self._waiting if read.last > self.applied]
        for read in due:
            self.state.confirmed(read)

    # --- snapshots -------------------------------------------------------------------------------

    def _snapshot_if_due(self) -> None:
        if self._pieces is not None:
            return
        every, size = self.limits.snapshot_every, self.limits.snapshot_bytes
        kept = self.machine.snapshots.kept
        last = kept[0].last if kept else 0
        many = 0 < every <= self.applied - last
        if many or 0 < size <= self._applied_bytes:
            self._begin_snapshot()

    def snapshot_now(self) -> bool:
        """Begin one whether it is due or not; False while another one is being taken, or there is
        no space. It is among the machine's when it is complete."""
        if self._pieces is None:
            self._begin_snapshot()
            return self._pieces is not None
        return False

    def _begin_snapshot(self) -> None:
        """If there is space for one, or was when it was last looked."""
        now = self.world.now()
        if now < self._snapshot_at:
            return
        try:
            self._writer = self.snapshots.writer(*self._covers())
        except OSError as error:
            if not full(error):
                raise
            self._snapshot_at = now + LOOK_AGAIN
            return
        self._pieces, self._overtaken = self.state.pieces(), False
        self._applied_bytes = 0
        self._next_piece()

    def _covers(self) -> tuple[int, int, bytes]:
        """(last entry, its term, the members as of it) of a snapshot that is taken now."""
        members = self.machine.members.at(self.applied)
        return self.applied, self.machine.log.term(self.applied), pack(members)

    def _next_piece(self) -> None:
        assert self._pieces is not None
        piece = next(self._pieces, None)
        self._start(CloseSnapshot() if piece is None else WritePiece(piece))

    def _maintain_if_due(self) -> None:
        """Now and then, since a segment takes many groups of writes; and while the disk is full,
        to see when it is not."""
        if self._maintaining:
            return
        now = self.world.now()
        if self._more:
            due = now >= self._step_at
        else:
            due = self._unmaintained >= MAINTAIN_EVERY or now >= self._look_at
        if due:
            self._unmaintained, self._maintaining = 0, True
            self._look_at = now + LOOK_AGAIN
            self._start(Maintain())

    def _start(self, work: Any) -> None:
        self._job -= 1
        self._jobs[self._job] = work
        self.world.start(Job(self._job, work))

    # --- work ------------------------------------------------------------------------------------

    def work(self, work: Any) -> Any:
        """Carry out a job; its result. DamagedData or OSError: see `Finished.error`."""
        kind = type(work)
        if kind is StoreChunk:
            return self._store(work)
        if kind is FinishSnapshot:
            return self._finish()
        if kind is Maintain:
            return self.log.maintain()
        assert self._writer is not None
        if kind is WritePiece:
            self._writer.write(work.data)
            return None
        taken = self._writer.finish()
        self.snapshots.keep(2)
        return taken

    def _store(self, work: StoreChunk) -> int:
        key = (work.last, work.term, work.size)
        if self._receiver is None or self._receiving != key:
            self._receiver, self._receiving = self.snapshots.receiver(*key), key
        if work.offset == self._receiver.next and work.data:
            self._receiver.write(work.data)
        return self._receiver.next

    def _finish(self) -> Installed:
        receiver, self._receiver = self._receiver, None
        assert receiver is not None
        got = receiver.finish()
        return Installed(got.last, got.term, got.config, got.size)
