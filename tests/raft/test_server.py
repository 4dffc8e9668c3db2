"""A member's server: it alone knows whether there is room on the disk, and says so."""

from __future__ import annotations

from typing import Any

import pytest

from engine.contract import SECOND
from engine.kernels.checksum import crc32c
from engine.raft.messages import Propose, Room
from engine.raft.server import RaftServer
from engine.raft.settings import LABS, MILLISECOND
from engine.raft.trial import RaftCluster
from engine.raft.trial_node import Node
from engine.sim.planting import Patch, planted

STAGED = {
    "members": 3,
    "spares": 0,
    "timing": LABS,
    "segment_bytes": 4096,
    "snapshot_every": 0,
    "uncommitted_max": 1 << 20,
}


def group(seed: int) -> RaftCluster:
    """Three members, one of which leads."""
    cluster = RaftCluster(seed, STAGED, keep=False, trace=False, checked=True, beyond="")
    while cluster.leader() is None or cluster.judge.committed == 0:
        assert cluster.timeline.step()
    return cluster


def leader(cluster: RaftCluster) -> Node:
    found = cluster.leader()
    assert found is not None
    return found


def propose(cluster: RaftCluster, count: int) -> None:
    """So many commands of 300 bytes, one in two milliseconds."""
    for number in range(count):
        body = b"%04d" % number * 75
        if (node := cluster.leader()) is not None:
            node.hear(Propose(10_000 + number, ((crc32c(body), body),)))
        until = cluster.timeline.now + 2 * MILLISECOND
        while cluster.timeline.now < until:
            assert cluster.timeline.step()


def _full_before_it_tried(_: Any) -> Any:
    """A disk is full when its log has no room at the moment, though it could make some."""

    def news(self: RaftServer) -> list[Any]:
        self._look_at_room = False
        was, self._room = self._room, self.log.room() > self.limits.reserve
        return [Room(self._room)] if self._room != was else []

    return news


def terms_led(seed: int) -> int:
    cluster = group(seed)
    propose(cluster, 60)
    return len(cluster.judge.leaders)


def test_a_disk_is_full_only_when_the_log_has_tried_to_make_room() -> None:
    assert [terms_led(seed) for seed in range(5)] == [1] * 5
    with planted((Patch(RaftServer, "_room_news", _full_before_it_tried),)):
        assert max(terms_led(seed) for seed in range(5)) > 1


def test_a_full_leader_hands_over_and_a_disk_with_space_again_takes_entries() -> None:
    cluster = group(1)
    first = leader(cluster)
    first.drive.capacity = first.drive.used()
    propose(cluster, 60)
    assert leader(cluster) is not first
    assert first.raft.full
    behind = first.raft.log.last
    first.drive.capacity = None
    until = cluster.timeline.now + SECOND
    while cluster.timeline.now < until:
        assert cluster.timeline.step()
    assert not first.raft.full
    assert first.raft.log.last == leader(cluster).raft.log.last > behind


@pytest.mark.parametrize("whose", ["leader", "follower"])
def test_a_batch_that_has_no_room_is_refused_before_it_is_half_written(whose: str) -> None:
    """There is room for small ones, so nobody has called the disk full yet."""
    cluster = group(2)
    first = leader(cluster)
    nodes = cluster.nodes()
    one = first if whose == "leader" else next(node for node in nodes if node is not first)
    one.drive.capacity = one.drive.used()
    assert not one.raft.full
    body = bytes(300)
    first.hear(Propose(77, ((crc32c(body), body),) * 20))
    wait(cluster, SECOND)
    assert one in cluster.nodes()
    assert one.raft.full
    behind = one.raft.log.last
    if whose == "leader":
        assert leader(cluster) is not first
        propose(cluster, 10)
    else:
        assert leader(cluster) is first
        assert behind < first.raft.log.last == first.raft.commit
    one.drive.capacity = None
    wait(cluster, SECOND)
    assert not one.raft.full
    assert one.raft.log.last == leader(cluster).raft.log.last > behind


def test_room_that_was_for_less_is_not_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is space again for what was refused, and in the same turn comes more than that."""
    server = leader(group(3)).server
    body = bytes(300)
    ask = Propose(77, ((crc32c(body), body),) * 20)
    server._room, server._refused, server._look_at_room = False, 100, True
    monkeypatch.setattr(server.log, "room", lambda: server.limits.reserve + 1)
    monkeypatch.setattr(server.log, "prepare", lambda size: size <= 100)
    assert RaftServer.sift(server, [ask]) == [Room(False), ask]
    assert not server._room


def wait(cluster: RaftCluster, nanoseconds: int) -> None:
    until = cluster.timeline.now + nanoseconds
    while cluster.timeline.now < until:
        assert cluster.timeline.step()
