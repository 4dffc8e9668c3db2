"""Figures of a store's replicas as text for Prometheus (exposition format 0.0.4).

Names are promises: boards and alarms stand on them. Each begins with `engine_kv_` and has its unit
in it; counters end with `_total` and begin at 0 when a replica's process does. The label `replica`
is the number that `engine kv status` shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.kv.up import Seat
    from engine.raft.requests import Status

PREFIX = "engine_kv_"
ROLES = ("leader", "candidate", "follower")

STATED: dict[str, tuple[str, Callable[[Status], float]]] = {
    "leads": ("1 if the replica leads its term.", lambda one: int(one.role == "leader")),
    "term": ("The replica's term.", lambda one: one.term),
    "commit_index": ("Last entry that it knows to be committed.", lambda one: one.commit),
    "applied_index": ("Last entry that it applied.", lambda one: one.applied),
    "last_index": ("Last entry of its log.", lambda one: one.last),
    "durable_index": ("Last entry that is on its disk.", lambda one: one.durable),
    "base_index": ("Last entry that its log does not hold any more.", lambda one: one.base),
    "snapshot_index": ("Last entry of its newest snapshot.", lambda one: one.snapshot),
    "revision": ("Revision of its keys.", lambda one: one.commands),
    "log_bytes": ("Live entries of its log.", lambda one: one.log_bytes),
    "disk_bytes": ("All its files.", lambda one: one.disk_bytes),
    "repairing": ("1 while a damaged log is repaired: it does not vote.", lambda one: one.lost),
    "disk_full": ("1 while its disk has no space.", lambda one: one.full),
    "up_seconds": ("Age of its process.", lambda one: one.up_ms / 1000),
}
FIGURES = {
    "keys": "Keys that it has.",
    "state_bytes": "Keys, values and sessions, as the limit of the state counts them.",
    "sessions": "Sessions of clients that it remembers.",
    "leases": "Leases that it has.",
    "watchers": "Watches of clients that it serves.",
}
COUNTERS = {
    "write_requests": "Writes, and whatever else goes through the log, answered by it.",
    "read_requests": "Reads answered by it.",
    "submitted": "Frames of writes answered by it; a frame holds what a client asked at once.",
    "reads": "Frames of linearizable reads answered by it.",
    "local_reads": "Frames of reads of this replica alone answered by it.",
    "slow_requests": "Requests that took longer than 100 ms from when they came to their answer.",
    "rejected": "Frames of requests that it did not do, and said so.",
    "unknown": "Frames of requests of which it cannot say what became of them.",
    "watched_events": "Changes told to watchers by it.",
    "malformed": "Messages that nobody can understand.",
    "turns": "Turns of its loop.",
    "slow_turns": "Turns that took longer than 10 ms.",
    "elections_won": "Terms that it began to lead.",
} | {
    f"{end}_{what}": f"{text} over its endpoint {end}."
    for end in ("peers", "clients", "admin")
    for what, text in (
        ("received", "Messages received"),
        ("sent", "Messages sent"),
        ("lost", "Messages dropped, the other end being gone or too slow,"),
        ("refused", "Connections refused"),
        ("malformed", "Messages that are no messages"),
    )
}
REDIS = {
    f"redis_{what}": f"{text} by its gateway for Redis clients."
    for what, text in {
        "connections": "Connections let in",
        "refused": "Connections refused",
        "dropped": "Connections closed before they ended",
        "handshakes": "Handshakes of TLS done",
        "wrong_secrets": "Secrets found to be wrong",
        "dismissed": "Connections closed since their user was removed",
    }.items()
}
"""Are there where Redis clients are served."""
REFUSED = re.compile(r"(peers|clients|admin|redis)_refused_(\w+)")
REFUSALS = "refused_by_reason_total"
"""Is there as soon as somebody was refused."""
PROCESS: dict[str, tuple[str, str]] = {
    "process_cpu_seconds_total": ("cpu_seconds", "Processor time of its process."),
    "process_resident_bytes": ("resident_bytes", "Memory of its process."),
    "process_open_fds": ("open_fds", "Descriptors that its process has open."),
}


class Text:
    """Grows series by series; all of one name stand together, behind their head."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, name: str, what: str, rows: Iterable[tuple[Mapping[str, Any], float]]) -> None:
        """Nothing if there are no rows."""
        kind = "counter" if name.endswith("_total") else "gauge"
        head = [f"# HELP {PREFIX}{name} {what}", f"# TYPE {PREFIX}{name} {kind}"]
        for labels, value in rows:
            inside = ",".join(f'{label}="{one}"' for label, one in labels.items())
            head.append(f"{PREFIX}{name}{{{inside}}} {_number(value)}")
        if len(head) > 2:
            self.lines += head


