"""Snapshots: whole or not there, every flipped bit found before it is loaded or sent."""

from __future__ import annotations

import errno
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from memory import Crash, Memory, crash_states, fail_at
from support import dose

from engine.errors import DamagedData, RefusedError
from engine.kernels.checksum import crc32c
from engine.storage import snapshots as module
from engine.storage.directory import Folder
from engine.storage.segments import NoSpace
from engine.storage.snapshots import HEADER, Snapshot, Snapshots, pack_header

PIECES = [b"first piece", b"x" * 100, b"\0" * 40, b"."]


def write(snapshots: Snapshots, last: int, term: int = 1, pieces: list[bytes] = PIECES) -> Snapshot:
    writer = snapshots.writer(last, term, b"config of %d" % last)
    for piece in pieces:
        writer.write(piece)
    return writer.finish()


def test_what_is_written_is_found_and_read(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    snapshots = Snapshots(folder, 3)
    assert snapshots.find() == []
    first, second = write(snapshots, 7), write(snapshots, 9, 2, [b"", *PIECES, b""])
    assert snapshots.find() == [second, first]
    assert (second.last, second.term, second.config) == (9, 2, b"config of 9")
    assert second.size == (tmp_path / second.name).stat().st_size
    for one in (first, second):
        assert list(snapshots.pieces(one)) == PIECES
        assert snapshots.verify(one)
    assert snapshots.read(first, 3, 5) == (tmp_path / first.name).read_bytes()[3:8]
    assert Snapshots(folder, 4).find() == []
    assert len(folder.names()) == 2


def test_an_empty_snapshot() -> None:
    snapshots = Snapshots(Memory(), 1)
    empty = write(snapshots, 1, 1, [])
    assert list(snapshots.pieces(empty)) == []
    assert snapshots.verify(empty)


def test_every_flipped_bit_is_found_before_it_is_loaded_or_sent() -> None:
    folder = Memory()
    snapshots = Snapshots(folder, 1)
    good = write(snapshots, 5, 3)
    data = folder.files[good.name].data
    for bit in range(0, len(data) * 8, dose(1, 1)):
        data[bit // 8] ^= 1 << bit % 8
        assert not snapshots.verify(good)
        found = Snapshots(folder, 1).find()
        assert not any(snapshots.verify(one) for one in found)
        got = []
        with pytest.raises(DamagedData) as caught:
            got += list(snapshots.pieces(good))
        assert caught.value.path == good.name
        assert got == PIECES[: len(got)]
        data[bit // 8] ^= 1 << bit % 8
    assert snapshots.verify(good)


def test_every_cut_is_found() -> None:
    folder = Memory()
    snapshots = Snapshots(folder, 1)
    good = write(snapshots, 5)
    whole = bytes(folder.files[good.name].data)
    for cut in range(len(whole)):
        for data in (whole[:cut], whole[:cut] + bytes(len(whole) - cut)):
            folder.files[good.name].data[:] = data
            assert not snapshots.verify(good) or data == whole
    folder.files[good.name].data[:] = whole + b"\0"
    assert not snapshots.verify(good)


def test_pieces_of_two_snapshots_do_not_mix() -> None:
    folder = Memory()
    snapshots = Snapshots(folder, 1)
    one, other = write(snapshots, 5), write(snapshots, 6, 1, PIECES[::-1])
    first, second = folder.files[one.name].data, folder.files[other.name].data
    begin = HEADER.size + len(one.config)
    first[begin:] = second[begin:]
    with pytest.raises(DamagedData, match="a piece does not verify"):
        list(snapshots.pieces(one))


# --- receiving -----------------------------------------------------------------------------------


def test_a_snapshot_is_received_in_chunks_and_over_restarts() -> None:
    source, target = Snapshots(Memory(), 1), Memory()
    sent = write(source, 8, 2)
    receiver = Snapshots(target, 1).receiver(8, 2, sent.size)
    while receiver.next < sent.size:
        receiver.write(source.read(sent, receiver.next, 33))
        receiver = Snapshots(target, 1).receiver(8, 2, sent.size)
    assert Snapshots(target, 1).find() == []
    assert receiver.finish() == sent
    assert Snapshots(target, 1).find() == [sent]
    assert list(Snapshots(target, 1).pieces(sent)) == PIECES
    assert target.names() == [sent.name]


def test_damage_on_the_way_is_found_and_thrown_away() -> None:
    source, target = Snapshots(Memory(), 1), Memory()
    sent = write(source, 8, 2)
    whole = source.read(sent, 0, sent.size)
    for bit in range(0, len(whole) * 8, dose(11, 1)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        receiver = Snapshots(target, 1).receiver(8, 2, sent.size)
        assert receiver.next == 0
        receiver.write(bytes(data))
        with pytest.raises(DamagedData):
            receiver.finish()
        assert target.names() == []


def test_it_is_the_snapshot_that_was_announced() -> None:
    source, target = Snapshots(Memory(), 1), Memory()
    sent = write(source, 8, 2)
    whole = source.read(sent, 0, sent.size)
    for last, term, group in ((9, 2, 1), (8, 3, 1), (8, 2, 2)):
        receiver = Snapshots(target, group).receiver(last, term, sent.size)
        receiver.write(whole)
        with pytest.raises(DamagedData, match="it is not the snapshot up to"):
            receiver.finish()
    receiver = Snapshots(target, 1).receiver(8, 2, sent.size)
    with pytest.raises(DamagedData, match="more bytes"):
        receiver.write(whole + b".")
    receiver.write(whole[:-1])
    with pytest.raises(DamagedData, match="were announced, and it has"):
        receiver.finish()
    assert target.names() == []


def test_another_one_takes_the_place_of_one_half_received() -> None:
    folder = Memory()
    snapshots = Snapshots(folder, 1)
    snapshots.receiver(5, 1, 1000).write(b"half")
    Snapshots(folder, 2).receiver(5, 1, 1000).write(b"of another group")
    assert snapshots.receiver(6, 1, 1000).next == 0
    assert len(folder.names()) == 2
    assert Snapshots(folder, 2).receiver(5, 1, 1000).next == 16


# --- keeping -------------------------------------------------------------------------------------


def test_the_newest_that_verify_are_kept() -> None:
    folder = Memory()
    snapshots = Snapshots(folder, 1)
    other = write(Snapshots(folder, 2), 1)
    several = [write(snapshots, last) for last in range(1, 6)]
    folder.files[several[4].name].data[-1] ^= 1
    folder.files[several[2].name].data[-1] ^= 1
    again = Snapshots(folder, 1)
    again.keep(2)
    assert again.find() == [several[at] for at in (4, 3, 2, 1)]
    assert other.name in folder.names()
    again.keep(1)
    assert again.find() == [several[4], several[3]]
    folder.files[several[3].name].data[-1] ^= 1
    Snapshots(folder, 1).keep(1)
    assert len(again.find()) == 2, "as long as none verifies, nothing is thrown away"


def test_old_ones_may_go_while_others_look(tmp_path: Path) -> None:
    """The thread that keeps them removes what the loop has just seen the name of."""
    folder = Folder(str(tmp_path))
    snapshots, taker = Snapshots(folder, 1), Snapshots(folder, 1)
    newest, looks = write(taker, 1).last, 0

    def take() -> None:
        last = 1
        while last <= dose(60, 1000) or looks <= 20:
            last += 1
            write(taker, last)
            taker.keep(1)

    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(take)
        while not taking.done():
            found = snapshots.find()
            assert not found or found[0].last >= newest
            newest = found[0].last if found else newest
            for one in found:
                data = snapshots.read(one, 0, one.size)
                assert len(data) in (0, one.size)
            looks += 1
        taking.result()


@pytest.mark.parametrize("count", [1, 2])
def test_an_old_one_is_not_found_instead_of_what_followed_it(count: int) -> None:
    """Whenever a newer one is written and old ones go, between any two steps of a look."""
    for at in range(20):
        folder = Memory()
        snapshots, taker = Snapshots(folder, 1), Snapshots(folder, 1)
        for last in range(1, 5):
            write(taker, last)
        steps: list[str] = []

        def change(
            operation: str,
            name: str,
            folder: Memory = folder,
            taker: Snapshots = taker,
            steps: list[str] = steps,
            at: int = at,
        ) -> None:
            if len(steps) == at:
                folder.hook = lambda operation, name: None
                write(taker, 5)
                taker.keep(count)
            steps.append(operation)

        folder.hook = change
        found = snapshots.find()
        assert not found or found[0].last >= 4
        if len(steps) <= at:
            break
    else:
        raise AssertionError("a look has more steps than were tried")


def test_one_that_is_gone_is_not_found_nor_read() -> None:
    """What a look at the names told is not so any more when the file is opened."""
    folder = Memory()
    snapshots = Snapshots(folder, 1)
    one, other = write(snapshots, 1), write(snapshots, 2)
    names = folder.names
    folder.names = lambda: sorted({*names(), one.name})  # type: ignore[method-assign]
    folder.remove(one.name)
    assert snapshots.find() == [other]
    assert snapshots.read(one, 0, one.size) == b""


# --- accidents -----------------------------------------------------------------------------------


def test_no_power_cut_leaves_half_a_snapshot_or_takes_the_one_before() -> None:
    rng = random.Random(1)
    at = 0
    finished = False
    while not finished:
        at += 1
        folder = Memory()
        before = write(Snapshots(folder, 1), 5)
        fail_at(folder, at, Crash)
        after: Snapshot | None = None
        try:
            after = write(Snapshots(folder, 1), 9)
            Snapshots(folder, 1).keep(1)
            finished = True
        except Crash:
            folder.hook = lambda operation, name: None
        for left in crash_states(folder, dose(5, 50), rng):
            snapshots = Snapshots(left, 1)
            found = snapshots.find()
            assert all(snapshots.verify(one) for one in found)
            assert found[-1] == before or finished or found[0] == after
            assert after is None or found[0] == after
            write(snapshots, 9)
            assert all(".taking" not in name for name in left.names())
    assert at > 20


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_full_or_broken_disk_leaves_nothing_behind(number: int) -> None:
    for at in range(1, 6):
        folder = Memory()
        snapshots = Snapshots(folder, 1)
        writes = iter(range(100))

        def hook(operation: str, name: str, writes=writes, at=at) -> None:  # type: ignore[no-untyped-def]
            if operation == "write" and next(writes) == at - 1:
                raise OSError(number, "broken")

        folder.hook = hook
        with pytest.raises(OSError, match="free some" if number == errno.ENOSPC else "broken"):
            write(snapshots, 5)
        assert folder.names() == []
        assert snapshots.verify(write(snapshots, 5))


def test_no_space_to_receive_keeps_what_has_come() -> None:
    folder = Memory()
    receiver = Snapshots(folder, 1).receiver(5, 1, 1000)
    receiver.write(b"." * 10)
    folder.capacity = 15
    with pytest.raises(NoSpace, match="free some"):
        receiver.write(b"." * 10)
    assert receiver.next == 10
    folder.capacity = 1000
    receiver.write(b"." * 10)
    assert Snapshots(folder, 1).receiver(5, 1, 1000).next == 20


def test_long_ones_are_synced_as_they_are_written() -> None:
    folder = Memory()
    writer = Snapshots(folder, 1).writer(5, 1, b"")
    for _ in range(12):
        writer.write(bytes(1 << 20))
    assert sum(operation == "fdatasync" for operation, _ in folder.operations) >= 2
    writer.abandon()
    assert folder.names() == []


def test_another_version_is_refused() -> None:
    folder = Memory()
    snapshots = Snapshots(folder, 1)
    one = write(snapshots, 5)
    data = folder.files[one.name].data
    data[8] = 2
    fixed = crc32c(one.config, crc32c(bytes(data[: HEADER.size - 4])))
    data[HEADER.size - 4 : HEADER.size] = fixed.to_bytes(4, "little")
    with pytest.raises(RefusedError, match="format 2"):
        snapshots.find()


def test_the_example_of_the_documentation() -> None:
    assert module.__doc__
    example = module.__doc__.split("empty config::")[1].strip().split("\n\n")[0]
    assert pack_header(1, 5, 3, b"") == bytes.fromhex(example)
