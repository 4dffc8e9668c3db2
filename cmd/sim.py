"""`engine sim`: run a service's own code in the simulator, with faults drawn from one seed."""

from __future__ import annotations

from engine.errors import UsageError

HELP = """\
usage: engine sim mapreduce --seed N [--with-bug B]

Run a service's own code in the simulator: network, disks, clocks and crashes are drawn from the
seed, so that a failure can be run again. `engine sim mapreduce --help` lists the planted bugs.
"""


def main(argv: list[str]) -> int:
    """Hand the rest of the line to the trial of the service it names."""
    name, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if name in ("--help", "-h"):
        print(HELP, end="")
        return 0 if argv else 2
    if name != "mapreduce":
        raise UsageError(f"There is no simulation of {name!r}; there is mapreduce.")
    from engine.mapreduce import trial

    return trial.main(rest)
