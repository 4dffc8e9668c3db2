/* The order of all keys: leaves of entries, and a list of leaves.
 *
 * A leaf that is full becomes two, or stays full if what comes is behind all others, which is how
 * keys come from a snapshot. Leaves have room for an eighth more than they hold, so a key takes about
 * 9 bytes here. The sizes of leaves lie side by side: positions are sums of them. */
#ifndef ENGINE_TABLE_ORDER_H
#define ENGINE_TABLE_ORDER_H
#include "table_entry.h"

typedef struct {
    uint32_t room;
    table_entry *entries[];
} table_leaf;

typedef struct {
    table_leaf **leaves;
    uint32_t *used; /* of each leaf, never 0 */
    size_t many, room;
} table_order;

typedef struct {
    size_t leaf, at; /* `leaf` is `many`, or `at` what the leaf has: behind the last one */
} table_spot;

enum {
    TABLE_LEAF_MIN = 8,
    TABLE_LEAF_MAX = 512,
    TABLE_LEAF_FEW = TABLE_LEAF_MAX / 4,       /* one that has fewer looks for a neighbour, */
    TABLE_LEAF_JOINED = TABLE_LEAF_MAX / 4 * 3, /* with which it has no more than so many */
};

static inline void table_order_end(table_order *order) {
    for (size_t n = 0; n < order->many; n++) PyMem_Free(order->leaves[n]);
    PyMem_Free(order->leaves);
    PyMem_Free(order->used);
    memset(order, 0, sizeof *order);
}

static inline table_entry *table_first(const table_order *order, size_t leaf) {
    return order->leaves[leaf]->entries[0];
}

/* Where the first key is that is not less than this one, in the leaf where it would belong. */
static inline table_spot table_seek(const table_order *order, const uint8_t *key, size_t size) {
    table_spot spot = {0, 0};
    if (!order->many) return spot;
    size_t last = order->many - 1, low = 0, high = order->used[last];
    if (table_compare(key, size, order->leaves[last]->entries[high - 1]) > 0) {
        spot.leaf = last, spot.at = high;
        return spot;
    }
    for (size_t upto = last; low < upto;) { /* the last leaf that does not begin behind it */
        size_t middle = (low + upto + 1) / 2;
        /* One of two is next, and waiting for memory is nearly all that this does. */
        __builtin_prefetch(order->leaves[(low + middle) / 2]);
        __builtin_prefetch(order->leaves[(middle + upto + 1) / 2]);
        if (table_compare(key, size, table_first(order, middle)) < 0) upto = middle - 1;
        else low = middle;
    }
    spot.leaf = low;
    table_entry **entries = order->leaves[spot.leaf]->entries;
    for (low = 0, high = order->used[spot.leaf]; low < high;) {
        size_t middle = (low + high) / 2;
        __builtin_prefetch(entries[(low + middle) / 2]);
        __builtin_prefetch(entries[(middle + high) / 2]); /* nearly the other one, and always there */
        if (table_compare(key, size, entries[middle]) > 0) low = middle + 1;
        else high = middle;
    }
    spot.at = low;
    return spot;
}

static inline size_t table_position(const table_order *order, table_spot spot) {
    size_t position = spot.at;
    for (size_t n = 0; n < spot.leaf; n++) position += order->used[n];
    return position;
}

static inline table_spot table_spot_at(const table_order *order, size_t position) {
    table_spot spot = {0, position};
    while (spot.leaf < order->many && spot.at >= order->used[spot.leaf])
        spot.at -= order->used[spot.leaf++];
    return spot;
}

/* The entry there, or the next one if the leaf ends there; NULL behind the last one. Moves on. */
static inline table_entry *table_next(const table_order *order, table_spot *spot) {
    while (spot->leaf < order->many && spot->at >= order->used[spot->leaf])
        spot->leaf++, spot->at = 0;
    return spot->leaf < order->many ? order->leaves[spot->leaf]->entries[spot->at++] : NULL;
}

/* The entry before it; NULL if there is none. Moves back. */
static inline table_entry *table_previous(const table_order *order, table_spot *spot) {
    if (!spot->at) {
        if (!spot->leaf) return NULL;
        spot->at = order->used[--spot->leaf];
    }
    return order->leaves[spot->leaf]->entries[--spot->at];
}

/* --- changes ---------------------------------------------------------------------------------- */

static inline int table_leaf_resize(table_order *order, size_t leaf, size_t room) {
    size_t size = sizeof(table_leaf) + room * sizeof(table_entry *);
    table_leaf *there = PyMem_Realloc(order->leaves[leaf], size);
    if (!there) return -1;
    there->room = (uint32_t)room;
    order->leaves[leaf] = there;
    return 0;
}

