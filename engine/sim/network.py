"""Pipes between simulated processes, with ZeroMQ's own ways to fail.

A pipe is FIFO. It may silently drop a message (a full pipe), and when its connection breaks all
that is in it is gone, in both directions, and nobody is told for certain. `duplicate` and `reorder`
are crueler than ZeroMQ: they stand for peers that say things twice, or over two connections.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from engine.contract import Nanos
from engine.record import Record
from engine.sim.timeline import MILLISECOND, Timeline

LATE: Nanos = 400 * MILLISECOND


class NetworkFaults(Record):
    """Rates per message."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    late: float = 0.0
    """Held for so long (`LATE`, mean) that much has changed when it comes."""
    delay: Nanos = MILLISECOND // 10
    """Mean; exponentially distributed."""


def faults_of(plan: Mapping[str, Any]) -> NetworkFaults:
    """What a seed's plan says of them."""
    return NetworkFaults(**{name: plan[name] for name in NetworkFaults._fields if name in plan})


class Network:
    """All pipes of a cluster."""

    def __init__(self, timeline: Timeline, faults: NetworkFaults) -> None:
        self.timeline, self.faults = timeline, faults
        self._arrivals: dict[Hashable, Nanos] = {}
        self._lives: dict[Hashable, int] = {}

    def heal(self) -> None:
        """No more faults for what is sent from now on."""
        self.faults = NetworkFaults()

    def cut(self, pipe: Hashable) -> None:
        """The connection breaks: what is in the pipe is lost."""
        self._lives[pipe] = self._lives.get(pipe, 0) + 1
        self._arrivals.pop(pipe, None)

    def send(
        self, pipe: Hashable, deliver: Callable[[Any], None], message: Any, *, once: bool = False
    ) -> None:
        """Put a message into a pipe. The first one in a fresh pipe is never dropped; one that is to
        arrive `once` neither comes twice nor out of order."""
        timeline, faults = self.timeline, self.faults
        if pipe in self._arrivals and timeline.chance(faults.loss):
            timeline.note("network", "lose", message)
            return
        arrival = timeline.now + timeline.spread(faults.delay)
        if not once and timeline.chance(faults.late):
            arrival += timeline.spread(LATE)
        elif once or not timeline.chance(faults.reorder):
            arrival = max(arrival, self._arrivals.get(pipe, 0) + 1)
            self._arrivals[pipe] = arrival
        life = self._lives.get(pipe, 0)
        timeline.after(arrival - timeline.now, self._arrive, pipe, life, deliver, message)
        if not once and timeline.chance(faults.duplicate):
            later = arrival - timeline.now + timeline.spread(20 * faults.delay)
            timeline.after(later, self._arrive, pipe, life, deliver, message)

    def _arrive(
        self, pipe: Hashable, life: int, deliver: Callable[[Any], None], message: Any
    ) -> None:
        if self._lives.get(pipe, 0) == life:
            deliver(message)
