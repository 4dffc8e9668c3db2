/* Where an entry is, by the hash of its key: segments of slots, and a directory of segments.
 *
 * The highest bits of a hash choose the segment. One that is full gets a quarter more slots; one
 * that is full and large becomes two, and all that has to be moved for a put are the slots of one.
 * So no put takes long, and about four of five slots are taken, however many keys there are.
 *
 * A slot is 8 bytes: 48 of an address, and 16 of the hash, its tag. The tag says where in a segment
 * to look, and of nearly all other entries that they are not the one. Slots are probed one after the
 * other; when one becomes free those behind it that are not where they belong move up, so that
 * nothing is left of what was removed. */
#ifndef ENGINE_TABLE_HASH_H
#define ENGINE_TABLE_HASH_H
#include "table_entry.h"

typedef struct {
    uint32_t room, used, depth; /* bits of the hash that are the same for all in it */
    uint64_t slots[];           /* 0: free */
} table_segment;

typedef struct {
    table_segment **segments; /* 1 << depth, where several may be one */
    size_t deepest;           /* segments as deep as the directory */
    uint32_t depth;
    uint64_t secret[2];
} table_places;

enum {
    TABLE_SEGMENT_MIN = 8,
    TABLE_SEGMENT_MAX = 1024, /* one that has more slots is split */
    TABLE_MERGED_MAX = 384,   /* two that have no more entries together become one */
    TABLE_DEPTH_MAX = 26,
    TABLE_AHEAD = 12,
};

static inline table_entry *table_slot_entry(uint64_t slot) {
    return (table_entry *)(uintptr_t)(slot >> 16);
}

static inline uint64_t table_slot(const table_entry *entry, uint64_t hash) {
    return (uint64_t)(uintptr_t)entry << 16 | (hash & 0xffff);
}

static inline size_t table_home(const table_segment *segment, uint64_t slot) {
    return (size_t)((slot & 0xffff) * segment->room >> 16);
}

static inline size_t table_segment_at(const table_places *places, uint64_t hash) {
    return (size_t)(hash >> 1 >> (63 - places->depth));
}

static inline table_segment *table_segment_new(uint32_t room, uint32_t depth) {
    table_segment *segment = PyMem_Calloc(1, sizeof(table_segment) + room * sizeof(uint64_t));
    if (segment) segment->room = room, segment->depth = depth;
    return segment;
}

/* A slot that has room for it. */
static inline void table_settle(table_segment *segment, uint64_t slot) {
    size_t at = table_home(segment, slot);
    while (segment->slots[at]) at = at + 1 == segment->room ? 0 : at + 1;
    segment->slots[at] = slot;
    segment->used++;
}

static inline void table_settle_all(table_segment *to, const table_segment *from) {
    for (size_t at = 0; at < from->room; at++)
        if (from->slots[at]) table_settle(to, from->slots[at]);
}

static inline int table_full(uint32_t room, uint32_t used) { return used + room / 8 >= room; }

static inline int table_places_begin(table_places *places, const uint64_t secret[2]) {
    places->segments = PyMem_Malloc(sizeof(table_segment *));
    table_segment *only = table_segment_new(TABLE_SEGMENT_MIN, 0);
    if (!places->segments || !only) {
        PyMem_Free(places->segments);
        PyMem_Free(only);
        places->segments = NULL;
        return -1;
    }
    places->segments[0] = only;
    places->deepest = 1;
    places->depth = 0;
    memcpy(places->secret, secret, sizeof places->secret);
    return 0;
}

static inline void table_places_end(table_places *places) {
    if (!places->segments) return;
    for (size_t at = 0; at < (size_t)1 << places->depth;) {
        table_segment *segment = places->segments[at];
        at += (size_t)1 << (places->depth - segment->depth);
        PyMem_Free(segment);
    }
    PyMem_Free(places->segments);
    places->segments = NULL;
}

/* The slot of a key; NULL if it is not there. */
static inline uint64_t *
table_find(const table_places *places, uint64_t hash, const uint8_t *key, size_t size) {
    table_segment *segment = places->segments[table_segment_at(places, hash)];
    size_t at = table_home(segment, hash);
    for (uint64_t slot; (slot = segment->slots[at]); at = at + 1 == segment->room ? 0 : at + 1)
        if ((slot & 0xffff) == (hash & 0xffff) && table_same(key, size, table_slot_entry(slot)))
            return &segment->slots[at];
    return NULL;
}

/* Put a segment where all are whose hashes begin as this one, to so many bits. */
static inline void table_direct(table_places *places, uint64_t hash, table_segment *segment) {
    size_t many = (size_t)1 << (places->depth - segment->depth);
    size_t at = table_segment_at(places, hash) & ~(many - 1);
    for (size_t end = at + many; at < end; at++) places->segments[at] = segment;
}

static inline int table_resize(table_places *places, uint64_t hash, uint32_t room) {
    table_segment *old = places->segments[table_segment_at(places, hash)];
    table_segment *new = table_segment_new(room, old->depth);
    if (!new) return -1;
    table_settle_all(new, old);
    table_direct(places, hash, new);
    PyMem_Free(old);
    return 0;
}

