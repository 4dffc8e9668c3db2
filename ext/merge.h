/* Merge sorted segments of counted words: two at a time by comparing, more by a tree of losers.
 *
 * In a tree of losers every inner node keeps the loser of the match played there. When the winner
 * moves on, only the matches on its own path to the root are played again: log2(k) comparisons a
 * record, each with one stored opponent.
 *
 * To add all up in a plain hash table and sort it once was tried instead, for 17 to 130 segments
 * with 5 to 30 records a key: slower than a tree without branches in each of four cases, and it
 * takes the memory. A table with prefetching was not tried.
 */
#ifndef ENGINE_MERGE_H
#define ENGINE_MERGE_H
#include "counts.h"

/* Both cursors may be at their end. */
static int merge_two(counts_cursor *a, counts_cursor *b, counts_merge *merge) {
    for (;;) {
        if (counts_equal(&a->key, &b->key)) {
            if (a->key.length == COUNTS_END) return 0;
            uint64_t count;
            if (COUNTS_UNLIKELY(__builtin_add_overflow(a->count, b->count, &count)))
                return counts_overflow(merge);
            if (counts_put_record(merge, &a->key, count) < 0) return -1;
            if (counts_advance(a, merge) < 0 || counts_advance(b, merge) < 0) return -1;
        } else {
            counts_cursor *first = counts_before(&a->key, &b->key) ? a : b;
            if (counts_put_record(merge, &first->key, first->count) < 0) return -1;
            if (counts_advance(first, merge) < 0) return -1;
        }
    }
}

/* Play all matches below `node`: losers stay in `losers`, the winner is returned. Leaf i of k is
 * node k + i, so any k makes a tree, and only its depth differs by one. */
static size_t merge_play(const counts_cursor *cursors, size_t *losers, size_t count, size_t node) {
    if (node >= count) return node - count;
    size_t left = merge_play(cursors, losers, count, 2 * node);
    size_t right = merge_play(cursors, losers, count, 2 * node + 1);
    int swap = counts_before(&cursors[right].key, &cursors[left].key);
    losers[node] = swap ? left : right;
    return swap ? right : left;
}

/* As `counts_before`, without branches but for long keys that share 16 bytes: who wins a match is
 * a coin toss, and a wrong guess costs more than all these comparisons. */
static inline size_t merge_before(const counts_key *a, const counts_key *b) {
    size_t high = a->high == b->high, low = a->low == b->low;
    if (COUNTS_UNLIKELY(high & low & (a->length > 16) & (b->length > 16)))
        return counts_compare_tails(a, b) < 0;
    return (a->high < b->high) | (high & ((a->low < b->low) | (low & (a->length < b->length))));
}

/* The winner after cursor `moved`, the last winner, has another key. */
static inline size_t merge_replay(const counts_cursor *cursors, size_t *losers, size_t count,
                                  size_t moved) {
    size_t winner = moved;
    for (size_t node = (count + moved) / 2; node; node /= 2) {
        size_t loser = losers[node];
        size_t swap = -merge_before(&cursors[loser].key, &cursors[winner].key);
        size_t change = (loser ^ winner) & swap;
        losers[node] = loser ^ change;
        winner ^= change;
    }
    return winner;
}

static int merge_many(counts_cursor *cursors, size_t *losers, size_t count, counts_merge *merge) {
    size_t winner = merge_play(cursors, losers, count, 1);
    while (cursors[winner].key.length != COUNTS_END) {
        counts_key key;
        uint64_t sum = 0;
        if (counts_begin_record(merge, &cursors[winner].key, &key) < 0) return -1;
        do {
            if (COUNTS_UNLIKELY(__builtin_add_overflow(sum, cursors[winner].count, &sum)))
                return counts_overflow(merge);
            if (counts_advance(cursors + winner, merge) < 0) return -1;
            winner = merge_replay(cursors, losers, count, winner);
        } while (counts_equal(&cursors[winner].key, &key));
        if (counts_end_record(merge, sum) < 0) return -1;
    }
    return 0;
}

/* Bytes to fetch at a time, so that `count` windows and the output fit `memory` where they can. */
static size_t merge_window(size_t count, uint64_t memory) {
    uint64_t windows = memory > BLOCKS_OUTPUT_BYTES ? memory - BLOCKS_OUTPUT_BYTES : 0;
    uint64_t window = windows / (count ? count : 1);
    return window < 4 * RUNS_BLOCK_BYTES ? (size_t)window : 4 * RUNS_BLOCK_BYTES;
}

typedef struct {
    int fd;
    uint64_t offset, length;
} merge_segment;

static int merge_open(counts_cursor *cursor, const merge_segment *segments, size_t index,
                      size_t window, counts_merge *merge) {
    const merge_segment *segment = segments + index;
    return blocks_open_reader(&cursor->reader, index, segment->fd, segment->offset, segment->length,
                              window, &merge->failure);
}

/* Stream all segments, sorted, into the sink of `merge`. */
static int merge_stream(const merge_segment *segments, size_t count, uint64_t memory,
                        counts_merge *merge) {
    size_t places = count < 2 ? 2 : count;
    counts_cursor *cursors = calloc(places, sizeof *cursors);
    size_t *losers = calloc(places, sizeof *losers);
    int result = cursors && losers ? 0 : blocks_failed(&merge->failure, ENOMEM);
    for (size_t i = 0; i < count && !result; i++) {
        result = merge_open(cursors + i, segments, i, merge_window(count, memory), merge);
        if (!result) result = counts_advance(cursors + i, merge);
    }
    if (!result && count > 2) result = merge_many(cursors, losers, count, merge);
    if (!result && count <= 2) {
        for (size_t i = count; i < 2; i++) cursors[i].key = counts_end;
        result = merge_two(cursors, cursors + 1, merge);
    }
    for (size_t i = 0; cursors && i < count; i++) counts_close_cursor(cursors + i);
    free(cursors);
    free(losers);
    return result;
}

#endif
