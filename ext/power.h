// The undo journal of `power.c`: a file of the harness, mapped by every process under test, that
// outlives them. Before anything changes below a watched folder, a record says how it was before.
//
// All that changes files holds one lock, so that the records are in the order of the changes, and a
// record is complete before its change begins. The lock is robust: a process that is killed alone
// while it has it, its last change half done, does not stop the others. A sync holds it only while
// it writes its record down; what was recorded before that is what the sync covers.
//
// `engine/faults/undo.py` reads the records, and `engine/faults/power.py` writes the header.

#ifndef ENGINE_POWER_H
#define ENGINE_POWER_H

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define POWER_MAGIC 0x31524557504e45ULL  // "ENPWER1"
#define POWER_TEXT 1024
#define REFUSED 97  // the exit code of a process that did what cannot be undone

// What is spoken of in Python by its number, in this order: `WORDS` of engine/faults/power.py.
struct power_header {
    uint64_t magic, capacity, tail, last, attached, ready, device, folder_spoiled, refused;
    int64_t delay_ns, sync_skip, sync_fail, sync_only, sync_errno;
    int64_t write_left, write_errno, write_growth, shorten, mappings;
    uint64_t slow_syncs, failed_syncs, failed_writes, short_writes;
    uint64_t unused[41];
    char graveyard[POWER_TEXT];    // a folder of the same file system, outside of the watched ones
    char folders[4 * POWER_TEXT];  // the watched ones, each ended by 0, and an empty one at the end
    char refusal[POWER_TEXT / 2];  // what was refused, if `refused`
    pthread_mutex_t lock;
};

#define POWER_HEADER_BYTES 8192

enum power_kind { WRITE = 1, CUT, CREATE, LINK, UNLINK, RENAME, MKDIR, RMDIR, SYNC };
enum power_state { BEGUN, DONE, FAILED };
enum { ANY, FILES, FOLDERS };  // of `sync_only`

// Behind it come two paths and the name in the graveyard; or, of WRITE and CUT, the bytes that were
// at `at`: `first` of them, or none if they were all 0.
struct power_record {
    uint32_t size;  // with what is behind it; a multiple of 8
    uint16_t kind, state;
    uint64_t node;           // inode of what is changed or synced; 0 of SYNC: all
    uint64_t folder, other;  // inodes of the folders of the two paths; WRITE: 1 if no sync keeps it
    uint64_t at;             // WRITE: offset; CUT: the new size; RMDIR: the mode
    uint64_t length;         // WRITE, CUT: bytes changed
    uint64_t before;         // WRITE, CUT: the size before; SYNC: 1 of a folder
    uint32_t first, second, third;  // bytes behind the record
    uint32_t pid;
};

static struct power_header *power;  // 0: this process is not under test

// --- the system, without going through ourselves -------------------------------------------------

static long (*power_syscall)(long, ...);

#define SYSTEM(name, ...) power_syscall(SYS_##name, __VA_ARGS__)

static int stat_of(int fd, const char *name, struct stat *found) {
    if (name == NULL)
        return fstat(fd, found);
    return fstatat(fd, name, found, AT_SYMLINK_NOFOLLOW);
}

// Say why, for the log of the process and for the harness, and end.
static void refuse(const char *what, const char *path) {
    char text[POWER_TEXT / 2];
    int size = snprintf(text, sizeof text, "power: %s: %s\n", path, what);
    if (size >= (int)sizeof text)
        size = sizeof text - 1;
    if (power != NULL && !__atomic_exchange_n(&power->refused, 1, __ATOMIC_ACQ_REL)) {
        memcpy(power->refusal, text, (size_t)size);
        power->refusal[size] = 0;
    }
    (void)!SYSTEM(write, 2, text, (size_t)size);
    _exit(REFUSED);
}

// --- records -------------------------------------------------------------------------------------

static struct power_record *record_at(uint64_t place) {
    return (struct power_record *)((char *)power + place);
}

// Where a record of this kind goes, with room for so many bytes behind it; under the lock.
static struct power_record *draft(enum power_kind kind, uint64_t behind) {
    uint64_t size = (sizeof(struct power_record) + behind + 7) & ~7ULL;
    if (power->tail + size + sizeof(struct power_record) > power->capacity)
        refuse("the journal is full: lose power sooner, or give it a higher limit", "the journal");
    struct power_record *record = record_at(power->tail);
    memset(record, 0, sizeof *record);
    record->size = (uint32_t)size;
    record->kind = kind;
    record->pid = (uint32_t)getpid();
    if (size > UINT32_MAX)
        refuse("more than 4 GiB are changed at once", "the journal");
    return record;
}

// From now on the harness sees it.
static void publish(struct power_record *record) {
    uint64_t place = power->tail;
    if (record->kind != SYNC)
        __atomic_store_n(&power->last, place, __ATOMIC_RELEASE);
    __atomic_store_n(&power->tail, place + record->size, __ATOMIC_RELEASE);
}

static void end(struct power_record *record, int good) {
    __atomic_store_n(&record->state, good ? DONE : FAILED, __ATOMIC_RELEASE);
}

// A process was killed with the lock: was its last change made?
static void settle_last(void) {
    struct power_record *record = power->last ? record_at(power->last) : NULL;
    if (record == NULL || record->state != BEGUN)
        return;
    char path[4096];
    struct stat found;
    int there = 0;
    if (record->kind != WRITE && record->kind != CUT && record->first < sizeof path) {
        memcpy(path, (char *)(record + 1), record->first);
        path[record->first] = 0;
        there = stat_of(AT_FDCWD, path, &found) == 0;
    }
    if (record->kind == CREATE || record->kind == MKDIR)
        record->node = there ? found.st_ino : 0;
    int made = record->kind == CREATE || record->kind == MKDIR || record->kind == LINK;
    int gone = record->kind == UNLINK || record->kind == RMDIR;
    end(record, made ? there : gone ? !there
                : record->kind == RENAME ? !there || found.st_ino != record->node
                                         : 1);
}

static void lock(void) {
    int error = pthread_mutex_lock(&power->lock);
    if (error == EOWNERDEAD) {
        settle_last();
        pthread_mutex_consistent(&power->lock);
    } else if (error != 0)
        refuse("its lock is broken", "the journal");
}

static void unlock(void) {
    pthread_mutex_unlock(&power->lock);
}

// The bytes of a file from `at` to `end`, behind a draft.
static void take_image(struct power_record *record, int fd, uint64_t at, uint64_t end) {
    char *to = (char *)(record + 1);
    uint64_t wanted = end - at, done = 0;
    while (done < wanted) {
        long got = SYSTEM(pread64, fd, to + done, wanted - done, at + done);
        if (got < 0)
            refuse("what is about to be overwritten cannot be read", "a file");
        if (got == 0)
            break;  // no longer than it is
        done += (uint64_t)got;
    }
    memset(to + done, 0, wanted - done);
    int zeros = wanted == 0 || (to[0] == 0 && memcmp(to, to + 1, wanted - 1) == 0);
    record->first = zeros ? 0 : (uint32_t)wanted;
    record->size = (uint32_t)((sizeof *record + record->first + 7) & ~7U);
}

#endif
