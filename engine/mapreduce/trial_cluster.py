"""The scheduler's cluster in the simulator: the real machine, the real turn, a simulated rest.

One seed draws the job, the timings and the accidents (`SHAPE`, `FAULTS`). Accidents happen until
`CALM`; then everything is mended, and the job must end within `PATIENCE`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from engine.contract import (
    Durable,
    Event,
    Exited,
    Finished,
    Link,
    Linked,
    Moved,
    Nanos,
    Received,
)
from engine.mapreduce.machine import Settings
from engine.mapreduce.messages import (
    Configure,
    Stop,
)
from engine.mapreduce.trial_judge import Judge
from engine.mapreduce.trial_worker import SimulatedWorker
from engine.mapreduce.trial_world import JOURNAL, Coordinator, unframe
from engine.sim.disk import Disk
from engine.sim.experiment import Violation
from engine.sim.network import Network, faults_of
from engine.sim.swarm import draw, is_quiet
from engine.sim.timeline import MILLISECOND, Crashed, Timeline

CALM: Nanos = 400 * MILLISECOND
"""Accidents end here."""
PATIENCE: Nanos = 120_000 * MILLISECOND
"""The job is over by then; the longest patience in it is that for a process that never joins."""
JOINED = 1_000_000
"""Nodes from here on are workers that joined by themselves."""
WORDS = ("a", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")
EVENTS_MAX = 200_000
"""More in one run is a livelock."""

SHAPE: dict[str, Sequence[Any]] = {
    "tasks": (1, 2, 4, 8, 12, 16),
    "partitions": (1, 2, 3),
    "supervised": (0, 0, 1, 2, 3),
    "joined": (0, 0, 1, 2, 3),
    "commit": (0.0, 0.1, 0.3, 1.0),
    "sync": (MILLISECOND // 5, 2 * MILLISECOND, 30 * MILLISECOND),
    "record": (MILLISECOND // 4, MILLISECOND, 4 * MILLISECOND),
    "lease": (20 * MILLISECOND, 60 * MILLISECOND),
}
FAULTS: dict[str, Sequence[Any]] = {
    "loss": (0.0, 0.01, 0.05),
    "duplicate": (0.0, 0.05, 0.3),
    "reorder": (0.0, 0.05, 0.3),
    "delay": (MILLISECOND // 10, MILLISECOND, 5 * MILLISECOND),
    "straggle": (0.0, 0.02, 0.1),
    "stillborn": (0.0, 0.05, 0.1),
    "linger": (0.0, 0.5, 1.0),
    "crash_point": (0.0, 0.002, 0.02),
    "poison": (0, 1),
    "kill": (0, 1, 4),
    "stop": (0, 2, 6),
    "cut": (0, 1, 4),
    "crash": (0, 1, 3),
    "power": (0, 1, 2),
    "pause": (0, 1, 2),
    "damage": (0, 1, 3),
}
"""Rates of messages and moments first, then how many accidents of a kind are planned."""


class Cluster:
    """Everything; `run` returns when the job is over and all is quiet, or raises `Violation`."""

    def __init__(
        self, seed: int, *, keep: bool, trace: bool, checked: bool, beyond: str = ""
    ) -> None:
        assert not beyond, beyond
        self.checked = checked
        self.timeline = Timeline(seed, trace=trace, keep=keep)
        rng = self.timeline.rng
        self.plan = plan = draw(rng, SHAPE, FAULTS)
        if plan["supervised"] + plan["joined"] == 0:
            plan["supervised"] = 2
        self.timeline.note("seed", str(seed), plan)
        self.partitions = plan["partitions"]
        self.texts = [_text(rng) for _ in range(plan["tasks"])]
        self.poison = self._draw_poison(rng)
        self.disk = Disk(rng)
        self.judge = Judge(self.disk, self.texts, self.partitions)
        self.judge.skipped = set(self.poison)
        self.network = Network(self.timeline, faults_of(plan))
        self.crash_point = plan["crash_point"]
        self.settings = self._settings()
        self.workers: dict[int, SimulatedWorker] = {}
        self.coordinator: Coordinator | None = None
        self.incarnations = 0
        self.nodes_joined = JOINED
        self.over = False
        self.events = 0
        self.seen: Counter[str] = Counter()
        """What happened how often, so that a test can tell that accidents do happen."""
        self._ghosts: list[SimulatedWorker] = []
        """Workers that outlive their coordinator for a moment."""

    def _settings(self) -> Settings:
        tasks = tuple((f"text-{n}", 0, len(t), (0, 0, 0)) for n, t in enumerate(self.texts))
        strings = dict.fromkeys(Configure._fields, "")
        configure = Configure(**strings)  # type: ignore[arg-type]
        return Settings(
            tasks,
            self.partitions,
            configure,
            workers=self.plan["supervised"],
            lease=self.plan["lease"],
            skip_bad=len(self.poison),
        )

    def _draw_poison(self, rng: random.Random) -> tuple[tuple[int, int], ...]:
        """Records that crash whoever maps them: only supervised workers tell how they died."""
        if not self.plan["poison"] or self.plan["joined"]:
            return ()
        task = rng.randrange(len(self.texts))
        return ((task, rng.randrange(len(self.texts[task]))),)

    # --- running ---------------------------------------------------------------------------------

    def run(self) -> None:
        for folder in ("job", "scratch", "parts", "out"):
            self.disk.make_folder(folder)
        self.disk.append(JOURNAL, b"")
        self.disk.sync_directory("job")
        self._begin(resumed=False)
        for _ in range(self.plan["joined"]):
            self._join()
        self._plan_accidents()
        self.timeline.after(CALM, self._calm)
        while self.timeline.step():
            self.events += 1
            if self.timeline.now > PATIENCE or self.events > EVENTS_MAX:
                raise Violation(
                    f"not over after {self.timeline.now // MILLISECOND} ms: {self.say()}"
                )
        if not self.over:
            raise Violation(f"everything stands still: {self.say()}")
        self.ended_at = self.timeline.now
        self.judge.check_end()
        if is_quiet(self.plan, FAULTS):
            self.seen["quiet"] += 1
            self.judge.check_quiet()

    def say(self) -> str:
        if self.coordinator is None:
            return "no coordinator"
        return str(self.coordinator.scheduler.status())

    def wake(self, coordinator: Coordinator) -> None:
        """It will take a turn soon."""
        if coordinator is self.coordinator and not coordinator.due and not coordinator.paused:
            coordinator.due = True
            self.timeline.after(10_000, self._turn, coordinator)

    def _turn(self, coordinator: Coordinator) -> None:
        if coordinator is not self.coordinator:
            return
        coordinator.due = False
        if coordinator.paused:
            return
        try:
            wake_at = coordinator.turn()
        except Crashed:
            self.die_at_point()
            return
        if self.checked:
            coordinator.scheduler.check()
        outcome = coordinator.scheduler.outcome
        if outcome is not None:
            self.timeline.note("coordinator", "ends", outcome)
            self._count(coordinator)
            if not outcome.ok:
                raise Violation(f"the job failed: {outcome.text}")
            self._end()
        elif wake_at is not None and (coordinator.timer is None or wake_at < coordinator.timer):
            coordinator.timer = wake_at
            self.timeline.after(max(0, wake_at - self.timeline.now), self._alarm, coordinator)

    def _count(self, coordinator: Coordinator) -> None:
        self.seen.update(coordinator.scheduler.attempts.tally)
        self.seen["skipped"] += coordinator.scheduler.crew.blame.skipped

    def _alarm(self, coordinator: Coordinator) -> None:
        coordinator.timer = None
        self.wake(coordinator)

    def _end(self) -> None:
        """The coordinator leaves; a worker that missed its `Stop` notices that."""
        self.over, self.coordinator = True, None
        for worker in self.workers.values():
            self.timeline.after(20 * MILLISECOND, worker.exit, 0)

    # --- the coordinator's process ---------------------------------------------------------------

    def _begin(self, resumed: bool) -> None:
        if self.coordinator is not None or self.over:
            return
        records = self._read_journal()
        self.judge.restarted(records)
        self.timeline.note("coordinator", "begins", len(records), "records")
        self.coordinator = Coordinator(self, records, resumed)
        for worker in self.workers.values():
            if worker.alive and not worker.supervised:
                self._reconnect(worker)
        self.wake(self.coordinator)

    def _read_journal(self) -> list[Any]:
        """All records up to the first that does not verify; the rest is cut off."""
        data = self.disk.read(JOURNAL)
        records, size = unframe(data)
        if size < len(data):
            self.disk.truncate(JOURNAL, size)
        return records

    def die_at_point(self) -> None:
        """At a named point, alone or with the whole machine."""
        if self.plan["power"] and self.timeline.chance(0.3):
            self._lose_power()
        else:
            self.crash()

    def crash(self) -> None:
        """kill -9: supervised workers go with it, or linger a little; files stay."""
        if self.coordinator is None:
            return
        self.timeline.note("coordinator", "crashes")
        self._count(self.coordinator)
        self.coordinator = None
        self.seen["restart"] += 1
        for worker in self.workers.values():
            self._cut_pipes(worker)
            if worker.supervised:
                linger = self.timeline.chance(self.plan["linger"])
                delay = self.timeline.spread(40 * MILLISECOND) if linger else 0
                self._ghosts.append(worker)
                self.timeline.after(delay, worker.exit, -9)
        self.workers = {n: w for n, w in self.workers.items() if not w.supervised}
        self.timeline.after(self.timeline.spread(10 * MILLISECOND), self._begin, True)

    def synced(self, coordinator: Coordinator, ticket: int, count: int) -> None:
        if coordinator is self.coordinator:
            self.timeline.note("journal", "durable", ticket)
            self.disk.sync(JOURNAL)
            # Whatever was written until now is on the disk; the machine is told less.
            self.judge.synced(coordinator.records)
            self.tell(coordinator, Durable(ticket))

    def tell(self, coordinator: Coordinator | None, event: Event) -> None:
        if coordinator is not None and coordinator is self.coordinator:
            self.timeline.note("coordinator", "hears", event)
            coordinator.inbox.append(event)
            self.wake(coordinator)

    def send(self, link: Link, message: Any) -> None:
        self.timeline.note("coordinator", "sends", link.node, message)
        self.judge.send(message)
        worker = self.workers.get(link.node)
        if worker is not None and worker.link == link:
            self.network.send(("down", link.node), worker.deliver, message, once=True)

    # --- workers' processes ----------------------------------------------------------------------

    def _link(self, node: int) -> Link:
        self.incarnations += 1
        return Link("worker", node, self.incarnations)

    def spawn(self, coordinator: Coordinator, job: int, node: int) -> None:
        if coordinator is not self.coordinator:
            return
        worker = self.workers[node] = SimulatedWorker(self, node, self._link(node), True)
        self._fresh_pipes(node)
        self.tell(coordinator, Finished(job, node))
        if self.timeline.chance(self.plan["stillborn"]) and self.timeline.now < CALM:
            self.timeline.after(MILLISECOND, worker.exit, 1)
        else:
            self.timeline.after(self.timeline.spread(2 * MILLISECOND), worker.begin)

    def kill(self, node: int) -> None:
        worker = self.workers.get(node)
        if worker is not None:
            self.timeline.after(1, worker.exit, -9)

    def _join(self) -> None:
        """Somebody starts a worker by hand."""
        if self.over:
            return
        node, self.nodes_joined = self.nodes_joined, self.nodes_joined + 1
        worker = self.workers[node] = SimulatedWorker(self, node, self._link(node), False)
        self.timeline.after(self.timeline.spread(2 * MILLISECOND), worker.begin)

    def _fresh_pipes(self, node: int) -> None:
        self.network.cut(("up", node))
        self.network.cut(("down", node))

    def _cut_pipes(self, worker: SimulatedWorker) -> None:
        self._fresh_pipes(worker.node)

    def _reconnect(self, worker: SimulatedWorker) -> None:
        self._cut_pipes(worker)
        worker.reconnect(self._link(worker.node))

    def report(self, worker: SimulatedWorker, message: Any) -> None:
        self.timeline.note(f"worker {worker.node}", "says", message)
        link = worker.link
        if self.coordinator is not None and self.workers.get(worker.node) is worker:
            self.network.send(("up", worker.node), lambda m: self._heard(link, m), message)

    def _heard(self, link: Link, message: Any) -> None:
        self.tell(self.coordinator, Received(link, message))

    def page_moved(self, worker: SimulatedWorker) -> None:
        """Shared memory: seen at the next turn, and no reason for one."""
        coordinator = self.coordinator
        if coordinator is not None and self.workers.get(worker.node) is worker:
            coordinator.inbox.append(Moved(worker.node, worker.position))

    def died(self, worker: SimulatedWorker, code: int) -> None:
        self.timeline.note(f"worker {worker.node}", "exits", code)
        if self.workers.get(worker.node) is not worker:
            return
        del self.workers[worker.node]
        self._cut_pipes(worker)
        if worker.supervised:
            self.tell(self.coordinator, Exited(worker.node, code))
        elif not self.over:
            self.timeline.after(
                MILLISECOND, self.tell, self.coordinator, Linked(worker.link, False)
            )
            self.timeline.after(self.timeline.spread(10 * MILLISECOND), self._join)

    def stopped_for_good(self, worker: SimulatedWorker, order: Stop) -> None:
        self.timeline.note(f"worker {worker.node}", "is told", order)

    def work_time(self, worker: SimulatedWorker) -> Nanos:
        # Slow enough for a lease to run out is what a straggler is.
        lease: Nanos = self.plan["lease"]
        time = min(self.timeline.spread(self.plan["record"]), lease // 3)
        if self.timeline.now < CALM and self.timeline.chance(self.plan["straggle"]):
            time += self.timeline.spread(2 * lease)
        return time

    def wants_commit(self) -> bool:
        return self.timeline.chance(self.plan["commit"])

    def is_poison(self, task: int, record: int) -> bool:
        return (task, record) in self.poison

    # --- accidents -------------------------------------------------------------------------------

    def _plan_accidents(self) -> None:
        span = min(CALM, 12 * MILLISECOND * (len(self.texts) + 4))
        for name in ("kill", "stop", "cut", "crash", "power", "pause", "damage"):
            for _ in range(self.plan[name]):
                self.timeline.after(self.timeline.rng.randrange(span), self._accident, name)

    def _accident(self, name: str) -> None:
        if self.over:
            return
        worker = self._anyone()
        self.timeline.note("accident", name, worker.node if worker else "")
        if name == "crash":
            self.crash()
        elif name == "power":
            self._lose_power()
        elif name == "pause":
            self._pause()
        elif name == "damage":
            self._damage()
        elif worker is not None and name == "kill":
            worker.exit(self.timeline.rng.choice((-9, -9, 1, -11)))
        elif worker is not None and name == "stop":
            worker.stop()
            # The most is to be learnt from one that wakes when its lease has just run out.
            lease = self.plan["lease"]
            late = self.timeline.chance(0.7)
            rest = lease + self.timeline.spread(lease // 4) if late else lease // 2
            self.timeline.after(rest, worker.go_on)
        elif worker is not None and name == "cut" and not worker.supervised:
            if self.timeline.chance(0.5):
                self.tell(self.coordinator, Linked(worker.link, False))
            self._reconnect(worker)

    def _anyone(self) -> SimulatedWorker | None:
        nodes = sorted(self.workers)
        return self.workers[self.timeline.rng.choice(nodes)] if nodes else None

    def _pause(self) -> None:
        coordinator = self.coordinator
        if coordinator is not None:
            coordinator.paused = True
            self.timeline.after(
                self.timeline.spread(2 * self.plan["lease"]), self._unpause, coordinator
            )

    def _unpause(self, coordinator: Coordinator) -> None:
        coordinator.paused = False
        self.wake(coordinator)

    def _damage(self) -> None:
        """An accepted file goes bad or missing. Behind the last check of it nothing would help."""
        written = self.judge.written
        paths = sorted(path for path in written.paths if self.disk.exists(path))
        if paths and not written.publishing:
            path = self.timeline.rng.choice(paths)
            if self.timeline.chance(0.5):
                self.disk.damage(path)
            else:
                self.disk.unlink(path)

    def _lose_power(self) -> None:
        """Every process dies, and the disk forgets."""
        self.crash()
        for worker in [*self.workers.values(), *self._ghosts]:
            worker.exit(-9)
        self.disk.lose_power()
        self.seen["power"] += 1

    def _calm(self) -> None:
        """The end of accidents; what was stopped goes on."""
        self.timeline.note("accident", "calm")
        self.network.heal()
        self.crash_point = 0.0
        for node in sorted(self.workers):
            self.workers[node].go_on()


def _text(rng: random.Random) -> list[str]:
    return [rng.choice(WORDS) for _ in range(rng.randint(1, 4))]
