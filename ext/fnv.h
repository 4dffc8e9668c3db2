/* FNV-1a, 32 bits: which partition a key belongs to. */
#ifndef ENGINE_FNV_H
#define ENGINE_FNV_H
#include <stddef.h>
#include <stdint.h>

#define FNV_BASIS 2166136261u
#define FNV_PRIME 16777619u

static inline uint32_t fnv_continue(uint32_t hash, const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * FNV_PRIME;
    return hash;
}

/* Continue with the bytes of `key` from its lowest, up to the first that is zero: a word's key.
 * Steps past the end are undone instead of skipped: a jump on a word's length is mispredicted. */
static inline uint32_t fnv_continue_key(uint32_t hash, uint64_t key) {
    for (int i = 0; i < 8; i++, key >>= 8) {
        uint32_t byte = key & 255, next = (hash ^ byte) * FNV_PRIME;
        hash = byte ? next : hash;
    }
    return hash;
}

static inline uint32_t fnv_partition(uint32_t hash, uint32_t partitions) {
    return (hash & 0x7fffffffu) % partitions;
}

#endif
