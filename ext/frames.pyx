"""Frames between a pyzmq socket and Python, by the functions of the libzmq that pyzmq loaded."""

from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uintptr_t
from libc.string cimport memcmp, memcpy

cdef extern from "frames.h":
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
    const char *frames_of(frames_message *m, const char *what)
    int frames_receive(frames_message *m, void *socket)
    int frames_send(frames_message *m, void *socket, int more)
    int frames_fd(void *socket)
    int frames_events(void *socket)
    int frames_poll(pollfd *of, int many, int milliseconds) nogil
    int frames_spin(pollfd *of, int many, long long until, int *crowded) nogil
    long long frames_now()
    struct pollfd:
        int fd
        short events
        short revents
    short POLLIN
    int EAGAIN, EINTR

cdef extern from "Python.h":
    PyObject *PyDict_GetItem(object table, object key)  # borrowed

cdef enum:
    PREFIX = 24
    HEADER = 28
    MILLISECOND = 1_000_000
    SOON = MILLISECOND              # whoever waited less the last time does not wait long
    PAUSE_MOST = 3200 * MILLISECOND
    PAUSE_LEAST = 100 * MILLISECOND


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
    cdef readonly object socket  # it must live as long
    cdef bint _routed, _named
    cdef bint _touched  # since a poller looked: its descriptor may have been read meanwhile
    cdef public bint quiet
    cdef public long malformed

    def __init__(self, socket, *, bint routed, bint named=False):
        _find()
        self.socket = socket
        self._its = <void *> <uintptr_t> socket.underlying
        self._routed = routed
        self._named = named
        self._touched = True

    cdef int _open(self) except -1:
        if self.socket is None or self.socket.closed:
            raise ValueError("the socket is closed")
        return 0

    cdef int _touch(self) except -1:
        self._open()
        self._touched = True
        self.quiet = False
        return 0

    cdef bint _readable(self) except -1:
        """Which clears its descriptor."""
        cdef int events
        self._open()
        events = frames_events(self._its)
        if events < 0:
            raise OSError(-events, frames_why(-events).decode())
        self._touched = events & 1
        self.quiet = not self._touched
        return self._touched

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
        self._touch()
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
            if self._named:
                user, way = frames_of(&part, b"User-Id"), frames_of(&part, b"__fd")
                others.append((route, body, user, way))
                frames_close(&part)
                continue
            frames_close(&part)
            others.append((route, body) if self._routed else body)
        return requests, others

    def send(self, bytes route, bytes head not None, bytes body not None):
        cdef frames_message part
        cdef Py_ssize_t first = PyBytes_GET_SIZE(head), second = PyBytes_GET_SIZE(body)
        cdef int error
        self._touch()
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

    def answer(self, int kind, unsigned long long cluster, dict ways not None, list told not None):
        cdef list lost = []
        cdef frames_message part
        cdef PyObject *found
        cdef bytes route, body
        cdef unsigned long long number
        cdef Py_ssize_t size
        cdef uint8_t *out
        cdef int error
        self._touch()
        for link, body in told:
            found = PyDict_GetItem(ways, link)
            if not found:
                lost.append((0, 0))
                continue
            route, number = <object> found
            size = PyBytes_GET_SIZE(body)
            if frames_make(&part, PyBytes_GET_SIZE(route)):
                raise MemoryError
            memcpy(frames_data(&part), PyBytes_AS_STRING(route), PyBytes_GET_SIZE(route))
            error = frames_send(&part, self._its, 1)
            if not error:
                if frames_make(&part, HEADER + size):
                    raise MemoryError
                out = frames_data(&part)
                _head(out, kind, cluster, number, size)
                memcpy(out + HEADER, PyBytes_AS_STRING(body), size)
                error = frames_send(&part, self._its, 0)
            if error:
                frames_close(&part)
                lost.append((number, error))
        return lost


cdef void _head(
    uint8_t *at, int kind, unsigned long long cluster, unsigned long long number, Py_ssize_t size
) noexcept:
    """Of an envelope."""
    cdef int n
    memcpy(at, b"ENGW", 4)
    at[4], at[5], at[6], at[7] = 1, <uint8_t> kind, 0, 0
    for n in range(8):
        at[8 + n] = <uint8_t> (cluster >> (8 * n))
        at[16 + n] = <uint8_t> (number >> (8 * n))
    for n in range(4):
        at[24 + n] = <uint8_t> (size >> (8 * n))


cdef bint _same(bytes one, bytes other):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(one)
    return (
        size == PyBytes_GET_SIZE(other)
        and memcmp(PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), size) == 0
    )


