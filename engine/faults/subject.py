"""Runs a program as a subject of experiments: `python -m engine.faults.subject … -m MODULE ARGS`.

It ends with whoever started it, and by itself after `--live` seconds, so that nothing is left
behind. `--kill-at POINT:N` ends it by SIGKILL when it passes a named crash point
(`engine.contract.World.point`) for the N-th time. Programs themselves know nothing of this: it is a
wrapper around their world, put there from outside.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter
from typing import Any

LIVE_SECONDS = 600


def main() -> None:
    """Parse, prepare this process, become the program."""
    import runpy

    parser = argparse.ArgumentParser(prog="engine.faults.subject")
    parser.add_argument("--parent", type=int, required=True, help="pid of who starts it")
    parser.add_argument("--live", type=int, default=LIVE_SECONDS)
    parser.add_argument("--kill-at", action="append", default=[], metavar="POINT:N")
    parser.add_argument("-m", dest="module", required=True)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    _tie_to(options.parent)
    signal.alarm(options.live)
    if options.kill_at:
        _arm(dict(_point(text) for text in options.kill_at))
    sys.argv = [options.module, *options.arguments]
    runpy.run_module(options.module, run_name="__main__", alter_sys=True)


def _tie_to(parent: int) -> None:
    from engine.kernels.process import parent_death_signal

    parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def _point(text: str) -> tuple[str, int]:
    name, _, count = text.partition(":")
    return name, int(count or 1)


def _arm(points: dict[str, int]) -> None:
    from engine.runtime.world import SocketWorld

    passed: Counter[str] = Counter()

    def point(self: Any, name: str) -> None:
        passed[name] += 1
        if passed[name] == points.get(name):
            os.kill(os.getpid(), signal.SIGKILL)

    SocketWorld.point = point  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
