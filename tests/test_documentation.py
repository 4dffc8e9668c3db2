"""What the documentation shows of the simulator is what it prints."""

from __future__ import annotations

import re

import pytest
from support import engine
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
