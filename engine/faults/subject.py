"""Runs a program as a subject of experiments: `python -m engine.faults.subject … -m PROGRAM ARGS`.

It ends with whoever started it, and by itself after `--live` seconds, so that nothing is left
behind. `--kill-at POINT:N` ends it by SIGKILL when it passes a named crash point
(`engine.contract.World.point`) for the N-th time. Programs themselves know nothing of this: it is a
wrapper around their world, put there from outside. Whatever follows PROGRAM, a module's name or the
path of a `.py` file, is the program's own.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter

LIVE_SECONDS = 600
POINTS = ("drained", "stepped", "written", "sent", "turned")
"""What `engine.contract.Server.turn` passes, in this order; a world without a disk never writes."""

Point = tuple[str, int]


def main() -> None:
    """Parse, prepare this process, become the program."""
    import runpy

    parser = argparse.ArgumentParser(prog="engine.faults.subject", allow_abbrev=False)
    parser.add_argument("--parent", type=int, required=True, help="pid of who starts it")
    parser.add_argument("--live", type=_count, default=LIVE_SECONDS, help="seconds")
    parser.add_argument("--kill-at", type=_point, action="append", metavar="POINT:N")
    parser.add_argument("-m", dest="program", required=True)
    # By hand, because argparse would take the program's flags for its own.
    ours = sys.argv.index("-m") + 2 if "-m" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:ours])
    _tie_to(options.parent)
    signal.alarm(options.live)
    if options.kill_at:
        _arm(frozenset(options.kill_at))
    sys.argv = [options.program, *sys.argv[ours:]]
    if options.program.endswith(".py"):
        runpy.run_path(options.program, run_name="__main__")
    else:
        runpy.run_module(options.program, run_name="__main__", alter_sys=True)


def _tie_to(parent: int) -> None:
    from engine.kernels.process import parent_death_signal

    parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def _point(text: str) -> Point:
    """A point that never comes would be a test that attacks nothing, so it is an error."""
    name, colon, count = text.partition(":")
    if name not in POINTS:
        raise argparse.ArgumentTypeError(f"there is no point {name!r}, only {', '.join(POINTS)}")
    return name, _count(count) if colon else 1


def _arm(points: frozenset[Point]) -> None:
    from engine.contract import Machine, Server, World

    passed: Counter[str] = Counter()
    init = Server.__init__

    def armed(self: Server, machine: Machine, world: World) -> None:
        init(self, machine, world)
        own = world.point

        def point(name: str) -> None:
            own(name)
            passed[name] += 1
            if (name, passed[name]) in points:
                os.kill(os.getpid(), signal.SIGKILL)

        world.point = point  # type: ignore[method-assign]

    Server.__init__ = armed  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
