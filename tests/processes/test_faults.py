"""Processes are killed, stopped, starved and lied to; the output is the clean run's, byte for byte.

Where a fault must strike at an exact point, the program is started with a few lines that replace a
method by one that strikes there, once; the processes, sockets and files are the real ones.
"""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from harness import APPS, digest, programs, until, write_books

pytestmark = pytest.mark.processes

RUN = "\nimport sys\nfrom engine_cmd.main import main\nsys.exit(main(sys.argv[1:]))"

STRIKE_ONCE = """
import os, signal
def strike(marker={marker!r}):
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.{signal})
"""


@pytest.fixture
def world(tmp_path):
    """Texts, a starter of programs, and the digest of a clean run of an app."""

    class World:
        texts = tmp_path / "texts"
        out = tmp_path / "out"
        marker = tmp_path / "struck"
        folder = tmp_path

    World.texts.mkdir()
    write_books(World.texts)
    with programs(tmp_path) as start:

        def run(app, *flags, out=World.out, code=None):
            return start("mr", "run", app, World.texts, "--out", out, "--json", *flags, code=code)

        def clean(app, *flags):
            out = tmp_path / f"clean-{len(list(tmp_path.iterdir()))}"
            run(app, "--on", "inline", *flags, out=out).succeed()
            return digest(out)

        World.start = staticmethod(start)
        World.run, World.clean = staticmethod(run), staticmethod(clean)
        yield World


def nothing_left(world, *programs_run):
    """No process, no hidden file, nothing but outputs and manifest."""
    assert all(not program.running for program in programs_run)
    names = {path.name for path in world.out.iterdir()}
    assert {name.partition("-")[0] for name in names} == {"mr", "manifest.json"}, names


# --- workers are killed at every phase -----------------------------------------------------------

PHASES = {
    "before reading": ("executor", "Executor", "scan", "before"),
    "read, not reported": ("executor", "Executor", "scan", "after"),
    "before the run is written": ("executor", "Executor", "commit", "before"),
    "within the run": ("executor", "Executor", "_spill", "after"),
    "run written, not reported": ("executor", "Executor", "commit", "after"),
    "before the reduce": ("executor", "Executor", "reduce", "before"),
    "output written, not reported": ("executor", "Executor", "reduce", "after"),
}


def striking(world, module, cls, method, when, name="SIGKILL"):
    """Code that sends a signal to the first worker that gets to this point."""
    code = STRIKE_ONCE.format(marker=str(world.marker), signal=name)
    code += f"import engine.mapreduce.{module} as module\n"
    code += f"original = module.{cls}.{method}\n"
    code += "def replaced(self, *arguments):\n"
    code += "    strike()\n" if when == "before" else ""
    code += "    result = original(self, *arguments)\n"
    code += "    strike()\n" if when == "after" else ""
    code += "    return result\n"
    code += f"module.{cls}.{method} = replaced\n"
    return code + RUN


@pytest.mark.parametrize("app", ["wordcount", "index"])
@pytest.mark.parametrize("phase", PHASES)
def test_worker_killed_in_every_phase(world, app, phase):
    expected = world.clean(app, "--reducers", 3)
    code = striking(world, *PHASES[phase])
    run = world.run(app, "--workers", 2, "--reducers", 3, code=code).succeed()
    assert world.marker.exists(), "nobody was killed: the test proved nothing"
    assert run.json()["deaths"] == 1
    assert digest(world.out) == expected
    nothing_left(world, run)


def test_worker_killed_from_outside_while_it_maps(world):
    app = f"{APPS}/slow.py:Slow"
    expected = world.clean(app, "--set", "seconds=0")
    run = world.run(app, "--workers", 3, "--set", "seconds=0.0005")
    victims = until(lambda: len(world_workers := run.workers()) == 3 and world_workers, 20, "3")
    victims[1].kill()
    run.succeed()
    assert run.json()["deaths"] == 1
    produced = digest(world.out)
    produced.pop("manifest.json"), expected.pop("manifest.json")
    assert produced == expected


