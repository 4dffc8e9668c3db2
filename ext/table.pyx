"""The table of the store: keys with their records, by name and in order.

How they lie in memory is in `table_entry.h`, `table_hash.h` and `table_order.h`.
"""

cimport cython
import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from entries cimport (
    TABLE_KEY_MAX, TABLE_RECORD_MAX, key_table, table_begin, table_end, table_entry, table_find,
    table_get, table_hash, table_hashed, table_key, table_next, table_position, table_previous,
    table_put, table_record, table_remove, table_seek, table_spot, table_spot_at
)
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy


cdef inline const uint8_t *_at(bytes what) noexcept:
    return <const uint8_t *> PyBytes_AS_STRING(what)


cdef inline bytes _key(table_entry *entry):
    return PyBytes_FromStringAndSize(<const char *> table_key(entry), entry.key_size)


cdef inline bytes _record(table_entry *entry):
    return PyBytes_FromStringAndSize(<const char *> table_record(entry), entry.record_size)


cdef table_entry *_find(Table table, bytes key) noexcept:
    return table_get(&table.its, _at(key), PyBytes_GET_SIZE(key))


cdef int _put(Table table, bytes key, bytes record) except -1:
    cdef key_table *its = &table.its
    cdef size_t size = PyBytes_GET_SIZE(key), record_size = PyBytes_GET_SIZE(record)
    cdef uint64_t hash
    cdef uint64_t *slot
    if size > TABLE_KEY_MAX or record_size > TABLE_RECORD_MAX:
        raise OverflowError("a key has less than 16 MiB, and a record no more than 2 GiB")
    hash = table_hashed(its, _at(key), size)
    slot = table_find(&its.places, hash, _at(key), size)
    if table_put(its, hash, slot, _at(key), size, _at(record), record_size):
        raise MemoryError
    return 0


def hashed(bytes secret not None, bytes key not None):
    cdef uint64_t numbers[2]
    if PyBytes_GET_SIZE(secret) != sizeof(numbers):
        raise ValueError(f"a secret has {sizeof(numbers)} bytes")
    memcpy(numbers, PyBytes_AS_STRING(secret), sizeof(numbers))
    return table_hash(numbers, _at(key), PyBytes_GET_SIZE(key))


@cython.final
cdef class Table:
    cdef key_table its  # and no C methods: `entries.pxd` knows how it begins

    def __cinit__(self):
        cdef uint64_t secret[2]
        cdef bytes random = os.urandom(sizeof(secret))
        memcpy(secret, PyBytes_AS_STRING(random), sizeof(secret))
        if table_begin(&self.its, secret):
            raise MemoryError

    def __dealloc__(self):
        table_end(&self.its)

    @property
    def total(self):
        return self.its.bytes

    # --- one key ---------------------------------------------------------------------------------

    def __len__(self):
        return self.its.many

    def __contains__(self, bytes key not None):
        return _find(self, key) != NULL

    def __getitem__(self, bytes key not None):
        cdef table_entry *entry = _find(self, key)
        if entry == NULL:
            raise KeyError(key)
        return _record(entry)

    def get(self, bytes key not None):
        cdef table_entry *entry = _find(self, key)
        return None if entry == NULL else _record(entry)

    def head(self, bytes key not None, size_t most):
        cdef table_entry *entry = _find(self, key)
        if entry == NULL:
            return None
        return PyBytes_FromStringAndSize(
            <const char *> table_record(entry), min(most, entry.record_size)
        )

    def size(self, bytes key not None):
        cdef table_entry *entry = _find(self, key)
        return -1 if entry == NULL else <int64_t> entry.record_size

    def __setitem__(self, bytes key not None, bytes record not None):
        _put(self, key, record)

    def __delitem__(self, bytes key not None):
        if not table_remove(&self.its, _at(key), PyBytes_GET_SIZE(key)):
            raise KeyError(key)

    # --- in order --------------------------------------------------------------------------------

    def extend(self, keys, records):
        for key, record in zip(keys, records, strict=True):
            if not isinstance(key, bytes) or not isinstance(record, bytes):
                raise TypeError("keys and records are bytes")
            _put(self, <bytes> key, <bytes> record)

    def bisect(self, bytes key not None):
        cdef table_spot spot = table_seek(&self.its.order, _at(key), PyBytes_GET_SIZE(key))
        return table_position(&self.its.order, spot)

    def keys(self, size_t first=0, size_t last=<size_t> -1, bint reverse=False):
        cdef list found = []
        cdef table_spot spot
        last = min(last, self.its.many)
        if first >= last:
            return found
        spot = table_spot_at(&self.its.order, last if reverse else first)
        for _ in range(last - first):
            if reverse:
                found.append(_key(table_previous(&self.its.order, &spot)))
            else:
                found.append(_key(table_next(&self.its.order, &spot)))
        return found

    def __iter__(self):
        return iter(self.keys())

    def part(self, bytes start not None, size_t keys_max, int64_t bytes_max):
        cdef list keys = [], records = []
        cdef table_spot spot = table_seek(&self.its.order, _at(start), PyBytes_GET_SIZE(start))
        cdef table_entry *entry
        cdef int64_t size = 0
        for _ in range(keys_max):
            entry = table_next(&self.its.order, &spot) if size < bytes_max else NULL
            if entry == NULL:
                break
            keys.append(_key(entry))
            records.append(_record(entry))
            size += entry.key_size + <int64_t> entry.record_size
        return keys, records, table_next(&self.its.order, &spot) != NULL
