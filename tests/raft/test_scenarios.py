"""Golden scripts for the members of a group; their form is in `scripts`, their commands in
`raft.cluster`, how messages and entries are written in `raft.saying`."""

from __future__ import annotations

from pathlib import Path

import pytest
from raft.cluster import Cluster
from scripts import hold, scenarios

SCENARIOS = scenarios(__file__)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    hold(path, Cluster())


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 60
