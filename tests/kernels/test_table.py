"""The table of the store, against a dict and a sorted list."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dose

from engine.kernels.table import Table, hashed

Part = tuple[list[bytes], list[bytes], bool]


class Slow:
    """The same, without a thought for time or memory."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def keys(self) -> list[bytes]:
        return sorted(self.rows)

    def part(self, start: bytes, keys_max: int, bytes_max: int) -> Part:
        keys = [key for key in self.keys() if key >= start]
        taken, size = 0, 0
        while taken < min(len(keys), keys_max) and size < bytes_max:
            size += len(keys[taken]) + len(self.rows[keys[taken]])
            taken += 1
        return keys[:taken], [self.rows[key] for key in keys[:taken]], taken < len(keys)


def same(table: Table, slow: Slow) -> None:
    """Everything that can be asked without a key."""
    assert len(table) == len(slow.rows)
    assert table.total == sum(len(key) + len(record) for key, record in slow.rows.items())
    assert table.keys() == list(table) == slow.keys()
    assert dict(table) == slow.rows


class Player:
    """Does the same to both, and compares what they say to it."""

    def __init__(self, rng: random.Random, names: Callable[[], bytes], sizes: tuple[int, ...]):
        self.rng, self.names, self.sizes = rng, names, sizes
        self.table, self.slow = Table(), Slow()

    def key(self) -> bytes:
        if self.slow.rows and self.rng.random() < 0.5:
            return self.rng.choice(list(self.slow.rows))
        return self.names()

    def record(self) -> bytes:
        return self.rng.randbytes(self.rng.choice(self.sizes))

    def write(self) -> None:
        key, record = self.key(), self.record()
        self.table[key] = self.slow.rows[key] = record

    def remove(self) -> None:
        key = self.key()
        if key in self.slow.rows:
            del self.table[key], self.slow.rows[key]
        else:
            with pytest.raises(KeyError):
                del self.table[key]

    def extend(self) -> None:
        keys = sorted(self.names() for _ in range(self.rng.randrange(9)))
        if self.rng.random() < 0.3:
            self.rng.shuffle(keys)
        records = [self.record() for _ in keys]
        self.table.extend(keys, tuple(records))
        self.slow.rows.update(zip(keys, records, strict=True))

    def look(self) -> None:
        key, most = self.key(), self.rng.choice((0, 1, 24, 32, 1000))
        record = self.slow.rows.get(key)
        assert (key in self.table, self.table.get(key)) == (record is not None, record)
        assert self.table.size(key) == (-1 if record is None else len(record))
        assert self.table.head(key, most) == (None if record is None else record[:most])
        if record is None:
            with pytest.raises(KeyError):
                self.table[key]
        else:
            assert self.table[key] == record

    def look_in_order(self) -> None:
        key, keys, rng = self.key(), self.slow.keys(), self.rng
        assert self.table.bisect(key) == bisect_left(keys, key)
        first, last = rng.randrange(len(keys) + 3), rng.randrange(len(keys) + 3)
        assert self.table.keys(first, last) == keys[first:last]
        assert self.table.keys(first, last, True) == keys[first:last][::-1]
        limits = rng.choice((0, 1, 2, 50, 9999)), rng.choice((0, 1, 100, 9999))
        assert self.table.part(key, *limits) == self.slow.part(key, *limits)

    def turn(self, removing: float) -> None:
        self.rng.choice((self.look, self.look_in_order, self.look, self.extend, self.write))()
        for _ in range(self.rng.randrange(12)):
            (self.remove if self.rng.random() < removing else self.write)()


def shapes(rng: random.Random) -> list[Callable[[], bytes]]:
    """How keys are chosen."""
    deep = b"a prefix that all keys have in common/" * 3
    return [
        lambda: rng.randbytes(rng.randrange(3)),
        lambda: b"key-%012d" % rng.randrange(10**9),
        lambda: b"%d" % rng.randrange(3000),
        lambda: deep + b"%d" % rng.randrange(3000),
        lambda: bytes(rng.choice((0, 1, 7, 8, 9, 15, 16, 17, 300))) + rng.randbytes(1),
    ]


SIZES = ((0, 1, 2), (24, 25, 40, 41, 57), (0, 200, 280, 300, 310, 600), (30, 5000, 300_000))


@pytest.mark.parametrize("shape", range(5))
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("seed", range(dose(1, 40)))
def test_long_plays(seed: int, shape: int, sizes: tuple[int, ...]) -> None:
    rng = random.Random(f"{seed} {shape} {sizes}")
    player = Player(rng, shapes(rng)[shape], sizes)
    turns = 60 if max(sizes) > 1000 else 400
    for turn in range(turns):
        player.turn(0.75 if turn % 100 > 70 else 0.25)
        if turn % 20 == 0:
            same(player.table, player.slow)
    same(player.table, player.slow)


keys = st.binary(max_size=3) | st.sampled_from([b"x" * n for n in range(40)])
steps = st.lists(
    st.tuples(st.just("write"), keys, st.integers(0, 90))
    | st.tuples(st.just("remove"), keys, st.just(0))
    | st.tuples(st.just("part"), keys, st.integers(0, 60)),
    max_size=60,
)


