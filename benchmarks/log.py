"""Appending to the log beside the bare system calls, and reading it back.

    python benchmarks/log.py [--rounds 9] [--megabytes 256] [--folder benchmarks/out]

Append: each batch is one append, one sync and one settle, and says itself what was durable before
it, as under load; the limit is a `pwrite` of as many bytes and an `fdatasync`, into a file of the
same size on the same disk that was as carefully filled with zeros. Both take turns of the same
batches, and what counts is the ratio of the medians. Recovery: opening a log of so many megabytes,
from the page cache and after it was evicted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import HERE, drive, evict, progress
from machine import describe, filesystem

from engine.kernels.checksum import crc32c
from engine.storage.directory import Folder
from engine.storage.entries import COMMAND, Append, Base, Entry
from engine.storage.log import Log, LogSettings
from engine.storage.records import STATE_BYTES, record_bytes

BODY_BYTES = 300
BATCHES = {1: 400, 16: 400, 64: 300, 256: 150}
"""Entries of a batch: batches of a turn."""
GOALS = {1: 0.70, 16: 0.80, 64: 0.80, 256: 0.80}
"""Our rate by that of the bare calls."""
RECOVERY_GOAL = 300.0
"""Megabytes a second, from the page cache."""
RECOVERY_BATCH = 64
SEGMENT_BYTES = 64 << 20
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")


def make_entries(count: int) -> tuple[Entry, ...]:
    bodies = [os.urandom(BODY_BYTES) for _ in range(count)]
    return tuple(Entry(1, COMMAND, crc32c(body), body) for body in bodies)


def batch_bytes(entries: int) -> int:
    """What the log writes for a batch of one group."""
    return entries * record_bytes(BODY_BYTES) + STATE_BYTES


def salts() -> int:
    return int.from_bytes(os.urandom(8), "little")


class Ours:
    """A log, and batches for it."""

    def __init__(self, folder: Path, entries: tuple[Entry, ...]) -> None:
        folder.mkdir()
        self.log = Log.open(Folder(str(folder)), LogSettings(SEGMENT_BYTES, spare=2), salts)
        self.entries = entries
        self.next = 1
        self.rest()

    def busy(self, batches: int) -> float:
        """Seconds of all but the syncs: what a faster disk would leave of the difference."""
        log, entries, count = self.log, self.entries, len(self.entries)
        begin = time.perf_counter()
        for _ in range(batches):
            mark = log.append((Append(1, self.next, entries),))
            log.settle(mark)  # it is not durable, and nobody relies on it
            self.next += count
        return time.perf_counter() - begin

    def turn(self, batches: int) -> float:
        """Seconds."""
        log, entries, count = self.log, self.entries, len(self.entries)
        begin = time.perf_counter()
        for _ in range(batches):
            log.append((Append(1, self.next, entries),))
            log.settle(log.sync(), tell=False)  # the next batch tells
            self.next += count
        return time.perf_counter() - begin

    def rest(self) -> None:
        """Let go of what is not needed, and make spares, uncounted."""
        if self.next > 1:
            self.log.append((Base(1, self.next - 1, 1, b""),))
            self.log.settle(self.log.sync())
        while self.log.maintain():
            pass


class Bare:
    """The same calls without a log."""

    def __init__(self, path: Path, size: int) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self.data = os.urandom(size)
        self.at = 0
        for offset in range(0, SEGMENT_BYTES, 1 << 18):
            os.pwrite(self.fd, bytes(1 << 18), offset)
            os.fdatasync(self.fd)

    def busy(self, batches: int) -> float:
        begin = time.perf_counter()
        for at in range(batches):
            os.pwrite(self.fd, self.data, at * len(self.data))
        return time.perf_counter() - begin

    def turn(self, batches: int) -> float:
        fd, data, size, at = self.fd, self.data, len(self.data), self.at
        begin = time.perf_counter()
        for _ in range(batches):
            if at + size > SEGMENT_BYTES:
                at = 0
            os.pwrite(fd, data, at)
            os.fdatasync(fd)
            at += size
        self.at = at
        return time.perf_counter() - begin


class LogWorkload:
    """The four steps of a benchmark."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.appends: dict[int, tuple[list[float], list[float]]] = {}
        """Batch size: seconds a batch of ours, and of the bare calls, a turn each."""
        self.busy: dict[int, tuple[list[float], list[float]]] = {}
        """The same without the syncs."""
        self.recovery: dict[str, list[float]] = {"warm": [], "cold": []}
        self.wrong: list[str] = []

    def prepare(self) -> None:
        kind = filesystem(self.work)
        assert kind not in IN_MEMORY, f"{self.work} is {kind}: name a --folder on a disk"

    def generate(self) -> None:
        self.contenders = {
            size: (
                Ours(self.work / f"log-{size}", make_entries(size)),
                Bare(self.work / f"bare-{size}", batch_bytes(size)),
            )
            for size in BATCHES
        }

    def execute(self) -> None:
        for size, (ours, bare) in self.contenders.items():
            ours.turn(20)
            bare.turn(20)
            self.appends[size] = ([], [])
            self.busy[size] = ([], [])
        for turn in range(self.options.rounds):
            for size, (ours, bare) in self.contenders.items():
                progress(f"round {turn + 1}/{self.options.rounds}: batches of {size}")
                count = BATCHES[size]
                pairs = list(zip((ours, bare), self.appends[size], strict=True))
                for contender, seconds in pairs[::-1] if turn % 2 else pairs:
                    seconds.append(contender.turn(count) / count)
                ours.rest()
                for contender, seconds in zip((ours, bare), self.busy[size], strict=True):
                    seconds.append(contender.busy(count) / count)
                    os.sync()
                ours.rest()
        for ours, bare in self.contenders.values():
            ours.log.close()
            os.close(bare.fd)
        self._recover()
        progress("")

    def _recover(self) -> None:
        folder = self.work / "recovery"
        folder.mkdir()
        settings = LogSettings(SEGMENT_BYTES, spare=0)
        log = Log.open(Folder(str(folder)), settings, salts)
        entries = make_entries(RECOVERY_BATCH)
        count = (self.options.megabytes << 20) // batch_bytes(RECOVERY_BATCH)
        for batch in range(count):
            log.append((Append(1, batch * RECOVERY_BATCH + 1, entries),))
            if batch % 100 == 0:
                log.settle(log.sync())
        log.settle(log.sync())
        log.close()
        self.recovered_bytes = count * batch_bytes(RECOVERY_BATCH)
        for turn in range(self.options.rounds):
            progress(f"round {turn + 1}/{self.options.rounds}: recovery")
            for kind, seconds in self.recovery.items():
                if kind == "cold":
                    evict(folder.iterdir())
                begin = time.perf_counter()
                log = Log.open(Folder(str(folder)), settings, salts)
                seconds.append(time.perf_counter() - begin)
                if len(log.recovered[1].terms) != count * RECOVERY_BATCH:
                    self.wrong.append(f"{len(log.recovered[1].terms)} entries came back")
                first = log.entries(1, 1, RECOVERY_BATCH, 1 << 30)
                if first != entries:
                    self.wrong.append("the first batch came back otherwise")
                log.close()

    def verify(self) -> list[str]:
        return self.wrong

    def rows(self) -> Iterator[dict[str, float]]:
        for size, (ours, bare) in self.appends.items():
            mine, theirs = statistics.median(ours), statistics.median(bare)
            yield {
                "entries": size,
                "bytes": batch_bytes(size),
                "ours_us": mine * 1e6,
                "bare_us": theirs * 1e6,
                "ratio": theirs / mine,
                "goal": GOALS[size],
                "entries_per_second": size / mine,
                "ours_busy_us": statistics.median(self.busy[size][0]) * 1e6,
                "bare_busy_us": statistics.median(self.busy[size][1]) * 1e6,
            }

    def report(self) -> dict[str, object]:
        megabytes = self.recovered_bytes / 1e6
        return {
            "append": list(self.rows()),
            "recovery_megabytes": megabytes,
            "recovery_mb_per_second": {
                kind: megabytes / statistics.median(seconds)
                for kind, seconds in self.recovery.items()
            },
        }


