"""The commonest thing that is asked of the store: gets, one or many in a frame.

What frames, answers and records look like is in `engine.kv.commands` and `store`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free
from entries cimport Table, table_entry, table_get, table_record
from libc.stdint cimport int64_t, uint8_t, uint64_t
from packed cimport (
    Buffer, array, binary, little, natural, put, put_array, put_binary, put_integer, space
)

cdef enum:
    GET = 32
    HEAD = 24          # of a record: create, mod, version
    LEASE = 8
    ASKS_MOST = 1024
    INTEGER = 9        # bytes that a packed integer has at most
    KEPT = 1 << 18     # a buffer that is larger is let go

cdef uint64_t LEASED = <uint64_t> 1 << 63
cdef Buffer _answers


cdef int _begin(uint64_t many, uint64_t number) except -1:
    """[number, answer, …]: its head, and the number."""
    cdef uint8_t *out = space(&_answers, 5 + INTEGER)
    _answers.end += put_integer(put_array(out, many), number) - out
    return 0


cdef int _missing(uint64_t revision) except -1:
    """[NOT_FOUND, revision]"""
    cdef uint8_t *out = space(&_answers, 2 + INTEGER)
    out[0], out[1] = 0x92, 2
    _answers.end += put_integer(out + 2, revision) - out
    return 0


cdef int _found(table_entry *entry, uint64_t revision) except -1:
    """[OK, revision, value, create, mod, version, lease]"""
    cdef const uint8_t *at = table_record(entry)
    cdef uint64_t version = little(at + 16, 8), lease = 0
    cdef int head = HEAD
    cdef uint8_t *out = space(&_answers, 2 + INTEGER)
    cdef uint8_t *after
    if version & LEASED:
        version, lease, head = version ^ LEASED, little(at + HEAD, 8), HEAD + LEASE
    out[0], out[1] = 0x97, 0
    _answers.end += put_integer(out + 2, revision) - out
    put_binary(&_answers, at + head, entry.record_size - head)
    out = space(&_answers, 4 * INTEGER)
    after = put_integer(put_integer(out, little(at, 8)), little(at + 8, 8))
    _answers.end += put_integer(put_integer(after, version), lease) - out
    return 0


def gets(bytes frame not None, Table table not None, uint64_t revision, int64_t room, int64_t rows):
    cdef const uint8_t *at = <const uint8_t *> PyBytes_AS_STRING(frame)
    cdef const uint8_t *end = at + PyBytes_GET_SIZE(frame)
    cdef const uint8_t *key = NULL
    cdef size_t key_size = 0
    cdef uint64_t many = 0, number = 0, left
    cdef int64_t size
    cdef table_entry *found
    cdef bint fresh = True
    at = natural(array(at, end, &many), end, &number)
    if at == NULL or not 2 <= many <= 1 + ASKS_MOST:
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
        found = table_get(&table.its, key, key_size)
        if found == NULL:
            _missing(revision)
            continue
        size = <int64_t> key_size + found.record_size
        if not fresh and (size > room or rows <= 0):
            put(&_answers, b"\x92\x05\xa6answer", 9)
            continue
        fresh = False
        room, rows = room - size, rows - 1
        _found(found, revision)
    if at != end:
        return None
    answer = PyBytes_FromStringAndSize(<const char *> _answers.at, <Py_ssize_t> _answers.end)
    if _answers.room > KEPT:
        _let_go()
    return answer


cdef void _let_go() noexcept:
    PyMem_Free(_answers.at)
    _answers.at, _answers.room, _answers.begin, _answers.end = NULL, 0, 0, 0
