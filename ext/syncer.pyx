"""A thread that makes writes durable, and never takes the GIL."""

from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <unistd.h>

    enum { SYNCER_FILES_MAX = 64 };

    typedef struct {
        pthread_mutex_t lock;
        pthread_cond_t wake;
        pthread_t thread;
        int started, stopping;
        int files[SYNCER_FILES_MAX], count, folder; /* what the next round is to sync */
        uint64_t wanted, taken, done;
        int error;
        int bell[2];
    } syncer;

    static int syncer_file(int fd)
    {
    #ifdef __APPLE__
        return fcntl(fd, F_FULLFSYNC); /* fsync there only reaches the drive's own cache */
    #else
        return fdatasync(fd);
    #endif
    }

    static void *syncer_run(void *argument)
    {
        syncer *s = argument;
        int files[SYNCER_FILES_MAX];
        pthread_mutex_lock(&s->lock);
        for (;;) {
            while (s->wanted == s->taken && !s->stopping) pthread_cond_wait(&s->wake, &s->lock);
            if (s->wanted == s->taken) break;
            int count = s->count, folder = s->folder, error = 0;
            for (int i = 0; i < count; i++) files[i] = s->files[i];
            uint64_t ticket = s->taken = s->wanted;
            s->count = 0, s->folder = -1;
            pthread_mutex_unlock(&s->lock);
            for (int i = 0; i < count && !error; i++)
                if (syncer_file(files[i])) error = errno;
            if (folder >= 0 && !error && fsync(folder)) error = errno;
            pthread_mutex_lock(&s->lock);
            if (error) s->error = error; else s->done = ticket;
            /* A pipe that is full holds news enough. */
            if (write(s->bell[1], "!", 1) < 0) {}
            if (error) break;
        }
        pthread_mutex_unlock(&s->lock);
        return 0;
    }

    static syncer *syncer_make(void)
    {
        syncer *s = calloc(1, sizeof *s);
        if (!s) return 0;
        if (pipe(s->bell)) { free(s); return 0; }
        for (int i = 0; i < 2; i++) {
            fcntl(s->bell[i], F_SETFL, O_NONBLOCK);
            fcntl(s->bell[i], F_SETFD, FD_CLOEXEC);
        }
        pthread_mutex_init(&s->lock, 0);
        pthread_cond_init(&s->wake, 0);
        s->folder = -1;
        return s;
    }

    static void syncer_lock(syncer *s) { pthread_mutex_lock(&s->lock); }
    static void syncer_unlock(syncer *s) { pthread_mutex_unlock(&s->lock); }

    /* With the lock held. -1: too many files. */
    static int syncer_add(syncer *s, int fd)
    {
        for (int i = 0; i < s->count; i++)
            if (s->files[i] == fd) return 0;
        if (s->count == SYNCER_FILES_MAX) return -1;
        s->files[s->count++] = fd;
        return 0;
    }

    /* With the lock held. An error number. */
    static int syncer_go(syncer *s, int folder, uint64_t ticket)
    {
        int error = 0;
        if (folder >= 0) s->folder = folder;
        s->wanted = ticket;
        if (!s->started && !(error = pthread_create(&s->thread, 0, syncer_run, s))) s->started = 1;
        pthread_cond_signal(&s->wake);
        return error;
    }

    static uint64_t syncer_look(syncer *s, int *error)
    {
        char news[256];
        while (read(s->bell[0], news, sizeof news) == sizeof news) {}
        pthread_mutex_lock(&s->lock);
        uint64_t done = s->done;
        *error = s->error;
        pthread_mutex_unlock(&s->lock);
        return done;
    }

    static void syncer_end(syncer *s)
    {
        pthread_mutex_lock(&s->lock);
        s->stopping = 1;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
        if (s->started) pthread_join(s->thread, 0);
        close(s->bell[0]), close(s->bell[1]);
        pthread_mutex_destroy(&s->lock), pthread_cond_destroy(&s->wake);
        free(s);
    }
    """
    ctypedef struct syncer:
        int bell[2]
        uint64_t wanted
    syncer *syncer_make()
    void syncer_lock(syncer *s) nogil
    void syncer_unlock(syncer *s) nogil
    int syncer_add(syncer *s, int fd)
    int syncer_go(syncer *s, int folder, uint64_t ticket)
    uint64_t syncer_look(syncer *s, int *error)
    void syncer_end(syncer *s) nogil


cdef class Syncer:
    cdef syncer *its

    def __cinit__(self):
        self.its = syncer_make()
        if not self.its:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        self.close()

    def pollables(self):
        if not self.its:
            raise ValueError("closed")
        return (self.its.bell[0],)

    def submit(self, uint64_t ticket, tuple files not None, int folder=-1):
        cdef int fd, error = 0
        cdef bint fits = True
        if not self.its:
            raise ValueError("closed")
        for fd in files:  # nothing may be raised while the lock is held
            if fd < 0:
                raise ValueError(f"{fd} is no descriptor")
        syncer_lock(self.its)
        if ticket > self.its.wanted:
            for fd in files:
                fits = fits and syncer_add(self.its, fd) == 0
            if fits:
                error = syncer_go(self.its, folder, ticket)
        else:
            error = -1
        syncer_unlock(self.its)
        if not fits:
            raise ValueError("too many files in one round")
        if error == -1:
            raise ValueError(f"ticket {ticket} is not a later one")
        if error:
            raise OSError(error, "no thread")

    def durable(self):
        cdef int error = 0
        cdef uint64_t done
        if not self.its:
            raise ValueError("closed")
        done = syncer_look(self.its, &error)
        if error:
            from os import strerror
            raise OSError(error, strerror(error))
        return done

    def close(self):
        if self.its:
            with nogil:
                syncer_end(self.its)
            self.its = NULL
