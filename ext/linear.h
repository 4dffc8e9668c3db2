/* Wing and Gong's search with Lowe's memory, over one key.
 *
 * Calls and returns are a list in the order of their times. An operation may come next if its call
 * stands before the first return in the list; whoever comes next is lifted out of it. Operations of
 * unknown outcome have no return and are a list of their own: nobody must put them into the order,
 * so they are tried after all others, and only where they change the state. */
#ifndef ENGINE_LINEAR_H
#define ENGINE_LINEAR_H
#include "linear_memory.h"
#include "linear_tree.h"
#include <time.h>

enum {
    LINEAR_READ,   /* right in state a */
    LINEAR_WRITE,  /* always right, then b */
    LINEAR_SWAP,   /* right in a, then b */
    LINEAR_UNLESS, /* right in all states but a */
    LINEAR_MAYBE,  /* always right; a becomes b */
    LINEAR_APPEND, /* always right; text number a is appended */
    /* States are version << 32 | value here; 0 is no key. b is a state, a the version before it. */
    LINEAR_PUT,
    LINEAR_PUT_STALE, /* there is a key of another version than a */
    LINEAR_PUT_MAYBE,
    LINEAR_CALLED, /* `call` knows */
    LINEAR_KINDS
};

enum { LINEAR_RIGHT, LINEAR_WRONG, LINEAR_TRIES, LINEAR_CONFIGURATIONS, LINEAR_SECONDS,
       LINEAR_FAILED = -1, LINEAR_NO_MEMORY = -2 };

enum { LINEAR_CLOCK_EVERY = 1 << 10, LINEAR_POLL_EVERY = 1 << 16 };

typedef struct {
    uint64_t a, b;
    int kind;
} linear_step;

typedef struct {
    const uint8_t *bytes;
    size_t length;
} linear_text;

/* A copy of the order at a dead end, shared by all operations whose longest it is. */
typedef struct {
    size_t references, length;
    uint32_t operations[];
} linear_order;

typedef struct {
    uint64_t before;
    uint32_t operation; /* with LINEAR_UNKNOWN if its outcome is */
    uint32_t limit;     /* of an unknown one: where the first return stood */
} linear_frame;

#define LINEAR_UNKNOWN (UINT32_C(1) << 31)

typedef struct {
    uint32_t next, before;
} linear_link;

typedef struct {
    /* The problem. Operations of known outcome come first, each part by its calls. */
    size_t known, unknown;
    const linear_step *steps;
    const uint32_t *twins;      /* of the unknown: the one before it that does the same, or itself */
    const uint32_t *at;         /* of the known: place of call and return; then of the others' calls */
    const linear_tree *tree;
    const linear_text *texts;
    int (*call)(void *self, size_t operation, uint64_t state, uint64_t *after);
    int (*poll)(void *self);
    void *self;
    uint64_t tries_max, configurations_max;
    int64_t deadline; /* CLOCK_MONOTONIC, nanoseconds; 0 is none */
    int explain;
    /* The search. */
    uint64_t state, tries;
    linear_link *links;    /* call 2k and return 2k + 1, then the head */
    linear_link *unlinked; /* the unknown, then their head */
    uint64_t *done, *maybe, *key;
    size_t low, window, maybes, depth;
    linear_frame *frames;
    linear_order **longest; /* of each operation; NULL if it can not be in any */
    linear_memory memory;
} linear_search;

static inline int64_t linear_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void linear_ring(linear_link *links, size_t count) {
    for (size_t i = 0; i <= count; i++) {
        links[i].next = (uint32_t)(i == count ? 0 : i + 1);
        links[i].before = (uint32_t)(i == 0 ? count : i - 1);
    }
}

/* Chains calls and returns by their places, which are all different. The window is as wide as the
 * most operations, from any on, that were called before that one returned. */
static inline int linear_chain(linear_search *s) {
    size_t nodes = 2 * s->known, places = nodes + s->unknown, called = 0, widest = 1;
    uint32_t last = (uint32_t)nodes, *of = malloc((places + 1) * sizeof *of);
    if (!of) return -1;
    memset(of, 0xFF, (places + 1) * sizeof *of);
    for (size_t i = 0; i < nodes; i++) of[s->at[i]] = (uint32_t)i;
    for (size_t place = 0; place < places; place++) {
        uint32_t node = of[place];
        if (node == UINT32_MAX) continue;
        if (!(node & 1)) called++;
        else if (called - node / 2 > widest) widest = called - node / 2;
        s->links[last].next = node;
        s->links[node].before = last;
        last = node;
    }
    s->links[last].next = (uint32_t)nodes;
    s->links[nodes].before = last;
    s->window = (widest + 63) / 64;
    free(of);
    return 0;
}

