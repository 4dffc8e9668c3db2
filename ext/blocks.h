/* Blocks of run files: fetch and verify, build and write. Grammar: engine/storage/runs.py.
 *
 * A reader hands out the blocks of one segment, one at a time, through a window that it fetches
 * with pread; nothing of a block is looked at by anybody else before its checksum has verified. An
 * output collects bytes and hands them to the file about a megabyte at a time, either as they are
 * (text) or as blocks: `blocks_room`, fill, `blocks_take`, and `blocks_seal` when the block is full.
 *
 * Nothing here needs the GIL. Whatever can fail returns < 0 (or NULL) and says why in a
 * `blocks_failure`; what was allocated stays owned by its reader or output until it is closed.
 */
#ifndef ENGINE_BLOCKS_H
#define ENGINE_BLOCKS_H
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crc32c.h"
#include "runs.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "run files are little-endian, and this code copies their headers as they are"
#endif

/* Readable bytes behind every window and writable ones behind every output buffer, so that short
 * keys can be loaded and copied in whole words. */
#define BLOCKS_SLACK 64
/* A whole block and the header of the next one: the least a window can be. */
#define BLOCKS_WINDOW_MIN (sizeof(runs_header) + RUNS_BLOCK_BYTES + sizeof(runs_header))
#define BLOCKS_OUTPUT_BYTES ((size_t)1 << 20)

/* --- failures ---------------------------------------------------------------------------------- */

enum { BLOCKS_FINE, BLOCKS_DAMAGED, BLOCKS_SYSTEM, BLOCKS_OVERFLOW };

typedef struct {
    int kind;
    int error;         /* BLOCKS_SYSTEM: the errno */
    size_t segment;    /* BLOCKS_DAMAGED: index in the caller's list */
    uint64_t offset;   /* BLOCKS_DAMAGED: byte of the file at which the block begins */
    const char *why;   /* BLOCKS_DAMAGED: a constant string */
} blocks_failure;

static inline int blocks_failed(blocks_failure *failure, int error) {
    *failure = (blocks_failure){.kind = BLOCKS_SYSTEM, .error = error};
    return -1;
}

/* --- progress page (engine/mapreduce/progress.py) ---------------------------------------------- */

enum { BLOCKS_PAGE_BEAT = 0, BLOCKS_PAGE_OFFSET = 5 };

/* Show movement: `offset` bytes are done. `page` may be NULL. */
static inline void blocks_move_page(uint64_t *page, uint64_t offset) {
    if (!page)
        return;
    __atomic_store_n(page + BLOCKS_PAGE_OFFSET, offset, __ATOMIC_RELAXED);
    uint64_t beat = __atomic_load_n(page + BLOCKS_PAGE_BEAT, __ATOMIC_RELAXED);
    __atomic_store_n(page + BLOCKS_PAGE_BEAT, beat + 1, __ATOMIC_RELEASE);
}

/* --- reading ----------------------------------------------------------------------------------- */

/* What every block of a merge must say of itself. */
typedef struct {
    uint16_t kind;
    uint64_t job;
    uint32_t partition;
} blocks_identity;

typedef struct {
    int fd;
    size_t segment;          /* index in the caller's list, for failures */
    uint64_t next, end;      /* file offsets: the next byte to fetch, the end of the segment */
    uint8_t *window;
    size_t capacity, usual;  /* bytes of the window now, and when no record is huge */
    size_t from, filled;     /* window[from, filled) is fetched and not yet handed out */
    uint64_t at;             /* file offset of the block handed out last, */
    runs_header header;      /* its header, */
    const uint8_t *payload;  /* its header.payload bytes: valid until the next call */
} blocks_reader;

static inline int blocks_damaged(const blocks_reader *reader, const char *why,
                                 blocks_failure *failure) {
    *failure = (blocks_failure){.kind = BLOCKS_DAMAGED, .segment = reader->segment,
                                .offset = reader->at, .why = why};
    return -1;
}

/* Close is safe on a reader whose memory is zeroed, and after a failed open. */
static inline void blocks_close_reader(blocks_reader *reader) {
    free(reader->window);
    reader->window = NULL;
}