def text_of(
    seats: Sequence[Seat], statuses: Mapping[int, Status], processes: Mapping[int, Any]
) -> str:
    """The text: who sits there, what those say that have answered, and what their processes take
    (`cpu_seconds`, `resident_bytes`, `open_fds`), all by the seats' `id`."""
    text = Text()
    known = [(number, statuses[number]) for number in sorted(statuses)]
    up = [({"replica": seat.id}, int(seat.id in statuses)) for seat in seats]
    text.add("up", "1 if the replica answers.", up)
    for name, (what, value) in STATED.items():
        text.add(name, what, [({"replica": n}, value(one)) for n, one in known])
    roles = [
        ({"replica": number, "role": role}, int(one.role == role))
        for number, one in known
        for role in ROLES
    ]
    text.add("role", "1 for the role that the replica has.", roles)
    _followers(text, seats, statuses)
    for name, what in FIGURES.items():
        text.add(name, what, _rows(known, "figures", name))
    refused = [
        ({"replica": number, "endpoint": found[1], "reason": found[2]}, value)
        for number, one in known
        for name, value in one.counters
        if (found := REFUSED.fullmatch(name))
    ]
    text.add(REFUSALS, "Connections refused, by endpoint and reason.", refused)
    others = {name for _, one in known for name, _ in one.counters} - COUNTERS.keys()
    others = {name for name in others if not REFUSED.fullmatch(name)}
    of_process = {name: REDIS.get(name, "Of its process.") for name in sorted(others)}
    for name, what in {**COUNTERS, **of_process}.items():
        text.add(f"{name}_total", what, _rows(known, "counters", name))
    for name, (field, what) in PROCESS.items():
        rows = [({"replica": n}, getattr(one, field)) for n, one in sorted(processes.items())]
        text.add(name, what, rows)
    return "\n".join(text.lines) + "\n"


def _rows(
    known: Sequence[tuple[int, Status]], where: str, name: str
) -> list[tuple[Mapping[str, Any], float]]:
    """Of those who have it."""
    return [
        ({"replica": number}, value)
        for number, one in known
        for what, value in getattr(one, where)
        if what == name
    ]


def _followers(text: Text, seats: Sequence[Seat], statuses: Mapping[int, Status]) -> None:
    """How far the others are, as the leader of the latest term sees it."""
    leaders = [(one.term, number) for number, one in statuses.items() if one.role == "leader"]
    if not leaders:
        return
    number = max(leaders)[1]
    leader, ids = statuses[number], {seat.member: seat.id for seat in seats}
    others = [
        ({"replica": ids.get(one.id, one.id)}, one)
        for one in leader.seats
        if one.id != leader.member
    ]
    what = "Entries of the leader's log that are not known to be on this replica's disk."
    text.add("follower_lag_entries", what, [(n, leader.last - one.match) for n, one in others])
    what = "Since the leader heard of this replica."
    text.add("follower_silent_seconds", what, [(n, one.silent_ms / 1000) for n, one in others])
    what = "1 for those who vote, 0 for those who learn."
    votes = [
        ({"replica": ids.get(one.id, one.id)}, int(one.role in ("voter", "leaving")))
        for one in leader.seats
    ]
    text.add("votes", what, votes)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"


def names() -> set[str]:
    """All that there may be."""
    followers = {"follower_lag_entries", "follower_silent_seconds", "votes"}
    counters = {f"{name}_total" for name in COUNTERS}
    all_of = {"up", "role", REFUSALS, *STATED, *FIGURES, *followers, *counters, *PROCESS}
    return {f"{PREFIX}{name}" for name in all_of}