static inline int linear_begin(linear_search *s) {
    size_t count = s->known + s->unknown;
    s->maybes = (s->unknown + 63) / 64;
    s->links = malloc((2 * s->known + 1) * sizeof *s->links);
    s->unlinked = malloc((s->unknown + 1) * sizeof *s->unlinked);
    s->maybe = calloc(s->maybes + 1, sizeof *s->maybe);
    s->frames = malloc((count + 1) * sizeof *s->frames);
    s->longest = calloc(count + 1, sizeof *s->longest);
    if (!s->links || !s->unlinked || !s->maybe || !s->frames || !s->longest || linear_chain(s) < 0)
        return LINEAR_NO_MEMORY;
    linear_ring(s->unlinked, s->unknown);
    s->done = calloc(s->known / 64 + s->window + 2, sizeof *s->done);
    s->key = calloc(2 + s->window + s->maybes, sizeof *s->key);
    if (!s->done || !s->key || linear_memory_begin(&s->memory, 2 + s->window + s->maybes) < 0)
        return LINEAR_NO_MEMORY;
    return 0;
}

static inline void linear_forget(linear_order *order) {
    if (order && --order->references == 0) free(order);
}

static inline void linear_end(linear_search *s) {
    if (s->longest)
        for (size_t i = 0; i < s->known + s->unknown; i++) linear_forget(s->longest[i]);
    free(s->links);
    free(s->unlinked);
    free(s->done);
    free(s->maybe);
    free(s->key);
    free(s->frames);
    free(s->longest);
    linear_memory_end(&s->memory);
}

/* 1 and the state after it if the operation's result is right in this state, 0 if it is not. */
static inline int linear_try(linear_search *s, size_t operation, uint64_t *after) {
    const linear_step *step = s->steps + operation;
    uint64_t state = s->state;
    *after = state;
    switch (step->kind) {
    case LINEAR_READ: return state == step->a;
    case LINEAR_WRITE: *after = step->b; return 1;
    case LINEAR_SWAP: *after = step->b; return state == step->a;
    case LINEAR_UNLESS: return state != step->a;
    case LINEAR_MAYBE: if (state == step->a) *after = step->b; return 1;
    case LINEAR_APPEND:
        *after = linear_tree_walk(s->tree, state, s->texts[step->a].bytes,
                                  s->texts[step->a].length);
        return 1;
    case LINEAR_PUT: *after = step->b; return state >> 32 == step->a;
    case LINEAR_PUT_STALE: return state && state >> 32 != step->a;
    case LINEAR_PUT_MAYBE: if (state >> 32 == step->a) *after = step->b; return 1;
    default: return s->call(s->self, operation, state, after);
    }
}

static inline void linear_lift(linear_link *links, uint32_t node) {
    links[links[node].before].next = links[node].next;
    links[links[node].next].before = links[node].before;
}

static inline void linear_unlift(linear_link *links, uint32_t node) {
    links[links[node].before].next = node;
    links[links[node].next].before = node;
}

static inline int linear_is_new(linear_search *s, uint64_t after) {
    size_t word = s->low >> 6, shift = s->low & 63;
    uint64_t *key = s->key;
    key[0] = s->low + 1;
    key[1] = after;
    for (size_t i = 0; i < s->window; i++) {
        uint64_t bits = s->done[word + i] >> shift;
        if (shift) bits |= s->done[word + i + 1] << (64 - shift);
        key[2 + i] = bits;
    }
    memcpy(key + 2 + s->window, s->maybe, s->maybes * sizeof *key);
    return linear_remember(&s->memory, key);
}

static inline void linear_mark(linear_search *s, uint32_t number) {
    if (number & LINEAR_UNKNOWN) {
        number &= ~LINEAR_UNKNOWN;
        s->maybe[number >> 6] |= UINT64_C(1) << (number & 63);
        return;
    }
    s->done[number >> 6] |= UINT64_C(1) << (number & 63);
    while (s->low < s->known && s->done[s->low >> 6] >> (s->low & 63) & 1) s->low++;
}

static inline void linear_unmark(linear_search *s, uint32_t number) {
    if (number & LINEAR_UNKNOWN) {
        number &= ~LINEAR_UNKNOWN;
        s->maybe[number >> 6] &= ~(UINT64_C(1) << (number & 63));
        return;
    }
    s->done[number >> 6] &= ~(UINT64_C(1) << (number & 63));
    if (number < s->low) s->low = number;
}

/* Of unknown operations that do the same, whoever was called first may as well be the first: it can
 * take the place of any other, and the other its place. Not if each is to have its longest order. */
static inline int linear_waits(const linear_search *s, uint32_t index) {
    uint32_t twin = s->twins[index];
    return twin != index && !s->explain && !(s->maybe[twin >> 6] >> (twin & 63) & 1);
}

