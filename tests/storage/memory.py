"""A folder in memory that remembers what was not synced, fails when told to, and crashes.

It is the slow, obvious model of a disk: a file is what was durable and the writes since then; the
folder is the names that were durable and the changes since then. `crashed` is what a power cut may
leave, with whichever of these writes and changes one likes.
"""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable, Iterator, Sequence


class Crash(BaseException):
    """The process is killed at this operation."""


class Inode:
    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.data = bytearray(durable)
        self.pending: list[tuple[int, bytes]] = []


class Memory:
    """Satisfies `engine.storage.directory.Directory`; syncs take effect at once."""

    def __init__(self) -> None:
        self.files: dict[str, Inode] = {}
        self.durable: dict[str, Inode] = {}
        self.changes: list[tuple[str, str, Inode | None]] = []
        self.capacity = 1 << 40
        self.hook: Callable[[str, str], None] = lambda operation, name: None
        """Called with each operation and its file before it is done; it may raise."""
        self.operations: list[tuple[str, str]] = []

    def _do(self, operation: str, name: str) -> None:
        self.operations.append((operation, name))
        self.hook(operation, name)

    def names(self) -> list[str]:
        return sorted(self.files)

    def create(self, name: str) -> MemoryFile:
        self._do("create", name)
        if name in self.files:
            raise FileExistsError(errno.EEXIST, name)
        self._change("", name, Inode())
        return MemoryFile(self, name, self.files[name])

    def open(self, name: str) -> MemoryFile:
        self._do("open", name)
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, name)
        return MemoryFile(self, name, self.files[name])

    def rename(self, old: str, new: str) -> None:
        self._do("rename", old)
        self._change(old, new, self.files[old])

    def remove(self, name: str) -> None:
        self._do("remove", name)
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, name)
        self._change(name, "", None)

    def sync(self) -> None:
        self._do("sync", "")
        self.durable = dict(self.files)
        self.changes = []

    def _change(self, old: str, new: str, inode: Inode | None) -> None:
        self.changes.append((old, new, inode))
        apply(self.files, self.changes[-1])

    def used(self) -> int:
        return sum(len(inode.data) for inode in self.files.values())

    # --- accidents -------------------------------------------------------------------------------

    def copy(self) -> Memory:
        """All as it is, and all durable: what a process finds after the one before was killed."""
        return self.crashed(lambda: True, lambda size: size)

    def pending(self) -> int:
        """How many choices `crashed` asks for."""
        return len(self.changes) + sum(len(inode.pending) for inode in self._inodes())

    def _inodes(self) -> list[Inode]:
        every = [*self.files.values(), *self.durable.values()]
        every += [inode for _, _, inode in self.changes if inode is not None]
        return list({id(inode): inode for inode in every}.values())

    def crashed(self, keep: Callable[[], bool], torn: Callable[[int], int]) -> Memory:
        """What is left if each write and change since the syncs is kept or not.

        Of a write that is kept, only the first `torn(size)` bytes are.
        """
        left = Memory()
        names = dict(self.durable)
        for change in self.changes:
            if keep():
                apply(names, change)
        made = {}
        for inode in self._inodes():
            data = bytearray(inode.durable)
            for offset, written in inode.pending:
                if keep():
                    part = written[: torn(len(written))]
                    data.extend(bytes(max(0, offset + len(part) - len(data))))
                    data[offset : offset + len(part)] = part
            made[id(inode)] = Inode(bytes(data))
        left.files = {name: made[id(inode)] for name, inode in names.items()}
        left.durable = dict(left.files)
        return left


class MemoryFile:
    """Satisfies `engine.storage.directory.File`."""

    def __init__(self, folder: Memory, name: str, inode: Inode) -> None:
        self.folder, self.name, self.inode = folder, name, inode

    def size(self) -> int:
        return len(self.inode.data)

    def read(self, offset: int, size: int) -> bytes:
        self.folder._do("read", self.name)
        return bytes(self.inode.data[offset : offset + size])

    def write(self, offset: int, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        self.folder._do("write", self.name)
        data = b"".join(pieces)
        more = offset + len(data) - len(self.inode.data)
        if more > 0:
            if self.folder.used() + more > self.folder.capacity:
                raise OSError(errno.ENOSPC, "no space")
            self.inode.data.extend(bytes(more))
        self.inode.data[offset : offset + len(data)] = data
        self.inode.pending.append((offset, data))

    def sync(self) -> None:
        self.folder._do("fdatasync", self.name)
        self.inode.durable, self.inode.pending = bytes(self.inode.data), []

    def close(self) -> None:
        pass


def apply(names: dict[str, Inode], change: tuple[str, str, Inode | None]) -> None:
    old, new, inode = change
    if old:
        names.pop(old, None)
    if inode is not None:
        names[new] = inode


def crash_states(folder: Memory, count: int, rng: random.Random) -> Iterator[Memory]:
    """What a power cut now may leave: all, nothing, all but one, only one, `count` at random."""
    pending = folder.pending()

    def chosen(keeps: Sequence[bool], torn: Callable[[int], int] = lambda size: size) -> Memory:
        choices = iter(keeps)
        return folder.crashed(lambda: next(choices), torn)

    if pending <= 4:
        for keeps in itertools.product((True, False), repeat=pending):
            yield chosen(keeps)
    else:
        yield chosen([True] * pending)
        yield chosen([False] * pending)
        for one in range(pending):
            yield chosen([at != one for at in range(pending)])
            yield chosen([at == one for at in range(pending)])
    for _ in range(count if pending else 0):
        keeps = [rng.random() < 0.6 for _ in range(pending)]
        yield chosen(keeps, lambda size: size if rng.random() < 0.5 else rng.randint(0, size))


def fail_at(folder: Memory, number: int, error: Callable[[], BaseException]) -> None:
    """Let the n-th operation from now on fail, n from 1."""
    left = itertools.count(1)

    def hook(operation: str, name: str) -> None:
        if next(left) == number:
            raise error()

    folder.hook = hook
