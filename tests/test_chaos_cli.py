"""`engine chaos` as a user has it: what it refuses, what it lists, what it prints and leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from support import engine, patience
from waiting import eventually

from engine.faults.accidents import KINDS, Accident, written
from engine.faults.unsafe import SWITCHES

pytestmark = pytest.mark.processes

PLAN = [Accident("kill:leader", 0.2, 1), Accident("quiet", 0.2, 2)]


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.json"
    path.write_text(written(1, 3, PLAN))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "give --dir DIR, a new folder"),
        (["--dir", "d", "--seconds", "0"], 2, "it is 1 to 86400"),
        (["--dir", "d", "--seconds", "86401"], 2, "it is 1 to 86400"),
        (["--dir", "d", "--replicas", "4"], 2, "A run has 3, 5 or 7 replicas, not 4."),
        (["--dir", "d", "--only", "flood"], 2, "There is no accident 'flood'; there is quiet,"),
        (["--dir", "d", "--only", "kill:peers"], 2, "kill is aimed at leader, one,"),
        (["--dir", "d", "--plan", "none"], 3, "There is no plan none."),
        (["--dir", "d", "--plan", "x", "--seed", "1"], 2, "--plan goes with none of"),
        (["--dir", "d", "--unsafe", "no-fsync"], 6, "say --i-am-testing too"),
        (["--dir", "d", "--unsafe", "x", "--i-am-testing"], 2, "There is no unsafe switch 'x'"),
        (["--dir", "d", "--patience", "0"], 2, "is not a number from 1 to 100"),
    ],
)
def test_what_is_refused(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    ran = engine("chaos", *arguments, cwd=tmp_path)
    assert (ran.code, ran.out) == (code, "")
    assert says in ran.err
    assert not list(tmp_path.iterdir()), "nothing was started"


def test_folders_that_are_refused(tmp_path: Path) -> None:
    """One that somebody uses, and one in memory, where no power can be lost."""
    (tmp_path / "file").touch()
    ran = engine("chaos", "--dir", str(tmp_path), "--json")
    assert ran.code == 6
    assert "is not empty: name a new folder" in json.loads(ran.out)["error"]
    ran = engine("chaos", "--dir", str(tmp_path / "file"))
    assert ran.code == 2
    assert "cannot be made" in ran.err
    memory = Path("/dev/shm")
    if memory.is_dir():
        folder = memory / f"engine-{os.getpid()}"
        ran = engine("chaos", "--dir", str(folder))
        assert ran.code == 2
        assert "is on a tmpfs, in memory: use a folder on a disk." in ran.err
        assert not folder.exists()


def test_list() -> None:
    ran = engine("chaos", "--list")
    assert ran.code == 0
    assert all(f"\n  {name} " in ran.out for name in (*KINDS, *SWITCHES))
    told = json.loads(engine("chaos", "--list", "--json").out)
    assert [one["kind"] for one in told["accidents"]] == list(KINDS)
    assert [one["switch"] for one in told["unsafe"]] == list(SWITCHES)


def test_a_plan_is_played(plan: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ran = engine("chaos", "--dir", str(folder), "--plan", plan, "--json")
    assert ran.code == 0, ran
    report = json.loads(ran.out)
    assert (report["verdict"], report["violations"], report["error"]) == ("ok", [], None)
    assert report["accidents"] == {"kill": 1, "quiet": 1}
    assert (report["seed"], report["replicas"]) == (1, 3)
    assert report["operations"]["acknowledged"]["append"] > 0
    assert report["recovery_seconds"]["max"] < patience(10)
    assert [line.split()[2] for line in ran.err.splitlines()[1:]] == ["kill:leader", "quiet"]
    assert (folder / "plan.json").read_text() == Path(plan).read_text()
    ran = engine("verify", str(folder / "history.jsonl"), "--model", "store", "--json")
    assert ran.code == 0
    judged = json.loads(ran.out)
    assert judged["verdict"] == "ok"
    assert judged["operations"] == report["judged"]["operations"]


def test_a_broken_store(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ("--seconds", "8", "--seed", "2", "--only", "resets:clients", "--replicas", "3")
    ran = engine("chaos", "--dir", str(folder), *words, "--unsafe", "no-dedupe", "--i-am-testing")
    assert ran.code == 1, ran
    assert "the store broke its promises:" in ran.out
    assert f"engine chaos --plan {folder}/plan.json --dir NEW" in ran.out
    assert "resets:clients" in ran.err


def test_nothing_is_broken_without_consent() -> None:
    command = [sys.executable, "-m", "engine.faults.unsafe", "no-fsync", "kv", "serve"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "--i-am-testing" in ran.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_it_ends_all(number: signal.Signals, tmp_path: Path) -> None:
    with _running(tmp_path, "--replicas", "3") as process:
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3
        journals = [j for j in Path("/dev/shm").glob("*.power") if _opened(process.pid, j)]
        process.send_signal(number)
        process.communicate(timeout=patience(30))
        assert process.returncode == 128 + number
    eventually(lambda: not any(child.is_running() for child in children), 5, "the end of all")
    assert not [journal for journal in journals if journal.exists()]
    assert (tmp_path / "run" / "plan.json").exists()


def test_it_may_be_ended_while_nobody_can_answer(tmp_path: Path) -> None:
    """Nothing is healed then, and what clients saw is judged without a last look."""
    path = tmp_path / "plan.json"
    path.write_text(written(1, 3, [PLAN[1], Accident("kill:majority", 600, 3)]))
    with _running(tmp_path, "--plan", str(path)) as process:
        eventually(lambda: _replicas(process.pid) <= 1, 20, "the death of a majority")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=patience(30))
        assert process.returncode == 128 + signal.SIGTERM, (out, err)
    assert (tmp_path / "run" / "history.jsonl").stat().st_size


@contextmanager
def _running(tmp_path: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A run that is over its first accident; it does not outlive the test."""
    command = [sys.executable, "-m", "engine_cmd.main", "chaos", "--dir", str(tmp_path / "run")]
    with subprocess.Popen(
        [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            said = [process.stderr.readline() for _ in range(2)]
            assert " s  " in said[1], said
            yield process
        finally:
            process.kill()


def _replicas(pid: int) -> int:
    """That run."""
    count = 0
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):  # a zombie is none either
            count += "serve" in child.cmdline()
    return count


def _opened(pid: int, path: Path) -> bool:
    return any(one.path == str(path) for one in psutil.Process(pid).open_files())
