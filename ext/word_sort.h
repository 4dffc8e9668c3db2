/* Sorting the words of a table by (partition, bytes), within the memory that the table has.
 *
 * The table's slots become the records: packed together they fill at most half of it, and the other
 * half is the scratch space. Keys are turned big-endian, so that comparing numbers compares bytes,
 * and a radix sort from the top byte then needs no comparison at all for words of up to 8 bytes.
 */
#ifndef ENGINE_WORD_SORT_H
#define ENGINE_WORD_SORT_H
#include <stdint.h>
#include <string.h>

#include "fnv.h"
#include "word_table.h"

#define PARTITIONS_MAX (1u << (64 - WORD_COUNT_BITS))
#define WORD_COUNT_MASK (((uint64_t)1 << WORD_COUNT_BITS) - 1)
#define INSERTION_SORT_MAX 24 /* below this, counting digits costs more than moving records */

static inline uint64_t text_order(uint64_t key) { return __builtin_bswap64(key); }

static inline uint32_t short_partition(const short_slot *slot, uint32_t partitions) {
    return fnv_partition(fnv_continue_key(FNV_BASIS, slot->key), partitions);
}

static inline uint32_t long_partition(const long_slot *slot, uint32_t partitions) {
    uint32_t hash;
    if (slot->record) {
        hash = fnv_continue(FNV_BASIS, record_text(slot->record), record_length(slot->record));
    } else {
        hash = fnv_continue_key(FNV_BASIS, slot->first);
        hash = fnv_continue_key(hash, slot->second);
    }
    return fnv_partition(hash, partitions);
}

/* --- comparing ------------------------------------------------------------------------------ */

static inline int short_before(const short_slot *one, const short_slot *other) {
    return one->key < other->key;
}

/* The bytes of a word (keys in text order): in the arena, or unpacked to `room`. */
static const uint8_t *long_text(const long_slot *slot, uint8_t room[16], size_t *length) {
    if (slot->record) {
        *length = record_length(slot->record);
        return record_text(slot->record);
    }
    uint64_t first = text_order(slot->first), second = text_order(slot->second);
    memcpy(room, &first, 8);
    memcpy(room + 8, &second, 8);
    *length = 8 + key_length(second);
    return room;
}

static int long_before(const long_slot *one, const long_slot *other) {
    if (one->first != other->first) return one->first < other->first;
    if (one->second != other->second) return one->second < other->second;
    uint8_t one_room[16], other_room[16];
    size_t one_length, other_length;
    const uint8_t *one_text = long_text(one, one_room, &one_length);
    const uint8_t *other_text = long_text(other, other_room, &other_length);
    size_t common = one_length < other_length ? one_length : other_length;
    int order = memcmp(one_text, other_text, common);
    return order ? order < 0 : one_length < other_length;
}

/* --- sorting -------------------------------------------------------------------------------- */

static inline uint64_t short_digit(const short_slot *slot, int digit) {
    return slot->key >> (56 - 8 * digit) & 255;
}

static inline uint64_t long_digit(const long_slot *slot, int digit) {
    uint64_t half = digit < 8 ? slot->first : slot->second;
    return half >> (56 - 8 * (digit & 7)) & 255;
}

/* Two kinds of slots, one way to sort them. NAME_sort sorts slots[0..n), whose first `digit` bytes
 * are equal, with as much scratch; the result ends up in `scratch` if `to_scratch`, else in place.
 * What remains equal after all digits is merge-sorted (only words over 16 bytes can be). */
