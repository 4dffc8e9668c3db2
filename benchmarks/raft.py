"""The consensus core and its simulator: steps and rounds a second, events a second.

*Core*: three members in one process, whose messages are handed over as objects and whose disks
are done at once: a round is one proposal, two appends, two answers, and the decision.
*Simulator*: whole seeds of the trial, with disks, codec, log, kernels, the members' own checks
and the judge's; an event is a delivered message, a finished piece of work of a disk, a timer that
fired, an accident.
Each figure is the median of its rounds, on one core::

    python benchmarks/raft.py [--rounds 5] [--seeds 40]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import machine

from engine.contract import Durable, Nanos, Received, peer
from engine.raft.machine import Raft
from engine.raft.membership import founders, pack
from engine.raft.messages import Propose, WithEntries
from engine.raft.settings import MILLISECOND, Settings
from engine.raft.trial import TRIAL
from engine.storage.entries import Append, Base, Entry, GroupLog

MEMBERS = (1, 2, 3)
ROUNDS_OF_CORE = 3000


class Group:
    """Members that hear each other at once."""

    def __init__(self) -> None:
        config = pack(founders({member: f"node {member}" for member in MEMBERS}))
        self.members = {
            member: Raft(
                Settings(member),
                GroupLog(0, 0, Base(1, 0, 0, config), [], [], [], None),
                [],
                random.Random(member),
            )
            for member in MEMBERS
        }
        self.logs: dict[int, dict[int, Entry]] = {member: {} for member in MEMBERS}
        self.inboxes: dict[int, list[object]] = {member: [] for member in MEMBERS}
        self.now: Nanos = 0
        self.steps = 0

    def settle(self) -> None:
        """Turns, until nobody has anything to hear."""
        while any(self.inboxes.values()):
            for member in MEMBERS:
                if self.inboxes[member]:
                    self.turn(member)

    def turn(self, member: int) -> None:
        raft, log = self.members[member], self.logs[member]
        events, self.inboxes[member] = self.inboxes[member], []
        raft.step(self.now, events)
        ready = raft.ready()
        self.steps += 1
        for write in ready.writes:
            if type(write.record) is Append:
                log.update(enumerate(write.record.entries, write.record.first))
        if ready.writes:
            self.inboxes[member].append(Durable(raft.written))
        for _, message in (*ready.now, *ready.after):
            if type(message) is WithEntries:
                ask, last = message
                entries = tuple([log[i] for i in range(ask.previous + 1, last + 1)])
                message = ask._replace(entries=entries)
            self.inboxes[message.to].append(Received(peer(f"node {member}"), message))

    def elect(self) -> Raft:
        while True:
            self.now += 10 * MILLISECOND
            for member in MEMBERS:
                self.turn(member)
            self.settle()
            for raft in self.members.values():
                if raft.leader == raft.me and raft.commit:
                    return raft


def core() -> tuple[float, float]:
    """(rounds, steps) a second."""
    group = Group()
    leader = group.elect()
    group.steps = 0
    begin = time.perf_counter()
    for number in range(ROUNDS_OF_CORE):
        group.inboxes[leader.me].append(Propose(number, ((0, b"command"),)))
        group.settle()
    seconds = time.perf_counter() - begin
    assert leader.commit == leader.log.last, leader
    return ROUNDS_OF_CORE / seconds, group.steps / seconds


def simulator(first: int, seeds: int) -> float:
    """Events a second."""
    begin, events = time.perf_counter(), 0
    for seed in range(first, first + seeds):
        report = TRIAL.run_seed(seed)
        assert not report.problem, report
        events += report.events
    return events / (time.perf_counter() - begin)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the consensus core and its simulator.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=40, help="of a round")
    flags = parser.parse_args()
    introduce()
    cores, events = [], []
    for number in range(flags.rounds):
        cores.append(core())
        events.append(simulator(number * flags.seeds, flags.seeds))
    rounds, steps = (statistics.median(column) for column in zip(*cores, strict=True))
    print("| what | a second |\n|---|---|")
    print(f"| core: rounds of three members | {rounds:,.0f} |")
    print(f"| core: steps | {steps:,.0f} |")
    print(f"| simulator: events, with all checks | {statistics.median(events):,.0f} |")
    return 0


def introduce() -> None:
    """What the figures were measured on."""
    with tempfile.TemporaryDirectory() as folder:
        found = machine.describe(Path(folder), sys.executable, "/usr/bin:/bin")
    load = ", ".join(f"{one:.2f}" for one in found["load"])  # type: ignore[attr-defined]
    print(f"{found['cpu']}, {found['cores']} cores, load {load}; {found['system']}")
    print(f"{found['python']}, commit {found['commit']}, {found['when']}; no disk is involved\n")


if __name__ == "__main__":
    raise SystemExit(main())
