"""The files of a log: its segments, and the spares that the next ones are made of.

A segment that grows costs a sync of its size each time (190 µs against 120), so segments are
filled with zeros beforehand, in small steps that are synced one by one: a burst of zeros would hold
up every other sync for a tenth of a second. What is no longer needed becomes a spare again.
"""

from __future__ import annotations

import errno

from engine.errors import EngineError
from engine.record import Record
from engine.storage.directory import Directory, File
from engine.storage.records import (
    HEADER_BYTES,
    Header,
    name_of,
    numbered,
    parse_header,
    place,
    seed_of,
    start_of,
)

SPARE = "spare-"
OPENING = "opening"
ZEROS = bytes(1 << 18)


class LogSettings(Record):
    """Sizes in bytes. `spare` segments are kept ready, filled in steps of `step_bytes`."""

    segment_bytes: int = 64 << 20
    spare: int = 1
    cache_bytes: int = 64 << 20
    step_bytes: int = 256 << 10


class NoSpace(EngineError, OSError):
    """The disk is full: nothing was written, and what was written before is as it was."""

    def __init__(self, what: str) -> None:
        OSError.__init__(self, errno.ENOSPC, what)

    def __str__(self) -> str:
        return str(self.strerror)


def full(error: OSError) -> bool:
    """Whether it says that there is no space, for anybody or for this user."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class Segment:
    """An open segment; `header` is None if neither copy of it verifies."""

    __slots__ = ("file", "header", "limit", "number", "seed", "size")

    def __init__(self, number: int, file: File, header: Header | None, size: int) -> None:
        self.number, self.file, self.header, self.size = number, file, header, size
        self.seed = seed_of(header.salt) if header is not None else 0
        self.limit = place(number, size - HEADER_BYTES)
        """The position that its last record must not go beyond."""

    @property
    def name(self) -> str:
        return name_of(self.number)

    @property
    def start(self) -> int:
        """The position of its first record."""
        return start_of(self.number)


def capacity(size: int) -> int:
    """Bytes of records that a segment of this size takes."""
    return max(0, size - 2 * HEADER_BYTES)


def open_segments(directory: Directory) -> list[Segment]:
    """All segments, by number. RefusedError for one of another version, OSError."""
    segments: list[Segment] = []
    try:
        for name in directory.names():
            number = numbered(name)
            if number is None:
                continue
            file = directory.open(name)
            size = file.size()
            segments.append(Segment(number, file, None, size))
            ends = file.read(0, HEADER_BYTES)
            if size >= 2 * HEADER_BYTES:
                ends += file.read(size - HEADER_BYTES, HEADER_BYTES)
            header = parse_header(ends, name, number)
            segments[-1] = Segment(number, file, header, size)
    except BaseException:
        close_all(segments)
        raise
    return segments


def close_all(segments: list[Segment]) -> None:
    for segment in segments:
        segment.file.close()


SMALL_SEGMENT: int = 1 << 20
"""Bytes of a segment that is made while somebody waits for it."""


def opening_bytes(size: int, whole: int, besides: int) -> int:
    """How large a log's first segment is, to have room for `size` bytes of records and more."""
    wanted = size + 2 * HEADER_BYTES + min(whole, SMALL_SEGMENT)
    return min(whole, wanted) if capacity(whole) >= size + besides else wanted


def begin_segment(directory: Directory, spares: Spares, sizes: tuple[int, int]) -> tuple[File, int]:
    """A file `opening` of zeros: (it, its size). NoSpace, OSError.

    Of the first size; where there is no space for it, a spare that takes the second of records.
    """
    size, least = sizes
    file = directory.create(OPENING)
    try:
        fill(file, 0, size)
    except OSError as error:
        file.close()
        directory.remove(OPENING)
        if not full(error):
            raise
        spare = spares.take(least)
        if spare is None:
            raise NoSpace(f"no space to open the log ({size} bytes): free some") from None
        name, file, size = spare
        directory.rename(name, OPENING)
    return file, size


