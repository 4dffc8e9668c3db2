"""The splitter finds in any chunking of a stream what a slow reader of the whole stream finds."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dose

from engine.faults.zmtp import COMMAND_MAX, MESSAGE_MAX, Command, Item, Message, Setup, Splitter

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x06\x05READY"
PING = b"\x04\x07\x04PING\0\x0a"


class Read(NamedTuple):
    """What an oracle or a splitter makes of a stream."""

    greeting: bytes
    items: list[Item]
    malformed: bool
    amid_message: bool


def frame(body: bytes, flags: int = 0, *, long: bool = False) -> bytes:
    if long or len(body) > 255:
        return bytes([flags | 2]) + len(body).to_bytes(8, "big") + body
    return bytes([flags, len(body)]) + body


def split(stream: bytes, cuts: list[int]) -> Read:
    splitter = Splitter()
    found: list[Item] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[begin:end])
    greeting = b""
    while found and isinstance(found[0], Setup) and len(greeting) < len(GREETING):
        greeting += found.pop(0).raw  # type: ignore[union-attr]
    return Read(greeting, found, bool(splitter.malformed), splitter.amid_message)


def oracle(stream: bytes) -> Read:
    """The grammar, read from the beginning, frame by frame."""
    for position, byte in enumerate(stream[:64]):
        free = 1 <= position <= 8 or position == 11 or position >= 32
        if not free and byte != GREETING[position]:
            return Read(stream[:position], [], True, False)
    rest = stream[64:]
    items: list[Item] = []
    message = b""
    ready = False
    while rest:
        flags, width = rest[0], 8 if rest[0] & 2 else 1
        command = bool(flags & 4)
        if flags > 7 or (command and (flags & 1 or message)) or not (command or ready):
            return Read(stream[:64], items, True, bool(message))
        if len(rest) < 1 + width:
            return Read(stream[:64], items, False, not command)
        size = int.from_bytes(rest[1 : 1 + width], "big")
        if len(message) + 1 + width + size > (COMMAND_MAX if command else MESSAGE_MAX):
            return Read(stream[:64], items, True, bool(message))
        if len(rest) < 1 + width + size:
            return Read(stream[:64], items, False, not command)
        raw, rest = rest[: 1 + width + size], rest[1 + width + size :]
        body = raw[1 + width :]
        if command:
            if not body or body[0] == 0 or len(body) <= body[0]:
                return Read(stream[:64], items, True, False)
            name = body[1 : 1 + body[0]]
            items.append(Command(raw, name) if ready else Setup(raw))
            ready = ready or name == b"READY"
        elif flags & 1:
            message += raw
        else:
            items.append(Message(message + raw, len(message) + 1 + width))
            message = b""
    return Read(stream[:64], items, False, bool(message))


bodies = st.binary(max_size=20) | st.just(b"x" * 300)
messages = st.lists(st.tuples(bodies, st.booleans()), min_size=1, max_size=3).map(
    lambda parts: b"".join(
        frame(body, int(i + 1 < len(parts)), long=long) for i, (body, long) in enumerate(parts)
    )
)
streams = st.lists(st.sampled_from([PING, READY]) | messages, max_size=6).map(
    lambda parts: GREETING + READY + b"".join(parts)
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A stream with one byte changed, or with its end cut off, or neither."""
    stream = bytearray(draw(streams))
    if draw(st.booleans()):
        stream[draw(st.integers(0, len(stream) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del stream[draw(st.integers(0, len(stream))) :]
    return bytes(stream)


@settings(max_examples=dose(300, 20_000), deadline=None)
@given(stream=damaged(), data=st.data())
def test_any_chunking_gives_what_the_oracle_finds(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    expected = oracle(stream)
    found = split(stream, cuts)
    if expected.malformed:  # what is left in it then is of no interest
        expected, found = (read._replace(amid_message=False) for read in (expected, found))
    assert found == expected


@settings(max_examples=dose(30, 1000), deadline=None)
@given(stream=damaged())
def test_byte_by_byte(stream: bytes) -> None:
    assert split(stream, list(range(1, len(stream))))[:3] == oracle(stream)[:3]


def test_whole_streams_come_back_as_they_were() -> None:
    stream = GREETING + READY + PING + frame(b"a", 1) + frame(b"bc") + frame(b"d" * 70_000)
    read = split(stream, [5, 11, 64, 80])
    assert read.greeting + b"".join(item.raw for item in read.items) == stream
    ready, ping, pair, large = read.items
    assert ready == Setup(READY)
    assert ping == Command(PING, b"PING")
    assert isinstance(pair, Message)
    assert pair.raw[pair.begin :] == b"bc"
    assert isinstance(large, Message)
    assert large.raw[large.begin :] == b"d" * 70_000


BEGUN = GREETING + READY
MALFORMED = {
    "another protocol": b"GET / HTTP/1.1\r\n",
    "an old version": GREETING[:10] + b"\x01",
    "security": GREETING[:12] + b"CURVE",
    "a message before READY": GREETING + frame(b"x"),
    "reserved flags": BEGUN + b"\x08",
    "a command amid a message": BEGUN + frame(b"x", 1) + PING,
    "a command with more": BEGUN + b"\x05",
    "a command without a name": BEGUN + frame(b"", 4),
    "a name longer than its command": BEGUN + frame(b"\x05PING", 4),
    "a frame without end": BEGUN + b"\x02" + b"\xff" * 8,
    "too large a command": BEGUN + b"\x06" + (COMMAND_MAX).to_bytes(8, "big"),
    "too many parts": BEGUN + frame(b"x" * 99, 1) + b"\x02" + (MESSAGE_MAX - 99).to_bytes(8, "big"),
}


@pytest.mark.parametrize("stream", MALFORMED.values(), ids=MALFORMED)
def test_malformed_as_soon_as_it_can_be_known(stream: bytes) -> None:
    splitter = Splitter()
    splitter.feed(stream)
    assert splitter.malformed
    assert splitter.feed(GREETING + READY + frame(b"x")) == []
    assert oracle(stream).malformed


def test_the_largest_message_passes() -> None:
    body = bytes(MESSAGE_MAX - 9)
    splitter = Splitter()
    splitter.feed(BEGUN)
    (item,) = splitter.feed(frame(body))
    assert isinstance(item, Message)
    assert len(item.raw) == MESSAGE_MAX
