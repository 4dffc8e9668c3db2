"""The engine's own files under a loss of power: what was said to be durable is there.

Each promise is also broken on purpose, by a sync that is left out. A kill alone never shows it, the
loss of power always does: so these tests would see it if it were forgotten.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from support import dose, engine, patience, run

from engine.faults.power import Power
from engine.kernels.checksum import crc32c
from engine.storage.directory import Folder
from engine.storage.log import Log, LogSettings

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="it is preloaded, on Linux"),
]

LOG = """
import os, random, sys, threading
import engine.storage.directory as directory
from engine.kernels.checksum import crc32c
from engine.storage.directory import Folder, FolderFile
from engine.storage.entries import COMMAND, Append, Base, Entry, State
from engine.storage.log import Log, LogSettings

path, seed, bug = sys.argv[1], sys.argv[2], sys.argv[3]
sync = Log.sync
if bug == "no sync of files":
    FolderFile.sync = lambda self: None
elif bug == "no sync of names":
    def forgetful(self):
        self._names_changed = False
        return sync(self)
    Log.sync = forgetful
rng = random.Random(seed)
log = Log.open(Folder(path), LogSettings(4096, 0, 512, 1024), lambda: rng.getrandbits(64))
group = log.recovered.get(1)
last = group.base.last + len(group.terms) if group else 0
base = group.base.last if group else 0
marks, ready, pace = [], threading.Condition(), threading.Semaphore(40)
print("open", last, flush=True)

def settle():
    while True:
        with ready:
            ready.wait_for(lambda: marks)
            upto, many = marks[-1], len(marks)
            marks.clear()
        mark = log.sync()
        log.settle(mark)
        os.write(1, b"durable %d\\n" % upto)
        pace.release(many)

settler = threading.Thread(target=settle, daemon=True)
settler.start()
while True:
    entries = []
    for _ in range(rng.randint(1, 4)):
        last += 1
        body = b"%d " % last * rng.randint(1, 40)
        entries.append(Entry(1, COMMAND, crc32c(body), body))
    writes = [Append(1, last + 1 - len(entries), tuple(entries))]
    if last - base > 60:
        base = last - 30
        writes.append(Base(1, base, 1, b""))
    while not pace.acquire(timeout=1) and settler.is_alive():
        pass  # never far ahead of the disk
    log.append(writes)
    with ready:
        marks.append(last)
        ready.notify()
    if rng.random() < 0.3:
        while log.maintain():
            pass
"""
ATOMIC = """
import os, sys
import engine.storage.files as files

path, bug = sys.argv[1], sys.argv[3]
if bug == "no sync of the folder":
    files.sync_directory = lambda path: None
elif bug == "no sync of the file":
    files.sync_file = lambda fd: None
there = os.path.join(path, "there")
number = int(open(there).read().split()[0]) if os.path.exists(there) else 0
print("open", number, flush=True)
while True:
    number += 1
    files.write_atomically(there, b"%d " % number * 300)
    os.write(1, b"durable %d\\n" % number)
