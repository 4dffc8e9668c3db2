/* All beginnings of the texts that were read, as a tree of bytes: what a text that only grows is worth
 * remembering of. A text that begins none of them is LINEAR_OFF: nobody read it nor anything that it
 * can grow to, so all such texts are one state. */
#ifndef ENGINE_LINEAR_TREE_H
#define ENGINE_LINEAR_TREE_H
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LINEAR_OFF UINT64_MAX

typedef struct {
    uint32_t child, sibling; /* 0 is none: the root is nobody's child */
    uint8_t byte;
} linear_twig;

typedef struct {
    linear_twig *twigs;
    size_t count, room;
    uint32_t *path; /* the twig of each beginning of the text that was planted last */
    size_t path_length, path_room;
    const uint8_t *last;
} linear_tree;

static inline int linear_tree_begin(linear_tree *tree) {
    memset(tree, 0, sizeof *tree);
    tree->room = 256;
    tree->twigs = calloc(tree->room, sizeof *tree->twigs);
    tree->count = 1;
    return tree->twigs ? 0 : -1;
}

static inline void linear_tree_end(linear_tree *tree) {
    free(tree->twigs);
    free(tree->path);
    memset(tree, 0, sizeof *tree);
}

static inline int linear_tree_reserve(linear_tree *tree, size_t length) {
    if (tree->count + length > UINT32_MAX) return -1;
    if (tree->count + length > tree->room) {
        size_t room = 2 * (tree->count + length);
        linear_twig *twigs = realloc(tree->twigs, room * sizeof *twigs);
        if (!twigs) return -1;
        tree->twigs = twigs;
        tree->room = room;
    }
    if (length > tree->path_room) {
        uint32_t *path = realloc(tree->path, 2 * length * sizeof *path);
        if (!path) return -1;
        tree->path = path;
        tree->path_room = 2 * length;
    }
    return 0;
}

/* Texts come sorted and once each, and the last one must still be there: only what a text does not
 * share with the one before it is new. < 0: no memory. */
static inline int linear_tree_plant(linear_tree *tree, const uint8_t *text, size_t length) {
    size_t shared = 0;
    uint32_t at;
    if (linear_tree_reserve(tree, length) < 0) return -1;
    while (shared < length && shared < tree->path_length && text[shared] == tree->last[shared])
        shared++;
    at = shared ? tree->path[shared - 1] : 0;
    for (size_t i = shared; i < length; i++) {
        uint32_t made = (uint32_t)tree->count++;
        tree->twigs[made].child = 0;
        tree->twigs[made].byte = text[i];
        tree->twigs[made].sibling = tree->twigs[at].child;
        tree->twigs[at].child = made;
        tree->path[i] = at = made;
    }
    tree->path_length = length;
    tree->last = text;
    return 0;
}

/* The state after `text` is appended to the one at `state`. */
static inline uint64_t linear_tree_walk(const linear_tree *tree, uint64_t state,
                                        const uint8_t *text, size_t length) {
    uint32_t at;
    if (state == LINEAR_OFF) return LINEAR_OFF;
    at = (uint32_t)state;
    for (size_t i = 0; i < length; i++) {
        uint32_t next = tree->twigs[at].child;
        while (next && tree->twigs[next].byte != text[i]) next = tree->twigs[next].sibling;
        if (!next) return LINEAR_OFF;
        at = next;
    }
    return at;
}

#endif
