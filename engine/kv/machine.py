"""The store's state machine: entries in, answers out, the same on every replica.

An entry holds frames of requests (`commands`). It sets the time, ends the leases whose time has
come, and carries its requests out in order, each by itself. Applying is total: whatever the bytes
are, every replica makes the same of them. What is no entry, or of another group, holds nothing.

`digest` is the CRC32C over the bodies of all entries and the answers to them, each begun with the
one before: replicas that have applied the same have the same, or one of them is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.contract import Nanos
from engine.kernels.bulk import unpacked
from engine.kernels.checksum import crc32c
from engine.kernels.gets import gets
from engine.kernels.puts import puts
from engine.kv import pieces
from engine.kv.checks import MALFORMED, well_formed_read, well_formed_write
from engine.kv.commands import (
    END_SESSION,
    LATE,
    READ_BYTES_MAX,
    ROWS_MAX,
    SESSION_EXPIRED,
    TOO_LARGE,
    TOO_MANY,
    TXN,
)
from engine.kv.history import Compacted as Compacted
from engine.kv.history import Event
from engine.kv.reads import READERS, Room
from engine.kv.sessions import EXPIRED, FULL, NEW, REPEATED
from engine.kv.sessions import HEAD as ROW
from engine.kv.sessions import LATE as LATE_REQUEST
from engine.kv.state import State
from engine.kv.store import HEAD, Walk
from engine.kv.txn import txn
from engine.kv.writes import WRITERS
from engine.record import Record

UNHEARD: dict[str, tuple[Any, ...]] = {
    LATE_REQUEST: (LATE,),
    EXPIRED: (SESSION_EXPIRED,),
    FULL: (TOO_MANY, "sessions"),
}
"""What is said to requests that are not carried out, by what they are."""
HASH_BYTES = 1 << 17
HISTORY_SLACK = 4 << 20
"""Bytes that the history may have too many before an entry is complete."""

unpackb = msgpack.unpackb
head, pack_head = HEAD.unpack_from, HEAD.pack
row_head, pack_row = ROW.unpack_from, ROW.pack


class Info(Record):
    """What there is."""

    revision: int
    time: Nanos
    keys: int
    bytes: int
    sessions: int
    leases: int
    compacted: int


class Machine(State):
    """One group's. `limits`, `revision`, `time` and `digest` are there to be read."""

    def __init__(self, group: int = 1) -> None:
        super().__init__(group)
        self._packer = msgpack.Packer()
        self._pack: Callable[[Any], bytes] = self._packer.pack
        self._snapshot: Walk | None = None

    # --- entries ---------------------------------------------------------------------------------

    def apply(self, body: bytes) -> list[bytes]:
        """An entry is decided. The answer frames, one for each frame; b"" for a malformed one."""
        answers: list[bytes] = []
        entry = unpacked(body)
        if entry is not None and entry[0] == self.group:
            _, time, frames = entry
            self.time = max(self.time, time)
            self.sessions.pass_time(self.time, self.limits.horizon)
            self.expire()
            self._run(frames, answers)
            self.trim()
        self.digest = crc32c(b"".join(answers), crc32c(body, self.digest))
        return answers

    def _run(self, frames: list[bytes], answers: list[bytes]) -> None:
        """The commonest frame is one plain put in a session that is known: that is done by a kernel
        as `_request`, `Sessions`, `writes.put` and `State.put` would do it, and all else there."""
        at, store, sessions, history = 0, self.store, self.sessions, self.history
        while True:
            at, self.revision, told, kept = puts(
                frames, at, answers, store.table, sessions.rows, history.events,
                store.put_aside if store.walks else None, self.limits, self.revision, self.time,
                sessions.horizon, self.limits.state_bytes - self.size,
            )  # fmt: skip
            history.bytes += told
            sessions.bytes += kept
            if at == len(frames):
                return
            answers.append(self._one(frames[at]))
            at += 1

    def _one(self, frame: bytes) -> bytes:
        """A frame that is anything else."""
        try:
            message = unpackb(frame, use_list=False, strict_map_key=True, max_ext_len=0)
        except MALFORMED:
            return b""
        return self._frame(message, len(frame))

    def _frame(self, message: Any, size: int) -> bytes:
        """Carry out what was unpacked; the answer frame."""
        if not well_formed_write(message):
            return b""
        room = Room()
        large = size > self.limits.request_bytes
        packed = [self._request(request, room, large) for request in message[1:]]
        return self._join(message, packed)

    def _join(self, message: tuple[Any, ...], packed: list[bytes]) -> bytes:
        """The answer frame to a frame, of packed answers."""
        head: bytes = self._packer.pack_array_header(len(message))
        return b"".join((head, self._pack(message[0]), *packed))

    def _request(self, request: tuple[Any, ...], room: Room, large: bool) -> bytes:
        """Judge a request by its session, and carry it out if it is new; its packed answer."""
        session, sequence, op, *arguments = request
        if not session:
            return self._carry_out(op, tuple(arguments), room, large)
        sessions = self.sessions
        verdict = sessions.judge(session, sequence, self.time, self.limits.sessions)
        if verdict == NEW:
            answer = self._carry_out(op, tuple(arguments), room, large)
            ends = op == END_SESSION and not large
            sessions.keep(session, sequence, self.time, answer, ends)
            return answer
        if verdict == REPEATED:
            return sessions.answer(session)
        return self._pack(UNHEARD[verdict])

    def _carry_out(self, op: int, arguments: tuple[Any, ...], room: Room, large: bool) -> bytes:
        if large:
            answer: tuple[Any, ...] = (TOO_LARGE, "request")
        elif op == TXN:
            answer = txn(self, room, arguments)
        else:
            answer = WRITERS[op](self, arguments)
        if self.history.bytes > self.limits.history_bytes + HISTORY_SLACK:
            self.trim()
        return self._pack(answer)

    def next_deadline(self) -> Nanos | None:
        """When a lease ends next. When it is due an entry must come, if only one without frames;
        and so again, for as long as this is not after the time."""
        lease = self.leases.first()
        return None if lease is None else lease.deadline

    def raise_revision(self, to: int) -> None:
        """The next change is made at a revision after this one; for what comes from other groups,
        whose revisions must not fall."""
        self.revision = max(self.revision, to)

    # --- reads -----------------------------------------------------------------------------------

    def read(self, frame: bytes) -> bytes:
        """The answer frame to a frame of asks; b"" if it is malformed."""
        answer = gets(frame, self.store.table, self.revision, READ_BYTES_MAX, ROWS_MAX)
        if answer is not None:
            return answer
        try:
            message = unpackb(frame, use_list=False, strict_map_key=True, max_ext_len=0)
        except MALFORMED:
            return b""
        if not well_formed_read(message):
            return b""
        room = Room()
        packed = [self._pack(READERS[op](self, room, rest)) for op, *rest in message[1:]]
        return self._join(message, packed)

    def info(self) -> Info:
        return Info(
            self.revision,
            self.time,
            len(self.store.table),
            self.store.size,
            len(self.sessions.rows),
            len(self.leases.by_id),
            self.history.compacted,
        )

    def events(
        self, after: int, start: bytes, end: bytes | None, most: int, bytes_max: int
    ) -> tuple[list[Event], int]:
        """What changed in a range after a revision: see `History.after`. Compacted."""
        return self.history.after(after, start, end, most, bytes_max, self.revision)

    # --- all of it -------------------------------------------------------------------------------

    def pieces(self) -> Iterator[bytes]:
        """A snapshot of the state as it is now, a piece at a time, while entries are applied. One
        that was begun before and is not complete raises RuntimeError when it is asked for more."""
        if self._snapshot is not None:
            self._snapshot.end()
        self._snapshot = self.store.walk()
        return _begun(pieces.pieces(self, self._snapshot))

    def load(self, found: Iterable[bytes]) -> None:
        """Become what the pieces say, and answer as what they came from. DamagedData."""
        pieces.load(self, found)

    def state_hash(self) -> Iterator[int]:
        """CRC32C over all keys and records as they are now, in order: of more and more of them, and
        the last is the hash. For operators, who compare replicas of one revision."""
        return _begun(_hash(self.store.walk()))


def _begun(iterator: Iterator[Any]) -> Iterator[Any]:
    """At its first `yield`, where it has seen the state, and is told when nobody wants more."""
    next(iterator)
    return iterator


def _hash(walk: Walk) -> Iterator[int]:
    crc = 0
    try:
        yield crc
        while found := walk.step(HASH_BYTES):
            for pair in zip(*found, strict=True):
                crc = crc32c(b"".join(pair), crc)
            yield crc
        yield crc
    finally:
        walk.end()
