"""RESP by the kernel, against a slow reader of whole streams, and against a dict."""

from __future__ import annotations

import random
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dose

from engine.kernels.resp import Intake, ProtocolError, Stream, number_of
from engine.kv.commands import configure, pack_entry, pack_frame, request
from engine.kv.machine import Machine
from engine.kv.requests import READ, WRITE
from engine.redis.replies import explain

BULK_MAX = 300
LINE_MAX, ARGS_MAX = 1 << 16, 1 << 16


# --- what commands are there, by somebody who sees all of the stream ------------------------------


def oracle(data: bytes) -> tuple[list[Any], str]:
    """(commands and lines, why it ends), "" if it is only not complete."""
    found: list[Any] = []
    while data:
        if not data.startswith(b"*"):
            line, end, rest = data.partition(b"\n")
            if not end:
                return found, "too big inline request" if len(data) > LINE_MAX else ""
            found.append(line.removesuffix(b"\r"))
            data = rest
            continue
        many, rest, why = header(data, "mbulk")
        if many is None:
            return found, why
        if why or not -(10**18) < many <= ARGS_MAX:
            return found, "invalid multibulk length"
        args: list[bytes] = []
        while len(args) < many:
            size, after, why = header(rest, "bulk")
            if size is None:
                return found, why
            if rest[:1] != b"$":
                return found, f"expected '$', got '{chr(rest[0])}'"
            if why or not 0 <= size <= BULK_MAX:
                return found, "invalid bulk length"
            if len(after) < size + 2:
                return found, ""
            args.append(after[:size])
            rest = after[size + 2 :]
        if args:
            found.append(args)
        data = rest
    return found, ""


def header(data: bytes, what: str) -> tuple[int | None, bytes, str]:
    """(number, what follows, whether it is none); None for the number: it is not here yet."""
    line, end, rest = data[1:].partition(b"\r")
    if not end or not rest:
        long = not end or not rest
        too_long = len(data) - 1 > LINE_MAX
        return None, b"", f"too big {what} count string" if long and too_long else ""
    text = line.decode("latin-1")
    digits = text.removeprefix("-")
    canonical = digits.isascii() and digits.isdecimal() and str(int(digits)) == digits
    if not canonical or text == "-0" or len(digits) > 18:
        return 0, rest[1:], "no number"
    return int(text), rest[1:], ""


def intake(most: int = 1000, size: int = 1 << 19) -> Intake:
    chance = random.Random(1)
    return Intake(explain, chance.randbytes, most, size, 600.0)


def read(pieces: list[bytes]) -> tuple[list[Any], str]:
    """By the kernel, in pieces."""
    stream, into = Stream(None, BULK_MAX), intake()
    stream.slow = True
    found: list[Any] = []
    for piece in pieces:
        stream.feed(piece)
        try:
            while (said := stream.next(into)) is not None:
                found.append(said)
        except ProtocolError as error:
            return found, str(error)
    return found, ""


