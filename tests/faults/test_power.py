"""Loss of power for real processes, and disks that fail: each promise by itself, and each refusal.

`test_power_oracle.py` has random programs against models, `test_power_engine.py` the engine.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import IN_CI, TIME_FACTOR, dose, run
from waiting import eventually

from engine.errors import EngineError, RefusedError, UsageError
from engine.faults import power as module
from engine.faults.cluster import Cluster
from engine.faults.disks import SmallDisk
from engine.faults.power import Power

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="it is preloaded, on Linux"),
]

REFUSED = 97
"""The exit code of who did what cannot be taken back."""
DIE = "os.kill(os.getpid(), 9)\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "watched"
    made.mkdir()
    return made


@pytest.fixture
def power(folder: Path) -> Iterator[Power]:
    with Power(folder, 7) as made:
        yield made


def program(power: Power, text: str, code: int = -signal.SIGKILL, site: bool = False) -> str:
    """Run a program in the watched folder to its end by SIGKILL: what it printed."""
    flags = [] if site else ["-I", "-S"]
    ended = run(
        [sys.executable, *flags, "-c", "import errno, os, sys\n" + text],
        cwd=power.folders[0],
        env={**os.environ, **power.environment()},
    )
    assert ended.code == code, ended.err
    return ended.out if code != REFUSED else ended.err


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# --- what is lost and what is not ----------------------------------------------------------------

RECORDS = """
fd = os.open("log", os.O_WRONLY | os.O_CREAT, 0o600)
if {named}:
    os.fsync(os.open(".", os.O_RDONLY))
for number in range(20):
    os.write(fd, b"%03d\\n" % number)
    if number == 12:
        os.fdatasync(fd)
        print(number + 1)
