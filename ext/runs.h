/* Block headers of run files; the grammar stands in engine/storage/runs.py. */
#ifndef ENGINE_RUNS_H
#define ENGINE_RUNS_H
#include <stdint.h>

#define RUNS_MAGIC 0x4c424e45u /* "ENBL" */
#define RUNS_VERSION 1
#define RUNS_KIND_COUNTS 1
#define RUNS_KIND_GROUPS 2
#define RUNS_BLOCK_BYTES 65536

typedef struct {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint64_t job;
    uint32_t task;
    uint32_t attempt;
    uint32_t partition;
    uint32_t records;
    uint32_t keys;
    uint32_t payload;
    uint32_t crc;
    uint32_t zero;
} runs_header; /* 48 bytes, little-endian */

#endif
