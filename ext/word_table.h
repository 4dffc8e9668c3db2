/* The table of counted words: two open-addressing tables, an arena for long words, one budget.
 *
 * Most words of most texts have at most eight bytes, so those live in slots of 16 bytes that hold
 * the word itself; words of 9 to 16 bytes in slots of 32; longer ones there too, with their text in
 * the arena. Letters are never zero bytes: a zero key is an empty slot, and a word's length is
 * where its key ends.
 *
 * Load stays at or below one half, for speed, and because the free half then is the scratch space
 * that sorting needs (word_sort.h): writing a section takes no memory that counting had not.
 *
 * Every growth is asked for before it happens (`word_table_reserve`), old and new together against
 * the budget, so a refusal leaves the table whole.
 */
#ifndef ENGINE_WORD_TABLE_H
#define ENGINE_WORD_TABLE_H
#include <stdint.h>
#include <string.h>

#include "memory.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words are compared as little-endian numbers"
#endif

#define WORD_BYTES_MAX ((size_t)64 << 20)
#define WORD_COUNT_BITS 48 /* of a slot's count; the upper 16 hold its partition while sorting */
#define SHORT_SLOTS_MIN ((size_t)1 << 12)
#define LONG_SLOTS_MIN ((size_t)1 << 10)
#define ARENA_CHUNK_BYTES ((size_t)64 << 10)

typedef struct {
    uint64_t key; /* 1 to 8 bytes of text, then zeros */
    uint64_t count;
} short_slot;

typedef struct {
    uint64_t first;  /* bytes 0 to 7 */
    uint64_t second; /* bytes 8 to 15, then zeros */
    uint64_t count;
    const uint8_t *record; /* of words over 16 bytes: length as size_t, then all bytes; else NULL */
} long_slot;

typedef struct arena_chunk {
    struct arena_chunk *next;
    size_t size; /* mapped, this header included */
    size_t used;
} arena_chunk;

typedef struct {
    short_slot *shorts;
    long_slot *longs;
    size_t short_slots, long_slots; /* powers of two */
    size_t short_keys, long_keys;
    arena_chunk *arena; /* the chunk in use is the head */
    size_t mapped;      /* bytes mapped by this table and whoever shares its budget */
    size_t budget;
} word_table;

/* How slots are placed differs with the instruction set, so moving them is a level's own work. */
typedef void word_rehash_shorts(short_slot *to, size_t to_slots, const short_slot *from, size_t n);
typedef void word_rehash_longs(long_slot *to, size_t to_slots, const long_slot *from, size_t n);

typedef enum {
    RESERVE_DONE,
    RESERVE_OVER_BUDGET,
    RESERVE_NO_MEMORY,
} reserve_result;

static inline size_t record_length(const uint8_t *record) {
    size_t length;
    memcpy(&length, record, sizeof length);
    return length;
}

static inline const uint8_t *record_text(const uint8_t *record) { return record + sizeof(size_t); }

static inline size_t record_bytes(size_t length) {
    return sizeof(size_t) + ((length + 7) & ~(size_t)7);
}

static inline size_t word_table_keys(const word_table *table) {
    return table->short_keys + table->long_keys;
}

/* The length of a word of up to 8 bytes (up to 16 with its second half), by its key. */
static inline size_t key_length(uint64_t key) { return 8 - ((size_t)__builtin_clzll(key) >> 3); }

/* --- opening and closing -------------------------------------------------------------------- */

static int word_table_open(word_table *table, size_t budget) {
    memset(table, 0, sizeof *table);
    table->budget = budget;
    table->short_slots = SHORT_SLOTS_MIN;
    table->long_slots = LONG_SLOTS_MIN;
    table->shorts = memory_map(table->short_slots * sizeof(short_slot));
    table->longs = memory_map(table->long_slots * sizeof(long_slot));
    table->mapped = SHORT_SLOTS_MIN * sizeof(short_slot) + LONG_SLOTS_MIN * sizeof(long_slot);
    return table->shorts && table->longs;
}

static void arena_drop(word_table *table, arena_chunk *chunk) {
    table->mapped -= chunk->size;
    memory_unmap(chunk, chunk->size);
}

static void word_table_close(word_table *table) {
    while (table->arena) {
        arena_chunk *next = table->arena->next;
        arena_drop(table, table->arena);
        table->arena = next;
    }
    memory_unmap(table->shorts, table->short_slots * sizeof(short_slot));
    memory_unmap(table->longs, table->long_slots * sizeof(long_slot));
    table->shorts = NULL;
    table->longs = NULL;
}

/* --- growing -------------------------------------------------------------------------------- */

static int word_table_allows(const word_table *table, size_t more) {
    return table->mapped <= table->budget && more <= table->budget - table->mapped;
}

/* Slots needed for so many keys at a load of one half. */
static size_t slots_for(size_t slots, size_t keys) {
    while (slots < 2 * keys) slots *= 2;
    return slots;
}