sys.stdout.flush()
"""


def test_what_was_synced_is_there_and_nothing_else(power: Power, folder: Path) -> None:
    acknowledged = int(program(power, RECORDS.format(named=True) + DIE))
    assert len((folder / "log").read_text().split()) == 20  # SIGKILL alone loses nothing
    loss = power.lose("all")
    assert (folder / "log").read_text().split() == [f"{n:03d}" for n in range(acknowledged)]
    assert (loss.synced, loss.writes_lost, loss.writes_kept, loss.sizes_lost) == (14, 7, 0, 1)


def test_a_file_whose_folder_was_not_synced_vanishes(power: Power, folder: Path) -> None:
    program(power, RECORDS.format(named=False) + DIE)
    assert names(folder) == ["log"]
    assert power.lose("all").names_lost == 1
    assert names(folder) == []


def test_overwritten_bytes_come_back(power: Power, folder: Path) -> None:
    old = os.urandom(5000)
    (folder / "a").write_bytes(old)
    text = (
        "fd = os.open('a', os.O_WRONLY)\n"
        "os.pwrite(fd, b'x' * 2000, 1000)\n"
        "os.pwritev(fd, [b'y' * 10, b'z' * 900], 2990)\n"
        "os.lseek(fd, 4990, 0)\n"
        "os.writev(fd, [b'1' * 30, b'2'])\n"
        "os.posix_fallocate(fd, 0, 9000)\n"
    )
    program(power, text + DIE)
    assert os.path.getsize(folder / "a") == 9000
    assert power.lose("all").writes_lost == 4
    assert (folder / "a").read_bytes() == old


@pytest.mark.parametrize(
    "how",
    ["os.truncate('a', 100)", "os.ftruncate(os.open('a', os.O_RDWR), 0)", "open('a', 'w')"],
)
def test_what_was_cut_off_comes_back(power: Power, folder: Path, how: str) -> None:
    old = os.urandom(5000)
    (folder / "a").write_bytes(old)
    program(power, how + "\n" + DIE)
    assert os.path.getsize(folder / "a") <= 100
    power.lose("all")
    assert (folder / "a").read_bytes() == old


@pytest.mark.parametrize(
    "how",
    [
        "os.remove('a')",
        "os.rename('b', 'a')",
        "os.unlink('a', dir_fd=os.open('.', os.O_RDONLY))",
        "os.mkdir('c'); os.rename('a', 'c/a'); os.remove('c/a'); os.rmdir('c')",
        "os.link('b', 'd'); os.rename('d', 'a'); os.remove('b')",
    ],
)
def test_removed_files_come_back(power: Power, folder: Path, how: str) -> None:
    for name in "ab":
        (folder / name).write_text(name * 1000)
    program(power, how + "\n" + DIE)
    assert names(folder) != ["a", "b"] or (folder / "a").read_text() != "a" * 1000
    power.lose("all")
    assert names(folder) == ["a", "b"]
    assert [(folder / name).read_text() for name in "ab"] == ["a" * 1000, "b" * 1000]


@pytest.mark.parametrize("synced", [False, True])
def test_a_rename_without_a_sync_is_undone_sometimes(tmp_path: Path, synced: bool) -> None:
    found = set()
    text = "os.rename('b', 'a')\n"
    if synced:
        text += "os.fsync(os.open('.', os.O_RDONLY))\n"
    for seed in range(30):
        folder = tmp_path / str(seed)
        folder.mkdir()
        for name in "ab":
            (folder / name).write_text(name)
        with Power(folder, seed) as power:
            program(power, text + DIE)
            power.lose()
        found.add((tuple(names(folder)), (folder / "a").read_text()))
    assert found == ({(("a",), "b")} if synced else {(("a",), "b"), (("a", "b"), "a")})


def test_a_removed_file_takes_no_space_when_its_folder_is_synced(
    power: Power, folder: Path
) -> None:
    (folder / "a").write_text("a")
    (graves,) = folder.parent.glob(".power-*")
    look = f"print(os.listdir({str(graves)!r}))\n"
    text = f"os.remove('a')\n{look}os.fsync(os.open('.', os.O_RDONLY))\n{look}"
    before, after = program(power, text, 0).splitlines()
    assert (before != "[]", after) == (True, "[]")
    power.lose("all")
    assert names(folder) == []


def test_a_rename_between_folders_loses_nothing(power: Power, folder: Path) -> None:
    """Not though the folder that it goes to is new, and its own name was not synced."""
    (folder / "a").write_text("a")
    (folder / "b").mkdir()
    text = "os.mkdir('b/c')\nos.rename('a', 'b/c/a')\nos.fsync(os.open('b/c', os.O_RDONLY))\n"
    program(power, text + DIE)
    power.lose("all")
    assert names(folder) == ["b"]
    assert (folder / "b/c/a").read_text() == "a"


def test_a_write_is_torn_between_sectors(tmp_path: Path) -> None:
    seen = set()
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "a").write_bytes(b"o" * 4096)
        with Power(folder, seed) as power:
            program(power, "os.write(os.open('a', os.O_WRONLY), b'n' * 4096)\n" + DIE)
            loss = power.lose("torn")
        data = (folder / "a").read_bytes()
        sectors = [data[at : at + 512] for at in range(0, 4096, 512)]
        assert set(sectors) <= {b"o" * 512, b"n" * 512}
        assert (loss.writes_kept, loss.writes_torn, loss.writes_lost) in {
            (1, 0, 0),
            (0, 1, 0),
            (0, 0, 1),
        }
        assert loss.writes_torn == (len(set(sectors)) == 2)
        seen.add(loss[2:5])
    assert len(seen) == 3


def test_equal_seeds_have_equal_losses(tmp_path: Path) -> None:
    text = (
        "for n in range(9):\n"
        "    fd = os.open(str(n), os.O_WRONLY | os.O_CREAT)\n"
        "    os.write(fd, b'.' * 2000)\n"
    )

    def left(again: int, seed: int) -> list[tuple[str, bytes]]:
        folder = tmp_path / f"{again} {seed}"
        folder.mkdir()
        with Power(folder, seed) as power:
            program(power, text + DIE)
            power.lose()
        return [(name, (folder / name).read_bytes()) for name in names(folder)]

    results = [left(0, seed) for seed in range(8)]
    assert results == [left(1, seed) for seed in range(8)]
    assert len(set(map(str, results))) > 3


SYNCING = """
import _thread
done = _thread.allocate_lock()
done.acquire()
fd = os.open("a", os.O_WRONLY)
os.write(fd, b"early")
def sync():
    os.fsync(fd)
    done.release()
