"""Supervised processes, for real: each test is a program of its own, with its own children.

The supervisor wants a process without threads to fork from, and this one (pytest) may have some.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import TIME_FACTOR, dose, patience, run
from waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
LINUX = sys.platform == "linux"
METHODS = ["fork", "spawn"] if LINUX else ["spawn"]

TARGETS = """
import os, signal, sys, time

def work(node, address, arguments):
    what, *rest = arguments
    if what == "exit":
        sys.exit(node)
    if what == "raise":
        raise ZeroDivisionError("on purpose")
    if what == "fail":
        from engine.errors import ConnectionFailed
        raise ConnectionFailed("nobody there")
    if what == "tell":
        from engine.runtime.processes import parent_pipe
        with open(rest[0] + str(node), "w") as file:
            file.write(repr((
                node, address, os.getppid(), sorted(map(int, os.listdir("/proc/self/fd"))),
                parent_pipe(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
                signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
                list(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "program" in sys.modules,
                sys.modules["__main__"].__dict__.get("MARK"),
            )))
        return
    while True:
        signal.pause()
"""

PROGRAM = """
import json, os, select, signal, sys, threading, time
from engine.runtime.processes import Supervisor
from engine.errors import *
import targets
MARK = "the program's own main module"
with open(os.environ["RUNS"], "a") as file:
    file.write("run\\n")

def wait(supervisor, seconds=10.0 * float(os.environ.get("ENGINE_TIME_FACTOR", "1"))):
    poll = select.poll()
    for fd in supervisor.filenos():
        poll.register(fd, select.POLLIN)
    assert poll.poll(seconds * 1000), "nothing happened"
    return supervisor.events()

def until(supervisor, true):
    events = []
    while not true(events):
        events += wait(supervisor)
    return events

def pids_of(supervisor):
    return {node: child.pid for node, child in supervisor._children.items()}

def born(supervisor, count):
    return until(supervisor, lambda events: len(pids_of(supervisor)) >= count)

def ended(supervisor, count):
    return sorted(until(supervisor, lambda events: len(events) >= count))

def say(*values):
    print(json.dumps(values), flush=True)

"""


class Program:
    """A Python program in a directory of its own, beside the module `targets`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "targets.py").write_text(TARGETS)
        self.runs = folder / "runs"
        path = os.pathsep.join((str(ROOT), str(folder)))
        self.environ = {**os.environ, "PYTHONPATH": path, "RUNS": str(self.runs)}

    def command(self, body: str) -> list[str]:
        file = self.folder / "program.py"
        file.write_text(PROGRAM + textwrap.dedent(body))
        return [sys.executable, str(file)]

    def run(self, body: str) -> tuple[list[Any], str]:
        """(what it said, its stderr)."""
        ran = run(self.command(body), env=self.environ, cwd=self.folder)
        assert ran.code == 0, ran.err
        return [json.loads(line) for line in ran.out.splitlines()], ran.err

    def start(self, body: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(body), env=self.environ, cwd=self.folder, stdout=subprocess.PIPE, text=True
        )


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def gone(family: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Who is still there after so long. Zombies have ended: whoever adopted them may be slow."""
    deadline = time.monotonic() + seconds * TIME_FACTOR
    while alive := [p for p in family if p.is_running() and not is_zombie(p)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.002)
    return alive


def is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def running(program: Program) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A program with three workers that wait for ever, and its zygote."""
    process = program.start(
        """
        supervisor = Supervisor(targets.work, "", ("pause",), name="wordcount")
        supervisor.start(range(3))
        born(supervisor, 3)
        # One may come before the line behind "ready" is reached.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        say("ready")
        while signal.sigwait({signal.SIGINT}):
            say("interrupted")
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    yield process, children(process.pid)
    process.kill()
    process.wait()
    process.stdout.close()


# --- beginnings and ends -------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_way_to_end_is_told_once(program: Program, method: str) -> None:
    said, errors = program.run(
        f"""
        for what in ("exit", "raise", "fail"):
            with Supervisor(targets.work, "", (what,), method="{method}") as supervisor:
                supervisor.start((0, 3))
                supervisor.spawn(3)  # asked for before, so not again
                say(ended(supervisor, 2), supervisor.events(), pids_of(supervisor))
        """
    )
    assert said == [
        [[[0, 0], [3, 3]], [], {}],
        [[[0, 1], [3, 1]], [], {}],
        [[[0, 4], [3, 4]], [], {}],
    ]
    assert errors.count("ZeroDivisionError: on purpose") == 2
    assert "engine: worker 3: nobody there\n" in errors
    assert errors.count("Traceback") == 2
    assert program.runs.read_text() == "run\n", "the user's main module ran again"


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_finds_things_in_order(program: Program, method: str) -> None:
    said, _ = program.run(
        f"""
        signal.signal(signal.SIGTERM, lambda *_: None)
        supervisor = Supervisor(targets.work, "first", ("tell", "told"), method="{method}")
        supervisor.spawn(0)
        supervisor.address = "second"
        supervisor.spawn(7)
        say(ended(supervisor, 2))
        say(os.getpid(), supervisor.peak())
        supervisor.close()
        supervisor.close()
        """
    )
    assert said[0] == [[[0, 0], [7, 0]]]
    main, peak = said[1]
    assert peak > 1 << 20 or method == "spawn"
    for node, address in ((0, "first"), (7, "second")):
        told = eval((program.folder / f"told{node}").read_text())
        number, where, parent, fds, pipe, ignores, default, blocked, again, mark = told
        assert (number, where) == (node, address)
        assert (parent == main) == (method == "spawn")
        assert pipe in fds
        assert ignores
        assert default
        assert blocked == []
        assert not again
        assert mark == (None if method == "spawn" else "the program's own main module")


@pytest.mark.skipif(not LINUX, reason="the zygote is Linux's")
def test_fifty_replacements_leak_nothing(program: Program) -> None:
    said, _ = program.run(
        f"""
        supervisor = Supervisor(targets.work, "", ("pause",), method="fork")
        zygote = supervisor._starters[0].pid
        held = lambda pid: len(os.listdir(f"/proc/{{pid}}/fd"))
        supervisor.start(range(2))
        born(supervisor, 2)
        counts, noticed = [], []
        for node in range(2, {2 + dose(50, 2000)}):
            began = time.monotonic_ns()
            os.kill(pids_of(supervisor)[node - 1], signal.SIGKILL)
            assert ended(supervisor, 1) == [(node - 1, -9)]
            noticed.append((time.monotonic_ns() - began) / 1e6)
            supervisor.spawn(node)
            born(supervisor, 2)
            counts.append((held(os.getpid()), held(zygote)))
        say(counts[0], counts[-1], sorted(noticed)[len(noticed) // 2], supervisor.method)
        say(held(pids_of(supervisor)[0]), held(max(pids_of(supervisor).values())))
        supervisor.close()
        say(len(os.listdir("/proc/self/fd")))
        """
    )
    first, last, median, method = said[0]
    # The zygote may still hold the descriptor that it has just passed on.
    assert all(abs(a - b) <= 1 for a, b in zip(first, last, strict=True)), (first, last)
    assert method == "fork"
    assert median < 20 * TIME_FACTOR, f"a death was noticed after {median:.1f} ms"
    assert said[1][1] <= said[1][0] + 4
    assert said[2][0] <= 6


@pytest.mark.parametrize("method", METHODS)
def test_a_kill_reaches_whoever_it_names(program: Program, method: str) -> None:
    said, _ = program.run(
        f"""
        supervisor = Supervisor(targets.work, "", ("pause",), method="{method}")
        supervisor.start(range(3))
        supervisor.kill(1)      # may not even be born
        supervisor.kill(99)     # nobody
        say(ended(supervisor, 1))
        born(supervisor, 2)
        supervisor.kill(0)
        supervisor.kill(0)
        say(ended(supervisor, 1), sorted(pids_of(supervisor)))
        began = time.monotonic()
        supervisor.close()
        say(time.monotonic() - began, pids_of(supervisor))
        """
    )
    assert said[0] == [[[1, -9]]]
    assert said[1] == [[[0, -9]], [2]]
    assert said[2][0] < 1.0 * TIME_FACTOR


def test_a_program_that_forgets_to_close_ends_all_the_same(program: Program) -> None:
    said, _ = program.run(
        """
        supervisor = Supervisor(targets.work, "", ("pause",))
        supervisor.start(range(2))
        born(supervisor, 2)
        say(pids_of(supervisor))
        """
    )
    for pid in said[0][0].values():
        assert not psutil.pid_exists(pid)


# --- accidents -----------------------------------------------------------------------------------


@pytest.mark.skipif(not LINUX, reason="PR_SET_PDEATHSIG is Linux's")
def test_kill_9_of_the_parent_leaves_nobody(
    running: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    process, family = running
    assert len(family) == 4
    process.kill()
    assert gone(family, 1.0) == []


@pytest.mark.skipif(not LINUX, reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("lasting", [True, False])
def test_kill_9_of_a_parent_that_spawned_leaves_nobody(program: Program, lasting: bool) -> None:
    process = program.start(
        f"""
        def main():
            supervisor = Supervisor(targets.work, "", ("pause",), method="spawn")
            supervisor.start(range(2))
            born(supervisor, 2)
            say("ready")
            signal.pause() if {lasting} else threading.Event().wait()
        if {lasting}:
            main()
        else:
            threading.Thread(target=main).start()
        """
    )
    assert process.stdout is not None
    process.stdout.readline()
    family = [p for p in children(process.pid) if "resource_tracker" not in " ".join(p.cmdline())]
    assert len(family) == 2
    eventually(lambda: all(p.name().startswith("engine: worker") for p in family))
    process.kill()
    process.wait()
    process.stdout.close()
    if lasting:
        assert gone(family, 1.0) == []
    else:  # a thread's end must not be theirs: the pipe is for those that look at it
        assert gone(family, 0.2) == family
        for worker in family:
            worker.kill()


@pytest.mark.skipif(not LINUX, reason="the zygote is Linux's")
def test_the_death_of_the_zygote_ends_its_workers_and_spawning_goes_on(program: Program) -> None:
    said, _ = program.run(
        """
        supervisor = Supervisor(targets.work, "", ("pause",), method="fork")
        supervisor.start(range(2))
        born(supervisor, 2)
        pids = list(pids_of(supervisor).values())
        os.kill(supervisor._starters[0].pid, signal.SIGKILL)
        supervisor.spawn(2)
        say(ended(supervisor, 3), supervisor.method)
        supervisor.spawn(3)
        born(supervisor, 1)
        say(sorted(pids_of(supervisor)), pids)
        supervisor.close()
        """
    )
    assert said[0] == [[[0, -9], [1, -9], [2, -9]], "spawn"]
    nodes, pids = said[1]
    assert nodes == [3]
    assert gone([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], 1.0) == []


@pytest.mark.skipif(not LINUX, reason="limits and pids as on Linux")
def test_a_process_that_cannot_be_started_is_told(program: Program) -> None:
    said, errors = program.run(
        """
        import resource
        from engine.runtime import zygote
        def no_fork(self):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        zygote.ForkProcess, real = type("NoFork", (zygote.ForkProcess,), {}), zygote.ForkProcess
        real_start = real.start
        zygote.ForkProcess.start = lambda self: (
            no_fork(self) if self.name.startswith("worker") else real_start(self)
        )
        with Supervisor(targets.work, "", ("pause",), method="fork") as supervisor:
            supervisor.spawn(5)
            say(ended(supervisor, 1), os.EX_OSERR)
        """
    )
    assert said == [[[[5, os.EX_OSERR]], os.EX_OSERR]]
    assert "worker 5 cannot be started: Resource temporarily unavailable" in errors


def test_a_ctrl_c_is_for_the_parent_alone(
    running: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    process, family = running
    for member in (*family, psutil.Process(process.pid)):
        member.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == '["interrupted"]\n'
    assert all(member.is_running() and member.status() != "zombie" for member in family)


# --- what can be seen, what is refused -----------------------------------------------------------


@pytest.mark.skipif(not LINUX, reason="/proc is Linux's")
def test_ps_shows_who_is_who(
    running: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    _, family = running

    def titles() -> list[str]:
        return sorted(" ".join(p.cmdline()).strip() for p in family)

    wanted = [f"engine: worker {n} of wordcount" for n in range(3)] + ["engine: zygote"]
    eventually(lambda: titles() == wanted, seconds=patience(5), what=str(wanted))


def test_with_threads_it_spawns_and_says_so(program: Program) -> None:
    said, _ = program.run(
        """
        ended_now = threading.Event()
        thread = threading.Thread(target=ended_now.wait, daemon=True)
        thread.start()
        try:
            Supervisor(targets.work, method="fork")
        except UsageError as error:
            say(str(error))
        with Supervisor(targets.work, "", ("exit",)) as supervisor:
            supervisor.spawn(2)
            say(supervisor.method, ended(supervisor, 1))
        def mine(*_): pass
        try:
            Supervisor(mine)
        except UsageError as error:
            say(str(error))
        ended_now.set()
        """
    )
    assert "one thread" in said[0][0]
    assert said[1] == ["spawn", [[2, 2]]]
    assert "importable" in said[2][0]


@pytest.mark.skipif(not LINUX, reason="pidfds are Linux's")
@pytest.mark.parametrize("missing", ["os.pidfd_open", "signal.pidfd_send_signal"])
def test_without_pidfds_it_spawns(program: Program, missing: str) -> None:
    """A kernel before 5.3, or a sandbox that does not know these calls."""
    said, _ = program.run(
        f"""
        def none(*_):
            raise OSError(38, "Function not implemented")
        {missing} = none
        try:
            Supervisor(targets.work, method="fork")
        except UsageError as error:
            say(str(error))
        with Supervisor(targets.work, "", ("pause",)) as supervisor:
            supervisor.start(range(3))
            born(supervisor, 3)
            supervisor.kill(0)
            say(supervisor.method, ended(supervisor, 1), sorted(pids_of(supervisor)))
            os.kill(pids_of(supervisor)[1], signal.SIGTERM)
            say(ended(supervisor, 1))
            os.kill(pids_of(supervisor)[2], signal.SIGKILL)
            poll = select.poll()
            poll.register(supervisor._children[2].fd)
            assert poll.poll(10_000)
            supervisor.kill(2)  # it is dead, so its pid is not to be relied on
            say(ended(supervisor, 1))
            supervisor.spawn(5)
            born(supervisor, 1)
            pid = pids_of(supervisor)[5]
        say(pid)
        """
    )
    assert "5.3" in said[0][0]
    assert said[1:4] == [["spawn", [[0, -9]], [1, 2]], [[[1, -15]]], [[[2, -9]]]]
    assert not psutil.pid_exists(said[4][0])


def test_a_method_that_does_not_exist() -> None:
    from engine.errors import UsageError
    from engine.runtime.processes import Supervisor

    with pytest.raises(UsageError, match="fork or spawn"):
        Supervisor(print, method="forkserver")  # type: ignore[arg-type]
