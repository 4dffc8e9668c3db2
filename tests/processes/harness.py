"""Start the real command line, find its processes, kill them, wait on conditions with deadlines."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from support import patience
from waiting import eventually as until

__all__ = ["until"]
APPS = Path(__file__).parent / "apps"
BOOKS = (
    "pg-being_ernest",
    "pg-dorian_gray",
    "pg-frankenstein",
    "pg-grimm",
    "pg-huckleberry_finn",
    "pg-metamorphosis",
    "pg-sherlock_holmes",
    "pg-tom_sawyer",
)
"""The labs' eight file names; the labs' apps look at them."""


class Program:
    """A running `engine …`, its output going to files so that no pipe can fill."""

    def __init__(self, *arguments: object, folder: Path, code: str | None = None) -> None:
        self.arguments = [str(argument) for argument in arguments]
        number = len(list(folder.glob("program-*.out")))
        self.out = folder / f"program-{number}.out"
        self.err = folder / f"program-{number}.err"
        start = ["-c", code] if code else ["-m", "engine_cmd.main"]
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *start, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float = 60) -> int:
        return self.process.wait(patience(seconds))

    def stdout(self) -> str:
        return self.out.read_text()

    def stderr(self) -> str:
        return self.err.read_text()

    def json(self) -> Any:
        return json.loads(self.stdout())

    def succeed(self, seconds: float = 60) -> Program:
        code = self.wait(seconds)
        assert code == 0, f"exit {code}: {self.stdout()}\n{self.stderr()}"
        return self

    def workers(self) -> list[psutil.Process]:
        """Worker processes that are alive, oldest first."""
        found = []
        for process in self.family():
            try:
                if "engine: worker" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return sorted(found, key=lambda process: process.pid)

    def family(self) -> list[psutil.Process]:
        try:
            return [
                process
                for process in psutil.Process(self.pid).children(recursive=True)
                if process.status() != psutil.STATUS_ZOMBIE
            ]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)


@contextmanager
def programs(folder: Path) -> Iterator[Callable[..., Program]]:
    """A starter of programs, all of which are gone afterwards, children included."""
    started: list[Program] = []

    def start(*arguments: object, code: str | None = None) -> Program:
        program = Program(*arguments, folder=folder, code=code)
        started.append(program)
        return program

    try:
        yield start
    finally:
        families = [child for program in started for child in program.family()]
        for program in started:
            if program.running:
                program.kill()
        gone, alive = psutil.wait_procs(families, timeout=patience(5))
        for process in alive:
            process.kill()
        assert not alive, f"left behind: {alive}"
        del gone


def write_books(folder: Path, size: int = 60_000, seed: int = 1) -> list[Path]:
    """Eight texts under the labs' names: words of a small vocabulary, some letters beyond ASCII."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGéüßЖяλ"
    words = ["".join(rng.choices(letters, k=rng.randint(1, 11))) for _ in range(3000)]
    weights = [1 / (rank + 2.7) for rank in range(len(words))]
    paths = []
    for name in BOOKS:
        lines = []
        total = 0
        while total < size:
            line = " ".join(rng.choices(words, weights, k=rng.randint(3, 14)))
            lines.append(line + rng.choice(["", ".", ",", "!", "'s", " 1881"]))
            total += len(line.encode()) + 1
        path = folder / f"{name}.txt"
        path.write_text("\n".join(lines) + "\n")
        paths.append(path)
    return paths


def merged(out: Path) -> list[bytes]:
    """All lines of an output directory, sorted: what the labs compare."""
    lines = [
        line for path in out.glob("mr-out-*") for line in path.read_bytes().split(b"\n") if line
    ]
    return sorted(lines)


def digest(out: Path) -> dict[str, bytes]:
    """Every output file's bytes, and the manifest's."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}