_thread.start_new_thread(sync, ())
sys.stdin.readline()
os.write(fd, b" late")
print(flush=True)
done.acquire()
print(flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(("returns", "left"), [(False, "old"), (True, "early")])
def test_a_sync_keeps_what_was_written_before_it(
    power: Power, folder: Path, returns: bool, left: str
) -> None:
    """If it has returned; and not what was written while it was under way."""
    (folder / "a").write_text("old")
    power.slow(500 if returns else 100_000)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import os, sys\n" + SYNCING],
        cwd=folder,
        env={**os.environ, **power.environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        eventually(lambda: power.injected.slow_syncs == 1, what="the sync to begin")
        process.stdin.write(b"go on\n")
        process.stdin.flush()
        assert process.stdout.readline()
        assert not returns or process.stdout.readline()
        process.kill()
    assert (folder / "a").read_text() == "early late"
    power.lose("all")
    assert (folder / "a").read_text() == left


def test_whoever_is_killed_while_it_makes_the_lock_has_a_successor(power: Power) -> None:
    """The next process must not wait for it for ever."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as gone:
        pass
    power._set("ready", gone.pid << 2 | 1)
    assert program(power, "print('alive', flush=True)\n" + DIE) == "alive\n"
    assert power._get("ready") == 2


def test_an_orderly_end_may_be_taken_for_durable(power: Power, folder: Path) -> None:
    program(power, "open('a', 'w').write('a')\n", 0)
    power.forget()
    program(power, "open('b', 'w').write('b')\n" + DIE)
    power.lose("all")
    assert names(folder) == ["a"]


THREADS = """
import _thread, json
done = _thread.allocate_lock()
def work(name):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.fsync(os.open(".", os.O_RDONLY))
    number = 0
    while True:
        number += 1
        os.write(fd, b"%08d\\n" % number)
        if number % 5 == 0:
            os.fdatasync(fd)
            os.write(1, b"%s %d\\n" % (name.encode(), number))
if {fork} and os.fork() == 0:
    work("fork")
for name in ("one", "two", "three"):
    _thread.start_new_thread(work, (name,))
done.acquire()
done.acquire()
"""


@pytest.mark.parametrize("fork", [False, True])
def test_threads_and_children_are_covered(folder: Path, power: Power, fork: bool) -> None:
    writers = {"one", "two", "three"} | ({"fork"} if fork else set())
    lost = 0
    for _ in range(dose(4, 40)):
        for name in names(folder):
            (folder / name).unlink()
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import os\n" + THREADS.format(fork=fork)],
            cwd=folder,
            env={**os.environ, **power.environment()},
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            told: dict[str, int] = {}
            while told.keys() != writers or sum(told.values()) < 200:
                name, number = process.stdout.readline().split()
                told[name.decode()] = int(number)
            os.killpg(process.pid, signal.SIGKILL)
            for line in process.stdout.read().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    name, number = line.split()
                    told[name.decode()] = int(number)
        loss = power.lose("all")
        lost += loss.writes_lost
        for writer, number in told.items():
            found = [int(word) for word in (folder / writer).read_text().split()]
            assert found == list(range(1, len(found) + 1))
            assert number <= len(found) <= number + 5
    assert lost > 0


def test_a_child_that_is_killed_alone_stops_nobody(folder: Path, power: Power) -> None:
    """It may have had the lock: the others go on, and its half done change is known."""
    text = """
import select
ends = 0
for turn in range(40):
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        name = "child %d" % turn
        fd = os.open(name, os.O_WRONLY | os.O_CREAT)
        os.write(into, b"!")
        while True:
            os.pwrite(fd, b"x" * 10000, 0)
            os.rename(name, "b")
            os.rename("b", name)
    os.close(into)
    os.read(out, 1)
    for _ in range(turn):
        os.stat(".")
    os.kill(child, 9)
    os.waitpid(child, 0)
    fd = os.open("mine", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"%d" % turn)
    os.fsync(fd)
    os.fsync(os.open(".", os.O_RDONLY))
"""
    program(power, text + DIE)
    assert (folder / "mine").read_text() == "39"
    before = names(folder)
    power.lose("all")
    assert (folder / "mine").read_text() == "39"
    assert len(before) > 5  # some died while theirs was called b, like those before them
    assert names(folder) == before


# --- bad disks -----------------------------------------------------------------------------------

TRY = """
def attempt(what, *arguments):
    try:
        print(what(*arguments))
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def test_a_failed_sync_is_never_made_good(power: Power, folder: Path) -> None:
    (folder / "a").write_text("old")
    power.fail_sync(skip=1, times=1, only="files")
    text = TRY + (
        "fd = os.open('a', os.O_WRONLY)\n"
        "attempt(os.fsync, fd)\n"
        "os.pwrite(fd, b'new', 0)\n"
        "attempt(os.fdatasync, fd)\n"
        "attempt(os.fdatasync, fd)\n"
        "print(open('a').read())\n"
        "sys.stdout.flush()\n"
    )
    assert program(power, text + DIE).split() == ["None", "EIO", "None", "new"]
    assert power.injected.failed_syncs == 1
    power.lose("all")
    assert (folder / "a").read_text() == "old"


def test_syncs_of_folders_fail_for_good(power: Power, folder: Path) -> None:
    power.fail_sync(times=1, only="folders", error=errno.ENOSPC)
    text = TRY + (
        "fd = os.open('a', os.O_WRONLY | os.O_CREAT)\n"
        "attempt(os.fsync, fd)\n"
        "folder = os.open('.', os.O_RDONLY)\n"
        "attempt(os.fsync, folder)\n"
        "attempt(os.fsync, folder)\n"
        "sys.stdout.flush()\n"
    )
    assert program(power, text + DIE).split() == ["None", "ENOSPC", "None"]
    power.lose("all")
    assert names(folder) == []
    assert program(power, text + DIE).split() == ["None", "None", "None"]  # it was only once
    power.lose("all")
    assert names(folder) == ["a"]


def test_elsewhere_the_disk_is_good(power: Power, folder: Path) -> None:
    power.fail_sync()
    power.fail_writes()
    text = (
        "fd = os.open('../b', os.O_WRONLY | os.O_CREAT)\n"
        "os.write(fd, b'b' * 10)\n"
        "os.fsync(fd)\n"
        "os.fsync(os.open('..', os.O_RDONLY))\n"
    )
    program(power, text + DIE)
    power.lose("all")
    assert (folder.parent / "b").read_text() == "b" * 10
    assert power.injected == (0, 0, 0, 0)


GROW = TRY + (
    "fd = os.open('a', os.O_RDWR | os.O_CREAT)\n"
    "attempt(os.write, fd, b'x' * 60)\n"
    "attempt(os.write, fd, b'x' * 60)\n"
    "attempt(os.write, fd, b'x' * 60)\n"
    "attempt(os.pwrite, fd, b'y' * 60, 0)\n"
    "attempt(os.posix_fallocate, fd, 0, 1000)\n"
    "sys.stdin.readline()\n"
    "attempt(os.write, fd, b'x' * 60)\n"
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errno.ENOSPC, ["60", "40", "ENOSPC", "60", "ENOSPC", "60"]),
        (errno.EIO, ["60", "40", "EIO", "EIO", "None", "60"]),
    ],
)
def test_a_budget_of_bytes_and_its_end(
    power: Power, folder: Path, error: int, expected: list[str]
) -> None:
    power.fail_writes(100, error)
    with subprocess.Popen(
        [sys.executable, "-u", "-I", "-S", "-c", "import errno, os, sys\n" + GROW],
        cwd=folder,
        env={**os.environ, **power.environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(5)]
        assert power.injected.failed_writes >= 2
        power.heal()
        process.stdin.write("\n")
        process.stdin.flush()
        said.append(process.stdout.readline().strip())
    assert said == expected
    power.lose("all")
    assert names(folder) == []


def test_writes_are_short(power: Power, folder: Path) -> None:
    power.shorten_writes()
    text = (
        "fd = os.open('a', os.O_WRONLY | os.O_CREAT)\n"
        "data, turns = os.urandom(5000), 0\n"
        "left = data\n"
        "while left:\n"
        "    done = os.writev(fd, [left[:10], left[10:]])\n"
        "    assert done < len(left) or done == 1, done\n"
        "    left, turns = left[done:], turns + 1\n"
        "assert open('a', 'rb').read() == data\n"
        "print(turns)\n"
    )
    assert int(program(power, text, 0)) == power.injected.short_writes + 1 > 3


def test_syncs_are_slow(power: Power, folder: Path) -> None:
    text = (
        "import time\n"
        "fd = os.open('a', os.O_WRONLY | os.O_CREAT)\n"
        "begin = time.monotonic()\n"
        "os.fsync(fd)\n"
        "print(time.monotonic() - begin)\n"
    )
    power.slow(300)
    assert float(program(power, text, 0)) >= 0.3
    assert power.injected.slow_syncs == 1
    power.heal()
    program(power, text, 0)
    assert power.injected.slow_syncs == 1


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import mmap; mmap.mmap(os.open('a', os.O_RDWR), 5)", "shared mapping"),
        ("os.open('a', os.O_WRONLY | os.O_DIRECT)", "O_DIRECT"),
        ("os.open('a', os.O_WRONLY | os.O_SYNC)", "O_SYNC"),
        ("os.open('.', os.O_WRONLY | os.O_TMPFILE)", "O_TMPFILE"),
        ("os.symlink('a', 'b')", "symbolic link"),
        ("os.open('../link', os.O_WRONLY)", "symbolic link"),
        ("os.mkfifo('b')", "mknod"),
        ("os.rename('a', '../a')", "across the border"),
        ("os.rename('../outside', 'b')", "across the border"),
        ("os.link('a', '../a')", "across the border"),
        ("os.mkdir('b'); os.mkdir('c'); os.rename('c', 'b')", "replaces a folder"),
        ("os.rename('../watched', '../moved')", "itself"),
        ("os.rmdir('../watched')", "itself"),
        (
            "import ctypes\nctypes.CDLL(None).syscall(ctypes.c_long(425), 8, b' ' * 200)",
            "io_uring",
        ),
        ("import ctypes\nctypes.CDLL(None).fopen(b'a', b'r+')", "fopen"),
        ("import ctypes\nctypes.CDLL(None).fallocate(os.open('a', 2), 3, 0, 0, 1, 0)", "fallocate"),
    ],
)
def test_what_cannot_be_taken_back_ends_the_program(
    power: Power, folder: Path, text: str, said: str
) -> None:
    (folder / "a").write_text("abcde")
    (folder.parent / "outside").touch()
    (folder.parent / "link").symlink_to(folder / "a")
    told = program(power, text, REFUSED, site=True)
    assert told.startswith("power: ")
    assert said in told
    with pytest.raises(EngineError, match=said):
        power.lose()
    assert (folder / "a").read_text() == "abcde"


