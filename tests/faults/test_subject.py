"""Programs as subjects of experiments: what ends them, and that nothing else about them changes."""

from __future__ import annotations

import ast
import inspect
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from support import Ran, patience, run
from waiting import eventually

from engine.contract import Server
from engine.faults.points import TURN as POINTS

pytestmark = pytest.mark.processes

TURNS = """
import sys
from engine.contract import Ready, Server, Write
from engine.runtime.world import SocketWorld

class World(SocketWorld):
    def point(self, name):
        print(name, flush=True)
        super().point(name)

    def write(self, group):
        return 1

class Writer:
    def step(self, now, events):
        pass

    def ready(self):
        return Ready(writes=(Write("x"),))

server = Server(Writer(), World())
for _ in range(5):
    server.turn()
"""
"""Passes every point five times, and says so before."""
WAITS = "import os, signal\nprint(os.getpid(), flush=True)\nsignal.pause()\n"
PARENT = """
import os, subprocess, sys
tie = ["--parent", str(os.getpid()), "-m", sys.argv[1]]
subprocess.run([sys.executable, "-m", "engine.faults.subject", *tie])
"""
SAYS = "import sys\nprint(sys.argv, __name__)\nsys.exit(int(sys.argv[1]))\n"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "program.py"


def command(parent: int, *arguments: object) -> list[str]:
    words = ["-m", "engine.faults.subject", "--parent", str(parent), *map(str, arguments)]
    return [sys.executable, *words]


def subject(*arguments: object, parent: int | None = None) -> Ran:
    return run(command(parent or os.getpid(), *arguments))


# --- crash points --------------------------------------------------------------------------------


def test_the_points_are_those_of_a_turn() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(Server.turn)))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [
        (call.lineno, ast.literal_eval(call.args[0]))
        for call in calls
        if ast.unparse(call.func) == "world.point"
    ]
    assert tuple(name for _, name in sorted(names)) == POINTS


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("point", POINTS)
def test_it_dies_at_the_nth_passing(program: Path, point: str, count: int) -> None:
    program.write_text(TURNS)
    ended = subject("--kill-at", f"{point}:{count}", "-m", program)
    passed = ended.out.split()
    turns = [*POINTS] * (count - 1)
    assert passed == [*turns, *POINTS[: POINTS.index(point) + 1]]
    assert ended.code == -signal.SIGKILL


def test_a_point_without_a_number_is_the_first(program: Path) -> None:
    program.write_text(TURNS)
    assert subject("--kill-at", "sent", "-m", program).out.split() == [*POINTS[:4]]


@pytest.mark.parametrize("points", [("sent:2", "sent:4"), ("sent:4", "sent:2", "turned:3")])
def test_of_several_points_the_first_to_come_counts(program: Path, points: tuple[str, ...]) -> None:
    program.write_text(TURNS)
    flags = [word for point in points for word in ("--kill-at", point)]
    assert subject(*flags, "-m", program).out.split() == [*POINTS, *POINTS[:4]]


@pytest.mark.parametrize("flags", [(), ("--kill-at", "turned:6")])
def test_without_its_point_it_lives(program: Path, flags: tuple[str, ...]) -> None:
    program.write_text(TURNS)
    ended = subject(*flags, "-m", program)
    assert (ended.code, ended.out.split()) == (0, [*POINTS] * 5)


@pytest.mark.parametrize(
    "point", ["written by", "stepp:1", "", ":1", "sent:0", "sent:-1", "sent:x", "sent:", "sent:1:2"]
)
def test_a_point_that_never_comes_is_an_error(program: Path, point: str) -> None:
    program.write_text(TURNS)
    ended = subject("--kill-at", point, "-m", program)
    assert (ended.code, ended.out) == (2, "")
    assert "--kill-at" in ended.err
    assert "Traceback" not in ended.err


# --- what else ends it ---------------------------------------------------------------------------


@contextmanager
def grandchild(program: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """(a parent, the subject that it started)."""
    program.write_text(WAITS)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(program)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        try:
            yield parent, child
        finally:
            parent.kill()
            with suppress(psutil.NoSuchProcess):
                child.kill()


def over(process: psutil.Process) -> bool:
    """A process that nobody reaps has ended as well."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("stopped", [False, True])
def test_it_ends_with_its_parent(program: Path, stopped: bool) -> None:
    with grandchild(program) as (parent, child):
        if stopped:
            child.suspend()
        assert not over(child)
        parent.kill()
        eventually(lambda: over(child), what="the subject to end")


def test_a_parent_that_is_gone_already_counts(program: Path) -> None:
    program.write_text("print('it ran')")
    ended = subject("-m", program, parent=os.getppid())
    assert (ended.code, ended.out) == (-signal.SIGKILL, "")


def test_it_ends_by_itself(program: Path) -> None:
    program.write_text(WAITS)
    ended = subject("--live", 1, "-m", program)
    assert ended.code == -signal.SIGALRM
    assert ended.out  # it did run


@pytest.mark.parametrize("seconds", ["0", "-1", "1.5", "never"])
def test_it_cannot_live_for_ever(program: Path, seconds: str) -> None:
    program.write_text("print('it ran')")
    ended = subject("--live", seconds, "-m", program)
    assert (ended.code, ended.out) == (2, "")


# --- what stays the program's own ----------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 7])
def test_exit_codes_and_arguments_pass_through(program: Path, code: int) -> None:
    program.write_text(SAYS)
    arguments = ["--live", "x", "-m", "y", "--kill-at", "--", "--parent=3", ""]
    ended = subject("-m", program, code, *arguments)
    assert ended == (code, f"{[str(program), str(code), *arguments]} __main__\n", "")


def test_first_argument_may_be_a_flag(program: Path) -> None:
    program.write_text("import sys\nprint(sys.argv[1:])\n")
    assert subject("-m", program, "--live", "1").out == "['--live', '1']\n"
    assert subject("-m", program).out == "[]\n"


def test_a_module_as_well(tmp_path: Path) -> None:
    text = tmp_path / "text.json"
    text.write_text("{}")
    assert subject("-m", "json.tool", "--compact", text) == (0, "{}\n", "")
    ended = subject("-m", "engine_cmd.main", "--nonsense")
    assert ended == run([sys.executable, "-m", "engine_cmd.main", "--nonsense"])
    assert ended.code == 2


def test_an_exception_is_shown(program: Path) -> None:
    program.write_text("raise ValueError('seen')")
    ended = subject("-m", program)
    assert ended.code == 1
    assert "ValueError: seen" in ended.err


def test_a_signal_is_its_own_end(program: Path) -> None:
    program.write_text(WAITS)
    started = subprocess.Popen(
        command(os.getpid(), "-m", program), stdout=subprocess.PIPE, text=True
    )
    with started:
        assert started.stdout is not None
        assert int(started.stdout.readline()) == started.pid
        started.terminate()
        assert started.wait(patience(20)) == -signal.SIGTERM


@pytest.mark.parametrize("flags", [["-m"], []])
def test_without_a_program_there_is_nothing_to_do(flags: list[str]) -> None:
    assert subject(*flags).code == 2


@pytest.mark.parametrize("point", POINTS)
def test_every_server_has_the_points(tmp_path: Path, point: str) -> None:
    """The coordinator of a job is in another world than the small services, and has a disk."""
    (tmp_path / "in.txt").write_text("a b c\n")
    job = ["mr", "run", "wordcount", tmp_path / "in.txt", "--out", tmp_path / "out", "--workers", 1]
    ended = subject("--kill-at", f"{point}:2", "-m", "engine_cmd.main", *job)
    assert ended.code == -signal.SIGKILL, ended.err