def show(report: dict[str, object], machine: dict[str, object]) -> None:
    print(
        "| entries | bytes | ours, us | bare, us | ratio | goal | entries/s | without syncs, us |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rows = report["append"]
    assert isinstance(rows, list)
    for row in rows:
        print(
            "| {entries} | {bytes} | {ours_us:.0f} | {bare_us:.0f} | {ratio:.2f} | {goal:.2f} "
            "| {entries_per_second:.0f} | {ours_busy_us:.0f} and {bare_busy_us:.0f} |".format(**row)
        )
    rates = report["recovery_mb_per_second"]
    assert isinstance(rates, dict)
    print(
        f"\nRecovery of {report['recovery_megabytes']:.0f} MB: {rates['warm']:.0f} MB/s from the "
        f"page cache (goal {RECOVERY_GOAL:.0f}), {rates['cold']:.0f} MB/s after eviction.\n"
    )
    for name in ("when", "cpu", "cores", "load", "system", "filesystem", "python", "commit"):
        print(f"* {name}: {machine[name]}")
    print(f"* versions: {machine['versions']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--megabytes", type=int, default=256, help="of the log that is recovered")
    parser.add_argument("--folder", type=Path, default=HERE / "out", help="on a real disk")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="log-", dir=options.folder))
    try:
        workload = LogWorkload(options, work)
        code = drive(workload)
        report = workload.report()
        machine = describe(work, sys.executable, os.environ.get("PATH", os.defpath))
    finally:
        shutil.rmtree(work)
    show(report, machine)
    path = options.folder / "log.json"
    path.write_text(json.dumps({"machine": machine, **report}, indent=1, default=str) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
