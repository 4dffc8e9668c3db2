/* Finding, hashing and counting the words of a text, for one instruction set.
 *
 * Included once per level by words_levels.h, which defines LEVEL(name) to give each level its own
 * names, and LEVEL_* to say what the level may use. words_scan.h lists the edges of words; here
 * batches of words are loaded as keys and split by length without a jump per word (lengths are
 * unpredictable), room is reserved, and the counts are added.
 */
#include "words_scan.h"

/* --- hashing -------------------------------------------------------------------------------- */

static inline uint64_t LEVEL(hash_key)(uint64_t key) {
#if LEVEL_CRC
    return __builtin_ia32_crc32di(0, key);
#else
    uint64_t product = key * 0x9E3779B97F4A7C15u;
    return product ^ product >> 32;
#endif
}

static inline uint64_t LEVEL(hash_pair)(uint64_t first, uint64_t second) {
#if LEVEL_CRC
    return __builtin_ia32_crc32di(__builtin_ia32_crc32di(0, first), second);
#else
    uint64_t product = (first ^ (second << 29 | second >> 35)) * 0x9E3779B97F4A7C15u;
    product = (product ^ product >> 32 ^ second) * 0xD6E8FEB86659FD93u;
    return product ^ product >> 32;
#endif
}

static uint64_t LEVEL(hash_text)(const uint8_t *text, size_t length) {
    uint64_t hash = length, word;
    for (; length > 8; text += 8, length -= 8) {
        memcpy(&word, text, 8);
        hash = LEVEL(hash_pair)(hash, word);
    }
    word = 0;
    memcpy(&word, text, length);
    return LEVEL(hash_pair)(hash, word);
}

/* --- counting ------------------------------------------------------------------------------- */

static void LEVEL(rehash_shorts)(short_slot *to, size_t slots, const short_slot *from, size_t n) {
    for (const short_slot *slot = from; slot < from + n; slot++) {
        if (!slot->key) continue;
        size_t at = LEVEL(hash_key)(slot->key) & (slots - 1);
        while (to[at].key) at = (at + 1) & (slots - 1);
        to[at] = *slot;
    }
}

static void LEVEL(rehash_longs)(long_slot *to, size_t slots, const long_slot *from, size_t n) {
    for (const long_slot *slot = from; slot < from + n; slot++) {
        if (!slot->first) continue;
        const uint8_t *record = slot->record;
        uint64_t hash = record ? LEVEL(hash_text)(record_text(record), record_length(record))
                               : LEVEL(hash_pair)(slot->first, slot->second);
        size_t at = hash & (slots - 1);
        while (to[at].first) at = (at + 1) & (slots - 1);
        to[at] = *slot;
    }
}

/* Count a word that is not in the slot it hashes to. */
static __attribute__((noinline)) void
LEVEL(probe_short)(word_table *table, uint64_t key, uint64_t hash) {
    for (size_t at = hash;; at++) {
        short_slot *slot = &table->shorts[at & (table->short_slots - 1)];
        if (slot->key != key) {
            if (slot->key) continue;
            slot->key = key;
            table->short_keys++;
        }
        slot->count++;
        return;
    }
}

static inline void
LEVEL(count_pair)(word_table *table, uint64_t first, uint64_t second, uint64_t hash) {
    for (size_t at = hash;; at++) {
        long_slot *slot = &table->longs[at & (table->long_slots - 1)];
        if (slot->first != first || slot->second != second || slot->record) {
            if (slot->first) continue;
            slot->first = first;
            slot->second = second;
            table->long_keys++;
        }
        slot->count++;
        return;
    }
}

/* Count a word of more than 16 bytes. */
static __attribute__((noinline)) void
LEVEL(count_text)(word_table *table, const uint8_t *text, size_t length) {
    uint64_t first, second;
    memcpy(&first, text, 8);
    memcpy(&second, text + 8, 8);
    for (size_t at = LEVEL(hash_text)(text, length);; at++) {
        long_slot *slot = &table->longs[at & (table->long_slots - 1)];
        if (!slot->first) {
            slot->first = first;
            slot->second = second;
            slot->record = arena_keep(table, text, length);
            slot->count = 1;
            table->long_keys++;
            return;
        }
        if (slot->first == first && slot->second == second && slot->record &&
            record_length(slot->record) == length &&
            !memcmp(record_text(slot->record), text, length)) {
            slot->count++;
            return;
        }
    }
}

/* Bytes 8 to 15 of a word of 9 to 16 bytes. */
static inline uint64_t LEVEL(second_key)(const uint8_t *text, size_t length) {
    uint64_t second;
    memcpy(&second, text + 8, 8);
    return second & (~(uint64_t)0 >> (64 - 8 * (length - 8)));
}

