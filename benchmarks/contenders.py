"""Who takes part: the floor, the limits, ours, and the peers that this machine has.

Every one gets WORKERS, OUTPUT and the inputs, counts words of Unicode letters (the shell's own
tools: of ASCII letters) and writes sorted `word count` lines. A peer that cannot run here is named
with the reason, never left out silently.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from answers import compare
from harness import HERE, Contender, engine_command, environment
from machine import isa_levels

PEERS = HERE / "peers"
AVX2 = ("-mavx2", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt")
ISA_FLAGS = {
    "portable": (),
    "sse2": ("-msse4.2", "-mpopcnt"),  # what wc_limit.c needs at least
    "sse4.2": ("-msse4.2", "-mpopcnt"),
    "avx2": AVX2,
    "avx512": (*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "vl", "vbmi", "vbmi2"))),
}
"""Compiler flags that give a limit the instruction set our kernel picks at run time."""


class Peer(NamedTuple):
    """A peer's program and what it needs. `module` is imported by its interpreter, if not ""."""

    name: str
    source: str
    module: str = ""
    program: str = ""
    workers: int = 0
    """0: as many as asked for."""
    note: str = ""
    quick: bool = False
    """Light enough for `--quick`."""


ALL = (
    Peer("Python, one process", "python_single.py", workers=1, quick=True),
    Peer("multiprocessing.Pool", "python_pool.py", quick=True),
    Peer("DuckDB", "duckdb_sql.py", "duckdb", quick=True),
    Peer("Polars", "polars_lazy.py", "polars", quick=True),
    Peer("Dask bag", "dask_bag.py", "dask.bag"),
    Peer("PySpark", "pyspark_frame.py", "pyspark", "java"),
    Peer("mrjob inline", "mrjob_local.py", "mrjob.job", workers=1, note="sorted within a reducer"),
    Peer("mrjob local", "mrjob_local.py", "mrjob.job", note="sorted within a reducer"),
    Peer("tr | sort | uniq", "tr_sort_uniq.sh", program="tr", note="ASCII words", quick=True),
    Peer("tr | mawk", "tr_mawk.sh", program="mawk", workers=1, note="ASCII words", quick=True),
    Peer("Rust, std", "wordcount.rs", program="rustc", quick=True),
    Peer("Go", "wordcount.go", program="go", quick=True),
)


class Inputs(NamedTuple):
    """What a contender is given, and the right answer for it."""

    paths: tuple[Path, ...]
    right: Path


class Build(NamedTuple):
    """How programs are built and found: the peers' interpreter and the folder for binaries."""

    python: str
    folder: Path
    path: str
    """PATH to find programs on."""


Missing = dict[str, str]
"""Contender -> why it does not take part."""


# --- peers ---------------------------------------------------------------------------------------


def peer(which: Peer, workers: int, inputs: Inputs, build: Build) -> Contender | str:
    """The contender, or why there is none."""
    program = start_of(which, build)
    if isinstance(program, str):
        return program
    count = which.workers or workers
    return Contender(
        name=which.name,
        kind="peer",
        workers=count,
        command=lambda folder: [
            *program,
            str(count),
            str(folder / "answer"),
            *map(str, inputs.paths),
        ],
        check=lambda folder: compare([folder / "answer"], inputs.right),
        extra={"PYSPARK_PYTHON": build.python} if which.module == "pyspark" else {},
        note=which.note,
    )


def start_of(which: Peer, build: Build) -> list[str] | str:
    """First words of the command, or one sentence about what is missing."""
    if which.program and not shutil.which(which.program, path=build.path):
        return f"no `{which.program}` on this machine"
    source = PEERS / which.source
    match source.suffix:
        case ".py":
            if which.module and not importable(build.python, which.module):
                return f"`{which.module.split('.')[0]}` is not installed (extra `peers`)"
            return [build.python, str(source)]
        case ".sh":
            return ["/bin/sh", str(source)]
        case ".rs":
            return compiled(build, source, ["rustc", "-C", "opt-level=3", "-o"])
        case _:
            return compiled(build, source, ["go", "build", "-o"])


