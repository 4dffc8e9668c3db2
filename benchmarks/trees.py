"""What a change gained: the store of several checkouts under the same load, in turns.

    python benchmarks/trees.py CHECKOUT CHECKOUT… [--clients 1,16,64] [--loads put] [--rounds 5]
                               [--seconds 3] [--folder benchmarks/out]

Each CHECKOUT has its own `.venv`, made by `make kernels` there; the load is that of this one. The
others are compared with the first.
"""

from __future__ import annotations

import argparse
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

FIGURES = ("ops", "p50_ms", "p99_ms", "cpu_us")


def of(checkout: Path) -> type[Ours]:
    """The store of a checkout."""

    class There(Ours):
        python = str(checkout / ".venv" / "bin" / "python")

        def _engine(self, *words: str) -> Any:
            command = [self.python, "-m", "engine_cmd.main", "kv", *words]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, cwd=checkout
            )
            assert done.stdout, f"{checkout}: {done.stderr}"
            return json.loads(done.stdout)

    return There


def named(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measure(options: argparse.Namespace, work: Path, load: Path) -> list[dict[str, Any]]:
    """All stores are up at the same time, and take turns in each round."""
    stores: list[Ours] = []
    rows: list[dict[str, Any]] = []
    try:
        for number, checkout in enumerate(options.checkouts):
            stores.append(of(checkout.resolve())(work / f"tree-{number}", load))
            stores[-1].fill()
            stores[-1].turn("put", 64, 1.0)
        for what in options.loads:
            for clients in options.clients:
                turns: list[list[dict[str, float]]] = [[] for _ in stores]
                for turn in range(options.rounds):
                    progress(f"{what}, {clients} clients: round {turn + 1}/{options.rounds}")
                    first = turn % len(stores)  # whoever comes after another finds its disk busy
                    for at in (*range(first, len(stores)), *range(first)):
                        turns[at].append(stores[at].turn(what, clients, options.seconds))
                for checkout, seen in zip(options.checkouts, turns, strict=True):
                    row: dict[str, Any] = {"load": what, "clients": clients}
                    row["checkout"] = named(checkout)
                    row |= {name: median(one[name] for one in seen) for name in FIGURES}
                    rows.append(row | {"turns": seen})
    finally:
        for store in stores:
            store.close()
    return rows


def show(rows: list[dict[str, Any]], trees: int) -> None:
    print("| load | clients | checkout | a second | p50 ms | p99 ms | CPU us | x first |")
    print("|" + "---|" * 8)
    for at, row in enumerate(rows):
        ratio = row["ops"] / rows[at - at % trees]["ops"]
        where = f"{row['load']} | {row['clients']} | {row['checkout']}"
        times = f"{row['p50_ms']:.2f} | {row['p99_ms']:.1f} | {row['cpu_us']:.1f}"
        print(f"| {where} | {row['ops']:.0f} | {times} | {ratio:.2f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkouts", metavar="CHECKOUT", nargs="+", type=Path)
    parser.add_argument("--clients", type=counts, default=(1, 16, 64))
    parser.add_argument("--loads", type=lambda text: text.split(","), default=["put"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--folder", type=Path, default=HERE / "out", help="on a real disk")
    options = parser.parse_args()
    for checkout in options.checkouts:
        if not (checkout / ".venv" / "bin" / "python").exists():
            parser.error(f"{checkout} has no .venv: run `make kernels` there")
    options.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="trees-", dir=options.folder.resolve()))
    assert filesystem(work) not in ("tmpfs", "ramfs"), f"{work} is in memory: name a --folder"
    try:
        rows = measure(options, work, Ours.build(work))
        machine = describe(work, sys.executable, os.environ.get("PATH", os.defpath))
    finally:
        shutil.rmtree(work)
    progress("")
    show(rows, len(options.checkouts))
    for name, value in machine.items():
        print(f"* {name}: {value}")
    told = json.dumps({"machine": machine, "trees": rows}, indent=1, default=str)
    (options.folder / "trees.json").write_text(told + "\n")
    return 0


def counts(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


if __name__ == "__main__":
    sys.exit(main())
