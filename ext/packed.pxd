"""Buffers that grow, and the msgpack of which the store's frames are made: inline C for kernels.

Readers return where it goes on, or NULL: it is something else.
"""

from cpython.mem cimport PyMem_Realloc
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memmove

cdef enum:
    ROOM = 1 << 14   # a buffer begins with so much, and goes back to it
    DEPTH_MAX = 8


# --- buffers -------------------------------------------------------------------------------------


cdef struct Buffer:
    uint8_t *at
    size_t begin, end, room


cdef inline uint8_t *space(Buffer *buffer, size_t more) except NULL:
    """Where so many bytes may be written; whoever does moves `end`."""
    cdef size_t used = buffer.end - buffer.begin, room
    cdef uint8_t *at
    if not buffer.at or buffer.room - buffer.end < more:
        if buffer.begin:
            memmove(buffer.at, buffer.at + buffer.begin, used)
            buffer.begin, buffer.end = 0, used
        if not buffer.at or buffer.room - used < more:
            room = max(ROOM, 2 * buffer.room)
            while room - used < more:
                room *= 2
            at = <uint8_t *> PyMem_Realloc(buffer.at, room)
            if not at:
                raise MemoryError
            buffer.at, buffer.room = at, room
    return buffer.at + buffer.end


cdef inline int put(Buffer *buffer, const void *data, size_t size) except -1:
    memcpy(space(buffer, size), data, size)
    buffer.end += size
    return 0


cdef inline void take(Buffer *buffer, size_t size) noexcept:
    cdef uint8_t *at
    buffer.begin += size
    if buffer.begin == buffer.end:
        buffer.begin = buffer.end = 0
        if buffer.room > ROOM:
            at = <uint8_t *> PyMem_Realloc(buffer.at, ROOM)
            if at:
                buffer.at, buffer.room = at, ROOM


# --- msgpack -------------------------------------------------------------------------------------


cdef inline uint64_t little(const uint8_t *at, int size) noexcept:
    cdef uint64_t value = 0
    cdef int n
    for n in range(size):
        value |= <uint64_t> at[n] << (8 * n)
    return value


cdef inline uint8_t *put_little(uint8_t *at, uint64_t value, int size) noexcept:
    cdef int n
    for n in range(size):
        at[n] = <uint8_t> (value >> (8 * n))
    return at + size


cdef inline uint64_t big(const uint8_t *at, int size) noexcept:
    cdef uint64_t value = 0
    cdef int n
    for n in range(size):
        value = value << 8 | at[n]
    return value


cdef inline void put_big(uint8_t *at, uint64_t value, int size) noexcept:
    cdef int n
    for n in range(size):
        at[n] = <uint8_t> (value >> (8 * (size - 1 - n)))


cdef inline const uint8_t *integer(const uint8_t *at, const uint8_t *end, uint64_t *value) noexcept:
    cdef int size
    if at == NULL or at >= end:
        return NULL
    if at[0] < 0x80:
        value[0] = at[0]
        return at + 1
    size = 1 << (at[0] - 0xCC) if 0xCC <= at[0] <= 0xCF else 0
    if not size or end - at < 1 + size:
        return NULL
    value[0] = big(at + 1, size)
    return at + 1 + size


cdef inline const uint8_t *natural(const uint8_t *at, const uint8_t *end, uint64_t *value) noexcept:
    """An integer that has 63 bits at most."""
    at = integer(at, end, value)
    return at if at != NULL and not value[0] >> 63 else NULL


cdef inline uint8_t *put_integer(uint8_t *at, uint64_t value) noexcept:
    """Up to 9 bytes."""
    cdef int size = 0 if value < 1 << 8 else 1 if value < 1 << 16 else 2 if value >> 32 == 0 else 3
    if value < 0x80:
        at[0] = <uint8_t> value
        return at + 1
    at[0] = <uint8_t> (0xCC + size)
    put_big(at + 1, value, 1 << size)
    return at + 1 + (1 << size)