static inline int table_deepen(table_places *places) {
    size_t many = (size_t)1 << places->depth;
    table_segment **segments = PyMem_Malloc(2 * many * sizeof *segments);
    if (!segments) return -1;
    for (size_t at = 0; at < many; at++)
        segments[2 * at] = segments[2 * at + 1] = places->segments[at];
    PyMem_Free(places->segments);
    places->segments = segments;
    places->depth++;
    places->deepest = 0;
    return 0;
}

/* By the next bit of their hashes, which must be made anew: a tag does not have it. */
static inline int table_split(table_places *places, uint64_t hash) {
    table_segment *old = places->segments[table_segment_at(places, hash)], *halves[2];
    if (old->depth == places->depth && table_deepen(places)) return -1;
    uint64_t bit = UINT64_C(1) << (63 - old->depth);
    halves[0] = table_segment_new(old->room, old->depth + 1);
    halves[1] = table_segment_new(old->room, old->depth + 1);
    if (!halves[0] || !halves[1]) {
        PyMem_Free(halves[0]);
        PyMem_Free(halves[1]);
        return -1; /* a directory that is deeper than it need be does no harm */
    }
    for (size_t at = 0; at < old->room; at++) {
        table_entry *entry = table_slot_entry(old->slots[at]);
        /* It mostly waits for memory, so it asks for some early. */
        if (at + TABLE_AHEAD < old->room)
            __builtin_prefetch(table_slot_entry(old->slots[at + TABLE_AHEAD]));
        if (!entry) continue;
        uint64_t its = table_hash(places->secret, table_key(entry), entry->key_size);
        table_settle(halves[!!(its & bit)], old->slots[at]);
    }
    table_direct(places, hash & ~bit, halves[0]);
    table_direct(places, hash | bit, halves[1]);
    if (halves[0]->depth == places->depth) places->deepest += 2;
    PyMem_Free(old);
    for (int half = 0; half < 2; half++) { /* if there is no memory for less, it keeps what it has */
        uint32_t room = halves[half]->used + halves[half]->used / 4 + TABLE_SEGMENT_MIN;
        if (room < halves[half]->room) table_resize(places, half ? hash | bit : hash & ~bit, room);
    }
    return 0;
}

/* Make room for one more, whose hash is this. */
static inline int table_reserve(table_places *places, uint64_t hash) {
    for (;;) {
        table_segment *segment = places->segments[table_segment_at(places, hash)];
        uint32_t room = segment->room + segment->room / 4 + TABLE_SEGMENT_MIN;
        if (!table_full(segment->room, segment->used)) return 0;
        int large = room > TABLE_SEGMENT_MAX && segment->depth < TABLE_DEPTH_MAX;
        if (large ? table_split(places, hash) : table_resize(places, hash, room)) return -1;
    }
}

static inline void table_place(table_places *places, uint64_t hash, const table_entry *entry) {
    table_settle(places->segments[table_segment_at(places, hash)], table_slot(entry, hash));
}

/* Two halves become one, if they are small; and a directory that nobody needs so deep shallower. */
static inline void table_merge(table_places *places, uint64_t hash) {
    table_segment *one = places->segments[table_segment_at(places, hash)], *other, *both;
    if (!one->depth) return;
    uint64_t twin = hash ^ UINT64_C(1) << (64 - one->depth);
    other = places->segments[table_segment_at(places, twin)];
    uint32_t used = one->used + other->used;
    if (other->depth != one->depth || used > TABLE_MERGED_MAX) return;
    if (!(both = table_segment_new(used + used / 4 + TABLE_SEGMENT_MIN, one->depth - 1))) return;
    table_settle_all(both, one);
    table_settle_all(both, other);
    table_direct(places, hash, both);
    if (one->depth == places->depth) places->deepest -= 2;
    PyMem_Free(one);
    PyMem_Free(other);
    if (places->deepest) return;
    size_t half = (size_t)1 << (places->depth - 1);
    for (size_t at = 0; at < half; at++) places->segments[at] = places->segments[2 * at];
    places->depth--;
    for (size_t at = 0; at < half; at++) places->deepest += places->segments[at]->depth == places->depth;
    void *less = PyMem_Realloc(places->segments, half * sizeof *places->segments);
    if (less) places->segments = less;
}

static inline size_t table_way(size_t from, size_t to, size_t room) {
    return to >= from ? to - from : to + room - from;
}

/* Free the slot of a key that is there. */
static inline void table_unplace(table_places *places, uint64_t hash, uint64_t *slot) {
    table_segment *segment = places->segments[table_segment_at(places, hash)];
    size_t free = (size_t)(slot - segment->slots), room = segment->room, at = free;
    for (;;) {
        at = at + 1 == room ? 0 : at + 1;
        if (!segment->slots[at]) break;
        size_t home = table_home(segment, segment->slots[at]);
        /* It may move up if its home is not between the free one and here. */
        if (table_way(home, at, room) >= table_way(free, at, room)) {
            segment->slots[free] = segment->slots[at];
            free = at;
        }
    }
    segment->slots[free] = 0;
    segment->used--;
    if (segment->used < room / 4 && room > 4 * TABLE_SEGMENT_MIN)
        table_resize(places, hash, (uint32_t)(segment->used + segment->used / 2 + TABLE_SEGMENT_MIN));
    table_merge(places, hash);
}

#endif