def test_all_workers_killed_again_and_again(world):
    app = f"{APPS}/slow.py:Slow"
    expected = world.clean(app, "--set", "seconds=0")
    run = world.run(app, "--workers", 2)
    killed: set[int] = set()
    while len(killed) < 6:
        fresh = until(
            lambda: [w for w in run.workers() if w.pid not in killed] or not run.running,
            20,
            "new workers",
        )
        if fresh is True:
            break
        for worker in fresh:
            worker.kill()
            killed.add(worker.pid)
    run.succeed()
    assert len(killed) >= 6, "the job was over before it was attacked enough"
    produced = digest(world.out)
    produced.pop("manifest.json"), expected.pop("manifest.json")
    assert produced == expected


def test_values_come_in_the_order_of_the_input_whoever_dies(world):
    app = f"{APPS}/slow.py:Order"
    expected = world.clean(app)
    code = striking(world, "executor", "Executor", "commit", "before")
    world.run(app, "--workers", 3, code=code).succeed()
    assert digest(world.out) == expected


# --- the coordinator is killed -------------------------------------------------------------------

POINTS = """
import os, signal
import engine.mapreduce.server as server
count = 0
def point(self, name):
    global count
    if name == "written" or name.startswith("publish"):
        count += 1
        if count == {count}:
            os.kill(os.getpid(), signal.SIGKILL)
server.LocalWorld.point = point
"""


def test_coordinator_killed_at_every_journal_transition(world):
    expected = world.clean("wordcount", "--reducers", 2)
    flags = ("--workers", 2, "--reducers", 2)
    transitions = 0
    while True:
        transitions += 1
        out = world.folder / f"out-{transitions}"
        first = world.run("wordcount", *flags, out=out, code=POINTS.format(count=transitions) + RUN)
        family = until(lambda run=first: run.family() or not run.running, 20, "its processes")
        if first.wait() == 0:
            break
        assert first.wait() == -signal.SIGKILL, first.stderr()
        for process in family if isinstance(family, list) else []:
            until(lambda p=process: not alive(p), 2, f"{process} to follow its coordinator")
        world.run("wordcount", *flags, "--resume", out=out).succeed()
        assert digest(out) == expected, f"killed at transition {transitions}"
        assert not (out / ".job").exists()
    assert transitions > 8


def planned(world):
    """Whether the journal holds the plan: before that, there is nothing to resume."""
    journal = world.out / ".job" / "journal"
    return journal.exists() and b"pg-grimm" in journal.read_bytes()


def alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_killed_coordinator_takes_its_workers_along_and_is_resumed(world):
    app = f"{APPS}/slow.py:Slow"
    expected = world.clean(app)
    first = world.run(app, "--workers", 2)
    until(lambda: planned(world), 20, "the plan in the journal")
    family = until(lambda: len(first.workers()) == 2 and first.family(), 20, "workers")
    first.kill()
    until(lambda: not any(alive(process) for process in family), 2, "all of them to be gone")
    refused = world.run(app, "--workers", 2)
    assert refused.wait() == 6
    assert "--resume" in refused.json()["error"]
    other = world.run(app, "--workers", 2, "--reducers", 7, "--resume")
    assert other.wait() == 6
    assert "--reducers" in other.json()["error"]
    world.run(app, "--workers", 2, "--resume").succeed()
    assert digest(world.out) == expected
    again = world.run(app, "--workers", 2, "--resume").succeed()
    assert again.json()["distinct"] > 1000
    nothing_left(world, again)


def test_resume_refuses_inputs_that_changed(world):
    app = f"{APPS}/slow.py:Slow"
    first = world.run(app, "--workers", 2)
    until(lambda: first.workers() and planned(world), 20, "the plan in the journal")
    first.kill()
    book = world.texts / "pg-grimm.txt"
    book.write_text(book.read_text() + "more\n")
    refused = world.run(app, "--workers", 2, "--resume")
    assert refused.wait() == 6
    assert "inputs" in refused.json()["error"]
    world.run(app, "--workers", 2, "--force").succeed()


# --- stopped, hanging, late ----------------------------------------------------------------------

SHORT_LEASE = "import engine.mapreduce.runners as runners\nrunners.LEASE_SECONDS = 0.5\n"


def test_a_stopped_worker_is_replaced(world):
    expected = world.clean("index")
    code = SHORT_LEASE + striking(world, "executor", "Executor", "scan", "after", "SIGSTOP")
    run = world.run("index", "--workers", 2, code=code).succeed()
    assert world.marker.exists()
    assert digest(world.out) == expected
    nothing_left(world, run)


