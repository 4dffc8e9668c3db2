/* Records of counted words: keys, a cursor over one sorted segment, and where merged ones go.
 *
 * A key is compared by its first 16 bytes as two big-endian numbers; padding with zeros keeps the
 * order, and what is equal there is settled by length and, past 16 bytes, by memcmp.
 *
 * The cursor trusts a block's checksum for the bytes but not their writer for their meaning: no
 * length is followed past its block, and keys must ascend, across blocks too. The sink writes the
 * bytes of a key once, where they belong in the output, and the count behind them when it is known;
 * so a key outlives the blocks that it came from.
 */
#ifndef ENGINE_COUNTS_H
#define ENGINE_COUNTS_H
#include "blocks.h"

#define COUNTS_LIKELY(x) __builtin_expect(!!(x), 1)
#define COUNTS_UNLIKELY(x) __builtin_expect(!!(x), 0)

#define COUNTS_UVARINT_MAX 10 /* bytes of the longest uvarint */
#define COUNTS_DECIMAL_MAX 20 /* digits of the largest count */

/* What one merge shares between its cursors and its sink. */
typedef struct {
    blocks_identity expected;
    blocks_failure failure;
    uint64_t *page; /* or NULL */
    blocks_output output;
    int text;           /* lines of `key count`, or blocks */
    runs_header header; /* of the blocks written: the template, and the records of the open one */
    uint64_t keys;
    uint64_t total;
} counts_merge;

static inline int counts_overflow(counts_merge *merge) {
    merge->failure = (blocks_failure){.kind = BLOCKS_OVERFLOW};
    return -1;
}

/* --- keys ------------------------------------------------------------------------------------- */

#define COUNTS_END SIZE_MAX

typedef struct {
    uint64_t high, low;   /* bytes 0-7 and 8-15, big-endian, zeros behind the end */
    size_t length;        /* COUNTS_END: behind the last key, greater than all keys */
    const uint8_t *bytes; /* length of them, and at least 16 can be read */
} counts_key;

static const counts_key counts_end = {UINT64_MAX, UINT64_MAX, COUNTS_END, NULL};

static inline uint64_t counts_big_endian(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return __builtin_bswap64(word);
}

static inline counts_key counts_make_key(const uint8_t *bytes, size_t length) {
    counts_key key = {counts_big_endian(bytes), 0, length, bytes};
    if (length < 8) {
        key.high &= ~(UINT64_MAX >> (8 * length));
    } else if (length > 8) {
        key.low = counts_big_endian(bytes + 8);
        if (length < 16) key.low &= ~(UINT64_MAX >> (8 * (length - 8)));
    }
    return key;
}

/* Order of keys whose first 16 bytes, padded, are equal: negative, 0 or positive. */
static inline int counts_compare_tails(const counts_key *a, const counts_key *b) {
    size_t shorter = a->length < b->length ? a->length : b->length;
    size_t longer = a->length < b->length ? b->length : a->length;
    if (shorter > 16 && longer != COUNTS_END) {
        int order = memcmp(a->bytes + 16, b->bytes + 16, shorter - 16);
        if (order) return order;
    }
    return (a->length > b->length) - (a->length < b->length);
}

static inline int counts_before(const counts_key *a, const counts_key *b) {
    if (COUNTS_LIKELY(a->high != b->high)) return a->high < b->high;
    if (a->low != b->low) return a->low < b->low;
    return counts_compare_tails(a, b) < 0;
}

static inline int counts_equal(const counts_key *a, const counts_key *b) {
    return a->high == b->high && a->low == b->low && a->length == b->length &&
           (a->length <= 16 || counts_compare_tails(a, b) == 0);
}

static inline void counts_copy(uint8_t *to, const counts_key *key) {
    memcpy(to, key->bytes, 16); /* all of most keys, in two moves; both sides have slack */
    if (COUNTS_UNLIKELY(key->length > 16)) memcpy(to + 16, key->bytes + 16, key->length - 16);
}

/* --- uvarints --------------------------------------------------------------------------------- */

static inline uint8_t *counts_put_uvarint(uint8_t *to, uint64_t value) {
    for (; value > 127; value >>= 7) *to++ = (uint8_t)(value | 128);
    *to++ = (uint8_t)value;
    return to;
}

/* The byte behind the uvarint at `from`, or NULL: it runs past `limit` or 64 bits. */
static inline const uint8_t *counts_get_uvarint(const uint8_t *from, const uint8_t *limit,
                                                uint64_t *value) {
    *value = 0;
    for (int shift = 0; from < limit && shift < 64; shift += 7) {
        uint64_t bits = *from & 127;
        if (shift == 63 && bits > 1) return NULL;
        *value |= bits << shift;
        if (*from++ < 128) return from;
    }
    return NULL;
}

/* --- cursor ----------------------------------------------------------------------------------- */

typedef struct {
    counts_key key; /* of the record in hand, */
    uint64_t count; /* its count */
    const uint8_t *next, *limit;
    uint32_t left; /* records of the block not yet read */
    blocks_reader reader;
    uint8_t *last; /* the last key of the block before: its bytes are gone with their window */
    size_t last_capacity;
} counts_cursor;

/* Close is safe on a cursor whose memory is zeroed, and after a failed open. */
static inline void counts_close_cursor(counts_cursor *cursor) {
    blocks_close_reader(&cursor->reader);
    free(cursor->last);
    cursor->last = NULL;
}