static inline int blocks_resize_window(blocks_reader *reader, size_t capacity,
                                       blocks_failure *failure) {
    uint8_t *window = malloc(capacity + BLOCKS_SLACK);
    if (!window)
        return blocks_failed(failure, ENOMEM);
    size_t unread = reader->filled - reader->from;
    if (unread)
        memcpy(window, reader->window + reader->from, unread);
    memset(window + capacity, 0, BLOCKS_SLACK);
    free(reader->window);
    reader->window = window;
    reader->capacity = capacity;
    reader->from = 0;
    reader->filled = unread;
    return 0;
}

/* `window` bytes are fetched at a time; raised to BLOCKS_WINDOW_MIN, cut to the segment's length. */
static inline int blocks_open_reader(blocks_reader *reader, size_t segment, int fd, uint64_t offset,
                                     uint64_t length, size_t window, blocks_failure *failure) {
    if (window < BLOCKS_WINDOW_MIN)
        window = BLOCKS_WINDOW_MIN;
    if (window > length)
        window = length;
    *reader = (blocks_reader){.fd = fd, .segment = segment, .next = offset, .at = offset,
                              .end = offset + length, .usual = window};
    if (reader->end < offset)
        return blocks_damaged(reader, "the segment's length is impossible", failure);
    return blocks_resize_window(reader, window, failure);
}

/* Have at least `need` unread bytes in the window. */
static inline int blocks_fetch(blocks_reader *reader, size_t need, blocks_failure *failure) {
    size_t unread = reader->filled - reader->from;
    if (unread >= need)
        return 0;
    if (need - unread > reader->end - reader->next)
        return blocks_damaged(reader, "the segment ends inside the block", failure);
    /* A window that grew for a huge record holds just that, so it can shrink behind it. */
    size_t wanted = need > reader->usual ? need : reader->usual;
    if (wanted != reader->capacity) {
        if (blocks_resize_window(reader, wanted, failure) < 0)
            return -1;
    } else {
        memmove(reader->window, reader->window + reader->from, unread);
        reader->from = 0;
        reader->filled = unread;
    }
    while (reader->filled < need) {
        size_t room = reader->capacity - reader->filled;
        uint64_t left = reader->end - reader->next;
        ssize_t got = pread(reader->fd, reader->window + reader->filled,
                            room < left ? room : (size_t)left, (off_t)reader->next);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return blocks_failed(failure, errno);
        if (got == 0)
            return blocks_damaged(reader, "the file ends inside the block", failure);
        reader->filled += (size_t)got;
        reader->next += (uint64_t)got;
    }
    return 0;
}

/* Why a header cannot be right, or NULL. Its lengths are judged before they are believed. */
static inline const char *blocks_judge(const runs_header *header, const blocks_identity *expected) {
    if (header->magic != RUNS_MAGIC)
        return "no block begins here";
    if (header->version != RUNS_VERSION)
        return "the block's version is unknown";
    if (header->kind != expected->kind)
        return "the block is of another kind";
    if (header->job != expected->job)
        return "the block is of another job";
    if (header->partition != expected->partition)
        return "the block is of another partition";
    if (header->records == 0 || header->payload == 0)
        return "the block is empty";
    if (header->payload > RUNS_BLOCK_BYTES && header->records != 1)
        return "the block is too long";
    if (header->keys > header->payload || header->zero != 0)
        return "the block's lengths disagree";
    return NULL;
}

/* The next block, verified: 1; 0 at the end of the segment; -1 for a failure. */
static inline int blocks_next(blocks_reader *reader, const blocks_identity *expected,
                              blocks_failure *failure) {
    reader->at = reader->next - (reader->filled - reader->from);
    if (reader->at == reader->end)
        return 0;
    if (blocks_fetch(reader, sizeof(runs_header), failure) < 0)
        return -1;
    memcpy(&reader->header, reader->window + reader->from, sizeof(runs_header));
    const char *why = blocks_judge(&reader->header, expected);
    if (why)
        return blocks_damaged(reader, why, failure);
    size_t size = sizeof(runs_header) + reader->header.payload;
    if (blocks_fetch(reader, size, failure) < 0)
        return -1;
    uint8_t *block = reader->window + reader->from;
    memset(block + offsetof(runs_header, crc), 0, sizeof reader->header.crc);
    if (crc32c(0, block, size) != reader->header.crc)
        return blocks_damaged(reader, "the checksum differs", failure);
    reader->payload = block + sizeof(runs_header);
    reader->from += size;
    return 1;
}

