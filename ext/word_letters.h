/* Letters beyond ASCII: finding them in UTF-8 text, and folding their case.
 *
 * UTF-8 synchronises locally: a sequence is one lead byte and the continuation bytes right behind
 * it, so sequences never overlap, and whether a byte belongs to a letter depends on it and on at
 * most three bytes to either side. Nothing is decoded one after the other: every lead byte is
 * looked up by itself. What is no letter (a digit, a forbidden form, a stray byte) separates words.
 */
#ifndef ENGINE_WORD_LETTERS_H
#define ENGINE_WORD_LETTERS_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "letters.h"
#include "memory.h"

/* Text is followed by this many readable bytes, zero at the end of what is known of a file: then no
 * sequence is completed by bytes that are not there. */
#define TEXT_SLACK 64

/* How far a letter's bytes reach before and behind any one of them. */
#define LETTER_REACH 3

static inline uint32_t text_word(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, 4);
    return word;
}

/* The next three return 1 if a letter of 2, 3 or 4 bytes begins at a lead byte (110xxxxx, 1110xxxx,
 * 1111xxxx), given it and the three bytes behind it as a little-endian number. */
static inline uint64_t letter_of_two(uint32_t word) {
    uint64_t page = letters_two[word & 31];
    return (page >> (word >> 8 & 63)) & ((word & 0xC000u) == 0x8000u);
}

static inline uint64_t letter_of_three(uint32_t word) {
    uint64_t page = letters_pages[letters_three[(word & 15) << 6 | (word >> 8 & 63)]];
    return (page >> (word >> 16 & 63)) & ((word & 0xC0C000u) == 0x808000u);
}

static inline uint64_t letter_of_four(uint32_t word) {
    if ((word & 0xC0C0C008u) != 0x80808000u || (word & 7) > 4) return 0;
    size_t block = letters_four[(word & 7) << 6 | (word >> 8 & 63)];
    uint64_t page = letters_pages[letters_blocks[block << 6 | (word >> 16 & 63)]];
    return page >> (word >> 24 & 63) & 1;
}

/* Bytes of the letter that begins at `at`; 0 if none does. */
static inline size_t letter_bytes(const uint8_t *at) {
    uint32_t word = text_word(at);
    uint32_t lead = word & 255;
    if (lead < 0x80) return (uint8_t)((lead | 0x20) - 'a') < 26;
    if (lead < 0xC0) return 0;
    if (lead < 0xE0) return letter_of_two(word) ? 2 : 0;
    if (lead < 0xF0) return letter_of_three(word) ? 3 : 0;
    return letter_of_four(word) ? 4 : 0;
}

/* --- cutting -------------------------------------------------------------------------------- */

/* Whether text[at..size) could be the beginning of a letter that the next bytes complete. */
static int letter_cut_short(const uint8_t *text, size_t at, size_t size) {
    static const uint8_t least[3] = {0xC2, 0xE0, 0xF0}; /* leads that announce 1, 2, 3 more */
    size_t known = size - at;
    if (known > LETTER_REACH || text[at] < least[known - 1]) return 0;
    for (size_t i = at + 1; i < size; i++)
        if ((text[i] & 0xC0) != 0x80) return 0;
    return 1;
}

/* The largest position in (from, size] that no word straddles, whatever follows; `from` if there is
 * none. It is right behind a byte that is part of no letter. The bytes before `from` are known. */
static size_t text_last_cut(const uint8_t *text, size_t from, size_t size) {
    size_t at = size;
    while (at > from) {
        size_t lead = at - 1; /* of the sequence that the byte before `at` would belong to */
        while ((text[lead] & 0xC0) == 0x80 && lead > 0 && at - lead <= LETTER_REACH) lead--;
        size_t bytes = letter_bytes(text + lead);
        int inside = bytes && lead + bytes == at;
        if (!inside && !(at == size && letter_cut_short(text, lead, size))) return at;
        at = lead;
    }
    return from;
}

/* --- folding -------------------------------------------------------------------------------- */

static inline uint32_t letter_decode(const uint8_t *at, size_t bytes) {
    if (bytes == 1) return at[0];
    uint32_t code = at[0] & (0x7Fu >> bytes);
    for (size_t i = 1; i < bytes; i++) code = code << 6 | (at[i] & 63);
    return code;
}

static inline size_t letter_encode(uint8_t *to, uint32_t code) {
    if (code < 0x80) {
        to[0] = (uint8_t)code;
        return 1;
    }
    size_t bytes = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = bytes - 1; i; i--, code >>= 6) to[i] = 0x80 | (code & 63);
    to[0] = (uint8_t)(0xF00u >> bytes) | (uint8_t)code; /* bytes ones, a zero, then the code */
    return bytes;
}

static inline uint32_t letter_fold(uint32_t code) {
    if (code >= FOLD_END) return code;
    return code + (uint32_t)fold_deltas[(size_t)fold_pages[code >> 6] << 6 | (code & 63)];
}

/* A folded letter may be longer than the letter: by a half at most (2 bytes to 3). */
#define FOLDED_BYTES_MAX(bytes) ((bytes) + ((bytes) + 1) / 2)

/* Fold all letters of text[0..size) into `to`, copying what is none; the bytes written. */
static size_t text_fold(uint8_t *to, const uint8_t *text, size_t size) {
    size_t written = 0;
    for (size_t at = 0; at < size;) {
        size_t bytes = letter_bytes(text + at);
        if (!bytes || at + bytes > size) {
            to[written++] = text[at++];
            continue;
        }
        written += letter_encode(to + written, letter_fold(letter_decode(text + at, bytes)));
        at += bytes;
    }
    return written;
}

/* Letters whose folded form has another length cannot be folded where they stand. There are 35, all
 * rare; their places are kept so that their words, and only theirs, are folded one by one. */
#define MISFITS_MAX 1024

typedef struct {
    size_t count, next; /* next: the first that has not been passed */
    uint32_t at[MISFITS_MAX]; /* ascending; when full, the last stands for all that follows */
} misfit_list;

/* Fold the letter of `bytes` bytes at text[at] in place, or note it as a misfit. */
static inline void letter_fold_in_place(uint8_t *text, size_t at, size_t bytes,
                                        misfit_list *misfits) {
    uint8_t folded[4];
    size_t length = letter_encode(folded, letter_fold(letter_decode(text + at, bytes)));
    if (length == bytes)
        memcpy(text + at, folded, bytes);
    else if (misfits->count < MISFITS_MAX)
        misfits->at[misfits->count++] = (uint32_t)at;
}

/* Fold what begins with the lead byte at text[at] in place, if it is a letter and no misfit. */
static inline void text_fold_at(uint8_t *text, size_t at, misfit_list *misfits) {
    uint32_t word = text_word(text + at);
    if (usually((word & 255) < 0xE0)) { /* by far the most: all of Cyrillic and Greek */
        if (!letter_of_two(word)) return;
        uint32_t folded = letter_fold((word & 31) << 6 | (word >> 8 & 63));
        if (usually(folded >= 0x80 && folded < 0x800)) {
            text[at] = (uint8_t)(0xC0 | folded >> 6);
            text[at + 1] = (uint8_t)(0x80 | (folded & 63));
            return;
        }
    }
    size_t bytes = letter_bytes(text + at);
    if (bytes) letter_fold_in_place(text, at, bytes, misfits);
}

#endif
