/* What counts the words of files: a table, scratch for one batch, a buffer, the level chosen. */
#ifndef ENGINE_WORD_COUNTER_H
#define ENGINE_WORD_COUNTER_H
#include <stdint.h>

#include "word_letters.h"
#include "word_table.h"

#define EDGES 2048u     /* listed before their words are counted: fits the first-level cache */
#define EDGES_SLACK 128 /* what one block of 64 bytes may add, and write beyond */
#define WORDS_LEAST 128 /* fewer at a time are not worth their while: then the table is full */
#define PREFETCH_WORDS 64
#define PREFETCH_BYTES ((size_t)1 << 20) /* of a table: larger ones miss the second-level cache */

#define CHUNK_BYTES ((size_t)256 << 10) /* read at a time: in cache when its words are counted */
#define BUFFER_BYTES ((size_t)1 << 20)  /* for reading, and for writing sections ... */
/* ... or, in a small budget, what reading needs: a chunk behind one with a word's beginning. */
#define BUFFER_BYTES_MIN memory_round(2 * CHUNK_BYTES + 2 * TEXT_SLACK)

typedef enum {
    COUNT_DONE,
    COUNT_FULL,
    COUNT_TOO_LONG,
    COUNT_NO_MEMORY,
    COUNT_ERRNO,
} count_result;

typedef struct word_counter word_counter;
typedef count_result word_count_text(word_counter *counter, uint8_t *text, size_t size,
                                     size_t first, size_t limit);

struct word_counter {
    word_table table;
    word_count_text *count_text_words; /* of the level */
    uint64_t words;                    /* counted since the table was last empty */
    uint64_t stop; /* after COUNT_FULL and COUNT_TOO_LONG: where the word in question begins */
    int error;     /* after COUNT_ERRNO */
    int fold_case;
    uint32_t partitions;
    size_t chunk;
    uint8_t *buffer;
    size_t buffer_bytes; /* mapped */
    misfit_list misfits;
    uint32_t edges[EDGES + EDGES_SLACK];
    uint32_t longer[EDGES / 2 + EDGES_SLACK];
    uint64_t keys[EDGES / 2 + EDGES_SLACK];
    uint64_t seconds[EDGES / 2 + EDGES_SLACK];
    uint64_t hashes[EDGES / 2 + EDGES_SLACK];
};

/* The buffer, with room for at least `bytes` and TEXT_SLACK; what it held stays. */
static int word_counter_room(word_counter *counter, size_t bytes) {
    if (usually(bytes + TEXT_SLACK <= counter->buffer_bytes)) return 1;
    size_t size = counter->buffer_bytes;
    while (size < bytes + TEXT_SLACK) size *= 2;
    uint8_t *buffer = memory_map(size);
    if (!buffer) return 0;
    memcpy(buffer, counter->buffer, counter->buffer_bytes);
    memory_unmap(counter->buffer, counter->buffer_bytes);
    counter->table.mapped += size - counter->buffer_bytes;
    counter->buffer = buffer;
    counter->buffer_bytes = size;
    return 1;
}

static void word_counter_close(word_counter *counter) {
    size_t size = memory_round(sizeof *counter);
    word_table_close(&counter->table);
    memory_unmap(counter->buffer, counter->buffer_bytes);
    memory_unmap(counter, size);
}

/* NULL if the system has no memory. */
static word_counter *word_counter_open(size_t budget, uint32_t partitions, int fold_case,
                                       size_t chunk, word_count_text *level) {
    size_t size = memory_round(sizeof(word_counter));
    word_counter *counter = memory_map(size);
    if (!counter) return NULL;
    counter->count_text_words = level;
    counter->fold_case = fold_case;
    counter->partitions = partitions;
    counter->chunk = chunk ? chunk : CHUNK_BYTES;
    int opened = word_table_open(&counter->table, budget);
    counter->buffer_bytes = budget < 8 * BUFFER_BYTES ? BUFFER_BYTES_MIN : BUFFER_BYTES;
    counter->buffer = memory_map(counter->buffer_bytes);
    counter->table.mapped += size + counter->buffer_bytes;
    if (opened && counter->buffer) return counter;
    word_counter_close(counter);
    return NULL;
}

/* Forget all words; a buffer that one long word made large is given back. */
static void word_counter_clear(word_counter *counter) {
    word_table_clear(&counter->table);
    counter->words = 0;
    if (counter->buffer_bytes > BUFFER_BYTES) {
        memory_unmap(counter->buffer + BUFFER_BYTES, counter->buffer_bytes - BUFFER_BYTES);
        counter->table.mapped -= counter->buffer_bytes - BUFFER_BYTES;
        counter->buffer_bytes = BUFFER_BYTES;
    }
}

#endif