def test_a_record_may_take_longer_than_the_lease(world):
    """A worker inside the job's own code answers nobody, and need not: it is alive."""
    run = world.run(
        f"{APPS}/slow.py:Slow", "--workers", 2, "--set", "seconds=0",
        "--set", "long=1.5", code=SHORT_LEASE + RUN,
    ).succeed()  # fmt: skip
    assert run.json()["deaths"] == 0


def test_a_zombie_that_wakes_up_changes_nothing(world):
    """A joined worker is stopped with its run written, past its lease, and goes on too late."""
    expected = world.clean("index", "--reducers", 3)
    address = f"ipc://{world.folder}/join"
    coordinator = world.start(
        "mr", "coordinator", "index", world.texts, "--out", world.out, "--listen", address,
        "--workers", 0, "--reducers", 3, "--json", code=SHORT_LEASE + RUN,
    )  # fmt: skip
    code = striking(world, "executor", "Executor", "commit", "after", "SIGSTOP")
    zombie = world.start("mr", "worker", "--join", address, code=code)
    until(lambda: world.marker.exists(), 20, "the worker to be stopped")
    other = world.start("mr", "worker", "--join", address)
    coordinator.succeed()
    before = digest(world.out)
    zombie.process.send_signal(signal.SIGCONT)
    other.succeed()
    zombie.wait()
    assert digest(world.out) == before == expected
    nothing_left(world, coordinator)


def test_a_worker_that_joins_late_takes_part(world):
    app = f"{APPS}/slow.py:Slow"
    address = f"ipc://{world.folder}/join"
    coordinator = world.start(
        "mr", "coordinator", app, world.texts, "--out", world.out, "--listen", address,
        "--workers", 1, "--json",
    )  # fmt: skip
    until(lambda: coordinator.workers(), 20, "the first worker")
    late = world.start("mr", "worker", "--join", address)
    coordinator.succeed()
    late.succeed()
    assert coordinator.json()["distinct"] > 1000


def poison(world, count=1):
    book = world.texts / "pg-grimm.txt"
    lines = book.read_text().split("\n")
    for number in range(count):
        lines[100 + 50 * number] = "poison here"
    book.write_text("\n".join(lines))
    return len("\n".join(lines[:100]).encode()) + 1


def test_an_exception_names_file_offset_record_and_shows_the_traceback(world):
    offset = poison(world)
    run = world.run(f"{APPS}/slow.py:Poison", "--workers", 2)
    assert run.wait() == 1
    error = run.json()["error"]
    for text in ("pg-grimm.txt", f"byte {offset}", "poison here", "ValueError", "attempt"):
        assert text in error, error
    assert "Traceback" in run.json()["detail"]
    assert "suffer" in run.json()["detail"]
    assert not world.out.exists(), "a failed job leaves nothing"


def test_bad_records_are_skipped_up_to_a_number(world):
    poison(world, count=3)
    app = f"{APPS}/slow.py:Poison"
    run = world.run(app, "--workers", 2, "--skip-bad", 3).succeed()
    assert run.json()["skipped"] == 3
    too_many = world.run(app, "--workers", 2, "--skip-bad", 2, out=world.folder / "other")
    assert too_many.wait() == 1
    harmless = world.clean(app, "--set", "marker=nowhere")
    lines = b"".join(v for k, v in digest(world.out).items() if k.startswith("mr-out"))
    everything = b"".join(v for k, v in harmless.items() if k.startswith("mr-out"))
    assert b"\npoison " not in lines
    assert b"poison 3\n" in everything


def test_a_segfault_is_survived_or_names_the_record(world):
    poison(world)
    app = f"{APPS}/slow.py:Poison"
    run = world.run(app, "--workers", 2, "--set", "what=segfault")
    assert run.wait() == 1
    assert "pg-grimm.txt" in run.json()["error"]
    assert "SIGSEGV" in run.json()["error"]
    skipped = world.run(app, "--workers", 2, "--set", "what=segfault", "--skip-bad", 1)
    assert skipped.succeed().json()["skipped"] == 1


def test_a_hang_is_ended_by_the_record_timeout(world):
    poison(world)
    flags = ("--workers", 2, "--set", "what=hang", "--record-timeout", 0.5)
    run = world.run(f"{APPS}/slow.py:Poison", *flags)
    assert run.wait() == 1
    assert "--record-timeout" in run.json()["error"]
    skipped = world.run(f"{APPS}/slow.py:Poison", *flags, "--skip-bad", 1).succeed()
    assert skipped.json()["skipped"] == 1


