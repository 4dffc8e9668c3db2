"""What operators ask of a replica of the store: a snapshot to keep, and a sum of all it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from engine.contract import Link
from engine.kv.requests import AskHash, FetchSnapshot, Hash, SnapshotPiece, Taken, TakeSnapshot

if TYPE_CHECKING:
    from engine.kv.front import StoreFront

PIECE_BYTES = 1 << 18


class Care:
    """Asked once a turn for `answers`; long work is done a step at a time, and once for all who
    waited for it when it began. Who waits for long asks again, under the same number."""

    def __init__(self, front: StoreFront) -> None:
        self._front = front
        self._wanted: dict[Link, int] = {}
        """Who waits for the next snapshot, and under which number."""
        self._served: dict[Link, int] = {}
        """The same, of the one that is being taken:"""
        self._taking: tuple[int, int, int] | None = None
        """its last entry and revision, and how many were given up before it began."""
        self._hashing: dict[Link, int] = {}
        self._hash: Iterator[int] | None = None
        self._hashed = (0, 0)
        self._told: dict[Link, Taken | Hash] = {}
        """What each was answered last: an answer may cross a repeated question."""
        self._ready: list[tuple[Link, Any]] = []

    @property
    def busy(self) -> bool:
        """There is a step to do without waiting for anything."""
        return bool(self._hashing)

    def ask(self, link: Link, ask: Any) -> None:
        """A message of an operator's."""
        kind = type(ask)
        if kind is FetchSnapshot:
            data = self._front.replica.snapshot_bytes(ask.last, ask.offset, PIECE_BYTES)
            self._ready.append((link, SnapshotPiece(ask.number, data)))
            return
        told = self._told.get(link)
        if told is not None and told.number == ask.number:
            self._ready.append((link, told))
        elif kind is TakeSnapshot:
            if self._served.get(link) != ask.number:
                self._wanted[link] = ask.number
        elif kind is AskHash:
            self._hashing.setdefault(link, ask.number)

    def gone(self, link: Link) -> None:
        """Nobody waits there any more."""
        for waiting in (self._wanted, self._served, self._hashing, self._told):
            waiting.pop(link, None)
        if not self._hashing:
            self._hash = None

    def answers(self) -> list[tuple[Link, Any]]:
        """What is ready by now."""
        if self._taking is not None or self._wanted:
            self._take()
        if self._hashing:
            self._step()
        ready, self._ready = self._ready, []
        return ready

    def _answer(self, link: Link, answer: Taken | Hash) -> None:
        self._told[link] = answer
        self._ready.append((link, answer))

    def _take(self) -> None:
        replica, machine = self._front.replica, self._front.machine
        kept = replica.raft.snapshots.kept
        if self._taking is not None:
            last, revision, given_up = self._taking
            newest = kept[0].last if kept else 0
            if newest < last and replica.given_up == given_up:
                return  # it is not complete
            served, self._served, self._taking = self._served, {}, None
            if newest != last:  # it came to nothing
                self._wanted = served | self._wanted
                return
            for link, number in served.items():
                self._answer(link, Taken(number, last, kept[0].term, kept[0].size, revision))
        elif replica.snapshot_now():
            self._taking = replica.applied, machine.revision, replica.given_up
            self._served, self._wanted = self._wanted, {}

    def _step(self) -> None:
        machine = self._front.machine
        if self._hash is None:
            self._hash, self._hashed = machine.state_hash(), (machine.revision, 0)
        found = next(self._hash, None)
        if found is not None:
            self._hashed = self._hashed[0], found
            return
        self._hash = None
        link = next(iter(self._hashing))
        self._answer(link, Hash(self._hashing.pop(link), *self._hashed))
