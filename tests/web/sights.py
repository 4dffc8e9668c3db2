"""What a lookout may see, made up."""

from __future__ import annotations

from typing import Any

from engine.kv.up import Seat
from engine.raft.requests import Seat as Member
from engine.raft.requests import Status
from engine.web.lookout import Process, Sight

SEATS = tuple(Seat(n, f"/store/{n}", 100 + n, "/sockets") for n in range(1, 6))


def group(*roles: str) -> tuple[Member, ...]:
    """Members 101, 102 … with these roles."""
    return tuple(
        Member(100 + n, f"ipc:///sockets/{n}.peers", role, 40, "stream", 7)
        for n, role in enumerate(roles, 1)
    )


THREE = group("voter", "voter", "voter")


def status(number: int, role: str = "follower", **others: Any) -> Status:
    """Of replica `number`, pid 1000 + `number`; `counters` and `figures` as keywords of dicts."""
    counters = {"write_requests": 0, "read_requests": 0, "turns": 9, "slow_turns": 1}
    counters |= others.pop("counters", {})
    figures = {"keys": 5, "state_bytes": 99, "sessions": 2, "leases": 1, "watchers": 3}
    told = Status(
        number=1, member=100 + number, pid=1000 + number, clients="", group=1, role=role, term=4,
        leader=101, commit=50, applied=50, last=51, durable=51, base=1, snapshot=2, commands=44,
        digest=7, seats=THREE, joint=False, lost=False, full=False, log_bytes=900,
        disk_bytes=1 << 20, up_ms=3_600_000, counters=tuple(counters.items()),
        figures=tuple(figures.items()),
    )  # fmt: skip
    return told._replace(**others)


def sight(*statuses: Status, at: float = 10.0, seats: int = 3, problem: str = "") -> Sight:
    """These answered, of the first so many seats."""
    told = {one.member - 100: one for one in statuses}
    processes = {number: Process(one.pid, 2.5 * at, 1 << 25, 30) for number, one in told.items()}
    return Sight(at, SEATS[:seats], told, processes, problem)


def well(**others: Any) -> tuple[Status, ...]:
    """Three that answer, and the first leads."""
    return (status(1, "leader", **others), status(2, **others), status(3, **others))
