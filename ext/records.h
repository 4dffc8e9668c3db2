/* Records of a log segment: their heads, making and checking them. The grammar is in
 * engine/storage/records.py.
 */
#ifndef ENGINE_RECORDS_H
#define ENGINE_RECORDS_H
#include "crc32c.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "logs are little-endian, and this code copies the heads of their records as they are"
#endif

typedef struct {
    uint32_t crc;      /* of seed, position and all that follows here */
    uint32_t previous; /* `crc` of the record before, whatever segment it is in */
    uint8_t kind, entry;
    uint16_t zero;
    uint32_t size;     /* bytes of the body */
    uint32_t body_crc;
    uint32_t group;
    uint64_t index, term, watermark;
} records_head; /* 48 bytes */

#define RECORDS_KIND_MAX 4

static inline size_t records_padded(size_t size) { return (size + 7) & ~(size_t)7; }

/* Position and head in words: what is loaded eight bytes at a time must not have been stored in
 * smaller pieces just before, or the load waits until all of those are in the cache. */
static inline void records_words(uint64_t words[7], uint64_t position, const records_head *head) {
    words[0] = position;
    words[1] = head->previous | (uint64_t)head->kind << 32 | (uint64_t)head->entry << 40 |
               (uint64_t)head->zero << 48;
    words[2] = head->size | (uint64_t)head->body_crc << 32;
    words[3] = head->group | head->index << 32;
    words[4] = head->index >> 32 | head->term << 32;
    words[5] = head->term >> 32 | head->watermark << 32;
    words[6] = head->watermark >> 32;
}

/* A record verifies only under the salt of its segment, and only at its own position. */
static inline uint32_t records_sum(uint32_t seed, uint64_t position, const records_head *head) {
    uint32_t crc = crc32c(seed, (const uint8_t *)&position, sizeof position);
    return crc32c(crc, (const uint8_t *)head + 4, sizeof *head - 4);
}

/* Write one record at `out` and return the sum of its head. */
static inline uint32_t records_put(uint8_t *out, records_head *head, const uint8_t *body,
                                   uint32_t seed, uint64_t position) {
    size_t padded = records_padded(head->size);
    uint64_t words[7];
    records_words(words, position, head);
    head->crc = crc32c(seed, (const uint8_t *)words, sizeof position + sizeof *head - 4);
    memcpy(out, &head->crc, 4);
    memcpy(out + 4, words + 1, sizeof *head - 4);
    if (padded) {
        memset(out + sizeof *head + padded - 8, 0, 8);
        memcpy(out + sizeof *head, body, head->size);
    }
    return head->crc;
}

/* Bytes of the whole record at `at`, of `left` that there are; 0 if none verifies there. */
static inline size_t records_verify(const uint8_t *at, size_t left, uint32_t seed,
                                    uint64_t position, records_head *head) {
    if (left < sizeof *head) return 0;
    memcpy(head, at, sizeof *head);
    if (head->kind - 1u >= RECORDS_KIND_MAX || head->zero) return 0;
    size_t padded = records_padded(head->size);
    if (padded > left - sizeof *head) return 0;
    if (records_sum(seed, position, head) != head->crc) return 0;
    if (crc32c(0, at + sizeof *head, head->size) != head->body_crc) return 0;
    for (size_t i = head->size; i < padded; i++)
        if (at[sizeof *head + i]) return 0;
    return sizeof *head + padded;
}

/* The same as one follows the other: as many as verify and are chained; `*count` and the end. */
static inline size_t records_walk(const uint8_t *data, size_t start, size_t end, uint32_t seed,
                                  uint64_t position, uint32_t *previous, size_t *count) {
    records_head head;
    for (;;) {
        size_t size = records_verify(data + start, end - start, seed, position + start, &head);
        if (!size || head.previous != *previous) return start;
        *previous = head.crc;
        *count += 1;
        start += size;
    }
}

/* The first multiple of 8 at or after `start` where a record verifies; `end` if there is none. */
static inline size_t records_find(const uint8_t *data, size_t start, size_t end, uint32_t seed,
                                  uint64_t position, size_t *size) {
    records_head head;
    for (start = records_padded(start); start + sizeof head <= end; start += 8) {
        *size = records_verify(data + start, end - start, seed, position + start, &head);
        if (*size) return start;
    }
    *size = 0;
    return end;
}

#endif
