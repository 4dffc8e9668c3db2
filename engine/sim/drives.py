"""The disk of a simulated machine, as the log and the snapshots see it, with a real one's faults.

A `Drive` is an `engine.storage.directory.Directory`: one flat folder of files. Every read sees
every write, as through the page cache, and a killed process loses nothing. A power cut keeps of
what no completed sync covers what it likes: of each write all, nothing, some of its sectors, or
only its size; of the changes of each name the first few. A sync returns at once and takes effect
when the world says so (`flush`, `complete`), unless the drive is `synchronous`.

It is crueler than most file systems: syncing a file does not make its name durable, and writes into
one sector are lost one by one. Failing syncs are as in Rebello et al., "Can Applications Recover
from fsync Failures?" (ATC 2020): what they covered is clean from then on, and never written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from random import Random

from engine.record import Record
from engine.sim.inodes import Inode, odds, sectors_of
from engine.sim.timeline import Crashed

Hook = Callable[[str, str], None]
"""Called with an operation and the name of its file ("" for the folder) before it is done."""


class _Naming(Record):
    """A change of names that no completed sync covers: `removed` goes, `added` comes."""

    number: int
    removed: str
    added: str
    inode: Inode | None


class Ticket(Record):
    """Syncs on their way: each a file, or None for the folder, and the last write it covers."""

    life: int
    syncs: tuple[tuple[Inode | None, int], ...]


class DriveFile:
    """An open file; satisfies `engine.storage.directory.File`."""

    def __init__(self, drive: Drive, name: str, inode: Inode) -> None:
        self.name = name
        self._drive, self._inode = drive, inode
        self._life = drive.life
        self._open = True

    def size(self) -> int:
        self._check()
        return len(self._inode.data)

    def read(self, offset: int, size: int) -> bytes:
        """Shorter only where the file ends. OSError."""
        self._check()
        if self._drive.watched:
            self._drive.before("read", self.name)
        return bytes(memoryview(self._inode.data)[offset : offset + size])

    def write(self, offset: int, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """All of it. After an OSError the file holds the first part of it, as with a real one."""
        drive, inode = self._drive, self._inode
        if self._life != drive.life or not self._open:
            self._check()
        data = b"".join(pieces)
        failed: OSError | None = None
        if drive.watched:
            data, failed = drive.before_write(self.name, offset, data)
        if offset + len(data) > len(inode.data):
            data, full = drive.grow(inode, self.name, offset, data)
            failed = failed or full
        if data:
            inode.data[offset : offset + len(data)] = data
            drive.number += 1
            inode.pending.append((drive.number, offset, data))
        if failed is not None:
            raise failed

    def sync(self) -> None:
        """To be durable when the world says so: all that was written before. OSError."""
        self._check()
        self._drive.cover(self.name, self._inode)

    def close(self) -> None:
        self._open = False

    def _check(self) -> None:
        if self._life != self._drive.life or not self._open:
            raise _error(errno.EBADF, self.name)


class Drive:
    """A flat folder on a disk of its own, full at `capacity` bytes; draws from `rng` alone.

    Armed faults (`fail`, `crash_at`, `hook`) stay through deaths and power cuts, until they happen
    or `calm` takes them back.
    """

    def __init__(self, rng: Random, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.synchronous = False
        """Whether syncs take effect at once, as while a log is opened."""
        self.life = 1
        self.number = 0
        """Of the last write or change of names."""
        self.watched = False
        """Whether `before` has anything to say: a quiet drive does not ask."""
        self._rng = rng
        self._hook: Hook | None = None
        self._crash_in = 0
        self._failing: dict[str, int] = {}
        self._dead: Crashed | None = None
        self._names: dict[str, Inode] = {}
        self._durable: dict[str, Inode] = {}
        self._changes: list[_Naming] = []
        self._covered = 0
        self._syncs: list[tuple[Inode | None, int]] = []

    # --- engine.storage.directory.Directory ------------------------------------------------------

    def names(self) -> list[str]:
        """Sorted."""
        return sorted(self._names)

    def create(self, name: str) -> DriveFile:
        """FileExistsError; OSError if the disk is full."""
        assert "/" not in name, name
        self.before("create", name)
        if name in self._names:
            raise _error(errno.EEXIST, name)
        if self.capacity is not None and self.used() >= self.capacity:
            raise _error(errno.ENOSPC, name)
        inode = Inode()
        self._change("", name, inode)
        return DriveFile(self, name, inode)

    def open(self, name: str) -> DriveFile:
        """FileNotFoundError if there is none."""
        self.before("open", name)
        return DriveFile(self, name, self._inode(name))

    def rename(self, old: str, new: str) -> None:
        """Replaces what was called `new`. FileNotFoundError."""
        assert "/" not in new, new
        self.before("rename", old)
        inode = self._inode(old)
        if old != new:
            self._change(old, new, inode)

    def remove(self, name: str) -> None:
        """FileNotFoundError."""
        self.before("remove", name)
        self._inode(name)
        self._change(name, "", None)

    def sync(self) -> None:
        """Names are to be durable when the world says so. OSError."""
        self.cover("", None)

    def _inode(self, name: str) -> Inode:
        if name not in self._names:
            raise _error(errno.ENOENT, name)
        return self._names[name]

    def _change(self, removed: str, added: str, inode: Inode | None) -> None:
        self.number += 1
        change = _Naming(self.number, removed, added, inode)
        _apply(self._names, change)
        self._changes.append(change)

    # --- syncs -----------------------------------------------------------------------------------

    def cover(self, name: str, inode: Inode | None) -> None:
        """A sync of a file, or of the folder."""
        try:
            self.before("sync", name)
        except OSError:
            self._abandon(inode)
            raise
        if self.synchronous:
            self._settle(inode, self.number)
            return
        if inode is None:
            self._covered = self.number
        else:
            inode.covered = self.number
        self._syncs.append((inode, self.number))

    def flush(self) -> Ticket:
        """The syncs since the last call, for `complete` when they have taken their time."""
        syncs, self._syncs = self._syncs, []
        return Ticket(self.life, tuple(syncs))

    def complete(self, ticket: Ticket) -> None:
        """They take effect, unless the process died since: tickets may come in any order."""
        if ticket.life == self.life:
            for inode, number in ticket.syncs:
                self._settle(inode, number)

    def _settle(self, inode: Inode | None, number: int) -> None:
        if inode is not None:
            inode.settle(number)
            return
        for change in self._changes:
            if change.number <= number:
                _apply(self._durable, change)
        self._changes = [change for change in self._changes if change.number > number]

    def _abandon(self, inode: Inode | None) -> None:
        if inode is not None:
            inode.abandon()
        else:
            self._changes = [change for change in self._changes if change.number <= self._covered]

    # --- faults that are armed -------------------------------------------------------------------

    def fail(self, operation: str, nth: int = 1) -> None:
        """The nth next read, write, sync, create, open, rename or remove fails with EIO."""
        self._failing[operation] = nth
        self._watch()

    def fail_sync(self, nth: int = 1) -> None:
        """The nth next sync fails: what it covers can be read until power is lost, and is not
        written by a later sync."""
        self.fail("sync", nth)

    def crash_at(self, nth: int) -> None:
        """The process dies before its nth next write, sync, create, rename or remove."""
        self._crash_in = nth
        self._watch()

    def watch(self, hook: Hook | None) -> None:
        """Call this before every operation but `size` and `close`; what it raises goes through."""
        self._hook = hook
        self._watch()

    def calm(self) -> None:
        """Nothing is armed any more; the disk may still be full."""
        self._failing, self._crash_in, self._hook = {}, 0, None
        self._watch()

    def _watch(self) -> None:
        armed = self._hook is not None or self._dead is not None
        self.watched = armed or bool(self._failing) or self._crash_in > 0

    def before(self, operation: str, name: str) -> None:
        """What is armed happens. Crashed also for all that a dead process tries on its way out."""
        if not self.watched:
            return
        if self._dead is not None:
            raise self._dead
        try:
            if self._hook is not None:
                self._hook(operation, name)
            if self._crash_in and operation not in ("read", "open"):
                self._crash_in -= 1
                if not self._crash_in:
                    raise Crashed(f"{operation} {name}".rstrip())
        except Crashed as crash:
            self._dead = crash
            raise
        left = self._failing.get(operation, 0)
        if left == 1:
            del self._failing[operation]
            self._watch()
            raise _error(errno.EIO, name)
        if left:
            self._failing[operation] = left - 1

    def before_write(self, name: str, offset: int, data: bytes) -> tuple[bytes, OSError | None]:
        """(what is written of this, what is to be raised then)."""
        try:
            self.before("write", name)
        except OSError as error:
            cut, _ = self._rng.choice(sectors_of(offset, len(data)))
            return data[: cut - offset], error
        return data, None

    def grow(
        self, inode: Inode, name: str, offset: int, data: bytes
    ) -> tuple[bytes, OSError | None]:
        """Make room for a write, with zeros before it. (what fits of it, what is to be raised)."""
        end, size = offset + len(data), len(inode.data)
        failed = None
        if self.capacity is not None:
            room = max(0, self.capacity - self.used())
            if end > size + room:
                failed = _error(errno.ENOSPC, name)
                data = data[: max(0, size + room - offset)]
                end = offset + len(data)
        if data and end > size:
            inode.data.extend(bytes(end - size))
        return data, failed

    # --- the end of a process, and of power ------------------------------------------------------

    def kill(self) -> None:
        """The process died: nothing is lost, but its files are closed, and nobody is told of its
        syncs. The next process may begin."""
        self.life += 1
        self._syncs = []
        self._covered = 0
        for inode in [*self._names.values(), *self._durable.values()]:
            inode.covered = 0
        self._dead = None
        self._watch()

    def lose_power(self) -> None:
        """Forget any part of what no completed sync covers; the process died of course."""
        for change in self._surviving_changes():
            _apply(self._durable, change)
        self._changes = []
        for name in sorted(self._durable):
            self._durable[name] = self._durable[name].after_power_loss(self._rng)
        self._names = dict(self._durable)
        self.kill()

    def _surviving_changes(self) -> list[_Naming]:
        """Changes of a name survive in their order; those of different names need not."""
        rng = self._rng
        kept = []
        held: set[str] = set()
        for change, likely in zip(self._changes, odds(rng, len(self._changes)), strict=True):
            names = {change.removed, change.added} - {""}
            if names & held or rng.random() >= likely:
                held |= names
            else:
                kept.append(change)
        return kept

    # --- damage, and looking at it from outside --------------------------------------------------

    def damage(self, name: str, bit: int) -> None:
        """Flip a bit of a file, on the disk as well as in the cache; bit 8 is in byte 1."""
        self._inode(name).flip(bit)

    def damage_somewhere(self, name: str, start: int = 0, end: int | None = None) -> int | None:
        """Flip a random bit in a durable byte of this range. Which one; None if there is none."""
        ranges = self.durable_ranges(name, start, end)
        total = sum(stop - first for first, stop in ranges)
        if not total:
            return None
        place = self._rng.randrange(total)
        for first, stop in ranges:
            if place < stop - first:
                break
            place -= stop - first
        bit = (first + place) * 8 + self._rng.randrange(8)
        self.damage(name, bit)
        return bit

    def durable_ranges(
        self, name: str, start: int = 0, end: int | None = None
    ) -> list[tuple[int, int]]:
        """(first, end) of the bytes that a power cut would leave just as they can be read now."""
        inode = self._inode(name)
        return inode.durable_ranges(start, end) if self._durable.get(name) is inode else []

    def durable(self, name: str) -> bytes | None:
        """What the disk surely has of a file; None if it may not have the name."""
        inode = self._durable.get(name)
        return None if inode is None else bytes(inode.durable)

    def put(self, name: str, data: bytes) -> None:
        """A file is there, durably and at once, as from a backup; it replaces one of this name.
        All that was done to names is durable with it."""
        self._settle(None, self.number)
        self._names[name] = self._durable[name] = Inode(data)

    def used(self) -> int:
        """Bytes of all files that have a name: a removed one gives its space back at once."""
        return sum(len(inode.data) for inode in self._names.values())

    def unsynced(self) -> int:
        """How many writes and changes of names no completed sync covers."""
        return len(self._changes) + sum(len(inode.pending) for inode in self._names.values())


def _error(number: int, name: str) -> OSError:
    """Of the class that belongs to the number, as the system would raise it."""
    return OSError(number, os.strerror(number), name)


def _apply(names: dict[str, Inode], change: _Naming) -> None:
    names.pop(change.removed, None)
    if change.inode is not None:
        names[change.added] = change.inode
