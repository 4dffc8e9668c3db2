"""What the documentation shows of the simulator is what it prints, and of the store as well."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from support import engine, run
from tidy import ROOT

PAGE = ROOT / "docs/from-locks-to-consensus.md"
SHOWN = re.findall(r"^\$ engine (sim .+)\n((?:.+\n)+?)```$", PAGE.read_text(), re.MULTILINE)


def says(line: str, shown: str) -> bool:
    """Whether the line is the one shown; `…` in that stands for anything."""
    parts = [re.escape(part.strip()) for part in shown.split("…")]
    return re.match(r".*".join(parts), line.strip()) is not None


def test_there_is_something_to_show() -> None:
    assert {command.split()[1] for command, _ in SHOWN} == {"locks", "views", "backup"}
    assert not says("a b", "a c")
    assert says("a b c d", "a … c …")


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_it_prints_what_is_shown(command: str, shown: str) -> None:
    ran = engine(*command.split())
    assert ran.code == 1
    printed = iter(ran.out.splitlines())
    for line in shown.splitlines():
        assert any(says(one, line) for one in printed), f"not there, or not in this order: {line}"


# --- the store in the README ---------------------------------------------------------------------


def store_blocks() -> list[str]:
    """The code of its section: commands, what they print, and two programs."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## A store on three replicas") :]
    section = section[: section.index("\n## ", 1)]
    return re.findall(r"^```\w*\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def test_the_store_does_what_the_readme_shows(tmp_path: Path) -> None:
    commands, shown, one, many = store_blocks()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (("engine", "-m engine_cmd.main"), ("python3", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (programs / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    try:
        ran = run(["bash", "-eu", "-c", commands], cwd=tmp_path, env=env)
        assert (ran.code, ran.err) == (0, "")
        printed, wanted = ran.out.splitlines(), shown.splitlines()
        assert len(printed) == len(wanted)
        for line, like in zip(printed, wanted, strict=True):
            assert says(line, re.sub(r"47\d\d", "…", like))
        ran = run([sys.executable, "-c", one], cwd=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        words = ["[b'Ada', b'Grace']", "nobody was faster", "token …", "… b'users/2' b'Grace'"]
        words.append("… b'users/2' b'Grace Hopper'")
        assert all(map(says, ran.out.splitlines(), words)), ran.out
        assert len(ran.out.splitlines()) == len(words)
        ran = run([sys.executable, "-c", many], cwd=tmp_path)
        assert ran == (0, "1000 keys\n", "")
    finally:
        ran = engine("kv", "down", "--dir", str(tmp_path / "store"))
    assert ran == (0, "", "")
