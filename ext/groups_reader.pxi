# The merge of a reduce worker: groups out of segments, streaming.

cdef enum:
    WINDOW_BYTES_MAX = 4 * RUNS_BLOCK_BYTES
    READ_VALUE_COST = 64  # bytes of an object and its place, besides the value's own


cdef int open_segments(
    groups_merge *merge, segments, uint64_t job, uint32_t partition, uint64_t memory
) except -1:
    """Fetch the first block of every segment; windows fit half the memory where they can."""
    cdef size_t index = 0, count = len(segments)
    cdef size_t window = min(<uint64_t>WINDOW_BYTES_MAX, memory // 2 // (count + 1))
    cdef int fd
    cdef uint64_t offset, length
    if groups_open_merge(merge, count, job, partition) < 0:
        failed(&merge.failure)
    for fd, offset, length in segments:
        if blocks_open_reader(
                &merge.cursors[index].reader, index, fd, offset, length, window,
                &merge.failure) < 0:
            failed(&merge.failure)
        index += 1
    with nogil:
        result = groups_start(merge)
    if result < 0:
        failed(&merge.failure)
    return 0


@cython.final
@cython.no_gc
cdef class GroupReader:
    """Merge of segments: (key, values) in key order, values in (segment, position) order."""

    cdef groups_merge merge
    cdef groups_cache cache
    cdef groups_bytes key      # of the group handed out last
    cdef int codec
    cdef size_t group_bytes    # a group with more is an iterator
    cdef readonly uint64_t _group  # number of the group handed out last
    cdef bint begun, broken

    def __cinit__(self, segments, *, job, partition, memory, codec):
        self.codec = codec_number(codec)
        self.group_bytes = max(<int64_t>RUNS_BLOCK_BYTES, memory // 4)
        open_segments(&self.merge, segments, job, partition, memory)

    def __dealloc__(self):
        groups_close_merge(&self.merge)
        groups_free(&self.key)
        groups_drop_cache(&self.cache)

    def __iter__(self):
        return self

    cdef bint in_group(self):
        return groups_is_at(&self.merge, self.key.bytes, self.key.used)

    cdef int advance(self) except -1:
        if self.broken or groups_advance(&self.merge) < 0:
            self.broken = True
            failed(&self.merge.failure)
        return 0

    cdef int take(self, list values) except -1:
        """Append the values of the first record and move past it."""
        cdef groups_cursor *first = groups_first(&self.merge)
        done = groups_get_record(first.value, first.value_size, &self.cache, values)
        if done == GROUPS_OTHER:
            values.extend(unpack(
                PyBytes_FromStringAndSize(<const char *>first.value, first.value_size)))
        return self.advance()

    def __next__(self):
        cdef groups_cursor *first
        cdef list values = []
        cdef size_t size = 0
        if self.broken:
            failed(&self.merge.failure)
        while self.begun and self.in_group():  # what the last group's reader left over
            self.advance()
        first = groups_first(&self.merge)
        if first == NULL:
            self.begun = False
            raise StopIteration
        self.begun = True
        self._group += 1
        self.key.used = 0
        append(&self.key, first.key, first.key_size)
        key = decoded(self.codec, first.key, first.key_size)
        while True:
            size += groups_first(&self.merge).value_size
            self.take(values)
            if not self.in_group():
                return key, values
            if size + READ_VALUE_COST * <size_t>PyList_GET_SIZE(values) > self.group_bytes:
                return key, LargeGroup(self, values, self._group)

    cdef list more(self, uint64_t group):
        """The values of the next record of a group, or None at its end."""
        cdef list values = []
        if group != self._group:
            raise RuntimeError(
                "the values of a key can be read only until the next key is asked for")
        if not self.begun or not self.in_group():
            return None
        self.take(values)
        return values


@cython.final
@cython.no_gc
cdef class LargeGroup:
    """The values of a group that is larger than memory allows: read as they are asked for."""

    cdef GroupReader reader
    cdef list values
    cdef Py_ssize_t position
    cdef uint64_t group

    def __cinit__(self, GroupReader reader, list values, uint64_t group):
        self.reader, self.values, self.group = reader, values, group

    def __iter__(self):
        return self

    def __next__(self):
        while self.position == PyList_GET_SIZE(self.values):
            self.values = self.reader.more(self.group) if self.reader is not None else None
            self.position = 0
            if self.values is None:
                self.values = []
                self.reader = None
                raise StopIteration
        value = self.values[self.position]
        self.position += 1
        return value


def merge_to_section(
    segments, int out, int64_t offset, *, job, task, attempt, partition, memory, page=None
):
    """Merge into one segment, for multi-pass merges: (offset, length, records)."""
    cdef groups_merge merge
    cdef groups_builder builder
    cdef Page words = Page(page)
    memset(&merge, 0, sizeof(merge))
    memset(&builder, 0, sizeof(builder))
    try:
        open_segments(&merge, segments, job, partition, memory)
        if groups_open_builder(
                &builder, out, offset, described(job, task, attempt, partition),
                &merge.failure) < 0:
            failed(&merge.failure)
        with nogil:
            result = groups_merge_all(&merge, &builder, words.words)
        if result < 0:
            failed(&merge.failure)
        return offset, <int64_t>blocks_size(&builder.output), <int64_t>builder.total
    finally:
        groups_close_merge(&merge)
        groups_close_builder(&builder)
