"""Replicas as processes: commands beside a loop that does nothing else, elections, and a soak.

    python benchmarks/replication.py [--limit FOLDER] [--rounds 5] [--seconds 3] [--kills 9]
                                     [--soak MINUTES] [--folder benchmarks/out]

Replication: commands of 256 bytes, three replicas, fsync on, over ipc. The limit is a folder with
`raftproto.py`, a leader and two followers in pure Python that batch, write, fdatasync, replicate
and answer, without elections, log matching or recovery; without `--limit` there is none. Both are
driven by the same compiled load (`load.c`: min(N, 100) connections, N requests outstanding) in
turns; what counts is the ratio of the medians.

Elections: a leader is killed (-9) or stopped while a client goes on asking; the time until the next
command is acknowledged. With the hint, members see the connection break; without, a proxy hides it.

Soak: N = 1000 for so many minutes, on however few cores; the term must stay what it was.
"""

from __future__ import annotations

import argparse
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

from engine.errors import EngineError
from engine.faults.cluster import Cluster
from engine.raft.client import Group, Operator
from engine.storage.home import make
from engine.wire.addresses import private_address

CLIENTS = (1, 16, 64, 256, 1000)
SOCKETS_MAX = 100
COMMAND_BYTES = 272
"""A key of 16 bytes and a value of 256, which is what the limit carries."""
GOALS = {64: 0.75, 1000: 0.75}
ELECTIONS = {
    "killed": (100, 400),
    "killed, without the hint": (300, 450),
    "stopped": (300, None),
}
"""Milliseconds: the median and the maximum we hold ourselves to."""
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
WAIT_SECONDS = 30.0


def until(what: str, true: Any) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return found


class Replicas:
    """Three of ours, without anything between them."""

    def __init__(self, folder: Path) -> None:
        self.sockets = Path(os.path.dirname(private_address().removeprefix("ipc://")))
        self.names = ("a", "b", "c")
        ids = {name: make(str(folder / name)) for name in self.names}
        initial = ",".join(f"{ids[name]}=ipc://{self.sockets}/{name}" for name in self.names)
        self.processes = []
        self.operators = {}
        for name in self.names:
            command = [sys.executable, "-m", "engine_cmd.main", "raft", "serve", "--json"]
            command += ["--dir", str(folder / name), "--initial", initial]
            for flag, end in (("--listen", ""), ("--clients", ".c"), ("--admin", ".a")):
                command += [flag, f"ipc://{self.sockets}/{name}{end}"]
            with open(folder / f"{name}.log", "wb") as log:
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
            self.processes.append(process)
            assert process.stdout is not None
            assert b"address" in process.stdout.readline(), (folder / f"{name}.log").read_text()
            self.operators[name] = Operator(f"ipc://{self.sockets}/{name}.a")
        self.leader = ""
        self.find()

    def find(self) -> None:
        """Who leads now."""
        self.leader = until("a leader", self._leader)

    def _leader(self) -> str:
        leads = [n for n in self.names if self.operators[n].status().role == "leader"]
        return leads[0] if leads else ""

    @property
    def clients(self) -> str:
        return f"ipc://{self.sockets}/{self.leader}.c"

    def terms(self) -> list[int]:
        return [operator.status().term for operator in self.operators.values()]

    def cpu(self) -> float:
        """Seconds of all of them."""
        times = [psutil.Process(process.pid).cpu_times() for process in self.processes]
        return sum(one.user + one.system for one in times)

    def close(self) -> None:
        for operator in self.operators.values():
            operator.close()
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        shutil.rmtree(self.sockets, ignore_errors=True)


class Limit:
    """The bare loop: its program takes its addresses and files from where it lies."""

    def __init__(self, source: Path, folder: Path) -> None:
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("scratch", "*.so"))
        environment = {**os.environ, "TR": "ipc"}
        program = [sys.executable, str(folder / "raftproto.py")]
        orders = (["follower", "1", "1"], ["follower", "2", "1"], ["leader", "2", "1"])
        self.processes = [subprocess.Popen([*program, *order], env=environment) for order in orders]
        self.socket = folder / "scratch" / "data" / "rp0.ipc"
        until("the limit's socket", self.socket.exists)

    @property
    def clients(self) -> str:
        return f"ipc://{self.socket}"

    def cpu(self) -> float:
        times = [psutil.Process(process.pid).cpu_times() for process in self.processes]
        return sum(one.user + one.system for one in times)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