"""


def life(text: str, folder: Path, power: Power, rng: Random, bug: str = "") -> int:
    """Run it until it has said some more, kill it at any moment: the last that was durable."""
    command = [sys.executable, "-c", text, str(folder), str(rng.getrandbits(32)), bug]
    with subprocess.Popen(
        command, env={**os.environ, **power.environment()}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        durable = -1
        lines = rng.randint(1, 30)
        try:
            for _ in range(lines):
                durable = int(process.stdout.readline().split()[1])
            until = time.monotonic() + rng.random() * 0.003
            while time.monotonic() < until:
                pass  # to die anywhere between two lines
        finally:
            process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().splitlines(keepends=True):
            if line.endswith(b"\n"):
                durable = int(line.split()[1])
    assert process.returncode == -signal.SIGKILL
    return durable


def last_of_log(folder: Path) -> int:
    """The last entry, if all of them are what they were written as."""
    rng = Random(1)
    settings = LogSettings(4096, 0, 512, 1024)
    log = Log.open(Folder(str(folder)), settings, lambda: rng.getrandbits(64))
    try:
        group = log.recovered.get(1)
        if group is None:
            return 0
        assert group.lost is None, "it takes a loss of power for damage"
        last = group.base.last + len(group.terms)
        for number in range(group.base.last + 1, last + 1):
            (found,) = log.entries(1, number, number, 1 << 20)
            assert found.body.split()[0] == b"%d" % number
            assert found.crc == crc32c(found.body)
        return last
    finally:
        log.close()


def last_of_file(folder: Path) -> int:
    """The number in it, if it is whole."""
    path = folder / "there"
    if not path.exists():
        return 0
    words = path.read_text().split()
    assert len(words) == 300
    assert len(set(words)) == 1
    return int(words[0])


PROGRAMS = {"log": (LOG, last_of_log), "file": (ATOMIC, last_of_file)}


def lives(what: str, folder: Path, seed: int, many: int, bug: str = "", cut: bool = True) -> int:
    """So many lives, one after the other, in one folder: how much was lost of what was durable.

    Without `cut` the process is killed, and power stays.
    """
    text, last = PROGRAMS[what]
    rng = Random(f"{what} {seed}")
    folder.mkdir()
    missing = lost = 0
    for _ in range(many):
        with Power(folder, rng.getrandbits(32)) as power:
            durable = life(text, folder, power, rng, bug)
            if cut:
                loss = power.lose()
                lost += loss.writes_lost + loss.writes_torn
            missing += max(0, durable - last(folder))
    assert bug or not cut or many < 100 or lost > 0
    return missing


@pytest.mark.parametrize("what", PROGRAMS)
def test_what_is_durable_survives(what: str, tmp_path: Path) -> None:
    assert lives(what, tmp_path / "data", 1, dose(12, 400)) == 0


BUGS = [
    ("log", "no sync of files"),
    ("log", "no sync of names"),
    ("file", "no sync of the folder"),
    ("file", "no sync of the file"),
]


@pytest.mark.parametrize(("what", "bug"), BUGS)
def test_a_forgotten_sync_is_found(what: str, bug: str, tmp_path: Path) -> None:
    """By a loss of power, in a few lives, and never by a kill."""
    assert lives(what, tmp_path / "killed", 2, 4, bug, cut=False) == 0
    for seed in range(20):
        try:
            if lives(what, tmp_path / str(seed), seed, 2, bug) > 0:
                return
        except AssertionError:
            return  # it is not even whole
    pytest.fail("nobody noticed")


@pytest.mark.parametrize("fault", ["fails", "full", "short", "slow"])
def test_a_bad_disk_loses_nothing(fault: str, tmp_path: Path) -> None:
    """The log ends with an error, or is only slow; what it called durable is there."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = Random(fault)
    with Power(folder, 3) as power:
        for turn in range(dose(3, 60)):
            if fault == "fails":
                power.fail_sync(skip=rng.randint(3, 30), times=1)
            elif fault == "full":
                power.fail_writes(rng.randint(20_000, 60_000))
            elif fault == "short":
                power.shorten_writes()
            else:
                power.slow(5)
            command = [sys.executable, "-c", LOG, str(folder), str(turn), ""]
            durable, lines = 0, 0
            with subprocess.Popen(
                command,
                env={**os.environ, **power.environment()},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process:
                assert process.stdout is not None
                while line := process.stdout.readline():
                    durable, lines = int(line.split()[1]), lines + 1
                    if fault in ("short", "slow") and lines > 20:
                        break
                    if fault == "fails" and power.injected.failed_syncs > turn:
                        break  # the thread has ended, and the loop may go on
                process.kill()
            power.heal()
            power.lose()
            assert last_of_log(folder) >= durable
            power.forget()
        struck = dict(zip(power.injected._fields, power.injected, strict=True))
    counted = {"fails": "failed_syncs", "full": "failed_writes", "short": "short_writes"}
    assert struck[counted.get(fault, "slow_syncs")] > 0


def test_a_job_that_has_ended_is_durable(tmp_path: Path) -> None:
    """Coordinator and workers, under one power."""
    folder = tmp_path / "results"
    folder.mkdir()
    (tmp_path / "in.txt").write_text("to be or not to be\n")
    with Power(folder, mappings=True) as power:  # the pages on which workers say where they are
        ended = engine(
            *("mr", "run", "wordcount", str(tmp_path / "in.txt"), "--workers", "2"),
            *("--out", str(folder / "out"), "--reducers", "3"),
            env={**os.environ, **power.environment()},
        )
        assert ended.code == 0, ended.err
        before = {p.name: p.read_bytes() for p in (folder / "out").glob("mr-out-*")}
        assert power.lose("all").synced > 0
    after = {p.name: p.read_bytes() for p in (folder / "out").glob("mr-out-*")}
    assert len(after) == 3
    assert after == before


def test_the_programs_here_run(tmp_path: Path) -> None:
    """As they are, without a power, they would go on for ever: so nothing else ends them."""
    for text, _ in PROGRAMS.values():
        command = [sys.executable, "-c", text, str(tmp_path / "missing"), "1", ""]
        assert run(command, seconds=patience(20)).code == 1
