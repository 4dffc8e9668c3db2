"""Frames in bulk by the kernel, against msgpack and `engine.kv.commands`, which writes them."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import dose

from engine.kernels.bulk import asks, packed, told, unpacked
from engine.kv.commands import TIME_MAX, pack_entry, unpack_entry
from engine.kv.requests import LOCAL, READ, WRITE, Answered, Ask
from engine.wire.codec import encode

MOST = 300
FRAMES = st.lists(st.binary(max_size=40), max_size=20)


# --- requests ------------------------------------------------------------------------------------


def _sorted_slowly(bodies: list[bytes]) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Writes, reads, and the rest: what is not as the codec writes it, to the byte."""
    found: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
    for body in bodies:
        try:
            how, frame = msgpack.unpackb(body, use_list=False)
            as_written = type(frame) is bytes and encode(Ask(how, frame))[1] == body
        except (ValueError, TypeError):
            how, frame, as_written = -1, b"", False
        if as_written and how in (WRITE, READ) and len(frame) <= MOST:
            found[how].append(frame)
        else:
            found[2].append(body)
    return found


def _bodies(rng: random.Random) -> list[bytes]:
    bodies = []
    for _ in range(rng.randrange(12)):
        how = rng.choice((WRITE, WRITE, READ, LOCAL, 3, 200))
        frame = rng.randbytes(rng.choice((0, 1, 20, 255, 256, MOST, MOST + 1, 70_000)))
        body = bytearray(msgpack.packb((how, rng.choice((frame, frame, frame, "text", None, 7)))))
        match rng.randrange(8):
            case 0:
                del body[rng.randrange(len(body)) :]
            case 1:
                body += b"\0"
            case 2:
                body[rng.randrange(min(8, len(body)))] ^= 1 << rng.randrange(8)
        bodies.append(bytes(body))
    return bodies


@pytest.mark.parametrize("seed", range(dose(300, 30_000)))
def test_requests_are_sorted(seed: int) -> None:
    bodies = _bodies(random.Random(seed))
    writes: list[tuple[int, bytes]] = []
    reads: list[tuple[int, bytes]] = []
    rest = asks(list(enumerate(bodies)), writes, reads, MOST)
    right = _sorted_slowly(bodies)
    found = [frame for _, frame in writes], [frame for _, frame in reads]
    assert (*found, [body for _, body in rest]) == right
    assert all(bodies[n].endswith(frame) for n, frame in (*writes, *reads))
    assert all(bodies[n] == body for n, body in rest)


def test_what_is_there_stays() -> None:
    writes, reads = [("a", b"1")], [("b", b"2")]
    assert asks([("c", msgpack.packb((WRITE, b"3")))], writes, reads, MOST) == []
    assert (writes, reads) == ([("a", b"1"), ("c", b"3")], [("b", b"2")])


# --- entries -------------------------------------------------------------------------------------


@given(FRAMES, st.integers(0, 65535), st.integers(0, TIME_MAX))
def test_an_entry_is_as_it_is_packed_slowly(frames: list[bytes], group: int, time: int) -> None:
    batch = [("link", frame) for frame in frames]
    entry, upto = packed(group, time, batch, 0, 1 << 20)
    assert (entry, upto) == (pack_entry(group, time, [(0, f) for f in frames]), len(frames))
    assert unpacked(entry) == (group, time, frames)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20), st.integers(0, 200))
def test_an_entry_has_as_much_as_it_may(frames: list[bytes], most: int) -> None:
    batch, at, parts = [("link", frame) for frame in frames], 0, []
    while at < len(batch):
        entry, upto = packed(1, 2, batch, at, most)
        found = unpacked(entry)
        assert found is not None
        part = found[2]
        assert part == frames[at:upto]
        size = sum(map(len, part))
        assert len(part) == 1 or size <= most
        assert upto == len(frames) or size + len(frames[upto]) > most
        parts += part
        at = upto
    assert parts == frames


@pytest.mark.parametrize("seed", range(dose(200, 20_000)))
def test_what_is_no_entry_is_none(seed: int) -> None:
    rng = random.Random(seed)
    frames = [
        (rng.choice((0, 7)), rng.randbytes(rng.randrange(20))) for _ in range(rng.randrange(5))
    ]
    entry = bytearray(pack_entry(rng.choice((1, 500)), rng.choice((0, TIME_MAX)), frames))
    for _ in range(rng.randrange(3)):
        match rng.randrange(3):
            case 0:
                entry[rng.randrange(len(entry))] ^= 1 << rng.randrange(8)
            case 1:
                del entry[rng.randrange(len(entry)) :]
            case 2:
                entry += rng.randbytes(rng.randrange(9))
        entry = entry or bytearray(b"\1")
    slow = unpack_entry(bytes(entry))
    right = None if slow is None else (slow.group, slow.time, slow.frames)
    assert unpacked(bytes(entry)) == right


# --- answers -------------------------------------------------------------------------------------


def _told_slowly(me: int, part: list[Any], answers: list[bytes], most: int) -> Any:
    of: dict[Any, list[bytes]] = {}
    for (link, _), answer in zip(part, answers, strict=True):
        if answer:
            of.setdefault(link, []).append(answer)
    alone = sum(map(len, answers)) > most
    messages = []
    for link, frames in of.items():
        for some in [[frame] for frame in frames] if alone else [frames]:
            messages.append((link, encode(Answered(me, tuple(some)))[1]))
    requests = [len(msgpack.unpackb(answer)) - 1 for answer in answers if answer]
    return messages, sum(requests), sum(not answer for answer in answers)


@pytest.mark.parametrize("seed", range(dose(200, 20_000)))
def test_all_for_one_link_is_told_together(seed: int) -> None:
    rng = random.Random(seed)
    me = rng.choice((1, 200, (1 << 53) - 1))
    many = rng.choice((0, 1, 5, 40, 200))
    part = [(("client", rng.randrange(1 + many // 4)), b"asked") for _ in range(many)]
    answers = [
        msgpack.packb(
            (n, *[(0, bytes(rng.choice((0, 9, 300, 70_000))))] * rng.choice((1, 1, 3, 20)))
        )
        if rng.random() < 0.95
        else b""
        for n in range(many)
    ]
    before = msgpack.packb((me, 0))[:-1]
    for most in (1 << 30, 1000):
        assert told(before, part, answers, most) == _told_slowly(me, part, answers, most)


def test_each_frame_has_an_answer() -> None:
    with pytest.raises(ValueError, match="1 answers to 2 frames"):
        told(b"", [("a", b""), ("b", b"")], [b"x"], 10)
