"""A disk that forgets, at a power cut, what was not fsynced.

Two things are lost independently, as on real file systems: the *bytes* of a file since its last
`sync` (any subset of the writes, the last one torn, holes read as zeros), and *names* (created,
renamed, unlinked) since the last `sync_directory` of their folder. A killed process loses nothing.
"""

from __future__ import annotations

import random

from engine.record import Record


class _Inode:
    __slots__ = ("data", "durable", "writes")

    def __init__(self) -> None:
        self.data = b""
        self.durable = b""
        self.writes: list[tuple[int, bytes]] = []


class _Naming(Record):
    """A change of names that no directory sync has covered: `removed` goes, `added` comes."""

    removed: str
    added: str
    inode: _Inode | None


def folder_of(path: str) -> str:
    """The folder a path is in."""
    return path.rpartition("/")[0]


class Disk:
    """Files by path. Folders exist by having been made (`make_folder`)."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._names: dict[str, _Inode] = {}
        self._durable: dict[str, _Inode] = {}
        self._changes: list[_Naming] = []
        self._folders: set[str] = set()

    def make_folder(self, folder: str) -> None:
        """At once and durably: a folder is made once, before the job."""
        self._folders.add(folder)

    def remove_folder(self, folder: str) -> None:
        """With all that is in it; writing into it fails from now on. Fine if it is not there."""
        self._folders.discard(folder)
        for path in self.paths(folder):
            self.unlink(path)

    def paths(self, folder: str) -> list[str]:
        return sorted(path for path in self._names if folder_of(path) == folder)

    def exists(self, path: str) -> bool:
        return path in self._names

    def read(self, path: str) -> bytes:
        """`FileNotFoundError` if there is none."""
        if path not in self._names:
            raise FileNotFoundError(path)
        return self._names[path].data

    def append(self, path: str, data: bytes) -> None:
        """Create if needed. `FileNotFoundError` if its folder is gone."""
        if path not in self._names:
            if folder_of(path) not in self._folders:
                raise FileNotFoundError(path)
            self._rename("", path, _Inode())
        inode = self._names[path]
        inode.writes.append((len(inode.data), data))
        inode.data += data

    def truncate(self, path: str, size: int) -> None:
        """Cut a file back, durably."""
        inode = self._names[path]
        inode.data = inode.durable = inode.data[:size]
        inode.writes = []

    def damage(self, path: str) -> None:
        """Flip a byte, on the disk as well as in the cache."""
        inode = self._names[path]
        if inode.data:
            at = self._rng.randrange(len(inode.data))
            flipped = bytes([inode.data[at] ^ 0x20])
            inode.data = inode.data[:at] + flipped + inode.data[at + 1 :]
            inode.durable, inode.writes = inode.data, []

    def unlink(self, path: str) -> None:
        """Fine if it is not there."""
        if self._names.pop(path, None) is not None:
            self._changes.append(_Naming(path, "", None))

    def rename(self, old: str, new: str) -> None:
        self._rename(old, new, self._names.pop(old))

    def _rename(self, old: str, new: str, inode: _Inode) -> None:
        self._names[new] = inode
        self._changes.append(_Naming(old, new, inode))

    def sync(self, path: str) -> None:
        """The bytes of a file are durable; its name need not be."""
        inode = self._names[path]
        inode.durable, inode.writes = inode.data, []

    def sync_directory(self, folder: str) -> None:
        """The names in a folder are durable, and so is their absence elsewhere after a rename."""
        kept = []
        for change in self._changes:
            if folder in (folder_of(change.added), folder_of(change.removed)):
                _apply(self._durable, change)
            else:
                kept.append(change)
        self._changes = kept

    def durable(self, path: str) -> bytes | None:
        """What a power cut now would certainly leave of a file; None if maybe nothing."""
        inode = self._durable.get(path)
        return None if inode is None else inode.durable

    def lose_power(self) -> None:
        """Forget a random part of what was not synced."""
        for change in self._changes:
            if self._rng.random() < 0.5:
                _apply(self._durable, change)
        self._changes = []
        self._names = dict(self._durable)
        for path in sorted(self._names):
            self._tear(self._names[path])

    def _tear(self, inode: _Inode) -> None:
        data = bytearray(inode.durable)
        for offset, written in inode.writes:
            if self._rng.random() < 0.5:
                part = written[: self._rng.randint(0, len(written))]
                data.extend(bytes(max(0, offset - len(data))))
                data[offset : offset + len(part)] = part
        inode.data = inode.durable = bytes(data)
        inode.writes = []


def _apply(names: dict[str, _Inode], change: _Naming) -> None:
    names.pop(change.removed, None)
    if change.inode is not None:
        names[change.added] = change.inode
