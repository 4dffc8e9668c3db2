"""`engine sim`: run a service's own code in the simulator, with faults drawn from one seed."""

from __future__ import annotations

from engine.errors import UsageError

TRIALS = ("mapreduce", "locks", "views", "backup", "raft", "kv")

HELP = """\
usage: engine sim NAME --seed N [--steps M] [--with-bug B] [--beyond ACCIDENT] [--json]

Run a service's own code in the simulator: network, disks, clocks and crashes are drawn from the
seed, so that a failure can be run again: what is printed is the table of events, and its digest
in the last line. NAME is mapreduce, locks, views, backup, raft or kv; `engine sim NAME --help`
lists its planted bugs, and the accidents it does not promise to survive.
"""


def main(argv: list[str]) -> int:
    """Hand the rest of the line to the trial of the service it names."""
    name, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if name in ("--help", "-h"):
        print(HELP, end="")
        return 0 if argv else 2
    if name not in TRIALS:
        raise UsageError(f"There is no simulation of {name!r}; there is {', '.join(TRIALS)}.")
    from importlib import import_module

    code: int = import_module(f"engine.{name}.trial").TRIAL.main(rest)
    return code