arguments = st.binary(max_size=12) | st.just(b"x" * BULK_MAX)
commands_of = st.lists(arguments, max_size=5).map(
    lambda args: b"*%d\r\n" % len(args) + b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in args])
)
lines_of = st.binary(max_size=20).map(lambda line: line.replace(b"*", b"") + b"\r\n")
streams = st.lists(commands_of | lines_of, max_size=6).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A stream with some bytes that are others, are more, or are not there."""
    data = bytearray(draw(streams))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        with_what = draw(st.sampled_from([b"", *map(bytes, zip(b"\r\n*$-09\0"))]))
        data[at : at + draw(st.integers(0, 2))] = with_what
    return bytes(data)


@settings(max_examples=dose(150, 5000), deadline=None)
@given(damaged())
def test_commands_are_the_same_wherever_a_stream_is_split(data: bytes) -> None:
    expected = oracle(data)
    assert read([data]) == expected
    assert read([data[at : at + 1] for at in range(len(data))]) == expected
    for at in range(1, len(data)):
        assert read([data[:at], data[at:]]) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"*1\r\n$4\r\nPING\r\n",
        b"*0\r\n*-1\r\nPING\r\n",
        b"*65537\r\n",
        b"*99999999999999999999\r\n",
        b"*01\r\n",
        b"*-0\r\n",
        b"*1\r\n+OK\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$301\r\n",
        b"*" + b"1" * (LINE_MAX + 2),
        b"*1\r\n$" + b"1" * (LINE_MAX + 2),
        b"x" * (LINE_MAX + 1),
        b"\n\n\r\nget a\nget b\r\n",
    ],
    ids=repr,
)
def test_edges(data: bytes) -> None:
    pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]
    assert read(pieces) == oracle(data)


def test_memory_is_only_taken_for_what_has_come() -> None:
    stream = Stream(None, 1 << 40)
    stream.feed(b"*65536\r\n$1099511627776\r\n")
    assert stream.next(intake()) is None
    assert stream.held < 100_000
    stream = Stream(None, 1 << 20)
    stream.feed(b"*1\r\n$1000000\r\n" + b"x" * 1_000_000 + b"\r\n")
    assert stream.next(intake()) == [b"x" * 1_000_000]
    assert stream.held < 100_000


# --- frames --------------------------------------------------------------------------------------


def said(*args: bytes) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in args])


def test_the_frames_that_plain_commands_make() -> None:
    stream, into = Stream("me", 1 << 20), intake()
    into.birth = 7
    for name in (b"set", b"SetNX", b"append"):
        stream.feed(said(name, b"k", b"v" * 300))
    stream.feed(said(b"del", b"k") + said(b"UNLINK", b"") + said(b"get", b"k"))
    assert stream.next(into) is None
    assert (stream.waits, into.pending(WRITE), into.pending(READ)) == (5, 5, 0)
    (batch,) = into.take(WRITE)
    number, *requests = msgpack.unpackb(batch.frame(), use_list=False)
    assert number == batch.number == number_of(batch.frame())
    long = b"v" * 300
    assert [one[2:] for one in requests] == [
        (2, b"k", long, 0), (7, b"k", 0, long, 0), (3, b"k", long), (4, b"k"), (4, b""),
    ]  # fmt: skip
    sessions = [one[0] for one in requests]
    assert len(set(sessions)) == 5
    assert all(name[:8] == (7).to_bytes(8, "big") and len(name) == 16 for name in sessions)
    assert batch.frame() == batch.frame()
    over, calls, left = batch.answer(
        pack_frame(number, (0, 1, 1), (1, 1, 1, 1), (0, 2, 2, 600), (0, 3, 1), (0, 3, 0))
    )
    assert (over, calls, left) == (["me"], [], [])
    assert stream.output(100) == b"+OK\r\n:0\r\n:600\r\n:1\r\n:0\r\n"
    assert stream.next(into) is None
    (batch,) = into.take(READ)
    assert msgpack.unpackb(batch.frame(), use_list=False)[1:] == ((32, b"k"),)
    stream.feed(said(b"set", b"k", b"w"))
    assert stream.next(into) is None
    assert into.pending(WRITE) == 0, "a write goes before the read in front of it"


def test_sessions_are_used_again_with_greater_numbers_and_not_for_ever() -> None:
    stream, into = Stream(None, 1 << 20), intake()

    def session() -> tuple[bytes, int]:
        stream.feed(said(b"set", b"k", b"v"))
        stream.next(into)
        (batch,) = into.take(WRITE)
        number, (name, sequence, *_) = msgpack.unpackb(batch.frame(), use_list=False)
        batch.answer(pack_frame(number, (0, 1, 1)))
        return name, sequence

    name, first = session()
    assert session() == (name, first + 1)
    into.now += 601.0
    other = session()
    assert other[0] != name


@pytest.mark.parametrize("answer", [b"", b"\x90", b"\x92\x01\x93\x00\x01\xc1", b"\x92\x01\x91\x00"])
def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    stream, into = Stream(None, 1 << 20), intake()
    stream.feed(said(b"set", b"k", b"v") * 2)
    stream.next(into)
    (batch,) = into.take(WRITE)
    with pytest.raises(ValueError, match="no answers"):
        batch.answer(answer)
    assert stream.unsent == 0


def test_failed_frames_are_told_to_everybody_who_waits() -> None:
    one, two, into = Stream("one", 99), Stream("two", 99), intake()
    for stream in (one, two):
        stream.feed(said(b"get", b"k") * 2)
        stream.next(into)
    into.call(READ, "call", [msgpack.packb((32, b"k"))])
    (batch,) = into.take(READ)
    over, calls, _ = batch.fail(b"-NO\r\n")
    assert (over, calls) == (["one", "two"], [("call", None)])
    assert one.output(99) == two.output(99) == b"-NO\r\n-NO\r\n"


# --- with the store ------------------------------------------------------------------------------


class Told:
    """Some connections, a store, and what a dict says that each is to be told."""

    def __init__(self, rng: random.Random, most: int, value_max: int) -> None:
        self.rng, self.value_max = rng, value_max
        self.machine = Machine()
        self.intake = intake(most, 4000)
        self.streams = [Stream(n, 1 << 20) for n in range(4)]
        for stream in self.streams[:2]:
            stream.resp3 = True
        self.dicts: list[dict[bytes, bytes]] = [{} for _ in self.streams]
        self.expected = [b""] * len(self.streams)
        self.got = [b""] * len(self.streams)
        self.batches: list[Any] = []

    def ask(self, n: int) -> None:
        """Keys are a connection's own, so its replies do not depend on others."""
        key = b"%d:%d" % (n, self.rng.randrange(3))
        value = self.rng.randbytes(self.rng.randrange(self.value_max))
        mine = self.dicts[n]
        old = mine.get(key)
        name = self.rng.choice([b"GET", b"SET", b"DEL", b"EXISTS", b"STRLEN", b"SETNX", b"APPEND"])
        args = [name, key, value] if name in (b"SET", b"SETNX", b"APPEND") else [name, key]
        nil = b"_\r\n" if self.streams[n].resp3 else b"$-1\r\n"
        bulk = nil if old is None else b"$%d\r\n%b\r\n" % (len(old), old)
        reply = {
            b"GET": bulk,
            b"SET": b"+OK\r\n",
            b"DEL": b":%d\r\n" % (old is not None),
            b"EXISTS": b":%d\r\n" % (old is not None),
            b"STRLEN": b":%d\r\n" % len(old or b""),
            b"SETNX": b":%d\r\n" % (old is None),
            b"APPEND": b":%d\r\n" % len((old or b"") + value),
        }[name]
        if name == b"SET" or (name == b"SETNX" and old is None):
            mine[key] = value
        elif name == b"APPEND":
            mine[key] = (old or b"") + value
        elif name == b"DEL":
            mine.pop(key, None)
        self.expected[n] += reply
        self.streams[n].feed(said(*args))
        self.streams[n].next(self.intake)

    def answer(self) -> None:
        """One of the frames that are under way, whichever; writes may be repeated."""
        for how in (WRITE, READ):
            if self.rng.random() < 0.5:
                self.batches += [one for one in self.intake.take(how) if len(one)]
        if not self.batches:
            return
        batch = self.batches.pop(self.rng.randrange(len(self.batches)))
        frame = batch.frame()
        if batch.how == WRITE:
            entry = pack_entry(1, 0, [(0, frame)] * self.rng.choice((1, 1, 2)))
            (answer, *again) = self.machine.apply(entry)
            assert all(one == answer for one in again)
        else:
            answer = self.machine.read(frame)
        over, _, left = batch.answer(answer)
        self.batches += [one for _, one in left]
        for n in over:
            self.streams[n].next(self.intake)
        for n, stream in enumerate(self.streams):
            out = stream.output(1 << 20)
            stream.sent(len(out))
            self.got[n] += out