cdef inline uint8_t *put_array(uint8_t *at, uint64_t many) noexcept:
    """The head of one, up to 5 bytes."""
    cdef int size = 2 if many < 1 << 16 else 4
    if many < 16:
        at[0] = <uint8_t> (0x90 | many)
        return at + 1
    at[0] = 0xDC if size == 2 else 0xDD
    put_big(at + 1, many, size)
    return at + 1 + size


cdef inline uint8_t *put_bytes(uint8_t *at, const void *data, size_t size) noexcept:
    """A byte string, up to 5 bytes more than it has."""
    cdef int wide = 0 if size < 1 << 8 else 1 if size < 1 << 16 else 2
    at[0] = <uint8_t> (0xC4 + wide)
    wide = 1 << wide
    put_big(at + 1, size, wide)
    memcpy(at + 1 + wide, data, size)
    return at + 1 + wide + size


cdef inline const uint8_t *array(const uint8_t *at, const uint8_t *end, uint64_t *many) noexcept:
    cdef int size
    if at == NULL or at >= end:
        return NULL
    if at[0] & 0xF0 == 0x90:
        many[0] = at[0] & 0x0F
        return at + 1
    size = 2 if at[0] == 0xDC else 4 if at[0] == 0xDD else 0
    if not size or end - at < 1 + size:
        return NULL
    many[0] = big(at + 1, size)
    return at + 1 + size


cdef inline const uint8_t *binary(
    const uint8_t *at, const uint8_t *end, const uint8_t **found, size_t *size
) noexcept:
    cdef int wide
    if at == NULL or at >= end or not 0xC4 <= at[0] <= 0xC6:
        return NULL
    wide = 1 << (at[0] - 0xC4)
    if end - at < 1 + wide:
        return NULL
    size[0] = <size_t> big(at + 1, wide)
    found[0] = at + 1 + wide
    return found[0] + size[0] if <size_t> (end - found[0]) >= size[0] else NULL


cdef inline const uint8_t *skip(const uint8_t *at, const uint8_t *end, int depth) noexcept:
    """Past one value of those that answers are made of; NULL for any other."""
    cdef uint64_t many = 0
    cdef size_t size = 0
    cdef const uint8_t *found = NULL
    cdef int wide
    if at == NULL or at >= end or depth > DEPTH_MAX:
        return NULL
    if at[0] < 0x80 or at[0] >= 0xE0 or at[0] in (0xC0, 0xC2, 0xC3):
        return at + 1
    if 0xCC <= at[0] <= 0xD3:
        wide = 1 << ((at[0] - 0xCC) & 3)
        return at + 1 + wide if end - at > wide else NULL
    if 0xC4 <= at[0] <= 0xC6:
        return binary(at, end, &found, &size)
    if 0xA0 <= at[0] <= 0xBF or 0xD9 <= at[0] <= 0xDB:
        wide = 0 if at[0] < 0xC0 else 1 << (at[0] - 0xD9)
        if end - at < 1 + wide:
            return NULL
        size = <size_t> big(at + 1, wide) if wide else at[0] & 0x1F
        return at + 1 + wide + size if <size_t> (end - at - 1 - wide) >= size else NULL
    at = array(at, end, &many)
    while at != NULL and many:
        at = skip(at, end, depth + 1)
        many -= 1
    return at


cdef inline int put_binary(Buffer *buffer, const uint8_t *data, size_t size) except -1:
    cdef uint8_t *at = space(buffer, 5 + size)
    buffer.end += put_bytes(at, data, size) - at
    return 0


cdef inline const uint8_t *skip_arrays(const uint8_t *at, const uint8_t *end, size_t many) noexcept:
    """Past so many arrays that are not empty."""
    cdef uint64_t parts = 0
    while at != NULL and many:
        if array(at, end, &parts) == NULL or not parts:
            return NULL
        at = skip(at, end, 0)
        many -= 1
    return at
