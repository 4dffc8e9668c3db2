"""The replicated store beside etcd: writes, linearizable reads, a mix; failover; a million keys.

    python benchmarks/store.py [--rounds 5] [--seconds 3] [--kills 9] [--keys 1000000]
                               [--clients 1,16,64,256,1000] [--folder benchmarks/out]

Three replicas each on this machine, fsync on, keys of 16 bytes (10 000 of them) and values of 256,
N requests outstanding over min(N, 100) connections to the leader. Peers take turns within a round;
what counts is the ratio of medians. etcd is measured where it and Go are installed (Debian:
etcd-server, etcd-client, golang-go, golang-etcd-server-dev).

Failover: the leader is killed (-9) or stopped while a client goes on writing; the time until the
next write is acknowledged. A million keys: memory per key, the longest stall while a snapshot is
taken, and how soon a killed replica answers a linearizable read after it was started again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from harness import HERE, drive, progress
from machine import describe, filesystem
from stores import Etcd, Ours, build_loads, cpu_of, until

from engine.errors import EngineError
from engine.kv.aio import AsyncStore
from engine.kv.backup import StoreOperator
from engine.kv.client import Store
from engine.kv.up import found

CLIENTS = (1, 16, 64, 256, 1000)
SOCKETS_MAX = 100
VALUE_BYTES = 256
PROTOCOLS = ("put", "get", "mix")
GOALS = {
    "put": {1: 1.1, 16: 2.0, 64: 3.0, 256: 4.5, 1000: 5.0},
    "get": {64: 4.0, 1000: 10.0},
    "mix": {},
}
FAILOVER = {"killed": (150, 400), "stopped": (350, None)}
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")


class StoreWorkload:
    """The four steps of a benchmark."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.turns: dict[tuple[str, str, int], list[dict[str, float]]] = {}
        """(who, protocol, clients): of each turn ops, p50_ms, p99_ms, cpu_us."""
        self.failovers: dict[str, list[float]] = {name: [] for name in FAILOVER}
        self.million: dict[str, float] = {}
        self.wrong: list[str] = []

    def prepare(self) -> None:
        kind = filesystem(self.work)
        assert kind not in IN_MEMORY, f"{self.work} is {kind}: name a --folder on a disk"
        self.load = build_loads(self.work, HERE / "load.c")

    def generate(self) -> None:
        """Requests are made by the load."""

    def execute(self) -> None:
        if self.options.rounds:
            self._throughput()
        if self.options.kills:
            self._failover()
        if self.options.keys:
            self._keys()
        progress("")

    # --- throughput ------------------------------------------------------------------------------

    def _throughput(self) -> None:
        contenders: dict[str, Any] = {"ours": Ours(self.work / "ours")}
        try:
            if "etcd" in self.load:
                contenders["etcd"] = Etcd(self.work / "etcd")
            for who, contender in contenders.items():  # keys, caches, segments
                self._turn(who, contender, "put", 256, 2.0)
            self.turns.clear()
            for turn in range(self.options.rounds):
                for protocol in PROTOCOLS:
                    for clients in self.options.clients:
                        progress(f"round {turn + 1}/{self.options.rounds}: {protocol} {clients}")
                        order = list(contenders.items())
                        for who, contender in order[::-1] if turn % 2 else order:
                            self._turn(who, contender, protocol, clients, self.options.seconds)
        finally:
            for contender in contenders.values():
                contender.close()

    def _turn(self, who: str, contender: Any, protocol: str, clients: int, seconds: float) -> None:
        sizes = [str(min(clients, SOCKETS_MAX)), str(clients), str(seconds), str(VALUE_BYTES)]
        for _ in range(5):
            before = cpu_of(contender.pids)
            command = contender.command(self.load, protocol, sizes)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                told = json.loads(done.stdout)
                told["cpu_us"] = (cpu_of(contender.pids) - before) / told["done"] * 1e6
                self.turns.setdefault((who, protocol, clients), []).append(told)
                return
            contender.find()  # somebody else leads
        raise AssertionError(done.stderr)

    # --- failover --------------------------------------------------------------------------------

    def _failover(self) -> None:
        for how, times in self.failovers.items():
            ours = Ours(self.work / how)
            try:
                for turn in range(self.options.kills):
                    progress(f"failover: {how}, {turn + 1}/{self.options.kills}")
                    ours.find()
                    times.append(self._blow(ours, how))
                    self._mend(ours, how)
            finally:
                ours.close()

    def _blow(self, ours: Ours, how: str) -> float:
        with Store(str(ours.folder), timeout=10) as store:
            for number in range(50):
                store.put(f"before-{number}", "x")
            pid = ours.leader_pid
            begin = time.monotonic()
            os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            store.put("after", "x")
            return (time.monotonic() - begin) * 1e3

    def _mend(self, ours: Ours, how: str) -> None:
        if how == "stopped":
            os.kill(ours.leader_pid, signal.SIGCONT)
        else:
            ours.close()
            ours.__init__(ours.folder)  # type: ignore[misc]
        until("three replicas", lambda: self._all_follow(ours))

    def _all_follow(self, ours: Ours) -> bool:
        replicas = ours.status()["replicas"]
        up = [one for one in replicas if one["reachable"]]
        return len(up) == 3 and len({one["applied"] for one in up}) == 1

    # --- a million keys --------------------------------------------------------------------------

    def _keys(self) -> None:
        keys = self.options.keys
        progress(f"{keys} keys")
        ours = Ours(self.work / "keys")
        try:
            empty = min(psutil.Process(pid).memory_info().rss for pid in ours.pids)
            asyncio.run(fill(str(ours.folder), keys))
            ours.find()
            follower = next(one for one in ours.replicas if one["id"] != ours.leader["id"])
            rss = psutil.Process(follower["pid"]).memory_info().rss
            self.million["bytes_per_key"] = (rss - empty) / keys
            self.million["stall_ms"] = self._stall(ours)
            self.million["recovery_s"] = self._recovery(ours, follower)
        finally:
            ours.close()

    def _stall(self, ours: Ours) -> float:
        """The slowest of a lone client's writes while the leader takes a snapshot."""
        seat = next(s for s in found(str(ours.folder)) if s.id == ours.leader["id"])
        script = (
            "import sys; from engine.kv.backup import StoreOperator\n"
            "with StoreOperator(sys.argv[1], timeout=120) as one: one.take_snapshot()"
        )
        slowest = 0.0
        with Store(str(ours.folder), timeout=10) as store:
            process = subprocess.Popen([sys.executable, "-c", script, seat.admin])
            while process.poll() is None:
                begin = time.monotonic()
                store.put("stall", "x")
                slowest = max(slowest, time.monotonic() - begin)
        assert process.returncode == 0
        return slowest * 1e3

    def _recovery(self, ours: Ours, follower: dict[str, Any]) -> float:
        """From its start until it leads nothing but answers: a read that only it can answer."""
        seat = next(s for s in found(str(ours.folder)) if s.id == follower["id"])
        with StoreOperator(seat.admin, timeout=120) as operator:
            operator.take_snapshot()
        os.kill(follower["pid"], signal.SIGKILL)
        psutil.wait_procs([psutil.Process(follower["pid"])], timeout=10)
        wanted = ours.status()
        applied = max(one.get("applied", 0) for one in wanted["replicas"])
        seats = found(str(ours.folder))
        command = [sys.executable, "-m", "engine_cmd.main", "kv", "serve", "--dir", seat.folder]
        command += ["--initial", ",".join(f"{one.member}={one.peers}" for one in seats)]
        command += ["--listen", seat.peers, "--clients", seat.client, "--admin", seat.admin]
        begin = time.monotonic()
        with open(f"{seat.folder}.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while True:
                try:
                    with StoreOperator(seat.admin, timeout=0.5) as operator:
                        if operator.status().applied >= applied:
                            break
                except EngineError:
                    pass
            with Store([seat.client], timeout=10) as store:
                assert store.get("key-000000000001", local=True) is not None
            return time.monotonic() - begin
        finally:
            process.terminate()
            process.wait()

    # --- the report ------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        return self.wrong

    def rows(self) -> Iterator[dict[str, Any]]:
        for protocol in PROTOCOLS:
            for clients in self.options.clients:
                row: dict[str, Any] = {"protocol": protocol, "clients": clients}
                for who in ("ours", "etcd"):
                    turns = self.turns.get((who, protocol, clients))
                    if turns:
                        for what in ("ops", "p50_ms", "p99_ms", "cpu_us"):
                            row[f"{who}_{what}"] = statistics.median(one[what] for one in turns)
                if "etcd_ops" in row:
                    row["ratio"] = row["ours_ops"] / row["etcd_ops"]
                if "ours_ops" in row:
                    row["goal"] = GOALS[protocol].get(clients)
                    yield row

    def report(self) -> dict[str, Any]:
        return {
            "throughput": list(self.rows()),
            "failover_ms": self.failovers,
            "million": self.million,
        }


async def fill(folder: str, keys: int) -> None:
    """Keys of 16 bytes with values of 256, many at a time."""
    value = bytes(VALUE_BYTES)
    async with AsyncStore(folder, timeout=60) as store:
        for first in range(0, keys, 2000):
            names = range(first, min(first + 2000, keys))
            await asyncio.gather(*(store.put(f"key-{name:012d}", value) for name in names))


def show(report: dict[str, Any], machine: dict[str, object]) -> None:
    print("| | clients | ours/s | p50, p99 ms | CPU us | etcd/s | p50, p99 ms | CPU us | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in report["throughput"]:
        cells = [row["protocol"], f"{row['clients']}"]
        for who in ("ours", "etcd"):
            if f"{who}_ops" in row:
                cells.append(f"{row[f'{who}_ops']:.0f}")
                cells.append(f"{row[f'{who}_p50_ms']:.2f}, {row[f'{who}_p99_ms']:.1f}")
                cells.append(f"{row[f'{who}_cpu_us']:.1f}")
            else:
                cells += ["", "", ""]
        goal = f" (goal {row['goal']:g})" if row["goal"] else ""
        cells.append(f"{row['ratio']:.2f}{goal}" if "ratio" in row else "")
        print(f"| {' | '.join(cells)} |")
    print("\n| the leader is | median ms | max | goals | each |\n|---|---|---|---|---|")
    for name, taken in report["failover_ms"].items():
        if taken:
            median, most = FAILOVER[name]
            goals = f"{median}, {most}" if most else f"{median}"
            each = " ".join(f"{one:.0f}" for one in taken)
            middle = statistics.median(taken)
            print(f"| {name} | {middle:.0f} | {max(taken):.0f} | {goals} | {each} |")
    for name, value in report["million"].items():
        print(f"\n{name}: {value:.1f}")
    print("\nfsync: on, by fdatasync, in all of them.")
    for name in ("when", "cpu", "cores", "load", "system", "filesystem", "python", "commit"):
        print(f"* {name}: {machine[name]}")
    print(f"* versions: {machine['versions']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--kills", type=int, default=9)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument(
        "--clients", type=lambda text: tuple(map(int, text.split(","))), default=CLIENTS
    )
    parser.add_argument("--folder", type=Path, default=HERE / "out", help="on a real disk")
    options = parser.parse_args()
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
    return code


if __name__ == "__main__":
    sys.exit(main())
