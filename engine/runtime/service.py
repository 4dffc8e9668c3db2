"""A server's life: turn after turn until somebody ends it."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from time import monotonic_ns
from typing import Protocol

from engine.contract import Nanos, Server, World

FULL_COLLECTION = 100
"""Collections of the middle generation from one full one to the next, which is when a server has
700,000 objects more. It stops for 20 ms where there are 300,000, as for a hundred thousand watches,
and Python's own rule has it ten times while so many come."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WaitingWorld(World, Protocol):
    """A world that a loop can wait in."""

    def wait(self, until: Nanos | None) -> None: ...


def new_incarnation() -> int:
    """Greater than that of any earlier life on this machine since it booted."""
    return monotonic_ns()


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
        gc.freeze()  # what is there by now stays for good, and need not be looked at again
        gc.set_threshold(*gc.get_threshold()[:2], FULL_COLLECTION)
        while not ended:
            world.wait(server.turn())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
