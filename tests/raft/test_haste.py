"""News that a leader may leave for later change nothing: tried on a copy of it, at every moment."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest

from engine.contract import Durable, Received
from engine.kernels.checksum import crc32c
from engine.raft.haste import ALL, DISK, NOTHING, idle_news
from engine.raft.leader import Leader
from engine.raft.messages import AppendReply, Propose, Read
from engine.raft.settings import LABS
from engine.raft.trial import RaftCluster
from engine.raft.trial_node import Node

STAGED = {"members": 3, "spares": 0, "timing": LABS, "segment_bytes": 4096, "snapshot_every": 0}


def changes(node: Node, kind: int) -> str:
    """What is decided or confirmed when the news come at once."""
    raft: Any = copy.deepcopy(node.raft)
    commit = raft.commit
    events: list[Any] = [Durable(raft.written)]
    if kind == ALL:
        for member in raft.members.others:
            last, term = raft.log.last, raft.log.last_term
            told = (
                term,
                member,
                raft.me,
                last,
                raft.role.reads.round,
                True,
                last,
                0,
                0,
                False,
                False,
            )
            events.append(Received(raft.link(member), AppendReply(*told)))
    raft.step(raft.now, events)
    ready = raft.ready()
    if raft.commit != commit:
        return f"{commit} to {raft.commit} decided"
    return "reads confirmed" if ready.reads else ""


def watched(seed: int, seen: Counter[int]) -> list[str]:
    cluster = RaftCluster(seed, STAGED, keep=False, trace=False, checked=True, beyond="")
    cluster.confirmed = lambda *read: None  # type: ignore[method-assign]  # they are ours
    wrong, context = [], 10_000
    for step in range(4000):
        assert cluster.timeline.step()
        leader = cluster.leader()
        if leader is None or type(leader.raft.role) is not Leader:
            continue
        kind = idle_news(leader.raft)
        seen[kind] += 1
        if kind and (what := changes(leader, kind)):
            wrong.append(what)
        if step % 40 == 0:
            context += 1
            body = b"%d" % context
            leader.hear(Propose(context, ((crc32c(body), body),)))
        elif step % 40 == 20:
            leader.hear(Read(context))
    return wrong


def test_what_may_wait_changes_nothing() -> None:
    seen: Counter[int] = Counter()
    for seed in range(2):
        assert watched(seed, seen) == []
    assert min(seen[kind] for kind in (NOTHING, DISK, ALL)) > 50, seen


@pytest.mark.parametrize(
    "hasty", [lambda raft: DISK, lambda raft: ALL if raft.commit == raft.log.last else NOTHING]
)
def test_what_may_not_is_told_from_it(hasty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "idle_news", hasty)
    assert any(watched(seed, Counter()) for seed in range(2))
