"""Gets by the kernel, against the way that all other questions go."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest
from support import dose

from engine.kernels.gets import gets
from engine.kernels.table import Table
from engine.kv import machine as machines
from engine.kv.commands import GET, INFO, READ_BYTES_MAX, ROWS_MAX
from engine.kv.machine import Machine
from engine.kv.store import pack_record

NUMBERS = (0, 1, 127, 128, 255, 256, 65_535, 65_536, 1 << 32, (1 << 63) - 1)


def _machine(rng: random.Random) -> Machine:
    machine = Machine()
    machine.revision = rng.choice(NUMBERS)
    for n in range(20):
        numbers = [rng.choice(NUMBERS) for _ in range(3)]
        value = bytes(rng.choice((0, 1, 255, 256, 65_535, 70_000, 600_000)))
        lease = rng.choice((0, 0, 1, (1 << 63) - 1))
        machine.store.write(b"%d" % n, pack_record(*numbers, lease, value))
    return machine


def _asks(rng: random.Random) -> list[Any]:
    many = rng.choice((1, 1, 1, 2, 15, 16, 17, 40))
    asks: list[Any] = [(GET, b"%d" % rng.randrange(25)) for _ in range(many)]
    if rng.random() < 0.2:
        asks[rng.randrange(many)] = rng.choice(
            ((INFO,), (GET,), (GET, "text"), (GET, None), (GET, b"0", 1), GET, (True, b"0"), ())
        )
    return asks


def _frame(rng: random.Random) -> bytes:
    """About half of them are such as clients send."""
    number = rng.choice((*NUMBERS, -1, 1 << 63, "number"))
    frame = bytearray(msgpack.packb((number, *_asks(rng))))
    match rng.randrange(10):
        case 0:
            frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        case 1:
            del frame[rng.randrange(len(frame)) :]
        case 2:
            frame += b"\0"
    return bytes(frame)


@pytest.mark.parametrize("seed", range(dose(60, 20_000)))
def test_answers_are_those_of_the_long_way(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    machine = _machine(rng)
    for _ in range(12):
        frame = _frame(rng)
        answer = machine.read(frame)
        with monkeypatch.context() as patch:
            patch.setattr(machines, "gets", lambda *_: None)
            assert answer == machine.read(frame), frame


def test_it_takes_many_of_them() -> None:
    rng, table = random.Random(1), Table()
    assert 400 < sum(gets(_frame(rng), table, 1, 1, 1) is not None for _ in range(1000)) < 700


@pytest.mark.parametrize(("most", "asks"), [(1024, 1024), (1025, 1025)])
def test_a_frame_has_so_many_at_most(most: int, asks: int) -> None:
    frame = msgpack.packb((1, *[(GET, b"k")] * asks))
    answer = gets(frame, Table(), 1, READ_BYTES_MAX, ROWS_MAX)
    assert (answer is None) == (asks > 1024)
    assert (Machine().read(frame) == b"") == (asks > 1024)


def test_the_first_always_fits() -> None:
    table = Table()
    table[b"k"] = pack_record(1, 1, 1, 0, b"value")
    cut = (5, "answer")
    for room, rows, whole in ((0, 0, 1), (30, 9, 1), (60, 9, 2), (999, 2, 2), (999, 9, 3)):
        answer = gets(msgpack.packb((7, *[(GET, b"k")] * 3)), table, 1, room, rows)
        assert answer is not None
        found = msgpack.unpackb(answer, use_list=False)
        right = (0, 1, b"value", 1, 1, 1, 0)
        assert found == (7, *[right] * whole, *[cut] * (3 - whole)), (room, rows)
