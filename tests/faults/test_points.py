"""Crash points: which there are, how they are armed from outside, and those of `raft init`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from support import dose, run

from engine.errors import NotFoundError
from engine.faults.points import Control, every, kind_of, parse
from engine.faults.power import Power
from engine.storage.home import member_of

pytestmark = pytest.mark.processes

INIT = [
    *(point for point in every() if "member" in point), "before folder sync", "after folder sync",
]  # fmt: skip


def subject(*words: object, env: dict[str, str] | None = None) -> int:
    command = [sys.executable, "-m", "engine.faults.subject", "--parent", str(os.getpid())]
    ran = run([*command, *map(str, words)], env={**os.environ, **(env or {})})
    assert "Traceback" not in ran.err
    return ran.code


def test_they_can_be_listed() -> None:
    ran = run([sys.executable, "-m", "engine.faults.subject", "--list-points"])
    assert (ran.code, ran.err) == (0, "")
    assert tuple(ran.out.splitlines()) == every()
    assert len(every()) == len(set(every())) >= 100


@pytest.mark.parametrize("point", every())
def test_each_has_a_count(point: str) -> None:
    assert parse(point) == (point, 1)
    assert parse(f"{point}:12") == (point, 12)


@pytest.mark.parametrize("text", ["", "amid", "after log sync", "turned:0", "turned:x", "turned:"])
def test_others_are_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"there is no point|is not a number"):
        parse(text)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("log-0000000000000001", "segment"),
        ("opening", "opening"),
        ("spare-00000003", "spare"),
        ("snapshot-00000001-0000000000000005-0000000000000003", "snapshot"),
        ("snapshot-00000001-0000000000000005-0000000000000003.taking", "taking"),
        ("snapshot-00000001-0000000000000005-0000000000000003.receiving-a0", "receiving"),
        (".member.17.0a0b", "member"),
        (".manifest.json.17.0a0b", ""),
    ],
)
def test_kinds_of_files(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_control(tmp_path: Path) -> None:
    """The two ends of one file: what is armed, and what came of it."""
    with pytest.raises(FileNotFoundError):
        Control(str(tmp_path / "missing"))
    mine = Control(str(tmp_path / "c"), create=True)
    theirs = Control(str(tmp_path / "c"))
    try:
        assert theirs.news() is None
        mine.arm(["turned:3", "after folder sync"])
        assert theirs.news() == {("turned", 3), ("after folder sync", 1)}
        assert theirs.news() is None
        assert mine.died() is None
        theirs.tell("turned", "leader")
        assert mine.died() == ("turned", "leader")
        mine.arm()
        assert mine.died() is None
        assert theirs.news() == frozenset()
        with pytest.raises(ValueError, match="there is no point"):
            mine.arm(["nowhere"])
        assert theirs.news() is None
        mine.arm(every())
        assert theirs.news() == {(point, 1) for point in every()}
    finally:
        mine.close()
        theirs.close()


def test_armed_through_a_file(tmp_path: Path) -> None:
    """Nothing is armed, and it lives; then it dies there, and says so."""
    control = Control(str(tmp_path / "c"), create=True)
    words = ["--kill-at", f"@{tmp_path / 'c'}", "-m", "engine_cmd.main", "raft", "init"]
    assert subject(*words, tmp_path / "a") == 0
    control.arm(["after member rename"])
    assert subject(*words, tmp_path / "b") == -signal.SIGKILL
    assert control.died() == ("after member rename", "")
    control.close()


@pytest.mark.parametrize("seed", range(dose(1, 10)))
def test_a_folder_is_made_or_not(seed: int, tmp_path: Path) -> None:
    """`raft init` dies everywhere and loses the power; the same again makes the folder, and once a
    number was said it is there for ever."""
    (tmp_path / "d").mkdir()
    with Power(tmp_path / "d", seed) as power:
        for number, point in enumerate(INIT):
            path = tmp_path / "d" / str(number)
            words = ["-m", "engine_cmd.main", "raft", "init", path]
            code = subject("--kill-at", point, *words, env=power.environment())
            assert code == -signal.SIGKILL, point
            power.lose()
            try:
                before = member_of(str(path))
            except NotFoundError:
                before = 0
            assert subject(*words, env=power.environment()) == 0
            power.lose()
            assert member_of(str(path)) == (before or member_of(str(path)))
            assert (path / "log").is_dir()
