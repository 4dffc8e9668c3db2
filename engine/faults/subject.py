"""Runs a program as a subject of experiments: `python -m engine.faults.subject … -m PROGRAM ARGS`.

It ends with whoever started it, and by itself after `--live` seconds, so that nothing is left
behind. `--kill-at POINT:N` ends it by SIGKILL when it passes a named crash point for the N-th
time; `--list-points` says which there are (`engine.faults.points`). `--kill-at @FILE` lets whoever
started it arm points while it runs (`engine.faults.points.Control`). Programs themselves know
nothing of this: it is a wrapper around their world and their files, put there from outside.
Whatever follows PROGRAM, a module's name or the path of a `.py` file, is the program's own.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

LIVE_SECONDS = 600


def main() -> None:
    """Parse, prepare this process, become the program."""
    import runpy

    parser = argparse.ArgumentParser(prog="engine.faults.subject", allow_abbrev=False)
    parser.add_argument("--parent", type=int, required=True, help="pid of who starts it")
    parser.add_argument("--live", type=_count, default=LIVE_SECONDS, help="seconds")
    parser.add_argument("--kill-at", type=_point, action="append", metavar="POINT:N|@FILE")
    parser.add_argument("--list-points", action=_ListPoints)
    parser.add_argument("-m", dest="program", required=True)
    # By hand, because argparse would take the program's flags for its own.
    ours = sys.argv.index("-m") + 2 if "-m" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:ours])
    _tie_to(options.parent)
    signal.alarm(options.live)
    if options.kill_at:
        _arm(options.kill_at)
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


def _point(text: str) -> str:
    from engine.faults.points import parse

    if not text.startswith("@"):
        try:
            parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return text


class _ListPoints(argparse.Action):
    """Print all points, and end."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="say which points there are")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from engine.faults.points import every

        print("\n".join(every()))
        parser.exit()


def _arm(texts: list[str]) -> None:
    from engine.faults.points import Control, parse
    from engine.faults.traps import arm

    files = [text.removeprefix("@") for text in texts if text.startswith("@")]
    points = [parse(text) for text in texts if not text.startswith("@")]
    arm(points, Control(files[-1]) if files else None)


if __name__ == "__main__":
    main()
