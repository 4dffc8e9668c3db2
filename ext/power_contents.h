// What `power.c` does in the place of the system's calls: contents and syncs, on a disk that may be
// told to fail. Each change is recorded (power.h), then made.

#ifndef ENGINE_POWER_CONTENTS_H
#define ENGINE_POWER_CONTENTS_H

#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>

#include "power_names.h"

#define VECTORS 1024  // as many as the system takes (IOV_MAX)

// --- contents ------------------------------------------------------------------------------------

// Make a watched file longer or shorter; under the lock.
static int cut(int fd, int64_t size) {
    struct stat found;
    if (fstat(fd, &found) != 0)
        return -1;
    uint64_t before = (uint64_t)found.st_size, after = (uint64_t)size;
    uint64_t lost = size >= 0 && after < before ? before - after : 0;
    struct power_record *record = draft(CUT, lost);
    record->node = found.st_ino;
    record->at = after, record->length = lost, record->before = before;
    take_image(record, fd, after, after + lost);
    publish(record);
    int result = (int)SYSTEM(ftruncate, fd, size);
    end(record, result == 0);
    return result;
}

// Open what is there; under the lock.
static int open_there(struct place *place, struct stat *found, int flags) {
    if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) {
        errno = EEXIST;
        return -1;
    }
    if (S_ISLNK(found->st_mode))
        refuse("a symbolic link", place->path);
    if ((flags & O_TRUNC) && (flags & O_ACCMODE) == O_RDONLY)
        refuse("O_TRUNC of a file that is opened for reading", place->path);
    int fd = (int)SYSTEM(openat, place->fd, place->name, flags & ~(O_TRUNC | O_CREAT), 0);
    if (fd >= 0 && (flags & O_TRUNC) && S_ISREG(found->st_mode) && found->st_size > 0 &&
        cut(fd, 0) != 0) {
        int error = errno;
        SYSTEM(close, fd);
        errno = error;
        return -1;
    }
    return fd;
}

// Open what is not there, or fail; under the lock.
static int open_new(struct place *place, struct stat *found, int flags, mode_t mode) {
    if (!(flags & O_CREAT))
        return (int)SYSTEM(openat, place->fd, place->name, flags, mode);
    struct power_record *record = named(CREATE, 0, place, NULL, NULL);
    publish(record);
    int fd = (int)SYSTEM(openat, place->fd, place->name, flags, mode);
    if (fd >= 0 && fstat(fd, found) == 0)
        record->node = found->st_ino;
    end(record, fd >= 0);
    return fd;
}

static int open_name(int at, const char *path, int flags, mode_t mode) {
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    if (power == NULL || !(writes || (flags & (O_CREAT | O_TRUNC))))
        return (int)SYSTEM(openat, at, path, flags, mode);
    struct place place;
    struct stat found;
    if (!find(at, path, &place)) {
        int fd = (int)SYSTEM(openat, at, path, flags, mode);
        if (fd >= 0 && writes && fstat(fd, &found) == 0 && S_ISREG(found.st_mode) &&
            found.st_dev == power->device && is_below(fd))
            refuse("a watched file through a symbolic link, or without a name", path);
        return fd;
    }
    if ((flags & O_TMPFILE) == O_TMPFILE || (flags & (O_DIRECT | O_SYNC | O_DSYNC)))
        refuse("O_DIRECT, O_SYNC, O_DSYNC and O_TMPFILE", place.path);
    if ((flags & O_ACCMODE) == O_WRONLY)
        flags = (flags & ~O_ACCMODE) | O_RDWR;  // to read what is overwritten
    lock();
    int there = stat_of(place.fd, place.name, &found) == 0;
    int fd = there ? open_there(&place, &found, flags) : open_new(&place, &found, flags, mode);
    if (fd >= 0 && writes)
        note(fd, found.st_ino);
    unlock();
    leave(&place);
    return fd;
}

// How many bytes of a write the disk takes now: 0 with errno if none; under the lock.
static uint64_t allowed(uint64_t at, uint64_t total, uint64_t size) {
    uint64_t end = at + total, begin = at > size ? at : size;
    uint64_t paid = !power->write_growth ? total : end > begin ? end - begin : 0;
    if (power->write_left >= 0 && paid > (uint64_t)power->write_left) {
        total -= paid - (uint64_t)power->write_left;
        power->failed_writes++;
        if (total == 0) {
            errno = (int)power->write_errno;
            return 0;
        }
        paid = (uint64_t)power->write_left;
    }
    if (power->shorten != 0 && total > 1) {
        uint64_t x = (uint64_t)power->shorten;
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        power->shorten = (int64_t)x;
        total = 1 + x % (total - 1);
        paid = paid < total ? paid : total;
        power->short_writes++;
    }
    if (power->write_left >= 0)
        power->write_left -= (int64_t)paid;
    return total;
}

