/* Blocks of grouped pairs (kind 2): sort the keys of a table, build blocks, merge segments.
 *
 * Grammar: engine/storage/runs.py; reading, verifying and writing of whole blocks: blocks.h. A
 * builder gathers records in four arrays (lengths of keys, lengths of values, keys, values) and
 * writes them as one block when the next value would make it longer than RUNS_BLOCK_BYTES. A merge
 * is a tree of losers over one cursor a segment; equal keys come out in the order of the segments.
 */
#ifndef ENGINE_GROUPS_BLOCKS_H
#define ENGINE_GROUPS_BLOCKS_H
#include "blocks.h"
#include "fnv.h"
#include "groups_values.h"

/* With a key longer than this, a block holds one record of up to RUNS_BLOCK_BYTES *beside* the key:
 * else a long key would be repeated with every few of its values. */
#define GROUPS_LONG_KEY (RUNS_BLOCK_BYTES / 4)

/* --- sorting ------------------------------------------------------------------------------------ */

typedef struct {
    uint64_t prefix; /* the key's first 8 bytes, big-endian */
    const uint8_t *key;
    uint32_t size, partition;
    PyObject *values; /* borrowed */
} groups_item;

/* The same whatever the key's codec: encoded keys compare as bytes. */
static inline uint64_t groups_prefix(const uint8_t *key, size_t size) {
    uint64_t prefix = 0;
    memcpy(&prefix, key, size < 8 ? size : 8);
    return __builtin_bswap64(prefix);
}

static inline int groups_compare_keys(const uint8_t *key, size_t size, const uint8_t *other,
                                      size_t other_size) {
    int order = memcmp(key, other, size < other_size ? size : other_size);
    return order ? order : size < other_size ? -1 : size > other_size;
}

static inline int groups_compare(const void *left, const void *right) {
    const groups_item *a = left, *b = right;
    if (a->partition != b->partition)
        return a->partition < b->partition ? -1 : 1;
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix ? -1 : 1;
    return groups_compare_keys(a->key, a->size, b->key, b->size);
}

static inline void groups_sort(groups_item *items, size_t count) {
    qsort(items, count, sizeof *items, groups_compare);
}

/* --- building ----------------------------------------------------------------------------------- */

typedef struct {
    blocks_output output;
    runs_header header; /* what every block says: kind, job, task, attempt, partition */
    groups_bytes key_sizes, value_sizes, keys, values, tail;
    size_t records;     /* complete in the block being built */
    size_t total;       /* records since the caller last set it to 0 */
    const uint8_t *key; /* of the record being built */
    size_t key_size, value_at, count;
    int wide;           /* its array header has 3 bytes, not 1 */
} groups_builder;

static inline int groups_open_builder(groups_builder *to, int fd, int64_t offset,
                                      runs_header header, blocks_failure *failure) {
    *to = (groups_builder){.header = header};
    return blocks_open_output(&to->output, fd, offset, failure);
}

static inline void groups_close_builder(groups_builder *to) {
    blocks_close_output(&to->output);
    groups_free(&to->key_sizes);
    groups_free(&to->value_sizes);
    groups_free(&to->keys);
    groups_free(&to->values);
    groups_free(&to->tail);
}

static inline void groups_move(uint8_t **to, groups_bytes *from) {
    memcpy(*to, from->bytes, from->used);
    *to += from->used;
    from->used = 0;
}

/* Write the complete records as one block. */
static inline int groups_end_block(groups_builder *to, blocks_failure *failure) {
    if (!to->records)
        return 0;
    size_t size = 8 * to->records + to->keys.used + to->values.used;
    to->header.records = (uint32_t)to->records;
    to->header.keys = (uint32_t)to->keys.used;
    if (blocks_begin(&to->output, failure) < 0)
        return -1;
    uint8_t *room = blocks_room(&to->output, size, failure);
    if (!room)
        return -1;
    groups_move(&room, &to->key_sizes);
    groups_move(&room, &to->value_sizes);
    groups_move(&room, &to->keys);
    groups_move(&room, &to->values);
    blocks_take(&to->output, size);
    blocks_seal(&to->output, to->header);
    to->records = 0;
    return 0;
}

static inline int groups_add_sizes(groups_builder *to, size_t key_size, size_t value_size) {
    uint32_t key = (uint32_t)key_size, value = (uint32_t)value_size;
    to->records++;
    to->total++;
    if (groups_append(&to->key_sizes, &key, 4) < 0)
        return -1;
    return groups_append(&to->value_sizes, &value, 4);
}

/* Begin a record of at most `left` values; the key stays the caller's. */
static inline int groups_open_record(groups_builder *to, const uint8_t *key, size_t size,
                                     size_t left, blocks_failure *failure) {
    to->key = key;
    to->key_size = size;
    to->value_at = to->values.used;
    to->count = 0;
    to->wide = left > 15;
    if (groups_append(&to->keys, key, size) < 0 || !groups_room(&to->values, 3))
        return blocks_failed(failure, ENOMEM);
    to->values.used += to->wide ? 3 : 1;
    return 0;
}

