"""RESP: how commands are read, wherever the stream is split, and replies written. Inline C."""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memchr, memcpy

from packed cimport Buffer, space, take

cdef enum:
    LINE_MAX = 1 << 16
    ARGS_MAX = 1 << 16
    PLAIN_MAX = 8 << 20   # bytes of a command: a longer one may be too long for a frame
    GUEST_ARGS = 10       # as in Redis: whoever has not said who they are says little
    GUEST_BULK = 16384

# Why a stream makes no sense from here on.
cdef enum:
    NOT_BAD, LONG_LINE, LONG_MBULK, LONG_BULK, BAD_MBULK, BAD_BULK, NO_DOLLAR
    GUEST_MBULK_BAD, GUEST_BULK_BAD

# Commands that are plain, and what else a frame of requests has; up to APPEND they write.
cdef enum:
    SET, DEL, SETNX, APPEND, GET, EXISTS, STRLEN, CALL, NOT_PLAIN


cdef struct Parser:
    Buffer buffer
    size_t *args          # of the command that is being read: where each is, and its length
    size_t many, args_room
    size_t at             # what was read of it, from the beginning of the buffer
    int64_t left          # arguments that it still lacks; -1: none was begun
    size_t bulk_max
    bint whole, line
    bint guest, reads_only
    int bad
    uint8_t found         # in place of the dollar


cdef inline void consume(Parser *its) noexcept:
    """The command is done with."""
    take(&its.buffer, its.at)
    its.at, its.left, its.whole, its.many = 0, -1, False, 0
    if its.args_room > 64:
        PyMem_Free(its.args)
        its.args, its.args_room = NULL, 0


cdef inline int _argument(Parser *its, size_t where, size_t size) except -1:
    cdef size_t room = 8 if its.args_room < 4 else 2 * its.args_room
    cdef size_t *args
    if its.many == its.args_room:
        args = <size_t *> PyMem_Realloc(its.args, room * 2 * sizeof(size_t))
        if not args:
            raise MemoryError
        its.args, its.args_room = args, room
    its.args[2 * its.many], its.args[2 * its.many + 1] = where, size
    its.many += 1
    return 0


cdef inline int _length(Parser *its, int too_long, int64_t *value) noexcept:
    """The number of the line at `at`, which begins with a mark: 1 it is a number, 2 it is none, 0
    the line is not here yet."""
    cdef const uint8_t *base = its.buffer.at + its.buffer.begin
    cdef size_t size = its.buffer.end - its.buffer.begin, at = its.at + 1, digits, n
    cdef const uint8_t *end
    cdef int64_t found = 0
    cdef bint minus
    if at > size:
        return 0
    end = <const uint8_t *> memchr(base + at, 13, size - at)
    if end == NULL or end + 1 >= base + size:
        if size - at > LINE_MAX:
            its.bad = too_long
        return 0
    minus = base[at] == 45
    at += minus
    digits = end - base - at
    if not 1 <= digits <= 18 or (base[at] == 48 and (digits > 1 or minus)):
        return 2
    for n in range(digits):
        if not 48 <= base[at + n] <= 57:
            return 2
        found = 10 * found + base[at + n] - 48
    value[0] = -found if minus else found
    return 1


cdef inline size_t _next_line(Parser *its) noexcept:
    """Where the one after `at` begins, if that has an end."""
    cdef const uint8_t *base = its.buffer.at + its.buffer.begin
    cdef size_t size = its.buffer.end - its.buffer.begin
    return <const uint8_t *> memchr(base + its.at, 13, size - its.at) + 2 - base


cdef inline bint _read_line(Parser *its) except -1:
    cdef const uint8_t *base = its.buffer.at + its.buffer.begin
    cdef size_t size = its.buffer.end - its.buffer.begin
    cdef const uint8_t *end = <const uint8_t *> memchr(base, 10, size)
    if end == NULL:
        if size > LINE_MAX:
            its.bad = LONG_LINE
        return False
    its.many = 0
    _argument(its, 0, end - base - (end > base and end[-1] == 13))
    its.at = end - base + 1
    its.whole = its.line = True
    return True


