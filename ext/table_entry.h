/* An entry of the table: a key and its record, side by side; and the hash of a key.
 *
 *     entry = record_size:u32 key_size:u24 spare:u8 key record
 *
 * The key comes first, since most that is done with an entry is comparing its key, and both then lie
 * in one line of the cache. Sizes are rounded up to 16, as allocators do. A record that is longer
 * than the old one and still fits, or shorter by little, is written over it: then nothing moves.
 * `spare` is how many times 16 bytes are free behind it. */
#ifndef ENGINE_TABLE_ENTRY_H
#define ENGINE_TABLE_ENTRY_H
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    uint32_t record_size;
    uint32_t key_size : 24, spare : 8;
    uint8_t bytes[];
} table_entry;

#define TABLE_KEY_MAX (((size_t)1 << 24) - 1)
#define TABLE_RECORD_MAX ((size_t)1 << 31)
#define TABLE_SPARE_MAX ((size_t)255)

static inline const uint8_t *table_key(const table_entry *entry) { return entry->bytes; }

static inline uint8_t *table_record(table_entry *entry) { return entry->bytes + entry->key_size; }

static inline size_t table_bytes(size_t key_size, size_t record_size) {
    return (sizeof(table_entry) + key_size + record_size + 15) & ~(size_t)15;
}

/* NULL if there is no memory, or only some that does not fit a slot (`table_hash.h`). */
static inline table_entry *
table_entry_new(const uint8_t *key, size_t key_size, const uint8_t *record, size_t record_size) {
    table_entry *entry = PyMem_Malloc(table_bytes(key_size, record_size));
    if (!entry) return NULL;
    if ((uint64_t)(uintptr_t)entry >> 48) {
        PyMem_Free(entry);
        return NULL;
    }
    entry->record_size = (uint32_t)record_size;
    entry->key_size = (uint32_t)key_size & TABLE_KEY_MAX;
    entry->spare = 0;
    memcpy(entry->bytes, key, key_size);
    memcpy(entry->bytes + key_size, record, record_size);
    return entry;
}

/* Write a record over the old one; whether it is worth it: no more than a quarter is free then. */
static inline int table_rewrite(table_entry *entry, const uint8_t *record, size_t record_size) {
    size_t has = table_bytes(entry->key_size, entry->record_size) + 16 * (size_t)entry->spare;
    size_t needs = table_bytes(entry->key_size, record_size);
    if (needs > has || has - needs > has / 4 || has - needs > 16 * TABLE_SPARE_MAX) return 0;
    memcpy(table_record(entry), record, record_size);
    entry->record_size = (uint32_t)record_size;
    entry->spare = (uint32_t)((has - needs) / 16) & TABLE_SPARE_MAX;
    return 1;
}

/* Below, at or above 0, as that key is less than the entry's, the same, or greater. */
static inline int table_compare(const uint8_t *key, size_t size, const table_entry *entry) {
    size_t both = size < entry->key_size ? size : entry->key_size;
    int order = memcmp(key, table_key(entry), both);
    return order ? order : (size > entry->key_size) - (size < entry->key_size);
}

static inline int table_same(const uint8_t *key, size_t size, const table_entry *entry) {
    return size == entry->key_size && !memcmp(key, table_key(entry), size);
}

/* --- SipHash-1-3 --------------------------------------------------------------------------------
 * With a secret of the table, so that nobody can choose keys that collide. */

#define TABLE_TURN(x, n) ((x) << (n) | (x) >> (64 - (n)))

static inline void table_sip(uint64_t v[4]) {
    v[0] += v[1], v[2] += v[3];
    v[1] = TABLE_TURN(v[1], 13) ^ v[0], v[3] = TABLE_TURN(v[3], 16) ^ v[2];
    v[0] = TABLE_TURN(v[0], 32);
    v[2] += v[1], v[0] += v[3];
    v[1] = TABLE_TURN(v[1], 17) ^ v[2], v[3] = TABLE_TURN(v[3], 21) ^ v[0];
    v[2] = TABLE_TURN(v[2], 32);
}

static inline uint64_t table_hash(const uint64_t secret[2], const uint8_t *key, size_t size) {
    uint64_t v[4] = {
        secret[0] ^ UINT64_C(0x736f6d6570736575), secret[1] ^ UINT64_C(0x646f72616e646f6d),
        secret[0] ^ UINT64_C(0x6c7967656e657261), secret[1] ^ UINT64_C(0x7465646279746573),
    };
    uint64_t last = (uint64_t)size << 56, word;
    for (; size >= 8; key += 8, size -= 8) {
        memcpy(&word, key, 8);
        v[3] ^= word;
        table_sip(v);
        v[0] ^= word;
    }
    for (size_t n = 0; n < size; n++) last |= (uint64_t)key[n] << (8 * n);
    v[3] ^= last;
    table_sip(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    table_sip(v), table_sip(v), table_sip(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
