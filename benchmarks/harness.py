"""Measure whole processes, side by side, in one interleaved run.

Figures of different hours do not compare, nor do figures of different machines: what counts is the
ratio of two medians that were measured in turns. So a run has *rounds*, and in each round every
contender has one turn, in an order that rotates, so that none always follows the heaviest. Before
the rounds each contender runs once, uncounted: it warms byte code and page cache, and it alone is
sampled for the memory of its process tree, because sampling takes CPU from what is being measured.

Every workload has the same four steps, and the last looks at every answer of every turn:
`prepare` (build programs, warm caches), `generate` (inputs and right answers), `execute`, `verify`.

What is measured, of the command as a shell would start it:

* wall: from before spawn to after the exit of the command;
* CPU: user + system of all its processes, orphans included;
* peak RSS of the largest process: exact, from the kernel;
* peak RSS of the tree: sampled, shared pages counted once for each process;
* foreign: cores that others used meanwhile. Turns above 0.2 are dropped from the medians if at
  least half of the turns were quiet; else all are kept and the row is marked.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SAMPLE_SECONDS = 0.01
FOREIGN_MAX = 0.2
FOREIGN_WALL_MIN = 0.25
"""Seconds below which the kernel's 10 ms ticks say nothing about others."""
KEPT = ("HOME", "LOGNAME", "USER", "TMPDIR", "JAVA_HOME", "SHELL")


class Turn(NamedTuple):
    """One run of one command. Seconds and bytes."""

    wall: float
    user: float
    system: float
    largest: int
    tree: int
    """0 if it was not sampled."""
    foreign: float | None
    code: int
    timed_out: bool
    left_behind: int

    @property
    def cpu(self) -> float:
        return self.user + self.system


class Row(NamedTuple):
    """A contender's turns on one workload, its first (sampled, uncounted) run apart."""

    name: str
    kind: str
    workers: int
    bytes: int
    first: Turn
    turns: tuple[Turn, ...]
    answer: str
    """"equal", "n/a", or in what it differs."""
    note: str = ""

    @property
    def counted(self) -> tuple[Turn, ...]:
        """The turns that the median is taken of; the first run if there is nothing else."""
        turns = self.turns or (self.first,)
        quiet = tuple(turn for turn in turns if (turn.foreign or 0) <= FOREIGN_MAX)
        return quiet if 2 * len(quiet) >= len(turns) else turns

    @property
    def wall(self) -> float:
        return statistics.median(turn.wall for turn in self.counted)

    @property
    def cpu(self) -> float:
        return statistics.median(turn.cpu for turn in self.counted)

    @property
    def foreign(self) -> float | None:
        known = [turn.foreign for turn in self.counted if turn.foreign is not None]
        return statistics.median(known) if known else None

    @property
    def largest(self) -> int:
        return max(turn.largest for turn in (self.first, *self.turns))

    @property
    def tree(self) -> int:
        return max(self.first.tree, self.largest)

    @property
    def failed(self) -> bool:
        return any(turn.code for turn in (self.first, *self.turns))


class Workload(Protocol):
    """What every benchmark implements, in the order of the calls."""

    def prepare(self) -> None: ...
    def generate(self) -> None: ...
    def execute(self) -> None: ...
    def verify(self) -> list[str]:
        """One sentence for each wrong answer of ours."""


def drive(workload: Workload) -> int:
    """Run the four steps: the exit code."""
    workload.prepare()
    workload.generate()
    workload.execute()
    wrong = workload.verify()
    for sentence in wrong:
        print(f"WRONG ANSWER: {sentence}", file=sys.stderr)
    return 1 if wrong else 0


# --- the environment -----------------------------------------------------------------------------


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a fresh login shell has: no PYTHON* switches, no pyenv shims, one locale."""
    path = [
        folder
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
        if "shims" not in folder
    ]
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, "PATH": os.pathsep.join(path), "LANG": "C.UTF-8", **(extra or {})}


def engine_command() -> list[str]:
    """The console script beside this interpreter, as a user's shell finds it."""
    script = Path(sys.executable).parent / "engine"
    return [str(script)] if script.exists() else [sys.executable, "-m", "engine_cmd.main"]


def engine_python() -> list[str]:
    """The interpreter that ours runs on."""
    return [sys.executable]


def warm_bytecode() -> None:
    """Compile every module of ours once, so that no turn pays for it."""
    folders = [str(ROOT / "engine"), str(ROOT / "cmd")]
    command = [sys.executable, "-m", "compileall", "-q", *folders]
    subprocess.run(command, check=False, env=environment(), cwd=ROOT)


def read_all(paths: Iterable[str | Path]) -> None:
    """Bring files into the page cache; between turns they may have left it."""
    block = bytearray(1 << 20)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(block):
                pass


def evict(paths: Iterable[str | Path]) -> bool:
    """Ask the kernel to drop files from the page cache; False where it cannot be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)  # only clean pages can be dropped
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
    return True


# --- one turn ------------------------------------------------------------------------------------


class Sampler:
    """Peak of the sum of RSS over a process tree, and each process's own peak."""

    def __init__(self, root: int) -> None:
        self.root = psutil.Process(root)
        self.peak = 0

    def sample(self) -> None:
        try:
            tree = self.root.children(recursive=True)
        except psutil.NoSuchProcess:
            return
        total = 0
        for process in tree:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue  # it ended between the two looks
        self.peak = max(self.peak, total)


def busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def measure(
    command: Sequence[str],
    *,
    folder: Path,
    timeout: float,
    sampled: bool = False,
    extra: Mapping[str, str] | None = None,
    watch: Callable[[psutil.Process], None] | None = None,
) -> Turn:
    """Run `command` to its end; its output is left in `folder`/stdout and `folder`/stderr.

    `watch` is called over and over with the launcher's process while the command runs.
    """
    launcher = [sys.executable, "-I", "-S", str(HERE / "launch.py"), str(timeout)]
    streams = [str(folder / "stdout"), str(folder / "stderr")]
    before, begin = busy_seconds(), time.monotonic()
    with subprocess.Popen(
        [*launcher, *streams, *command], stdout=subprocess.PIPE, env=environment(extra), text=True
    ) as process:
        peak = observe(process, sampled, watch)
        assert process.stdout is not None
        text = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"Could not start {command[0]!r}: see the message above.")
    cost = json.loads(text)
    elapsed = time.monotonic() - begin
    busy = busy_seconds() - before - cost["user"] - cost["system"]
    known = cost["wall"] >= FOREIGN_WALL_MIN and not sampled
    return Turn(
        wall=cost["wall"],
        user=cost["user"],
        system=cost["system"],
        largest=cost["largest"],
        tree=peak,
        foreign=max(0.0, busy / elapsed) if known else None,
        code=cost["code"],
        timed_out=cost["timed_out"],
        left_behind=cost["left_behind"],
    )


def observe(
    process: subprocess.Popen[str],
    sampled: bool,
    watch: Callable[[psutil.Process], None] | None,
) -> int:
    """Wait for the launcher, looking at its tree meanwhile if asked to: the tree's peak RSS."""
    if watch is not None:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            watch(root)
        return 0
    if not sampled:
        process.wait()
        return 0
    sampler = Sampler(process.pid)
    while True:
        try:
            process.wait(SAMPLE_SECONDS)
            return sampler.peak
        except subprocess.TimeoutExpired:
            sampler.sample()


def tail(path: Path, lines: int = 3) -> str:
    """The last lines of a stream, for a message."""
    text = path.read_text(errors="replace").strip() if path.exists() else ""
    return " / ".join(text.splitlines()[-lines:])[-400:]


# --- rounds --------------------------------------------------------------------------------------


class Contender(NamedTuple):
    """Something that takes part. `command(folder)` writes its answer below `folder`."""

    name: str
    kind: str
    """"floor", "limit", "engine" or "peer"."""
    workers: int
    command: Callable[[Path], list[str]]
    check: Callable[[Path], str] | None = None
    """Compares the answer left in the folder: "equal" or in what it differs."""
    extra: Mapping[str, str] = MappingProxyType({})
    """More environment."""
    note: str = ""
    watch: Callable[[psutil.Process], None] | None = None


class Rounds(NamedTuple):
    """How long to measure."""

    number: int
    timeout: float = 300.0
    patience: float = 60.0
    """Seconds a contender may take for all its turns; slower ones get fewer, at worst only the
    first run counts."""


def compete(
    contenders: Sequence[Contender],
    inputs: Sequence[Path],
    size: int,
    work: Path,
    rounds: Rounds,
    cold: bool = False,
) -> list[Row]:
    """All contenders in turns over the same inputs: a row each, in the order given."""
    first = {}
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
    answers: dict[str, str] = {}
    for contender in contenders:
        progress(f"{contender.name}: first run")
        read_all(inputs)
        first[contender.name] = one_turn(contender, work, rounds, answers, sampled=True)
    for turn in range(rounds.number):
        shift = turn % len(contenders)
        for contender in [*contenders[shift:], *contenders[:shift]]:
            if turn >= allowed(first[contender.name], rounds):
                continue
            progress(f"round {turn + 1}/{rounds.number}: {contender.name}")
            evict(inputs) if cold else read_all(inputs)
            turns[contender.name].append(one_turn(contender, work, rounds, answers))
    progress("")
    return [row(contender, size, first, turns, answers) for contender in contenders]


def allowed(first: Turn, rounds: Rounds) -> int:
    """Rounds that a contender may take part in, after what its first run took."""
    if first.code or first.timed_out:
        return 0
    return min(rounds.number, int(rounds.patience / max(first.wall, 1e-3)))


def one_turn(
    contender: Contender,
    work: Path,
    rounds: Rounds,
    answers: dict[str, str],
    sampled: bool = False,
) -> Turn:
    folder = work / "turn"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    turn = measure(
        contender.command(folder),
        folder=folder,
        timeout=rounds.timeout,
        sampled=sampled and contender.watch is None,
        extra=contender.extra,
        watch=contender.watch,
    )
    answer = judge(contender, folder, turn)
    if answers.get(contender.name, "equal") in ("equal", "n/a"):
        answers[contender.name] = answer  # the first wrong one stays
    shutil.rmtree(folder)
    return turn


def judge(contender: Contender, folder: Path, turn: Turn) -> str:
    if turn.timed_out:
        return f"stopped after {turn.wall:.0f} s"
    if turn.code:
        return f"failed with {turn.code}: {tail(folder / 'stderr') or tail(folder / 'stdout')}"
    return contender.check(folder) if contender.check else "n/a"


def row(
    contender: Contender,
    size: int,
    first: dict[str, Turn],
    turns: dict[str, list[Turn]],
    answers: dict[str, str],
) -> Row:
    return Row(
        name=contender.name,
        kind=contender.kind,
        workers=contender.workers,
        bytes=size,
        first=first[contender.name],
        turns=tuple(turns[contender.name]),
        answer=answers[contender.name],
        note=contender.note,
    )


def progress(text: str) -> None:
    """One line that overwrites itself; only for people."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
