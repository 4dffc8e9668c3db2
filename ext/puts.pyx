"""The commonest thing that the store does: one plain put in a session that is known.

What frames, records and rows look like is in `engine.kv.commands`, `store` and `sessions`; that the
tables change as they do there is held by the tests of the store against its oracle.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object table, object key) except? NULL

cdef enum:
    HEAD = 24     # of a record: create, mod, version
    ROW = 16      # of a session: last sequence, time of its last use
    SESSION = 16
    PUT = 2
    PUT_EVENT = 1
    ANSWER = 32   # bytes that a packed answer has at most

cdef uint64_t INTEGER_MAX = (<uint64_t> 1 << 63) - 1


cdef struct Request:
    uint64_t number, sequence
    const uint8_t *session
    const uint8_t *key
    const uint8_t *value
    size_t key_size, value_size


cdef inline uint64_t _little(const uint8_t *at) noexcept:
    cdef uint64_t value = 0
    cdef int n
    for n in range(8):
        value |= <uint64_t> at[n] << (8 * n)
    return value


cdef inline void _put_little(uint8_t *at, uint64_t value) noexcept:
    cdef int n
    for n in range(8):
        at[n] = <uint8_t> (value >> (8 * n))


cdef inline uint64_t _big(const uint8_t *at, int size) noexcept:
    cdef uint64_t value = 0
    cdef int n
    for n in range(size):
        value = value << 8 | at[n]
    return value


# msgpack. Each returns where it goes on, or NULL: it is something else, and not for us.

cdef const uint8_t *_integer(const uint8_t *at, const uint8_t *end, uint64_t *value) noexcept:
    cdef int size
    if at == NULL or at >= end:
        return NULL
    if at[0] < 0x80:
        value[0] = at[0]
        return at + 1
    if not 0xCC <= at[0] <= 0xCF:
        return NULL
    size = 1 << (at[0] - 0xCC)
    if end - at < 1 + size:
        return NULL
    value[0] = _big(at + 1, size)
    return at + 1 + size if value[0] <= INTEGER_MAX else NULL


cdef const uint8_t *_binary(
    const uint8_t *at, const uint8_t *end, const uint8_t **found, size_t *size
) noexcept:
    cdef int wide
    if at == NULL or at >= end or not 0xC4 <= at[0] <= 0xC6:
        return NULL
    wide = 1 << (at[0] - 0xC4)
    if end - at < 1 + wide:
        return NULL
    size[0] = <size_t> _big(at + 1, wide)
    found[0] = at + 1 + wide
    if <size_t> (end - found[0]) < size[0]:
        return NULL
    return found[0] + size[0]


cdef const uint8_t *_byte(const uint8_t *at, const uint8_t *end, uint8_t byte) noexcept:
    return at + 1 if at != NULL and at < end and at[0] == byte else NULL


cdef bint _parse(const uint8_t *at, const uint8_t *end, Request *found) noexcept:
    """[number, [session, sequence, PUT, key, value, 0]] and nothing behind it."""
    cdef size_t session = 0
    at = _integer(_byte(at, end, 0x92), end, &found.number)
    at = _binary(_byte(at, end, 0x96), end, &found.session, &session)
    at = _byte(_integer(at, end, &found.sequence), end, PUT)
    at = _binary(at, end, &found.key, &found.key_size)
    at = _binary(at, end, &found.value, &found.value_size)
    return _byte(at, end, 0) == end and session == SESSION


cdef int _pack(uint8_t *at, uint64_t value) noexcept:
    cdef int size, n
    if value < 0x80:
        at[0] = <uint8_t> value
        return 1
    size = 0 if value < 1 << 8 else 1 if value < 1 << 16 else 2 if value >> 32 == 0 else 3
    at[0] = <uint8_t> (0xCC + size)
    size = 1 << size
    for n in range(size):
        at[1 + n] = <uint8_t> (value >> (8 * (size - 1 - n)))
    return 1 + size


cdef bytes _record(uint64_t create, uint64_t revision, uint64_t version, Request *request):
    cdef bytes record = PyBytes_FromStringAndSize(NULL, HEAD + request.value_size)
    cdef uint8_t *out = <uint8_t *> PyBytes_AS_STRING(record)
    _put_little(out, create)
    _put_little(out + 8, revision)
    _put_little(out + 16, version)
    memcpy(out + HEAD, request.value, request.value_size)
    return record


cdef int _answer(uint8_t *at, uint64_t revision, uint64_t version) noexcept:
    """[OK, revision, version]: its size."""
    cdef int size = 2
    at[0], at[1] = 0x93, 0
    size += _pack(at + size, revision)
    return size + _pack(at + size, version)


cdef bytes _row(uint64_t sequence, uint64_t used, const uint8_t *answer, int size):
    cdef bytes row = PyBytes_FromStringAndSize(NULL, ROW + size)
    cdef uint8_t *out = <uint8_t *> PyBytes_AS_STRING(row)
    _put_little(out, sequence)
    _put_little(out + 8, used)
    memcpy(out + ROW, answer, size)
    return row


cdef bytes _framed(uint64_t number, const uint8_t *answer, int size):
    """[number, answer]."""
    cdef uint8_t frame[ANSWER]
    cdef int head = 1
    frame[0] = 0x92
    head += _pack(frame + 1, number)
    memcpy(frame + head, answer, size)
    return PyBytes_FromStringAndSize(<char *> frame, head + size)


def puts(
    list frames not None,
    Py_ssize_t first,
    list answers not None,
    dict table not None,
    dict rows not None,
    list events not None,
    add not None,
    aside,
    limits not None,
    uint64_t revision,
    uint64_t time,
    uint64_t horizon,
    int64_t room,
):
    cdef Request request
    cdef PyObject *found
    cdef bytes frame, session, key, record, row, old, kept
    cdef const uint8_t *at
    cdef uint8_t packed[ANSWER]
    cdef uint64_t create, version, used
    cdef int64_t growth, grown = 0, told = 0, sessions = 0
    cdef int size
    cdef size_t key_max = limits[0], value_max = limits[1], frame_max = limits[2]
    cdef Py_ssize_t position
    for position in range(first, len(frames)):
        frame = frames[position]
        at = <const uint8_t *> PyBytes_AS_STRING(frame)
        size = <int> PyBytes_GET_SIZE(frame)
        if not _parse(at, at + size, &request) or <size_t> size > frame_max \
                or request.key_size > key_max or request.value_size > value_max:
            break
        session = PyBytes_FromStringAndSize(<char *> request.session, SESSION)
        found = PyDict_GetItemWithError(rows, session)
        if found == NULL:
            break
        row = <bytes> <object> found
        at = <const uint8_t *> PyBytes_AS_STRING(row)
        used = _little(at + 8)
        if _little(at) >= request.sequence or used < horizon:
            break
        key = PyBytes_FromStringAndSize(<char *> request.key, request.key_size)
        found = PyDict_GetItemWithError(table, key)
        if found == NULL:
            old, create, version = None, revision + 1, 1
            growth = HEAD + request.key_size + request.value_size
        else:
            old = <bytes> <object> found
            at = <const uint8_t *> PyBytes_AS_STRING(old)
            create, version = _little(at), _little(at + 16) + 1
            growth = <int64_t> (HEAD + request.value_size) - PyBytes_GET_SIZE(old)
        if version > INTEGER_MAX or (growth > 0 and grown + growth > room):
            break
        revision += 1
        record = _record(create, revision, version, &request)
        if aside is not None:
            aside(key, old)
        if old is None:
            add(key)
        table[key], grown = record, grown + growth
        events.append((revision, PUT_EVENT, key, record))
        told += <int64_t> request.key_size + PyBytes_GET_SIZE(record)
        size = _answer(packed, revision, version)
        kept = _row(request.sequence, used if used > time else time, packed, size)
        sessions += PyBytes_GET_SIZE(kept) - PyBytes_GET_SIZE(row)
        rows[session] = kept
        answers.append(_framed(request.number, packed, size))
    else:
        position = len(frames)
    return position, revision, grown, told, sessions
