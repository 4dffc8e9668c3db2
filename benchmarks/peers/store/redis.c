/* A closed loop of clients on Redis: each keeps one request outstanding, as in load.c.
 *
 *     redisload PROTOCOL HOST:PORT SOCKETS CLIENTS SECONDS BYTES
 *
 * PROTOCOL is put (SET and WAIT 1 0 in one write: done when the wait says that a replica has it),
 * get, mix, or `fill`, which puts every key once; keys, values and the result are as in load.c.
 * A connection that waits is not served meanwhile, so clients that share one take turns there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { KEYS = 10000, PUT = 1, GET = 2, MIX = 3, FILL = 4, ANSWERS_BYTES = 1 << 16 };

/* A connection: what was not written yet, what was read and not understood yet, and who waits for
 * an answer on it, in order. A put is answered twice; `waits` is what a client still waits for. */
typedef struct {
    int fd;
    char *out, in[ANSWERS_BYTES];
    size_t out_bytes, out_room, in_bytes;
    int *queue, first, many, room;
} line;

static int protocol, clients, sockets, *waits;
static size_t size;
static char *value;
static line *links;
static double *began, *took;
static long done, taken, room, filled;
static uint64_t chance = 88172645463325252u;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Seconds of processor time of this process so far. */
static double processor(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void die(const char *why) {
    fprintf(stderr, "redisload: %s\n", why);
    exit(1);
}

static void flush(line *to) {
    size_t at = 0;
    while (at < to->out_bytes) {
        ssize_t sent = write(to->fd, to->out + at, to->out_bytes - at);
        if (sent < 0 && errno != EAGAIN) die("the connection broke");
        if (sent < 0) break; /* the rest goes with the next answer that comes here */
        at += (size_t)sent;
    }
    memmove(to->out, to->out + at, to->out_bytes -= at);
}

static void ask(int client) {
    line *to = &links[client % sockets];
    chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
    int tenth = (chance >> 32) % 10 == 0;
    int write = protocol == PUT || protocol == FILL || (protocol == MIX && tenth);
    int key = (int)((protocol == FILL ? (uint64_t)filled++ : chance) % KEYS);
    char *at = to->out + to->out_bytes;
    if (write) {
        at += sprintf(at, "*3\r\n$3\r\nSET\r\n$16\r\nkey-%012d\r\n$%zu\r\n", key, size);
        memcpy(at, value, size), at += size;
        at += sprintf(at, "\r\n*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n");
    } else {
        at += sprintf(at, "*2\r\n$3\r\nGET\r\n$16\r\nkey-%012d\r\n", key);
    }
    to->out_bytes = (size_t)(at - to->out);
    waits[client] = write ? 2 : 1;
    to->queue[(to->first + to->many++) % to->room] = client;
    began[client] = now();
}

static void answered(line *from) {
    int client = from->queue[from->first];
    if (--waits[client]) return;
    from->first = (from->first + 1) % from->room, from->many--;
    done++;
    if (taken < room) took[taken++] = now() - began[client];
    ask(client);
}

/* One answer: +OK, :replicas or $bytes and the value. How long it is; 0 if it is not all there. */
static size_t answer(const char *at, size_t bytes) {
    const char *end = memchr(at, '\n', bytes);
    if (!end) return 0;
    size_t length = (size_t)(end - at) + 1;
    if (*at == '-') die(strndup(at, length));
    if (*at == ':' && atol(at + 1) < 1) die("no replica has it");
    if (*at == '$' && atol(at + 1) != (long)size) die("a key has not the value that was put");
    if (*at == '$') length += size + 2;
    return length <= bytes ? length : 0;
}

static void take(line *from) {
    ssize_t got = read(from->fd, from->in + from->in_bytes, sizeof from->in - from->in_bytes);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("the connection broke");
    from->in_bytes += (size_t)got;
    size_t at = 0;
    for (size_t length; (length = answer(from->in + at, from->in_bytes - at)); at += length)
        answered(from);
    memmove(from->in, from->in + at, from->in_bytes -= at);
    flush(from);
}

static void dial(line *to, const char *address, int poll) {
    char host[64];
    const char *colon = strchr(address, ':');
    if (!colon || colon - address >= (long)sizeof host) die("an address is HOST:PORT");
    memcpy(host, address, (size_t)(colon - address)), host[colon - address] = 0;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    int one = 1;
    inet_pton(AF_INET, host, &at.sin_addr);
    to->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(to->fd, (struct sockaddr *)&at, sizeof at)) die("nobody listens");
    setsockopt(to->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = to};
    epoll_ctl(poll, EPOLL_CTL_ADD, to->fd, &event);
    to->room = clients / sockets + 1;
    to->queue = calloc((size_t)to->room, sizeof *to->queue);
    to->out_room = (size_t)to->room * (size + 256);
    to->out = malloc(to->out_room);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int count, char **argument) {
    if (count != 7) die("redisload PROTOCOL HOST:PORT SOCKETS CLIENTS SECONDS BYTES");
    protocol = !strcmp(argument[1], "put") ? PUT : !strcmp(argument[1], "get") ? GET
             : !strcmp(argument[1], "mix") ? MIX : !strcmp(argument[1], "fill") ? FILL : 0;
    if (!protocol) die("put, get, mix or fill");
    sockets = atoi(argument[3]), clients = atoi(argument[4]);
    double seconds = atof(argument[5]);
    size = (size_t)atol(argument[6]);
    value = malloc(size), memset(value, 'v', size);
    room = 1L << 23;
    took = malloc(sizeof *took * (size_t)room);
    began = calloc((size_t)clients, sizeof *began), waits = calloc((size_t)clients, sizeof *waits);
    links = calloc((size_t)sockets, sizeof *links);
    chance ^= (uint64_t)time(NULL) << 20 ^ (uint64_t)clients;
    int poll = epoll_create1(0);
    for (int at = 0; at < sockets; at++) dial(&links[at], argument[2], poll);
    double begin = now(), end = begin + seconds, warm = begin + seconds / 10, counted = 0, used = 0;
    long before = 0;
    for (int client = 0; client < clients; client++) ask(client);
    for (int at = 0; at < sockets; at++) flush(&links[at]);
    for (;;) {
        struct epoll_event events[128];
        double at = now();
        if (!counted && at > warm) counted = at, before = done, taken = 0, used = processor();
        if (protocol == FILL ? done >= KEYS : at > end) break;
        int ready = epoll_wait(poll, events, 128, 5000);
        if (ready <= 0) die("no answer for five seconds");
        for (int i = 0; i < ready; i++) take(events[i].data.ptr);
    }
    double wall = now() - counted;
    used = processor() - used;
    if (!taken) die("nothing was done");
    qsort(took, (size_t)taken, sizeof *took, ascending);
    printf("{\"ops\": %.0f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"done\": %ld, "
           "\"load_cores\": %.3f}\n",
           (done - before) / wall, took[taken / 2] * 1e3, took[(long)(taken * .99)] * 1e3,
           took[taken - 1] * 1e3, done, used / wall);
    return 0;
}
