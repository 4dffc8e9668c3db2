/* Values of Python jobs to msgpack and back, for the types that are nearly all there are.
 *
 * msgpack's own Packer and Unpacker cost a call and an object for every record; here a str is a
 * copy of its UTF-8. What is not str, bytes, int, float, bool, None, or lists and tuples of these, is
 * left to msgpack: `GROUPS_OTHER`. Arrays are read as tuples. Needs the GIL, except `groups_room`.
 */
#ifndef ENGINE_GROUPS_VALUES_H
#define ENGINE_GROUPS_VALUES_H
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Deeper values are left to msgpack, which has a limit of its own. */
#define GROUPS_DEPTH_MAX 32
/* A longer value is an error: lengths in a block are 32 bits, and it would be held several times. */
#define GROUPS_VALUE_MAX ((size_t)1 << 30)

enum { GROUPS_ERROR = -1, GROUPS_OTHER = 0, GROUPS_DONE = 1 };

/* --- bytes that grow ---------------------------------------------------------------------------- */

typedef struct {
    uint8_t *bytes;
    size_t used, capacity;
} groups_bytes;

/* At least `size` writable bytes behind what is used; NULL when there is no memory. */
static inline uint8_t *groups_room(groups_bytes *out, size_t size) {
    if (out->capacity - out->used < size || !out->bytes) {
        size_t capacity = (out->used + size) * 2 + 256;
        uint8_t *bytes = realloc(out->bytes, capacity);
        if (!bytes)
            return NULL;
        out->bytes = bytes;
        out->capacity = capacity;
    }
    return out->bytes + out->used;
}

static inline int groups_append(groups_bytes *out, const void *from, size_t size) {
    uint8_t *room = groups_room(out, size);
    if (!room)
        return -1;
    memcpy(room, from, size);
    out->used += size;
    return 0;
}

static inline void groups_free(groups_bytes *out) {
    free(out->bytes);
    *out = (groups_bytes){0};
}

static inline uint8_t *groups_store(uint8_t *at, uint64_t value, int size) /* big-endian */
{
    for (int shift = 8 * (size - 1); shift >= 0; shift -= 8)
        *at++ = (uint8_t)(value >> shift);
    return at;
}

static inline uint64_t groups_load(const uint8_t *at, int size) {
    uint64_t value = 0;
    while (size--)
        value = value << 8 | *at++;
    return value;
}

/* --- writing ------------------------------------------------------------------------------------ */

/* The UTF-8 of a str, NULL with an exception for a lone surrogate. Cached in the str if not ASCII. */
static inline const uint8_t *groups_utf8(PyObject *text, size_t *size) {
    Py_ssize_t length;
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        *size = (size_t)PyUnicode_GET_LENGTH(text);
        return PyUnicode_1BYTE_DATA(text);
    }
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &length);
    *size = (size_t)length;
    return (const uint8_t *)utf8;
}

/* Bytes that a value of a table takes besides its place in a list, or -1 if it is none of the types
 * that a table keeps as they are. -2 with an exception for text that has no UTF-8. */
static inline Py_ssize_t groups_cost(PyObject *value) {
    size_t size;
    if (PyUnicode_CheckExact(value)) {
        if (!groups_utf8(value, &size))
            return -2;
        if (PyUnicode_IS_COMPACT_ASCII(value))
            return 56 + (Py_ssize_t)size;
        return 80 + PyUnicode_GET_LENGTH(value) * PyUnicode_KIND(value) + (Py_ssize_t)size;
    }
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow ? -1 : number >= -5 && number <= 256 ? 0 : 32;
    }
    if (value == Py_None || value == Py_True || value == Py_False)
        return 0;
    if (PyFloat_CheckExact(value))
        return 32;
    return PyBytes_CheckExact(value) ? 48 + PyBytes_GET_SIZE(value) : -1;
}

static inline int groups_put_head(groups_bytes *out, size_t size, int fixed, int fixed_max, int wide) {
    uint8_t *at = groups_room(out, size + 5);
    if (!at)
        return PyErr_NoMemory(), GROUPS_ERROR;
    if (fixed_max >= 0 && size <= (size_t)fixed_max) {
        *at++ = (uint8_t)(fixed | (int)size);
    } else {
        /* `wide` is the code of the 8-bit length, or for arrays (which have none) one less than
         * that of the 16-bit length. */
        int bytes = size < 256 && fixed != 0x90 ? 1 : size < 65536 ? 2 : 4;
        *at++ = (uint8_t)(wide + bytes / 2);
        at = groups_store(at, size, bytes);
    }
    out->used = (size_t)(at - out->bytes);
    return GROUPS_DONE;
}

static inline int groups_put_bytes(groups_bytes *out, const uint8_t *from, size_t size) {
    memcpy(out->bytes + out->used, from, size); /* groups_put_head made the room */
    out->used += size;
    return GROUPS_DONE;
}

