"""The lock service's proof: its servers and clients in the simulator, and bugs it must not survive.

Within the fault model (one of the two servers dies, at any point; messages are late, lost, repeated
and out of order; connections break; processes are stopped for less than anybody's patience) every
history is that of one copy, and every client gets its answers. `--beyond` shows what happens
outside of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from engine.contract import SECOND, Nanos, Send
from engine.locks.client import PATIENCE, Clerk, OperationCall
from engine.locks.machine import ALONE, BACKUP, PRIMARY, LockServer, Settings
from engine.locks.messages import ACQUIRE, DONE, RELEASE, Applied, Forward, Operation
from engine.sessions import NEW, Sessions
from engine.sim.clients import Client, Step
from engine.sim.cluster import PlannedCluster, Process
from engine.sim.experiment import Experiment, Violation
from engine.sim.planting import Patch
from engine.sim.timeline import MILLISECOND
from engine.verify.history import History
from engine.verify.history import Operation as Seen
from engine.verify.linearizable import unlinearizable

END: Nanos = 120 * SECOND
"""Every client has all its answers by then, or something stands still."""

SHAPE: dict[str, Sequence[Any]] = {
    "clients": (1, 2, 4, 8),
    "steps": (2, 5, 12),
    "names": (1, 2, 3),
    "think": (MILLISECOND, 20 * MILLISECOND, SECOND // 2),
}
FAULTS: dict[str, Sequence[Any]] = {
    "loss": (0.0, 0.02, 0.2),
    "duplicate": (0.0, 0.05, 0.3),
    "reorder": (0.0, 0.05, 0.5),
    "delay": (MILLISECOND // 10, MILLISECOND, 10 * MILLISECOND),
    "death": ("", "primary", "backup", "sleep", "sleep"),
    "crash_point": (0.0, 0.01, 0.1),
    "pause": (0, 2),
    "broken": (0, 1, 3),
}
STAGED = {"clients": 2, "steps": 2, "names": 1}


class LockModel:
    """One lock in one place: the state is whether it is held."""

    initial: Hashable = False

    def step(self, state: Hashable, operation: Seen) -> tuple[bool, Hashable]:
        changed = state == (operation.kind == RELEASE)
        after = operation.kind == ACQUIRE
        return operation.returned is None or operation.result == changed, after


class LockCluster(PlannedCluster):
    """A primary, a backup and clients that fight for a few locks."""

    def __init__(self, seed: int, **how: Any) -> None:
        super().__init__(seed, SHAPE, FAULTS, STAGED, **how)
        rng, plan = self.timeline.rng, self.plan
        self.history = History()
        self.crash_point = plan["crash_point"]
        self.mortal = self._may_die
        self.start("backup", "server", LockServer(Settings(BACKUP), rng))
        self.start("primary", "server", LockServer(Settings(PRIMARY, "backup"), rng))
        self.clients = [self._client(number) for number in range(plan["clients"])]
        self._plan_accidents()

    def _client(self, number: int) -> Client:
        rng = self.timeline.rng
        clerk = Clerk(number + 1, ("primary", "backup"))
        verbs = {ACQUIRE: clerk.acquire, RELEASE: clerk.release}
        kinds = (ACQUIRE, RELEASE) if not self.beyond else (ACQUIRE,)
        script = [
            Step(rng.choice(kinds), f"lock {rng.randrange(self.plan['names'])}")
            for _ in range(self.plan["steps"])
        ]
        return Client(
            self,
            number,
            script,
            lambda step: verbs[step.kind](step.key),
            self.history,
            self.plan["think"],
        )

    # --- accidents -------------------------------------------------------------------------------

    def _plan_accidents(self) -> None:
        rng = self.timeline.rng
        span = self.plan["steps"] * (self.plan["think"] + 5 * self.plan["delay"])
        later = self.timeline.after
        if self.plan["death"] == "sleep":
            later(rng.randrange(span), self._sleep)
        elif self.plan["death"]:
            later(rng.randrange(2 * span), self._die, self.plan["death"])
        for _ in range(self.plan["pause"]):
            later(rng.randrange(span), self._pause)
        for _ in range(self.plan["broken"]):
            names = rng.choice((("primary", "backup"), ("client 0", "primary")))
            later(rng.randrange(span), self.break_lines, *names)
        if self.beyond == "partition":
            # Half of the clients are with the primary, half with the backup.
            middle = [client.name for client in self.clients[::2]]
            there = ["backup", *(client.name for client in self.clients[1::2])]
            later(0, self.cut, ["primary", *middle], there)
            later(0, self.cut, there, ["primary", *middle])
        elif self.beyond == "both_die":
            later(rng.randrange(span), self._die_for_good, "primary")
            later(rng.randrange(span), self._die_for_good, "backup")

    def _may_die(self, process: Process) -> bool:
        """The one that the plan says, and only while the other lives."""
        return process.name == self.plan["death"] and self._both_alive()

    def _both_alive(self) -> bool:
        return all(self.alive(name) for name in ("primary", "backup"))

    def _die(self, name: str) -> None:
        process = self.alive(name)
        if process is not None and self._both_alive():
            self.kill(process)

    def _die_for_good(self, name: str) -> None:
        process = self.alive(name)
        if process is not None:
            self.kill(process)

    def _sleep(self) -> None:
        """The primary is stopped in the worst state: with a forward whose acknowledgement is lost.

        It wakes when its clients have about lost patience: it was as good as dead, or was not.
        """
        self.cut(["backup"], ["primary"])
        self._fall_asleep()

    def _fall_asleep(self) -> None:
        primary = self.processes["primary"]
        assert isinstance(primary.machine, LockServer)
        if len(primary.machine._relay) == 0:
            self.timeline.after(MILLISECOND, self._fall_asleep)
            return
        self.seen["slept"] += 1
        rng = self.timeline.rng
        primary.pause(rng.choice((PATIENCE // 2, PATIENCE, PATIENCE)) + rng.randrange(SECOND))
        self.timeline.after(100 * MILLISECOND, self.heal)

    def _pause(self) -> None:
        """Short beside the backup's grace: longer would be taken for a death, rightly."""
        name = self.timeline.rng.choice(sorted(self.processes))
        self.seen["paused"] += 1
        self.processes[name].pause(self.timeline.rng.randrange(150 * MILLISECOND))

    # --- judging ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Until every client is done; then judge what they saw."""
        while not all(client.done for client in self.clients):
            if not self.timeline.step() or self.timeline.now > END:
                self._judge()
                raise Violation(f"not over after {self.timeline.now // MILLISECOND} ms")
        self._judge()
        failed = [client.failure for client in self.clients if client.failure is not None]
        if failed:
            raise Violation(f"a client gave up: {failed[0]}")

    def _judge(self) -> None:
        key = unlinearizable(self.history.operations(), LockModel())
        if key is not None:
            raise Violation(f"no single copy of {key} gives these answers")


