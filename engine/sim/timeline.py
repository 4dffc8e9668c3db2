"""Virtual time: a heap of things to happen, one source of chance, and the trace of what did.

Equal seeds give equal traces, under any PYTHONHASHSEED and in any process: what is drawn depends on
nothing but what was drawn before. `digest` tells two traces apart without keeping either.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import blake2b
from heapq import heappop, heappush
from math import log
from typing import Any

from engine.contract import Nanos

MILLISECOND: Nanos = 1_000_000


class Crashed(Exception):
    """Raised at a named point: the simulated process ends there."""


class Stopped(Exception):
    """As much was shown as had been asked for: `Timeline.stop` says so."""


class Timeline:
    """Runs actions in order of their time; those of one time in the order they were asked for."""

    def __init__(self, seed: int, *, trace: bool = False, keep: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now: Nanos = 0
        self.lines: list[str] = []
        """The trace, if `keep`."""
        self.traced = trace or keep
        """Whether `note` does anything: who speaks often asks first."""
        self.stop: Callable[[], bool] | None = None
        """Asked before everything that happens whether it is to end with `Stopped`."""
        self._keep = keep
        self._hash = blake2b(digest_size=8)
        self._heap: list[tuple[Nanos, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def after(self, delay: Nanos, action: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heappush(self._heap, (self.now + delay, self._count, action, arguments))

    def step(self) -> bool:
        """Let the next thing happen; False if there is none."""
        if not self._heap:
            return False
        if self.stop is not None and self.stop():
            raise Stopped
        self.now, _, action, arguments = heappop(self._heap)
        action(*arguments)
        return True

    def pass_by(self, when: Nanos) -> None:
        """Let things happen until it is later than this. There must be enough of them."""
        heap = self._heap
        while self.now <= when:
            if self.stop is not None and self.stop():
                raise Stopped
            self.now, _, action, arguments = heappop(heap)
            action(*arguments)

    def chance(self, probability: float) -> bool:
        """True with this probability; draws nothing for 0."""
        return probability > 0 and self.rng.random() < probability

    def spread(self, mean: Nanos) -> Nanos:
        """An exponentially distributed duration, at least 1 ns."""
        return 1 + int(-log(1.0 - self.rng.random()) * mean)

    def note(self, who: str, what: str, *about: Any) -> None:
        """Add a line to the trace."""
        if not self.traced:
            return
        line = f"{self.now / MILLISECOND:12.3f}  {who:<12} {what:<10} "
        line = (line + " ".join(map(str, about))).rstrip()
        self._hash.update(line.encode() + b"\n")
        if self._keep:
            self.lines.append(line)

    def digest(self) -> str:
        """Of the trace so far."""
        return self._hash.hexdigest()


class Clock:
    """The clock of a simulated machine, which may run faster or slower than time does."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._shown = self._since = timeline.now
        self._rate = 1, 1

    def run_at(self, numerator: int, denominator: int) -> None:
        """From now on it shows `numerator` nanoseconds for every `denominator` that pass."""
        self._shown, self._since = self.now(), self._timeline.now
        self._rate = numerator, denominator

    def now(self) -> Nanos:
        numerator, denominator = self._rate
        return self._shown + (self._timeline.now - self._since) * numerator // denominator

    def until(self, shown: Nanos) -> Nanos:
        """How long it takes until the clock shows this; 0 if it does."""
        numerator, denominator = self._rate
        due = self._since - (self._shown - shown) * denominator // numerator
        return max(0, due - self._timeline.now)