@settings(max_examples=dose(150, 20_000), deadline=None)
@given(steps)
def test_any_steps(plan: list[tuple[str, bytes, int]]) -> None:
    table, slow = Table(), Slow()
    for what, key, size in plan:
        if what == "write":
            table[key] = slow.rows[key] = bytes(size)
        elif what == "part":
            assert table.part(key, 9, size) == slow.part(key, 9, size)
        elif key in slow.rows:
            del table[key], slow.rows[key]
        assert table.bisect(key) == bisect_left(slow.keys(), key)
    same(table, slow)


ORDERS: dict[str, Callable[[random.Random, list[bytes]], list[bytes]]] = {
    "up": lambda _, names: names,
    "down": lambda _, names: names[::-1],
    "any": lambda rng, names: rng.sample(names, len(names)),
    "from the middle": lambda _, names: names[len(names) // 2 :] + names[: len(names) // 2],
    "in turns": lambda _, names: names[::2] + names[1::2],
}


@pytest.mark.parametrize("coming", ORDERS)
@pytest.mark.parametrize("going", ORDERS)
def test_many_come_and_go(coming: str, going: str) -> None:
    """So many that segments and leaves are split, and joined again."""
    rng, many = random.Random(f"{coming} {going}"), 6000
    names = [b"%07d" % (3 * n) for n in range(many)]
    table, slow = Table(), Slow()
    for key in ORDERS[coming](rng, names):
        table[key] = slow.rows[key] = key[3:]
    same(table, slow)
    for n, key in enumerate(ORDERS[going](rng, names), 1):
        del table[key], slow.rows[key]
        if n % 1500 == 0 or many - n < 3:
            same(table, slow)
            at = b"%07d" % rng.randrange(3 * many)
            assert table.bisect(at) == bisect_left(slow.keys(), at)
            assert (at in table) == (at in slow.rows)
    table[b"and"] = b"again"
    assert dict(table) == {b"and": b"again"}


def test_large_ones() -> None:
    table = Table()
    long, large = b"k" * 65_536, random.Random(1).randbytes(12 << 20)
    table[long] = b"short"
    table[b""] = b""
    table[long[:-1]] = large
    table[long] = large
    table[long[:-1]] = large[:-5]
    assert table.keys() == [b"", long[:-1], long]
    assert (table[long], table[long[:-1]], table[b""]) == (large, large[:-5], b"")
    assert table.total == 2 * len(large) - 5 + 2 * 65_536 - 1
    with pytest.raises(OverflowError, match="16 MiB"):
        table[bytes(1 << 24)] = b""
    assert len(table) == 3


def test_what_is_no_key_and_no_record() -> None:
    table = Table()
    for wrong in ("text", None, 5, bytearray(b"k")):
        with pytest.raises(TypeError):
            table[wrong] = b""  # type: ignore[index]
        with pytest.raises(TypeError):
            table[b"k"] = wrong  # type: ignore[assignment]
        with pytest.raises(TypeError):
            table.extend([b"k", wrong], [b"r", b"r"])  # type: ignore[list-item]
        with pytest.raises(TypeError):
            table.get(wrong)  # type: ignore[arg-type]
        assert table.keys() == [b"k"]
        del table[b"k"]
    with pytest.raises(ValueError, match="zip"):
        table.extend([b"k"], [])


# --- memory --------------------------------------------------------------------------------------


def traced(work: Callable[[], object]) -> tuple[int, object]:
    """What is kept of the memory that some work takes, and its result."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = work()
        return tracemalloc.get_traced_memory()[0] - before, made
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("order", ["up", "down", "any"])
@pytest.mark.parametrize("many", [10_000, 17_000])
def test_a_key_takes_so_many_bytes(order: str, many: int) -> None:
    """Its own, those of its record, 8 for their lengths; its slot, and its place in the order."""
    rng, record = random.Random(5), bytes(280)
    names = ORDERS[order](rng, [b"key-%012d" % n for n in range(many)])

    def fill() -> Table:
        table = Table()
        for name in names:
            table[name] = record
        return table

    size, table = traced(fill)
    assert isinstance(table, Table)
    least = 16 + 280 + 8 + 8 + 8
    assert least < size / many < least + (12 if order == "down" else 8)
    assert table.total == many * 296


def test_memory_is_given_back() -> None:
    names = [b"%d" % n for n in range(20_000)]

    def work() -> Table:
        table = Table()
        for turn in range(3):
            table.extend(names, [b"r" * 40 * (turn + 1)] * len(names))
            for name in names[turn:]:
                del table[name]
        return table

    size, table = traced(work)
    assert isinstance(table, Table)
    assert table.keys() == [b"0", b"1"]
    assert size < 1800
    assert traced(lambda: work().keys(5))[0] < 500


def test_shorter_records_take_less() -> None:
    names = [b"%d" % n for n in range(100)]

    def work() -> Table:
        table = Table()
        for size in (100_000, 80_000, 70_000, *range(4000, 50, -10)):
            table.extend(names, [bytes(size)] * len(names))
        return table

    size, table = traced(work)
    assert isinstance(table, Table)
    assert dict(table) == dict.fromkeys(names, bytes(60))
    assert size < 100 * 160


def test_a_few_that_are_left_take_little() -> None:
    """Leaves and segments are joined, whichever keys go."""
    names = [b"%06d" % n for n in range(20_000)]

    def work() -> Table:
        table = Table()
        table.extend(names, [b""] * len(names))
        for n, name in enumerate(names):
            if n % 100:
                del table[name]
        return table

    size, table = traced(work)
    assert isinstance(table, Table)
    assert table.keys() == names[::100]
    assert size < 200 * (16 + 40)


def test_no_change_moves_much() -> None:
    """Or it would take long: what a write makes anew is a segment and a leaf, however many keys
    there are."""
    rng, table, worst = random.Random(8), Table(), 0
    names = [b"%d" % n for n in rng.sample(range(10**9), 30_000)]
    tracemalloc.start()
    try:
        for name in names:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            table[name] = b"record"
            worst = max(worst, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert 4096 < worst < 25_000


def test_records_are_copies() -> None:
    table, key, record = Table(), b"a key %d" % 5, b"a record %d" % 5
    counts = sys.getrefcount(key), sys.getrefcount(record)
    table[key] = record
    table.extend([key], [record])
    assert (sys.getrefcount(key), sys.getrefcount(record)) == counts
    found = table[key], table.keys()[0], table.part(b"", 9, 99)[1][0]
    table[key] = b"!" * len(record)
    del table[key]
    assert found == (record, key, record)
    assert found[0] is not record
    held = sys.getrefcount(found[0])
    assert held == 2  # by the tuple, and by the question


def test_without_memory_nothing_changes() -> None:
    """Whichever of a write's allocations fails, also when something is split or joined."""
    testing = pytest.importorskip("_testcapi", reason="only a CPython with its own tests has it")
    _play_without_memory(testing)
    tracemalloc.start()  # it sees each allocation, by the table too
    try:
        _play_without_memory(testing)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 1000  # nothing is lost, but what the interpreter keeps


def _play_without_memory(testing: Any) -> None:
    rng, table, slow = random.Random(3), Table(), Slow()
    names, failed = [b"%d" % n for n in range(1500)], 0
    rng.shuffle(names)
    for key in [*names, *names[:500]]:
        record = b"r" * (len(slow.rows) % 60)
        for allocation in range(12):
            there = dict(table) if allocation == 1 and rng.random() < 0.03 else None
            try:
                testing.set_nomemory(allocation, allocation + 1)
                table[key] = record
            except MemoryError:
                testing.remove_mem_hooks()
                failed += 1
                assert there in (None, dict(table))
                continue
            testing.remove_mem_hooks()
            break
        slow.rows[key] = record
    same(table, slow)
    assert failed > 1500
    for n, key in enumerate(names):  # to remove needs none
        testing.set_nomemory(n % 3, 0)
        del table[key]
        testing.remove_mem_hooks()
    assert (len(table), table.total, table.keys()) == (0, 0, [])


# --- hashes --------------------------------------------------------------------------------------


def sip(secret: bytes, data: bytes) -> int:
    """SipHash-1-3, as its authors describe it."""
    mask = (1 << 64) - 1
    one, two = (int.from_bytes(secret[n : n + 8], "little") for n in (0, 8))
    begin = b"somepseudorandomlygeneratedbytes"
    v = [k ^ int.from_bytes(begin[8 * n :][:8], "big") for n, k in enumerate((one, two) * 2)]

    def turned(x: int, n: int) -> int:
        return (x << n | x >> (64 - n)) & mask

    def rounds(many: int) -> None:
        for _ in range(many):
            for a, b, c, d, left, right in ((0, 1, 2, 3, 13, 16), (2, 1, 0, 3, 17, 21)):
                v[a] = (v[a] + v[b]) & mask
                v[c] = (v[c] + v[d]) & mask
                v[b] = turned(v[b], left) ^ v[a]
                v[d] = turned(v[d], right) ^ v[c]
                v[a] = turned(v[a], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes((len(data) & 255,))
    for n in range(0, len(padded), 8):
        word = int.from_bytes(padded[n : n + 8], "little")
        v[3] ^= word
        rounds(1)
        v[0] ^= word
    v[2] ^= 255
    rounds(3)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_hashes_are_siphash() -> None:
    rng = random.Random(2)
    for size in [*range(40), 255, 256, 257, 1000]:
        secret, data = rng.randbytes(16), rng.randbytes(size)
        assert hashed(secret, data) == sip(secret, data)
    with pytest.raises(ValueError, match="16 bytes"):
        hashed(b"short", b"")


def test_hashes_are_those_of_python() -> None:
    """Which has the same function, with a secret of zeros if it is told to."""
    if sys.hash_info.algorithm != "siphash13":
        pytest.skip(f"this Python has {sys.hash_info.algorithm}")
    names = [b"x", b"key-000000000001", b"seventeen letters"]
    done = subprocess.run(
        [sys.executable, "-c", f"print([hash(name) % (1 << 64) for name in {names}])"],
        env={"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str([hashed(bytes(16), name) for name in names])