# --- inputs, disks, runs -------------------------------------------------------------------------


def test_missing_and_unreadable_inputs(world):
    run = world.start("mr", "run", "wordcount", world.texts / "no", "--out", world.out, "--json")
    assert run.wait() == 3
    assert "texts/no" in run.json()["error"]
    assert not world.out.exists()


def test_an_input_that_changes_fails_the_job(world):
    app = f"{APPS}/slow.py:Slow"
    run = world.run(app, "--workers", 2, "--set", "seconds=0.002")
    until(lambda: planned(world), 20, "the plan in the journal")
    for book in world.texts.iterdir():
        os.utime(book, ns=(0, 0))
    assert run.wait() == 1
    assert "changed while the job ran" in run.json()["error"]
    assert not world.out.exists()


DAMAGE = """
import os
import engine.mapreduce.server as server
from engine.mapreduce.messages import {record}
original = server.LocalWorld.write
done = False
def write(self, group):
    global done
    for item in group:
        if isinstance(item.record, {record}) and not done:
            done = True
            {damage}
    return original(self, group)
server.LocalWorld.write = write
"""
FLIP = """f = open(item.record.path, "r+b"); f.seek(60); c = f.read(1); f.seek(60); \
f.write(bytes([c[0] ^ 4])); f.close()"""


@pytest.mark.parametrize("record", ["RunAccepted", "OutputAccepted"])
@pytest.mark.parametrize("damage", ["flip", "missing", "truncated"])
@pytest.mark.parametrize("app", ["wordcount", "index"])
def test_damaged_runs_and_parts_are_made_again(world, app, damage, record):
    expected = world.clean(app, "--reducers", 2)
    how = {
        "flip": FLIP,
        "missing": "os.unlink(item.record.path)",
        "truncated": "os.truncate(item.record.path, 70)",
    }[damage]
    code = DAMAGE.format(record=record, damage=how) + RUN
    run = world.run(app, "--workers", 2, "--reducers", 2, code=code).succeed()
    assert digest(world.out) == expected
    assert run.json()["attempts"]["committed"] > 2
    nothing_left(world, run)


def test_a_full_disk_is_one_clear_error(world):
    """A real full file system: one of 1 MB, mounted in a namespace that ends with the program."""
    small = world.folder / "small"
    small.mkdir()
    for seed in range(2, 8):
        (world.texts / str(seed)).mkdir()
        write_books(world.texts / str(seed), size=60_000, seed=seed)
    code = (
        "import os, subprocess, sys\n"
        f"subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', {str(small)!r}],"
        " check=True)" + RUN
    )
    unshare = (
        "import os, sys\n"
        "flags = ['-m'] if os.geteuid() == 0 else ['-rm']\n"
        f"os.execvp('unshare', ['unshare', *flags, sys.executable, '-c', {code!r}, *sys.argv[1:]])"
    )
    run = world.run(f"{APPS}/slow.py:Order", "--workers", 2, "--scratch", small, code=unshare)
    assert run.wait() == 1, run.stderr()
    assert "no space left" in run.json()["error"]
    assert "--scratch" in run.json()["error"]
    assert not world.out.exists()


def test_ctrl_c_leaves_nothing(world):
    app = f"{APPS}/slow.py:Slow"
    run = world.run(app, "--workers", 2)
    family = until(lambda: len(run.workers()) == 2 and run.family(), 20, "workers")
    run.interrupt()
    assert run.wait() == 130
    until(lambda: not any(alive(process) for process in family), 5, "everybody to leave")
    assert not world.out.exists()


@pytest.mark.parametrize("memory", [1, 4])
def test_little_memory_spills_and_is_right(world, memory):
    for app in ("wordcount", "index"):
        expected = world.clean(app)
        out = world.folder / f"out-{app}"
        run = world.run(app, "--workers", 2, "--memory", memory, out=out).succeed()
        assert digest(out) == expected
        assert run.json()["rss_max_bytes"] < (memory + 64) << 20


def test_workers_say_so_in_ps(world):
    run = world.run(f"{APPS}/slow.py:Slow", "--workers", 2)
    workers = until(lambda: len(found := run.workers()) == 2 and found, 20, "two workers")
    assert all("worker" in worker.name() or "worker" in worker.cmdline()[0] for worker in workers)
    run.succeed()
