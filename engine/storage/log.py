"""The log that the groups of a process share: entries, hard states and bases, in segments.

The format is in `engine.storage.records`, and what is done about damage in
`engine.storage.recovery`. One thread appends, settles and reads (the loop); `sync` and `maintain`
may each run in another one meanwhile. Nothing counts as durable before `settle`.

Every open begins a segment, whose first records say all that is known of each group, together
with the entries that were not known to be durable: what was read may be in the page cache only,
after an fsync that failed. It gets its name when it is durable, so that a crash while opening
leaves things as they were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from engine.kernels.records import Batch, measure
from engine.storage.directory import Directory, File
from engine.storage.entries import Append, Base, Entry, GroupLog, Position, State
from engine.storage.groups import Cache, Columns, Group, bytes_of
from engine.storage.reading import fitting, load, tail_of
from engine.storage.records import (
    HEAD_BYTES,
    HEADER_BYTES,
    STATE_BYTES,
    Header,
    number_of,
    offset_of,
    pack_header,
    record_bytes,
)
from engine.storage.recovery import Finding, Recovery
from engine.storage.segments import (
    OPENING,
    SMALL_SEGMENT,
    LogSettings,
    NoSpace,
    Segment,
    Spares,
    begin_segment,
    close_all,
    open_segments,
    opening_bytes,
)

__all__ = ["Log", "LogSettings", "NoSpace"]

RESERVE_MAX = 64 << 10  # bytes kept for hard states and bases when appends are refused
LogWrite = Append | State | Base


class Log:
    """An open log. After an OSError, except `NoSpace`, its process must end."""

    def __init__(
        self,
        directory: Directory,
        settings: LogSettings,
        salts: Callable[[], int],
        found: Recovery,
    ) -> None:
        self._directory, self._settings, self._salts = directory, settings, salts
        self._groups = found.groups
        self.recovered: dict[int, GroupLog] = {}
        self.findings: list[Finding] = found.findings
        """What recovery met, for messages and counters."""
        self._segments = {segment.number: segment for segment in found.segments}
        self._spares = Spares(
            directory, settings.segment_bytes, settings.spare, settings.step_bytes
        )
        self._end, self._chain = found.durable_end()
        self._durable = self._end
        self._told = 0
        """The watermark of the last record."""
        self._batch_end = 0
        self._batch: tuple[int, ...] = ()
        self._before: tuple[int, ...] = ()
        """The groups of the last batch, and of the one before."""
        self._reserve = min(RESERVE_MAX, settings.segment_bytes // 4)
        self._cache = Cache(settings.cache_bytes)
        self._lock = threading.Lock()
        self._dirty: set[int] = set()
        self._names_changed = False
        self._removed_at = -1
        self._failed: OSError | None = None
        self._active: Segment
        self._before_batch: list[bytes | bytearray | memoryview] = []
        """What `_rotate` leaves to be written with the next batch."""
        self._late: tuple[File, int, list[bytes | bytearray | memoryview]] | None = None

    @classmethod
    def open(cls, directory: Directory, settings: LogSettings, salts: Callable[[], int]) -> Log:
        """Recover what is there, or begin; `salts` gives random 64-bit numbers.

        NoSpace, OSError, RefusedError for a log of another version.
        """
        if OPENING in directory.names():  # ended while it was opened
            directory.remove(OPENING)
        segments = open_segments(directory)
        log: Log | None = None
        try:
            found = Recovery(segments)
            log = cls(directory, settings, salts, found)
            log._begin(max([0, number_of(found.end), *log._segments]) + 1)
        except BaseException:
            close_all(segments) if log is None else log.close()
            raise
        return log

    # --- opening ---------------------------------------------------------------------------------

    def _begin(self, number: int) -> None:
        """Write the segment that this life of the log begins with; durable on return."""
        groups = self._sorted()
        tails = [tail_of(self._segments, group, self._durable) for group in groups]
        size = sum(map(measure, tails)) + self._head_bytes()
        states = STATE_BYTES * len(groups)
        header = Header(number, self._salts(), self._end, self._chain)
        besides, whole = self._head_bytes() + self._reserve, self._settings.segment_bytes
        sizes = opening_bytes(size + states, whole, besides), size + states
        file, total = begin_segment(self._directory, self._spares, sizes)
        segment = Segment(number, file, header, total)
        self._segments[number] = self._active = segment
        batch = Batch(size, segment.seed, segment.start, self._chain, self._durable)
        for group, tail in zip(groups, tails, strict=True):
            group.put_all(batch, tail, self._durable)
        told = Batch(states, segment.seed, batch.position, batch.previous, batch.position)
        for group in groups:
            group.put_state(told)
        packed = pack_header(header)
        file.write(0, [packed, batch.data])
        file.write(total - HEADER_BYTES, [packed])
        # True as soon as anybody can see it: it tells damage to this beginning from a torn batch.
        file.write(offset_of(batch.position), [told.data])
        file.sync()
        self._directory.rename(OPENING, segment.name)
        self._directory.sync()
        self._durable = self._told = self._batch_end = batch.position
        self._end, self._chain = told.position, told.previous
        for group in groups:
            group.pin(0)
            self.recovered[group.number] = group.recovered()

    def _sorted(self) -> list[Group]:
        return [self._groups[number] for number in sorted(self._groups)]

    # --- appending -------------------------------------------------------------------------------

    def append(self, group_of_writes: Sequence[LogWrite], *, later: bool = False) -> int:
        """Write one batch, which is durable once its mark is settled: the mark. `later`: it is not
        in the file before `flush`, or before anything else is done with the log.

        NoSpace without any effect; OSError.
        """
        touched = tuple(dict.fromkeys([write.group for write in group_of_writes]))
        told = touched
        if touched != self._batch:
            told = tuple(dict.fromkeys((*touched, *self._batch)))
        size, plain = STATE_BYTES * len(told), False
        for write in group_of_writes:
            size += bytes_of(write)
            plain = plain or isinstance(write, Append)
        with self._lock:
            batch = self._make_room(size, plain)
            for write in group_of_writes:
                self._put(batch, write)
            for number in told:
                self._groups[number].put_state(batch)
            self._write(batch, touched, later)
        return self._end

    def flush(self) -> None:
        """Write what was appended to be written `later`. OSError."""
        if self._late is not None:
            self._late[0].write(*self._late[1:])
            self._late = None

    def forget(self, number: int, lost: Position) -> None:
        """Begin the log of a group anew, empty, because a snapshot that it needs is gone.

        `lost` is the end that it is known to have had. Durable with whatever is next. OSError.
        """
        base = Base(number, 0, 0, b"")
        group = self._groups[number]
        with self._lock:
            batch = self._make_room(record_bytes(0) + HEAD_BYTES + STATE_BYTES, plain=False)
            group.restart(base, batch.position)
            group.told_lost(lost)
            group.put_base(batch, anew=True)
            group.put_lost(batch)
            group.put_state(batch)
            self._write(batch, (number,))

    def _put(self, batch: Batch, write: LogWrite) -> None:
        group = self._groups.get(write.group)
        if group is None:
            group = self._groups[write.group] = Group(write.group)
        if isinstance(write, Append):
            number, first, entries = write
            if not entries or not group.base.last < first <= group.last + 1:
                raise ValueError(f"{len(entries)} entries from {first} on, after {group.end}")
            begin = batch.position
            positions, sizes, terms, configs = batch.entries(number, first, entries)
            columns = Columns(positions, sizes, terms)
            group.replace(first, columns, [(i, entries[i - first].body) for i in configs])
            self._cache.add(group, first, entries, batch.position - begin)
        elif isinstance(write, State):
            _, group.term, group.vote = write
            group.put_state(batch)
        else:
            batch.base(group.number, write.last, write.term, write.config)
            group.rebase(write)

    def _write(self, batch: Batch, touched: tuple[int, ...], later: bool = False) -> None:
        """Write a batch behind what `_make_room` has prepared."""
        offset = 0 if self._before_batch else offset_of(self._end)
        pieces, self._before_batch = [*self._before_batch, batch.data], []
        self._late = self._active.file, offset, pieces
        if not later:
            self.flush()
        self._dirty.add(self._active.number)
        self._end, self._chain = batch.position, batch.previous
        self._told, self._batch_end = batch.watermark, self._end
        self._before, self._batch = self._batch, touched
        for number in touched:
            self._groups[number].pin(self._end)

    # --- segments --------------------------------------------------------------------------------

    def room(self) -> int:
        """Bytes of records that `append` can still take without new disk space."""
        return max(0, self._left() - self._reserve)

    def _left(self) -> int:
        return self._active.limit - self._end + self._spares.room(self._head_bytes())

    def _head_bytes(self) -> int:
        """Bytes of what a segment begins with: all groups."""
        return sum([group.head_bytes() for group in self._groups.values()])

    def _make_room(self, size: int, plain: bool) -> Batch:
        """A batch of `size` bytes where the log goes on, in a new segment if need be. NoSpace.

        Appends, `plain`, leave the reserve alone.
        """
        if self._failed is not None:
            raise self._failed
        self.flush()
        rest = self._active.limit - self._end - size
        if rest < 0 or (plain and rest < self._reserve):
            self._go_on(size, plain, rest)
        active = self._active
        return Batch(size, active.seed, self._end, self._chain, self._durable)

    def prepare(self, size: int) -> bool:
        """Whether appends of `size` bytes have room, for which a spare may be made. OSError."""
        rest = self._active.limit - self._end - size
        try:
            if rest < self._reserve:
                with self._lock:
                    self._provide(size, True, rest)
        except NoSpace:
            return False
        return True

    def _provide(self, size: int, plain: bool, rest: int) -> None:
        """Spares for what the active segment has no room for. NoSpace."""
        head, least = self._head_bytes(), min(self._settings.segment_bytes, SMALL_SEGMENT)
        more = 2 * HEADER_BYTES + head + size
        if plain and rest < self._reserve:
            left = self._spares.room(head) + (rest if rest >= 0 else -size)
            if left < self._reserve:
                self._spares.make(max(least, more + self._reserve))
        if rest < 0 and not self._spares.holds(head + size):
            self._spares.make(max(least, more))

    def _go_on(self, size: int, plain: bool, rest: int) -> None:
        """The active segment is at its end: see to it that there is another one. NoSpace."""
        self._provide(size, plain, rest)
        if rest < 0:
            spare = self._spares.take(self._head_bytes() + size)
            assert spare is not None, "one of that size was made"
            self._rotate(*spare, self._head_bytes())

    def _rotate(self, name: str, file: File, size: int, head: int) -> None:
        """Make a spare the active segment; its beginning is written together with its first batch.

        Its header is written twice, and what is not durable yet need not be: a segment of which
        nothing verifies never was.
        """
        number = self._active.number + 1
        header = Header(number, self._salts(), self._end, self._chain)
        segment = Segment(number, file, header, size)
        batch = Batch(head, segment.seed, segment.start, self._chain, self._durable)
        for group in self._sorted():
            group.put_head(batch)
        packed = pack_header(header)
        file.write(size - HEADER_BYTES, [packed])
        self._directory.rename(name, segment.name)
        self._names_changed = True
        self._segments[number] = self._active = segment
        self._end, self._chain = batch.position, batch.previous
        self._before_batch = [packed, batch.data]

    # --- durability ------------------------------------------------------------------------------

    def begin_sync(self) -> tuple[int, list[File], bool]:
        """What a sync has to cover now: the mark, the files, whether names have changed as well.

        Whoever asks syncs all of that, the folder last, before the mark is settled.
        """
        if self._failed is not None:
            raise self._failed
        self.flush()
        with self._lock:
            dirty, self._dirty = self._dirty, set()
            names, self._names_changed = self._names_changed, False
            return self._end, [self._segments[number].file for number in sorted(dirty)], names

    def sync(self) -> int:
        """Sync all that was appended before the call: its mark. OSError: the process ends."""
        mark, files, names = self.begin_sync()
        try:
            for file in files:
                file.sync()
            if names:
                self._directory.sync()
        except OSError as error:
            self._failed = error
            raise
        return mark

    def settle(self, mark: int, *, tell: bool = True) -> None:
        """All up to `mark`, of a sync that is over, is durable. OSError.

        Whoever is about to append may leave it to that batch to `tell`.
        """
        with self._lock:
            self._durable = max(self._durable, mark)
        if tell:
            self.tell()

    @property
    def untold(self) -> bool:
        """More is durable than anything in the log says."""
        return self._durable > self._told

    def tell(self) -> None:
        """If nothing was appended since more became durable, write a small record, un-synced, that
        says so: should the process be killed now, damage to a batch can still be told from a torn
        one. To be called before anybody hears what that batch promises. OSError.
        """
        if not self.untold:
            return
        with self._lock:
            self.flush()
            told = tuple(dict.fromkeys((*self._batch, *self._before)))
            size = STATE_BYTES * len(told)
            rest = self._active.limit - self._end - size
            if rest < 0 or (rest < self._reserve and self._left() - size < self._reserve):
                return
            batch = Batch(size, self._active.seed, self._end, self._chain, self._durable)
            for number in told:
                self._groups[number].put_state(batch)
            self._active.file.write(offset_of(self._end), [batch.data])
            self._dirty.add(self._active.number)
            self._end, self._chain, self._told = batch.position, batch.previous, self._durable

    # --- reading ---------------------------------------------------------------------------------

    def entries(self, group: int, first: int, last: int, limit: int) -> tuple[Entry, ...]:
        """Entries from `first` on: at least one, then while they fit `limit` bytes of bodies.

        Fewer than up to `last` only for that. DamagedData, OSError; ValueError for what the log
        does not have.
        """
        if first > last:
            return ()
        known = self._groups[group]
        if first < known.first or last > known.last:
            raise ValueError(
                f"entries {first} to {last} of a log from {known.first} to {known.last}"
            )
        last = fitting(known, first, last, limit)
        cached = known.cached(first, last)
        if len(cached) == last + 1 - first:
            return tuple(cached)
        self.flush()
        return tuple(load(self._segments, known, first, last))

    # --- maintenance -----------------------------------------------------------------------------

    def maintain(self) -> bool:
        """One small step of what can wait: fill spares, retire segments; whether there is more.

        Where there is no space it does nothing; the next call tries again. OSError.
        """
        filling, taken = None, False
        with self._lock:
            retired = self._retire()
            if retired is not None:
                taken = self._spares.recycle(retired)
            elif self._spares.lacking > 0:
                filling = self._spares.begin()
        if retired is not None:
            if not taken:  # which takes long, and nobody waits for the lock meanwhile
                self._spares.remove(retired)
            with self._lock:
                self._names_changed, self._removed_at = True, self._end
            return True
        if filling is None or not (done := self._spares.fill(*filling)):
            return False
        with self._lock:
            self._spares.filled(*filling[:2], done)
            return self._spares.lacking > 0

    def _retire(self) -> Segment | None:
        """The oldest segment, if nothing durable needs it.

        One at a time: the next only when it is known that this one's name is gone for good, so
        that no power loss brings an old one back without those that came after it.
        """
        oldest = min(self._segments)
        durable = self._durable
        if oldest >= number_of(durable) or self._removed_at >= durable or self._holders(oldest):
            return None
        self._dirty.discard(oldest)
        return self._segments.pop(oldest)

    def _holders(self, oldest: int) -> tuple[int, ...]:
        """The groups that need this segment."""

        def needs(group: Group) -> bool:
            return group.lost is not None or number_of(group.needed(self._durable)) <= oldest

        return tuple(group.number for group in self._sorted() if needs(group))

    def oldest(self) -> tuple[int, ...]:
        """The groups that need the oldest segment: a snapshot of each lets it go."""
        with self._lock:
            oldest = min(self._segments)
            return () if oldest == self._active.number else self._holders(oldest)

    def close(self) -> None:
        """Close the files, without syncing; a second call does nothing."""
        self.flush()
        close_all(list(self._segments.values()))
        self._segments = {}
        self._spares.close()