static ssize_t write_recorded(int fd, const struct iovec *pieces, int many, int64_t at) {
    struct stat found;
    struct iovec taken[VECTORS];
    uint64_t total = 0, left;
    long flags = SYSTEM(fcntl, fd, F_GETFL, 0);
    if (fstat(fd, &found) != 0)
        return -1;
    int64_t begin = (flags & O_APPEND) ? found.st_size
                    : at >= 0          ? at
                                       : SYSTEM(lseek, fd, 0, SEEK_CUR);
    for (int i = 0; i < many; i++)
        total += pieces[i].iov_len;
    if (begin < 0 || total == 0)
        return 0;
    total = left = allowed((uint64_t)begin, total, (uint64_t)found.st_size);
    if (total == 0)
        return -1;
    for (many = 0; left > 0; many++) {
        taken[many] = pieces[many];
        if (taken[many].iov_len > left)
            taken[many].iov_len = left;
        left -= taken[many].iov_len;
    }
    uint64_t size = (uint64_t)found.st_size, from = (uint64_t)begin, to = from + total;
    uint64_t old = to < size ? to : size;
    struct power_record *record = draft(WRITE, old > from ? old - from : 0);
    record->node = found.st_ino;
    record->at = from, record->length = total, record->before = size;
    take_image(record, fd, from, old > from ? old : from);
    publish(record);
    long result = at < 0 ? SYSTEM(writev, fd, taken, many)
                         : SYSTEM(pwritev, fd, taken, many, at, 0L);
    int error = errno;
    if (result >= 0)
        record->length = (uint64_t)result;
    end(record, result > 0);
    errno = error;
    return result;
}

// `at` < 0: where the file stands.
static ssize_t write_pieces(int fd, const struct iovec *pieces, int many, int64_t at) {
    if (many < 0 || many > VECTORS) {
        errno = EINVAL;
        return -1;
    }
    lock();
    ssize_t result = write_recorded(fd, pieces, many, at);
    unlock();
    return result;
}

static int allocate(int fd, int mode, int64_t at, int64_t length) {
    struct stat found;
    lock();
    uint64_t end_at = (uint64_t)(at + length);
    int result = fstat(fd, &found);
    uint64_t size = (uint64_t)found.st_size;
    if (result == 0 && mode == 0 && at >= 0 && length > 0 && end_at > size) {
        if (power->write_left >= 0 && power->write_errno == ENOSPC &&
            end_at - size > (uint64_t)power->write_left) {
            power->failed_writes++;
            unlock();
            errno = ENOSPC;
            return -1;
        }
        if (power->write_left >= 0 && power->write_errno == ENOSPC)
            power->write_left -= (int64_t)(end_at - size);
        struct power_record *record = draft(CUT, 0);
        record->node = found.st_ino;
        record->at = end_at, record->before = size;
        publish(record);
        result = (int)SYSTEM(fallocate, fd, mode, at, length);
        end(record, result == 0);
    } else if (mode & ~FALLOC_FL_KEEP_SIZE)
        refuse("fallocate with such a mode", "a file");
    else if (result == 0)
        result = (int)SYSTEM(fallocate, fd, mode, at, length);  // nobody sees it
    unlock();
    return result;
}

// Map a watched file, to be written unseen: all of it counts as written now, and kept by no sync.
static void *map(void *where, size_t size, int protection, int flags, int fd, int64_t at) {
    struct stat found;
    if (!power->mappings)
        refuse("a shared mapping that can be written", "a file");
    lock();
    if (fstat(fd, &found) == 0 && at >= 0 && at < found.st_size) {
        uint64_t left = (uint64_t)(found.st_size - at), length = size < left ? size : left;
        struct power_record *record = draft(WRITE, length);
        record->node = found.st_ino, record->other = 1;
        record->at = (uint64_t)at, record->length = length;
        record->before = (uint64_t)found.st_size;
        take_image(record, fd, (uint64_t)at, (uint64_t)at + length);
        publish(record);
        end(record, 1);
    }
    unlock();
    return (void *)SYSTEM(mmap, where, size, protection, flags, fd, at);
}

// --- syncs ---------------------------------------------------------------------------------------

// Whether this sync is to fail; under the lock.
static int fails(int folder) {
    if (power->sync_fail == 0 || (power->sync_only == FILES && folder) ||
        (power->sync_only == FOLDERS && !folder))
        return 0;
    if (power->sync_skip > 0) {
        power->sync_skip--;
        return 0;
    }
    if (power->sync_fail > 0)
        power->sync_fail--;
    power->failed_syncs++;
    if (folder)
        power->folder_spoiled = 1;
    return 1;
}

static int sync_file(int fd, int data) {
    struct stat found;
    if (power == NULL || fstat(fd, &found) != 0 || found.st_dev != power->device || !is_below(fd))
        return (int)(data ? SYSTEM(fdatasync, fd) : SYSTEM(fsync, fd));
    int folder = S_ISDIR(found.st_mode);
    lock();
    int broken = fails(folder), error = (int)power->sync_errno;
    uint64_t place = power->tail;
    struct power_record *record = draft(SYNC, 0);
    record->node = found.st_ino;
    record->before = (uint64_t)folder;
    publish(record);
    unlock();
    int64_t delay = power->delay_ns;
    if (delay > 0) {
        __atomic_fetch_add(&power->slow_syncs, 1, __ATOMIC_RELAXED);
        struct timespec left = {delay / 1000000000, delay % 1000000000};
        while (SYSTEM(nanosleep, &left, &left) != 0 && errno == EINTR)
            ;
    }
    int result = -1;
    if (!broken) {
        result = (int)(data ? SYSTEM(fdatasync, fd) : SYSTEM(fsync, fd));
        error = errno;
    }
    end(record, result == 0);
    if (result == 0 && folder && !power->folder_spoiled) {
        lock();
        forget(found.st_ino, place);
        unlock();
    }
    errno = error;
    return result;
}

static int sync_all(int fd) {
    if (power == NULL)
        return fd < 0 ? (SYSTEM(sync, 0), 0) : (int)SYSTEM(syncfs, fd);
    lock();
    struct power_record *record = draft(SYNC, 0);
    publish(record);
    unlock();
    int result = fd < 0 ? (SYSTEM(sync, 0), 0) : (int)SYSTEM(syncfs, fd);
    end(record, result == 0);
    return result;
}

#endif