static inline int groups_close_record(groups_builder *to, blocks_failure *failure) {
    uint8_t *head = to->values.bytes + to->value_at;
    if (to->wide) {
        head[0] = 0xdc;
        groups_store(head + 1, to->count, 2);
    } else {
        head[0] = (uint8_t)(0x90 | to->count);
    }
    if (groups_add_sizes(to, to->key_size, to->values.used - to->value_at) < 0)
        return blocks_failed(failure, ENOMEM);
    return 0;
}

/* Whether the block with the record being built is longer than it should be. */
static inline int groups_too_long(const groups_builder *to) {
    size_t size = 8 * (to->records + 1) + to->keys.used + to->values.used;
    size_t most = RUNS_BLOCK_BYTES;
    if (to->records == 0 && to->key_size > GROUPS_LONG_KEY)
        most += to->key_size;
    return size > most;
}

/* A value was appended at `at` of the values; `left` counts it and those to come. If it makes the
 * block too long and something stands before it, the block ends there, and it begins the next. */
static inline int groups_count_value(groups_builder *to, size_t at, size_t left,
                                     blocks_failure *failure) {
    to->count++;
    if (!groups_too_long(to) || (to->count == 1 && to->records == 0))
        return 0;
    to->tail.used = 0;
    if (groups_append(&to->tail, to->values.bytes + at, to->values.used - at) < 0)
        return blocks_failed(failure, ENOMEM);
    if (--to->count) {
        to->values.used = at;
        if (groups_close_record(to, failure) < 0)
            return -1;
    } else {
        to->values.used = to->value_at;
        to->keys.used -= to->key_size;
    }
    if (groups_end_block(to, failure) < 0 ||
        groups_open_record(to, to->key, to->key_size, left, failure) < 0)
        return -1;
    if (groups_append(&to->values, to->tail.bytes, to->tail.used) < 0)
        return blocks_failed(failure, ENOMEM);
    to->count = 1;
    return 0;
}

/* Add a whole record as it is. */
static inline int groups_copy_record(groups_builder *to, const uint8_t *key, size_t key_size,
                                     const uint8_t *value, size_t value_size,
                                     blocks_failure *failure) {
    size_t size = 8 * (to->records + 1) + to->keys.used + to->values.used + key_size + value_size;
    if (size > RUNS_BLOCK_BYTES && groups_end_block(to, failure) < 0)
        return -1;
    if (groups_append(&to->keys, key, key_size) < 0 ||
        groups_append(&to->values, value, value_size) < 0 ||
        groups_add_sizes(to, key_size, value_size) < 0)
        return blocks_failed(failure, ENOMEM);
    return 0;
}

/* --- merging ------------------------------------------------------------------------------------ */

typedef struct {
    blocks_reader reader;
    uint32_t left;               /* records of the block from this one on; 0 at the end */
    const uint8_t *key_sizes, *value_sizes;
    const uint8_t *key, *value;  /* this record */
    uint32_t key_size, value_size;
    uint64_t prefix;
} groups_cursor;

typedef struct {
    groups_cursor *cursors;
    size_t count;
    uint32_t *losers; /* losers[0] is the winner; leaf i of the tree is node count + i */
    blocks_identity identity;
    blocks_failure failure;
} groups_merge;

static inline void groups_close_merge(groups_merge *merge) {
    for (size_t i = 0; merge->cursors && i < merge->count; i++)
        blocks_close_reader(&merge->cursors[i].reader);
    free(merge->cursors);
    free(merge->losers);
    merge->cursors = NULL;
    merge->losers = NULL;
}

static inline uint32_t groups_size_at(const uint8_t *sizes) {
    uint32_t size;
    memcpy(&size, sizes, 4);
    return size;
}

static inline void groups_show_record(groups_cursor *cursor) {
    cursor->key_size = groups_size_at(cursor->key_sizes);
    cursor->value_size = groups_size_at(cursor->value_sizes);
    /* 8 bytes can be loaded whole: values or the window's slack follow the key. */
    uint64_t prefix;
    memcpy(&prefix, cursor->key, 8);
    prefix = __builtin_bswap64(prefix);
    uint32_t size = cursor->key_size;
    cursor->prefix = size >= 8 ? prefix : size ? prefix & ~(UINT64_MAX >> 8 * size) : 0;
}