static inline int groups_put_int(groups_bytes *out, PyObject *value) {
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow)
        return GROUPS_OTHER;
    uint8_t *at = groups_room(out, 9);
    if (!at)
        return PyErr_NoMemory(), GROUPS_ERROR;
    if (number >= -32 && number <= 127) {
        *at++ = (uint8_t)number;
    } else {
        int power = number >= INT8_MIN && number <= INT8_MAX     ? 0
                    : number >= INT16_MIN && number <= INT16_MAX ? 1
                    : number >= INT32_MIN && number <= INT32_MAX ? 2
                                                                 : 3;
        *at++ = (uint8_t)(0xd0 + power);
        at = groups_store(at, (uint64_t)number, 1 << power);
    }
    out->used = (size_t)(at - out->bytes);
    return GROUPS_DONE;
}

static int groups_put(groups_bytes *out, PyObject *value, int depth);

static inline int groups_put_array(groups_bytes *out, PyObject *value, int depth) {
    if (depth >= GROUPS_DEPTH_MAX)
        return GROUPS_OTHER;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(value);
    int done = groups_put_head(out, (size_t)count, 0x90, 15, 0xdb);
    for (Py_ssize_t i = 0; i < count && done == GROUPS_DONE; i++)
        done = groups_put(out, PySequence_Fast_GET_ITEM(value, i), depth + 1);
    return done;
}

/* Append the msgpack of a value: GROUPS_DONE, GROUPS_OTHER (leave it to msgpack; part of it may have
 * been appended), or GROUPS_ERROR with an exception. */
static int groups_put(groups_bytes *out, PyObject *value, int depth) {
    if (PyUnicode_CheckExact(value)) {
        size_t size;
        const uint8_t *utf8 = groups_utf8(value, &size);
        if (!utf8)
            return GROUPS_ERROR;
        if (size > GROUPS_VALUE_MAX)
            return GROUPS_OTHER;
        if (groups_put_head(out, size, 0xa0, 31, 0xd9) < 0)
            return GROUPS_ERROR;
        return groups_put_bytes(out, utf8, size);
    }
    if (PyLong_CheckExact(value))
        return groups_put_int(out, value);
    if (PyTuple_CheckExact(value) || PyList_CheckExact(value))
        return groups_put_array(out, value, depth);
    if (PyBytes_CheckExact(value)) {
        size_t size = (size_t)PyBytes_GET_SIZE(value);
        if (size > GROUPS_VALUE_MAX)
            return GROUPS_OTHER;
        if (groups_put_head(out, size, 0, -1, 0xc4) < 0)
            return GROUPS_ERROR;
        return groups_put_bytes(out, (const uint8_t *)PyBytes_AS_STRING(value), size);
    }
    uint8_t *at = groups_room(out, 9);
    if (!at)
        return PyErr_NoMemory(), GROUPS_ERROR;
    if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        uint64_t bits;
        memcpy(&bits, &number, 8);
        *at = 0xcb;
        groups_store(at + 1, bits, 8);
        out->used += 9;
        return GROUPS_DONE;
    }
    if (value != Py_None && value != Py_False && value != Py_True)
        return GROUPS_OTHER;
    *at = value == Py_None ? 0xc0 : value == Py_False ? 0xc2 : 0xc3;
    out->used++;
    return GROUPS_DONE;
}

/* --- reading ------------------------------------------------------------------------------------ */

/* Short ASCII strings met lately: values repeat (names of documents do), and a str that is shared
 * costs no allocation and hashes once. */
#define GROUPS_CACHE_SLOTS 256
#define GROUPS_CACHE_TEXT_MAX 64

typedef struct {
    PyObject *slots[GROUPS_CACHE_SLOTS];
} groups_cache;

typedef struct {
    const uint8_t *at, *end;
    groups_cache *cache;
} groups_reading;

static inline void groups_drop_cache(groups_cache *cache) {
    for (int slot = 0; slot < GROUPS_CACHE_SLOTS; slot++)
        Py_CLEAR(cache->slots[slot]);
}

static inline int groups_is_ascii(const uint8_t *from, size_t size) {
    uint64_t high = 0, word;
    for (; size >= 8; from += 8, size -= 8) {
        memcpy(&word, from, 8);
        high |= word;
    }
    while (size--)
        high |= *from++;
    return (high & 0x8080808080808080u) == 0;
}

/* A new str of verified UTF-8. */
static inline PyObject *groups_text(const uint8_t *from, size_t size) {
    if (!groups_is_ascii(from, size))
        return PyUnicode_DecodeUTF8((const char *)from, (Py_ssize_t)size, NULL);
    PyObject *text = PyUnicode_New((Py_ssize_t)size, 127);
    if (text && size)
        memcpy(PyUnicode_1BYTE_DATA(text), from, size);
    return text;
}

