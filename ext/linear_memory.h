/* The configurations that were tried: which operations are in the order already, and the state.
 *
 * Operations of known outcome are numbered by their calls. Those in the order are all below `low`,
 * and some of the few that were called before operation `low` returned; so a configuration is `low`,
 * a window of bits from there, the bits of the operations of unknown outcome, and the state. It does
 * not grow with the history, as a bit for every operation would. */
#ifndef ENGINE_LINEAR_MEMORY_H
#define ENGINE_LINEAR_MEMORY_H
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t *slots; /* `words` for each; the first word of a free one is 0 */
    size_t words, mask, count;
} linear_memory;

static inline int linear_memory_begin(linear_memory *memory, size_t words) {
    memory->words = words;
    memory->mask = 1023;
    memory->count = 0;
    memory->slots = calloc((memory->mask + 1) * words, sizeof(uint64_t));
    return memory->slots ? 0 : -1;
}

static inline void linear_memory_end(linear_memory *memory) {
    free(memory->slots);
    memory->slots = NULL;
}

static inline uint64_t linear_hash(const uint64_t *key, size_t words) {
    uint64_t hash = 0;
    for (size_t i = 0; i < words; i++) {
        hash = (hash ^ key[i]) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 32;
    }
    return hash * UINT64_C(0xD6E8FEB86659FD93) >> 20;
}

static inline uint64_t *linear_slot(const linear_memory *memory, const uint64_t *key) {
    size_t at = linear_hash(key, memory->words) & memory->mask;
    for (;;) {
        uint64_t *slot = memory->slots + at * memory->words;
        if (!slot[0] || !memcmp(slot, key, memory->words * sizeof *key)) return slot;
        at = (at + 1) & memory->mask;
    }
}

static inline int linear_memory_grow(linear_memory *memory) {
    linear_memory larger = *memory;
    larger.mask = 2 * memory->mask + 1;
    larger.slots = calloc(larger.mask + 1, memory->words * sizeof(uint64_t));
    if (!larger.slots) return -1;
    for (size_t at = 0; at <= memory->mask; at++) {
        const uint64_t *key = memory->slots + at * memory->words;
        if (key[0]) memcpy(linear_slot(&larger, key), key, memory->words * sizeof *key);
    }
    free(memory->slots);
    *memory = larger;
    return 0;
}

/* 1: it is new and is remembered now; 0: it was tried before; < 0: no memory. */
static inline int linear_remember(linear_memory *memory, const uint64_t *key) {
    uint64_t *slot = linear_slot(memory, key);
    if (slot[0]) return 0;
    if (2 * (memory->count + 1) > memory->mask + 1) {
        if (linear_memory_grow(memory) < 0) return -1;
        slot = linear_slot(memory, key);
    }
    memcpy(slot, key, memory->words * sizeof *key);
    memory->count++;
    return 1;
}

#endif
