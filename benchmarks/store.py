"""The replicated store beside its peers: writes, reads, a mix; failover; a million keys.

    python benchmarks/store.py [--peers etcd,zookeeper,nats,redis,pysyncobj] [--rounds 5]
                               [--seconds 3] [--kills 9] [--keys 1000000]
                               [--clients 1,16,64,256,1000] [--folder benchmarks/out]

Three replicas each on this machine, keys of 16 bytes (10 000 of them, all there before the first
turn) and values of 256, N requests outstanding over min(N, 100) connections to the leader. All
stores run all the time and take turns within a round, in an order that turns round; what counts is
the ratio of medians. What each promises, and whether that is fsynced, is said with the table: not
all promise what ours does. A peer that is not installed is named with the packages to install.

Failover: the leader is killed (-9) or stopped while a client goes on writing; the time until the
next write is acknowledged; a third as often for peers. A million keys, of ours: memory per key, the
longest stall while a snapshot is taken, and how soon a killed replica answers after a new start.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from harness import HERE, drive, progress
from machine import describe, filesystem
from stores import PEERS, Ours, failover, million
from stores.base import Servers, Store, cpu_of
from stores.report import PROTOCOLS, plot, rows, show

CLIENTS = (1, 16, 64, 256, 1000)
IDLE_SECONDS = 3.0
FAILURES = (AssertionError, OSError, ValueError, psutil.Error, subprocess.SubprocessError)
"""What a peer that does not work ends with: it says so, or is not there, or says no JSON."""
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")


class StoreWorkload:
    """The four steps of a benchmark."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.missing = {name: why for name in options.peers if (why := PEERS[name].missing())}
        peers = {name: PEERS[name] for name in options.peers if name not in self.missing}
        self.kinds: dict[str, type[Store]] = {"ours": Ours, **peers}
        self.out: set[str] = set()
        """Peers that failed."""
        self.load: dict[str, Path] = {}
        self.turns: dict[tuple[str, str, int], list[dict[str, float]]] = {}
        """(who, protocol, clients): what each turn said."""
        self.notes: dict[str, list[str]] = {}
        self.idle: dict[str, float] = {}
        self.failovers: dict[str, dict[str, list[float]]] = {}
        self.million: dict[str, float] = {}

    def prepare(self) -> None:
        disk = filesystem(self.work)
        assert disk not in IN_MEMORY, f"{self.work} is {disk}: name a --folder on a disk"
        for name, kind in self.kinds.items():
            progress(f"building the load of {name}")
            with self._excused(name, "its load was not built"):
                self.load[name] = kind.build(self.work)

    @contextmanager
    def _excused(self, name: str, what: str) -> Iterator[None]:
        """A peer that fails is out, and the others go on; ours may not fail."""
        try:
            yield
        except FAILURES as failed:
            if name == "ours":
                raise
            print(f"{name} is out: {what}: {failed}", file=sys.stderr)
            self.missing[name] = f"{what}: {' '.join(str(failed).split())[:300]}"
            self.out.add(name)

    def generate(self) -> None:
        """Requests are made by the load."""

    def execute(self) -> None:
        if self.options.rounds:
            self._throughput()
        if self.options.kills:
            self._failover()
        if self.options.keys:
            self.million = million.measure(self.work / "keys", self.load["ours"], self.options.keys)
        progress("")

    def _throughput(self) -> None:
        stores: dict[str, Store] = {}
        try:
            for name, kind in self.kinds.items():
                if name not in self.out:
                    progress(f"starting {name}")
                    with self._excused(name, "it did not start"):
                        stores[name] = kind(self.work / name, self.load[name])
                        self._warm(stores[name])
                    self._close_failed(stores, name)
            self._idle(stores)
            for store in stores.values():
                store.rest()
            for turn in range(self.options.rounds):
                for protocol in PROTOCOLS:
                    for clients in self.options.clients:
                        self._turns(stores, turn, protocol, clients)
        finally:
            for store in stores.values():
                store.close()

    def _close_failed(self, stores: dict[str, Store], name: str) -> None:
        if name in self.out and name in stores:
            stores.pop(name).close()

    def _warm(self, store: Store) -> None:
        self.notes[store.name] = store.notes
        store.fill()
        for protocol in ("put", "get"):  # caches, segments, compilers at run time
            store.turn(protocol, 256, 2.0)
        store.find()

    def _idle(self, stores: dict[str, Store]) -> None:
        """What all the others cost whoever has the turn."""
        before = {name: cpu_of(store.pids) for name, store in stores.items()}
        time.sleep(IDLE_SECONDS)
        for name, store in stores.items():
            self.idle[name] = (cpu_of(store.pids) - before[name]) / IDLE_SECONDS

    def _turns(self, stores: dict[str, Store], turn: int, protocol: str, clients: int) -> None:
        """A turn of every store; who begins changes, so that none always follows the heaviest."""
        names = list(stores)
        shift = turn % len(names)
        for name in [*names[shift:], *names[:shift]]:
            rounds = self.options.rounds
            progress(f"round {turn + 1}/{rounds}: {protocol}, {clients} clients, {name}")
            with self._excused(name, f"it failed in round {turn + 1}"):
                stores[name].wake()
                told = stores[name].turn(protocol, clients, self.options.seconds)
                stores[name].rest()
                self.turns.setdefault((name, protocol, clients), []).append(told)
            self._close_failed(stores, name)

    def _failover(self) -> None:
        kills, load = self.options.kills, self.load
        self.failovers["ours"] = failover.of_ours(self.work, load["ours"], kills)
        for name, peer in self.kinds.items():
            if name in load and issubclass(peer, Servers) and peer.fails_over:
                with self._excused(name, "its failover was not measured"):
                    taken = failover.of_peer(peer, self.work, load[name], max(1, kills // 3))
                    self.failovers[name] = {"killed": taken}

    def verify(self) -> list[str]:
        """Loads look at their answers and end with an error."""
        return []

    def report(self) -> dict[str, Any]:
        about = {
            name: {
                "promise": kind.promise,
                "version": kind.version(),
                "notes": self.notes.get(name, []),
                "idle_cores": self.idle.get(name),
            }
            for name, kind in self.kinds.items()
        }
        order = list(self.kinds)
        turns = dict(sorted(self.turns.items(), key=lambda item: order.index(item[0][0])))
        return {
            "throughput": list(rows(turns, self.options.clients)),
            "failover_ms": self.failovers,
            "million": self.million,
            "stores": about,
            "missing": self.missing,
        }


def peers(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"no peer {name!r}: there are {', '.join(PEERS)}")
    return names


def counts(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--peers", type=peers, default=tuple(PEERS), help="by name, with commas; '' for none"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--kills", type=int, default=9, help="of ours; a third of it of each peer")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--clients", type=counts, default=CLIENTS)
    parser.add_argument("--folder", type=Path, default=HERE / "out", help="on a real disk")
    return parser.parse_args(arguments)


def main() -> int:
    options = options_of()
    options.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="store-", dir=options.folder))
    try:
        workload = StoreWorkload(options, work)
        code = drive(workload)
        report = workload.report()
        machine = describe(work, sys.executable, os.environ.get("PATH", os.defpath))
    finally:
        shutil.rmtree(work)
    show(report, machine)
    path = options.folder / "store.json"
    path.write_text(json.dumps({"machine": machine, **report}, indent=1, default=str) + "\n")
    if report["throughput"] and (
        why := plot(report["throughput"], machine, path.with_suffix(".svg"))
    ):
        print(f"\n{why}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