/* Count words of more than 8 bytes: the first `count` of counter->longer. */
static void LEVEL(count_longer)(word_counter *counter, const uint8_t *text, const uint32_t *edges,
                                size_t count) {
    word_table *table = &counter->table;
    uint64_t *first = counter->keys, *second = counter->seconds, *hashes = counter->hashes;
    size_t pairs = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t *edge = edges + 2 * counter->longer[i];
        size_t length = edge[1] - edge[0];
        if (rarely(length > 16)) {
            LEVEL(count_text)(table, text + edge[0], length);
            continue;
        }
        memcpy(first + pairs, text + edge[0], 8);
        second[pairs] = LEVEL(second_key)(text + edge[0], length);
        hashes[pairs] = LEVEL(hash_pair)(first[pairs], second[pairs]);
        pairs++;
    }
    int prefetch = table->long_slots >= PREFETCH_BYTES / sizeof(long_slot);
    for (size_t from = 0; from < pairs; from += PREFETCH_WORDS) {
        size_t to = from + PREFETCH_WORDS < pairs ? from + PREFETCH_WORDS : pairs;
        for (size_t i = from; prefetch && i < to; i++)
            __builtin_prefetch(&table->longs[hashes[i] & (table->long_slots - 1)], 1);
        for (size_t i = from; i < to; i++)
            LEVEL(count_pair)(table, first[i], second[i], hashes[i]);
    }
}

/* Count words of up to 8 bytes: the first `count` of counter->keys. */
static void LEVEL(count_shorts)(word_counter *counter, size_t count) {
    word_table *table = &counter->table;
    const uint64_t *keys = counter->keys;
    short_slot *const slots = table->shorts; /* stays where it is: room has been reserved */
    const size_t mask = table->short_slots - 1;
    uint64_t hashes[PREFETCH_WORDS];
    int prefetch = mask >= PREFETCH_BYTES / sizeof(short_slot);
    for (size_t here; count; keys += here, count -= here) {
        here = count < PREFETCH_WORDS ? count : PREFETCH_WORDS;
        for (size_t i = 0; i < here; i++) hashes[i] = LEVEL(hash_key)(keys[i]);
        for (size_t i = 0; prefetch && i < here; i++)
            __builtin_prefetch(&slots[hashes[i] & mask], 1);
        for (size_t i = 0; i < here; i++) {
            short_slot *slot = &slots[hashes[i] & mask];
            if (usually(slot->key == keys[i]))
                slot->count++;
            else
                LEVEL(probe_short)(table, keys[i], hashes[i]);
        }
    }
}

/* Bytes of arena that the words of more than 16 bytes among counter->longer need, at most. */
static count_result LEVEL(measure_longer)(word_counter *counter, const uint32_t *edges,
                                          size_t count, size_t *bytes) {
    *bytes = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t *edge = edges + 2 * counter->longer[i];
        size_t length = edge[1] - edge[0];
        if (rarely(length > WORD_BYTES_MAX)) {
            counter->stop = edge[0];
            return COUNT_TOO_LONG;
        }
        if (length > 16) *bytes += record_bytes(length);
    }
    return COUNT_DONE;
}

/* Count `count` words, all or (when there is no room) none. */
static count_result LEVEL(count_batch)(word_counter *counter, const uint8_t *text,
                                       const uint32_t *edges, size_t count, int force) {
    size_t shorts = 0, longer = 0, bytes;
    for (size_t i = 0; i < count; i++) {
        uint32_t from = edges[2 * i], length = edges[2 * i + 1] - from;
        uint64_t key;
        memcpy(&key, text + from, 8);
        counter->keys[shorts] = key & (~(uint64_t)0 >> ((64 - 8 * length) & 63));
        shorts += length <= 8;
        counter->longer[longer] = (uint32_t)i;
        longer += length > 8;
    }
    count_result result = LEVEL(measure_longer)(counter, edges, longer, &bytes);
    if (result != COUNT_DONE) return result;
    switch (word_table_reserve(&counter->table, shorts, longer, bytes, force, LEVEL(rehash_shorts),
                               LEVEL(rehash_longs))) {
    case RESERVE_OVER_BUDGET: return COUNT_FULL;
    case RESERVE_NO_MEMORY: return COUNT_NO_MEMORY;
    case RESERVE_DONE: break;
    }
    LEVEL(count_shorts)(counter, shorts);
    LEVEL(count_longer)(counter, text, edges, longer);
    counter->words += count;
    return COUNT_DONE;
}

/* Count one word whose folded form has another length. */
static count_result LEVEL(count_misfit)(word_counter *counter, const uint8_t *text, size_t length,
                                        int force) {
    uint8_t small[256], *folded = small;
    size_t size = memory_round(FOLDED_BYTES_MAX(length) + TEXT_SLACK);
    if (FOLDED_BYTES_MAX(length) + TEXT_SLACK > sizeof small) folded = memory_map(size);
    if (!folded) return COUNT_NO_MEMORY;
    uint32_t edges[2] = {0, (uint32_t)text_fold(folded, text, length)};
    count_result result = LEVEL(count_batch)(counter, folded, edges, 1, force);
    if (folded != small) memory_unmap(folded, size);
    return result;
}

