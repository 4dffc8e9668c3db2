"""The linearizability checker: operations a second, beside a plain search in Python and Porcupine.

Histories of one key that one copy lived through, with values that are written once, and 5 or 10
clients at a time; and the same with a wrong read at the end, so that all must be searched. In each
round every contender judges the same histories, in an order that rotates; ratios are of medians.
Times are of the search and of bringing operations into its form, without reading files::

    python benchmarks/checker.py [--rounds 5] [--operations 500] [--porcupine PROGRAM]

The plain search is the tests' oracle (`tests/verify/oracles.py`). Porcupine is a library for Go: if
PROGRAM is given, it is called with a history file of `engine verify`, judges it as a register, and
prints `ok` or `wrong` and the nanoseconds that took.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import machine
from harness import ROOT

from engine.verify.files import lines
from engine.verify.history import Operation
from engine.verify.linearizable import RIGHT, UNDECIDED, Limits, Model, check
from engine.verify.models import MODELS

sys.path.append(str(ROOT / "tests/verify"))
from oracles import lived, plainly

CLIENTS = (5, 10)
HISTORIES = 5
CONFIGURATIONS_MAX = 100_000
"""Of one history; a contender that needs more gave up."""


class Case(NamedTuple):
    """Histories that all contenders judge, and the right verdict."""

    name: str
    model: str
    histories: list[list[Operation]]
    right: bool


Judge = Callable[[list[Operation], str], tuple[bool | None, float]]
"""(verdict, seconds); None: it gave up."""


class Called:
    """A model that the kernel does not know, and calls back."""

    def __init__(self, model: Model) -> None:
        self.initial, self.step = model.initial, model.step


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the checker.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--operations", type=int, default=500, help="of a history")
    parser.add_argument("--porcupine", metavar="PROGRAM", help="judges with Porcupine")
    flags = parser.parse_args()
    contenders = judges(flags.porcupine)
    introduce(flags.porcupine)
    print("| history | contender | operations/s | engine is faster |\n|---|---|---|---|")
    wrong = 0
    for case in cases(flags.operations):
        wrong += measure(case, contenders, flags.rounds)
    return int(wrong > 0)


def introduce(porcupine: str | None) -> None:
    """What the figures were measured on."""
    with tempfile.TemporaryDirectory() as folder:
        found = machine.describe(Path(folder), sys.executable, "/usr/bin:/bin")
    load = ", ".join(f"{one:.2f}" for one in found["load"])  # type: ignore[attr-defined]
    print(f"{found['cpu']}, {found['cores']} cores, load {load}; {found['system']}")
    print(f"{found['python']}, commit {found['commit']}, {found['when']}")
    print(f"Porcupine: {porcupine or 'not installed'}\n")


def cases(count: int) -> list[Case]:
    found = []
    for clients in CLIENTS:
        for model in ("register", "append"):
            histories = [
                lived(random.Random(seed), model, count, clients, 0.0, unique=True)
                for seed in range(HISTORIES)
            ]
            found.append(Case(f"{model}, {clients} clients", model, histories, True))
        spoilt = [with_a_wrong_end(history) for history in found[-2].histories]
        found.append(Case(f"register, {clients} clients, wrong", "register", spoilt, False))
    return found


def with_a_wrong_end(history: list[Operation]) -> list[Operation]:
    end = max(operation.returned or 0 for operation in history)
    return [*history, Operation(0, "read", "k", (), end + 1, end + 2, "nobody wrote this")]


# --- contenders ----------------------------------------------------------------------------------


def judges(porcupine: str | None) -> dict[str, Judge]:
    found: dict[str, Judge] = {"engine": ours, "engine, model called": called, "plain": plain}
    if porcupine:
        found["Porcupine"] = lambda history, model: theirs(porcupine, history, model)
    return found


def ours(history: list[Operation], model: str) -> tuple[bool | None, float]:
    return timed(history, MODELS[model])


def timed(history: list[Operation], model: Model) -> tuple[bool | None, float]:
    begun = time.perf_counter()
    (judged,) = check(history, model, Limits(None, CONFIGURATIONS_MAX))
    took = time.perf_counter() - begun
    return None if judged.verdict == UNDECIDED else judged.verdict == RIGHT, took


def called(history: list[Operation], model: str) -> tuple[bool | None, float]:
    return timed(history, Called(MODELS[model]))


def plain(history: list[Operation], model: str) -> tuple[bool | None, float]:
    begun = time.perf_counter()
    verdict = plainly(history, MODELS[model], CONFIGURATIONS_MAX)
    return verdict, time.perf_counter() - begun


def theirs(program: str, history: list[Operation], model: str) -> tuple[bool, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(lines(history))
        file.flush()
        command = [program, model, file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    verdict, nanoseconds = said.stdout.split()
    return verdict == "ok", int(nanoseconds) / 1e9


# --- rounds --------------------------------------------------------------------------------------


def measure(case: Case, contenders: dict[str, Judge], rounds: int) -> int:
    """Print a row for each contender; how many verdicts were wrong."""
    names, wrong = list(contenders), 0
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            judged = [contenders[name](history, case.model) for history in case.histories]
            verdicts = {verdict for verdict, _ in judged}
            if None in verdicts:
                names.remove(name)
                print(f"| {case.name} | {name} | gave up | |")
            elif verdicts != {case.right}:
                wrong += 1
                print(f"WRONG VERDICT: {name} on {case.name}", file=sys.stderr)
            if turn:  # the first round warms up
                seconds[name].append(sum(took for _, took in judged))
    operations = sum(map(len, case.histories))
    medians = {name: statistics.median(seconds[name]) for name in names}
    for name in names:
        ratio = medians[name] / medians["engine"]
        print(f"| {case.name} | {name} | {operations / medians[name]:,.0f} | {ratio:.1f} × |")
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