def importable(python: str, module: str) -> bool:
    command = [python, "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, env=environment(), check=False)
    return done.returncode == 0


def compiled(build: Build, source: Path, compiler: Sequence[str]) -> list[str] | str:
    """Build `source` unless a newer binary is there."""
    binary = build.folder / f"{source.stem}-{source.suffix[1:]}"
    newer = binary.exists() and binary.stat().st_mtime > source.stat().st_mtime
    if not newer:
        problem = run_compiler([*compiler, str(binary), str(source)], build)
        if problem:
            return problem
    return [str(binary)]


def run_compiler(command: Sequence[str], build: Build) -> str:
    """ "", or what the compiler said."""
    build.folder.mkdir(parents=True, exist_ok=True)
    extra = {"PATH": build.path, "GO111MODULE": "off"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(extra), check=False
    )
    if done.returncode == 0:
        return ""
    said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
    return f"`{command[0]}` failed: {said[0][:200]}"


# --- limits --------------------------------------------------------------------------------------


def isa_flags() -> tuple[str, ...]:
    """Flags for the best instruction set that our kernel uses here."""
    levels = isa_levels()
    return ISA_FLAGS.get(levels[-1], ("-march=native",)) if levels else ("-march=native",)


def cat(inputs: Inputs) -> Contender:
    return Contender(
        name="cat > /dev/null",
        kind="floor",
        workers=1,
        command=lambda folder: [
            "/bin/sh",
            str(PEERS / "cat.sh"),
            "1",
            str(folder / "answer"),
            *map(str, inputs.paths),
        ],
    )


def kernel_limit(workers: int, inputs: Inputs, build: Build) -> Contender | str:
    """A C `main` over the kernel's own headers: no Python, no messages, no run files."""
    source, headers = HERE / "limit.c", HERE.parent / "ext"
    flags = ["-O3", "-fno-strict-aliasing", f"-I{headers}"]
    binary = build.folder / "limit"
    problem = run_compiler(["cc", *flags, "-o", str(binary), str(source)], build)
    if problem:
        return problem
    return Contender(
        name=f"limit: kernel in C, {workers}p",
        kind="limit",
        workers=workers,
        command=lambda folder: [
            str(binary),
            str(workers),
            str(folder / "answer"),
            *map(str, inputs.paths),
        ],
        check=lambda folder: compare(sorted(folder.glob("answer-*")), inputs.right),
    )


def given_limit(source: Path, workers: int, inputs: Inputs, build: Build) -> Contender | str:
    """`wc_limit.c`, built for the instruction set that our kernel uses here."""
    binary = build.folder / source.stem
    flags = ["-O3", *isa_flags(), "-DBATCH=64", "-pthread"]
    problem = run_compiler(["cc", *flags, "-o", str(binary), str(source)], build)
    if problem:
        return problem
    return Contender(
        name=f"limit: {source.stem}, {workers}p",
        kind="limit",
        workers=workers,
        command=lambda folder: [
            str(binary),
            *("-q", "-p", str(workers), "-o", str(folder / "answer")),
            *map(str, inputs.paths),
        ],
        check=lambda folder: compare([folder / "answer"], inputs.right),
        note=" ".join(flags[1:-2]),
    )


# --- ours ----------------------------------------------------------------------------------------


def engine(
    workers: int, inputs: Inputs, memory: int = 0, flags: Sequence[str] = (), name: str = ""
) -> Contender:
    """`engine mr run wordcount`; `memory` in MB a worker, 0 for the default."""
    budget = ["--memory", str(memory)] if memory else []
    return Contender(
        name=name or f"engine, {workers} workers" + (f", {memory} MB" if memory else ""),
        kind="engine",
        workers=workers,
        command=lambda folder: [
            *engine_command(),
            *("mr", "run", "wordcount", *map(str, inputs.paths)),
            *("--out", str(folder / "out"), "--workers", str(workers), "--on", "local"),
            *("--json", *budget, *flags),
        ],
        check=lambda folder: compare(parts(folder / "out"), inputs.right),
    )


def parts(folder: Path) -> list[Path]:
    """The output's parts, in order."""
    return sorted(folder.glob("mr-out-*"), key=lambda part: int(part.name.rsplit("-", 1)[1]))


# --- all of them ---------------------------------------------------------------------------------

Offer = tuple[str, Callable[[], Contender | str]]


def choose(offers: Sequence[Offer], only: Sequence[str]) -> tuple[list[Contender], Missing]:
    """Those that can run and whose name holds one of `only`, and why the others cannot."""
    taking: list[Contender] = []
    missing: Missing = {}
    for name, make in offers:
        if only and not any(word.lower() in name.lower() for word in only):
            continue
        made = make()
        if isinstance(made, str):
            missing[name] = made
        else:
            taking.append(made)
    return taking, missing


def peer_offers(workers: int, inputs: Inputs, build: Build, quick: bool) -> list[Offer]:
    return [
        (which.name, partial(peer, which, workers, inputs, build))
        for which in ALL
        if which.quick or not quick
    ]


def limit_offers(workers: int, inputs: Inputs, build: Build, given: Path | None) -> list[Offer]:
    offers: list[Offer] = [
        ("limit: kernel in C", lambda: kernel_limit(workers, inputs, build)),
    ]
    if given:
        source = given
        offers.append(
            (f"limit: {source.stem}", lambda: given_limit(source, workers, inputs, build))
        )
    return offers
