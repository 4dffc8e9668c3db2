/* What `corpus.pyx` needs of plain C: random numbers, huge pages, the sort of words by their bytes.
 */
#ifndef ENGINE_CORPUS_H
#define ENGINE_CORPUS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define engine_prefetch(address) __builtin_prefetch((address), 1)

/* SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
static inline uint64_t random64(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* A number in [0, limit), off from uniform by less than limit / 2^32. */
static inline uint32_t below(uint64_t *state, uint32_t limit) {
    return (uint32_t)(((random64(state) >> 32) * limit) >> 32);
}

static inline uint64_t big_endian(const uint8_t *text) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | text[i];
    return value;
}

/* Zeroed memory in huge pages where there are some: every draw lands anywhere in it, and without
 * them most of the time goes into page walks. Freed with free(). */
static void *engine_huge(size_t size) {
    void *memory = NULL;
    if (size < ((size_t)4 << 20))
        return calloc(1, size);
    if (posix_memalign(&memory, (size_t)2 << 20, size))
        return NULL;
#ifdef MADV_HUGEPAGE
    madvise(memory, size, MADV_HUGEPAGE);
#endif
    memset(memory, 0, size);
    return memory;
}

/* A form of a word: its bytes big-endian and padded with zeros, so that order is that of integers. */
struct corpus_form {
    uint64_t head, middle;
    uint16_t tail;
    uint8_t capital;
    uint32_t word;
};

static int corpus_compare(const void *a, const void *b) {
    const struct corpus_form *x = a, *y = b;
    if (x->head != y->head)
        return x->head < y->head ? -1 : 1;
    if (x->middle != y->middle)
        return x->middle < y->middle ? -1 : 1;
    return (int)x->tail - (int)y->tail;
}

/* A sorted copy, NULL without memory: by first two bytes into buckets, then each bucket by itself,
 * which halves the comparisons. */
static struct corpus_form *corpus_sort(const struct corpus_form *forms, uint64_t count) {
    struct corpus_form *out = malloc((count + 1) * sizeof *out);
    uint64_t *ends = calloc(65537, sizeof *ends);
    if (!out || !ends) {
        free(out);
        free(ends);
        return NULL;
    }
    for (uint64_t i = 0; i < count; i++)
        ends[(forms[i].head >> 48) + 1]++;
    for (int bucket = 0; bucket < 65536; bucket++)
        ends[bucket + 1] += ends[bucket];
    for (uint64_t i = 0; i < count; i++)
        out[ends[forms[i].head >> 48]++] = forms[i];
    /* By now each number is the end of its own bucket. */
    for (uint64_t bucket = 0, first = 0; bucket < 65536; first = ends[bucket++])
        if (ends[bucket] - first > 1)
            qsort(out + first, ends[bucket] - first, sizeof *out, corpus_compare);
    free(ends);
    return out;
}

#endif
