"""A server's life: turn after turn until somebody ends it."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from time import monotonic_ns
from typing import Protocol

from engine.contract import Nanos, Server, World

LONG: Nanos = 8_000_000
"""A full collection that may take longer, as where a hundred thousand watches are kept, is put off
until what is new would take `GROWN` times as long as the last one: a server lets go of what it
keeps without cycles, and to those of young objects Python sees all the same."""
GROWN = 8
LOOK_AFTER, LOOK_NANOS = 10, 4_000_000
"""Collections of the middle generation from one look at the old objects to the next, as Python has
it, and how much longer a full one takes by then: for 70,000 objects."""
NEVER = 1 << 30

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WaitingWorld(World, Protocol):
    """A world that a loop can wait in."""

    def wait(self, until: Nanos | None) -> None: ...


def new_incarnation() -> int:
    """Greater than that of any earlier life on this machine since it booted."""
    return monotonic_ns()


class Collections:
    """Sees to old objects, in place of Python's rule: `look` between turns, when it is `due`."""

    def __init__(self, clock: Callable[[], Nanos] = monotonic_ns) -> None:
        self._clock = clock
        self._middle = 0
        self._took: Nanos = 0
        self._more: Nanos = 0

    def __enter__(self) -> Collections:
        gc.freeze()  # what is there by now stays for good, and need not be looked at again
        self._before = gc.get_threshold()
        gc.set_threshold(*self._before[:2], NEVER)
        gc.callbacks.append(self._collected)
        return self

    def __exit__(self, *error: object) -> None:
        gc.callbacks.remove(self._collected)
        gc.set_threshold(*self._before)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        self._middle += phase == "stop" and info["generation"] == 1

    @property
    def due(self) -> bool:
        return self._middle >= LOOK_AFTER

    def look(self) -> None:
        self._middle = 0
        self._more += LOOK_NANOS
        if self._took + self._more <= LONG or self._more >= GROWN * self._took:
            begin = self._clock()
            gc.collect()
            self._took, self._more = self._clock() - begin, 0


def run(
    server: Server, world: WaitingWorld, what: str, address: str, as_json: bool, **more: object
) -> None:
    """Say that it serves, then serve until SIGINT or SIGTERM, and return.

    It is said as one sentence on stderr, or as one JSON object on stdout, with `more`.
    """
    ended: list[int] = []
    before = {number: signal.signal(number, lambda n, _: ended.append(n)) for number in _SIGNALS}
    try:
        if as_json:
            print(json.dumps({"address": address, "pid": os.getpid(), **more}), flush=True)
        else:
            print(f"engine: {what} at {address}", file=sys.stderr, flush=True)
        with Collections() as collections:
            while not ended:
                wake_at = server.turn()
                if collections.due:
                    collections.look()
                world.wait(wake_at)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
