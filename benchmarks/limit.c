/* Word count by our own kernel and nothing else: what is left of the engine's time is the engine.
 *
 * Forked processes take splits from a shared counter, each folds them into one table and writes one
 * run; when all have, each merges its partition of all runs into one part. There is no Python, no
 * message, no journal, no lease, no fsync, and a process that dies takes the answer with it.
 *
 * usage: limit PROCESSES OUTPUT INPUT...   writes OUTPUT-0 ... OUTPUT-(PROCESSES - 1)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "words_levels.h"

#include "word_reader.h"
#include "word_section.h"

#include "merge.h"

#define PROCESSES_MAX 64
#define SPLIT_BYTES ((uint64_t)8 << 20)
#define BUDGET ((uint64_t)64 << 30) /* a limit never spills */
#define JOB 1

typedef struct {
    const char *path;
    uint64_t start, end;
} split;

typedef struct {
    atomic_size_t next;
    section_part parts[PROCESSES_MAX][PROCESSES_MAX]; /* of run i, partition j */
} shared_state;

static void die(const char *what) {
    fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t size_of(const char *path) {
    struct stat status;
    if (stat(path, &status)) die(path);
    return (uint64_t)status.st_size;
}

/* Small inputs are cut finer, so that every process has some. */
static size_t cut(split **splits, int processes, int files, char **paths) {
    uint64_t total = 0;
    size_t count = 0, room = 16;
    for (int i = 0; i < files; i++) total += size_of(paths[i]);
    uint64_t step = total / (8 * (uint64_t)processes) + 1;
    if (step > SPLIT_BYTES) step = SPLIT_BYTES;
    *splits = malloc(room * sizeof **splits);
    for (int i = 0; i < files; i++) {
        uint64_t size = size_of(paths[i]);
        for (uint64_t start = 0; start < size; start += step) {
            if (count == room) *splits = realloc(*splits, (room *= 2) * sizeof **splits);
            if (!*splits) die("no memory");
            uint64_t end = start + step < size ? start + step : size;
            (*splits)[count++] = (split){paths[i], start, end};
        }
    }
    return count;
}

static word_count_text *best_level(void) {
    int level = WORDS_LEVELS - 1;
    while (!words_levels[level].usable()) level--;
    return words_levels[level].count_text_words;
}

static void count_share(int number, int processes, int run, const split *splits, size_t count,
                        shared_state *shared) {
    word_counter *counter = word_counter_open(BUDGET, (uint32_t)processes, 0, 0, best_level());
    if (!counter) die("no memory");
    for (size_t i; (i = atomic_fetch_add(&shared->next, 1)) < count;) {
        uint64_t done;
        int fd = open(splits[i].path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) die(splits[i].path);
        if (word_reader_count_file(counter, fd, splits[i].start, splits[i].end, NULL, &done))
            die(splits[i].path);
        close(fd);
    }
    runs_header header = {.magic = RUNS_MAGIC,
                          .version = RUNS_VERSION,
                          .kind = RUNS_KIND_COUNTS,
                          .job = JOB,
                          .task = (uint32_t)number};
    if (section_write(counter, run, 0, &header, shared->parts[number])) die("a run");
}

static void merge_partition(int number, int processes, const int *runs, const char *output,
                            const shared_state *shared) {
    char path[4096];
    merge_segment segments[PROCESSES_MAX];
    counts_merge merge = {.text = 1};
    merge.expected = (blocks_identity){RUNS_KIND_COUNTS, JOB, (uint32_t)number};
    for (int i = 0; i < processes; i++) {
        const section_part *part = &shared->parts[i][number];
        segments[i] = (merge_segment){runs[i], part->offset, part->length};
    }
    snprintf(path, sizeof path, "%s-%d", output, number);
    int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out < 0) die(path);
    if (blocks_open_output(&merge.output, out, -1, &merge.failure) ||
        merge_stream(segments, (size_t)processes, BUDGET, &merge) ||
        blocks_flush(&merge.output, &merge.failure))
        die("a merge");
}

/* Wait for all children; one that failed fails the whole. */
static void wait_for(int processes) {
    for (int i = 0, status; i < processes; i++)
        if (wait(&status) < 0 || status) exit(1);
}

int main(int argc, char **argv) {
    int processes = argc > 3 ? atoi(argv[1]) : 0, runs[PROCESSES_MAX];
    if (processes < 1 || processes > PROCESSES_MAX) {
        fprintf(stderr, "usage: limit PROCESSES OUTPUT INPUT...\n");
        return 2;
    }
    split *splits;
    size_t count = cut(&splits, processes, argc - 3, argv + 3);
    shared_state *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) die("no memory");
    for (int i = 0; i < processes; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s-run-%d", argv[2], i);
        runs[i] = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (runs[i] < 0 || unlink(path)) die(path);
    }
    for (int i = 0; i < processes; i++)
        if (!fork()) {
            count_share(i, processes, runs[i], splits, count, shared);
            _exit(0);
        }
    wait_for(processes);
    for (int i = 0; i < processes; i++)
        if (!fork()) {
            merge_partition(i, processes, runs, argv[2], shared);
            _exit(0);
        }
    wait_for(processes);
    return 0;
}
