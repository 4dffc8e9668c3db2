"""Who leads, as operators find it out."""

from __future__ import annotations

import pytest

from engine.errors import ConnectionFailed
from engine.kv.reach import Place, Reach
from engine.raft.requests import Status

STATUS = Status(
    number=1, member=1, pid=1, clients="", group=1, role="follower", term=3, leader=0, commit=9,
    applied=9, last=9, durable=9, base=0, snapshot=0, commands=5, digest=1, seats=(), joint=False,
    lost=False, full=False, log_bytes=0, disk_bytes=0, up_ms=0, counters=(),
)  # fmt: skip


class Told(Reach):
    """What replicas say, look after look; the last for ever."""

    def statuses(self, seconds: float = 1.0) -> dict[int, Status]:
        """Roles are told by their first letters, and nobody's by a dash."""
        looks: list[str] = self.way["looks"]
        roles = looks.pop(0) if len(looks) > 1 else looks[0]
        names = {"l": "leader", "f": "follower", "c": "candidate"}
        return {
            number: STATUS._replace(member=number, role=names[role], term=3 + number)
            for number, role in enumerate(roles, 1)
            if role != "-"
        }


def told(*looks: str) -> Told:
    seats = tuple([Place(number, f"tcp://h{number}:1") for number in range(1, len(looks[0]) + 1)])
    return Told(seats, "", {"looks": list(looks)})


def test_an_election_is_waited_for() -> None:
    reach = told("ff-", "cf-", "fc-", "fl-")
    seat, status = reach.leader(60)
    assert (seat.id, status.member, status.role) == (2, 2, "leader")


def test_the_latest_leader_leads() -> None:
    assert told("llf").leader()[0].id == 2


@pytest.mark.parametrize("few", ["---", "-f-", "ff--", "f"])
def test_nobody_is_waited_for_who_cannot_be_elected(few: str) -> None:
    """One of one may be; all others are too few."""
    looks = told(few, few.replace("f", "l"))
    if few == "f":
        assert looks.leader(60)[0].id == 1
    else:
        with pytest.raises(ConnectionFailed, match=f": {few.count('f')} of {len(few)} replicas"):
            looks.leader(60)


def test_not_for_ever() -> None:
    with pytest.raises(ConnectionFailed, match=r"Nobody leads, .*: 2 of 3 replicas reachable"):
        told("fc-").leader(0)
