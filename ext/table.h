/* The table of the store: entries by their hash (`table_hash.h`) and in order (`table_order.h`).
 *
 * What changes it does all that may fail before anything is changed: without memory it stays as it
 * was. Addresses of entries hold until the next change. */
#ifndef ENGINE_TABLE_H
#define ENGINE_TABLE_H
#include "table_hash.h"
#include "table_order.h"

typedef struct {
    table_places places;
    table_order order;
    size_t many;
    int64_t bytes; /* of keys and records */
} key_table;

static inline int table_begin(key_table *its, const uint64_t secret[2]) {
    memset(its, 0, sizeof *its);
    return table_places_begin(&its->places, secret);
}

static inline void table_end(key_table *its) {
    for (size_t n = 0; n < its->order.many; n++)
        for (size_t at = 0; at < its->order.used[n]; at++)
            PyMem_Free(its->order.leaves[n]->entries[at]);
    table_order_end(&its->order);
    table_places_end(&its->places);
}

static inline uint64_t table_hashed(const key_table *its, const uint8_t *key, size_t size) {
    return table_hash(its->places.secret, key, size);
}

/* NULL if it is not there. */
static inline table_entry *table_get(const key_table *its, const uint8_t *key, size_t size) {
    uint64_t *slot = table_find(&its->places, table_hashed(its, key, size), key, size);
    return slot ? table_slot_entry(*slot) : NULL;
}

/* A new key. */
static inline int table_add(
    key_table *its, uint64_t hash, const uint8_t *key, size_t key_size, const uint8_t *record,
    size_t record_size
) {
    table_entry *entry = table_entry_new(key, key_size, record, record_size);
    if (!entry || table_reserve(&its->places, hash)) {
        PyMem_Free(entry);
        return -1;
    }
    table_spot spot = table_seek(&its->order, key, key_size);
    if (table_order_reserve(&its->order, &spot)) {
        PyMem_Free(entry);
        return -1;
    }
    table_order_add(&its->order, spot, entry);
    table_place(&its->places, hash, entry);
    its->many++;
    its->bytes += (int64_t)(key_size + record_size);
    return 0;
}

/* Write a record, which is none of the table's own, where `table_find` found its key, or did not.
 * -1: there is no memory. */
static inline int table_put(
    key_table *its, uint64_t hash, uint64_t *slot, const uint8_t *key, size_t key_size,
    const uint8_t *record, size_t record_size
) {
    if (!slot) return table_add(its, hash, key, key_size, record, record_size);
    table_entry *old = table_slot_entry(*slot);
    int64_t grown = (int64_t)record_size - old->record_size;
    if (!table_rewrite(old, record, record_size)) {
        table_entry *new = table_entry_new(key, key_size, record, record_size);
        if (!new) return -1;
        table_spot spot = table_seek(&its->order, key, key_size);
        its->order.leaves[spot.leaf]->entries[spot.at] = new;
        *slot = table_slot(new, hash);
        PyMem_Free(old);
    }
    its->bytes += grown;
    return 0;
}

/* Whether there was one. */
static inline int table_remove(key_table *its, const uint8_t *key, size_t size) {
    uint64_t hash = table_hashed(its, key, size), *slot = table_find(&its->places, hash, key, size);
    if (!slot) return 0;
    table_entry *entry = table_slot_entry(*slot);
    table_order_remove(&its->order, table_seek(&its->order, key, size));
    table_unplace(&its->places, hash, slot);
    its->many--;
    its->bytes -= (int64_t)(entry->key_size + (size_t)entry->record_size);
    PyMem_Free(entry);
    return 1;
}

/* How an object of `engine.kernels.table.Table` begins, for other kernels. */
typedef struct {
    PyObject_HEAD
    key_table its;
} table_object;

#endif
