"""Frames between a pyzmq socket and Python, by the functions of the libzmq that pyzmq loaded."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uintptr_t
from libc.string cimport memcmp, memcpy

cdef extern from *:
    """
    #include <dlfcn.h>
    #include <errno.h>
    #include <stddef.h>

    enum { FRAMES_DONTWAIT = 1, FRAMES_SNDMORE = 2 };

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
        int (*error)(void);
        const char *(*why)(int);
    } frames_zmq;

    /* `path` is a library that is loaded already: what it depends on is searched as well. */
    static const char *frames_find(const char *path)
    {
        void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
        if (!library) return "it is not loaded";
        #define FRAMES_FIND(field, name) \\
            if (!(*(void **)&frames_zmq.field = dlsym(library, name))) return "it has no " name;
        FRAMES_FIND(init, "zmq_msg_init")
        FRAMES_FIND(init_size, "zmq_msg_init_size")
        FRAMES_FIND(receive, "zmq_msg_recv")
        FRAMES_FIND(send, "zmq_msg_send")
        FRAMES_FIND(close, "zmq_msg_close")
        FRAMES_FIND(data, "zmq_msg_data")
        FRAMES_FIND(size, "zmq_msg_size")
        FRAMES_FIND(more, "zmq_msg_more")
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
    """
    ctypedef struct frames_message:
        pass
    const char *frames_find(const char *path)
    int frames_init(frames_message *m)
    int frames_make(frames_message *m, size_t size)
    uint8_t *frames_data(frames_message *m)
    size_t frames_size(frames_message *m)
    int frames_more(frames_message *m)
    void frames_close(frames_message *m)
    const char *frames_why(int error)
    int frames_receive(frames_message *m, void *socket)
    int frames_send(frames_message *m, void *socket, int more)
    int EAGAIN

cdef extern from "Python.h":
    PyObject *PyDict_GetItem(object table, object key)  # borrowed

cdef enum:
    PREFIX = 24
    HEADER = 28


cdef bint _found = False


cdef int _find() except -1:
    global _found
    if not _found:
        import zmq.backend.cython._zmq as backend
        why = frames_find(backend.__file__.encode())
        if why != NULL:
            raise ImportError(f"{backend.__file__}: {why.decode()}: another build of pyzmq?")
        _found = True
    return 0


cdef bytes _bytes(frames_message *m):
    return PyBytes_FromStringAndSize(<char *> frames_data(m), frames_size(m))


cdef class Frames:
    cdef void *_its
    cdef object _socket  # it must live as long
    cdef bint _routed
    cdef public long malformed

    def __init__(self, socket, *, bint routed):
        _find()
        self._socket = socket
        self._its = <void *> <uintptr_t> socket.underlying
        self._routed = routed

    cdef int _open(self) except -1:
        if self._socket is None or self._socket.closed:
            raise ValueError("the socket is closed")
        return 0

    cdef int _rest(self) except -1:
        """Drop the other parts of a message that has too many."""
        cdef frames_message part
        cdef bint more = True
        self.malformed += 1
        while more:
            frames_init(&part)
            if frames_receive(&part, self._its):
                frames_close(&part)
                return 0
            more = frames_more(&part)
            frames_close(&part)
        return 0

    def receive(self, long frames, long size, dict proven=None):
        cdef list requests = [], others = []
        cdef frames_message part
        cdef int error
        cdef bytes route = b"", prefix, body
        cdef const uint8_t *at
        cdef size_t length
        cdef PyObject *known
        self._open()
        while frames > 0 and size > 0:
            frames_init(&part)
            error = frames_receive(&part, self._its)
            if error:
                frames_close(&part)
                if error == EAGAIN:
                    break
                raise OSError(error, frames_why(error).decode())
            if self._routed:
                route = _bytes(&part)
                if not frames_more(&part):  # a message without a frame
                    self.malformed += 1
                    frames_close(&part)
                    frames -= 1
                    continue
                frames_close(&part)
                frames_init(&part)
                error = frames_receive(&part, self._its)
                if error:  # parts of one message arrive together
                    frames_close(&part)
                    raise OSError(error, frames_why(error).decode())
            length = frames_size(&part)
            frames -= 1
            size -= <long> length
            if frames_more(&part):
                frames_close(&part)
                self._rest()
                continue
            if proven is not None and length >= HEADER:
                at = frames_data(&part)
                prefix = PyBytes_FromStringAndSize(<char *> at, PREFIX)
                known = PyDict_GetItem(proven, prefix)
                if known and length - HEADER == (
                    at[24] | <size_t> at[25] << 8 | <size_t> at[26] << 16 | <size_t> at[27] << 24
                ):
                    who = <object> known
                    if _same(<bytes> who[0], route):
                        body = PyBytes_FromStringAndSize(<char *> at + HEADER, length - HEADER)
                        frames_close(&part)
                        requests.append((who[1], body))
                        continue
            body = _bytes(&part)
            frames_close(&part)
            others.append((route, body) if self._routed else body)
        return requests, others

    def send(self, bytes route, bytes head not None, bytes body not None):
        cdef frames_message part
        cdef Py_ssize_t first = PyBytes_GET_SIZE(head), second = PyBytes_GET_SIZE(body)
        cdef int error
        self._open()
        if self._routed:
            if frames_make(&part, PyBytes_GET_SIZE(route)):
                raise MemoryError
            memcpy(frames_data(&part), PyBytes_AS_STRING(route), PyBytes_GET_SIZE(route))
            error = frames_send(&part, self._its, 1)
            if error:
                frames_close(&part)
                return error
        if frames_make(&part, first + second):
            raise MemoryError
        memcpy(frames_data(&part), PyBytes_AS_STRING(head), first)
        memcpy(frames_data(&part) + first, PyBytes_AS_STRING(body), second)
        error = frames_send(&part, self._its, 0)
        if error:
            frames_close(&part)
        return error


cdef bint _same(bytes one, bytes other):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(one)
    return (
        size == PyBytes_GET_SIZE(other)
        and memcmp(PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), size) == 0
    )
