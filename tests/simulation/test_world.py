"""The simulated world keeps the promises of a real one, and only those."""

from __future__ import annotations

import random

import pytest

from engine.sim.disk import Disk
from engine.sim.network import Network, NetworkFaults
from engine.sim.swarm import draw
from engine.sim.timeline import MILLISECOND, Timeline


def disk(seed: int = 0) -> Disk:
    made = Disk(random.Random(seed))
    made.make_folder("d")
    return made


def survivors(seed: int, *, sync: bool, sync_names: bool) -> bytes | None:
    """What is left of a file of two writes after a power cut."""
    it = disk(seed)
    it.append("d/f", b"aaaa")
    it.append("d/f", b"bbbb")
    if sync:
        it.sync("d/f")
    if sync_names:
        it.sync_directory("d")
    it.lose_power()
    return it.read("d/f") if it.exists("d/f") else None


def test_what_is_synced_stays() -> None:
    assert {survivors(s, sync=True, sync_names=True) for s in range(50)} == {b"aaaabbbb"}


def test_a_synced_file_needs_its_name() -> None:
    assert {survivors(s, sync=True, sync_names=False) for s in range(50)} == {None, b"aaaabbbb"}


def test_what_is_not_synced_is_torn_in_every_way() -> None:
    left = {survivors(s, sync=False, sync_names=True) for s in range(500)}
    assert {b"", b"aaaabbbb", b"aaaa", b"\0\0\0\0bbbb", b"aa\0\0bb"} <= left


def test_a_rename_is_whole_or_not_at_all() -> None:
    left = set()
    for seed in range(50):
        it = disk(seed)
        it.append("d/old", b"x")
        it.sync("d/old")
        it.sync_directory("d")
        it.rename("d/old", "d/new")
        assert it.durable("d/new") is None
        it.lose_power()
        left.add(tuple(it.paths("d")))
    assert left == {("d/old",), ("d/new",)}


def test_a_swept_folder_takes_no_more_files() -> None:
    it = disk()
    it.append("d/f", b"x")
    it.remove_folder("d")
    with pytest.raises(FileNotFoundError):
        it.append("d/f", b"x")


def arrivals(faults: NetworkFaults, *, cut: bool = False, seed: int = 0) -> list[int]:
    timeline = Timeline(seed)
    network = Network(timeline, faults)
    heard: list[int] = []
    for number in range(200):
        network.send("pipe", heard.append, number)
    if cut:
        network.cut("pipe")
        network.send("pipe", heard.append, 200)
    while timeline.step():
        pass
    return heard


def test_a_pipe_is_in_order_and_loses_nothing_of_itself() -> None:
    assert arrivals(NetworkFaults()) == list(range(200))


def test_a_broken_connection_loses_the_whole_pipe() -> None:
    assert arrivals(NetworkFaults(), cut=True) == [200]


def test_faults_of_a_pipe() -> None:
    lossy = arrivals(NetworkFaults(loss=0.5))
    assert lossy == sorted(lossy)
    assert 50 < len(lossy) < 150
    assert len(arrivals(NetworkFaults(duplicate=0.5))) > 250
    mixed = arrivals(NetworkFaults(reorder=0.5, delay=MILLISECOND))
    assert mixed != sorted(mixed)
    assert sorted(mixed) == list(range(200))


def test_time_goes_in_order_of_asking() -> None:
    timeline = Timeline(0, keep=True)
    for number in (3, 1, 2):
        timeline.after(number // 2, timeline.note, "a", "b", number)
    while timeline.step():
        pass
    assert [line[-1] for line in timeline.lines] == ["1", "3", "2"]


def test_a_tenth_of_the_seeds_is_quiet() -> None:
    faults = dict.fromkeys("abcdefgh", (0, 1))
    drawn = [draw(random.Random(seed), {"n": (1, 2)}, faults) for seed in range(2000)]
    quiet = sum(not any(plan[name] for name in faults) for plan in drawn)
    assert 150 < quiet < 300
    assert {plan["n"] for plan in drawn} == {1, 2}
