"""The store's proof: its servers, clients and the view service in the simulator.

Servers die and come back with nothing, are stopped, cut off from each other, from the clients and
from the view service; messages are late, lost, repeated and out of order. Whatever happens, what
clients see is what a single copy would have answered. And when it is over, every client gets its
answers, if any member of the view that holds the data is still alive.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from engine.backup.client import Clerk
from engine.backup.machine import Settings, StoreServer
from engine.backup.messages import APPEND, GET, PUT
from engine.backup.trial_bugs import BUGS
from engine.contract import SECOND, Nanos
from engine.sim.clients import Client, Step
from engine.sim.cluster import PlannedCluster, Process
from engine.sim.experiment import Experiment, Violation
from engine.sim.timeline import MILLISECOND
from engine.verify.history import History, Operation
from engine.verify.linearizable import unlinearizable
from engine.views import machine as views

CALM: Nanos = 4 * SECOND
"""Accidents end here."""
END: Nanos = 20 * SECOND
"""Every client has all its answers by then, or something stands still."""
VIEWS = "views"

SHAPE: dict[str, Sequence[Any]] = {
    "servers": (2, 3, 3, 4),
    "clients": (1, 2, 3),
    "steps": (5, 15, 30),
    "keys": (1, 2),
    "think": (5 * MILLISECOND, 50 * MILLISECOND, 200 * MILLISECOND),
}
FAULTS: dict[str, Sequence[Any]] = {
    "loss": (0.0, 0.02, 0.2, 0.5),
    "duplicate": (0.0, 0.05, 0.3),
    "reorder": (0.0, 0.05, 0.3),
    "delay": (MILLISECOND // 10, MILLISECOND, 20 * MILLISECOND),
    "kill": (0, 1, 3),
    "crash_point": (0.0, 0.005, 0.02),
    "pause": (0, 2, 6),
    "cut": (0, 2, 6),
    "broken": (0, 3),
}
STAGED = {"servers": 2, "clients": 1, "steps": 30, "think": 50 * MILLISECOND}


class ValueModel:
    """One key in one place: the state is its value, None before it has one."""

    initial: Hashable = None

    def step(self, state: Hashable, operation: Operation) -> tuple[bool, Hashable]:
        if operation.kind == GET:
            return operation.returned is None or operation.result == state, state
        if operation.kind == PUT:
            return True, operation.argument
        return True, f"{state or ''}{operation.argument}"


class StoreCluster(PlannedCluster):
    """A view service, servers that come and go, and clients that write what nobody else writes."""

    def __init__(self, seed: int, **how: Any) -> None:
        super().__init__(seed, SHAPE, FAULTS, STAGED, **how)
        rng, plan = self.timeline.rng, self.plan
        self.crash_point = plan["crash_point"]
        self.mortal = lambda process: process.name in self.names
        self.history = History()
        self.names = [f"server {number}" for number in range(1, plan["servers"] + 1)]
        self.views = views.ViewService(views.Settings(), rng)
        self.start(VIEWS, "server", self.views)
        for name in self.names:
            self.timeline.after(rng.randrange(100 * MILLISECOND), self._begin, name)
        self.clients = [self._client(number) for number in range(plan["clients"])]
        self._plan_accidents()

    def _begin(self, name: str) -> None:
        """A server starts, with nothing."""
        if self.alive(name) is None:
            life = self.timeline.now + 1
            settings = Settings(name, VIEWS, life)
            self.start(name, "server", StoreServer(settings, self.timeline.rng))

    def _client(self, number: int) -> Client:
        rng = self.timeline.rng
        clerk = Clerk(number + 1, VIEWS)
        script = []
        for count in range(self.plan["steps"]):
            key, text = f"key {rng.randrange(self.plan['keys'])}", f"<{number}.{count}>"
            kind = rng.choice((GET, PUT, APPEND, APPEND))
            script.append(Step(kind, key, "" if kind == GET else text))
        return Client(
            self, number, script, lambda step: clerk.call(*step), self.history, self.plan["think"]
        )

    # --- accidents -------------------------------------------------------------------------------

    def _plan_accidents(self) -> None:
        rng, later = self.timeline.rng, self.timeline.after
        accidents = {
            "kill": self._kill_one,
            "pause": self._pause,
            "cut": self._cut_off,
            "broken": self._break_one,
        }
        for name, accident in accidents.items():
            for _ in range(self.plan[name]):
                # Much is to be learnt from the first views, in which nobody has data yet, and
                # most of it from deaths.
                early = (CALM, CALM // 10, CALM // 10 if name == "kill" else CALM)
                later(rng.randrange(rng.choice(early)), accident)
        if self.beyond == "both_die":
            later(700 * MILLISECOND, self._kill_all)
        elif self.beyond == "amnesia":
            later(700 * MILLISECOND, self._forget_views)
        later(CALM, self._calm)

    def kill(self, process: Process) -> None:
        """Its name comes back with an empty server."""
        super().kill(process)
        if process.name in self.names:
            self.timeline.after(self.timeline.spread(300 * MILLISECOND), self._begin, process.name)

    def _kill_one(self) -> None:
        # Most is to be learnt from those that have a part.
        members = [self.views.primary, self.views.backup]
        name = self.timeline.rng.choice([*self.names, *members])
        if (process := self.alive(name)) is not None:
            self.kill(process)

    def _kill_all(self) -> None:
        for name in self.names:
            if (process := self.alive(name)) is not None:
                self.kill(process)

    def _forget_views(self) -> None:
        """And then a newcomer is the first to be heard, and the old primary dies."""
        service, primary = self.processes[VIEWS], self.alive(self.views.primary)
        if primary is not None:
            self.timeline.after(200 * MILLISECOND, self.kill, primary)
        self.kill(service)
        self.views = views.ViewService(views.Settings(), self.timeline.rng)
        self.start(VIEWS, "server", self.views)
        self._begin("newcomer")

    def _pause(self) -> None:
        name = self.timeline.rng.choice([*self.names, self.views.primary, VIEWS])
        if (process := self.alive(name)) is not None:
            self.seen["paused"] += 1
            process.pause(self.timeline.rng.randrange(2 * SECOND))

    def _cut_off(self) -> None:
        """One of them is cut off from some or all others, in one direction or both, for a while."""
        rng = self.timeline.rng
        one = rng.choice([*self.names, self.views.primary or self.names[0]])
        others = rng.choice(
            (
                sorted(self.processes),
                [VIEWS],
                [name for name in self.names if name != one],
                [VIEWS, *(name for name in self.names if name != one)],
            )
        )
        direction = rng.randrange(3)
        if direction != 1:
            self.cut([one], others)
        if direction != 2:
            self.cut(others, [one])
        self.timeline.after(rng.randrange(2 * SECOND), self.heal)

    def _break_one(self) -> None:
        one, other = self.timeline.rng.sample(sorted(self.processes), 2)
        self.break_lines(one, other)

    def _calm(self) -> None:
        self.timeline.note("accident", "calm")
        self.heal()
        self.network.heal()
        self.crash_point = 0.0

    # --- judging ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Until every client is done, or can never be; then judge what they saw."""
        while not all(client.done for client in self.clients):
            assert self.timeline.step(), "servers ping for ever"
            if self.timeline.now > (CALM if self.beyond else END):
                break
        key = unlinearizable(self.history.operations(), ValueModel())
        if key is not None:
            raise Violation(f"no single copy of {key} gives these answers")
        failed = [client.failure for client in self.clients if client.failure is not None]
        if failed:
            raise Violation(f"a client gave up: {failed[0]}")
        if not all(client.done for client in self.clients):
            if self._holders():
                raise Violation(f"not over after {END // SECOND} s, and data is there")
            self.seen["lost"] += 1
            if self.beyond:
                raise Violation("nobody who has the data is left, and clients wait for ever")
        self.seen["views"] += self.views.number

    def _holders(self) -> list[str]:
        """Members of the view that have its data."""
        found = []
        for name in (self.views.primary, self.views.backup):
            process = self.alive(name)
            if process is not None:
                assert isinstance(process.machine, StoreServer)
                if process.machine.holds == self.views.number:
                    found.append(name)
        return found


BEYOND = {
    "both_die": "all servers die at once, and nothing is ever answered again",
    "amnesia": "the view service starts again, remembers nothing, and makes a newcomer primary",
}

TRIAL = Experiment("backup", StoreCluster, BUGS, BEYOND)

if __name__ == "__main__":
    raise SystemExit(TRIAL.main())
