"""Golden scripts for the scheduler; their form is in `scripts`.

Commands (a worker is its node, `#3` the third attempt of the current coordinator):

    job splits=4 partitions=2 workers=2 [lease=10] [record_timeout=5] [skip_bad=1]
    joins NODE           scanned NODE #A        committed NODE FILE #A…     reduced NODE FILE #A
    failed NODE #A REASON WHERE      at NODE #A PHASE TASK RECORD (its page moved)
    exits NODE CODE      link NODE down|up      spawn-fails NODE            tick SECONDS
    durable              published [PART…]      publish-fails               restart
    status

`restart` kills the coordinator and starts another on what the journal holds durably.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from scripts import command, hold, scenarios

from engine.contract import SECOND, Durable, Event, Exited, Finished, Link, Linked, Moved, Received
from engine.mapreduce import messages as m
from engine.mapreduce.machine import Recovered, Scheduler, Settings

PHASES = ("idle", "reading", "mapping", "committing", "reducing")
SCENARIOS = scenarios(__file__)


class Runner:
    """Runs the commands of one script."""

    def __init__(self) -> None:
        self.now = 0
        self.incarnation = 0
        self.links: dict[int, Link] = {}
        self.jobs: dict[str, int] = {}
        self.journal: list[Any] = []
        self.groups: list[int] = [0]
        self.durable = 0
        self.beat = 0

    # --- commands ---

    def run(self, line: str) -> list[str]:
        words = line.split()
        event = command(self, words[0])(*words[1:])
        if isinstance(event, list):
            return event
        return self.turn([] if event is None else [event])

    def turn(self, events: list[Event]) -> list[str]:
        self.scheduler.step(self.now, events)
        self.scheduler.check()
        ready = self.scheduler.ready()
        self.journal += [write.record for write in ready.writes]
        if ready.writes:
            self.groups.append(len(self.journal))
        lines = [f"journal {self.show(write.record)}" for write in ready.writes]
        lines += [f"→ {send.link.node} {self.show(send.message)}" for send in ready.now]
        for number, work in ready.jobs:
            self.jobs[type(work).__name__ + str(getattr(work, "node", ""))] = number
            lines.append(f"start {self.show(work)}")
        if self.scheduler.outcome is not None:
            outcome = self.scheduler.outcome
            lines.append(f"over: {'ok' if outcome.ok else outcome.text}")
        return lines

    def do_job(self, *words: str) -> None:
        given = dict(word.split("=") for word in words)
        splits, partitions = int(given.pop("splits")), int(given.pop("partitions"))
        times = {k: int(v) * SECOND for k, v in given.items() if k in ("lease", "record_timeout")}
        counts = {k: int(v) for k, v in given.items() if k not in times}
        tasks = tuple(("a.txt", n * 10, n * 10 + 10, (1, 2, 3)) for n in range(splits))
        configure = m.Configure(**dict.fromkeys(m.Configure._fields, 0))  # type: ignore[arg-type]
        self.settings = Settings(tasks, partitions, configure, **times, **counts)  # type: ignore[arg-type]
        self.scheduler = Scheduler(Recovered(), self.settings, random.Random(1))

    def do_restart(self) -> None:
        kept = self.groups[self.durable]
        self.journal = self.journal[:kept]
        self.groups, self.durable = [kept], 0
        recovered = Recovered(tuple(self.journal), resumed=True)
        self.scheduler = Scheduler(recovered, self.settings, random.Random(1))

    def do_joins(self, node: str) -> Event:
        self.incarnation += 1
        self.links[int(node)] = Link("worker", int(node), self.incarnation)
        return self.says(node, m.Join(0))

    def says(self, node: str, message: Any) -> Event:
        return Received(self.links[int(node)], message)

    def do_scanned(self, node: str, attempt: str) -> Event:
        return self.says(node, m.Scanned(self.number(attempt)))

    def do_committed(self, node: str, path: str, *attempts: str) -> Event:
        numbers = tuple(map(self.number, attempts))
        return self.says(node, m.Committed(numbers, path, 1, 2, (10 * len(numbers), 5, 0), ()))

    def do_reduced(self, node: str, path: str, attempt: str) -> Event:
        return self.says(node, m.Reduced(self.number(attempt), path, 1, 2, 3, 4))

    def do_failed(self, node: str, attempt: str, reason: str, where: str) -> Event:
        text = f"{reason} went wrong"
        return self.says(node, m.Failed(self.number(attempt), reason, text, int(where), ""))

    def do_at(self, node: str, attempt: str, phase: str, task: str, record: str) -> Event:
        self.beat += 1
        words = (self.beat, self.number(attempt), PHASES.index(phase), int(task), int(record))
        return Moved(int(node), words + (0,) * 11)

    def do_exits(self, node: str, code: str) -> Event:
        return Exited(int(node), int(code))

    def do_link(self, node: str, state: str) -> Event:
        return Linked(self.links[int(node)], state == "up")

    def do_spawn_fails(self, node: str) -> Event:
        return Finished(self.jobs[f"Spawn{node}"], error="no more processes")

    def do_tick(self, seconds: str) -> None:
        self.now += int(float(seconds) * SECOND)

    def do_durable(self) -> Event:
        self.durable = len(self.groups) - 1
        return Durable(self.durable)

    def do_published(self, *missing: str) -> Event:
        return Finished(self.jobs["Publish"], tuple(map(int, missing)))

    def do_publish_fails(self) -> Event:
        return Finished(self.jobs["Publish"], error="out: no space left")

    def do_status(self) -> list[str]:
        s = self.scheduler.status()
        tally = " ".join(f"{k}={v}" for k, v in self.scheduler.attempts.tally.items())
        return [
            f"{s.phase}: {s.tasks_done}/{s.tasks} splits in {s.runs} runs, {s.partitions_done}/"
            f"{s.partitions} partitions, {s.workers} workers, {s.deaths} deaths",
            f"attempts: {s.attempts} current {tally}",
        ]

    # --- printing ---

    @property
    def base(self) -> int:
        return self.scheduler.ledger.epoch << m.EPOCH_BITS

    def number(self, word: str) -> int:
        """`#3` of this coordinator, `#1.3` of the first."""
        epoch, _, number = word[1:].rpartition(".")
        return (int(epoch) << m.EPOCH_BITS if epoch else self.base) + int(number)

    def show(self, message: Any) -> str:
        """A message in a few words."""
        name = type(message).__name__
        if isinstance(message, m.Map):
            skip = f" skip {message.skip}" if message.skip else ""
            return f"Map #{message.attempt - self.base} split {message.task}{skip}"
        if isinstance(message, m.Reduce):
            runs = " ".join(f"{number}:{path}" for number, path, *_ in message.runs)
            return f"Reduce #{message.attempt - self.base} partition {message.partition} of {runs}"
        if isinstance(message, m.RunAccepted):
            return f"{name} {message.run} splits {message.tasks} {message.path}"
        if isinstance(message, m.OutputAccepted):
            return f"{name} {message.partition} {message.path}"
        if isinstance(message, m.Publish):
            return f"{name} " + " ".join(part.path for part in message.parts)
        shown = () if isinstance(message, m.Configure | m.Flush) else message
        return f"{name} {' '.join(map(str, shown))}".rstrip()


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    hold(path, Runner())


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 8