cdef inline bint _begun(Parser *its) except -1:
    """Whether a command of arguments is being read, from here on if none was."""
    cdef const uint8_t *base
    cdef int64_t number = 0
    cdef int found
    while its.left < 0:
        if its.buffer.end == its.buffer.begin:
            return False
        base = its.buffer.at + its.buffer.begin
        if base[0] != 42:
            _read_line(its)
            return False
        found = _length(its, LONG_MBULK, &number)
        if not found:
            return False
        if found == 2 or number > ARGS_MAX:
            its.bad = BAD_MBULK
            return False
        if its.guest and number > GUEST_ARGS:
            its.bad = GUEST_MBULK_BAD
            return False
        its.line, its.many = False, 0
        its.at = _next_line(its)
        if number > 0:
            its.left = number
        else:
            consume(its)
    return True


cdef inline bint read_command(Parser *its) except -1:
    """Whether a whole command is here; `bad` says why none will ever be."""
    cdef const uint8_t *base
    cdef size_t size, where
    cdef int64_t number = 0
    cdef int found
    if its.whole or its.bad or not _begun(its):
        return its.whole
    base, size = its.buffer.at + its.buffer.begin, its.buffer.end - its.buffer.begin
    while its.left:
        if its.at >= size:
            return False
        found = _length(its, LONG_BULK, &number)
        if not found:
            return False
        if base[its.at] != 36:
            its.bad, its.found = NO_DOLLAR, base[its.at]
            return False
        if found == 2 or number < 0 or <size_t> number > its.bulk_max:
            its.bad = BAD_BULK
            return False
        if its.guest and number > GUEST_BULK:
            its.bad = GUEST_BULK_BAD
            return False
        where = _next_line(its)
        if size < where + <size_t> number + 2:
            return False
        _argument(its, where, <size_t> number)
        its.at = where + <size_t> number + 2
        its.left -= 1
    its.whole = True
    return True


cdef inline int plain_kind(const uint8_t *name, size_t size, size_t many) noexcept:
    cdef uint64_t word = 0
    cdef size_t n
    if size > 6:
        return NOT_PLAIN
    for n in range(size):
        word = word << 8 | (name[n] & 0xDF)
    if many == 2:
        if word == 0x474554:
            return GET
        if word in (0x44454C, 0x554E4C494E4B):
            return DEL
        if word == 0x455849535453:
            return EXISTS
        if word == 0x5354524C454E:
            return STRLEN
    elif many == 3:
        if word == 0x534554:
            return SET
        if word == 0x5345544E58:
            return SETNX
        if word == 0x415050454E44:
            return APPEND
    return NOT_PLAIN


cdef inline int kind_of(const Parser *its) noexcept:
    """Of the command that is here."""
    cdef int kind = NOT_PLAIN
    if not its.line and its.at <= PLAIN_MAX:
        kind = plain_kind(its.buffer.at + its.buffer.begin + its.args[0], its.args[1], its.many)
    return NOT_PLAIN if its.reads_only and kind < GET else kind


cdef inline int say(Buffer *buffer, const char *form, int64_t value) except -1:
    """A reply with a number in it."""
    cdef uint8_t *at = space(buffer, 32)
    buffer.end += snprintf(<char *> at, 32, form, <long long> value)
    return 0


cdef inline int say_bulk(Buffer *buffer, const uint8_t *value, size_t size) except -1:
    """A reply of these bytes."""
    cdef uint8_t *at
    say(buffer, b"$%lld\r\n", size)
    at = space(buffer, size + 2)
    memcpy(at, value, size)
    at[size], at[size + 1] = 13, 10
    buffer.end += size + 2
    return 0