static reserve_result
word_table_grow_shorts(word_table *table, size_t slots, word_rehash_shorts *rehash) {
    short_slot *grown = memory_map(slots * sizeof(short_slot));
    if (!grown) return RESERVE_NO_MEMORY;
    rehash(grown, slots, table->shorts, table->short_slots);
    memory_unmap(table->shorts, table->short_slots * sizeof(short_slot));
    table->mapped += (slots - table->short_slots) * sizeof(short_slot);
    table->shorts = grown;
    table->short_slots = slots;
    return RESERVE_DONE;
}

static reserve_result
word_table_grow_longs(word_table *table, size_t slots, word_rehash_longs *rehash) {
    long_slot *grown = memory_map(slots * sizeof(long_slot));
    if (!grown) return RESERVE_NO_MEMORY;
    rehash(grown, slots, table->longs, table->long_slots);
    memory_unmap(table->longs, table->long_slots * sizeof(long_slot));
    table->mapped += (slots - table->long_slots) * sizeof(long_slot);
    table->longs = grown;
    table->long_slots = slots;
    return RESERVE_DONE;
}

static reserve_result arena_grow(word_table *table, size_t size) {
    arena_chunk *chunk = memory_map(size);
    if (!chunk) return RESERVE_NO_MEMORY;
    chunk->size = size;
    chunk->used = sizeof *chunk;
    chunk->next = table->arena;
    table->arena = chunk;
    table->mapped += size;
    return RESERVE_DONE;
}

/* Make room for so many new words and bytes of arena records. `force` ignores the budget: a table
 * must take at least one word, however small its budget. */
static reserve_result
word_table_reserve(word_table *table, size_t shorts, size_t longs, size_t arena_bytes, int force,
                   word_rehash_shorts *rehash_shorts, word_rehash_longs *rehash_longs) {
    size_t short_slots = slots_for(table->short_slots, table->short_keys + shorts);
    size_t long_slots = slots_for(table->long_slots, table->long_keys + longs);
    size_t room = table->arena ? table->arena->size - table->arena->used : 0;
    size_t chunk = 0, more = 0;
    if (arena_bytes > room) {
        chunk = memory_round(sizeof(arena_chunk) + arena_bytes);
        if (chunk < ARENA_CHUNK_BYTES) chunk = ARENA_CHUNK_BYTES;
        more += chunk;
    }
    if (short_slots > table->short_slots) more += short_slots * sizeof(short_slot);
    if (long_slots > table->long_slots) more += long_slots * sizeof(long_slot);
    if (usually(!more)) return RESERVE_DONE;
    if (!force && !word_table_allows(table, more)) return RESERVE_OVER_BUDGET;

    reserve_result result = RESERVE_DONE;
    if (chunk) result = arena_grow(table, chunk);
    if (result == RESERVE_DONE && short_slots > table->short_slots)
        result = word_table_grow_shorts(table, short_slots, rehash_shorts);
    if (result == RESERVE_DONE && long_slots > table->long_slots)
        result = word_table_grow_longs(table, long_slots, rehash_longs);
    return result;
}

/* A record of `text` in the arena, where room for it has been reserved. */
static const uint8_t *arena_keep(word_table *table, const uint8_t *text, size_t length) {
    arena_chunk *chunk = table->arena;
    uint8_t *record = (uint8_t *)chunk + chunk->used;
    memcpy(record, &length, sizeof length);
    memcpy(record + sizeof length, text, length);
    chunk->used += record_bytes(length);
    return record;
}

/* --- clearing ------------------------------------------------------------------------------- */

/* Slots to keep for the next filling: all, or a quarter if this one needed less than an eighth. */
static size_t slots_to_keep(size_t slots, size_t keys, size_t least) {
    size_t kept = keys * 8 < slots ? slots / 4 : slots;
    return kept < least ? least : kept;
}

/* Forget all words. Memory is kept for the next filling as far as this one made use of it, since
 * touching fresh memory costs more than counting the words that go there. */
static void word_table_clear(word_table *table) {
    size_t shorts = slots_to_keep(table->short_slots, table->short_keys, SHORT_SLOTS_MIN);
    size_t longs = slots_to_keep(table->long_slots, table->long_keys, LONG_SLOTS_MIN);
    if (table->short_keys) memset(table->shorts, 0, shorts * sizeof(short_slot));
    if (table->long_keys) memset(table->longs, 0, longs * sizeof(long_slot));
    memory_unmap(shorts < table->short_slots ? table->shorts + shorts : NULL,
                 (table->short_slots - shorts) * sizeof(short_slot));
    memory_unmap(longs < table->long_slots ? table->longs + longs : NULL,
                 (table->long_slots - longs) * sizeof(long_slot));
    table->mapped -= (table->short_slots - shorts) * sizeof(short_slot);
    table->mapped -= (table->long_slots - longs) * sizeof(long_slot);
    table->short_slots = shorts;
    table->long_slots = longs;
    table->short_keys = table->long_keys = 0;
    while (table->arena && table->arena->next) {
        arena_chunk *next = table->arena->next;
        arena_drop(table, table->arena);
        table->arena = next;
    }
    if (table->arena && table->arena->size > ARENA_CHUNK_BYTES) {
        arena_drop(table, table->arena);
        table->arena = NULL;
    }
    if (table->arena) table->arena->used = sizeof(arena_chunk);
}

#endif