def test_mappings_may_be_allowed(folder: Path) -> None:
    """What is written to one is kept by nobody, and what is written to the file beside it is."""
    (folder / "a").write_bytes(b"." * 9000)
    text = (
        "import mmap\n"
        "fd = os.open('a', os.O_RDWR)\n"
        "mapped = mmap.mmap(fd, 9000)\n"
        "mapped[10:20] = b'x' * 10\n"
        "mapped[8500:8510] = b'x' * 10\n"
        "os.pwrite(fd, b'y' * 10, 30)\n"
        "os.fsync(fd)\n"
    )
    with Power(folder, mappings=True) as power:
        program(power, text + DIE, site=True)
        power.lose("all")
    page = (b"." * 10 + b"x" * 10 + b"." * 10 + b"y" * 10).ljust(4096, b".")
    assert (folder / "a").read_bytes() == page.ljust(9000, b".")


def test_reading_is_not_refused(power: Power, folder: Path) -> None:
    (folder / "a").write_text("abcde")
    text = (
        "import mmap, shutil\n"
        "fd = os.open('a', os.O_RDONLY)\n"
        "assert mmap.mmap(fd, 5, prot=mmap.PROT_READ)[:] == b'abcde'\n"
        "shutil.copy('a', 'b')\n"  # by sendfile, where that works
        "import subprocess\n"
        "subprocess.run(['/bin/sh', '-c', 'echo more >> b; cat b > c'], check=True)\n"
        "print(open('c').read(), flush=True)\n"
    )
    assert program(power, text + DIE, site=True) == "abcdemore\n\n"
    assert names(folder) == ["a", "b", "c"]
    power.lose("all")
    assert names(folder) == ["a"]


