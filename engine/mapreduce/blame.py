"""After a death: was it the machine, or the record in hand?

A worker killed from outside (SIGKILL, SIGTERM) or one that left by itself says little about its
input: its task is simply done again, up to `DEATHS_MAX` times. A crash (SIGSEGV and its like) that
happens `CRASHES_MAX` times at the same record is that record's doing.
"""

from __future__ import annotations

from engine.mapreduce.attempts import MAP

DEATHS_MAX = 20
"""Deaths while one task was in hand before the job gives up. The labs' crashing application leaves
in every third call; twenty in a row by chance is one in 3e9."""
CRASHES_MAX = 4
"""Crashes at one record before it is blamed: what Hadoop allows a task (mapreduce.map.maxattempts),
and enough that bad luck elsewhere on the machine does not pass for a bad record."""
DROPS_MAX = 5
"""How often the accepted file of one task may prove missing or damaged while one coordinator lives
(power cuts, which lose files honestly, end its life): such a disk will not keep the output either.
"""
SPAWN_FAILURES_MAX = 5
"""Processes in a row that end before they join: the job cannot be imported, or memory is out."""

# Killed, stopped or hung up from outside: SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGALRM, SIGTERM.
_OUTSIDE = frozenset({1, 2, 9, 13, 14, 15})
_NAMES = {4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV"}


def is_crash(code: int) -> bool:
    """True for an exit code (minus the signal) that points at what the process was doing."""
    return code < 0 and -code not in _OUTSIDE


def was_killed(code: int) -> bool:
    """True for an end that came from outside."""
    return -code in _OUTSIDE


def describe(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        return _NAMES.get(-code, f"signal {-code}")
    return f"exit code {code}"


class Blame:
    """Deaths and bad files by task, crashes by record, and the records to pass over."""

    def __init__(self, skip_bad: int) -> None:
        self._skip_bad = skip_bad
        self._deaths: dict[tuple[str, int], int] = {}
        self._drops: dict[tuple[str, int], int] = {}
        self._crashes: dict[tuple[str, int, int], int] = {}
        self._skips: dict[int, tuple[int, ...]] = {}
        self.skipped = 0

    def skips(self, task: int) -> tuple[int, ...]:
        """Records of this split to pass over, ascending."""
        return self._skips.get(task, ())

    def death(self, kind: str, item: int) -> bool:
        """A worker died with this task in hand; True if that is once too often."""
        deaths = self._deaths.get((kind, item), 0) + 1
        self._deaths[kind, item] = deaths
        return deaths > DEATHS_MAX

    def drop(self, kind: str, item: int) -> bool:
        """Its accepted file proved bad; True if that is once too often."""
        drops = self._drops.get((kind, item), 0) + 1
        self._drops[kind, item] = drops
        return drops > DROPS_MAX

    def crash(self, kind: str, item: int, record: int) -> bool:
        """A worker crashed at this record; True if the record is to be blamed.

        One that is passed over already is not: the page lags behind.
        """
        if kind == MAP and record in self.skips(item):
            return False
        crashes = self._crashes.get((kind, item, record), 0) + 1
        self._crashes[kind, item, record] = crashes
        return crashes >= CRASHES_MAX

    def skip(self, kind: str, item: int, record: int) -> bool:
        """Pass over a bad record from now on; False if the budget (or reduce) forbids it."""
        if kind != MAP or self.skipped >= self._skip_bad:
            return False
        self._skips[item] = tuple(sorted({*self.skips(item), record}))
        self.skipped += 1
        return True