/* Judge the lengths of a verified block before anything follows them. */
static inline int groups_open_block(groups_cursor *cursor, blocks_failure *failure) {
    const runs_header *header = &cursor->reader.header;
    const uint8_t *payload = cursor->reader.payload;
    uint64_t sizes = 8 * (uint64_t)header->records, keys = 0, values = 0;
    if (sizes + header->keys > header->payload)
        return blocks_damaged(&cursor->reader, "the block's lengths disagree", failure);
    for (uint32_t i = 0; i < header->records; i++) {
        keys += groups_size_at(payload + 4 * (size_t)i);
        values += groups_size_at(payload + 4 * ((size_t)header->records + i));
    }
    if (keys != header->keys || sizes + keys + values != header->payload)
        return blocks_damaged(&cursor->reader, "the lengths of its records disagree", failure);
    cursor->left = header->records;
    cursor->key_sizes = payload;
    cursor->value_sizes = payload + sizes / 2;
    cursor->key = payload + sizes;
    cursor->value = cursor->key + keys;
    groups_show_record(cursor);
    return 0;
}

static inline int groups_next_record(groups_merge *merge, groups_cursor *cursor) {
    if (cursor->left > 1) {
        cursor->left--;
        cursor->key += cursor->key_size;
        cursor->value += cursor->value_size;
        cursor->key_sizes += 4;
        cursor->value_sizes += 4;
        groups_show_record(cursor);
        return 0;
    }
    cursor->left = 0;
    int more = blocks_next(&cursor->reader, &merge->identity, &merge->failure);
    if (more > 0)
        return groups_open_block(cursor, &merge->failure);
    if (more == 0)
        blocks_close_reader(&cursor->reader);
    return more;
}

/* Whether the record of segment a comes before that of b; the end of a segment comes last. */
static inline int groups_before(const groups_merge *merge, uint32_t a, uint32_t b) {
    if (!merge->cursors[a].left || !merge->cursors[b].left)
        return merge->cursors[a].left != 0;
    const groups_cursor *left = merge->cursors + a, *right = merge->cursors + b;
    if (left->prefix != right->prefix)
        return left->prefix < right->prefix;
    int order = groups_compare_keys(left->key, left->key_size, right->key, right->key_size);
    return order ? order < 0 : a < b;
}

/* Make room for the cursors; the caller opens each one's reader and then calls groups_start. */
static inline int groups_open_merge(groups_merge *merge, size_t count, uint64_t job,
                                    uint32_t partition) {
    *merge = (groups_merge){.count = count, .identity = {RUNS_KIND_GROUPS, job, partition}};
    merge->cursors = calloc(count + 1, sizeof *merge->cursors);
    merge->losers = calloc(count + 1, sizeof *merge->losers);
    return merge->cursors && merge->losers ? 0 : blocks_failed(&merge->failure, ENOMEM);
}

/* Play the tournament below a node; its winner. */
static uint32_t groups_play(groups_merge *merge, size_t node) {
    if (node >= merge->count)
        return (uint32_t)(node - merge->count);
    uint32_t left = groups_play(merge, 2 * node), right = groups_play(merge, 2 * node + 1);
    int right_wins = groups_before(merge, right, left);
    merge->losers[node] = right_wins ? left : right;
    return right_wins ? right : left;
}

static inline int groups_start(groups_merge *merge) {
    for (size_t i = 0; i < merge->count; i++) {
        if (groups_next_record(merge, merge->cursors + i) < 0)
            return -1;
    }
    if (merge->count)
        merge->losers[0] = groups_play(merge, 1);
    return 0;
}

/* The segment whose record is first, or NULL when all have ended. */
static inline groups_cursor *groups_first(const groups_merge *merge) {
    if (!merge->count)
        return NULL;
    groups_cursor *cursor = merge->cursors + merge->losers[0];
    return cursor->left ? cursor : NULL;
}

/* Move past the first record. */
static inline int groups_advance(groups_merge *merge) {
    uint32_t winner = merge->losers[0];
    if (groups_next_record(merge, merge->cursors + winner) < 0)
        return -1;
    for (size_t node = (merge->count + winner) / 2; node; node /= 2) {
        if (groups_before(merge, merge->losers[node], winner)) {
            uint32_t loser = winner;
            winner = merge->losers[node];
            merge->losers[node] = loser;
        }
    }
    merge->losers[0] = winner;
    return 0;
}

/* Whether the first record is of this key. */
static inline int groups_is_at(const groups_merge *merge, const uint8_t *key, size_t size) {
    const groups_cursor *first = groups_first(merge);
    return first && first->key_size == size && memcmp(first->key, key, size) == 0;
}

/* Write everything that is left as one segment. */
static inline int groups_merge_all(groups_merge *merge, groups_builder *to, uint64_t *page) {
    uint64_t shown = 0;
    for (groups_cursor *first; (first = groups_first(merge));) {
        if (groups_copy_record(to, first->key, first->key_size, first->value, first->value_size,
                               &merge->failure) < 0 ||
            groups_advance(merge) < 0)
            return -1;
        if (blocks_size(&to->output) - shown >= RUNS_BLOCK_BYTES) {
            shown = blocks_size(&to->output);
            blocks_move_page(page, shown);
        }
    }
    if (groups_end_block(to, &merge->failure) < 0)
        return -1;
    return blocks_flush(&to->output, &merge->failure);
}

#endif