@pytest.mark.parametrize("seed", range(dose(12, 400)))
def test_replies_are_those_of_a_dict_in_the_order_of_commands(seed: int) -> None:
    rng = random.Random(seed)
    told = Told(rng, rng.choice((1, 2, 7, 1000)), rng.choice((1, 30, 2000)))
    for _ in range(rng.choice((30, 300))):
        for _ in range(rng.choice((0, 1, 6))):
            told.ask(rng.randrange(4))
        told.answer()
    for _ in range(5000):
        told.answer()
    assert told.got == told.expected
    assert not any(stream.waits for stream in told.streams)


def test_what_has_no_room_in_an_answer_is_asked_again_in_order() -> None:
    machine, into = Machine(), intake()
    machine.apply(pack_entry(1, 0, [(0, pack_frame(1, request(b"", 1, configure([None] * 10))))]))
    values = [bytes([65 + n]) * (400_000 if n % 3 else 10) for n in range(9)]
    writes = [request(b"", 1, (2, b"k%d" % n, value, 0)) for n, value in enumerate(values)]
    for write in writes:
        machine.apply(pack_entry(1, 0, [(0, pack_frame(1, write))]))
    stream = Stream("me", 99)
    stream.feed(b"".join([said(b"GET", b"k%d" % n) for n in range(9)]))
    stream.next(into)
    other = Stream("other", 99)
    other.feed(said(b"GET", b"k0") + said(b"GET", b"nope"))
    other.next(into)
    (batch,) = into.take(READ)
    over, _, left = batch.answer(machine.read(batch.frame()))
    assert (over, [owner for owner, _ in left]) == (["other"], ["me"])
    for _ in range(10):
        over, _, left = left[0][1].answer(machine.read(left[0][1].frame()))
        if not left:
            break
        assert not over, "more than one round, in which each tells something"
    assert over == ["me"]
    expected = b"".join([b"$%d\r\n%b\r\n" % (len(value), value) for value in values])
    assert stream.output(1 << 24) == expected


