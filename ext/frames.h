/* Functions of the libzmq that pyzmq has loaded, for `ext/frames.pyx`. */

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <time.h>

enum { FRAMES_DONTWAIT = 1, FRAMES_SNDMORE = 2, FRAMES_FD = 14, FRAMES_EVENTS = 15 };

/* As zmq.h has it, which the wheels of pyzmq do not: 64 bytes. */
typedef union { unsigned char bytes[64]; void *aligned; } frames_message;

static struct {
    int (*init)(frames_message *);
    int (*init_size)(frames_message *, size_t);
    int (*receive)(frames_message *, void *, int);
    int (*send)(frames_message *, void *, int);
    int (*close)(frames_message *);
    void *(*data)(frames_message *);
    size_t (*size)(const frames_message *);
    int (*more)(const frames_message *);
    const char *(*gets)(const frames_message *, const char *);
    int (*get)(void *, int, void *, size_t *);
    int (*error)(void);
    const char *(*why)(int);
} frames_zmq;

/* `path` is a library that is loaded already: what it depends on is searched as well. */
static const char *frames_find(const char *path)
{
    void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
    if (!library) return "it is not loaded";
    #define FRAMES_FIND(field, name) \
        if (!(*(void **)&frames_zmq.field = dlsym(library, name))) return "it has no " name;
    FRAMES_FIND(init, "zmq_msg_init")
    FRAMES_FIND(init_size, "zmq_msg_init_size")
    FRAMES_FIND(receive, "zmq_msg_recv")
    FRAMES_FIND(send, "zmq_msg_send")
    FRAMES_FIND(close, "zmq_msg_close")
    FRAMES_FIND(data, "zmq_msg_data")
    FRAMES_FIND(size, "zmq_msg_size")
    FRAMES_FIND(more, "zmq_msg_more")
    FRAMES_FIND(gets, "zmq_msg_gets")
    FRAMES_FIND(get, "zmq_getsockopt")
    FRAMES_FIND(error, "zmq_errno")
    FRAMES_FIND(why, "zmq_strerror")
    #undef FRAMES_FIND
    return 0;
}

static int frames_init(frames_message *m) { return frames_zmq.init(m); }
static int frames_make(frames_message *m, size_t n) { return frames_zmq.init_size(m, n); }
static void *frames_data(frames_message *m) { return frames_zmq.data(m); }
static size_t frames_size(frames_message *m) { return frames_zmq.size(m); }
static int frames_more(frames_message *m) { return frames_zmq.more(m); }
static void frames_close(frames_message *m) { frames_zmq.close(m); }
static const char *frames_why(int error) { return frames_zmq.why(error); }

/* What is known of the connection by which it came; "" for nothing. */
static const char *frames_of(frames_message *m, const char *what)
{
    const char *found = frames_zmq.gets(m, what);
    return found ? found : "";
}

/* An option that is an int; below 0 it is an error number. */
static int frames_get(void *socket, int option)
{
    int value = 0;
    size_t size = sizeof value;
    while (frames_zmq.get(socket, option, &value, &size) < 0) {
        int error = frames_zmq.error();
        if (error != EINTR) return -error;
    }
    return value;
}
static int frames_fd(void *socket) { return frames_get(socket, FRAMES_FD); }
static int frames_events(void *socket) { return frames_get(socket, FRAMES_EVENTS); }

static int frames_poll(struct pollfd *of, int many, int milliseconds)
{
    int found = poll(of, (nfds_t)many, milliseconds);
    return found < 0 ? -errno : found;
}

/* In nanoseconds. */
static long long frames_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Looks again and again until then, and lets others run in between. Who else has work for long ends
 * that, and is noted: such as us wait asleep, whom the scheduler wakes before others. */
static int frames_spin(struct pollfd *of, int many, long long until, int *crowded)
{
    enum { LONG = 500000 }; /* nanoseconds */
    for (;;) {
        int found = frames_poll(of, many, 0);
        long long now = frames_now();
        if (found || now >= until) return found;
        sched_yield();
        if (frames_now() - now > LONG) {
            *crowded = 1;
            return frames_poll(of, many, 0);
        }
    }
}

/* Neither waits; the result is 0 or an error number. */
static int frames_receive(frames_message *m, void *socket)
{
    while (frames_zmq.receive(m, socket, FRAMES_DONTWAIT) < 0) {
        int error = frames_zmq.error();
        if (error != EINTR) return error;
    }
    return 0;
}

static int frames_send(frames_message *m, void *socket, int more)
{
    while (frames_zmq.send(m, socket, FRAMES_DONTWAIT | (more ? FRAMES_SNDMORE : 0)) < 0) {
        int error = frames_zmq.error();
        if (error != EINTR) return error;
    }
    return 0;
}
