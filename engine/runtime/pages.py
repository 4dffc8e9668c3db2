"""Progress pages: shared memory in which workers say where they are, without being asked.

A file of `slots` pages of 16 unsigned 64-bit words in native byte order, mapped by the coordinator
and by each worker. A worker writes its own page with plain stores (kernels included), the
coordinator reads; there are no locks, so a reader may see some words newer than others. What the
words mean is for the user of the pages to say (`engine.mapreduce.progress`).
"""

from __future__ import annotations

import mmap
import os
import sys

from engine.storage.files import write_all

WORDS = 16
PAGE_BYTES = WORDS * 8


class Pages:
    """The mapped file. Views from `slot` keep it mapped, also after `close`."""

    def __init__(self, fd: int, size: int) -> None:
        self._words = memoryview(mmap.mmap(fd, size)).cast("Q")
        self.slots = size // PAGE_BYTES

    @classmethod
    def create(cls, path: str, slots: int) -> Pages:
        """Make the file anew, all words 0; over a file that is there, its mappings stay apart.

        OSError, for one when the disk is full.
        """
        assert slots > 0, slots
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _allocate(fd, path, slots * PAGE_BYTES)
            return cls(fd, slots * PAGE_BYTES)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(fd)

    @classmethod
    def attach(cls, path: str) -> Pages:
        """Map a file that another process made. OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return cls(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def slot(self, index: int) -> memoryview:
        """The page as a writable view of 16 words."""
        assert 0 <= index < self.slots, index
        return self._words[index * WORDS : (index + 1) * WORDS]

    def read(self, index: int) -> tuple[int, ...]:
        """The page's words now."""
        return tuple(self.slot(index))

    def close(self) -> None:
        """Let go of the memory once no view of it is left."""
        self._words = memoryview(b"").cast("Q")
        self.slots = 0


def _allocate(fd: int, path: str, size: int) -> None:
    """Take the space now: a hole in a mapped file, on a full disk, is a SIGBUS when it is used."""
    try:
        if sys.platform == "darwin":
            write_all(fd, bytes(size))
        else:
            os.posix_fallocate(fd, 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
