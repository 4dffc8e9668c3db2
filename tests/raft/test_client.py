"""Whom a client of a group asks, one after another, until somebody leads."""

from __future__ import annotations

import pytest

from engine.contract import SECOND, Link, Linked, Received, peer
from engine.raft.client import GroupCall, Known
from engine.raft.requests import Look, Rejected, Seen

SERVERS = tuple(f"ipc:///s{number}" for number in range(6))


def linked(address: str) -> Linked:
    return Linked(Link("peer", 0, 0, peer(address).principal), True)


@pytest.mark.parametrize("dead", range(6))
@pytest.mark.parametrize("leader", range(6))
def test_who_is_behind_a_dead_one_is_asked_too(dead: int, leader: int) -> None:
    """Others name the leader by its number, which says nothing to whoever never heard of it."""
    if dead == leader:
        return
    known = Known(SERVERS)
    call = GroupCall(known, Look(1), 10 * SECOND)
    there = [address for at, address in enumerate(SERVERS) if at != dead]
    now, asked = 0, set()
    call.step(now, [linked(address) for address in there])
    for _ in range(30):
        said = [send for send in call.ready().now if send.link.principal in there]
        events = []
        for send in said:
            at = SERVERS.index(send.link.principal)
            asked.add(at)
            if at == leader:
                answer = Seen(100 + at, 1, 7, 0)
            else:
                answer = Rejected(100 + at, (1,), "does not lead", 100 + leader, False)
            events.append(Received(send.link, answer))
        now += SECOND // 20
        call.step(now, events)
        if call.outcome is not None:
            break
    assert call.outcome is not None, f"only {sorted(asked)} were asked"
    assert call.outcome.answer == Seen(100 + leader, 1, 7, 0)
