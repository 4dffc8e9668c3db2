"""What operators ask of a replica of the store: a snapshot to keep, and a sum of all it has."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from engine.contract import Link
from engine.kv.requests import AskHash, FetchSnapshot, Hash, SnapshotPiece, Taken, TakeSnapshot

if TYPE_CHECKING:
    from engine.kv.front import StoreFront

PIECE_BYTES = 1 << 18


class Care:
    """Asked once a turn for `answers`; long work is done a step at a time."""

    def __init__(self, front: StoreFront) -> None:
        self._front = front
        self._wanted: deque[tuple[Link, TakeSnapshot]] = deque()
        self._taking: tuple[int, int] | None = None
        """(last entry, revision) of the snapshot that is being taken."""
        self._hashing: deque[tuple[Link, AskHash]] = deque()
        self._hash: Iterator[int] | None = None
        self._hashed = (0, 0)
        self._ready: list[tuple[Link, Any]] = []

    @property
    def busy(self) -> bool:
        """There is a step to do without waiting for anything."""
        return bool(self._hashing)

    def ask(self, link: Link, ask: Any) -> None:
        """A message of an operator's."""
        kind = type(ask)
        if kind is TakeSnapshot:
            self._wanted.append((link, ask))
        elif kind is FetchSnapshot:
            data = self._front.replica.snapshot_bytes(ask.last, ask.offset, PIECE_BYTES)
            self._ready.append((link, SnapshotPiece(ask.number, data)))
        elif kind is AskHash:
            self._hashing.append((link, ask))

    def answers(self) -> list[tuple[Link, Any]]:
        """What is ready by now."""
        if self._wanted:
            self._take()
        if self._hashing:
            self._step()
        ready, self._ready = self._ready, []
        return ready

    def _take(self) -> None:
        replica, machine = self._front.replica, self._front.machine
        kept = replica.raft.snapshots.kept
        if self._taking is not None:
            last, revision = self._taking
            if not kept or kept[0].last < last:
                return  # it is not complete
            self._taking = None
            if kept[0].last == last:
                one = kept[0]
                link, ask = self._wanted.popleft()
                self._ready.append((link, Taken(ask.number, last, one.term, one.size, revision)))
        elif replica.snapshot_now():
            self._taking = replica.applied, machine.revision

    def _step(self) -> None:
        machine = self._front.machine
        if self._hash is None:
            self._hash, self._hashed = machine.state_hash(), (machine.revision, 0)
        found = next(self._hash, None)
        if found is not None:
            self._hashed = self._hashed[0], found
            return
        self._hash = None
        link, ask = self._hashing.popleft()
        self._ready.append((link, Hash(ask.number, *self._hashed)))