/* A leaf without entries before that one; whoever makes it fills it. */
static inline int table_leaf_add(table_order *order, size_t leaf, size_t room) {
    if (order->many == order->room) {
        size_t more = order->room + order->room / 2 + 4;
        table_leaf **leaves = PyMem_Realloc(order->leaves, more * sizeof *leaves);
        if (!leaves) return -1;
        order->leaves = leaves;
        uint32_t *used = PyMem_Realloc(order->used, more * sizeof *used);
        if (!used) return -1;
        order->used = used;
        order->room = more;
    }
    table_leaf *new = PyMem_Malloc(sizeof(table_leaf) + room * sizeof(table_entry *));
    if (!new) return -1;
    new->room = (uint32_t)room;
    size_t behind = order->many++ - leaf;
    memmove(order->leaves + leaf + 1, order->leaves + leaf, behind * sizeof *order->leaves);
    memmove(order->used + leaf + 1, order->used + leaf, behind * sizeof *order->used);
    order->leaves[leaf] = new;
    order->used[leaf] = 0;
    return 0;
}

/* Make room for an entry there; it must be put there at once. -1: there is no memory. */
static inline int table_order_reserve(table_order *order, table_spot *spot) {
    if (!order->many) return table_leaf_add(order, 0, TABLE_LEAF_MIN);
    size_t used = order->used[spot->leaf], room = used + used / 8 + TABLE_LEAF_MIN;
    if (used < order->leaves[spot->leaf]->room) return 0;
    if (used < TABLE_LEAF_MAX)
        return table_leaf_resize(order, spot->leaf, room < TABLE_LEAF_MAX ? room : TABLE_LEAF_MAX);
    if (spot->leaf + 1 == order->many && spot->at == used) {
        if (table_leaf_add(order, order->many, TABLE_LEAF_MIN)) return -1;
        spot->leaf++, spot->at = 0;
        return 0;
    }
    size_t left = used / 2, right = used - left;
    if (table_leaf_add(order, spot->leaf + 1, right + right / 8 + TABLE_LEAF_MIN)) return -1;
    table_entry **from = order->leaves[spot->leaf]->entries + left;
    memcpy(order->leaves[spot->leaf + 1]->entries, from, right * sizeof *from);
    order->used[spot->leaf] = (uint32_t)left;
    order->used[spot->leaf + 1] = (uint32_t)right;
    (void)table_leaf_resize(order, spot->leaf, left + left / 8 + TABLE_LEAF_MIN); /* or it keeps it */
    if (spot->at > left) spot->leaf++, spot->at -= left;
    return 0;
}

static inline void table_order_add(table_order *order, table_spot spot, table_entry *entry) {
    table_entry **there = order->leaves[spot.leaf]->entries + spot.at;
    memmove(there + 1, there, (order->used[spot.leaf]++ - spot.at) * sizeof *there);
    *there = entry;
}

static inline void table_leaf_drop(table_order *order, size_t leaf) {
    PyMem_Free(order->leaves[leaf]);
    size_t behind = --order->many - leaf;
    memmove(order->leaves + leaf, order->leaves + leaf + 1, behind * sizeof *order->leaves);
    memmove(order->used + leaf, order->used + leaf + 1, behind * sizeof *order->used);
}

/* One leaf of that and the next, if they are small. */
static inline void table_leaf_join(table_order *order, size_t leaf) {
    if (leaf + 1 >= order->many) return;
    size_t left = order->used[leaf], right = order->used[leaf + 1], both = left + right;
    if (both > TABLE_LEAF_JOINED) return;
    if (order->leaves[leaf]->room < both && table_leaf_resize(order, leaf, both)) return;
    table_entry **from = order->leaves[leaf + 1]->entries;
    memcpy(order->leaves[leaf]->entries + left, from, right * sizeof *from);
    order->used[leaf] = (uint32_t)both;
    table_leaf_drop(order, leaf + 1);
}

static inline void table_order_remove(table_order *order, table_spot spot) {
    table_leaf *leaf = order->leaves[spot.leaf];
    size_t left = --order->used[spot.leaf];
    table_entry **there = leaf->entries + spot.at;
    memmove(there, there + 1, (left - spot.at) * sizeof *there);
    if (!left) return table_leaf_drop(order, spot.leaf);
    if (left < leaf->room / 2 && leaf->room > 2 * TABLE_LEAF_MIN)
        (void)table_leaf_resize(order, spot.leaf, left + left / 8 + TABLE_LEAF_MIN);
    if (left < TABLE_LEAF_FEW) {
        table_leaf_join(order, spot.leaf);
        if (spot.leaf) table_leaf_join(order, spot.leaf - 1);
    }
}

#endif
