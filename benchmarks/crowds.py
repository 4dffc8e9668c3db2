"""Crowds: a hundred thousand leases, and as many watches, and whether others notice.

    python benchmarks/crowds.py [--quick] [--leases 100000] [--watches 100000] [--lines 100]
                                [--lanes 1,16] [--pace 20000] [--rounds 3] [--folder benchmarks/out]

Three replicas on this machine, with their disks on a real one. A probe writes all the time, with
one request outstanding and in a second series with 16, while

* leases are granted, each with one key; all are kept alive at the pace of clients that do so three
  times in a lease's life; half of them end at about the same moment; others are revoked;
* watches are registered over some connections, most on a key of their own, some on prefixes, and a
  tenth on one key; nothing happens; 10 000 keys are written, each of which is watched; the one key
  is written that a tenth watches; a half is cancelled, and the links of the others die at once.

What is said of each phase: how long the probe's writes took, the longest time between two that
were acknowledged, the leader's slow turns and the slowest of them, and how quick the crowd was.
A stall is what the first phase, in which the probe is alone, does not have. With more than one
round each figure is the median of the rounds, and the longest times of each are told besides: a
disk that others use as well stalls now and then by itself. No peer takes part yet.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from harness import HERE, drive, progress
from machine import describe, filesystem
from stores.base import until
from stores.ours import Ours

from engine.kv.up import found, statuses

ACTORS = HERE / "stores" / "crowd.py"
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
SLOW = re.compile(r"a turn took (\d+) ms")
WRITTEN = 10_000
ALONE, ALIVE, STILL = 10.0, 10.0, 3.0
"""Seconds of the phases that last for a time."""
COLUMNS = ("writes", "p50_ms", "p99_ms", "max_ms", "gap_ms", "slow_turns", "slowest_turn_ms")


class Actor:
    """A process of `stores/crowd.py`."""

    def __init__(self, kind: str, number: int, *addresses: str) -> None:
        self.kind = kind
        command = [sys.executable, str(ACTORS), kind, str(number), *addresses]
        environment = {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.heard()

    def begin(self, **order: Any) -> None:
        assert self.process.stdin is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)

    def heard(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.kind} ended: see above"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def do(self, **order: Any) -> dict[str, Any]:
        self.begin(**order)
        return self.heard()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Group(Ours):
    """Ours, as the phases see it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, folder)
        self.seats = found(str(self.folder))

    @property
    def endpoint(self) -> str:
        return str(self.leader["client"])

    @property
    def endpoints(self) -> list[str]:
        """The leader first."""
        return [self.endpoint, *(s.client for s in self.seats if s.id != self.leader["id"])]

    def leads(self) -> Any:
        seat = next(one for one in self.seats if one.id == self.leader["id"])
        return statuses([seat], 30.0)[seat.id]

    def figure(self, name: str) -> int:
        return int(dict(self.leads().figures)[name])

    def log(self) -> Path:
        return self.folder / f"{self.leader['id']}.log"

    def rss(self) -> int:
        return int(psutil.Process(self.leader_pid).memory_info().rss)