class ReplicationWorkload:
    """The four steps of a benchmark."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.turns: dict[tuple[str, int], list[dict[str, float]]] = {}
        """(who, clients): of each turn ops, p50_ms, p99_ms, cpu_us."""
        self.elections: dict[str, list[float]] = {name: [] for name in ELECTIONS}
        self.soak: dict[str, Any] = {}
        self.mistakes = 0
        """Turns that were repeated, because somebody else led."""
        self.wrong: list[str] = []

    def prepare(self) -> None:
        kind = filesystem(self.work)
        assert kind not in IN_MEMORY, f"{self.work} is {kind}: name a --folder on a disk"
        self.load = self.work / "load"
        source = str(HERE / "load.c")
        subprocess.run(["cc", "-O2", "-o", str(self.load), source], check=True)

    def generate(self) -> None:
        """Commands are made by the load."""

    def execute(self) -> None:
        (self.work / "ours").mkdir()
        contenders: dict[str, Any] = {"ours": Replicas(self.work / "ours")}
        try:
            if self.options.limit is not None:
                contenders["limit"] = Limit(self.options.limit, self.work / "limit")
            for clients in CLIENTS:  # first turns are for memory, caches and segments
                for who, contender in contenders.items():
                    self._turn(who, contender, clients, 1.0)
            self.turns.clear()
            for turn in range(self.options.rounds):
                for clients in CLIENTS:
                    progress(f"round {turn + 1}/{self.options.rounds}: {clients} clients")
                    order = list(contenders.items())
                    for who, contender in order[::-1] if turn % 2 else order:
                        self._turn(who, contender, clients, self.options.seconds)
            if self.options.soak:
                self._soak(contenders["ours"])
        finally:
            for contender in contenders.values():
                contender.close()
        self._elect()
        progress("")

    def _turn(self, who: str, contender: Any, clients: int, seconds: float) -> None:
        before = contender.cpu()
        found = self._drive("engine" if who == "ours" else "bare", contender, clients, seconds)
        found["cpu_us"] = (contender.cpu() - before) / found["done"] * 1e6
        self.turns.setdefault((who, clients), []).append(found)

    def _drive(self, protocol: str, contender: Any, clients: int, seconds: float) -> Any:
        sizes = [str(min(clients, SOCKETS_MAX)), str(clients), str(seconds), str(COMMAND_BYTES)]
        for _ in range(5):
            command = [str(self.load), protocol, contender.clients, *sizes]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return json.loads(done.stdout)
            assert protocol == "engine", done.stderr
            self.mistakes += 1
            contender.find()
        raise AssertionError(done.stderr)

    def _soak(self, ours: Replicas) -> None:
        terms, begin, done = ours.terms(), time.monotonic(), 0
        while time.monotonic() < begin + 60 * self.options.soak:
            progress(f"soak: {time.monotonic() - begin:.0f} s")
            done += self._drive("engine", ours, 1000, 10.0)["done"]
        after = ours.terms()
        self.soak = {
            "minutes": (time.monotonic() - begin) / 60,
            "commands": done,
            "elections": max(after) - max(terms),
        }
        if after != terms:
            self.wrong.append(f"terms went from {terms} to {after} under load")

    # --- elections -------------------------------------------------------------------------------

    def _elect(self) -> None:
        for name, seconds in self.elections.items():
            (self.work / name).mkdir()
            with Cluster(self.work / name, factor=3) as cluster:
                self._begin(cluster, self.work / name)
                for turn in range(self.options.kills):
                    progress(f"elections: {name}, {turn + 1}/{self.options.kills}")
                    seconds.append(self._one(cluster, name))

    NAMES = ("a", "b", "c")

    def _begin(self, cluster: Cluster, folder: Path) -> None:
        self.folder = folder
        self.ids = {name: make(str(folder / name)) for name in self.NAMES}
        for name in self.NAMES:
            cluster.address(name)
        for name in self.NAMES:
            self._start(cluster, name)

    def _start(self, cluster: Cluster, name: str) -> None:
        initial = ",".join(f"{self.ids[n]}={cluster.address(n)}" for n in self.NAMES)
        flags = ["--dir", str(self.folder / name), "--initial", initial]
        for flag, end in (("--clients", ".c"), ("--admin", ".a")):
            flags += [flag, f"{cluster.address(name)}{end}"]
        cluster.start(name, "raft", "serve", *flags, reaches=self.NAMES)

    def _one(self, cluster: Cluster, how: str) -> float:
        """Milliseconds from the blow to the next command that is acknowledged."""
        leader = until("a leader that all follow", lambda: self._followed(cluster))
        others = [name for name in self.NAMES if name != leader]
        with Group([f"{cluster.address(name)}.c" for name in self.NAMES], timeout=5) as before:
            for number in range(20):
                before.submit(b"before %d" % number)
        with Group([f"{cluster.address(name)}.c" for name in others], timeout=5) as group:
            while True:  # connected to both, and neither leads
                try:
                    group._caller._timeout = 0.2
                    group.look()
                except EngineError:
                    break
            group._caller._timeout = 5
            if how == "killed, without the hint":
                cluster.proxy.cut(leader, "*")
                cluster.proxy.cut("*", leader)
            begin = time.monotonic()
            if how == "stopped":
                cluster.node(leader).process.send_signal(signal.SIGSTOP)
            else:
                cluster.node(leader).process.kill()
            while True:
                try:
                    group.submit(b"after")
                    break
                except EngineError:
                    pass
            took = (time.monotonic() - begin) * 1e3
        if how == "stopped":
            cluster.go_on(leader)
        else:
            cluster.kill(leader)
            cluster.proxy.heal()
            self._start(cluster, leader)
        return took

    def _followed(self, cluster: Cluster) -> str:
        statuses = {}
        for name in self.NAMES:
            try:
                with Operator(f"{cluster.address(name)}.a", timeout=1) as operator:
                    statuses[name] = operator.status()
            except EngineError:
                return ""
        leads = [name for name, one in statuses.items() if one.role == "leader"]
        same = len({one.term for one in statuses.values()}) == 1
        caught_up = len({one.applied for one in statuses.values()}) == 1
        return leads[0] if len(leads) == 1 and same and caught_up else ""

    # --- the report ------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        return self.wrong

    def rows(self) -> Iterator[dict[str, Any]]:
        for clients in CLIENTS:
            row: dict[str, Any] = {"clients": clients, "goal": GOALS.get(clients)}
            for who in ("ours", "limit"):
                turns = self.turns.get((who, clients))
                if turns:
                    for what in ("ops", "p50_ms", "p99_ms", "cpu_us"):
                        row[f"{who}_{what}"] = statistics.median(turn[what] for turn in turns)
            if "limit_ops" in row:
                row["ratio"] = row["ours_ops"] / row["limit_ops"]
            yield row

    def report(self) -> dict[str, Any]:
        return {
            "replication": list(self.rows()),
            "elections_ms": self.elections,
            "soak": self.soak,
            "repeated_turns": self.mistakes,
        }


def show(report: dict[str, Any], machine: dict[str, object]) -> None:
    print("| clients | ours/s | p50, p99 ms | CPU us | limit/s | p50, p99 ms | CPU us | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for row in report["replication"]:
        cells = [f"{row['clients']}"]
        for who in ("ours", "limit"):
            if f"{who}_ops" in row:
                cells.append(f"{row[f'{who}_ops']:.0f}")
                cells.append(f"{row[f'{who}_p50_ms']:.2f}, {row[f'{who}_p99_ms']:.1f}")
                cells.append(f"{row[f'{who}_cpu_us']:.1f}")
            else:
                cells += ["", "", ""]
        goal = f" (goal {row['goal']:.2f})" if row["goal"] else ""
        cells.append(f"{row['ratio']:.2f}{goal}" if "ratio" in row else "")
        print(f"| {' | '.join(cells)} |")
    print("\n| the leader is | median ms | max | goals | each |\n|---|---|---|---|---|")
    for name, taken in report["elections_ms"].items():
        if taken:
            median, most = ELECTIONS[name]
            goals = f"{median}, {most}" if most else f"{median}"
            each = " ".join(f"{one:.0f}" for one in taken)
            print(
                f"| {name} | {statistics.median(taken):.0f} | {max(taken):.0f} | {goals} | {each} |"
            )
    if report["soak"]:
        soak = report["soak"]
        print(
            f"\n{soak['minutes']:.1f} minutes of full load: {soak['commands']} commands, "
            f"{soak['elections']} elections."
        )
    print(f"\nTurns repeated because the leader had changed: {report['repeated_turns']}.")
    print("\nfsync: on, by fdatasync, in all of them.")
    for name in ("when", "cpu", "cores", "load", "system", "filesystem", "python", "commit"):
        print(f"* {name}: {machine[name]}")
    print(f"* versions: {machine['versions']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=Path, help="a folder with raftproto.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--kills", type=int, default=9)
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--folder", type=Path, default=HERE / "out", help="on a real disk")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="replication-", dir=options.folder))
    try:
        workload = ReplicationWorkload(options, work)
        code = drive(workload)
        report = workload.report()
        machine = describe(work, sys.executable, os.environ.get("PATH", os.defpath))
    finally:
        shutil.rmtree(work)
    show(report, machine)
    path = options.folder / "replication.json"
    path.write_text(json.dumps({"machine": machine, **report}, indent=1, default=str) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
