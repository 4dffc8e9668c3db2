"""The progress line: on stderr, only on a terminal, five times a second."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.mapreduce.machine import Scheduler

REFRESH_SECONDS = 0.2
_ERASE = "\r\x1b[K"


class Display:
    """A context manager; `show` is cheap when it is not yet time, and nothing when not wanted."""

    def __init__(self, wanted: bool, total: int) -> None:
        self.wanted = wanted and sys.stderr.isatty()
        self.total = total
        self._began = monotonic()
        self._next = self._began + REFRESH_SECONDS
        self._drawn = False

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._drawn:
            sys.stderr.write(_ERASE)
            sys.stderr.flush()

    def show(self, scheduler: Scheduler, world: Any) -> None:
        """Draw the line again if it is time."""
        if not self.wanted:
            return
        now = monotonic()
        if now < self._next:
            return
        self._next = now + REFRESH_SECONDS
        self._drawn = True
        sys.stderr.write(_ERASE + self.line(scheduler, world, now - self._began))
        sys.stderr.flush()

    def line(self, scheduler: Scheduler, world: Any, seconds: float) -> str:
        """E.g. `map 62 %  811 MB/s  82/133 splits  2 workers  1 death  ETA 0.5 s`."""
        status = scheduler.status()
        # What was read twice, after a death, is not progress.
        read = min(self.total, max(world.bytes_read(), scheduler.ledger.counters().bytes))
        parts = [status.phase]
        if status.phase == "map" and self.total:
            parts[0] += f" {100 * read // self.total} %"
        parts.append(f"{read / max(seconds, 1e-9) / 1e6:.0f} MB/s")
        if status.phase == "map":
            parts.append(f"{status.tasks_done}/{status.tasks} splits committed")
        else:
            parts.append(f"{status.partitions_done}/{status.partitions} partitions")
        parts.append(f"{status.attempts} attempts on {status.workers} workers")
        if status.deaths:
            parts.append(f"{status.deaths} deaths")
        if status.phase == "map" and read:
            parts.append(f"ETA {seconds * (self.total - read) / read:.1f} s")
        return "  ".join(parts)
