"""What a process tells and asks of the kernel about itself: its title, its parent's death."""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <errno.h>
    #include <stdint.h>
    #include <string.h>
    #ifdef __linux__
    #include <sys/prctl.h>

    /* The area is the process's own argv, on its stack, writable for its whole life. The last byte
       stays NUL: otherwise the kernel takes it that the title goes on in the environment. */
    static void rewrite(uintptr_t start, uintptr_t end, const char *title, size_t length)
    {
        size_t room = end - start;
        if (length > room - 1)
            length = room - 1;
        memcpy((char *)start, title, length);
        memset((char *)start + length, 0, room - length);
    }
    static void name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }
    static int die_with_parent(int number)
    {
        return prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) ? errno : 0;
    }
    #else
    static void rewrite(uintptr_t start, uintptr_t end, const char *title, size_t length) {}
    static void name_thread(const char *name) {}
    static int die_with_parent(int number) { return 0; }
    #endif

    #include <pthread.h>
    #include <stdlib.h>
    #include <time.h>

    typedef struct {
        volatile uint64_t *alive;
        const volatile uint64_t *phase;
        uint64_t phases;
        struct timespec pause;
    } heart;

    /* Two words of shared memory are all it touches, so it needs neither the GIL nor a lock, goes
       on through whatever the interpreter does, and stops exactly when the process does. */
    static void *beat_for_ever(void *argument)
    {
        heart *self = argument;
        for (;;) {
            if (*self->phase < 64 && (self->phases >> *self->phase & 1))
                *self->alive = *self->alive + 1;
            nanosleep(&self->pause, NULL);
        }
        return NULL;
    }

    static int start_heart(uint64_t *page, int alive, int phase, uint64_t phases, int ms)
    {
        pthread_t thread;
        pthread_attr_t attributes;
        int error;
        heart *self = malloc(sizeof *self);
        if (self == NULL)
            return ENOMEM;
        self->alive = page + alive;
        self->phase = page + phase;
        self->phases = phases;
        self->pause.tv_sec = ms / 1000;
        self->pause.tv_nsec = ms % 1000 * 1000000L;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, 64 << 10);
        error = pthread_create(&thread, &attributes, beat_for_ever, self);
        pthread_attr_destroy(&attributes);
        if (error)
            free(self);
        return error;
    }
    """
    ctypedef unsigned long uintptr_t
    void rewrite(uintptr_t start, uintptr_t end, const char *title, size_t length) nogil
    void name_thread(const char *name) nogil
    int die_with_parent(int number) nogil
    int start_heart(uint64_t *page, int alive, int phase, uint64_t phases, int ms) nogil


# Fields of /proc/self/stat, counted from the one after the command's closing parenthesis.
cdef enum:
    ARG_START = 48 - 3
    ARG_END = 49 - 3


def set_title(str title not None):
    """Change what `ps` shows of this process."""
    cdef bytes text = title.encode("utf-8", "surrogateescape").replace(b"\0", b" ")
    # The kernel cuts it to 15 bytes, which may be within a character: cut before that one.
    cdef bytes short = text[:15].decode("utf-8", "ignore").encode()
    cdef uintptr_t start, end
    name_thread(short)
    try:
        with open("/proc/self/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()
    except FileNotFoundError:
        return
    start, end = int(fields[ARG_START]), int(fields[ARG_END])
    if start and end > start:
        rewrite(start, end, text, len(text))


def parent_death_signal(int number):
    """Have the kernel send this signal to this process when the thread that started it ends."""
    cdef int error = die_with_parent(number)
    if error:
        raise OSError(error, f"PR_SET_PDEATHSIG {number}")


_pages = []  # what hearts write to stays mapped for as long as they beat: until the end


def beat(page not None, int alive, int phase, uint64_t phases, int ms):
    """Start a thread that counts word `alive` of a page up while word `phase` is in `phases`."""
    cdef uint64_t[::1] words = page
    cdef int error
    if not 0 <= alive < words.shape[0] or not 0 <= phase < words.shape[0]:
        raise ValueError(f"words {alive} and {phase} of a page of {words.shape[0]}")
    _pages.append(page)
    error = start_heart(&words[0], alive, phase, phases, ms)
    if error:
        raise OSError(error, "no thread for the heartbeat")
