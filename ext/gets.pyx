"""The commonest thing that is asked of the store: gets, one or many in a frame.

What frames, answers and records look like is in `engine.kv.commands` and `store`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint64_t
from packed cimport Buffer, array, binary, integer, put, put_big, put_binary, space

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object table, object key) except? NULL

cdef enum:
    GET = 32
    HEAD = 24          # of a record: create, mod, version
    LEASE = 8
    ASKS_MOST = 1024
    INTEGER = 9        # bytes that a packed integer has at most
    KEPT = 1 << 18     # a buffer that is larger is let go

cdef uint64_t INTEGER_MAX = (<uint64_t> 1 << 63) - 1
cdef uint64_t LEASED = <uint64_t> 1 << 63
cdef Buffer _answers


cdef inline uint64_t _little(const uint8_t *at) noexcept:
    cdef uint64_t value = 0
    cdef int n
    for n in range(8):
        value |= <uint64_t> at[n] << (8 * n)
    return value


cdef inline uint8_t *_pack(uint8_t *at, uint64_t value) noexcept:
    cdef int size = 0 if value < 1 << 8 else 1 if value < 1 << 16 else 2 if value >> 32 == 0 else 3
    if value < 0x80:
        at[0] = <uint8_t> value
        return at + 1
    at[0] = <uint8_t> (0xCC + size)
    put_big(at + 1, value, 1 << size)
    return at + 1 + (1 << size)


cdef int _begin(uint64_t many, uint64_t number) except -1:
    """[number, answer, …]: its head, and the number."""
    cdef uint8_t *out = space(&_answers, 3 + INTEGER)
    cdef uint8_t *begin = out
    if many < 16:
        out[0] = <uint8_t> (0x90 | many)
        out += 1
    else:
        out[0] = 0xDC
        put_big(out + 1, many, 2)
        out += 3
    _answers.end += _pack(out, number) - begin
    return 0


cdef int _missing(uint64_t revision) except -1:
    """[NOT_FOUND, revision]"""
    cdef uint8_t *out = space(&_answers, 2 + INTEGER)
    out[0], out[1] = 0x92, 2
    _answers.end += _pack(out + 2, revision) - out
    return 0


cdef int _found(bytes record, uint64_t revision) except -1:
    """[OK, revision, value, create, mod, version, lease]"""
    cdef const uint8_t *at = <const uint8_t *> PyBytes_AS_STRING(record)
    cdef uint64_t version = _little(at + 16), lease = 0
    cdef int head = HEAD
    cdef uint8_t *out = space(&_answers, 2 + INTEGER)
    cdef uint8_t *after
    if version & LEASED:
        version, lease, head = version & INTEGER_MAX, _little(at + HEAD), HEAD + LEASE
    out[0], out[1] = 0x97, 0
    _answers.end += _pack(out + 2, revision) - out
    put_binary(&_answers, at + head, PyBytes_GET_SIZE(record) - head)
    out = space(&_answers, 4 * INTEGER)
    after = _pack(_pack(out, _little(at)), _little(at + 8))
    _answers.end += _pack(_pack(after, version), lease) - out
    return 0


def gets(bytes frame not None, dict table not None, uint64_t revision, int64_t room, int64_t rows):
    cdef const uint8_t *at = <const uint8_t *> PyBytes_AS_STRING(frame)
    cdef const uint8_t *end = at + PyBytes_GET_SIZE(frame)
    cdef const uint8_t *key = NULL
    cdef size_t key_size = 0
    cdef uint64_t many = 0, number = 0, left
    cdef int64_t size
    cdef PyObject *found
    cdef bytes record
    cdef bint fresh = True
    at = integer(array(at, end, &many), end, &number)
    if at == NULL or not 2 <= many <= 1 + ASKS_MOST or number > INTEGER_MAX:
        return None
    _answers.begin = _answers.end = 0
    _begin(many, number)
    left = many - 1
    while left:
        left -= 1
        if end - at < 2 or at[0] != 0x92 or at[1] != GET:
            return None
        at = binary(at + 2, end, &key, &key_size)
        if at == NULL:
            return None
        name = PyBytes_FromStringAndSize(<const char *> key, key_size)
        found = PyDict_GetItemWithError(table, name)
        if found == NULL:
            _missing(revision)
            continue
        record = <bytes> <object> found
        size = <int64_t> key_size + PyBytes_GET_SIZE(record)
        if not fresh and (size > room or rows <= 0):
            put(&_answers, b"\x92\x05\xa6answer", 9)
            continue
        fresh = False
        room, rows = room - size, rows - 1
        _found(record, revision)
    if at != end:
        return None
    answer = PyBytes_FromStringAndSize(<const char *> _answers.at, <Py_ssize_t> _answers.end)
    if _answers.room > KEPT:
        _let_go()
    return answer


cdef void _let_go() noexcept:
    PyMem_Free(_answers.at)
    _answers.at, _answers.room, _answers.begin, _answers.end = NULL, 0, 0, 0
