"""The log in use: segments, space, marks, the cache, maintenance; recovery has its own tests."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import pytest
from books import TINY, Writer, contents, entry, salts, script
from memory import Memory
from support import dose

from engine.errors import EngineError
from engine.storage.directory import Folder
from engine.storage.entries import CONFIG, Append, Base, Position, State
from engine.storage.log import Log, LogSettings, NoSpace
from engine.storage.records import number_of


def opened(folder: Memory, settings: LogSettings = TINY, seed: int = 1) -> Log:
    return Log.open(folder, settings, salts(seed))


def test_an_empty_log() -> None:
    folder = Memory()
    log = opened(folder)
    assert log.recovered == {}
    assert log.findings == []
    assert log.oldest() == ()
    assert log.room() > 0
    assert log.sync() == log.append([])
    log.close()
    log.close()
    assert opened(folder).recovered == {}


def test_what_is_appended_is_read_and_recovered() -> None:
    folder = Memory()
    log = opened(folder)
    one, two = entry(3, b"one"), entry(4, b"two" * 50, CONFIG)
    mark = log.append([State(7, 4, 2), Append(7, 1, (one, two)), Append(9, 1, (entry(1),))])
    assert log.sync() == mark
    log.settle(mark)
    assert log.entries(7, 1, 2, 1000) == (one, two)
    assert log.entries(7, 2, 1, 1000) == ()
    log = opened(folder)
    group = log.recovered[7]
    assert group == (4, 2, Base(7, 0, 0, b""), [3, 4], [3, 150], [(2, two.body)], None)
    assert sorted(log.recovered) == [7, 9]
    assert log.entries(7, 1, 2, 1000) == (one, two)


@pytest.mark.parametrize("cache", [0, 100, 1 << 20])
def test_entries_are_limited_by_their_bytes(cache: int) -> None:
    folder = Memory()
    log = opened(folder, LogSettings(2048, 1, cache))
    some = tuple(entry(1, b"." * (10 * (i % 4))) for i in range(1, 41))
    for index in range(0, 40, 4):
        log.append([Append(1, index + 1, some[index : index + 4])])
    for reread in (log, opened(folder, LogSettings(2048, 1, cache))):
        for first in range(1, 41, 3):
            for limit in (0, 1, 25, 60, 1000):
                found = reread.entries(1, first, 40, limit)
                count = len(found)
                assert found == some[first - 1 : first - 1 + count]
                sizes = [len(one.body) for one in some[first - 1 :]]
                assert count == 1 or sum(sizes[:count]) <= limit
                assert count == len(sizes) or sum(sizes[: count + 1]) > limit
        for first, last in ((0, 1), (40, 41), (41, 41)):
            with pytest.raises(ValueError, match="of a log from 1 to 40"):
                reread.entries(1, first, last, 100)


def test_the_cache_answers_without_the_disk_and_stays_small() -> None:
    folder = Memory()
    log = opened(folder, LogSettings(4096, 1, 400))
    for index in range(1, 30):
        log.append([Append(1, index, (entry(1, b"%04d" % index * 10),))])
    folder.operations.clear()
    assert log.entries(1, 26, 29, 1000)[0].body == b"0026" * 10
    assert folder.operations == []
    assert log.entries(1, 3, 3, 1000)[0].body == b"0003" * 10
    assert [operation for operation, _ in folder.operations] == ["read"]
    log.append([Append(1, 28, (entry(2, b"new"),))])
    assert [one.body[:4] for one in log.entries(1, 27, 28, 1000)] == [b"0027", b"new"]
    log.append([Base(1, 27, 1, b"")])
    assert log.entries(1, 28, 28, 1000)[0].body == b"new"
    with pytest.raises(ValueError, match="entries 27 to 28"):
        log.entries(1, 27, 28, 1000)


@pytest.mark.parametrize(
    "write",
    [
        Append(1, 1, ()),
        Append(1, 7, (entry(1),)),
        Append(1, 2, (entry(1),)),
        Append(2, 2, (entry(1),)),
    ],
)
def test_a_gap_is_a_bug_of_the_caller(write: Append) -> None:
    log = opened(Memory())
    log.append([Append(1, 1, tuple(entry(1) for _ in range(5))), Base(1, 2, 1, b"")])
    with pytest.raises(ValueError, match="from"):
        log.append([write])


def test_marks_grow_and_cover_what_came_before(tmp_path: Path) -> None:
    log = Log.open(Folder(str(tmp_path)), TINY, salts())
    marks = []
    for index in range(1, 60):
        marks.append(log.append([Append(1, index, (entry(1, b"." * 50),))]))
        if index % 3 == 0:
            assert log.sync() == marks[-1]
            log.settle(marks[-1])
    assert marks == sorted(set(marks))
    log.close()
    assert len(Log.open(Folder(str(tmp_path)), TINY, salts(2)).recovered[1].terms) == 59


def test_a_watermark_follows_what_no_batch_says() -> None:
    folder = Memory()
    log = opened(folder)
    first = log.append([State(1, 1, 1)])
    log.sync()
    second = log.append([State(1, 2, 1)])  # which was written before the first was settled
    writes = len(folder.operations)
    log.settle(first)
    log.settle(first)
    assert [operation for operation, _ in folder.operations[writes:]] == ["write"]
    log.sync()
    log.settle(second, tell=False)
    log.append([State(1, 3, 1)])  # says so itself
    writes = len(folder.operations)
    log.tell()
    assert len(folder.operations) == writes


def test_syncs_and_maintenance_run_beside_appends(tmp_path: Path) -> None:
    log = Log.open(Folder(str(tmp_path)), LogSettings(8192, 2, 1000, 2048), salts())
    stop = threading.Event()
    marks: list[int] = []
    failed: list[BaseException] = []

    def run(step: object) -> None:
        try:
            while not stop.is_set():
                assert callable(step)
                step()
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=run, args=(step,))
        for step in (lambda: marks.append(log.sync()), log.maintain)
    ]
    for thread in threads:
        thread.start()
    index = 0
    for _ in range(dose(300, 5000)):
        some = tuple(entry(1, b"%d" % (index + at + 1)) for at in range(5))
        log.append([Append(1, index + 1, some)])
        index += 5
        if marks:
            log.settle(marks[-1])
        if index % 100 == 0:
            log.append([Base(1, index - 50, 1, b"")])
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    log.settle(log.sync())
    left = log.recovered
    log.close()
    log = Log.open(Folder(str(tmp_path)), TINY, salts(2))
    assert left == {}
    last = log.recovered[1].base.last + len(log.recovered[1].terms)
    assert last == index
    assert log.entries(1, last, last, 10)[0].body == b"%d" % last


# --- segments ------------------------------------------------------------------------------------


def test_what_is_made_in_haste_does_not_stand_for_a_whole_spare() -> None:
    """Else there was never room for much, and a member would say that its disk is full."""
    whole = 4 << 20
    log = opened(Memory(), LogSettings(whole, spare=1))
    first, last, body = log.room(), 0, bytes(1000)
    while log.room() <= first:  # until it makes a small one, since nobody has made another
        log.append((Append(1, last + 1, (entry(1, body),) * 8),))
        last += 8
    while log.maintain():
        pass
    assert log.room() > whole


def test_a_batch_larger_than_a_segment_has_one_of_its_own() -> None:
    folder = Memory()
    writer = Writer(opened(folder))
    writer.put(State(1, 1, 1))
    writer.put(Append(1, 1, (entry(1, random.Random(1).randbytes(10_000)),)))
    writer.put(Append(1, 2, tuple(entry(1, b"." * 100) for _ in range(50))))
    writer.put(Append(1, 52, (entry(1, b"small"),)))
    assert contents(opened(folder)) == writer.shelf.frozen()


def test_segments_that_nothing_needs_become_spares() -> None:
    folder = Memory()
    writer = Writer(opened(folder))
    most = 0
    for index in range(1, 400):
        writer.put(Append(1, index, (entry(1, b"." * 60),)))
        if index % 10 == 0:
            writer.put(Base(1, index - 5, 1, b""))
        while writer.log.maintain():
            pass
        most = max(most, len(folder.names()))
    assert most < 7
    operations = [operation for operation, _ in folder.operations]
    assert operations.count("rename") > 40
    assert operations.count("create") < 20, "they are used again"
    assert contents(opened(folder)) == writer.shelf.frozen()


def test_the_group_that_holds_the_oldest_segment_is_named() -> None:
    folder = Memory()
    writer = Writer(opened(folder))
    writer.put(Append(5, 1, (entry(1, b"old"),)), State(6, 1, 1))
    for index in range(1, 200):
        writer.put(Append(1, index, (entry(1, b"." * 60),)))
        if index % 10 == 0:
            writer.put(Base(1, index, 1, b""))
        writer.log.maintain()
    assert writer.log.oldest() == (5,)
    first = next(name for name in folder.names() if name.startswith("log-"))
    writer.append(Base(5, 1, 1, b""))
    while writer.log.maintain():
        pass
    assert writer.log.oldest() == (5,), "the base is not durable yet"
    assert first in folder.names()
    writer.settle()
    for term in range(2, 200):
        while writer.log.maintain():
            pass
        writer.put(State(6, term, 1))
    assert first not in folder.names()
    assert 5 not in writer.log.oldest()
    assert contents(opened(folder)) == writer.shelf.frozen()


def test_a_forgotten_log_begins_anew() -> None:
    folder = Memory()
    log = opened(folder)
    log.append([State(1, 3, 2), Append(1, 1, (entry(1), entry(2))), Base(1, 1, 1, b"gone")])
    log.settle(log.sync())
    log.forget(1, Position(2, 2))
    for life in range(3):
        log = opened(folder, seed=life)
        group = log.recovered[1]
        assert group == (3, 2, Base(1, 0, 0, b""), [], [], [], Position(2, 2))
    log.append([Append(1, 1, (entry(1, b"again"),))])
    log = opened(folder, seed=8)
    assert log.recovered[1].terms == [1]
    assert log.recovered[1].lost == Position(2, 2)
    log.append([Append(1, 2, (entry(2, b"again"),))])
    log = opened(folder, seed=9)
    assert (log.recovered[1].terms, log.recovered[1].lost) == ([1, 2], None)
    assert log.entries(1, 1, 2, 100)[1].body == b"again"


@pytest.mark.parametrize("seed", range(dose(10, 100)))
def test_equal_histories_give_equal_bytes(seed: int) -> None:
    folders = [Memory(), Memory()]
    for folder in folders:
        script(Writer(opened(folder)), random.Random(seed), 30)
    first, second = ({n: bytes(f.files[n].data) for n in f.names()} for f in folders)
    assert first == second


# --- space ---------------------------------------------------------------------------------------


def test_a_full_disk_refuses_appends_and_takes_them_again() -> None:
    folder = Memory()
    writer = Writer(opened(folder, LogSettings(8192, 1, 1000, 2048)))
    while writer.log.maintain():
        pass
    folder.capacity = folder.used()
    assert writer.log.room() > 10_000
    index = 0
    some = tuple(entry(1, b"." * 100) for _ in range(3))
    while True:
        names, used, state = folder.names(), folder.used(), contents_of(writer)
        if refusal := refused(writer.log, Append(1, index + 1, some)):
            break
        writer.shelf.take(Append(1, index + 1, some))
        index += 3
        writer.settle()
        assert not writer.log.maintain()
    assert (folder.names(), folder.used(), contents_of(writer)) == (names, used, state)
    assert refusal.errno == errno.ENOSPC
    assert isinstance(refusal, EngineError)
    assert "free some" in str(refusal)
    assert index > 50
    assert writer.log.room() < 2 * 520, "it took nearly as much as it promised"
    for term in range(2, 10):
        writer.put(State(1, term, 1))  # the reserve is for these
    writer.put(Base(1, index - 3, 1, b"snapshot"))
    assert contents(opened(folder.copy())) == writer.shelf.frozen()
    folder.capacity += 100_000
    writer.put(Append(1, index + 1, some))
    assert contents(opened(folder)) == writer.shelf.frozen()


def refused(log: Log, *writes: Append) -> NoSpace | None:
    try:
        log.append(writes)
    except NoSpace as error:
        return error
    return None


def contents_of(writer: Writer) -> tuple[object, ...]:
    log = writer.log
    return (log._end, log._chain, sorted(log._segments), number_of(log._end), log.room())


def test_compaction_alone_makes_room_again() -> None:
    folder = Memory()
    writer = Writer(opened(folder, LogSettings(4096, 1, 1000, 4096)))
    while writer.log.maintain():
        pass
    folder.capacity = folder.used() + 4096
    index = 0
    times = 0
    for _ in range(300):
        write = Append(1, index + 1, (entry(1, b"." * 100),))
        if refused(writer.log, write):
            times += 1
            writer.append(Base(1, index, 1, b""))
        else:
            writer.shelf.take(write)
            index += 1
        writer.settle()
        while writer.log.maintain():
            pass
    assert times > 3
    assert index > 200
    assert contents(opened(folder)) == writer.shelf.frozen()


def test_maintenance_waits_for_space() -> None:
    folder = Memory()
    log = opened(folder, LogSettings(8192, 2, 1000, 2048))
    folder.capacity = folder.used() + 3000
    assert [log.maintain() for _ in range(6)] == [True, False, False, False, False, False]
    assert log.room() < 8192
    folder.capacity += 100_000
    while log.maintain():
        pass
    assert log.room() > 16_000


def test_a_full_disk_can_be_opened_as_long_as_there_is_a_spare() -> None:
    folder = Memory()
    writer = Writer(opened(folder))
    writer.put(Append(1, 1, (entry(1, b"."),)))
    while writer.log.maintain():
        pass
    folder.capacity = folder.used()
    assert contents(opened(folder)) == writer.shelf.frozen()
    names = folder.names()
    with pytest.raises(NoSpace, match="no space to open the log"):
        opened(folder)
    assert folder.names() == names


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_a_full_real_disk(tmp_path: Path) -> None:
    """8 MiB of ext4: appends are refused, terms are taken, and space comes back by itself."""
    import shutil
    import subprocess

    if not (shutil.which("mkfs.ext4") and shutil.which("mount")):
        pytest.skip("mkfs.ext4 or mount is missing")
    image, mount = tmp_path / "image", tmp_path / "mount"
    image.write_bytes(b"")
    os.truncate(image, 8 << 20)
    mount.mkdir()
    made = subprocess.run(["mkfs.ext4", "-q", str(image)], capture_output=True, check=False)
    command = ["mount", "-o", "loop", str(image), str(mount)]
    if made.returncode or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no loop devices here")
    try:
        log = Log.open(Folder(str(mount)), LogSettings(1 << 20, 1), salts())
        index = 0
        some = tuple(entry(1, os.urandom(1000)) for _ in range(50))
        while not refused(log, Append(1, index + 1, some)):
            index += 50
            log.settle(log.sync())
            log.maintain()
        assert index > 1000
        for term in range(20):
            log.append([State(1, term, 1)])
        log.append([Base(1, index, 1, b"")])
        log.settle(log.sync())
        for _ in range(40):
            while log.maintain():
                pass
            log.append([State(1, 30, 1)])
            log.settle(log.sync())
        log.append([Append(1, index + 1, some)])
        log.settle(log.sync())
        log.close()
        log = Log.open(Folder(str(mount)), LogSettings(1 << 20, 1), salts(2))
        assert (log.recovered[1].base.last, len(log.recovered[1].terms)) == (index, 50)
        log.close()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


# --- written later -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(dose(40, 2000)))
def test_what_is_written_later_is_the_same_in_the_end(seed: int) -> None:
    """Whatever comes between: other batches, syncs, tellings, steps of maintenance, reads."""
    folders = Memory(), Memory()
    logs = [opened(folder, seed=seed) for folder in folders]
    rng = random.Random(seed)
    last, told = 0, 0
    for log in logs:
        log.append([Base(1, 0, 0, b""), State(1, 1, 0)])
    for _ in range(60):
        some = tuple(entry(1, rng.randbytes(rng.randrange(90))) for _ in range(rng.randrange(1, 4)))
        for log, later in zip(logs, (False, True), strict=True):
            log.append([Append(1, last + 1, some)], later=later)
        last += len(some)
        match rng.randrange(6):
            case 0:
                marks = {log.sync() for log in logs}
                (told,) = marks
                synced = [{n: f.durable for n, f in one.files.items()} for one in folders]
                assert synced[0] == synced[1]
                tell = rng.random() < 0.5
                for log in logs:
                    log.settle(told, tell=tell)
            case 1:
                for log in logs:
                    log.tell()
            case 2:
                for log in logs:
                    log.maintain()
            case 3:
                first = rng.randint(1, last)
                one, other = (log.entries(1, first, last, 300) for log in logs)
                assert one == other
            case 4:
                logs[1].flush()
    for log in logs:
        log.close()
    assert folders[0].names() == folders[1].names()
    for name in folders[0].names():
        assert folders[0].files[name].data == folders[1].files[name].data, name


def test_nothing_is_written_before_it_is_time() -> None:
    folder = Memory()
    log = opened(folder)
    log.append([Base(1, 0, 0, b"")])
    before = len(folder.operations)
    log.append([State(1, 1, 1)], later=True)
    assert [o for o, _ in folder.operations[before:]] == []
    log.flush()
    log.flush()
    assert [o for o, _ in folder.operations[before:]] == ["write"]