class Series:
    """All phases with a probe of so many lanes."""

    def __init__(self, group: Group, lanes: int, options: argparse.Namespace) -> None:
        self.group, self.lanes, self.options = group, lanes, options
        self.phases: list[dict[str, Any]] = []
        self.probe = Actor("probe", lanes, *group.endpoints)
        time.sleep(STILL)  # who leads in the beginning is not yet settled
        group.find()

    def phase(self, name: str, during: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
        """Do it, and say what the probe saw meanwhile."""
        progress(f"{self.lanes} outstanding: {name}")
        group = self.group
        at = group.log().stat().st_size
        before = dict(group.leads().counters)
        begin = time.monotonic()
        more = during() or {}
        end = time.monotonic()
        found = self.probe.do(begin=begin, end=end)
        status = group.leads()
        assert status.role == "leader", f"{name}: somebody else leads by now"
        with open(group.log(), errors="replace") as log:
            log.seek(at)
            slowest = max(map(int, SLOW.findall(log.read())), default=0)
        turns = dict(status.counters)["slow_turns"] - before["slow_turns"]
        row = {"phase": name, "lanes": self.lanes, "began": begin, "seconds": end - begin}
        row |= found
        row |= {"slow_turns": turns, "slowest_turn_ms": slowest, **more}
        self.phases.append(row)
        return row

    def run(self) -> None:
        try:
            self.phase("alone", lambda: time.sleep(ALONE))
            if self.options.leases:
                self.leases()
            if self.options.watches:
                self.watches()
        finally:
            self.probe.kill()

    # --- leases ----------------------------------------------------------------------------------

    def leases(self) -> None:
        group, options = self.group, self.options
        many, half, ttl = options.leases, options.leases // 2, options.ttl
        crowd = Actor("leases", 1, group.endpoint)
        pace = 3 * many / ttl
        try:
            rss = group.rss()
            grant = lambda: crowd.do(do="grant", many=many, ttl=ttl, pace=pace)  # noqa: E731
            row = self.phase("leases: granted", grant)
            row["bytes_each"] = (group.rss() - rss) / many
            alive = {"do": "alive", "first": 0, "last": many, "seconds": ALIVE, "pace": pace}
            self.phase("leases: kept alive", lambda: crowd.do(**alive))
            crowd.do(do="alive", first=0, last=many, seconds=0, pace=0)  # in step
            self.phase("leases: half of them end", lambda: self._end(crowd, half, pace))
            quarter = half + half // 2
            revoke = {"do": "revoke", "first": half, "last": quarter, "pace": pace}
            self.phase("leases: revoked", lambda: crowd.do(**revoke))
            left = many - quarter
            crowd.do(do="revoke", first=quarter, last=many, pace=0)
            assert group.figure("leases") == 0, (left, group.figure("leases"))
        finally:
            crowd.kill()

    def _end(self, crowd: Actor, half: int, pace: float) -> dict[str, Any]:
        """The others are kept alive meanwhile."""
        many, ended, begin, last = self.options.leases, 0.0, 0.0, 0.0
        deadline = time.monotonic() + 3 * self.options.ttl
        seconds = self.options.ttl / 6
        while (there := self.group.figure("leases")) > many - half:
            assert time.monotonic() < deadline, f"{there} leases are still there"
            now = time.monotonic()
            if there < many and not begin:
                begin = now
            if now - last > 2 * seconds:
                crowd.do(do="alive", first=half, last=many, seconds=seconds, pace=pace)
                last = now
            time.sleep(0.05)
        ended = time.monotonic()
        return {"a_second": half / max(ended - begin, 0.05)}

    # --- watches ---------------------------------------------------------------------------------

    def watches(self) -> None:
        group, options = self.group, self.options
        many = options.watches
        hot, prefixes = many // 10, min(100, many // 100)
        crowd = Actor("watches", options.lines, group.endpoint)
        writer = Actor("leases", 1, group.endpoint)
        try:
            rss = group.rss()
            ask = {"do": "watch", "many": many, "hot": hot, "prefixes": prefixes}
            ask["pace"] = options.pace

            def registered() -> dict[str, Any]:
                begin = time.monotonic()
                crowd.do(**ask, after=group.leads().commands)
                until("all watches", lambda: group.figure("watchers") >= many)
                return {"a_second": many / (time.monotonic() - begin)}

            row = self.phase("watches: registered", registered)
            row["bytes_each"] = (group.rss() - rss) / many
            self.phase("watches: nothing happens", lambda: time.sleep(STILL))
            self.phase("watches: many keys are written", lambda: self._write(crowd, writer, many))
            self.phase("watches: one key is written", lambda: self._hot(crowd, writer, hot))
            self.phase("watches: a half is cancelled", lambda: self._cancel(crowd, many // 2))
            self.phase("watches: the others' links die", lambda: self._die(crowd))
        finally:
            crowd.kill()
            writer.kill()

    def _write(self, crowd: Actor, writer: Actor, many: int) -> dict[str, Any]:
        """The keys are told to their own watches and to those of prefixes."""
        keys = min(WRITTEN, many - many // 10 - min(100, many // 100))
        crowd.do(do="reset")
        begun = writer.do(do="write", many=keys, prefix="watched-", pace=5000)["began"]
        told = crowd.do(do="count", want=2 * keys if keys >= WRITTEN else keys, seconds=60)
        assert told["told"] >= keys, told
        return {"a_second": told["told"] / (told["last"] - begun), "told": told["told"]}

    def _hot(self, crowd: Actor, writer: Actor, hot: int) -> dict[str, Any]:
        crowd.do(do="reset")
        begun = writer.do(do="write", many=1, prefix="hot-", pace=0)["began"]
        told = crowd.do(do="count", want=hot, seconds=60)
        assert told["told"] == hot, told
        return {"a_second": hot / (told["last"] - begun), "took_ms": (told["last"] - begun) * 1e3}

    def _cancel(self, crowd: Actor, many: int) -> dict[str, Any]:
        before, begin = self.group.figure("watchers"), time.monotonic()
        crowd.do(do="cancel", many=many, pace=self.options.pace)
        until("their end", lambda: self.group.figure("watchers") <= before - many)
        return {"a_second": many / (time.monotonic() - begin)}

    def _die(self, crowd: Actor) -> dict[str, Any]:
        crowd.kill()
        begin = time.monotonic()
        until("their end", lambda: self.group.figure("watchers") == 0)
        took = (time.monotonic() - begin) * 1e3
        time.sleep(1.0)  # what is forgotten later shows here
        return {"took_ms": took}


class CrowdWorkload:
    """The four steps of a benchmark."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.phases: list[dict[str, Any]] = []

    def prepare(self) -> None:
        disk = filesystem(self.work)
        assert disk not in IN_MEMORY, f"{self.work} is {disk}: name a --folder on a disk"

    def generate(self) -> None:
        """Requests are made by the crowd."""

    def execute(self) -> None:
        rounds = range(self.options.rounds)
        for number, lanes in product(rounds, self.options.lanes):
            group = Group(self.work / f"ours-{lanes}-{number}")
            try:
                series = Series(group, lanes, self.options)
                try:
                    series.run()
                finally:
                    self.phases += series.phases
            finally:
                group.close()
        progress("")

    def verify(self) -> list[str]:
        """Crowds look at their answers and end with an error."""
        return []


def medians(phases: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of the rounds, for each phase in its series."""
    for phase, lanes in dict.fromkeys((row["phase"], row["lanes"]) for row in phases):
        rows = [row for row in phases if (row["phase"], row["lanes"]) == (phase, lanes)]
        found = {name: median([row[name] for row in rows]) for name in rows[0] if name != "phase"}
        yield {**found, "phase": phase, "lanes": lanes, "gaps": [row["gap_ms"] for row in rows]}


def show(phases: list[dict[str, Any]]) -> None:
    print("| phase | lanes | s | a second | writes | p50 ms | p99 ms | max ms | gap ms ", end="")
    print("| slow turns | slowest ms | each gap |\n|" + "---|" * 12)
    for row in medians(phases):
        name = row["phase"]
        if "bytes_each" in row:
            name += f" ({row['bytes_each']:.0f} bytes each)"
        if "took_ms" in row:
            name += f" ({row['took_ms']:.0f} ms)"
        cells = [name, str(row["lanes"]), f"{row['seconds']:.1f}"]
        cells.append(f"{row['a_second']:,.0f}" if "a_second" in row else "")
        for column in COLUMNS:
            value = row.get(column, "")
            cells.append(f"{value:.1f}" if isinstance(value, float) else f"{value}")
        cells.append(" ".join([f"{gap:.0f}" for gap in row["gaps"]]))
        print("| " + " | ".join(cells) + " |")


def counts(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the crowd, short leases")
    parser.add_argument("--leases", type=int, help="0: none; 100000")
    parser.add_argument("--watches", type=int, help="0: none; 100000")
    parser.add_argument("--ttl", type=float, help="of a lease, in seconds; 30")
    parser.add_argument("--lines", type=int, default=100, help="connections of those who watch")
    parser.add_argument(
        "--pace", type=float, default=20_000.0, help="watches a second that begin, or end; 0: rush"
    )
    parser.add_argument("--lanes", type=counts, default=(1, 16), help="of the probe, by series")
    parser.add_argument("--rounds", type=int, default=1, help="of all that")
    parser.add_argument("--folder", type=Path, default=HERE / "out", help="on a real disk")
    options = parser.parse_args(arguments)
    for name, quick, full in (("leases", 10_000, 100_000), ("watches", 10_000, 100_000)):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    if options.ttl is None:
        options.ttl = 6.0 if options.quick else 30.0
    return options


def main() -> int:
    options = options_of()
    options.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="crowds-", dir=options.folder))
    workload = CrowdWorkload(options, work)
    try:
        code = drive(workload)
    finally:
        machine = describe(work, sys.executable, os.environ.get("PATH", os.defpath))
        shutil.rmtree(work)
        show(workload.phases)
        for name, value in machine.items():
            print(f"* {name}: {value}")
        print("* fsync: fdatasync of every entry on two of three before it is acknowledged")
        told = {"machine": machine, "phases": workload.phases}
        text = json.dumps(told, indent=1, default=str)
        (options.folder / "crowds.json").write_text(text + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