/* How many words to try next: all, but for the misfits among them, each of which goes alone. */
static size_t LEVEL(words_until_misfit)(word_counter *counter, const uint32_t *edges, size_t count,
                                        int *alone) {
    misfit_list *misfits = &counter->misfits;
    *alone = 0;
    while (misfits->next < misfits->count && misfits->at[misfits->next] < edges[0] &&
           misfits->next < MISFITS_MAX - 1)
        misfits->next++;
    if (misfits->next == misfits->count) return count;
    uint32_t misfit = misfits->at[misfits->next];
    size_t plain = 0;
    while (plain < count && edges[2 * plain + 1] <= misfit) plain++;
    *alone = !plain;
    return plain ? plain : 1;
}

/* Count words; when there is no room, fewer at a time. COUNT_FULL and COUNT_TOO_LONG leave the
 * place of the first word not counted in counter->stop. */
static count_result LEVEL(count_words)(word_counter *counter, const uint8_t *text,
                                       const uint32_t *edges, size_t count) {
    while (count) {
        int alone = 0;
        size_t take = count;
        if (rarely(counter->misfits.count))
            take = LEVEL(words_until_misfit)(counter, edges, count, &alone);
        count_result result;
        for (;;) {
            int force = take == 1 && !word_table_keys(&counter->table);
            size_t length = edges[1] - edges[0];
            result = alone ? LEVEL(count_misfit)(counter, text + edges[0], length, force)
                           : LEVEL(count_batch)(counter, text, edges, take, force);
            if (result != COUNT_FULL) break;
            if (take > WORDS_LEAST)
                take = WORDS_LEAST;
            else if (take > 1 && !word_table_keys(&counter->table))
                take = 1;
            else
                break;
        }
        if (result == COUNT_FULL || alone) counter->stop = edges[0];
        if (result != COUNT_DONE) return result;
        edges += 2 * take;
        count -= take;
    }
    return COUNT_DONE;
}

/* --- a text ----------------------------------------------------------------------------------- */

static void LEVEL(fold_in_place)(uint8_t *text, size_t size, misfit_list *misfits) {
    uint8_t seen = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = text[i];
        seen |= byte;
        text[i] = (uint8_t)(byte + ((uint8_t)(byte - 'A') < 26 ? 'a' - 'A' : 0));
    }
    misfits->count = misfits->next = 0;
    for (size_t at = 0; seen & 0x80 && at < size; at += 64) {
        uint64_t two, more;
        LEVEL(leads)(text + at, &two, &more);
        uint64_t leads = two | more;
        if (size - at < 64) leads &= ((uint64_t)1 << (size - at)) - 1;
        for (; leads; leads &= leads - 1)
            text_fold_at(text, at + (size_t)__builtin_ctzll(leads), misfits);
    }
}

/* Count the words of text[0..size) that begin in [first, limit); none straddles its ends, but one
 * that begins before `first` may have been cut off on the left. The text is followed by TEXT_SLACK
 * readable bytes, and is folded in place. */
static count_result LEVEL(count_text_words)(word_counter *counter, uint8_t *text, size_t size,
                                            size_t first, size_t limit) {
    uint32_t *const edges = counter->edges, *end = edges;
    uint64_t inside = 0, spill = 0;
    size_t at = 0;
    if (counter->fold_case) LEVEL(fold_in_place)(text, size, &counter->misfits);
    for (;;) {
        for (; end < edges + EDGES && at < size; at += 64) {
            uint64_t high, letters = LEVEL(ascii_letters)(text + at, &high);
            if (rarely(high | spill)) letters |= LEVEL(wide_letters)(text + at, &spill);
            if (rarely(size - at < 64)) letters &= ((uint64_t)1 << (size - at)) - 1;
            end = LEVEL(list_edges)(end, letters ^ (letters << 1 | inside), (uint32_t)at);
            inside = letters >> 63;
        }
        int finished = at >= size;
        if (finished && inside) *end++ = (uint32_t)size;
        const uint32_t *edge = edges;
        size_t count = (size_t)(end - edges) / 2;
        while (count && edge[0] < first) edge += 2, count--;
        while (count && edge[2 * count - 2] >= limit) count--;
        count_result result = LEVEL(count_words)(counter, text, edge, count);
        if (result != COUNT_DONE || finished) return result;
        if ((end - edges) & 1) {
            edges[0] = end[-1];
            end = edges + 1;
        } else {
            end = edges;
        }
    }
}
