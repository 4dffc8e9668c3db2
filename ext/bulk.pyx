"""Frames of requests that came in bulk: told apart, put into an entry, found in one, answered.

What frames and entries look like is in `engine.kv.commands`, and the messages around them in
`engine.kv.requests`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from packed cimport big, little, put_array, put_bytes, put_little

cdef enum:
    VERSION = 1
    HEAD = 16      # of an entry
    ROW = 8        # of its table, for a frame
    WRITE = 0
    READ = 1
    BIN_HEAD = 5   # bytes before a byte string, at most

cdef uint64_t TIME_MAX = <uint64_t> 1 << 62


# --- requests ------------------------------------------------------------------------------------


def asks(batch, list writes not None, list reads not None, Py_ssize_t frame_max):
    cdef list rest = []
    cdef const uint8_t *at
    cdef Py_ssize_t size, head
    cdef bytes body
    cdef int wide
    for pair in batch:
        link, body = pair
        at, size = <const uint8_t *> PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body)
        # [WRITE or READ, a byte string] as everybody packs it, and nothing behind
        if size >= 4 and at[0] == 0x92 and at[1] <= READ and 0xC4 <= at[2] <= 0xC6:
            wide = 1 << (at[2] - 0xC4)
            head = 3 + wide
            if size >= head and <uint64_t> (size - head) == big(at + 3, wide) \
                    and size - head <= frame_max:
                frame = PyBytes_FromStringAndSize(<const char *> at + head, size - head)
                (writes if at[1] == WRITE else reads).append((link, frame))
                continue
        rest.append(pair)
    return rest


# --- entries -------------------------------------------------------------------------------------


def packed(
    unsigned int group, uint64_t time, list batch not None, Py_ssize_t first, Py_ssize_t bytes_max
):
    cdef Py_ssize_t upto = first, size = 0, many = len(batch), n
    cdef bytes entry, frame
    cdef uint8_t *row
    cdef uint8_t *out
    while upto < many:
        frame = batch[upto][1]
        if upto > first and size + PyBytes_GET_SIZE(frame) > bytes_max:
            break
        size += PyBytes_GET_SIZE(frame)
        upto += 1
    many = upto - first
    entry = PyBytes_FromStringAndSize(NULL, HEAD + ROW * many + size)
    out = <uint8_t *> PyBytes_AS_STRING(entry)
    out = put_little(out, VERSION, 2)
    out = put_little(out, group, 2)
    out = put_little(out, many, 4)
    row = put_little(out, time, 8)
    out = row + ROW * many
    for n in range(first, upto):
        frame = batch[n][1]
        size = PyBytes_GET_SIZE(frame)
        row = put_little(row, 0, 4)  # its principal
        row = put_little(row, size, 4)
        memcpy(out, PyBytes_AS_STRING(frame), size)
        out += size
    return entry, upto


def unpacked(bytes entry not None):
    cdef const uint8_t *at = <const uint8_t *> PyBytes_AS_STRING(entry)
    cdef const uint8_t *row
    cdef Py_ssize_t size = PyBytes_GET_SIZE(entry)
    cdef uint64_t many, n, total = 0, length, time
    cdef list frames = []
    if size < HEAD or at[0] != VERSION or at[1]:
        return None
    many, time = little(at + 4, 4), little(at + 8, 8)
    if time > TIME_MAX or HEAD + ROW * many > <uint64_t> size:
        return None
    row = at + HEAD
    for n in range(many):
        total += little(row + ROW * n + 4, 4)
    if HEAD + ROW * many + total != <uint64_t> size:
        return None
    at += HEAD + ROW * many
    for n in range(many):
        length = little(row + ROW * n + 4, 4)
        frames.append(PyBytes_FromStringAndSize(<const char *> at, <Py_ssize_t> length))
        at += length
    return <uint32_t> little(row - HEAD + 2, 2), time, frames


# --- answers -------------------------------------------------------------------------------------


cdef bytes _message(bytes before, list frames):
    """`before`, and the frames as an array of byte strings."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(before) + BIN_HEAD, many = len(frames), length
    cdef bytes frame, message
    cdef uint8_t *out
    for frame in frames:
        size += BIN_HEAD + PyBytes_GET_SIZE(frame)
    message = PyBytes_FromStringAndSize(NULL, size)
    out = <uint8_t *> PyBytes_AS_STRING(message)
    length = PyBytes_GET_SIZE(before)
    memcpy(out, PyBytes_AS_STRING(before), length)
    out += length
    out = put_array(out, many)
    for frame in frames:
        out = put_bytes(out, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
    return message[: out - <uint8_t *> PyBytes_AS_STRING(message)]


cdef Py_ssize_t _requests(bytes answers):
    """How many requests a frame answers: the head of its array says so."""
    cdef const uint8_t *at = <const uint8_t *> PyBytes_AS_STRING(answers)
    if 0x90 <= at[0] < 0xA0:
        return (at[0] & 15) - 1
    if at[0] == 0xDC and PyBytes_GET_SIZE(answers) >= 3:
        return <Py_ssize_t> big(at + 1, 2) - 1
    return 0


def told(bytes before not None, list part not None, list answers not None, Py_ssize_t bytes_max):
    cdef dict of = {}
    cdef list messages = []
    cdef Py_ssize_t n, size = 0, requests = 0, malformed = 0
    cdef bytes answer
    if len(part) != len(answers):
        raise ValueError(f"{len(answers)} answers to {len(part)} frames")
    for n in range(len(part)):
        answer = answers[n]
        if PyBytes_GET_SIZE(answer) == 0:
            malformed += 1
            continue
        size += PyBytes_GET_SIZE(answer)
        requests += _requests(answer)
        link = part[n][0]
        if link in of:
            (<list> of[link]).append(answer)
        else:
            of[link] = [answer]
    if size <= bytes_max:
        for link, frames in of.items():
            messages.append((link, _message(before, frames)))
    else:  # limits keep each one short enough
        for link, frames in of.items():
            messages += [(link, _message(before, [answer])) for answer in <list> frames]
    return messages, requests, malformed
