"""What the log and the snapshots ask of a file system, and the real one.

One flat folder of files that are read and written at offsets. What is written is seen by every
later reading at once, and survives power loss after `File.sync`; names that were created, renamed
or removed are certain only after `Directory.sync`. The simulator has its own (`engine.sim`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from engine.storage.files import read_at, remove_gently, sync_directory, sync_file

PIECES_MAX = 1024
"""Pieces that one system call takes (IOV_MAX)."""


class File(Protocol):
    """An open file."""

    def size(self) -> int:
        """Bytes."""

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes, fewer only where the file ends. OSError."""

    def write(self, offset: int, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write all of them, one behind the other; the file grows as needed. OSError."""

    def sync(self) -> None:
        """What was written survives power loss. After an OSError nothing is known about it."""

    def close(self) -> None: ...


class Directory(Protocol):
    """One flat folder; names have no slashes."""

    def names(self) -> list[str]:
        """Sorted."""

    def create(self, name: str) -> File:
        """FileExistsError, OSError."""

    def open(self, name: str) -> File:
        """FileNotFoundError, OSError."""

    def rename(self, old: str, new: str) -> None:
        """What `new` named before is gone."""

    def remove(self, name: str) -> None:
        """FileNotFoundError, OSError. Takes long for a large file, which nobody may be reading."""

    def sync(self) -> None:
        """Names survive power loss."""


class FolderFile:
    """A `File` by its descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        return read_at(self._fd, size, offset)

    def write(self, offset: int, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        if len(pieces) > PIECES_MAX:
            for begin in range(0, len(pieces), PIECES_MAX):
                some = pieces[begin : begin + PIECES_MAX]
                self.write(offset, some)
                offset += sum(map(len, some))
            return
        wanted = sum(map(len, pieces))
        done = os.pwritev(self._fd, pieces, offset)
        if done < wanted:
            with memoryview(b"".join(pieces)) as left:
                while done < wanted:
                    done += os.pwrite(self._fd, left[done:], offset + done)

    def sync(self) -> None:
        sync_file(self._fd)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Folder:
    """A `Directory` of the real file system. The folder is there already."""

    def __init__(self, path: str) -> None:
        self.path, self._fd = path, -1

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def create(self, name: str) -> FolderFile:
        return self._open(name, os.O_CREAT | os.O_EXCL)

    def open(self, name: str) -> FolderFile:
        return self._open(name, 0)

    def _open(self, name: str, flags: int) -> FolderFile:
        path = os.path.join(self.path, name)
        return FolderFile(os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600))

    def rename(self, old: str, new: str) -> None:
        os.rename(os.path.join(self.path, old), os.path.join(self.path, new))

    def remove(self, name: str) -> None:
        remove_gently(os.path.join(self.path, name))

    def sync(self) -> None:
        sync_directory(self.path)

    def fileno(self) -> int:
        """Of the folder itself, to be synced by who may not open one; open until `close`."""
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def close(self) -> None:
        """A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
