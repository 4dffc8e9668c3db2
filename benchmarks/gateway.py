"""Redis clients beside the native load, at the same store.

    python benchmarks/gateway.py [--rounds 5] [--seconds 3] [--folder benchmarks/out]

`redis-benchmark` (of the package redis-tools) at the gateway of the replica that leads, with
values of 256 bytes and 10 000 keys: 64 connections, each with one request outstanding, against
`load.c` with as many clients; and the same connections with 16 requests in a pipeline, so 1024
outstanding, against `load.c` with 1000 clients. They take turns in each round; what counts is the
ratio of medians. Three replicas on this machine, fdatasync on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from harness import HERE, progress
from machine import describe, filesystem
from stores import Ours

CONNECTIONS, PIPELINE = 64, 16
GOALS = {("set", 1): 0.85, ("get", 1): 0.85, ("set", PIPELINE): 0.75, ("get", PIPELINE): 0.60}
NATIVE = {("set", 1): ("put", 64), ("get", 1): ("get", 64),
          ("set", PIPELINE): ("put", 1000), ("get", PIPELINE): ("get", 1000)}  # fmt: skip


class Gated(Ours):
    """Ours, with a gateway in each replica."""

    def start(self) -> None:
        self._engine(
            "up", "--dir", str(self.folder), "--detach", "--json", "--no-restart", "--redis", "0"
        )

    def redis(self, command: str, pipeline: int, requests: int) -> float:
        """Requests a second."""
        port = str(self.leader["redis"]).rpartition(":")[2]
        words = ["redis-benchmark", "-p", port, "-t", command, "-c", str(CONNECTIONS), "-d", "256"]
        words += ["-r", "10000", "-n", str(requests), "-P", str(pipeline), "--csv"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        rows = [row for row in csv.reader(done.stdout.splitlines()) if row[0].lower() == command]
        return float(rows[0][1])


def measure(store: Gated, rounds: int, seconds: float) -> dict[str, Any]:
    native: dict[tuple[str, int], list[float]] = {way: [] for way in GOALS}
    redis: dict[tuple[str, int], list[float]] = {way: [] for way in GOALS}
    for turn in range(rounds):
        for command, pipeline in GOALS:
            way = command, pipeline
            progress(f"round {turn + 1}/{rounds}: {command}, pipelines of {pipeline}")
            native[way].append(store.turn(*NATIVE[way], seconds)["ops"])
            wanted = int(seconds * (redis[way] or native[way])[-1])
            redis[way].append(store.redis(*way, wanted))
    return {
        f"{command} -P {pipeline}": {
            "native": median(native[command, pipeline]),
            "redis": median(redis[command, pipeline]),
            "ratio": median(redis[command, pipeline]) / median(native[command, pipeline]),
            "goal": goal,
            "turns": {"native": native[command, pipeline], "redis": redis[command, pipeline]},
        }
        for (command, pipeline), goal in GOALS.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn, about")
    parser.add_argument("--folder", type=Path, default=HERE / "out", help="on a real disk")
    options = parser.parse_args()
    if not shutil.which("redis-benchmark"):
        parser.error("redis-benchmark is not here: install redis-tools")
    options.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="gateway-", dir=options.folder))
    assert filesystem(work) not in ("tmpfs", "ramfs"), f"{work} is in memory: name a --folder"
    try:
        store = Gated(work / "store", Gated.build(work))
        try:
            store.fill()
            for way in GOALS:
                store.turn(*NATIVE[way], 1.0)
                store.redis(*way, 20_000)
            found = measure(store, options.rounds, options.seconds)
        finally:
            store.close()
        machine = describe(work, sys.executable, os.environ.get("PATH", os.defpath))
    finally:
        shutil.rmtree(work)
    progress("")
    print("| redis-benchmark | a second | native | ratio | goal |\n|---|---|---|---|---|")
    for name, row in found.items():
        figures = f"{row['redis']:.0f} | {row['native']:.0f} | {row['ratio']:.2f} | {row['goal']}"
        print(f"| {name} | {figures} |")
    for name, value in machine.items():
        print(f"* {name}: {value}")
    told = {"machine": machine, "gateway": found}
    text = json.dumps(told, indent=1, default=str)
    (options.folder / "gateway.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
