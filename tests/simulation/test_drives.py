"""The simulated drive: what a power cut, a failing sync, a full disk and damage leave of its files.

The oracles write down every state that is allowed, which short scripts make possible.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from pathlib import Path
from random import Random

import pytest
from support import dose

from engine.sim.drives import Drive, DriveFile
from engine.sim.inodes import SECTOR
from engine.sim.timeline import Crashed
from engine.storage.directory import Directory, Folder

SEEDS = dose(ci=400, full=20_000)


def a_drive(seed: int = 0, *, capacity: int | None = None) -> Drive:
    return Drive(Random(seed), capacity)


def durable_file(drive: Drive, name: str, data: bytes) -> DriveFile:
    """A file that no power cut can touch."""
    drive.put(name, data)
    return drive.open(name)


def settle(drive: Drive) -> None:
    drive.complete(drive.flush())


def content(drive: Drive, name: str) -> bytes:
    file = drive.open(name)
    return file.read(0, file.size())


def put(data: bytes, offset: int, piece: bytes) -> bytes:
    data = data.ljust(offset, b"\0")
    return data[:offset] + piece + data[offset + len(piece) :]


# --- the cache -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_reads_see_writes_whatever_is_synced_and_whoever_dies(seed: int) -> None:
    rng = Random(seed)
    drive, model = a_drive(seed), b""
    file = drive.create("log")
    for _ in range(100):
        offset, piece = rng.randrange(2000), rng.randbytes(rng.randrange(700))
        file.write(offset, [piece[:5], memoryview(piece)[5:9], bytearray(piece[9:])])
        model = put(model, offset, piece) if piece else model
        if rng.random() < 0.2:
            file.sync()
        if rng.random() < 0.2:
            settle(drive)
        if rng.random() < 0.1:
            drive.kill()
            file = drive.open("log")
        assert file.size() == len(model)
        assert file.read(0, file.size() + 9) == model
        start, size = rng.randrange(2500), rng.randrange(900)
        assert file.read(start, size) == model[start : start + size]
    file.sync()
    drive.sync()
    settle(drive)
    assert drive.durable("log") == model
    assert drive.unsynced() == 0


def answers(directory: Directory, seed: int) -> list[object]:
    """What a directory answers to a random script, errors included."""
    rng = Random(seed)
    names = ("a", "b", "c")
    told: list[object] = []
    for _ in range(400):
        name, other = rng.choice(names), rng.choice(names)
        offset, piece = rng.randrange(900), rng.randbytes(rng.randrange(9))
        what = rng.randrange(7)
        try:
            if what == 0:
                directory.create(name).close()
            elif what == 1:
                directory.rename(name, other)
            elif what == 2 and rng.random() < 0.5:
                directory.remove(name)
            elif what == 3:
                directory.sync()
            else:
                file = directory.open(name)
                file.write(offset, [piece, memoryview(piece), bytearray(piece)])
                file.sync()
                told += [file.size(), file.read(0, 2000), file.read(offset + 5, 7)]
                file.close()
        except OSError as error:
            told.append(type(error).__name__)
        told.append(directory.names())
    return told


@pytest.mark.parametrize("seed", range(10))
def test_a_drive_answers_as_a_real_folder_does(seed: int, tmp_path: Path) -> None:
    told = answers(Folder(str(tmp_path)), seed)
    assert answers(a_drive(seed), seed) == told
    assert {"FileExistsError", "FileNotFoundError"} <= {
        what for what in told if isinstance(what, str)
    }


def test_nothing_is_written_by_writing_nothing() -> None:
    drive = a_drive()
    file = durable_file(drive, "log", b"data")
    file.write(10, [])
    file.write(10, [b""])
    file.sync()
    settle(drive)
    assert content(drive, "log") == drive.durable("log") == b"data"


def test_names() -> None:
    drive = a_drive()
    drive.create("b").write(0, [b"of b"])
    drive.create("a").write(0, [b"of a"])
    assert drive.names() == ["a", "b"]
    with pytest.raises(FileExistsError):
        drive.create("a")
    drive.rename("b", "a")
    assert drive.names() == ["a"]
    assert content(drive, "a") == b"of b"
    drive.remove("a")
    assert drive.names() == []
    missing: list[Callable[[], object]] = [
        lambda: drive.open("a"),
        lambda: drive.remove("a"),
        lambda: drive.rename("a", "b"),
    ]
    for ask in missing:
        with pytest.raises(FileNotFoundError):
            ask()


@pytest.mark.parametrize("end", [Drive.kill, Drive.lose_power])
def test_the_files_of_a_dead_process_are_closed(end: Callable[[Drive], None]) -> None:
    drive = a_drive()
    file = durable_file(drive, "log", b"data")
    end(drive)
    uses: list[Callable[[], object]] = [
        file.size,
        file.sync,
        lambda: file.read(0, 1),
        lambda: file.write(0, [b"x"]),
    ]
    for use in uses:
        with pytest.raises(OSError, match="Bad file descriptor"):
            use()
    assert content(drive, "log") == b"data"


# --- power cuts: bytes ---------------------------------------------------------------------------


def fates(offset: int, piece: bytes) -> Iterator[list[tuple[int, bytes]]]:
    """All that may become of a write: each sector is kept, gone, or zeros."""
    edges = [offset, *(o for o in range(offset + 1, offset + len(piece)) if o % SECTOR == 0)]
    edges.append(offset + len(piece))
    sectors = list(pairwise(edges))
    for fate in product(("kept", "gone", "zeros"), repeat=len(sectors)):
        yield [
            (a, piece[a - offset : b - offset] if what == "kept" else bytes(b - a))
            for what, (a, b) in zip(fate, sectors, strict=True)
            if what != "gone"
        ]


def allowed(base: bytes, pending: list[tuple[int, bytes]]) -> set[bytes]:
    """Every content that a power cut may leave, by trying all."""
    states = {base}
    for offset, piece in pending:
        states = {_all(state, fate) for state in states for fate in fates(offset, piece)}
    return states


def _all(data: bytes, pieces: list[tuple[int, bytes]]) -> bytes:
    for offset, piece in pieces:
        data = put(data, offset, piece)
    return data


def test_all_subsets_of_three_writes_survive_some_power_cut() -> None:
    writes = [(0, b"one"), (10, b"two"), (20, b"three")]
    seen = set()
    for seed in range(400):
        drive = a_drive(seed)
        file = durable_file(drive, "log", b"." * 30)
        for offset, piece in writes:
            file.write(offset, [piece])
        drive.lose_power()
        seen.add(content(drive, "log"))
    subsets = {
        _all(b"." * 30, [write for write, stays in zip(writes, kept, strict=True) if stays])
        for kept in product((True, False), repeat=3)
    }
    assert subsets <= seen <= allowed(b"." * 30, writes)
    assert seen - subsets, "no write was ever replaced by zeros"


@pytest.mark.parametrize(
    ("base", "offset"), [(b"." * 2000, 300), (b"", 0), (b"." * 100, 100), (b"." * 100, 700)]
)
def test_a_write_is_torn_between_sectors_and_in_every_way(base: bytes, offset: int) -> None:
    piece = b"x" * 900
    possible = allowed(base, [(offset, piece)])
    seen = set()
    for seed in range(2000):
        drive = a_drive(seed)
        durable_file(drive, "log", base).write(offset, [piece])
        drive.lose_power()
        seen.add(content(drive, "log"))
    assert seen <= possible
    kept = {state for state in possible if b"\0" not in state}
    some = {s for s in seen if b"x" in s and s != put(base, offset, piece)}
    assert put(base, offset, piece) in seen
    assert base in seen
    assert put(base, offset, bytes(900)) in seen, "it was never only its size"
    assert len(some) >= 3, "it was hardly ever torn"
    if offset == 300:
        assert kept & seen == kept, "a subset of its sectors never survived alone"


def test_a_power_cut_leaves_one_of_the_states_that_are_allowed() -> None:
    eventful = 0
    for seed in range(SEEDS):
        rng = Random(seed)
        drive, base = a_drive(seed), rng.randbytes(rng.randrange(1200))
        file = durable_file(drive, "log", base)
        pending: list[tuple[int, bytes]] = []
        covered = 0
        for _ in range(rng.randrange(6)):
            what = rng.randrange(4)
            if what < 2 and len(pending) < 4:
                offset, piece = rng.randrange(1500), rng.randbytes(rng.randrange(1, 600))
                file.write(offset, [piece])
                pending.append((offset, piece))
            elif what == 2:
                file.sync()
                covered = len(pending)
            elif what == 3:
                settle(drive)
                base = _all(base, pending[:covered])
                pending, covered = pending[covered:], 0
        assert drive.durable("log") == base
        drive.lose_power()
        after = content(drive, "log")
        assert after in allowed(base, pending), f"seed {seed}"
        assert drive.durable("log") == after, "what is there after a power cut is durable"
        eventful += after not in (base, _all(base, pending))
    assert eventful > SEEDS / 10


def test_of_many_writes_sometimes_all_and_sometimes_none_and_sometimes_the_first_survive() -> None:
    seen = set()
    for seed in range(100):
        drive = a_drive(seed)
        file = durable_file(drive, "log", bytes(30))
        for place in range(30):
            file.write(place, [b"x"])
        drive.lose_power()
        after = content(drive, "log").rstrip(b"\0")
        seen.add("holes" if b"\0" in after else {0: "none", 30: "all"}.get(len(after), "first"))
    assert seen == {"holes", "none", "all", "first"}


# --- power cuts: names ---------------------------------------------------------------------------

CHANGES = (
    ("", "new"),
    ("log", "kept"),
    ("new", "log"),
    ("old", ""),
    ("", "old"),
)
"""Made one after another on a drive that has `log` and `old`: (what goes, what comes)."""


def carry_out(drive: Drive, change: tuple[str, str]) -> None:
    removed, added = change
    if not removed:
        drive.create(added).write(0, [added.encode()])
        file = drive.open(added)
        file.sync()
        settle(drive)
    elif added:
        drive.rename(removed, added)
    else:
        drive.remove(removed)


def possible_names() -> set[tuple[tuple[str, bytes], ...]]:
    """For every set of changes that keeps the order of those which share a name."""
    states = set()
    for kept in product((True, False), repeat=len(CHANGES)):
        names = {"log": b"first log", "old": b"first old"}
        missed: set[str] = set()
        fine = True
        for change, stays in zip(CHANGES, kept, strict=True):
            touched = set(change) - {""}
            if not stays:
                missed |= touched
                continue
            fine = fine and not touched & missed
            moved = names.pop(change[0], b"")
            if change[1]:
                names[change[1]] = moved if change[0] else change[1].encode()
        if fine:
            states.add(tuple(sorted(names.items())))
    return states


def test_names_come_and_go_in_the_order_of_each() -> None:
    seen = set()
    for seed in range(1000):
        drive = a_drive(seed)
        drive.put("log", b"first log")
        drive.put("old", b"first old")
        for change in CHANGES:
            carry_out(drive, change)
        drive.lose_power()
        seen.add(tuple((name, content(drive, name)) for name in drive.names()))
    assert seen == possible_names()


@pytest.mark.parametrize("seed", range(20))
def test_synced_names_stay_with_what_was_synced_of_them(seed: int) -> None:
    drive = a_drive(seed)
    drive.put("log", b"before")
    file = drive.create("private")
    file.write(0, [b"after"])
    file.sync()
    drive.rename("private", "log")
    drive.sync()
    settle(drive)
    drive.remove("log")
    drive.kill()
    drive.lose_power()
    assert drive.names() in (["log"], [])
    assert drive.names() == [] or content(drive, "log") == b"after"


# --- syncs ---------------------------------------------------------------------------------------


def test_a_sync_takes_effect_when_the_world_says_so_and_covers_what_was_before_it() -> None:
    drive = a_drive()
    file = durable_file(drive, "log", b"")
    file.write(0, [b"a"])
    file.sync()
    first = drive.flush()
    file.write(1, [b"b"])
    file.sync()
    file.write(2, [b"c"])
    second = drive.flush()
    drive.create("other")
    drive.sync()
    third = drive.flush()
    assert drive.durable("log") == b""
    drive.complete(first)
    assert drive.durable("log") == b"a"
    drive.complete(third)
    assert drive.durable("other") == b""
    drive.complete(second)
    assert drive.durable("log") == b"ab"
    assert drive.unsynced() == 1


def test_tickets_come_in_any_order() -> None:
    drive = a_drive()
    file = durable_file(drive, "log", b"")
    file.write(0, [b"a"])
    file.sync()
    first = drive.flush()
    file.write(0, [b"b"])
    file.sync()
    drive.complete(drive.flush())
    assert drive.durable("log") == b"b"
    drive.complete(first)
    assert drive.durable("log") == b"b"


@pytest.mark.parametrize("end", [Drive.kill, Drive.lose_power])
def test_nobody_is_told_of_the_syncs_of_the_dead(end: Callable[[Drive], None]) -> None:
    drive = a_drive(3)
    file = durable_file(drive, "log", b"")
    file.write(0, [b"a"])
    file.sync()
    ticket = drive.flush()
    end(drive)
    before = drive.durable("log")
    drive.open("log").write(1, [b"b"])
    drive.complete(ticket)
    drive.complete(drive.flush())
    assert drive.durable("log") == before


def test_a_synchronous_drive_needs_no_word() -> None:
    drive = a_drive()
    drive.synchronous = True
    file = drive.create("log")
    file.write(0, [b"a"])
    file.sync()
    assert drive.durable("log") is None
    drive.sync()
    assert drive.durable("log") == b"a"
    assert drive.unsynced() == 0


@pytest.mark.parametrize("synchronous", [True, False])
def test_what_a_failing_sync_covered_is_never_written(synchronous: bool) -> None:
    for seed in range(20):
        drive = a_drive(seed)
        drive.synchronous = synchronous
        file = durable_file(drive, "log", b"....")
        file.write(0, [b"a"])
        file.sync()
        file.write(1, [b"b"])
        drive.fail_sync()
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
        file.write(2, [b"c"])
        file.sync()
        settle(drive)
        assert content(drive, "log") == b"abc."
        drive.kill()
        assert content(drive, "log") == b"abc."
        assert drive.durable_ranges("log") == [(0, 1), (2, 4)]
        drive.lose_power()
        assert content(drive, "log") == b"a.c."


def test_a_failing_sync_of_names_loses_them() -> None:
    for seed in range(20):
        drive = a_drive(seed)
        drive.create("a")
        drive.sync()
        drive.create("b")
        drive.fail_sync(1)
        with pytest.raises(OSError, match="Input/output"):
            drive.sync()
        drive.create("c")
        drive.sync()
        settle(drive)
        assert drive.names() == ["a", "b", "c"]
        drive.lose_power()
        assert drive.names() == ["a", "c"]


# --- failing calls, and a full disk --------------------------------------------------------------


@pytest.mark.parametrize("operation", ["read", "write", "sync", "create", "open", "rename"])
@pytest.mark.parametrize("nth", [1, 3])
def test_the_nth_call_fails_and_the_next_does_not(operation: str, nth: int) -> None:
    drive = a_drive()
    file = durable_file(drive, "log", b"data")
    number = 0

    def call() -> None:
        nonlocal number
        number += 1
        calls: dict[str, Callable[[], object]] = {
            "read": lambda: file.read(0, 1),
            "write": lambda: file.write(0, [b"x"]),
            "sync": file.sync,
            "create": lambda: drive.create(f"new {number}"),
            "open": lambda: drive.open("log"),
            "rename": lambda: drive.rename("log", "log"),
        }
        calls[operation]()

    drive.fail(operation, nth)
    for _ in range(nth - 1):
        call()
    with pytest.raises(OSError, match="Input/output") as failed:
        call()
    assert failed.value.errno == errno.EIO
    call()
    assert not drive.watched


def test_a_failing_write_has_written_some_first_sectors() -> None:
    seen = set()
    for seed in range(50):
        drive = a_drive(seed)
        file = durable_file(drive, "log", b"." * 1500)
        drive.fail("write")
        with pytest.raises(OSError, match="Input/output"):
            file.write(500, [b"x" * 600])
        data = content(drive, "log")
        seen.add(data.count(b"x"))
        assert data == put(b"." * 1500, 500, b"x" * data.count(b"x"))
    assert seen == {0, 12, 524}


def test_a_full_disk_takes_what_fits() -> None:
    drive = a_drive(capacity=100)
    file = durable_file(drive, "log", b"." * 60)
    drive.put("other", b"." * 30)
    file.write(50, [b"x" * 20])
    with pytest.raises(OSError, match="No space") as failed:
        file.write(68, [b"y" * 20])
    assert failed.value.errno == errno.ENOSPC
    assert content(drive, "log") == b"." * 50 + b"x" * 18 + b"yy"
    with pytest.raises(OSError, match="No space") as failed:
        drive.create("third")
    assert failed.value.errno == errno.ENOSPC
    file.write(0, [b"z" * 70])
    with pytest.raises(OSError, match="No space"):
        file.write(200, [b"far beyond the end"])
    assert file.size() == 70
    drive.remove("other")
    file.write(70, [b"z" * 30])
    with pytest.raises(OSError, match="No space"):
        file.write(100, [b"z"])
    drive.capacity = 101
    file.write(100, [b"z"])
    assert content(drive, "log") == b"z" * 101


# --- crash points --------------------------------------------------------------------------------


def rewrite(drive: Drive) -> None:
    """Six operations, tidying up after itself as no dead process can."""
    file = drive.create("private")
    try:
        file.write(0, [b"first"])
        file.write(5, [b"second"])
        file.sync()
        drive.rename("private", "log")
        drive.sync()
    finally:
        if "private" in drive.names():
            drive.remove("private")


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_process_crashes_in_the_middle_and_does_nothing_any_more(nth: int) -> None:
    drive = a_drive()
    drive.synchronous = True
    drive.put("log", b"before")
    drive.crash_at(nth)
    with pytest.raises(Crashed):
        rewrite(drive)
    with pytest.raises(Crashed):
        drive.open("log")
    drive.kill()
    assert drive.names() == (["log"] if nth in (1, 6) else ["log", "private"])
    assert content(drive, "log") == (b"firstsecond" if nth == 6 else b"before")
    if nth in (3, 4):
        assert content(drive, "private") == b"firstsecond"[: 5 if nth == 3 else 11]
    rewrite_again = drive.names() == ["log"]
    if rewrite_again:
        rewrite(drive)
        assert drive.durable("log") == b"firstsecond"


def test_a_crash_leaves_what_was_done_unsynced() -> None:
    seen = set()
    for seed in range(100):
        drive = a_drive(seed)
        file = durable_file(drive, "log", b"..")
        file.write(0, [b"a"])
        drive.crash_at(1)
        with pytest.raises(Crashed):
            file.sync()
        drive.lose_power()
        seen.add(content(drive, "log"))
    assert seen == {b"..", b"a.", b"\0."}


def test_a_hook_hears_of_everything_before_it_is_done() -> None:
    drive = a_drive()
    heard: list[tuple[str, str, list[str]]] = []
    drive.watch(lambda operation, name: heard.append((operation, name, drive.names())))
    rewrite(drive)
    assert heard == [
        ("create", "private", []),
        ("write", "private", ["private"]),
        ("write", "private", ["private"]),
        ("sync", "private", ["private"]),
        ("rename", "private", ["private"]),
        ("sync", "", ["log"]),
    ]
    drive.calm()
    drive.remove("log")
    assert len(heard) == 6


# --- damage --------------------------------------------------------------------------------------


def test_damage_is_on_the_disk_and_in_the_cache() -> None:
    drive = a_drive()
    file = durable_file(drive, "log", bytes(10))
    file.write(8, [b"\0\0\0"])
    drive.damage("log", 3 * 8 + 1)
    drive.damage("log", 8 * 8)
    expected = bytes([0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0])
    assert content(drive, "log") == expected
    assert drive.durable("log") == expected[:10]
    file.sync()
    settle(drive)
    assert drive.durable("log") == expected


def test_random_damage_hits_every_durable_byte_of_its_range_and_nothing_else() -> None:
    hit = set()
    for seed in range(600):
        drive = a_drive(seed)
        file = durable_file(drive, "log", bytes(20))
        file.write(6, [bytes(2)])
        file.write(7, [bytes(2)])
        file.write(19, [bytes(10)])
        bit = drive.damage_somewhere("log", 4, 12)
        assert bit is not None
        hit.add(bit)
        data = content(drive, "log")
        assert data == put(bytes(29), bit // 8, bytes([1 << bit % 8]))
        assert drive.damage_somewhere("log", 6, 9) is None
        assert drive.damage_somewhere("log", 25) is None
    assert hit == {byte * 8 + bit for byte in (4, 5, 9, 10, 11) for bit in range(8)}


def test_a_file_whose_name_is_not_durable_has_no_durable_bytes() -> None:
    drive = a_drive()
    file = drive.create("log")
    file.write(0, [b"data"])
    file.sync()
    settle(drive)
    assert drive.durable_ranges("log") == []
    drive.sync()
    settle(drive)
    assert drive.durable_ranges("log") == [(0, 4)]


# --- chance --------------------------------------------------------------------------------------


def test_equal_seeds_lose_the_same() -> None:
    def after(seed: int) -> list[tuple[str, bytes]]:
        drive = a_drive(seed)
        for number in range(12):
            file = drive.create(f"file {number}")
            file.write(number, [bytes([number]) * 1000])
            file.write(100, [b"x" * 700])
        drive.lose_power()
        return [(name, content(drive, name)) for name in drive.names()]

    assert [after(seed) for seed in range(20)] == [after(seed) for seed in range(20)]
    assert len({tuple(after(seed)) for seed in range(20)}) > 10
