/* Counting the words of a range of a file, chunk by chunk, cut where no word is torn. */
#ifndef ENGINE_WORD_READER_H
#define ENGINE_WORD_READER_H
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "word_counter.h"

/* Words of a progress page; engine/mapreduce/progress.py. */
enum { PAGE_BEAT = 0, PAGE_OFFSET = 5, PAGE_BYTES = 6, PAGE_KEYS = 7, PAGE_WORDS = 16 };

/* The state of one call. The buffer holds `have` bytes of the file, from `base` of the file, at
 * `lead` of the buffer. */
typedef struct {
    int fd;
    uint64_t first, end; /* words that begin in here are counted */
    uint64_t size;       /* of the file */
    uint64_t base;
    size_t lead, have;
    int ended;      /* no more can be read */
    uint64_t *page; /* or NULL */
} word_reader;

/* Keep only what the buffer holds from `from` of the text on. It is moved to where the next read
 * goes to an address that is a multiple of 64: the kernel's copy takes four times as long when
 * source (often the beginning of a page) and target differ by a few bytes modulo 4096. */
static void word_reader_keep(word_reader *reader, word_counter *counter, size_t from) {
    size_t have = reader->have - from, lead = -have & 63;
    memmove(counter->buffer + lead, counter->buffer + reader->lead + from, have);
    reader->base += from;
    reader->lead = lead;
    reader->have = have;
}

/* Read more behind what is there: a chunk, or beyond `end` just enough to end the last word. */
static count_result word_reader_fill(word_reader *reader, word_counter *counter) {
    uint64_t at = reader->base + reader->have;
    uint64_t wanted = TEXT_SLACK + (at < reader->end ? reader->end - at : reader->have);
    size_t want = wanted < counter->chunk ? (size_t)wanted : counter->chunk;
    size_t used = reader->lead + reader->have;
    if (!word_counter_room(counter, used + want)) return COUNT_NO_MEMORY;
    ssize_t got;
    do {
        got = pread(reader->fd, counter->buffer + used, want, (off_t)at);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        counter->error = errno;
        return COUNT_ERRNO;
    }
    reader->have += (size_t)got;
    reader->ended = got == 0 || at + (uint64_t)got >= reader->size;
    memset(counter->buffer + used + (size_t)got, 0, TEXT_SLACK);
    return COUNT_DONE;
}

/* All that was read is one word so far: refuse it if it is too long, drop it if it is not ours. */
static count_result word_reader_endless(word_reader *reader, word_counter *counter) {
    uint64_t at = reader->base + reader->have;
    if (reader->base < reader->first) {
        size_t kept = reader->have < LETTER_REACH + 1 ? reader->have : LETTER_REACH + 1;
        word_reader_keep(reader, counter, reader->have - kept);
        if (reader->first < at) reader->first = at; /* no word begins before */
    } else if (reader->have > WORD_BYTES_MAX + LETTER_REACH) {
        counter->stop = reader->base;
        return COUNT_TOO_LONG;
    }
    return COUNT_DONE;
}

/* Count what lies before `cut` and move the rest to the front. */
static count_result word_reader_count(word_reader *reader, word_counter *counter, size_t cut) {
    uint64_t base = reader->base;
    size_t first = reader->first > base ? (size_t)(reader->first - base) : 0;
    uint8_t *text = counter->buffer + reader->lead;
    count_result result =
        counter->count_text_words(counter, text, cut, first, (size_t)(reader->end - base));
    if (result != COUNT_DONE) {
        counter->stop += base;
        return result;
    }
    word_reader_keep(reader, counter, cut);
    return COUNT_DONE;
}

/* Tell the world that all before `done` is counted. */
static void word_reader_report(word_reader *reader, const word_counter *counter, uint64_t *told,
                               uint64_t done) {
    uint64_t *page = reader->page;
    if (done > reader->end) done = reader->end;
    uint64_t more = done > *told ? done - *told : 0;
    *told += more;
    if (!page) return;
    page[PAGE_OFFSET] = *told;
    page[PAGE_BYTES] += more;
    page[PAGE_KEYS] = word_table_keys(&counter->table);
    __atomic_store_n(&page[PAGE_BEAT], page[PAGE_BEAT] + 1, __ATOMIC_RELEASE);
}

static count_result
word_reader_run(word_reader *reader, word_counter *counter, uint64_t start, uint64_t *done) {
    uint64_t told = start;
    for (;;) {
        size_t before = reader->have > LETTER_REACH + 1 ? reader->have - (LETTER_REACH + 1) : 0;
        count_result result = word_reader_fill(reader, counter);
        if (result != COUNT_DONE) return result;
        const uint8_t *text = counter->buffer + reader->lead;
        size_t cut = reader->ended ? reader->have : text_last_cut(text, before, reader->have);
        if (cut > before || reader->ended)
            result = word_reader_count(reader, counter, cut);
        else
            result = word_reader_endless(reader, counter);
        *done = result == COUNT_FULL ? counter->stop : reader->base;
        word_reader_report(reader, counter, &told, *done);
        if (result != COUNT_DONE || reader->ended || reader->base >= reader->end) return result;
        if (counter->words >> (WORD_COUNT_BITS - 1)) return COUNT_FULL; /* a count might overflow */
    }
}

/* Count the words of the open file that begin in [start, end); engine/kernels/words.pyi tells more.
 * *done is where to go on after COUNT_FULL, and where the word begins after COUNT_TOO_LONG. */
static count_result word_reader_count_file(word_counter *counter, int fd, uint64_t start,
                                           uint64_t end, uint64_t *page, uint64_t *done) {
    struct stat status;
    if (fstat(fd, &status)) {
        counter->error = errno;
        return COUNT_ERRNO;
    }
    uint64_t size = (uint64_t)status.st_size;
    if (end > size) end = size;
    *done = end;
    if (start >= end) return COUNT_DONE;
    /* Whether a word begins at `start` shows in the byte before it, and that byte's letter in the
     * three before that. */
    uint64_t back = start < LETTER_REACH + 1 ? start : LETTER_REACH + 1;
    word_reader reader = {
        .fd = fd, .first = start, .end = end, .size = size, .base = start - back, .page = page};
    count_result result = word_reader_run(&reader, counter, start, done);
    if (result == COUNT_DONE) *done = end;
    if (result == COUNT_TOO_LONG) *done = counter->stop;
    return result;
}

#endif