class Spares:
    """Files full of zeros, or of what is obsolete, that wait to become segments."""

    def __init__(self, directory: Directory, size: int, wanted: int, step: int) -> None:
        """Takes up what is there already. OSError."""
        self.directory, self.size, self.wanted, self.step = directory, size, wanted, step
        self.ready: list[tuple[str, File, int]] = []
        """(name, file, size), the first to be used first."""
        self._filling: tuple[str, File, int] | None = None
        self._next = 0
        for name in directory.names():
            if name.startswith(SPARE):
                self._adopt(name)

    def _adopt(self, name: str) -> None:
        file = self.directory.open(name)
        size = file.size()
        self._next = max(self._next, int(name.removeprefix(SPARE)) + 1)
        if size == self.size and self._takes_more:
            self.ready.append((name, file, size))
        elif size < self.size and self._filling is None and len(self.ready) < self.wanted:
            self._filling = (name, file, size)
        else:
            file.close()
            self.directory.remove(name)

    @property
    def _takes_more(self) -> bool:
        """One more than is wanted: then what is retired is used again, instead of new zeros."""
        return 0 < self.wanted >= len(self.ready)

    @property
    def lacking(self) -> int:
        """Spares that are still to be made; one made in haste is smaller, and does not count."""
        return self.wanted - sum(size >= self.size for _, _, size in self.ready)

    def room(self, head: int) -> int:
        """Bytes of records that the ready ones take, if each begins with `head` bytes."""
        return sum([max(0, capacity(size) - head) for _, _, size in self.ready])

    def _create(self) -> tuple[str, File]:
        name = f"{SPARE}{self._next:08d}"
        file = self.directory.create(name)
        self._next += 1
        return name, file

    def make(self, size: int) -> None:
        """Make one ready at once. NoSpace, OSError."""
        file: File | None = None
        name = ""
        try:
            name, file = self._create()
            fill(file, 0, size)
        except OSError as error:
            if file is not None:
                file.close()
                self.directory.remove(name)
            if full(error):
                raise NoSpace(f"no space for {size} bytes of log: free some") from None
            raise
        self.ready.append((name, file, size))

    def take(self, size: int) -> tuple[str, File, int] | None:
        """Take out the first that holds `size` bytes of records; None if there is none."""
        for at, spare in enumerate(self.ready):
            if capacity(spare[2]) >= size:
                return self.ready.pop(at)
        return None

    def holds(self, size: int) -> bool:
        """Whether `take` would find one."""
        return any(capacity(spare[2]) >= size for spare in self.ready)

    def begin(self) -> tuple[str, File, int] | None:
        """What the next step is to fill: (name, file, bytes done). None if full. OSError."""
        if self._filling is None:
            try:
                self._filling = (*self._create(), 0)
            except OSError as error:
                if full(error):
                    return None
                raise
        return self._filling

    def fill(self, name: str, file: File, done: int) -> int:
        """The next step of it, synced: bytes done by now, 0 if there is no space. OSError."""
        end = min(done + self.step, self.size)
        try:
            fill(file, done, end)
            file.sync()
        except OSError as error:
            if full(error):
                return 0
            raise
        return end

    def filled(self, name: str, file: File, done: int) -> None:
        """A step is done."""
        if done < self.size:
            self._filling = (name, file, done)
        else:
            self._filling = None
            self.ready.append((name, file, done))

    def recycle(self, segment: Segment) -> bool:
        """Take a segment that is no longer needed, if it is of use. OSError."""
        if segment.size != self.size or not self._takes_more:
            return False
        name = f"{SPARE}{self._next:08d}"
        self._next += 1
        self.directory.rename(segment.name, name)
        self.ready.append((name, segment.file, segment.size))
        return True

    def remove(self, segment: Segment) -> None:
        """One that was not taken. OSError."""
        segment.file.close()
        self.directory.remove(segment.name)

    def close(self) -> None:
        for _, file, _ in self.ready:
            file.close()
        if self._filling is not None:
            self._filling[1].close()


def fill(file: File, begin: int, end: int) -> None:
    """Zeros from `begin` to `end`. OSError."""
    while begin < end:
        size = min(end - begin, len(ZEROS))
        file.write(begin, [memoryview(ZEROS)[:size]])
        begin += size
