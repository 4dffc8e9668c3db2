// Preloaded into a process under test, this makes a loss of power come true at its kill: what it
// wrote and did not sync can be taken back, because it was recorded how it was before (power.h).
// It also makes the disk fail, fill up and be slow, as the harness says in the header, at any time.
//
// It stands between the process and the C library's calls that change files. Below the watched
// folders these do what they always do, and are recorded; elsewhere they only do it. A descriptor
// is known to be of a watched file by its number and, in case that number is used again, its inode:
// `close` says nothing that is needed, and in the child of a vfork it would speak of the parent's.
//
// What cannot be taken back is refused: a message, and the process ends. Linux, 64 bits; a static
// program is never asked. Inside the C library, stdio and mkstemp open files by themselves: writing
// fopen is refused, and mkstemp is not noticed.

#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>

#include "power_contents.h"

#define EXPORT __attribute__((visibility("default")))

// --- the calls -----------------------------------------------------------------------------------

#define ALIAS(name, original) \
    EXPORT extern __typeof__(original) name __attribute__((alias(#original)))
#define MODE(flags, last)                                     \
    mode_t mode = 0;                                          \
    if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) {   \
        va_list rest;                                         \
        va_start(rest, last);                                 \
        mode = va_arg(rest, mode_t);                          \
        va_end(rest);                                         \
    }

static void prepare(void) {
    if (power_syscall == NULL)
        power_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
}

EXPORT int open(const char *path, int flags, ...) {
    MODE(flags, flags)
    prepare();
    return open_name(AT_FDCWD, path, flags, mode);
}
ALIAS(open64, open);

EXPORT int openat(int at, const char *path, int flags, ...) {
    MODE(flags, flags)
    prepare();
    return open_name(at, path, flags, mode);
}
ALIAS(openat64, openat);

// How checked builds call them.
EXPORT int __open_2(const char *path, int flags) {
    prepare();
    return open_name(AT_FDCWD, path, flags, 0);
}
ALIAS(__open64_2, __open_2);

EXPORT int __openat_2(int at, const char *path, int flags) {
    prepare();
    return open_name(at, path, flags, 0);
}
ALIAS(__openat64_2, __openat_2);

EXPORT int creat(const char *path, mode_t mode) {
    prepare();
    return open_name(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
ALIAS(creat64, creat);

EXPORT ssize_t write(int fd, const void *from, size_t size) {
    prepare();
    struct iovec piece = {(void *)from, size};
    return watched(fd) ? write_pieces(fd, &piece, 1, -1) : SYSTEM(write, fd, from, size);
}

EXPORT ssize_t writev(int fd, const struct iovec *pieces, int many) {
    prepare();
    return watched(fd) ? write_pieces(fd, pieces, many, -1) : SYSTEM(writev, fd, pieces, many);
}

EXPORT ssize_t pwrite(int fd, const void *from, size_t size, off_t at) {
    prepare();
    struct iovec piece = {(void *)from, size};
    if (at < 0 || !watched(fd))
        return SYSTEM(pwrite64, fd, from, size, at);
    return write_pieces(fd, &piece, 1, at);
}
ALIAS(pwrite64, pwrite);

EXPORT ssize_t pwritev(int fd, const struct iovec *pieces, int many, off_t at) {
    prepare();
    if (at < 0 || !watched(fd))
        return SYSTEM(pwritev, fd, pieces, many, at, 0L);
    return write_pieces(fd, pieces, many, at);
}
ALIAS(pwritev64, pwritev);

EXPORT ssize_t pwritev2(int fd, const struct iovec *pieces, int many, off_t at, int flags) {
    prepare();
    if (at < -1 || !watched(fd))
        return SYSTEM(pwritev2, fd, pieces, many, at, 0L, flags);
    if (flags != 0)
        refuse("pwritev2 with flags", "a file");
    return write_pieces(fd, pieces, many, at);
}
ALIAS(pwritev64v2, pwritev2);

EXPORT int ftruncate(int fd, off_t size) {
    prepare();
    if (!watched(fd))
        return (int)SYSTEM(ftruncate, fd, size);
    lock();
    int result = cut(fd, size);
    unlock();
    return result;
}
ALIAS(ftruncate64, ftruncate);

EXPORT int truncate(const char *path, off_t size) {
    prepare();
    struct place place;
    if (!find(AT_FDCWD, path, &place))
        return (int)SYSTEM(truncate, path, size);
    leave(&place);
    int fd = open_name(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int result = ftruncate(fd, size), error = errno;
    SYSTEM(close, fd);
    errno = error;
    return result;
}
ALIAS(truncate64, truncate);

EXPORT int fallocate(int fd, int mode, off_t at, off_t length) {
    prepare();
    return watched(fd) ? allocate(fd, mode, at, length)
                       : (int)SYSTEM(fallocate, fd, mode, at, length);
}
ALIAS(fallocate64, fallocate);

EXPORT int posix_fallocate(int fd, off_t at, off_t length) {
    prepare();
    typedef int allocator(int, off_t, off_t);
    if (!watched(fd))
        return ((allocator *)dlsym(RTLD_NEXT, "posix_fallocate"))(fd, at, length);
    int kept = errno, error = allocate(fd, 0, at, length) == 0 ? 0 : errno;
    errno = kept;
    return error;
}
ALIAS(posix_fallocate64, posix_fallocate);

EXPORT int unlink(const char *path) {
    prepare();
    return remove_name(AT_FDCWD, path, 0);
}

EXPORT int unlinkat(int at, const char *path, int flags) {
    prepare();
    return remove_name(at, path, flags);
}

EXPORT int rmdir(const char *path) {
    prepare();
    return remove_name(AT_FDCWD, path, AT_REMOVEDIR);
}

EXPORT int remove(const char *path) {
    prepare();
    int result = remove_name(AT_FDCWD, path, 0);
    return result != 0 && errno == EISDIR ? remove_name(AT_FDCWD, path, AT_REMOVEDIR) : result;
}

EXPORT int rename(const char *from, const char *to) {
    prepare();
    return rename_name(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int renameat(int from_at, const char *from, int to_at, const char *to) {
    prepare();
    return rename_name(from_at, from, to_at, to, 0);
}

EXPORT int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    prepare();
    return rename_name(from_at, from, to_at, to, flags);
}

EXPORT int link(const char *from, const char *to) {
    prepare();
    return link_name(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    prepare();
    return link_name(from_at, from, to_at, to, flags);
}

EXPORT int mkdir(const char *path, mode_t mode) {
    prepare();
    return make_folder(AT_FDCWD, path, mode);
}

EXPORT int mkdirat(int at, const char *path, mode_t mode) {
    prepare();
    return make_folder(at, path, mode);
}

EXPORT int symlink(const char *target, const char *path) {
    prepare();
    make_special(AT_FDCWD, path, "a symbolic link");
    return (int)SYSTEM(symlinkat, target, AT_FDCWD, path);
}

EXPORT int symlinkat(const char *target, int at, const char *path) {
    prepare();
    make_special(at, path, "a symbolic link");
    return (int)SYSTEM(symlinkat, target, at, path);
}

EXPORT int mknodat(int at, const char *path, mode_t mode, dev_t device) {
    prepare();
    make_special(at, path, "mknod");
    return (int)SYSTEM(mknodat, at, path, mode, (unsigned)device);
}

EXPORT int mknod(const char *path, mode_t mode, dev_t device) {
    return mknodat(AT_FDCWD, path, mode, device);
}

EXPORT int mkfifoat(int at, const char *path, mode_t mode) {
    return mknodat(at, path, mode | S_IFIFO, 0);
}

EXPORT int mkfifo(const char *path, mode_t mode) {
    return mknodat(AT_FDCWD, path, mode | S_IFIFO, 0);
}

EXPORT int fsync(int fd) {
    prepare();
    return sync_file(fd, 0);
}

EXPORT int fdatasync(int fd) {
    prepare();
    return sync_file(fd, 1);
}

// sync_file_range promises nothing after a loss of power, so it goes by unnoticed.

EXPORT int syncfs(int fd) {
    prepare();
    return sync_all(fd);
}

EXPORT void sync(void) {
    prepare();
    sync_all(-1);
}

EXPORT int dup(int fd) {
    prepare();
    int made = (int)SYSTEM(dup, fd);
    copied(fd, made);
    return made;
}

EXPORT int dup2(int fd, int wanted) {
    prepare();
    if (fd == wanted)
        return SYSTEM(fcntl, fd, F_GETFD, 0) < 0 ? -1 : fd;
    int made = (int)SYSTEM(dup3, fd, wanted, 0);
    copied(fd, made);
    return made;
}

EXPORT int dup3(int fd, int wanted, int flags) {
    prepare();
    int made = (int)SYSTEM(dup3, fd, wanted, flags);
    copied(fd, made);
    return made;
}

EXPORT int fcntl(int fd, int what, ...) {
    va_list rest;
    va_start(rest, what);
    long argument = va_arg(rest, long);
    va_end(rest);
    prepare();
    int result = (int)SYSTEM(fcntl, fd, what, argument);
    if (what == F_DUPFD || what == F_DUPFD_CLOEXEC)
        copied(fd, result);
    return result;
}
ALIAS(fcntl64, fcntl);

EXPORT void *mmap(void *where, size_t size, int protection, int flags, int fd, off_t at) {
    prepare();
    if ((flags & MAP_SHARED) && (protection & PROT_WRITE) && fd >= 0 && watched(fd))
        return map(where, size, protection, flags, fd, at);
    return (void *)SYSTEM(mmap, where, size, protection, flags, fd, at);
}
ALIAS(mmap64, mmap);

// What copies inside the kernel: with this error, programs go on by reading and writing.
#define COPIES(name, out, parameters, ...)          \
    EXPORT ssize_t name parameters {                \
        prepare();                                  \
        if (watched(out)) {                         \
            errno = EINVAL;                         \
            return -1;                              \
        }                                           \
        return SYSTEM(name, __VA_ARGS__);           \
    }
COPIES(sendfile, out, (int out, int in, off_t *at, size_t size), out, in, at, size)
ALIAS(sendfile64, sendfile);
COPIES(copy_file_range, out,
       (int in, off64_t *from, int out, off64_t *to, size_t size, unsigned how), in, from, out, to,
       size, how)
COPIES(splice, out, (int in, off64_t *from, int out, off64_t *to, size_t size, unsigned how), in,
       from, out, to, size, how)

typedef FILE *opener(const char *, const char *);

static FILE *open_stream(const char *path, const char *mode, const char *name) {
    struct place place;
    prepare();
    if (strpbrk(mode, "wa+") != NULL && find(AT_FDCWD, path, &place))
        refuse("fopen for writing", place.path);
    return ((opener *)dlsym(RTLD_NEXT, name))(path, mode);
}

EXPORT FILE *fopen(const char *path, const char *mode) {
    return open_stream(path, mode, "fopen");
}

EXPORT FILE *fopen64(const char *path, const char *mode) {
    return open_stream(path, mode, "fopen64");
}

EXPORT long syscall(long number, ...) {
    va_list rest;
    long a[6];
    va_start(rest, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(rest, long);
    va_end(rest);
    prepare();
    if (power != NULL && number == SYS_io_uring_setup)
        refuse("io_uring", "the process");
    return power_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

// --- the beginning -------------------------------------------------------------------------------

// Once for each life of the journal. `ready` is 0, then odd with the pid of who makes the lock, then 2;
// whoever is killed meanwhile has a successor.
static void make_lock(void) {
    uint64_t mine = (uint64_t)SYSTEM(getpid, 0) << 2 | 1, found = 0;
    while (!__atomic_compare_exchange_n(&power->ready, &found, mine, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE)) {
        if (found == 2)
            return;
        if (!(found & 1) || SYSTEM(kill, (pid_t)(found >> 2), 0) == 0 || errno != ESRCH) {
            found = 0;
            SYSTEM(sched_yield, 0);
        }
    }
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&power->lock, &kind);
    __atomic_store_n(&power->ready, 2, __ATOMIC_RELEASE);
}

// Descriptors of watched files that came with us.
static void note_inherited(void) {
    struct stat found;
    for (int fd = 0; fd < 1024; fd++) {
        long flags = SYSTEM(fcntl, fd, F_GETFL, 0);
        if (flags >= 0 && !(flags & O_PATH) && (flags & O_ACCMODE) != O_RDONLY &&
            fstat(fd, &found) == 0 && S_ISREG(found.st_mode) && found.st_dev == power->device &&
            is_below(fd)) {
            if ((flags & O_ACCMODE) == O_WRONLY)
                refuse("a descriptor that was inherited and cannot be read", "a file");
            note(fd, found.st_ino);
        }
    }
}

__attribute__((constructor)) static void begin(void) {
    prepare();
    const char *journal = getenv("ENGINE_POWER");
    if (journal == NULL || *journal == 0)
        return;
    struct stat found;
    int fd = (int)SYSTEM(openat, AT_FDCWD, journal, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0 || fstat(fd, &found) != 0 || found.st_size < POWER_HEADER_BYTES)
        refuse("the journal cannot be opened", journal);
    void *mapped = (void *)SYSTEM(mmap, NULL, (size_t)found.st_size, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_NORESERVE, fd, 0L);
    if (mapped == MAP_FAILED || ((struct power_header *)mapped)->magic != POWER_MAGIC)
        refuse("it is not a journal", journal);
    // Held until we are dead, and our children too: so the harness knows.
    SYSTEM(flock, fd, LOCK_SH);
    if (SYSTEM(fcntl, fd, F_DUPFD_CLOEXEC, 512) >= 0)
        SYSTEM(close, fd);  // out of the way of those who expect low numbers
    power = mapped;
    make_lock();
    note_inherited();
    __atomic_fetch_add(&power->attached, 1, __ATOMIC_ACQ_REL);
}
