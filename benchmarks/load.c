/* A closed loop of clients that is never the bottleneck: each keeps one request outstanding.
 *
 *     load PROTOCOL ADDRESS CONNECTIONS CLIENTS SECONDS BYTES
 *
 * PROTOCOL is `engine` (a replica's clients' endpoint: it greets, then submits commands of BYTES),
 * `bare` (the loop of the limit: msgpack [1, number, key of 16, value of BYTES - 16] and no greeting),
 * or `put`, `get` or `mix` (a replica of the store: keys of 16 bytes, 10 000 of them, and values of
 * BYTES; each client has a session of its own; of a mix one in ten is a put), or `fill`, which puts
 * every key once and takes as long as that takes. What the clients of one connection ask at the
 * same moment shares a frame, as in `engine.kv.client`. `load_cores` is what the load itself used.
 * One JSON object on stdout. It speaks ZMTP itself (`zmtp.h`), as the load of Redis speaks RESP.
 */
#include <sys/resource.h>
#include <time.h>

#include "zmtp.h"

enum { PROBE = 7 }; /* a kind of message: whether we are still here */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Seconds of processor time of this process so far, the threads of the library included. */
static double processor(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* msgpack: an unsigned number, or the length of an array. */
static const uint8_t *number(const uint8_t *at, uint64_t *value) {
    uint8_t byte = *at++;
    int bytes = 0;
    if (byte < 0x80) return *value = byte, at;
    if (byte >= 0x90 && byte < 0xa0) return *value = byte & 15, at;
    if (byte >= 0xcc && byte <= 0xcf) bytes = 1 << (byte - 0xcc);
    else if (byte == 0xdc || byte == 0xdd) bytes = byte == 0xdc ? 2 : 4;
    else zmtp_die("an answer that is not understood");
    for (*value = 0; bytes; bytes--) *value = *value << 8 | *at++;
    return at;
}

enum { KEYS = 10000, PUT = 1, GET = 2, MIX = 3, FILL = 4 };
enum { READ = 0, WRITE = 1, FRAME_BYTES = 1 << 17, SHARED_MOST = 256, NOBODY = -1 };
static int engine, store, clients, connections;
static size_t size;
static uint8_t *frame, (*header)[28];
static size_t length, id_at;
static double *began, *took;
static long done, taken, room, filled;

/* Session (16 bytes) and the last sequence of a client, for puts. */
static uint8_t (*session)[16];
static uint64_t *sequence, chance = 88172645463325252u;

/* Of each connection, what its clients ask and was not sent yet, gets and puts: the first and the last
 * of them, and how many. A frame has the number of its first client, and behind each comes the next. */
static struct { int first, last, many; } (*asked)[2];
static int *next_of;

static void ask_store(int client) {
    chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
    int how = store == PUT || store == FILL || (store == MIX && (chance >> 32) % 10 == 0) ? WRITE : READ;
    int at = client % connections;
    if (asked[at][how].many++) next_of[asked[at][how].last] = client;
    else asked[at][how].first = client;
    asked[at][how].last = client, next_of[client] = NOBODY;
    began[client] = now();
}

static uint8_t *put_request(uint8_t *at, int client, int how) {
    chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
    if (how == WRITE) {
        *at++ = 0x96, *at++ = 0xc4, *at++ = 16, memcpy(at, session[client], 16), at += 16;
        *at++ = 0xcf, zmtp_big(at, ++sequence[client], 8), at += 8;
        *at++ = 2;
    } else {
        *at++ = 0x92, *at++ = 32;
    }
    *at++ = 0xc4, *at++ = 16, memcpy(at, "key-", 4), at += 4;
    at += sprintf((char *)at, "%012d", (int)((store == FILL ? (uint64_t)filled++ : chance) % KEYS));
    if (how == READ) return at;
    *at++ = 0xc5, zmtp_big(at, size, 2), at += 2, memset(at, 7, size), at += size, *at++ = 0;
    return at;
}

static void say(int connection, uint8_t *what, size_t bytes) {
    zmtp_say(&zmtp_lines[connection], what, bytes, 0);
}

/* All that one connection asks, or as much of it as a frame takes. */
static void send_frame(int connection, int how) {
    static uint8_t room_of_head[ZMTP_HEAD + FRAME_BYTES], *out = room_of_head + ZMTP_HEAD;
    size_t most = (FRAME_BYTES - 256) / (size + 128);
    int many = asked[connection][how].many, client = asked[connection][how].first;
    if (many > SHARED_MOST) many = SHARED_MOST;
    if ((size_t)many > most) many = (int)most;
    uint8_t *at = out + 28, *count, *from;
    *at++ = 0x92, *at++ = how == READ, *at++ = 0xc6, count = at, at += 4, from = at;
    *at++ = 0xdc, zmtp_big(at, (uint64_t)many + 1, 2), at += 2;
    *at++ = 0xcf, zmtp_big(at, (uint64_t)client, 8), at += 8;
    for (int n = 1;; n++, client = next_of[client]) {
        at = put_request(at, client, how);
        if (n == many) break;
    }
    asked[connection][how].first = next_of[client], asked[connection][how].many -= many;
    next_of[client] = NOBODY;
    zmtp_big(count, (uint64_t)(at - from), 4);
    memcpy(out, header[connection], 24);
    uint32_t bytes = (uint32_t)(at - out - 28);
    memcpy(out + 24, &bytes, 4);
    say(connection, out, (size_t)(at - out));
}

static void send_store(int connection) {
    for (int how = READ; how <= WRITE; how++)
        while (asked[connection][how].many) send_frame(connection, how);
}

static void ask(int client) {
    if (store) {
        ask_store(client);
        return;
    }
    int at = client % connections;
    if (engine) memcpy(frame, header[at], 28);
    zmtp_big(frame + id_at, (uint64_t)client, 8);
    began[client] = now();
    say(at, frame, length);
}

static void answered(uint64_t client) {
    if (client >= (uint64_t)clients) return;
    done++;
    if (taken < room) took[taken++] = now() - began[client];
    ask((int)client);
}

/* The reason is the only text in it. */
static void rejected(const uint8_t *at, int bytes) {
    fprintf(stderr, "load: rejected: ");
    for (int i = 0; i < bytes; i++)
        if (at[i] >= ' ' && at[i] < 127) fputc(at[i], stderr);
    fputc('\n', stderr);
    exit(3);
}

/* Over a number, a string or bytes. */
static const uint8_t *over(const uint8_t *at) {
    uint8_t byte = *at;
    uint64_t bytes = 0;
    if (byte < 0x80 || byte == 0xc0 || byte >= 0xe0) return at + 1;
    if (byte >= 0xcc && byte <= 0xcf) return at + 1 + (1 << (byte - 0xcc));
    if (byte < 0xc4 || byte > 0xc6) zmtp_die("an outcome that is not understood");
    for (int wide = 1 << (byte - 0xc4); wide; wide--) bytes = bytes << 8 | *++at;
    return at + 1 + bytes;
}

/* [who answers, [frame, …]], where a frame is the number of the request and an outcome for each. */
static void took_frames(const uint8_t *at) {
    uint64_t count, frames, fields, value;
    at = number(at, &count);
    at = number(at, &value);
    at = number(at, &frames);
    while (frames--) {
        if (*at < 0xc4 || *at > 0xc6) zmtp_die("no frame");
        at += 1 + (1 << (*at - 0xc4));
        at = number(at, &count);
        at = number(at, &value);
        int client = value < (uint64_t)clients ? (int)value : NOBODY, then;
        for (; --count; client = then) {
            at = number(at, &fields);
            if (client == NOBODY || fields < 2 || *at) /* every key is there */
                zmtp_die("a request was refused, or a key is not there");
            while (fields--) at = over(at);
            then = next_of[client];
            answered((uint64_t)client);
        }
        if (client != NOBODY) zmtp_die("a request has no outcome");
    }
}

static void take(const uint8_t *at, int bytes) {
    uint64_t count, pairs, value, place;
    if (!engine) {
        at = number(at, &count);
        number(at, &value);
        answered(value);
        return;
    }
    if (at[5] == PROBE) return;
    if (at[5] == 146) rejected(at + 28, bytes - 28);
    if (store) {
        if (at[5] == 161) took_frames(at + 28);
        else zmtp_die("an answer of another kind");
        return;
    }
    if (at[5] != 145) zmtp_die("an answer of another kind");
    at = number(at + 28, &count);
    at = number(at, &value); /* who answers */
    at = number(at, &pairs);
    while (pairs--) {
        at = number(at, &count);
        at = number(at, &value);
        at = number(at, &place);
        answered(value);
    }
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* All that one connection has heard, and what its clients ask then. */
static void hear(zmtp_line *from) {
    const uint8_t *answer;
    size_t bytes;
    zmtp_read(from);
    while ((answer = zmtp_hear(from, &bytes))) take(answer, (int)bytes);
    if (store) send_store((int)(from - zmtp_lines));
}

/* Say hello, and keep the header that the welcome came with: cluster and link. */
static void greet(int at) {
    zmtp_line *line = &zmtp_lines[at];
    uint8_t room_of_head[ZMTP_HEAD + 64] = {0}, *hello = room_of_head + ZMTP_HEAD;
    uint8_t *body = hello + 28, *end = body;
    memcpy(hello, "ENGW\1\1", 6);
    memcpy(end, "\x94\xa6" "client\xff\0\xc4\x10", 12), end += 12; /* role, node -1, incarnation 0 */
    for (int i = 0; i < 16; i++) *end++ = (uint8_t)(rand() >> 7);
    uint32_t bytes = (uint32_t)(end - body);
    memcpy(hello + 24, &bytes, 4);
    say(at, hello, 28 + bytes);
    const uint8_t *answer;
    size_t got;
    do { /* it may be asked whether we are still here */
        while (!(answer = zmtp_hear(line, &got))) zmtp_read(line);
    } while (got >= 28 && answer[5] == PROBE);
    if (got < 28 || answer[5] != 4) zmtp_die("not welcome");
    memcpy(header[at], answer, 28);
    header[at][5] = store ? 160 : 144;
    bytes = (uint32_t)(length - 28);
    memcpy(header[at] + 24, &bytes, 4);
}

static void make_request(void) {
    frame = (uint8_t *)calloc(1, ZMTP_HEAD + size + 64) + ZMTP_HEAD;
    uint8_t *at = frame + (engine ? 28 : 0);
    *at++ = engine ? 0x92 : 0x94;
    if (!engine) *at++ = 1;
    *at++ = 0xcf;
    id_at = (size_t)(at - frame), at += 8;
    if (!engine) {
        memcpy(at, "\xc4\x10" "k00000000000000x", 18), at += 18;
        size -= 16;
    }
    *at++ = 0xc5, zmtp_big(at, size, 2), at += 2;
    memset(at, 7, size), at += size;
    length = (size_t)(at - frame);
}

int main(int count, char **argument) {
    if (count != 7) zmtp_die("load PROTOCOL ADDRESS CONNECTIONS CLIENTS SECONDS BYTES");
    store = !strcmp(argument[1], "put") ? PUT : !strcmp(argument[1], "get") ? GET
          : !strcmp(argument[1], "mix") ? MIX : !strcmp(argument[1], "fill") ? FILL : 0;
    engine = store || !strcmp(argument[1], "engine");
    connections = atoi(argument[3]), clients = atoi(argument[4]);
    double seconds = atof(argument[5]);
    size = (size_t)atol(argument[6]);
    room = 1L << 23;
    took = malloc(sizeof *took * (size_t)room);
    began = calloc((size_t)clients, sizeof *began);
    header = calloc((size_t)connections, sizeof *header);
    asked = calloc((size_t)connections, sizeof *asked);
    next_of = calloc((size_t)clients, sizeof *next_of);
    srand((unsigned)(now() * 1e6) ^ (unsigned)getpid() << 16); /* sessions of its own */
    make_request();
    session = calloc((size_t)clients, 16), sequence = calloc((size_t)clients, 8);
    chance ^= (uint64_t)time(NULL) << 20 ^ (uint64_t)clients;
    for (int client = 0; client < clients; client++)
        for (int i = 8; i < 16; i++) session[client][i] = (uint8_t)(rand() >> 7);
    zmtp_open(connections);
    for (int at = 0; at < connections; at++) {
        zmtp_dial(&zmtp_lines[at], argument[2]);
        if (engine) greet(at);
    }
    double begin = now(), end = begin + seconds, warm = begin + seconds / 10, counted = 0, used = 0;
    long before = 0;
    for (int client = 0; client < clients; client++) ask(client);
    for (int i = 0; store && i < connections; i++) send_store(i);
    for (;;) {
        double at = now();
        if (!counted && at > warm) counted = at, before = done, taken = 0, used = processor();
        if (store == FILL ? done >= KEYS : at > end) break;
        struct epoll_event ready[128];
        int many = zmtp_await(ready, 128);
        for (int i = 0; i < many; i++) hear(ready[i].data.ptr);
    }
    double wall = now() - counted;
    used = processor() - used;
    qsort(took, (size_t)taken, sizeof *took, ascending);
    if (!taken) zmtp_die("nothing was done");
    printf("{\"ops\": %.0f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"done\": %ld, "
           "\"load_cores\": %.3f}\n",
           (done - before) / wall, took[taken / 2] * 1e3, took[(long)(taken * .99)] * 1e3,
           took[taken - 1] * 1e3, done, used / wall);
    return 0;
}
