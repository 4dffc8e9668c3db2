"""Figures as Prometheus reads them."""

from __future__ import annotations

import re

from engine.raft.metrics import GAUGES, text_of
from engine.raft.requests import Status

STATUS = Status(
    number=1, member=7, pid=1, clients="ipc://c", group=1, role="leader", term=3, leader=7,
    commit=11, applied=10, last=12, durable=11, base=5, snapshot=9, commands=8, digest=1, seats=(),
    joint=False, lost=False, full=True, log_bytes=99, disk_bytes=4096, up_ms=1500,
    counters=(("elections_won", 2), ("turns", 44)),
)  # fmt: skip
LINE = re.compile(r'[a-z_]+\{[a-z]+="(?:[^"\\]|\\.)*"(?:,[a-z]+="(?:[^"\\]|\\.)*")*\} -?[\d.]+')


def test_text() -> None:
    other = STATUS._replace(member=8, role="follower", full=False, counters=(("turns", 45),))
    text = text_of(["a", "b", "c"], {"a": STATUS, "b": other})
    lines = text.splitlines()
    assert text.endswith("\n")
    for line in (
        'engine_raft_up{admin="a"} 1',
        'engine_raft_up{admin="c"} 0',
        'engine_raft_commit{group="1",member="7"} 11',
        'engine_raft_full{group="1",member="7"} 1',
        'engine_raft_full{group="1",member="8"} 0',
        'engine_raft_leads{group="1",member="7"} 1',
        'engine_raft_leads{group="1",member="8"} 0',
        'engine_raft_up_seconds{group="1",member="7"} 1.500',
        'engine_raft_elections_won_total{group="1",member="7"} 2',
        'engine_raft_turns_total{group="1",member="8"} 45',
        "# TYPE engine_raft_turns_total counter",
        "# TYPE engine_raft_commit gauge",
    ):
        assert line in lines
    assert 'engine_raft_elections_won_total{group="1",member="8"}' not in text


def test_every_line_is_one() -> None:
    """Each series has its head, once, and stands behind it."""
    text = text_of(['a"\\\n', "b"], {"b": STATUS})
    known: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in known
            known.append(name)
        elif not line.startswith("# TYPE "):
            assert LINE.fullmatch(line), line
            assert line.startswith(known[-1] + "{")
    assert {f"engine_raft_{name}" for name in GAUGES} <= set(known)


def test_nobody_answers() -> None:
    assert 'engine_raft_up{admin="a"} 0' in text_of(["a"], {})