cdef class Poller:
    cdef list _sources
    cdef pollfd *_fds
    cdef long long _spin
    cdef bint _busy
    cdef long long _alone, _pause   # from when on it may spin, and how long not, if it is crowded
    cdef readonly long spins
    cdef public bint may_spin

    def __init__(self, long long spin=0):
        self._sources = []
        self._spin = spin * 1000
        self._pause = PAUSE_LEAST
        self.may_spin = True

    def __dealloc__(self):
        PyMem_Free(self._fds)

    def __len__(self):
        return len(self._sources)

    def add(self, source):
        cdef Py_ssize_t many = len(self._sources)
        cdef int fd
        cdef pollfd *fds
        if isinstance(source, Frames):
            (<Frames> source)._open()
            fd = frames_fd((<Frames> source)._its)
            if fd < 0:
                raise OSError(-fd, frames_why(-fd).decode())
        else:
            fd = source
        fds = <pollfd *> PyMem_Realloc(self._fds, (many + 1) * sizeof(pollfd))
        if not fds:
            raise MemoryError
        self._fds = fds
        fds[many].fd, fds[many].events, fds[many].revents = fd, POLLIN, 0
        self._sources.append(source)

    def remove(self, source):
        cdef Py_ssize_t at = self._sources.index(source), last = len(self._sources) - 1
        self._fds[at] = self._fds[last]
        self._sources[at] = self._sources[last]
        self._sources.pop()

    def descriptors(self):
        return [self._fds[at].fd for at in range(len(self._sources))]

    def poll(self, long milliseconds, without=()):
        cdef list ready = []
        cdef long long since = frames_now(), until = since + milliseconds * MILLISECOND
        cdef bint spin
        self._leave_out(without)
        try:
            spin = self._busy and self.may_spin and since >= self._alone
            self._wait(ready, until, since + self._spin if spin else 0)
        finally:
            if without:
                self._take_in()
        if milliseconds:
            self._busy = self._spin and frames_now() - since < SOON
        return ready

    cdef int _wait(self, list ready, long long until, long long spin) except -1:
        cdef int many = <int> len(self._sources), found, crowded = 0
        cdef long long left
        while True:
            found = 0
            self._look_at_touched(ready)
            left = 0 if ready else max(0, until - frames_now())
            if left and spin:
                self.spins += 1
                with nogil:
                    found = frames_spin(self._fds, many, min(spin, until), &crowded)
                self._learn(crowded, found)
                spin = 0
                PyErr_CheckSignals()
            if found == 0:
                with nogil:
                    found = frames_poll(self._fds, many, <int> (-(-left // MILLISECOND)))
            if found == -EINTR:
                PyErr_CheckSignals()
                return 0
            if found < 0:
                raise OSError(-found, "poll")
            if found:
                self._look_at_readable(ready)
            if ready or not left:
                return 0

    cdef void _learn(self, bint crowded, int found) noexcept:
        """Each spin in a crowd costs a time slice, so there are fewer and fewer of them."""
        if crowded:
            self._alone = frames_now() + self._pause
            self._pause = min(2 * self._pause, PAUSE_MOST)
        elif found > 0:
            self._pause = max(self._pause - self._pause // 16, PAUSE_LEAST)

    cdef int _leave_out(self, without) except -1:
        """`poll` ignores what is negative."""
        cdef Py_ssize_t at
        for source in without:
            at = self._sources.index(source)
            self._fds[at].fd = -1 - self._fds[at].fd
        return 0

    cdef int _take_in(self) except -1:
        cdef Py_ssize_t at
        for at in range(len(self._sources)):
            if self._fds[at].fd < 0:
                self._fds[at].fd = -1 - self._fds[at].fd
        return 0

    cdef int _look_at_touched(self, list ready) except -1:
        cdef Py_ssize_t at
        cdef Frames frames
        for at in range(len(self._sources)):
            source = self._sources[at]
            if self._fds[at].fd >= 0 and isinstance(source, Frames):
                frames = <Frames> source
                if not frames._touched:
                    frames.quiet = True  # unless its descriptor is about to say otherwise
                elif frames._readable():
                    ready.append(source)
        return 0

    cdef int _look_at_readable(self, list ready) except -1:
        """A descriptor of ZeroMQ says that something has happened, which may not be a message."""
        cdef Py_ssize_t at
        for at in range(len(self._sources)):
            if self._fds[at].fd < 0 or not self._fds[at].revents:
                continue
            source = self._sources[at]
            if not isinstance(source, Frames):
                ready.append(source)
            elif not (<Frames> source)._touched and (<Frames> source)._readable():
                ready.append(source)
        return 0
