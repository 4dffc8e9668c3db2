"""RESP on one side and frames of the store on the other: plain commands are no Python objects."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from packed cimport (
    Buffer, array, binary, integer, put, put_big, put_binary, skip, skip_arrays, space, take,
)
from redis cimport (
    CALL, DEL, EXISTS, GET, NO_DOLLAR, NOT_PLAIN, SET, SETNX, STRLEN, Parser, consume, kind_of,
    read_command, say, say_bulk,
)

cdef enum:
    WRITE = 0
    READ = 1
    HEAD = 12                 # an array's header and a number, at most
    NAME = 16
    NO_SESSION = 0xFFFFFFFF

# As in `engine.kv.commands`.
cdef enum:
    OK = 0
    COMPARE_FAILED = 1
    NOT_FOUND = 2
    SESSION_EXPIRED = 4
    TOO_LARGE = 5


cdef tuple _WHY = (
    "", "too big inline request", "too big mbulk count string", "too big bulk count string",
    "invalid multibulk length", "invalid bulk length", "expected '$', got '%s'",
    "unauthenticated multibulk length", "unauthenticated bulk length",
)


class ProtocolError(Exception):
    """See `resp.pyi`."""


def number_of(bytes frame not None):
    cdef const uint8_t *at = <const uint8_t *> PyBytes_AS_STRING(frame)
    cdef const uint8_t *end = at + PyBytes_GET_SIZE(frame)
    cdef uint64_t many = 0, number = 0
    return number if integer(array(at, end, &many), end, &number) != NULL else None


# --- connections ---------------------------------------------------------------------------------


cdef class Stream:
    cdef Parser _in
    cdef Buffer _out
    cdef bint _cut
    cdef uint64_t _frame
    cdef readonly long waits
    cdef readonly object owner
    cdef public bint resp3, slow, closed

    def __cinit__(self, owner, size_t bulk_max):
        self.owner, self._in.bulk_max, self._in.left = owner, bulk_max, -1

    def __dealloc__(self):
        PyMem_Free(self._in.buffer.at)
        PyMem_Free(self._in.args)
        PyMem_Free(self._out.at)

    def restrict(self, bint guest, bint reads_only):
        self._in.guest, self._in.reads_only = guest, reads_only

    @property
    def unread(self):
        return self._in.buffer.end - self._in.buffer.begin

    @property
    def unsent(self):
        return self._out.end - self._out.begin

    @property
    def held(self):
        return self._in.buffer.room + self._out.room + self._in.args_room * 2 * sizeof(size_t)

    def feed(self, bytes data not None):
        put(&self._in.buffer, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def reply(self, bytes data not None):
        if not self.closed:
            put(&self._out, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def output(self, size_t most):
        return PyBytes_FromStringAndSize(
            <char *> self._out.at + self._out.begin, min(most, self._out.end - self._out.begin)
        )

    def sent(self, size_t size):
        take(&self._out, min(size, self._out.end - self._out.begin))

    def next(self, Intake intake not None):
        cdef Parser *its = &self._in
        cdef int kind
        while read_command(its):
            kind = NOT_PLAIN if self.slow or its.guest else kind_of(its)
            if kind == NOT_PLAIN:
                return None if self.waits else self._taken()
            if not intake._plain(self, kind):
                return None
            consume(its)
        if its.bad and not self.waits:
            raise ProtocolError(_WHY[its.bad] % chr(its.found) if its.bad == NO_DOLLAR
                                else _WHY[its.bad])
        return None

    cdef object _taken(self):
        cdef Parser *its = &self._in
        cdef char *base = <char *> its.buffer.at + its.buffer.begin
        cdef size_t n
        if its.line:
            taken = PyBytes_FromStringAndSize(base, its.args[1])
        else:
            taken = [
                PyBytes_FromStringAndSize(base + its.args[2 * n], its.args[2 * n + 1])
                for n in range(its.many)
            ]
        consume(its)
        return taken


# --- frames --------------------------------------------------------------------------------------


cdef struct Entry:
    PyObject *who
    size_t start              # of the request in the frame
    uint32_t session
    uint8_t kind


cdef struct Session:
    uint8_t name[NAME]
    uint64_t sequence
    double used


cdef class Batch:
    cdef readonly int how
    cdef readonly uint64_t number
    cdef Buffer _body
    cdef Entry *_entries
    cdef size_t _many, _room
    cdef Intake _intake

    def __cinit__(self, Intake intake, int how):
        intake._numbers += 1
        self._intake, self.how, self.number = intake, how, intake._numbers
        space(&self._body, HEAD)
        self._body.end = HEAD

    def __dealloc__(self):
        self._forget()
        PyMem_Free(self._entries)
        PyMem_Free(self._body.at)

    def __len__(self):
        return self._many

    cdef void _forget(self) noexcept:
        cdef size_t n
        for n in range(self._many):
            Py_DECREF(<object> self._entries[n].who)
        self._many = 0

    cdef int _enter(self, object who, int kind, uint32_t session) except -1:
        cdef size_t room = max(16, 2 * self._room)
        cdef Entry *entries
        if self._many == self._room:
            entries = <Entry *> PyMem_Realloc(self._entries, room * sizeof(Entry))
            if not entries:
                raise MemoryError
            self._entries, self._room = entries, room
        Py_INCREF(who)
        self._entries[self._many] = Entry(<PyObject *> who, self._body.end, session, kind)
        self._many += 1
        return 0

    cdef int _head(self, int extra) except -1:
        """Begin a request of so many parts besides its session."""
        cdef uint32_t slot = self._entries[self._many - 1].session
        cdef Session *session
        cdef uint8_t *at = space(&self._body, 32)
        if self.how == READ:
            at[0] = <uint8_t> (0x90 | extra)
            self._body.end += 1
            return 0
        session = self._intake._sessions + slot
        session.sequence += 1
        at[0], at[1], at[2] = <uint8_t> (0x90 | (extra + 2)), 0xC4, NAME
        memcpy(at + 3, session.name, NAME)
        at[3 + NAME] = 0xCF
        put_big(at + 4 + NAME, session.sequence, 8)
        self._body.end += 12 + NAME
        return 0

    def frame(self):
        cdef size_t many = self._many + 1
        cdef size_t size = 1 if many < 16 else 3
        cdef uint8_t *at = self._body.at + HEAD - 9 - size
        if many < 16:
            at[0] = <uint8_t> (0x90 | many)
        else:
            at[0] = 0xDC
            put_big(at + 1, many, 2)
        at[size] = 0xCF
        put_big(at + size + 1, self.number, 8)
        return PyBytes_FromStringAndSize(<char *> at, self._body.end - (HEAD - 9 - size))

    def answer(self, bytes frame not None):
        cdef const uint8_t *at = <const uint8_t *> PyBytes_AS_STRING(frame)
        cdef const uint8_t *end = at + PyBytes_GET_SIZE(frame)
        cdef const uint8_t *start
        cdef uint64_t many = 0, number = 0
        cdef list over = [], calls = []
        cdef dict left = {}
        cdef Entry *entry
        cdef size_t n
        at = integer(array(at, end, &many), end, &number)
        if at == NULL or many != self._many + 1 or skip_arrays(at, end, self._many) != end:
            raise ValueError("these are no answers to this frame")
        for n in range(self._many):
            start, at, entry = at, skip(at, end, 0), self._entries + n
            if self.how == WRITE:
                self._note_session(entry.session, start, at)
            if entry.kind == CALL:
                raw = PyBytes_FromStringAndSize(<char *> start, at - start)
                calls.append((<object> entry.who, raw))
            elif not _replied(<Stream> <object> entry.who, entry.kind, start, at, self._intake):
                self._again(n, left)
            else:
                _one_less(<Stream> <object> entry.who, over)
        for stream in left:
            (<Stream> stream)._cut = False
        self._end()
        return over, calls, [(stream.owner, batch) for stream, batch in left.items()]

    cdef void _note_session(self, uint32_t slot, const uint8_t *at, const uint8_t *end) noexcept:
        cdef uint64_t many = 0, code = OK
        integer(array(at, end, &many), end, &code)
        self._intake._sessions[slot].used = 0 if code == SESSION_EXPIRED else self._intake.now

    cdef int _again(self, size_t n, dict left) except -1:
        """Ask once more what had no room in the answer; those behind it of its connection too."""
        cdef Batch batch
        cdef Entry *entry = self._entries + n
        cdef size_t end = self._entries[n + 1].start if n + 1 < self._many else self._body.end
        cdef Stream stream = <Stream> <object> entry.who
        batch = <Batch> left.setdefault(stream, left.get(stream) or Batch(self._intake, self.how))
        stream._frame = batch.number
        batch._enter(stream, entry.kind, NO_SESSION)
        put(&batch._body, self._body.at + entry.start, end - entry.start)
        return 0

    def fail(self, bytes reply not None):
        cdef list over = [], calls = []
        cdef size_t n
        for n in range(self._many):
            who = <object> self._entries[n].who
            if self._entries[n].kind == CALL:
                calls.append((who, None))
            else:
                (<Stream> who).reply(reply)
                _one_less(<Stream> who, over)
        self._end()
        return over, calls, []

    cdef int _end(self) except -1:
        """Its sessions are free for others."""
        cdef size_t n
        if self.how == WRITE:
            for n in range(self._many):
                self._intake._release(self._entries[n].session)
        self._forget()
        return 0


cdef int _one_less(Stream stream, list over) except -1:
    stream.waits -= 1
    if not stream.waits:
        over.append(stream.owner)
    return 0


cdef bint _replied(
    Stream stream, int kind, const uint8_t *at, const uint8_t *end, Intake intake
) except -1:
    """Turn an answer into a reply; False if there is none, and it has to be asked again."""
    cdef const uint8_t *start = at
    cdef const uint8_t *value = NULL
    cdef uint64_t many = 0, code = 99, number = 0
    cdef size_t size = 0
    if stream._cut:
        return False
    at = integer(array(at, end, &many), end, &code)
    if code == TOO_LARGE and kind >= GET:
        stream._cut = True
        return False
    if stream.closed:
        return True
    if code == OK:
        at = skip(at, end, 0)  # the revision
        if kind == SET:
            put(&stream._out, b"+OK\r\n", 5)
            return True
        if kind == SETNX:
            put(&stream._out, b":1\r\n", 4)
            return True
        if kind in (GET, STRLEN):
            if binary(at, end, &value, &size) != NULL:
                if kind == GET:
                    say_bulk(&stream._out, value, size)
                else:
                    say(&stream._out, b":%lld\r\n", size)
                return True
        else:  # APPEND has a version, and EXISTS whether there is more, before what is asked for
            at = at if kind == DEL else skip(at, end, 0)
            if integer(at, end, &number) != NULL:
                say(&stream._out, b":%lld\r\n", number)
                return True
    elif code == NOT_FOUND and kind == GET:
        put(&stream._out, b"_\r\n" if stream.resp3 else b"$-1\r\n", 3 if stream.resp3 else 5)
        return True
    elif (code == NOT_FOUND and kind == STRLEN) or (code == COMPARE_FAILED and kind == SETNX):
        put(&stream._out, b":0\r\n", 4)
        return True
    stream.reply(intake._explain(PyBytes_FromStringAndSize(<char *> start, end - start)))
    return True


cdef class Intake:
    cdef uint64_t _numbers
    cdef object _explain, _chance
    cdef list _open
    cdef Session *_sessions
    cdef uint32_t *_free
    cdef size_t _known, _idle
    cdef size_t _most, _bytes
    cdef public double forget, now
    cdef public uint64_t birth

    def __cinit__(self, explain, chance, size_t most, size_t size, double forget):
        self._explain, self._chance = explain, chance
        self._most, self._bytes, self.forget = most, size, forget
        self._open = [[], []]

    def __dealloc__(self):
        PyMem_Free(self._sessions)
        PyMem_Free(self._free)

    def pending(self, int how):
        return sum([len(batch) for batch in self._open[how]])

    def take(self, int how):
        taken, self._open[how] = self._open[how], []
        return taken

    def call(self, int how, who, list commands not None):
        cdef Batch batch
        cdef bytes command
        cdef const uint8_t *at
        cdef size_t size = sum([len(one) for one in commands])
        if not 0 < <size_t> len(commands) <= self._most:
            raise ValueError(f"a call has 1 to {self._most} commands")
        batch = self._batch(how, len(commands), size)
        for command in commands:
            at = <const uint8_t *> PyBytes_AS_STRING(command)
            batch._enter(who, CALL, self._slot() if how == WRITE else NO_SESSION)
            batch._head(at[0] & 0x0F)
            put(&batch._body, at + 1, PyBytes_GET_SIZE(command) - 1)

    cdef Batch _batch(self, int how, size_t many, size_t size):
        """One with room for so much, if any has: an empty one takes everything."""
        cdef list batches = self._open[how]
        cdef Batch batch = <Batch> batches[-1] if batches else None
        if batch is None or batch._many + many > self._most or (
            batch._many and batch._body.end + size > self._bytes
        ):
            batch = Batch(self, how)
            batches.append(batch)
        return batch

    cdef bint _plain(self, Stream stream, int kind) except -1:
        """Ask for a command; False if what its connection waits for is elsewhere."""
        cdef size_t *args = stream._in.args
        cdef int how = READ if kind >= GET else WRITE
        cdef size_t size = args[3] + (args[5] if stream._in.many > 2 else 0)
        cdef Batch batch = self._batch(how, 1, size)
        cdef const uint8_t *base
        if stream.waits and stream._frame != batch.number:
            return False
        base = stream._in.buffer.at + stream._in.buffer.begin
        batch._enter(stream, kind, self._slot() if how == WRITE else NO_SESSION)
        stream._frame = batch.number
        stream.waits += 1
        batch._head(4 if kind == SET else 5 if kind in (SETNX, EXISTS) else stream._in.many)
        put(&batch._body, _OPS[kind], 1)
        put_binary(&batch._body, base + args[2], args[3])
        if kind == EXISTS:  # a range of one key, of which only the number counts
            put(&batch._body, b"\xc0\x00\x02", 3)
        elif kind == SETNX:
            put(&batch._body, b"\x00", 1)
        if how == WRITE and kind != DEL:
            put_binary(&batch._body, base + args[4], args[5])
        if kind in (SET, SETNX):
            put(&batch._body, b"\x00", 1)
        return True

    cdef uint32_t _slot(self) except? 0xFFFFFFFF:
        cdef Session *session
        cdef size_t room
        if self._idle:
            self._idle -= 1
            session = self._sessions + self._free[self._idle]
            if self.now - session.used > self.forget:
                self._name(session)
            return self._free[self._idle]
        if self._known & (self._known - 1) == 0:
            room = max(16, 2 * self._known)
            self._sessions = <Session *> PyMem_Realloc(self._sessions, room * sizeof(Session))
            self._free = <uint32_t *> PyMem_Realloc(self._free, room * sizeof(uint32_t))
            if not self._sessions or not self._free:
                raise MemoryError
        self._name(self._sessions + self._known)
        self._known += 1
        return <uint32_t> (self._known - 1)

    cdef int _name(self, Session *session) except -1:
        cdef bytes chance = self._chance(8)
        put_big(session.name, self.birth, 8)
        memcpy(session.name + 8, PyBytes_AS_STRING(chance), 8)
        session.sequence, session.used = 0, self.now
        return 0

    cdef void _release(self, uint32_t slot) noexcept:
        self._free[self._idle] = slot
        self._idle += 1


cdef const char *_OPS[8]
_OPS[:] = [b"\x02", b"\x04", b"\x07", b"\x03", b"\x20", b"\x21", b"\x20", b""]
