"""What the page shows of a cluster: the last sight of it, and how fast it went lately.

Counters begin at 0 in every process, and only whoever leads answers writes. So speeds are sums over
replicas of what each counted from one sight to the next; one that was started meanwhile counts from
its start.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from engine.kv.slow import KEPT, shown
from engine.raft.requests import Slow, Status
from engine.record import Record
from engine.web.lookout import Sight
from engine.web.verdict import best, members, verdict

KEPT_SECONDS = 300
WRITES, READS = "write_requests", "read_requests"
ENTRIES = ("commit", "applied", "last", "durable", "snapshot")


class Speed(Record):
    """Requests a second that were answered up to `at`; None: nobody was there to say."""

    at: float
    writes: float | None
    reads: float | None


class Board:
    """`see` what a `Lookout` saw, then ask what is to be told."""

    def __init__(self, folder: str, *, keys: bool = False) -> None:
        """Keys of the store are told with `keys` only."""
        self.folder, self.keys = folder, keys
        self.sight: Sight | None = None
        self.speeds: deque[Speed] = deque()
        self._cpu: dict[int, float] = {}
        """Of a core, by the seats' `id`."""

    def see(self, sight: Sight) -> None:
        """Sights come in the order of their times."""
        before, self.sight = self.sight, sight
        if before is None:
            return
        self.speeds.append(_speed(before, sight))
        while self.speeds[0].at < sight.at - KEPT_SECONDS:
            self.speeds.popleft()
        passed = max(sight.at - before.at, 1e-3)
        self._cpu = {
            number: max(0.0, now.cpu_seconds - then.cpu_seconds) / passed
            for number, now in sight.processes.items()
            if (then := before.processes.get(number)) is not None and then.pid == now.pid
        }

    def told(self, now: float) -> dict[str, Any]:
        """For JSON. `now` is a time as in sights; `age` says how old this is by now."""
        sight = self.sight
        assert sight is not None
        judged = verdict(sight)
        status = best(sight)
        return {
            "cluster": os.path.basename(os.path.abspath(self.folder)),
            "level": judged.level,
            "sentences": judged.sentences,
            "age": round(now - sight.at, 3),
            "leader": sight.leader or None,
            "term": max((one.term for one in sight.statuses.values()), default=None),
            "revision": max((one.commands for one in sight.statuses.values()), default=None),
            "figures": dict(status.figures) if status is not None else {},
            "replicas": self._replicas(sight),
            "speeds": self._speeds(sight),
            "slow": self._slow(sight, now),
        }

    def _slow(self, sight: Sight, now: float) -> list[dict[str, Any]]:
        """The last requests that took long, the newest first; `seconds_ago` they were over."""
        passed = now - sight.at
        rows = [
            {"replica": number, "pid": status.pid, **self._slow_one(one, passed)}
            for number, status in sight.statuses.items()
            for one in status.slow
        ]
        rows.sort(key=lambda row: row["seconds_ago"])
        return rows[:KEPT]

    def _slow_one(self, one: Slow, passed: float) -> dict[str, Any]:
        return {
            "number": one.number,
            "seconds_ago": round(one.ago_ms / 1000 + passed, 3),
            "took_ms": one.took_ms,
            "verb": one.verb,
            "key": shown(one.key, one.cut) if self.keys else None,
            "client": one.client,
            "session": one.session,
            "waited": one.waited,
            "ended": one.ended,
            "others": one.others,
        }

    def _speeds(self, sight: Sight) -> dict[str, Any]:
        """Seconds before the last sight, and what was done then."""
        return {
            "kept_seconds": KEPT_SECONDS,
            "before": [round(sight.at - one.at, 1) for one in self.speeds],
            "writes": [_short(one.writes) for one in self.speeds],
            "reads": [_short(one.reads) for one in self.speeds],
        }

    def _replicas(self, sight: Sight) -> list[dict[str, Any]]:
        group = members(sight)
        leader = sight.statuses.get(sight.leader)
        silences = {s.id: s.silent_ms for s in leader.seats} if leader is not None else {}
        first = max((one.commit for one in sight.statuses.values()), default=0)
        rows = []
        for seat in sight.seats:
            row: dict[str, Any] = {"id": seat.id, "member": seat.member}
            row["seat"] = (
                "voter" if seat.id in group.voters
                else "learner" if seat.id in group.learners
                else "none"
            )  # fmt: skip
            status = sight.statuses.get(seat.id)
            row["reachable"] = status is not None
            if status is not None:
                row |= _known(status, first)
                row["silent_ms"] = silences.get(seat.member)
                row["cpu"] = _short(self._cpu.get(seat.id))
                process = sight.processes.get(seat.id)
                if process is not None:
                    row["resident_bytes"] = process.resident_bytes
                    row["open_fds"] = process.open_fds
            rows.append(row)
        return rows


def _known(status: Status, first: int) -> dict[str, Any]:
    """What a replica says of itself; `first` is how much is known to be committed anywhere."""
    return {
        "pid": status.pid,
        "role": status.role,
        "term": status.term,
        "up_seconds": status.up_ms // 1000,
        **{name: getattr(status, name) for name in ENTRIES},
        "log_behind": max(0, first - status.last),
        "applied_behind": max(0, first - status.applied),
        "log_bytes": status.log_bytes,
        "disk_bytes": status.disk_bytes,
        "lost": status.lost,
        "full": status.full,
        "counters": dict(status.counters),
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _speed(before: Sight, sight: Sight) -> Speed:
    passed = sight.at - before.at
    if not sight.statuses or passed <= 0:
        return Speed(sight.at, None, None)
    writes, reads = (_counted(before, sight, name) / passed for name in (WRITES, READS))
    return Speed(sight.at, writes, reads)


def _counted(before: Sight, sight: Sight, name: str) -> int:
    """By all who were there both times, or are new."""
    total = 0
    for number, status in sight.statuses.items():
        then = before.statuses.get(number)
        if then is None and status.up_ms > (sight.at - before.at) * 1000:
            continue  # it was silent then: what it did meanwhile is of no known time
        same = then is not None and then.pid == status.pid
        total += _counter(status, name) - (_counter(then, name) if same and then else 0)
    return max(0, total)


def _counter(status: Status, name: str) -> int:
    return dict(status.counters).get(name, 0)
