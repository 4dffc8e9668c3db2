"""Figures of replicas as text for Prometheus (exposition format 0.0.4).

They are served by a process of its own that asks the replicas' admin endpoints whenever it is asked
(`engine.web.server`): a replica's loop has better things to do than HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.raft.requests import Status

GAUGES = {
    "term": "The member's term.",
    "commit": "Index of the last entry that it knows to be committed.",
    "applied": "Index of the last entry that it applied.",
    "last": "Index of the last entry of its log.",
    "durable": "Index of the last entry that is on its disk.",
    "base": "Index of the last entry that its log does not hold any more.",
    "snapshot": "Index of the last entry of its newest snapshot.",
    "commands": "Commands applied since the group was founded.",
    "lost": "1 while a damaged log is being repaired, and the member does not vote.",
    "full": "1 while its disk has no space.",
    "log_bytes": "Bytes of live entries.",
    "disk_bytes": "Bytes of all its files.",
}


def text_of(addresses: Sequence[str], statuses: Mapping[str, Status]) -> str:
    """The text, for replicas at these addresses of which some have answered."""
    lines = [*_head("up", "gauge", "1 if the replica answers.")]
    lines += [f'engine_raft_up{{admin="{_text(one)}"}} {int(one in statuses)}' for one in addresses]
    known = [statuses[one] for one in addresses if one in statuses]
    for name, what in GAUGES.items():
        lines += _head(name, "gauge", what)
        lines += [f"{_series(name, one)} {int(getattr(one, name))}" for one in known]
    lines += _head("leads", "gauge", "1 if the member leads its term.")
    lines += [f"{_series('leads', one)} {int(one.role == 'leader')}" for one in known]
    lines += _head("up_seconds", "gauge", "Age of the process.")
    lines += [f"{_series('up_seconds', one)} {one.up_ms / 1000:.3f}" for one in known]
    for name in sorted({name for one in known for name, _ in one.counters}):
        lines += _head(f"{name}_total", "counter", "Since the process was started.")
        for one in known:
            counters = dict(one.counters)
            if name in counters:
                lines.append(f"{_series(f'{name}_total', one)} {counters[name]}")
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP engine_raft_{name} {what}", f"# TYPE engine_raft_{name} {kind}"]


def _series(name: str, status: Status) -> str:
    return f'engine_raft_{name}{{group="{status.group}",member="{status.member}"}}'


def _text(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