static inline PyObject *groups_shared_text(groups_cache *cache, const uint8_t *from, size_t size) {
    if (size < 8 || size > GROUPS_CACHE_TEXT_MAX)
        return groups_text(from, size);
    uint64_t head, tail;
    memcpy(&head, from, 8);
    memcpy(&tail, from + size - 8, 8);
    uint64_t mixed = (head ^ (tail << 23 | tail >> 41) ^ size) * 0x9e3779b97f4a7c15u;
    PyObject **slot = &cache->slots[mixed >> 56];
    if (*slot && (size_t)PyUnicode_GET_LENGTH(*slot) == size &&
        memcmp(PyUnicode_1BYTE_DATA(*slot), from, size) == 0) {
        Py_INCREF(*slot);
        return *slot;
    }
    PyObject *text = groups_text(from, size);
    if (text && PyUnicode_IS_COMPACT_ASCII(text)) {
        Py_INCREF(text);
        Py_XSETREF(*slot, text);
    }
    return text;
}

/* A length of `size` bytes and as many bytes behind it; NULL if they are not there. */
static inline const uint8_t *groups_take(groups_reading *from, int size, size_t *length) {
    if (from->end - from->at < size)
        return NULL;
    if (size)
        *length = (size_t)groups_load(from->at, size);
    const uint8_t *data = from->at + size;
    if ((size_t)(from->end - data) < *length)
        return NULL;
    from->at = data + *length;
    return data;
}

static PyObject *groups_get(groups_reading *from, int depth);

static inline PyObject *groups_get_tuple(groups_reading *from, size_t count, int depth) {
    if (depth >= GROUPS_DEPTH_MAX || count > (size_t)(from->end - from->at))
        return NULL;
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple && i < count; i++) {
        PyObject *item = groups_get(from, depth + 1);
        if (item)
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, item);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

static inline PyObject *groups_get_number(groups_reading *from, int code) {
    int size = code == 0xcb ? 8 : 1 << (code & 3);
    if (from->end - from->at < size)
        return NULL;
    uint64_t bits = groups_load(from->at, size);
    from->at += size;
    if (code == 0xcb) {
        double number;
        memcpy(&number, &bits, 8);
        return PyFloat_FromDouble(number);
    }
    if (code <= 0xcf)
        return PyLong_FromUnsignedLongLong(bits);
    int unused = 64 - 8 * size;
    return PyLong_FromLongLong((int64_t)(bits << unused) >> unused);
}

/* The next value, a new reference; NULL with an exception, or without one for anything that is left
 * to msgpack, damage included. */
static PyObject *groups_get(groups_reading *from, int depth) {
    if (from->at >= from->end)
        return NULL;
    int code = *from->at++;
    size_t length = 0;
    const uint8_t *data;
    if (code >= 0xa0 && code <= 0xbf) {
        length = (size_t)code & 31;
        data = groups_take(from, 0, &length);
        return data ? groups_shared_text(from->cache, data, length) : NULL;
    }
    if (code <= 0x7f || code >= 0xe0)
        return PyLong_FromLong((int8_t)code);
    if (code >= 0x90 && code <= 0x9f)
        return groups_get_tuple(from, (size_t)code & 15, depth);
    if ((code >= 0xcb && code <= 0xd3))
        return groups_get_number(from, code);
    if (code >= 0xd9 && code <= 0xdb) {
        data = groups_take(from, 1 << (code - 0xd9), &length);
        return data ? groups_shared_text(from->cache, data, length) : NULL;
    }
    if (code >= 0xc4 && code <= 0xc6) {
        data = groups_take(from, 1 << (code - 0xc4), &length);
        return data ? PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)length) : NULL;
    }
    if (code == 0xdc || code == 0xdd) {
        int size = code == 0xdc ? 2 : 4;
        if (from->end - from->at < size)
            return NULL;
        length = (size_t)groups_load(from->at, size);
        from->at += size;
        return groups_get_tuple(from, length, depth);
    }
    if (code == 0xc0 || code == 0xc2 || code == 0xc3)
        return Py_NewRef(code == 0xc0 ? Py_None : code == 0xc2 ? Py_False : Py_True);
    return NULL;
}

/* Append the values of a record, which is one msgpack array, to a list. GROUPS_OTHER leaves the list
 * as it was. */
static inline int groups_get_record(const uint8_t *record, size_t size, groups_cache *cache,
                                    PyObject *list) {
    groups_reading from = {record, record + size, cache};
    size_t count;
    if (size >= 1 && (record[0] & 0xf0) == 0x90) {
        count = record[0] & 15;
        from.at += 1;
    } else if (size >= 3 && record[0] == 0xdc) {
        count = (size_t)groups_load(record + 1, 2);
        from.at += 3;
    } else {
        return GROUPS_OTHER;
    }
    Py_ssize_t before = PyList_GET_SIZE(list);
    int done = GROUPS_DONE;
    while (count-- && done == GROUPS_DONE) {
        PyObject *value = groups_get(&from, 0);
        if (!value)
            done = PyErr_Occurred() ? GROUPS_ERROR : GROUPS_OTHER;
        else if (PyList_Append(list, value) < 0)
            done = GROUPS_ERROR;
        Py_XDECREF(value);
    }
    if (done == GROUPS_DONE && from.at != from.end)
        done = GROUPS_OTHER;
    if (done == GROUPS_OTHER && PyList_SetSlice(list, before, PY_SSIZE_T_MAX, NULL) < 0)
        done = GROUPS_ERROR;
    return done;
}

#endif
