"""The header in front of every message."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.wire import envelope
from engine.wire.codec import WireError
from engine.wire.envelope import BODY_MAX, FRAME_MAX, HEADER, VersionError, pack, unpack

NUMBER = st.integers(0, 2**64 - 1)


def documented_example() -> bytes:
    assert envelope.__doc__
    lines = envelope.__doc__.split("on link 0x0304::")[1].strip().splitlines()
    return bytes.fromhex("".join(line.strip().split("   ")[0] for line in lines))


def test_the_example_of_the_documentation() -> None:
    assert pack(17, 0x0102, 0x0304, b"\x91\x07") == documented_example()
    assert HEADER.size == 28


@given(st.integers(0, 255), NUMBER, NUMBER, st.binary(max_size=100))
def test_what_is_packed_comes_back(kind: int, cluster: int, link: int, body: bytes) -> None:
    assert unpack(pack(kind, cluster, link, body)) == (kind, cluster, link, body)


def test_another_version_says_which() -> None:
    frame = bytearray(pack(1, 2, 3, b"x"))
    frame[4] = 9
    with pytest.raises(VersionError) as caught:
        unpack(bytes(frame))
    assert caught.value.version == 9


def test_every_damaged_byte_of_the_header_is_found_or_changes_a_number() -> None:
    frame = pack(1, 2, 3, b"x")
    for place in range(HEADER.size):
        damaged = bytearray(frame)
        damaged[place] ^= 0x40
        numbers = place == 5 or 8 <= place < 24  # kind, cluster and link are for others to check
        if numbers:
            assert unpack(bytes(damaged)) != unpack(frame)
        else:
            with pytest.raises(WireError):
                unpack(bytes(damaged))


def test_a_frame_cut_or_drawn_out_is_refused() -> None:
    frame = pack(1, 2, 3, b"body")
    for length in range(len(frame)):
        with pytest.raises(WireError):
            unpack(frame[:length])
    with pytest.raises(WireError):
        unpack(frame + b"\0")


def test_sizes_are_limited_on_both_sides() -> None:
    with pytest.raises(WireError, match="limit"):
        pack(1, 0, 0, bytes(BODY_MAX + 1))
    largest = pack(1, 0, 0, bytes(BODY_MAX))
    assert len(largest) == FRAME_MAX
    assert len(unpack(largest).body) == BODY_MAX
    with pytest.raises(WireError):
        unpack(largest + b"\0")


def test_no_bytes_raise_anything_but_a_wire_error() -> None:
    rng = random.Random(2)
    for _ in range(20_000):
        frame = rng.randbytes(rng.randrange(60))
        with pytest.raises(WireError):
            unpack(frame)
