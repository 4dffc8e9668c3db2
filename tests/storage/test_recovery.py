"""What is found after a kill or a power cut: all that was acknowledged, nothing that never was."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest
from books import TINY, Book, Shelf, Writer, contents, entry, salts, script, steps
from memory import Crash, Memory, crash_states, fail_at
from support import dose

from engine.storage.entries import CONFIG, Append, Base, State
from engine.storage.log import Log, LogSettings
from engine.storage.records import offset_of


def reopened(folder: Memory, settings: LogSettings = TINY, seed: int = 2) -> Log:
    return Log.open(folder, settings, salts(seed))


def check_whole(log: Log, versions: list[dict[int, tuple[Any, ...]]]) -> int:
    """That it holds one of these, with nothing lost: which."""
    assert not [finding for finding in log.findings if finding.damage], log.findings
    assert all(group.lost is None for group in log.recovered.values())
    found = contents(log)
    assert found in versions, (found, versions)
    return versions.index(found)


@pytest.mark.parametrize("seed", range(dose(12, 200)))
def test_a_killed_log_is_there_again(seed: int) -> None:
    folder = Memory()
    rng = random.Random(seed)
    writer = Writer(reopened(folder))
    for life in range(4):
        script(writer, rng, 15)
        writer.log.close()
        writer = Writer(reopened(folder, seed=life), writer.shelf)
        assert contents(writer.log) == writer.shelf.frozen()
        assert not writer.log.findings


# --- torn ----------------------------------------------------------------------------------------


def a_log_of(size: int, folder: Memory, settings: LogSettings) -> tuple[Writer, list[int]]:
    """A log of one segment, and how many records were whole at each offset that ends one."""
    writer = Writer(Log.open(folder, settings, salts()))
    rng = random.Random(5)
    ends = []
    index = 0
    while offset_of(mark := writer.log.append([])) < size:
        some = tuple(entry(1, rng.randbytes(rng.randint(0, 700))) for _ in range(rng.randint(1, 4)))
        at = offset_of(mark)
        writer.append(Append(1, index + 1, some))
        for one in some:
            at += 48 + (len(one.body) + 7 & ~7)
            ends.append(at)
        index += len(some)
    return writer, ends


@pytest.mark.parametrize("zeros", [False, True])
def test_every_cut_leaves_the_whole_records_before_it(zeros: bool) -> None:
    settings = LogSettings(segment_bytes=68 << 10, spare=0)
    folder = Memory()
    writer, ends = a_log_of(64 << 10, folder, settings)
    name = writer.log._active.name
    whole = bytes(folder.files[name].data)
    terms = [1] * len(ends)
    step = dose(13 if zeros else 5, 1)
    near = {end + by for end in ends for by in (-1, 0, 1)}
    for cut in sorted({*range(0, 64 << 10, step), *near}):
        left = Memory()
        inode = left.create(name).inode
        inode.data[:] = whole[:cut] + (bytes(len(whole) - cut) if zeros else b"")
        log = reopened(left, settings)
        # Zeros in the place of zeros are no cut.
        kept = sum(end <= cut or bytes(inode.data[cut:end]) == whole[cut:end] for end in ends)
        found = log.recovered[1].terms if 1 in log.recovered else []
        assert found == terms[:kept], cut
        assert all(group.lost is None for group in log.recovered.values())
        if cut % 97 == 0 and kept:
            bodies = [one.body for one in log.entries(1, 1, kept, 1 << 20)]
            assert bodies == [body for _, _, body in writer.shelf.books[1].entries[:kept]]
        log.close()


# --- power ---------------------------------------------------------------------------------------


def rotate(writer: Writer) -> None:
    for index in range(1, 40):
        writer.put(Append(1, index, (entry(1, b"." * 40),)))
        writer.log.maintain()


def overwrite(writer: Writer) -> None:
    writer.put(State(1, 1, 1), Append(1, 1, tuple(entry(1, b"old %d" % i) for i in range(9))))
    writer.put(State(1, 2, 0), Append(1, 4, (entry(2, b"new"),)), State(2, 2, 2))
    writer.append(Append(1, 5, (entry(2, b"newer"),)))
    writer.put(Append(1, 5, (entry(3, b"newest", CONFIG),)), State(1, 3, 3))


def compact(writer: Writer) -> None:
    for index in range(1, 80):
        writer.put(Append(1, index, (entry(1, b"." * 40),)))
        if index % 10 == 0:
            writer.put(Base(1, index - 3, 1, b"config %d" % index))
        while writer.log.maintain():
            pass


def install(writer: Writer) -> None:
    writer.put(Append(1, 1, (entry(1, b"a"), entry(1, b"b"))), Append(2, 1, (entry(1, b"c"),)))
    writer.put(Base(1, 50, 4, b"installed"))
    writer.put(State(1, 5, 0), Append(1, 51, (entry(5, b"d"),)))
    writer.put(Base(1, 51, 5, b"own"))


def terms_and_votes(writer: Writer) -> None:
    for term in range(1, 30):
        writer.append(State(term % 3 + 1, term, term % 2))
        if term % 2:
            writer.settle()


SCRIPTS = [rotate, overwrite, compact, install, terms_and_votes]


def run_to_crash(folder: Memory, play: Any, at: int, start: Shelf) -> Writer | None:
    """Open and play up to the n-th operation; what was promised then. None: it ended first."""
    writer: Writer | None = None
    fail_at(folder, at, Crash)
    try:
        log = reopened(folder)
        writer = Writer(log)
        play(writer)
    except Crash:
        folder.hook = lambda operation, name: None
        if writer is None:
            writer = Writer.__new__(Writer)
            writer.records, writer.durable, writer.shelf = [], 0, start
        return writer
    return None


@pytest.mark.parametrize("play", SCRIPTS)
def test_no_power_cut_loses_what_was_acknowledged(play: Any) -> None:
    rng = random.Random(3)
    at = dose(3, 1)
    while True:
        folder = Memory()
        writer = run_to_crash(folder, play, at, Shelf())
        if writer is None:
            break
        versions = writer.versions()
        for left in crash_states(folder, dose(3, 20), rng):
            log = reopened(left)
            check_whole(log, versions)
            before = contents(log)
            log.close()
            again = reopened(left, seed=9)
            assert contents(again) == before
            again.close()
        at += dose(5, 1)
    assert at > 20


def test_no_power_cut_while_opening_loses_anything() -> None:
    """After a kill with a torn end, recovery itself is cut at every operation, and again."""
    rng = random.Random(8)
    for seed in range(dose(4, 40)):
        first = Memory()
        writer = Writer(reopened(first))
        script(writer, random.Random(seed), 12)
        versions = writer.versions()
        for torn in crash_states(first, dose(2, 8), rng):
            at = 1
            while True:
                folder = torn.copy()
                fail_at(folder, at, Crash)
                try:
                    log = reopened(folder, seed=seed)
                except Crash:
                    folder.hook = lambda operation, name: None
                else:
                    folder.hook = lambda operation, name: None
                    break
                for left in crash_states(folder, dose(1, 4), rng):
                    fail_at(left, rng.randint(1, 30), Crash)
                    try:
                        check_whole(reopened(left, seed=at), versions)
                    except Crash:
                        pass
                    left.hook = lambda operation, name: None
                    for final in crash_states(left, 1, rng):
                        check_whole(reopened(final, seed=at + 1), versions)
                at += 1
            check_whole(log, versions)


def test_what_was_found_is_durable_when_it_is_open() -> None:
    """A kill, with all in the page cache; an open; a power cut: nothing that was found is gone."""
    rng = random.Random(4)
    for seed in range(dose(20, 200)):
        folder = Memory()
        writer = Writer(reopened(folder))
        script(writer, random.Random(seed), 10)
        log = reopened(folder, seed=seed)
        found = contents(log)
        assert found == writer.shelf.frozen()
        for left in crash_states(folder, 3, rng):
            assert contents(reopened(left)) == found


def test_after_a_failed_sync_the_tail_is_written_again() -> None:
    folder = Memory()
    writer = Writer(reopened(folder))
    writer.put(State(1, 1, 1), Append(1, 1, (entry(1, b"safe"),)))
    writer.append(Append(1, 2, (entry(1, b"in the cache only"),)))

    def broken(operation: str, name: str) -> None:
        if operation == "fdatasync":
            for inode in folder.files.values():
                inode.pending = []  # clean now, and never written
            raise OSError(errno.EIO, "broken")

    folder.hook = broken
    with pytest.raises(OSError, match="broken"):
        writer.log.sync()
    folder.hook = lambda operation, name: None
    with pytest.raises(OSError, match="broken"):
        writer.log.sync()
    with pytest.raises(OSError, match="broken"):
        writer.log.append([State(1, 2, 2)])
    log = reopened(folder)
    assert [one.body for one in log.entries(1, 1, 2, 100)] == [b"safe", b"in the cache only"]
    left = folder.crashed(lambda: False, lambda size: size)
    assert contents(reopened(left)) == contents(log)


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_every_operation_fails_once(number: int) -> None:
    """An error ends the process, or changes nothing; what was acknowledged is there afterwards."""
    at = 0
    passed = False
    while not passed:
        at += dose(3, 1)
        folder = Memory()
        writer: Writer | None = None
        fail_at(folder, at, lambda: OSError(number, "broken"))
        try:
            writer = Writer(reopened(folder))
            compact(writer)
            passed = len(folder.operations) < at
        except OSError as error:
            if error.errno != number:
                raise
        folder.hook = lambda operation, name: None
        if writer is None:
            continue
        versions = writer.versions()
        check_whole(reopened(folder), versions)
        check_whole(reopened(folder.crashed(lambda: False, lambda size: size)), versions)
    assert at > 100


def test_a_book_is_no_empty_promise() -> None:
    """The model itself: overwriting, a base that the log has, one that it has not."""
    book = Book()
    for write in (
        Append(1, 1, (entry(1, b"a"), entry(1, b"b"), entry(1, b"c"))),
        *steps(Append(1, 2, (entry(2, b"B"), entry(2, b"C")))),
        Base(1, 2, 2, b"x"),
    ):
        book.take(write)
    assert book.frozen() == ((0, 0), (2, 2, b"x"), ((2, 1, b"C"),))
    book.take(Base(1, 3, 9, b"y"))
    assert book.frozen() == ((0, 0), (3, 9, b"y"), ())