# --- whoever may not do everything ---------------------------------------------------------------


@settings(max_examples=dose(60, 1000), deadline=None)
@given(st.integers(1, 14), st.sampled_from([0, 1, 16383, 16384, 16385, 20_000]), st.data())
def test_guests_say_little_and_nothing_of_it_is_plain(
    many: int, size: int, data: st.DataObject
) -> None:
    """Wherever it is split; whether it is too long is known from its lengths alone."""
    command = [data.draw(st.sampled_from([b"get", b"SET", b"auth"])), *[b"x" * size] * (many - 1)]
    said = b"*%d\r\n" % many + b"".join([b"$%d\r\n%b\r\n" % (len(one), one) for one in command])
    why = "bulk" if size > 16384 and many > 1 else ""
    why = "multibulk" if many > 10 else why
    cut = data.draw(st.integers(0, len(said)))
    stream, into = Stream(None, 1 << 20), intake()
    stream.restrict(guest=True, reads_only=False)
    found: list[object] = []
    try:
        for piece in (said[:cut], said[cut:]):
            stream.feed(piece)
            found += [one for one in [stream.next(into)] if one is not None]
    except ProtocolError as error:
        assert str(error) == f"unauthenticated {why} length"  # noqa: PT017
        assert why
    else:
        assert (why, found) == ("", [command])
    assert into.pending(READ) == into.pending(WRITE) == 0


@settings(max_examples=dose(60, 1000), deadline=None)
@given(st.sampled_from(["guest", "reads_only", "slow", ""]), st.data())
def test_what_is_plain_is_so_for_those_who_may(how: str, data: st.DataObject) -> None:
    commands = {
        b"get": 1, b"exists": 1, b"strlen": 1, b"ping": 1,
        b"set": 2, b"setnx": 2, b"append": 2, b"del": 1, b"unlink": 1,
    }  # fmt: skip
    name = data.draw(st.sampled_from(sorted(commands)))
    cased = data.draw(st.sampled_from([name, name.upper(), name.title()]))
    said = [cased, *[b"k"] * commands[name]]
    stream, into = Stream(None, 1000), intake()
    stream.slow = how == "slow"
    stream.restrict(guest=how == "guest", reads_only=how == "reads_only")
    stream.feed(b"*%d\r\n" % len(said) + b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in said]))
    taken = stream.next(into)
    reads = name in (b"get", b"exists", b"strlen")
    plain = name != b"ping" and (not how or (how == "reads_only" and reads))
    assert (taken is None) == plain
    assert taken in (None, said)
    assert (into.pending(READ), into.pending(WRITE)) == (plain and reads, plain and not reads)
