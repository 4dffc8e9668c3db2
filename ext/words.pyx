"""Tokenise, hash, count and partition words: `engine/kernels/words.pyi` is its manual.

The work is done by C headers, one for each concept: words_levels.h picks words_body.h for the
machine's instruction set, over word_letters.h, word_table.h, word_reader.h, word_sort.h and
word_section.h. Here is only what Python sees: arguments, exceptions, and the GIL let go.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strerror
from posix.fcntl cimport O_CLOEXEC, O_RDONLY, open
from posix.unistd cimport close

import os


cdef extern from "runs.h" nogil:
    const uint32_t RUNS_MAGIC
    const uint32_t RUNS_VERSION
    const uint32_t RUNS_KIND_COUNTS
    ctypedef struct runs_header:
        uint32_t magic
        uint32_t version
        uint32_t kind
        uint64_t job
        uint32_t task
        uint32_t attempt

cdef extern from "words_levels.h" nogil:
    const char *LETTERS_NAME
    const size_t C_WORD_BYTES_MAX "WORD_BYTES_MAX"
    const size_t TEXT_SLACK
    const int WORDS_LEVELS
    ctypedef struct word_count_text
    ctypedef struct word_table:
        size_t mapped
    ctypedef struct word_counter:
        word_table table
        uint64_t words
        uint64_t stop
        int error
    ctypedef struct words_level:
        const char *name
        int (*usable)()
        word_count_text *count_text_words
    const words_level *words_levels
    ctypedef enum count_result:
        COUNT_DONE
        COUNT_FULL
        COUNT_TOO_LONG
        COUNT_NO_MEMORY
        COUNT_ERRNO
    size_t word_table_keys(const word_table *table)
    word_counter *word_counter_open(
        size_t budget, uint32_t partitions, int fold_case, size_t chunk, word_count_text *level
    )
    void word_counter_close(word_counter *counter)
    void word_counter_clear(word_counter *counter)
    size_t FOLDED_BYTES_MAX(size_t size)
    size_t text_fold(uint8_t *to, const uint8_t *text, size_t size)

cdef extern from "word_reader.h" nogil:
    const size_t PAGE_WORDS
    count_result word_reader_count_file(
        word_counter *counter, int fd, uint64_t start, uint64_t end, uint64_t *page, uint64_t *done
    )

cdef extern from "word_section.h" nogil:
    const uint32_t PARTITIONS_MAX
    const uint32_t FNV_BASIS
    uint32_t fnv_continue(uint32_t hash, const uint8_t *data, size_t size)
    uint32_t fnv_partition(uint32_t hash, uint32_t partitions)
    ctypedef struct section_part:
        uint64_t offset
        uint64_t length
        uint64_t records
    count_result section_write(
        word_counter *counter, int fd, uint64_t offset, const runs_header *header,
        section_part *parts
    )


LETTERS = LETTERS_NAME.decode()
WORD_BYTES_MAX = C_WORD_BYTES_MAX


class WordTooLong(ValueError):
    """A word exceeds `WORD_BYTES_MAX`; `offset` is the byte of the file at which it begins."""

    def __init__(self, path, offset):
        super().__init__(
            f"{path}: the word at byte {offset} is longer than {WORD_BYTES_MAX >> 20} MiB: "
            "is this a text file?"
        )
        self.offset = offset


def isa_levels():
    return tuple(
        words_levels[i].name.decode() for i in range(WORDS_LEVELS) if words_levels[i].usable()
    )


cdef const words_level *find_level(str isa) except NULL:
    """The level of that name, or the last usable one; ValueError if this machine cannot run it."""
    cdef int i
    for i in reversed(range(WORDS_LEVELS)):
        if words_levels[i].usable() and (not isa or words_levels[i].name.decode() == isa):
            return &words_levels[i]
    raise ValueError(f"instruction set {isa!r} is not one of {', '.join(isa_levels())}")


cdef void check_partitions(object partitions) except *:
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise ValueError(f"partitions is {partitions}: use 1 to {PARTITIONS_MAX}")


cdef class WordTable:
    cdef word_counter *counter
    cdef uint32_t partitions
    cdef bint busy
    cdef readonly str isa

    def __cinit__(self, partitions, memory, *, bint fold_case=False, str isa="", size_t chunk=0):
        check_partitions(partitions)
        cdef const words_level *level = find_level(isa)
        cdef size_t budget = memory
        self.isa = level.name.decode()
        self.partitions = partitions
        self.counter = word_counter_open(
            budget, self.partitions, fold_case, chunk, level.count_text_words
        )
        if self.counter is NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.counter is not NULL:
            word_counter_close(self.counter)

    cdef int enter(self) except -1:
        """Only one call at a time: the GIL is let go in the middle."""
        if self.busy:
            raise RuntimeError("this table is being used by another thread")
        self.busy = True
        return 0

    @property
    def keys(self):
        return word_table_keys(&self.counter.table)

    @property
    def words(self):
        return self.counter.words

    @property
    def memory(self):
        return self.counter.table.mapped

    def count(self, path, uint64_t start, uint64_t end, page=None):
        cdef Py_buffer view
        cdef uint64_t *words = NULL
        if page is not None:
            PyObject_GetBuffer(page, &view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)
            words = <uint64_t *>view.buf
        try:
            if page is not None and <size_t>view.len < PAGE_WORDS * sizeof(uint64_t):
                raise ValueError(f"a page has {PAGE_WORDS} words of 8 bytes, not {view.len} bytes")
            return self._count(path, start, end, words)
        finally:
            if page is not None:
                PyBuffer_Release(&view)

    cdef object _count(self, path, uint64_t start, uint64_t end, uint64_t *page):
        cdef bytes name = os.fsencode(path)
        cdef const char *c_name = name
        cdef count_result result
        cdef uint64_t done = 0
        cdef int fd
        self.enter()
        try:
            with nogil:
                fd = open(c_name, O_RDONLY | O_CLOEXEC)
                if fd < 0:
                    self.counter.error = errno
                    result = COUNT_ERRNO
                else:
                    result = word_reader_count_file(self.counter, fd, start, end, page, &done)
                    close(fd)
        finally:
            self.busy = False
        if result == COUNT_TOO_LONG:
            raise WordTooLong(path, done)
        self.check(result, path)
        return done

    cdef int check(self, count_result result, path) except -1:
        """Raise what a call that went wrong left behind."""
        if result == COUNT_NO_MEMORY:
            raise MemoryError
        if result == COUNT_ERRNO:
            raise OSError(
                self.counter.error, strerror(self.counter.error).decode(), path
            )
        return 0

    def write_section(self, int fd, uint64_t offset, uint64_t job, uint32_t task, uint32_t attempt):
        cdef section_part *parts = <section_part *>calloc(self.partitions, sizeof(section_part))
        cdef count_result result
        cdef runs_header header
        cdef uint32_t i
        memset(&header, 0, sizeof(header))
        header.magic = RUNS_MAGIC
        header.version = RUNS_VERSION
        header.kind = RUNS_KIND_COUNTS
        header.job = job
        header.task = task
        header.attempt = attempt
        if parts is NULL:
            raise MemoryError
        try:
            self.enter()
            try:
                with nogil:
                    result = section_write(self.counter, fd, offset, &header, parts)
            finally:
                self.busy = False
            self.check(result, None)
            return [
                (parts[i].offset, parts[i].length, parts[i].records)
                for i in range(self.partitions)
            ]
        finally:
            free(parts)

    def clear(self):
        self.enter()
        word_counter_clear(self.counter)
        self.busy = False


def fold(bytes text):
    cdef size_t size = len(text)
    cdef uint8_t *room = <uint8_t *>malloc(size + TEXT_SLACK + FOLDED_BYTES_MAX(size))
    if room is NULL:
        raise MemoryError
    memcpy(room, <const char *>text, size)
    memset(room + size, 0, TEXT_SLACK)
    cdef uint8_t *folded = room + size + TEXT_SLACK
    cdef size_t written = text_fold(folded, room, size)
    try:
        return <bytes>(<char *>folded)[:written]
    finally:
        free(room)


def partition(bytes key, partitions):
    if not 1 <= partitions < 1 << 31:
        raise ValueError(f"partitions is {partitions}: use 1 to {(1 << 31) - 1}")
    cdef uint32_t hash = fnv_continue(FNV_BASIS, key, len(key))
    return fnv_partition(hash, partitions)
