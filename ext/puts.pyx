"""The commonest thing that the store does: one plain put in a session that is known.

What frames, records and rows look like is in `engine.kv.commands`, `store` and `sessions`; that the
tables change as they do there is held by the tests of the store against its oracle.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from entries cimport (
    Table, key_table, table_entry, table_find, table_hashed, table_put, table_record,
    table_slot_entry
)
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy
from packed cimport array, binary, little, natural, put_array, put_integer, put_little

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object table, object key) except? NULL

cdef enum:
    HEAD = 24     # of a record: create, mod, version
    ROW = 16      # of a session: last sequence, time of its last use
    SESSION = 16
    PUT = 2
    PUT_EVENT = 1
    ANSWER = 32   # bytes that a packed answer has at most
    REQUESTS_MOST = 1024

cdef struct Request:
    uint64_t sequence
    const uint8_t *session
    const uint8_t *key
    const uint8_t *value
    size_t key_size, value_size
    uint64_t hash  # of the key


cdef uint64_t INTEGER_MAX = (<uint64_t> 1 << 63) - 1
cdef Request _requests[REQUESTS_MOST]   # of one frame
cdef uint8_t _answers[REQUESTS_MOST * ANSWER + ANSWER]


cdef const uint8_t *_byte(const uint8_t *at, const uint8_t *end, uint8_t byte) noexcept:
    return at + 1 if at != NULL and at < end and at[0] == byte else NULL


cdef const uint8_t *_parse(const uint8_t *at, const uint8_t *end, Request *found) noexcept:
    """[session, sequence, PUT, key, value, 0]"""
    cdef size_t session = 0
    at = binary(_byte(at, end, 0x96), end, &found.session, &session)
    at = _byte(natural(at, end, &found.sequence), end, PUT)
    at = binary(at, end, &found.key, &found.key_size)
    at = binary(at, end, &found.value, &found.value_size)
    return _byte(at, end, 0) if session == SESSION else NULL


cdef bytes _record(uint64_t create, uint64_t revision, uint64_t version, Request *request):
    cdef bytes record = PyBytes_FromStringAndSize(NULL, HEAD + request.value_size)
    cdef uint8_t *out = <uint8_t *> PyBytes_AS_STRING(record)
    out = put_little(put_little(put_little(out, create, 8), revision, 8), version, 8)
    memcpy(out, request.value, request.value_size)
    return record


cdef int _answer(uint8_t *at, uint64_t revision, uint64_t version) noexcept:
    """[OK, revision, version]: its size."""
    at[0], at[1] = 0x93, 0
    return <int> (put_integer(put_integer(at + 2, revision), version) - at)


cdef bytes _row(uint64_t sequence, uint64_t used, const uint8_t *answer, int size):
    cdef bytes row = PyBytes_FromStringAndSize(NULL, ROW + size)
    cdef uint8_t *out = <uint8_t *> PyBytes_AS_STRING(row)
    out = put_little(put_little(out, sequence, 8), used, 8)
    memcpy(out, answer, size)
    return row


cdef int _found(bytes frame, size_t key_max, size_t value_max, uint64_t *number) noexcept:
    """How many requests a frame has, if all of them are plain puts; 0 otherwise."""
    cdef const uint8_t *at = <const uint8_t *> PyBytes_AS_STRING(frame)
    cdef const uint8_t *end = at + PyBytes_GET_SIZE(frame)
    cdef uint64_t many = 0, n
    at = natural(array(at, end, &many), end, number)
    if at == NULL or not 2 <= many <= 1 + REQUESTS_MOST:
        return 0
    many -= 1
    for n in range(many):
        at = _parse(at, end, &_requests[n])
        if at == NULL or _requests[n].key_size > key_max or _requests[n].value_size > value_max:
            return 0
    return <int> many if at == end else 0


cdef bint _doable(
    int many, key_table *table, dict rows, uint64_t horizon, int64_t room, list sessions
) except -1:
    """Whether all of them can be done, which is known before any is: what is written twice has in
    the end no more bytes than the two together. Their sessions, if so."""
    cdef Request *request
    cdef PyObject *found
    cdef uint64_t *slot
    cdef const uint8_t *at
    cdef bytes session
    cdef int64_t growth, more = 0
    cdef int n
    del sessions[:]
    for n in range(many):
        request = &_requests[n]
        session = PyBytes_FromStringAndSize(<char *> request.session, SESSION)
        found = PyDict_GetItemWithError(rows, session)
        if found == NULL:
            return False
        at = <const uint8_t *> PyBytes_AS_STRING(<bytes> <object> found)
        if little(at, 8) >= request.sequence or little(at + 8, 8) < horizon:
            return False
        request.hash = table_hashed(table, request.key, request.key_size)
        slot = table_find(&table.places, request.hash, request.key, request.key_size)
        growth = HEAD + request.value_size
        if slot == NULL:
            growth += request.key_size
        else:
            at = table_record(table_slot_entry(slot[0]))
            if little(at + 16, 8) > INTEGER_MAX - many:
                return False
            growth -= table_slot_entry(slot[0]).record_size
        more += max(<int64_t> 0, growth)
        if growth > 0 and more > room:
            return False
        sessions.append(session)
    return many == 1 or len(set(sessions)) == many


cdef bytes _put(key_table *table, Request *request, uint64_t revision, uint64_t *version, aside):
    """Write the key; its record, and its version. All that changes is told to `aside` before."""
    cdef uint64_t *slot = table_find(&table.places, request.hash, request.key, request.key_size)
    cdef table_entry *old = NULL if slot == NULL else table_slot_entry(slot[0])
    cdef uint64_t create = revision
    cdef bytes record
    version[0] = 1
    if old != NULL:
        create = little(table_record(old), 8)
        version[0] = little(table_record(old) + 16, 8) + 1
    record = _record(create, revision, version[0], request)
    if aside is not None:
        aside(
            PyBytes_FromStringAndSize(<char *> request.key, request.key_size),
            None if old == NULL else
            PyBytes_FromStringAndSize(<char *> table_record(old), old.record_size),
        )
        # It was Python's turn, and addresses hold until the next change.
        slot = table_find(&table.places, request.hash, request.key, request.key_size)
    if table_put(
        table, request.hash, slot, request.key, request.key_size,
        <const uint8_t *> PyBytes_AS_STRING(record), PyBytes_GET_SIZE(record)
    ):
        raise MemoryError
    return record


def puts(
    list frames not None,
    Py_ssize_t first,
    list answers not None,
    Table table not None,
    dict rows not None,
    list events not None,
    aside,
    limits not None,
    uint64_t revision,
    uint64_t time,
    uint64_t horizon,
    int64_t room,
):
    cdef Request *request
    cdef bytes frame, session, key, record, row, kept
    cdef list sessions = []
    cdef uint8_t packed[ANSWER]
    cdef uint64_t version = 0, used, number = 0
    cdef int64_t most = table.its.bytes + room, told = 0, rows_grown = 0
    cdef int size, many, n, length
    cdef size_t key_max = limits[0], value_max = limits[1]
    cdef Py_ssize_t position, frame_max = limits[2]
    for position in range(first, len(frames)):
        frame = frames[position]
        many = 0 if PyBytes_GET_SIZE(frame) > frame_max \
            else _found(frame, key_max, value_max, &number)
        if not many:
            break
        if not _doable(many, &table.its, rows, horizon, most - table.its.bytes, sessions):
            break
        length = <int> (put_integer(put_array(_answers, many + 1), number) - _answers)
        for n in range(many):
            request, session = &_requests[n], sessions[n]
            row = rows[session]
            used = little(<const uint8_t *> PyBytes_AS_STRING(row) + 8, 8)
            revision += 1
            record = _put(&table.its, request, revision, &version, aside)
            key = PyBytes_FromStringAndSize(<char *> request.key, request.key_size)
            events.append((revision, PUT_EVENT, key, record))
            told += <int64_t> request.key_size + PyBytes_GET_SIZE(record)
            size = _answer(packed, revision, version)
            kept = _row(request.sequence, used if used > time else time, packed, size)
            rows_grown += PyBytes_GET_SIZE(kept) - PyBytes_GET_SIZE(row)
            rows[session] = kept
            memcpy(_answers + length, packed, size)
            length += size
        answers.append(PyBytes_FromStringAndSize(<char *> _answers, length))
    else:
        position = len(frames)
    return position, revision, told, rows_grown


def dropped(list events not None, Py_ssize_t first, Py_ssize_t upto, tuple filler not None):
    cdef Py_ssize_t position, size = 0
    cdef tuple event
    if not 0 <= first <= upto <= len(events):
        raise IndexError(f"events {first} to {upto} of {len(events)}")
    for position in range(first, upto):
        event = events[position]
        size += PyBytes_GET_SIZE(<bytes> event[2]) + PyBytes_GET_SIZE(<bytes> event[3])
        events[position] = filler
    return size