/* --- writing ----------------------------------------------------------------------------------- */

#define BLOCKS_NONE SIZE_MAX

typedef struct {
    int fd;
    int64_t offset;    /* where buffer[0] goes by pwrite; < 0: write, wherever the file stands */
    uint64_t written;  /* bytes handed to the file */
    uint32_t crc;      /* CRC32C of these */
    uint8_t *buffer;
    size_t capacity, used;
    size_t open;       /* index in the buffer of the block being built, or BLOCKS_NONE */
} blocks_output;

static inline int blocks_open_output(blocks_output *output, int fd, int64_t offset,
                                     blocks_failure *failure) {
    *output = (blocks_output){.fd = fd, .offset = offset, .capacity = BLOCKS_OUTPUT_BYTES,
                              .open = BLOCKS_NONE};
    output->buffer = malloc(output->capacity + BLOCKS_SLACK);
    return output->buffer ? 0 : blocks_failed(failure, ENOMEM);
}

/* Releases memory only: flush first, if what is left matters. */
static inline void blocks_close_output(blocks_output *output) {
    free(output->buffer);
    output->buffer = NULL;
}

/* Bytes written and waiting to be. */
static inline uint64_t blocks_size(const blocks_output *output) {
    return output->written + output->used;
}

/* Hand everything to the file, but for the block that is being built. */
static inline int blocks_flush(blocks_output *output, blocks_failure *failure) {
    size_t ready = output->open == BLOCKS_NONE ? output->used : output->open;
    for (size_t done = 0; done < ready;) {
        const uint8_t *from = output->buffer + done;
        ssize_t put = output->offset < 0
                          ? write(output->fd, from, ready - done)
                          : pwrite(output->fd, from, ready - done,
                                   (off_t)(output->offset + (int64_t)(output->written + done)));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return blocks_failed(failure, put < 0 ? errno : EIO);
        done += (size_t)put;
    }
    output->crc = crc32c(output->crc, output->buffer, ready);
    output->written += ready;
    memmove(output->buffer, output->buffer + ready, output->used - ready);
    output->used -= ready;
    if (output->open != BLOCKS_NONE)
        output->open = 0;
    return 0;
}

/* At least `size` writable bytes (and BLOCKS_SLACK more) behind what is used. */
static inline uint8_t *blocks_room(blocks_output *output, size_t size, blocks_failure *failure) {
    if (output->capacity - output->used < size) {
        if (blocks_flush(output, failure) < 0)
            return NULL;
        if (output->capacity - output->used < size) {
            size_t capacity = output->used + size;
            uint8_t *buffer = realloc(output->buffer, capacity + BLOCKS_SLACK);
            if (!buffer) {
                blocks_failed(failure, ENOMEM);
                return NULL;
            }
            output->buffer = buffer;
            output->capacity = capacity;
        }
    }
    return output->buffer + output->used;
}

/* The first `size` bytes of the room are filled. */
static inline void blocks_take(blocks_output *output, size_t size) {
    output->used += size;
}

/* Begin a block: what is taken from now on is its payload. */
static inline int blocks_begin(blocks_output *output, blocks_failure *failure) {
    if (!blocks_room(output, sizeof(runs_header) + RUNS_BLOCK_BYTES, failure))
        return -1;
    output->open = output->used;
    output->used += sizeof(runs_header);
    return 0;
}

/* Payload bytes of the open block so far. */
static inline size_t blocks_payload(const blocks_output *output) {
    return output->used - output->open - sizeof(runs_header);
}

/* End the open block. The caller filled kind, job, task, attempt, partition, records and keys. */
static inline void blocks_seal(blocks_output *output, runs_header header) {
    uint8_t *block = output->buffer + output->open;
    header.magic = RUNS_MAGIC;
    header.version = RUNS_VERSION;
    header.payload = (uint32_t)blocks_payload(output);
    header.crc = header.zero = 0;
    memcpy(block, &header, sizeof header);
    header.crc = crc32c(0, block, sizeof header + header.payload);
    memcpy(block, &header, sizeof header);
    output->open = BLOCKS_NONE;
}

#endif