static inline int counts_read_record(counts_cursor *cursor, counts_merge *merge) {
    const uint8_t *from = cursor->next;
    uint64_t length = *from;
    if (COUNTS_LIKELY(length < 128))
        from++;
    else if (!(from = counts_get_uvarint(from, cursor->limit, &length)))
        return blocks_damaged(&cursor->reader, "a length is malformed", &merge->failure);
    if (COUNTS_UNLIKELY(length >= (uint64_t)(cursor->limit - from) || cursor->left == 0))
        return blocks_damaged(&cursor->reader, "a record runs past the block", &merge->failure);
    counts_key key = counts_make_key(from, (size_t)length);
    from += length;
    if (COUNTS_LIKELY(*from < 128))
        cursor->count = *from++;
    else if (!(from = counts_get_uvarint(from, cursor->limit, &cursor->count)))
        return blocks_damaged(&cursor->reader, "a count is malformed", &merge->failure);
    if (COUNTS_UNLIKELY(!counts_before(&cursor->key, &key)))
        return blocks_damaged(&cursor->reader, "the keys do not ascend", &merge->failure);
    cursor->key = key;
    cursor->next = from;
    cursor->left--;
    return 0;
}

static inline int counts_keep_last(counts_cursor *cursor, counts_merge *merge) {
    size_t need = cursor->key.length + 16;
    if (cursor->last_capacity < need) {
        free(cursor->last);
        cursor->last_capacity = 0;
        cursor->last = calloc(need, 1);
        if (!cursor->last) return blocks_failed(&merge->failure, ENOMEM);
        cursor->last_capacity = need;
    }
    if (cursor->key.length) memcpy(cursor->last, cursor->key.bytes, cursor->key.length);
    cursor->key.bytes = cursor->last;
    return 0;
}

/* The first record of the next block, or the end. */
static __attribute__((noinline)) int counts_turn_block(counts_cursor *cursor, counts_merge *merge) {
    if (cursor->left)
        return blocks_damaged(&cursor->reader, "records are missing", &merge->failure);
    if (counts_keep_last(cursor, merge) < 0) return -1;
    int more = blocks_next(&cursor->reader, &merge->expected, &merge->failure);
    if (more < 0) return -1;
    blocks_move_page(merge->page, blocks_size(&merge->output));
    if (!more) {
        cursor->key = counts_end;
        return 0;
    }
    if (cursor->reader.header.keys)
        return blocks_damaged(&cursor->reader, "the block's lengths disagree", &merge->failure);
    cursor->next = cursor->reader.payload;
    cursor->limit = cursor->next + cursor->reader.header.payload;
    cursor->left = cursor->reader.header.records;
    return counts_read_record(cursor, merge);
}

/* Have the next record in hand; behind the last one, `key` is `counts_end`. */
static inline int counts_advance(counts_cursor *cursor, counts_merge *merge) {
    if (COUNTS_UNLIKELY(cursor->next == cursor->limit)) return counts_turn_block(cursor, merge);
    return counts_read_record(cursor, merge);
}

/* --- sink ------------------------------------------------------------------------------------- */

static inline uint8_t *counts_put_decimal(uint8_t *to, uint64_t value) {
    uint8_t digits[COUNTS_DECIMAL_MAX];
    int first = COUNTS_DECIMAL_MAX;
    do {
        digits[--first] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value);
    memcpy(to, digits + first, (size_t)(COUNTS_DECIMAL_MAX - first));
    return to + (COUNTS_DECIMAL_MAX - first);
}

static inline void counts_seal(counts_merge *merge) {
    blocks_seal(&merge->output, merge->header);
    merge->header.records = 0;
}

/* Room for a record of a key of `length` bytes, in a block that it fits or has for itself. */
static inline int counts_make_room(counts_merge *merge, size_t length) {
    blocks_output *output = &merge->output;
    size_t size = length + 2 * COUNTS_UVARINT_MAX;
    if (!merge->text && output->open != BLOCKS_NONE &&
        blocks_payload(output) + size > RUNS_BLOCK_BYTES)
        counts_seal(merge);
    if (!merge->text && output->open == BLOCKS_NONE && blocks_begin(output, &merge->failure) < 0)
        return -1;
    return blocks_room(output, size + COUNTS_DECIMAL_MAX, &merge->failure) ? 0 : -1;
}

/* Write the key. `written` is it, in the output: valid until `counts_end_record`. */
static inline int counts_begin_record(counts_merge *merge, const counts_key *key,
                                      counts_key *written) {
    if (counts_make_room(merge, key->length) < 0) return -1;
    uint8_t *to = merge->output.buffer + merge->output.used;
    if (!merge->text) to = counts_put_uvarint(to, key->length);
    counts_copy(to, key);
    *written = *key;
    written->bytes = to;
    merge->output.used = (size_t)(to + key->length - merge->output.buffer);
    return 0;
}

static inline int counts_end_record(counts_merge *merge, uint64_t count) {
    uint8_t *to = merge->output.buffer + merge->output.used;
    if (merge->text) {
        *to++ = ' ';
        if (count < 10)
            *to++ = (uint8_t)('0' + count);
        else
            to = counts_put_decimal(to, count);
        *to++ = '\n';
    } else {
        to = counts_put_uvarint(to, count);
        merge->header.records++;
    }
    merge->output.used = (size_t)(to - merge->output.buffer);
    merge->keys++;
    if (COUNTS_UNLIKELY(__builtin_add_overflow(merge->total, count, &merge->total)))
        return counts_overflow(merge);
    return 0;
}

static inline int counts_put_record(counts_merge *merge, const counts_key *key, uint64_t count) {
    counts_key written;
    if (counts_begin_record(merge, key, &written) < 0) return -1;
    return counts_end_record(merge, count);
}

#endif