#define DEFINE_SORT(NAME, DIGITS)                                                                  \
    static void NAME##_insertion(NAME##_slot *slots, size_t n) {                                   \
        for (size_t i = 1; i < n; i++) {                                                           \
            NAME##_slot moved = slots[i];                                                          \
            size_t at = i;                                                                         \
            for (; at && NAME##_before(&moved, &slots[at - 1]); at--) slots[at] = slots[at - 1];   \
            slots[at] = moved;                                                                     \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    static void NAME##_merge_sort(NAME##_slot *slots, NAME##_slot *scratch, size_t n) {            \
        if (n <= INSERTION_SORT_MAX) {                                                             \
            NAME##_insertion(slots, n);                                                            \
            return;                                                                                \
        }                                                                                          \
        size_t half = n / 2, left = 0, right = half, to = 0;                                       \
        NAME##_merge_sort(slots, scratch, half);                                                   \
        NAME##_merge_sort(slots + half, scratch, n - half);                                        \
        memcpy(scratch, slots, half * sizeof *slots);                                              \
        while (left < half)                                                                        \
            slots[to++] = right < n && NAME##_before(&slots[right], &scratch[left])                \
                              ? slots[right++]                                                     \
                              : scratch[left++];                                                   \
    }                                                                                              \
                                                                                                   \
    static void NAME##_sort(NAME##_slot *slots, NAME##_slot *scratch, size_t n, int digit,         \
                            int to_scratch) {                                                      \
        size_t ends[256];                                                                          \
        for (;; digit++) {                                                                         \
            if (n <= INSERTION_SORT_MAX || digit == DIGITS) {                                      \
                NAME##_merge_sort(slots, scratch, n);                                              \
                if (to_scratch) memcpy(scratch, slots, n * sizeof *slots);                         \
                return;                                                                            \
            }                                                                                      \
            memset(ends, 0, sizeof ends);                                                          \
            for (size_t i = 0; i < n; i++) ends[NAME##_digit(&slots[i], digit)]++;                 \
            if (ends[NAME##_digit(&slots[0], digit)] != n) break; /* else all alike: next digit */ \
        }                                                                                          \
        size_t begin = 0;                                                                          \
        for (int value = 0; value < 256; value++) {                                                \
            size_t count = ends[value];                                                            \
            ends[value] = begin;                                                                   \
            begin += count;                                                                        \
        }                                                                                          \
        for (size_t i = 0; i < n; i++) scratch[ends[NAME##_digit(&slots[i], digit)]++] = slots[i]; \
        begin = 0;                                                                                 \
        for (int value = 0; value < 256; value++) {                                                \
            size_t count = ends[value] - begin;                                                    \
            if (count)                                                                             \
                NAME##_sort(scratch + begin, slots + begin, count, digit + 1, !to_scratch);        \
            begin = ends[value];                                                                   \
        }                                                                                          \
    }

DEFINE_SORT(short, 8)
DEFINE_SORT(long, 16)

/* --- by partition --------------------------------------------------------------------------- */

/* Where the sorted words of each partition end; they begin where the last one's ended. */
typedef struct {
    const short_slot *shorts;
    const long_slot *longs;
    size_t *short_ends, *long_ends; /* one a partition */
} sorted_words;

/* Turn per-partition counts into the places where each begins. */
static void begins_from_counts(size_t *counts, uint32_t partitions) {
    size_t begin = 0;
    for (uint32_t partition = 0; partition < partitions; partition++) {
        size_t count = counts[partition];
        counts[partition] = begin;
        begin += count;
    }
}

static void sort_shorts(word_table *table, uint32_t partitions, sorted_words *sorted) {
    short_slot *packed = table->shorts, *scratch = table->shorts + table->short_slots / 2;
    size_t *ends = sorted->short_ends, keys = 0;
    for (size_t i = 0; i < table->short_slots; i++) {
        if (!packed[i].key) continue;
        uint64_t partition = short_partition(&packed[i], partitions);
        ends[partition]++;
        packed[keys].count = packed[i].count | partition << WORD_COUNT_BITS;
        packed[keys++].key = text_order(packed[i].key);
    }
    begins_from_counts(ends, partitions);
    for (size_t i = 0; i < keys; i++) {
        short_slot *to = &scratch[ends[packed[i].count >> WORD_COUNT_BITS]++];
        to->key = packed[i].key;
        to->count = packed[i].count & WORD_COUNT_MASK;
    }
    for (size_t partition = 0, begin = 0; partition < partitions; begin = ends[partition++])
        short_sort(scratch + begin, packed + begin, ends[partition] - begin, 0, 0);
    sorted->shorts = scratch;
}

static void sort_longs(word_table *table, uint32_t partitions, sorted_words *sorted) {
    long_slot *packed = table->longs, *scratch = table->longs + table->long_slots / 2;
    size_t *ends = sorted->long_ends, keys = 0;
    for (size_t i = 0; i < table->long_slots; i++) {
        if (!packed[i].first) continue;
        uint64_t partition = long_partition(&packed[i], partitions);
        ends[partition]++;
        packed[keys] = packed[i];
        packed[keys].first = text_order(packed[i].first);
        packed[keys].second = text_order(packed[i].second);
        packed[keys++].count |= partition << WORD_COUNT_BITS;
    }
    begins_from_counts(ends, partitions);
    for (size_t i = 0; i < keys; i++) {
        long_slot *to = &scratch[ends[packed[i].count >> WORD_COUNT_BITS]++];
        *to = packed[i];
        to->count &= WORD_COUNT_MASK;
    }
    for (size_t partition = 0, begin = 0; partition < partitions; begin = ends[partition++])
        long_sort(scratch + begin, packed + begin, ends[partition] - begin, 0, 0);
    sorted->longs = scratch;
}

#endif
