"""The table of the store, for kernels that look into it: see `table.h`."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "table.h":
    ctypedef struct table_entry:
        uint32_t record_size, key_size

    ctypedef struct table_places:
        pass

    ctypedef struct table_order:
        pass

    ctypedef struct table_spot:
        size_t leaf, at

    ctypedef struct key_table:
        table_places places
        table_order order
        size_t many
        int64_t bytes

    size_t TABLE_KEY_MAX, TABLE_RECORD_MAX
    uint64_t table_hash(const uint64_t *secret, const uint8_t *key, size_t size) noexcept
    const uint8_t *table_key(const table_entry *entry) noexcept
    uint8_t *table_record(table_entry *entry) noexcept
    table_entry *table_slot_entry(uint64_t slot) noexcept
    uint64_t *table_find(
        const table_places *places, uint64_t hash, const uint8_t *key, size_t size
    ) noexcept
    table_spot table_seek(const table_order *order, const uint8_t *key, size_t size) noexcept
    table_spot table_spot_at(const table_order *order, size_t position) noexcept
    size_t table_position(const table_order *order, table_spot spot) noexcept
    table_entry *table_next(const table_order *order, table_spot *spot) noexcept
    table_entry *table_previous(const table_order *order, table_spot *spot) noexcept
    int table_begin(key_table *its, const uint64_t *secret) noexcept
    void table_end(key_table *its) noexcept
    uint64_t table_hashed(const key_table *its, const uint8_t *key, size_t size) noexcept
    table_entry *table_get(const key_table *its, const uint8_t *key, size_t size) noexcept
    int table_put(
        key_table *its, uint64_t hash, uint64_t *slot, const uint8_t *key, size_t key_size,
        const uint8_t *record, size_t record_size
    ) noexcept
    int table_remove(key_table *its, const uint8_t *key, size_t size) noexcept

    ctypedef class engine.kernels.table.Table [object table_object]:
        cdef key_table its
