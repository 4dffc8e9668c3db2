# Between a table and the functions of a job: pairs, values that are kept packed, the page.

cdef enum:
    # Estimates of bytes, for 64-bit CPython 3.11 to 3.13, checked against tracemalloc by a test.
    KEY_COST = 64 + 88 + 32  # place in a dict that may just have grown; list of one; item to sort
    SECOND_COST = 56         # a list's first growth, from one place to eight
    SLOT_COST = 9            # a list's place, with its share of growing
    PACKED_COST = 80         # a Packed and its bytes object
    # A value in so many hands (a constant, a document's name) was there before or is counted
    # already; one that was just made is in two or three.
    SHARED_COUNT = 8

    # Words of a progress page; engine/mapreduce/progress.py.
    PAGE_BEAT = 0
    PAGE_RECORD = 4
    PAGE_KEYS = 7
    PAGE_RECORD_SINCE = 8
    PAGE_WORDS = 16


@cython.final
@cython.no_gc
cdef class Packed:
    """The msgpack of a value that is no plain str, bytes, int, float, bool or None."""

    cdef bytes data


cdef object unpack(bytes data):
    return msgpack.unpackb(data, use_list=False, strict_map_key=False)


@cython.final
@cython.no_gc
cdef class Page:
    """A worker's progress page, or nowhere."""

    cdef Py_buffer view
    cdef uint64_t *words
    cdef uint64_t nowhere[PAGE_WORDS]

    def __cinit__(self, page):
        self.words = self.nowhere
        if page is not None:
            PyObject_GetBuffer(page, &self.view, PyBUF_WRITABLE)
            if self.view.len < 8 * PAGE_WORDS:
                PyBuffer_Release(&self.view)
                raise ValueError(f"a progress page has {8 * PAGE_WORDS} bytes")
            self.words = <uint64_t *>self.view.buf

    def __dealloc__(self):
        if self.words != self.nowhere and self.words != NULL:
            PyBuffer_Release(&self.view)

    cdef void begin(self, Py_ssize_t record, Py_ssize_t keys) noexcept:
        """A record is about to be given to user code."""
        cdef timespec now
        clock_gettime(CLOCK_MONOTONIC, &now)
        self.words[PAGE_RECORD_SINCE] = now.tv_sec * <uint64_t>1000000000 + now.tv_nsec
        self.words[PAGE_RECORD] = record + 1
        self.words[PAGE_KEYS] = keys
        self.words[PAGE_BEAT] += 1

    cdef void end(self, Py_ssize_t keys) noexcept:
        self.words[PAGE_RECORD] = 0
        self.words[PAGE_KEYS] = keys
        self.words[PAGE_BEAT] += 1


cdef object pairs_of(result):
    """An iterator over what map or combine returned."""
    if result is None:
        raise TypeError("map or combine returned None, not pairs: is a `yield` missing?")
    return iter(result)


cdef int check_pair(item) except -1:
    """A str of two characters could be taken apart as well, but is no pair."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise TypeError(f"map and combine yield (key, value) pairs, but this is {shown(item)}")
    return 0


cdef object bad_value(key, value, why):
    return ValueTypeError(
        f"The value of type {type(value).__name__} for key {shown(key)} cannot be stored: {why}; "
        "values are str, bytes, int (64 bits), float, bool, None, or lists, tuples and dicts of "
        "these."
    )
