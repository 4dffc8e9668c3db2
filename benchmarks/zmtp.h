/* ZMTP 3.1 of a DEALER over ipc, without a library and without a thread: what a load needs of it.
 *
 * Loads of other stores speak the protocol of theirs over bare sockets as well. One epoll tells of
 * all connections; a message is one part. https://rfc.zeromq.org/spec/37, security NULL.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ZMTP_HEAD = 9, ZMTP_WAIT_MS = 5000, ZMTP_GREETING = 64, ZMTP_ROOM = 1 << 16 };
enum { ZMTP_MORE = 1, ZMTP_LONG = 2, ZMTP_COMMAND = 4 }; /* of the flags of a frame */

/* `in` holds what was read and not taken yet, from `at` to `end`. */
typedef struct {
    int fd;
    uint8_t *in;
    size_t at, end, room;
} zmtp_line;

static zmtp_line *zmtp_lines;
static int zmtp_poll;

static void zmtp_die(const char *why) {
    fprintf(stderr, "load: %s\n", why);
    exit(1);
}

static void zmtp_big(uint8_t *at, uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; i--, value >>= 8) at[i] = (uint8_t)value;
}

static void zmtp_write(zmtp_line *to, const uint8_t *what, size_t bytes) {
    while (bytes) {
        ssize_t sent = write(to->fd, what, bytes);
        if (sent < 0 && errno != EINTR) zmtp_die("a request was not taken");
        if (sent > 0) what += sent, bytes -= (size_t)sent;
    }
}

/* A message behind ZMTP_HEAD bytes that are free. */
static void zmtp_say(zmtp_line *to, uint8_t *what, size_t bytes, int flags) {
    int wide = bytes > 255 ? 8 : 1;
    uint8_t *from = what - wide - 1;
    *from = (uint8_t)(flags | (wide > 1 ? ZMTP_LONG : 0));
    zmtp_big(from + 1, bytes, wide);
    zmtp_write(to, from, bytes + (size_t)wide + 1);
}

/* Read once; whatever is there. */
static void zmtp_read(zmtp_line *from) {
    if (from->at == from->end) from->at = from->end = 0;
    if (from->room - from->end < ZMTP_ROOM / 2) {
        from->end -= from->at;
        memmove(from->in, from->in + from->at, from->end), from->at = 0;
        if (from->room - from->end < ZMTP_ROOM / 2)
            if (!(from->in = realloc(from->in, from->room *= 2))) zmtp_die("no memory");
    }
    ssize_t got = read(from->fd, from->in + from->end, from->room - from->end);
    if (got < 0 && errno == EINTR) return;
    if (got <= 0) zmtp_die("the connection broke");
    from->end += (size_t)got;
}

/* PING of 4 "PING", time to live of 2 and a context, which goes back. Others need no answer. */
static void zmtp_obey(zmtp_line *from, const uint8_t *what, size_t bytes) {
    uint8_t pong[ZMTP_HEAD + 5 + 16];
    if (bytes < 7 || memcmp(what, "\4PING", 5)) return;
    size_t context = bytes - 7 > 16 ? 16 : bytes - 7;
    memcpy(pong + ZMTP_HEAD, "\4PONG", 5);
    memcpy(pong + ZMTP_HEAD + 5, what + 7, context);
    zmtp_say(from, pong + ZMTP_HEAD, 5 + context, ZMTP_COMMAND);
}

/* The next message that was read; NULL if there is none whole. It is there until the next read. */
static const uint8_t *zmtp_hear(zmtp_line *from, size_t *bytes) {
    for (;;) {
        const uint8_t *at = from->in + from->at;
        size_t there = from->end - from->at, head = 2, length = 0;
        if (there && *at & ZMTP_LONG) head = ZMTP_HEAD;
        if (there < head) return NULL;
        for (size_t i = 1; i < head; i++) length = length << 8 | at[i];
        if (there - head < length) return NULL;
        if (*at & ZMTP_MORE) zmtp_die("a message of many parts");
        from->at += head + length;
        if (*at & ZMTP_COMMAND) {
            zmtp_obey(from, at + head, length);
            continue;
        }
        return *bytes = length, at + head;
    }
}

/* Wait until something can be read; how many `ready` lines that is. */
static int zmtp_await(struct epoll_event *ready, int most) {
    int many = epoll_wait(zmtp_poll, ready, most, ZMTP_WAIT_MS);
    if (many < 0 && errno != EINTR) zmtp_die("no poll");
    if (!many) zmtp_die("no answer for five seconds");
    return many < 0 ? 0 : many;
}

static void zmtp_dial(zmtp_line *to, const char *address) {
    static const char scheme[] = "ipc://", type[] = "\5READY\13Socket-Type\0\0\0\6DEALER";
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    uint8_t greeting[ZMTP_GREETING] = {0xff, [9] = 0x7f, 3, 1, 'N', 'U', 'L', 'L'};
    uint8_t ready[ZMTP_HEAD + sizeof type];
    if (strncmp(address, scheme, sizeof scheme - 1)) zmtp_die("an address is ipc://PATH");
    address += sizeof scheme - 1;
    if (strlen(address) >= sizeof at.sun_path) zmtp_die("an address that is too long");
    strcpy(at.sun_path, address);
    to->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(to->fd, (struct sockaddr *)&at, sizeof at)) zmtp_die("nobody listens");
    to->in = malloc(to->room = 2 * ZMTP_ROOM), to->at = to->end = 0;
    zmtp_write(to, greeting, sizeof greeting);
    while (to->end < ZMTP_GREETING) zmtp_read(to);
    if (*to->in != 0xff || to->in[10] < 3) zmtp_die("this is no ZMTP 3");
    to->at = ZMTP_GREETING;
    memcpy(ready + ZMTP_HEAD, type, sizeof type - 1);
    zmtp_say(to, ready + ZMTP_HEAD, sizeof type - 1, ZMTP_COMMAND);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = to};
    if (epoll_ctl(zmtp_poll, EPOLL_CTL_ADD, to->fd, &event)) zmtp_die("no poll");
}

static void zmtp_open(int lines) {
    zmtp_lines = calloc((size_t)lines, sizeof *zmtp_lines);
    zmtp_poll = epoll_create1(0);
}
