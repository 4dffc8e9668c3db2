"""Who is sent an entry at once by a thrifty leader; the story of it is among the scenarios."""

from __future__ import annotations

import re

import pytest
from raft.cluster import Cluster

from engine.raft.thrift import MUCH


@pytest.fixture
def cluster() -> Cluster:
    """Member 1 of three leads, and all have all."""
    made = Cluster()
    for line in ("set thrift=3000000", "cluster 3", "elect 1", "settle"):
        made.run(line)
    return made


def asked(lines: list[str]) -> list[int]:
    """Whom the leader sends entries."""
    return [int(who) for line in lines for who in re.findall(r"1→(\d): append", line)]


def test_little_goes_to_a_majority(cluster: Cluster) -> None:
    assert asked(cluster.run("propose 1 a")) == [2]


@pytest.mark.parametrize(("size", "who"), [(MUCH - 100, [2]), (MUCH, [2, 3])])
def test_much_goes_to_all(cluster: Cluster, size: int, who: list[int]) -> None:
    assert asked(cluster.run("propose 1 " + "x" * size)) == who


def test_who_is_to_lead_is_not_spared(cluster: Cluster) -> None:
    assert asked(cluster.run("propose 1 a")) == [2]
    assert asked(cluster.run("transfer 1 3")) == [3]


def test_all_that_is_owed_counts(cluster: Cluster) -> None:
    """Whoever is spared again and again is owed much in the end."""
    for _ in range(3):
        assert asked(cluster.run("propose 1 " + "x" * (MUCH // 4))) == [2]
        for line in ("deliver 1>2", "deliver 2>1"):
            cluster.run(line)
    assert asked(cluster.run("propose 1 " + "x" * (MUCH // 4))) == [2, 3]