# --- planted bugs --------------------------------------------------------------------------------


def _always_new(_: Any) -> Any:
    """Whatever is asked again is done again."""
    return lambda self, client, sequence: NEW


def _only_releases_again(original: Any) -> Any:
    """The table is there, but a release that is asked again does not look at it."""

    def ask(self: Any, now: Nanos, link: Any, operation: Operation) -> None:
        repeated = self.sessions.judge(operation.client, operation.sequence) != NEW
        if repeated and operation.verb == RELEASE and self.role == ALONE:
            self._answer(link, operation, DONE, self._apply(operation))
        else:
            original(self, now, link, operation)

    return ask


def _answer_first(original: Any) -> Any:
    """The primary answers before the backup has it."""

    def forward(self: Any, now: Nanos) -> None:
        original(self, now)
        self._take_effect(len(self._relay))

    return forward


def _any_order(_: Any) -> Any:
    """The backup applies what arrives when it arrives, if it is not a copy."""

    def follow(self: Any, link: Any, forward: Forward) -> None:
        for operation in forward.operations:
            if self.sessions.judge(operation.client, operation.sequence) == NEW:
                self._apply(operation)
        self._sends.append(Send(link, Applied(forward.first)))

    return follow


def _both_serve(_: Any) -> Any:
    """A backup that serves still acknowledges forwards, so the primary never learns of it."""

    def follow(self: Any, link: Any, forward: Forward) -> None:
        last = forward.first + len(forward.operations) - 1
        self._sends.append(Send(link, Applied(last)))

    return follow


def _impatient(_: Any) -> Any:
    """A primary that wakes finds that its backup has been silent for long."""
    return lambda self, now: None


def _new_number(original: Any) -> Any:
    """A client that asks the other server numbers its operation anew."""

    def ask(self: Any, now: Nanos) -> None:
        before = self.clerk.asking
        original(self, now)
        if self.clerk.asking != before:
            client, sequence = self.clerk.numbers.next()
            self.operation = self.operation._replace(client=client, sequence=sequence)

    return ask


BUGS: dict[str, tuple[Patch, ...]] = {
    "repeated_is_done_again": (Patch(Sessions, "judge", _always_new),),
    "unlock_reexecuted": (Patch(LockServer, "_ask", _only_releases_again),),
    "answered_before_forwarded": (Patch(LockServer, "_forward", _answer_first),),
    "applied_out_of_order": (Patch(LockServer, "_follow", _any_order),),
    "new_number_for_the_backup": (Patch(OperationCall, "ask", _new_number),),
    "wakes_and_goes_alone": (Patch(LockServer, "_overslept", _impatient),),
    "nothing_is_forwarded": (Patch(LockServer, "_follow", _both_serve),),
}

BEYOND = {
    "partition": "primary and backup cannot reach each other, and both serve",
    "both_die": "nobody is left to answer",
}

TRIAL = Experiment("locks", LockCluster, BUGS, BEYOND)

if __name__ == "__main__":
    raise SystemExit(TRIAL.main())