def test_it_waits_for_nobody_who_lives(
    power: Power, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GONE_SECONDS", 0.05)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "print(flush=True); input()"],
        env={**os.environ, **power.environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(RefusedError, match="still runs"):
            power.lose()
        process.kill()
    assert power.lose().synced == 0


def test_a_program_without_the_library_is_noticed(power: Power) -> None:
    with pytest.raises(EngineError, match="No process has loaded the library"):
        power.lose()


def test_a_full_journal_is_said(folder: Path) -> None:
    (folder / "a").write_bytes(os.urandom(50_000))
    with Power(folder, limit=40_000) as power:
        text = "os.write(os.open('a', os.O_WRONLY), b'x' * 50000)\n"
        assert "journal is full" in program(power, text, REFUSED)


def test_memory_is_no_disk(tmp_path: Path) -> None:
    if not os.path.isdir("/dev/shm"):
        pytest.skip("there is no /dev/shm")
    with pytest.raises(UsageError, match="on a tmpfs, in memory"):
        Power("/dev/shm")
    with pytest.raises(UsageError, match="is not a folder"):
        Power(tmp_path / "missing")
    (tmp_path / "a").mkdir()
    with pytest.raises(UsageError, match="in memory"):
        Power(tmp_path / "a", also=("/dev/shm",))
    with Power(tmp_path / "a") as power:
        with pytest.raises(UsageError, match="all, prefix, torn"):
            power.lose("some")
        with pytest.raises(UsageError, match="files or folders"):
            power.fail_sync(only="names")
    assert names(tmp_path) == ["a"]
    assert not os.path.exists(power.journal or tmp_path / "none")


# --- small disks ---------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        with SmallDisk(tmp_path / "disk", 8) as made:
            yield made
    except EngineError as error:
        if IN_CI or isinstance(error, UsageError):
            raise
        pytest.skip(str(error))
    assert names(tmp_path) == []


def test_a_small_disk_is_full_and_loses_power(disk: SmallDisk) -> None:
    with pytest.raises(UsageError, match="where its disk is mounted"):
        Power(disk.path)
    folder = Path(disk.path) / "data"
    folder.mkdir()
    (folder / "old").write_bytes(os.urandom(1 << 20))
    free = disk.free
    assert 2 << 20 < free < 8 << 20
    text = TRY + (
        "fd = os.open('a', os.O_WRONLY | os.O_CREAT)\n"
        "try:\n"
        "    while True: os.write(fd, b'x' * 65536)\n"
        "except OSError as error: print(errno.errorcode[error.errno])\n"
        "os.remove('old')\n"
        "os.fsync(os.open('.', os.O_RDONLY))\n"
        "attempt(os.write, fd, b'y' * 65536)\n"
        "sys.stdout.flush()\n"
    )
    with Power(folder) as power:
        assert program(power, text + DIE).split() == ["ENOSPC", "65536"]
        power.lose("all")
    assert names(folder) == ["a"]
    assert (folder / "a").stat().st_size == 0
    assert disk.free > free


def test_a_small_disk_leaves_nothing(tmp_path: Path, disk: SmallDisk) -> None:
    """Not even when it fails, or is still in use."""
    files = []

    def use() -> None:
        with SmallDisk(tmp_path / "other", 4) as other:
            files.append(open(f"{other.path}/busy", "w"))
            assert names(tmp_path) == ["disk", "disk.image", "other", "other.image"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    files[0].close()
    assert names(tmp_path) == ["disk", "disk.image"]
    with pytest.raises(UsageError, match="exists"):
        SmallDisk(tmp_path / "disk", 4)
    with pytest.raises(UsageError, match="too small"):
        SmallDisk(tmp_path / "another", 1)


def test_a_small_disk_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EngineError, match="only root"), SmallDisk(tmp_path / "disk", 4):
        pass
    assert names(tmp_path) == []


# --- clusters ------------------------------------------------------------------------------------

SERVER = """
import os, signal, sys
fd = os.open(os.path.join(sys.argv[1], "log"), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
os.fsync(os.open(sys.argv[1], os.O_RDONLY))
print(os.pread(fd, 100, 0), file=sys.stderr, flush=True)
os.write(fd, b"synced ")
os.fsync(fd)
os.write(fd, b"not ")
print('{"address": "somewhere"}', flush=True)
signal.pause()
"""


def test_a_cluster_loses_power(tmp_path: Path, folder: Path, power: Power) -> None:
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    with Cluster(tmp_path, seed=7, factor=TIME_FACTOR) as cluster:
        for turn in range(3):
            node = cluster.start("a", str(folder), program=str(path), power=power)
            assert node.said().strip() == repr(b"synced " * turn)
            loss = cluster.kill("a", power=True)
            assert loss is not None
            if loss.way == "all":
                assert loss.writes_lost == 1
            (folder / "log").write_bytes(b"synced " * (turn + 1))
        cluster.start("a", str(folder), program=str(path), power=power)
        assert cluster.kill("a") is None
        node = cluster.start("a", str(folder), program=str(path))
        assert node.said().strip() == repr(b"synced " * 4 + b"not ")
        with pytest.raises(UsageError, match="without a power"):
            cluster.kill("a", power=True)


def test_what_it_costs(folder: Path, power: Power) -> None:
    """An append and its sync are not much slower: a figure for whoever looks (-rA)."""
    text = (
        "import json, time\n"
        "fd = os.open('a' + sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
        "begin = time.monotonic()\n"
        "for _ in range(200):\n"
        "    os.write(fd, b'x' * 200)\n"
        "    os.fdatasync(fd)\n"
        "print(json.dumps(time.monotonic() - begin))\n"
    )

    def seconds(name: str, environment: dict[str, str]) -> float:
        command = [sys.executable, "-I", "-S", "-c", "import os, sys\n" + text, name]
        ended = run(command, cwd=folder, env={**os.environ, **environment})
        return float(json.loads(ended.out))

    pairs = [
        (seconds(f"{n} plain", {}), seconds(f"{n} power", power.environment())) for n in range(3)
    ]
    plain, watched = (min(times) for times in zip(*pairs, strict=True))
    print(f"append and fdatasync: {plain / 200 * 1e6:.0f} µs, with it {watched / 200 * 1e6:.0f} µs")
    assert power.noted > 3 * 200 * 2 * 72
