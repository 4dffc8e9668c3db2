"""Simulated clients: each goes through its script, one operation at a time, and keeps a history."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.calls import Call
from engine.contract import Nanos
from engine.errors import EngineError
from engine.record import Record
from engine.sim.cluster import Cluster
from engine.verify.history import History


class Step(Record):
    """One operation of a script."""

    kind: str
    key: str
    argument: str = ""


class Client:
    """A client process. `call_of` makes the call of a step; `think` is the mean pause between two.

    It waits for every answer for as long as it takes. `failure` is what a call ended with that no
    repetition would mend; the client stops there.
    """

    def __init__(
        self,
        cluster: Cluster,
        number: int,
        script: Sequence[Step],
        call_of: Callable[[Step], Call],
        history: History,
        think: Nanos,
    ) -> None:
        self.number, self.name = number, f"client {number}"
        self.failure: EngineError | None = None
        self._cluster, self._history, self._think = cluster, history, think
        self._left = list(script)
        self._call_of = call_of
        self._call = self._next()
        self._process = cluster.start(self.name, "client", self._call)
        self._process.after_turn = self._look

    @property
    def done(self) -> bool:
        return self.failure is not None or (not self._left and self._call.outcome is not None)

    def _next(self) -> Call:
        step = self._left.pop(0)
        self._history.call(self._cluster.timeline.now, self.number, *step)
        self._cluster.timeline.note(self.name, "calls", *step)
        return self._call_of(step)

    def _look(self) -> None:
        outcome = self._call.outcome
        if outcome is None or self._process.machine is not self._call or self.failure is not None:
            return
        now = self._cluster.timeline.now
        self._cluster.timeline.note(self.name, "returns", outcome.answer, outcome.error or "")
        self._process.machine = Idle(self._call)
        if outcome.error is not None:
            self.failure = outcome.error
            self._history.abandon(self.number)
            return
        self._history.finish(now, self.number, outcome.answer)
        if self._left:
            self._cluster.timeline.after(self._cluster.timeline.spread(self._think), self._go_on)

    def _go_on(self) -> None:
        self._call = self._next()
        self._process.machine = self._call
        self._process.wake()


class Idle(Call):
    """Between two calls: takes note of who comes and goes, and asks nobody."""

    def __init__(self, call: Call) -> None:
        super().__init__(None, call.up)
        self.finish(None)
