"""The log machine: its batches, its count, its sum, its snapshots."""

from __future__ import annotations

import random

import pytest

from engine.kernels.checksum import crc32c
from engine.raft.told import Told, count_of, pack, unpack
from engine.storage.entries import COMMAND, CONFIG, NOOP, Entry


def entry(body: bytes, kind: int = COMMAND) -> Entry:
    return Entry(1, kind, crc32c(body), body)


def test_the_documented_example() -> None:
    body = bytes.fromhex("02000000 01000000 02000000 61 62 63")
    assert pack([b"a", b"bc"]) == body
    assert unpack(body) == [b"a", b"bc"]


def test_whatever_is_packed_is_unpacked() -> None:
    rng = random.Random(1)
    for _ in range(300):
        commands = [rng.randbytes(rng.randrange(9)) for _ in range(rng.randrange(20))]
        body = pack(commands)
        assert unpack(body) == commands
        assert count_of(body) == len(commands)


@pytest.mark.parametrize(
    "body",
    [b"", b"\x01", b"\x01\0\0", b"\xff" * 4, b"\xff" * 40, b"\x01\0\0\0\x05\0\0\0abc",
     b"\x01\0\0\0\x02\0\0\0abc", b"\x02\0\0\0\x01\0\0\0a"],
)  # fmt: skip
def test_what_is_no_batch_holds_no_commands(body: bytes) -> None:
    assert unpack(body) == []


def test_every_byte_changed_never_raises() -> None:
    body = pack([b"a", b"bc", b""])
    for at in range(len(body)):
        for value in (0, 1, 0x7F, 0xFF):
            wrong = body[:at] + bytes([value]) + body[at + 1 :]
            unpack(wrong)
            Told().apply(entry(wrong))


def test_state() -> None:
    told = Told()
    bodies = [pack([b"a", b"bc"]), pack([]), pack([b"d"])]
    for body in bodies:
        told.apply(entry(b"of no interest", NOOP))
        told.apply(entry(body))
        told.apply(entry(body, CONFIG))
    assert told.commands == 3
    assert told.digest == crc32c(b"".join(bodies))


def test_the_sum_tells_orders_apart() -> None:
    states = []
    for order in ([b"a", b"b"], [b"b", b"a"]):
        told = Told()
        for command in order:
            told.apply(entry(pack([command])))
        states.append(told.digest)
    assert states[0] != states[1]


def test_snapshots() -> None:
    told, other = Told(), Told()
    told.apply(entry(pack([b"a"])))
    pieces = told.pieces()
    told.apply(entry(pack([b"b"])))  # what came later is not in it
    other.load(pieces)
    assert other.commands == 1
    other.apply(entry(pack([b"b"])))
    assert (other.commands, other.digest) == (told.commands, told.digest)