/* 1: it comes next, and is lifted; 0: it can not, or that was tried; < 0: no more searching. */
static inline int linear_next(linear_search *s, uint32_t number, uint32_t limit) {
    int unknown = (number & LINEAR_UNKNOWN) != 0, fresh;
    uint32_t index = number & ~LINEAR_UNKNOWN;
    size_t operation = unknown ? s->known + index : index;
    uint64_t after;
    int right;
    if (unknown && linear_waits(s, index)) return 0;
    right = linear_try(s, operation, &after);
    s->tries++;
    if (right <= 0) return right;
    if (unknown && after == s->state) return 0;
    linear_mark(s, number);
    fresh = linear_is_new(s, after);
    if (fresh <= 0) {
        linear_unmark(s, number);
        return fresh < 0 ? LINEAR_NO_MEMORY : 0;
    }
    if (unknown) {
        linear_lift(s->unlinked, index);
    } else {
        linear_lift(s->links, 2 * index);
        linear_lift(s->links, 2 * index + 1);
    }
    s->frames[s->depth++] = (linear_frame){s->state, number, limit};
    s->state = after;
    return 1;
}

static inline linear_frame linear_back(linear_search *s) {
    linear_frame frame = s->frames[--s->depth];
    uint32_t index = frame.operation & ~LINEAR_UNKNOWN;
    if (frame.operation & LINEAR_UNKNOWN) {
        linear_unlift(s->unlinked, index);
    } else {
        linear_unlift(s->links, 2 * index + 1);
        linear_unlift(s->links, 2 * index);
    }
    linear_unmark(s, frame.operation);
    s->state = frame.before;
    return frame;
}

static inline size_t linear_operation(const linear_search *s, size_t depth) {
    uint32_t number = s->frames[depth].operation;
    return number & LINEAR_UNKNOWN ? s->known + (number & ~LINEAR_UNKNOWN) : number;
}

/* The order ends here: it is the longest of whoever is in it and in no longer one. */
static inline int linear_dead_end(linear_search *s) {
    linear_order *order = NULL;
    for (size_t i = 0; i < s->depth; i++) {
        linear_order **longest = s->longest + linear_operation(s, i);
        if (*longest && (*longest)->length >= s->depth) continue;
        if (!order) {
            order = malloc(sizeof *order + s->depth * sizeof *order->operations);
            if (!order) return LINEAR_NO_MEMORY;
            order->references = 0;
            order->length = s->depth;
            for (size_t j = 0; j < s->depth; j++)
                order->operations[j] = (uint32_t)linear_operation(s, j);
        }
        linear_forget(*longest);
        *longest = order;
        order->references++;
    }
    return 0;
}

/* 0, or why to stop here. */
static inline int linear_bounds(linear_search *s) {
    if (s->tries >= s->tries_max) return LINEAR_TRIES;
    if (s->memory.count >= s->configurations_max) return LINEAR_CONFIGURATIONS;
    if (s->tries % LINEAR_CLOCK_EVERY == 0 && s->deadline && linear_now() >= s->deadline)
        return LINEAR_SECONDS;
    if (s->tries % LINEAR_POLL_EVERY == 0 && s->poll(s->self) < 0) return LINEAR_FAILED;
    return 0;
}

/* Depth first, until every operation of known outcome is in the order or all was tried. */
static inline int linear_run(linear_search *s) {
    const uint32_t end = (uint32_t)(2 * s->known), none = (uint32_t)s->unknown;
    uint32_t node = s->links[end].next, maybe = none, limit = 0;
    int certain = 1, found;
    while (s->low < s->known) {
        if (certain && node & 1) { /* the first return: whatever stands behind it comes later */
            certain = 0;
            limit = s->at[node];
            maybe = s->unlinked[none].next;
        }
        if (!certain && (maybe == none || s->at[end + maybe] > limit)) {
            if (s->explain && linear_dead_end(s) < 0) return LINEAR_NO_MEMORY;
            if (!s->depth) return LINEAR_WRONG;
            linear_frame frame = linear_back(s);
            certain = !(frame.operation & LINEAR_UNKNOWN);
            limit = frame.limit;
            if (certain) node = s->links[2 * frame.operation].next;
            else maybe = s->unlinked[frame.operation & ~LINEAR_UNKNOWN].next;
            continue;
        }
        if ((found = linear_bounds(s))) return found;
        found = linear_next(s, certain ? node >> 1 : maybe | LINEAR_UNKNOWN, limit);
        if (found < 0) return found;
        if (found) {
            certain = 1;
            node = s->links[end].next;
        } else if (certain) {
            node = s->links[node].next;
        } else {
            maybe = s->unlinked[maybe].next;
        }
    }
    return LINEAR_RIGHT;
}

#endif
