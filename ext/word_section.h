/* Writing a table as one section of a run file: blocks of kind 1, by partition, each in order.
 *
 * The grammar stands in engine/storage/runs.py. Blocks are built in the counter's buffer and handed
 * to the file about a megabyte at a time. Only a record that fills more than a block by itself goes
 * from the arena straight to the file, so a word of any length takes no memory to write.
 */
#ifndef ENGINE_WORD_SECTION_H
#define ENGINE_WORD_SECTION_H
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "crc32c.h"
#include "runs.h"
#include "word_counter.h"
#include "word_sort.h"

#define COUNT_BYTES_MAX 10  /* of a 64-bit uvarint */
#define RECORD_SHORT_MAX (1 + 16 + COUNT_BYTES_MAX)
#define PAYLOAD_MAX (RUNS_BLOCK_BYTES - sizeof(runs_header))

typedef struct {
    int fd;
    uint64_t offset; /* of the file, at which buffer[0] goes */
    uint8_t *buffer;
    size_t room;  /* bytes of the buffer that may be used */
    size_t used;  /* of them */
    size_t block; /* where the block being built begins */
    runs_header header;
    int error; /* errno of the first failure; nothing is written after it */
} section_writer;

/* Where each partition of a section went. */
typedef struct {
    uint64_t offset, length, records;
} section_part;

static void section_put(section_writer *writer, const uint8_t *bytes, size_t size) {
    while (size && !writer->error) {
        ssize_t put = pwrite(writer->fd, bytes, size, (off_t)writer->offset);
        if (put > 0) {
            bytes += put;
            size -= (size_t)put;
            writer->offset += (uint64_t)put;
        } else if (put == 0 || errno != EINTR) {
            writer->error = put == 0 ? EIO : errno;
        }
    }
}

static void section_flush(section_writer *writer) {
    section_put(writer, writer->buffer, writer->used);
    writer->used = writer->block = 0;
}

static void section_begin_block(section_writer *writer) {
    if (writer->room - writer->used < RUNS_BLOCK_BYTES) section_flush(writer);
    writer->block = writer->used;
    writer->used += sizeof(runs_header);
    writer->header.records = 0;
}

/* End the block being built; one without records is taken back. */
static void section_end_block(section_writer *writer) {
    runs_header *header = &writer->header;
    uint8_t *block = writer->buffer + writer->block;
    if (!header->records) {
        writer->used = writer->block;
        return;
    }
    header->payload = (uint32_t)(writer->used - writer->block - sizeof *header);
    header->crc = 0;
    memcpy(block, header, sizeof *header);
    header->crc = crc32c(0, block, sizeof *header + header->payload);
    memcpy(block, header, sizeof *header);
}

static uint8_t *put_uvarint(uint8_t *to, uint64_t value) {
    for (; value > 127; value >>= 7) *to++ = (uint8_t)(value | 128);
    *to++ = (uint8_t)value;
    return to;
}

/* Room for one more record of up to `size` bytes, in this block or the next. */
static uint8_t *section_record(section_writer *writer, size_t size) {
    if (rarely(writer->used - writer->block + size > RUNS_BLOCK_BYTES)) {
        section_end_block(writer);
        section_begin_block(writer);
    }
    writer->header.records++;
    return writer->buffer + writer->used;
}

static void section_short(section_writer *writer, const short_slot *slot) {
    uint8_t *record = section_record(writer, RECORD_SHORT_MAX);
    uint64_t key = text_order(slot->key);
    size_t length = key_length(key);
    record[0] = (uint8_t)length;
    memcpy(record + 1, &key, 8);
    writer->used = (size_t)(put_uvarint(record + 1 + length, slot->count) - writer->buffer);
}

/* A record that no block of the usual size can hold: a block of its own. */
static void
section_huge(section_writer *writer, const uint8_t *text, size_t length, uint64_t count) {
    uint8_t before[COUNT_BYTES_MAX], behind[COUNT_BYTES_MAX];
    size_t before_size = (size_t)(put_uvarint(before, length) - before);
    size_t behind_size = (size_t)(put_uvarint(behind, count) - behind);
    section_end_block(writer);
    section_flush(writer);
    runs_header header = writer->header;
    header.records = 1;
    header.payload = (uint32_t)(before_size + length + behind_size);
    header.crc = 0;
    uint32_t crc = crc32c(0, (const uint8_t *)&header, sizeof header);
    crc = crc32c(crc, before, before_size);
    crc = crc32c(crc, text, length);
    header.crc = crc32c(crc, behind, behind_size);
    section_put(writer, (const uint8_t *)&header, sizeof header);
    section_put(writer, before, before_size);
    section_put(writer, text, length);
    section_put(writer, behind, behind_size);
    section_begin_block(writer);
}

static void section_long(section_writer *writer, const long_slot *slot) {
    uint8_t room[16];
    size_t length;
    const uint8_t *text = long_text(slot, room, &length);
    size_t size = length + 2 * COUNT_BYTES_MAX;
    if (rarely(size > PAYLOAD_MAX)) {
        section_huge(writer, text, length, slot->count);
        return;
    }
    uint8_t *to = put_uvarint(section_record(writer, size), length);
    memcpy(to, text, length);
    writer->used = (size_t)(put_uvarint(to + length, slot->count) - writer->buffer);
}

/* One partition: its short and long words, merged. A short word that is a long one's beginning
 * comes first, as it should. */
static void section_partition(section_writer *writer, const short_slot *shorts, size_t short_count,
                              const long_slot *longs, size_t long_count) {
    const short_slot *shorts_end = shorts + short_count;
    const long_slot *longs_end = longs + long_count;
    section_begin_block(writer);
    while (shorts < shorts_end || longs < longs_end) {
        if (longs == longs_end || (shorts < shorts_end && shorts->key <= longs->first))
            section_short(writer, shorts++);
        else
            section_long(writer, longs++);
    }
    section_end_block(writer);
}

/* Write all words and clear the table, also if writing fails. `parts` has a place a partition. */
static count_result section_write(word_counter *counter, int fd, uint64_t offset,
                                  const runs_header *header, section_part *parts) {
    uint32_t partitions = counter->partitions;
    sorted_words sorted = {.short_ends = calloc(2 * (size_t)partitions, sizeof(size_t))};
    if (!sorted.short_ends) return COUNT_NO_MEMORY;
    sorted.long_ends = sorted.short_ends + partitions;
    sort_shorts(&counter->table, partitions, &sorted);
    sort_longs(&counter->table, partitions, &sorted);
    section_writer writer = {.fd = fd,
                             .offset = offset,
                             .buffer = counter->buffer,
                             .room = counter->buffer_bytes - TEXT_SLACK,
                             .header = *header};
    size_t short_begin = 0, long_begin = 0;
    for (uint32_t partition = 0; partition < partitions; partition++) {
        size_t shorts = sorted.short_ends[partition] - short_begin;
        size_t longs = sorted.long_ends[partition] - long_begin;
        parts[partition].offset = writer.offset + writer.used;
        writer.header.partition = partition;
        section_partition(&writer, sorted.shorts + short_begin, shorts, sorted.longs + long_begin,
                          longs);
        parts[partition].length = writer.offset + writer.used - parts[partition].offset;
        parts[partition].records = shorts + longs;
        short_begin += shorts;
        long_begin += longs;
    }
    section_flush(&writer);
    free(sorted.short_ends);
    word_counter_clear(counter);
    counter->error = writer.error;
    return writer.error ? COUNT_ERRNO : COUNT_DONE;
}

#endif
