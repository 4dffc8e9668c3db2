"""Word count beside its peers and its limits: `python benchmarks/wordcount.py --help`.

The same corpora for everybody, in interleaved rounds, whole processes as a shell starts them, and
every answer of every turn compared with the exact one. Parts, in the order they run:

* start: how long our command line, and bare Python beneath it, take to start;
* words: 8 books, 15 MB and `--size` of natural text, `--size` with very many distinct words;
* scaling: ours and the limits with 1, 2, 4 … workers;
* cold: ours beside `cat`, with the inputs evicted from the page cache before each turn;
* faults (faults.py): a worker killed at half of the bytes;
* index (index.py): an inverted index beside two hand-written processes with the same functions.

Exit code 1 if an answer of ours was wrong; a missed goal is only reported.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import contenders
import faults
import index
import inputs
import machine
import psutil
import report
from contenders import Build, Inputs, Offer
from goals import judge
from harness import (
    HERE,
    Contender,
    Rounds,
    Row,
    compete,
    drive,
    engine_command,
    environment,
    warm_bytecode,
)
from inputs import Corpus, parse_size

PARTS = ("start", "words", "scaling", "cold", "faults", "index")
QUICK_PARTS = ("start", "words", "faults", "index")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--size", default="1G", help="of the large corpora (default %(default)s)")
    add("--rounds", type=int, default=5, help="interleaved rounds (default %(default)s)")
    add("--workers", type=int, default=2, help="processes or threads each (default %(default)s)")
    add("--only", default="", help="contenders whose name holds one of these, by comma")
    add("--parts", default="", help=f"of {','.join(PARTS)}, by comma (default: all)")
    add("--quick", action="store_true", help="small corpora and quick peers: under a minute")
    add("--limit-source", type=Path, metavar="FILE", help="wc_limit.c, to build and run beside us")
    add("--texts", type=Path, metavar="DIR", help="real books for the small corpora")
    add("--peers-python", default=sys.executable, metavar="PATH", help="where peers are installed")
    add("--peer-path", default="", metavar="DIRS", help="more folders for compilers and tools")
    add("--patience", type=float, default=60, help="seconds a slow contender gets a corpus")
    add("--timeout", type=float, default=300, help="seconds one turn may take")
    add("--json", type=Path, metavar="FILE", help="write every turn (default WORK/results.json)")
    add("--plot", type=Path, metavar="FILE", help="write a plot (default WORK/results.png)")
    add("--work", type=Path, default=HERE / "out", metavar="DIR", help="default %(default)s")
    flags = parser.parse_args(arguments)
    flags.only = [word.strip() for word in flags.only.split(",") if word.strip()]
    wanted = flags.parts or ",".join(QUICK_PARTS if flags.quick else PARTS)
    flags.parts = wanted.split(",")
    if unknown := set(flags.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    if flags.quick:
        flags.size, flags.rounds, flags.patience = "16M", min(flags.rounds, 3), 2.0
    return flags


def unchanged(command: list[str], _folder: Path) -> list[str]:
    """The command of a contender that writes nothing."""
    return command


def predict(seen: Sequence[tuple[int, float]], size: int) -> float:
    """Seconds for `size` bytes, on a line through the last two sizes: most peers start slowly."""
    if len(seen) < 2 or seen[-1][0] <= seen[-2][0]:
        return seen[-1][1] if seen else 0.0
    (small, little), (large, much) = seen[-2:]
    return much + max(0.0, (size - large) * (much - little) / (large - small))


class WordCount:
    """The benchmark, in the four steps of `harness.Workload`."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        self.work: Path = flags.work.resolve()
        self.rounds = Rounds(flags.rounds, flags.timeout, flags.patience)
        path = os.pathsep.join(filter(None, [flags.peer_path, environment()["PATH"]]))
        self.build = Build(flags.peers_python, self.work / "build", path)
        self.machine: dict[str, object] = {}
        self.corpora: list[Corpus] = []
        self.tables: list[report.Table] = []
        self.missing: contenders.Missing = {}
        self.seen: dict[str, list[tuple[int, float]]] = {}
        """Contender -> (bytes, seconds) of the corpora so far."""

    def prepare(self) -> None:
        if not importlib.util.find_spec("engine"):
            sys.exit(f"engine is not installed for {sys.executable}: run `make bench`.")
        self.work.mkdir(parents=True, exist_ok=True)
        warm_bytecode()
        self.machine = machine.describe(self.work, self.flags.peers_python, self.build.path)
        print(report.machine_lines(self.machine), end="\n\n", flush=True)

    def generate(self) -> None:
        flags, folder = self.flags, self.work / "corpora"
        size = parse_size(flags.size)
        if flags.texts:
            self.corpora.append(inputs.books(flags.texts, folder, 8))
        else:
            self.corpora.append(inputs.generated(folder, "books", 3_300_000, files=8))
        self.corpora.append(inputs.generated(folder, "small", 15_000_000, files=26))
        self.corpora.append(inputs.generated(folder, "natural", size))
        self.corpora.append(inputs.generated(folder, "cardinal", size))

    @property
    def large(self) -> Corpus:
        """The large natural corpus."""
        return next(corpus for corpus in self.corpora if corpus.kind == "natural")

    def execute(self) -> None:
        for part in PARTS:
            if part in self.flags.parts:
                getattr(self, part)()

    def verify(self) -> list[str]:
        return [
            f"{row.name} on {table.title}: {row.answer}"
            for table in self.tables
            for row in table.rows
            if row.kind == "engine" and row.answer not in ("equal", "n/a")
        ]

    def results(self) -> report.Results:
        return report.Results(self.machine, tuple(self.tables), judge(self.tables), self.missing)

    # --- parts ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Bare start-up: the floor under every small job."""
        commands = {
            "engine --version": [*engine_command(), "--version"],
            "python -c pass": [sys.executable, "-c", "pass"],
            "python -I -S -c pass": [sys.executable, "-I", "-S", "-c", "pass"],
            "python -c 'import zmq'": [sys.executable, "-c", "import zmq"],
        }
        taking = [
            Contender(
                name=name,
                kind="engine" if name.startswith("engine") else "floor",
                workers=1,
                command=partial(unchanged, command),
            )
            for name, command in commands.items()
        ]
        rounds = self.rounds._replace(number=max(9, self.rounds.number))
        rows = compete(taking, [], 0, self.work, rounds)
        self.add("start", "start", "Nothing but starting and ending.", rows)

    def words(self) -> None:
        for corpus in self.corpora:
            taking = self.entrants(corpus)
            if taking:
                rows = self.compete(taking, corpus)
                self.add(corpus.kind, corpus.name, corpus.about, rows)
                for row in rows:
                    self.seen.setdefault(row.name, []).append((row.bytes, row.wall))

    def entrants(self, corpus: Corpus) -> list[Contender]:
        """Everybody who can take part on this corpus in the time there is."""
        offers = [
            ("cat", lambda: contenders.cat(corpus.inputs)),
            *self.limits(self.flags.workers, corpus.inputs),
            *self.ours(corpus),
            *contenders.peer_offers(
                self.flags.workers, corpus.inputs, self.build, self.flags.quick
            ),
        ]
        taking, missing = contenders.choose(offers, self.flags.only)
        self.missing |= missing
        return [who for who in taking if self.in_time(who, corpus)]

    def limits(self, workers: int, given: Inputs) -> list[Offer]:
        return contenders.limit_offers(workers, given, self.build, self.flags.limit_source)

    def ours(self, corpus: Corpus) -> list[Offer]:
        """Our command with two workers; with less and less memory where memory matters."""
        workers = self.flags.workers
        budgets = (512, 64, 16) if corpus.kind == "cardinal" else (0,)
        return [
            ("engine", partial(contenders.engine, workers, corpus.inputs, memory))
            for memory in budgets
        ]

    def in_time(self, who: Contender, corpus: Corpus) -> bool:
        """Whether one turn would end before the timeout, by what was seen on smaller corpora."""
        seen = self.seen.get(who.name, [])
        seconds = predict(seen, corpus.bytes)
        if seconds <= self.flags.timeout:
            return True
        self.missing[f"{who.name} on {corpus.name}"] = f"would take about {seconds:.0f} s"
        return False

    def scaling(self) -> None:
        """Ours and the limits on the large text, with more and more workers."""
        corpus, cores = self.large, os.cpu_count() or 1
        counts = sorted({1, 2, 4, cores, *(2**n for n in range(3, 12) if 2**n <= cores)})
        offers: list[Offer] = []
        for workers in counts:
            offers += self.limits(workers, corpus.inputs)
            offers.append(("engine", partial(contenders.engine, workers, corpus.inputs)))
        taking, _ = contenders.choose(offers, self.flags.only)
        if taking:
            about = f"{corpus.about}; {cores} cores."
            self.add("scaling", f"scaling, {corpus.name}", about, self.compete(taking, corpus))

    def cold(self) -> None:
        """Reading from disk is then most of the work, so `cat` is the limit."""
        corpus = self.large
        taking = [
            contenders.cat(corpus.inputs),
            contenders.engine(self.flags.workers, corpus.inputs),
        ]
        rows = self.compete(taking, corpus, cold=True)
        self.add("cold", f"cold, {corpus.name}", "Inputs evicted before every turn.", rows)

    def faults(self) -> None:
        if not hasattr(psutil.Process, "io_counters"):
            self.missing["faults"] = "this system does not tell what a process has read"
            return
        for corpus in self.corpora[2:]:
            part = faults.Faults(corpus, self.work, self.rounds)
            part.execute()
            self.show(part.table())

    def index(self) -> None:
        part = index.Index(self.corpora[:2], self.work, self.rounds, self.flags.workers)
        part.generate()
        part.execute()
        for table in part.tables:
            self.show(table)

    # --- helpers -------------------------------------------------------------------------------

    def compete(self, taking: Sequence[Contender], corpus: Corpus, cold: bool = False) -> list[Row]:
        return compete(taking, corpus.inputs.paths, corpus.bytes, self.work, self.rounds, cold)

    def add(self, kind: str, title: str, about: str, rows: Sequence[Row]) -> None:
        self.show(report.Table(kind, title, about, tuple(rows)))

    def show(self, table: report.Table) -> None:
        """Print and save at once: a run that is interrupted has not been in vain."""
        self.tables.append(table)
        print(report.table_lines(table), end="\n\n", flush=True)
        path = self.flags.json or self.work / "results.json"
        path.write_text(report.as_json(self.results()))


def main() -> int:
    flags = parse()
    workload = WordCount(flags)
    code = drive(workload)
    results = workload.results()
    print(report.goal_lines(results.goals), report.missing_lines(results.missing), sep="\n\n")
    problem = report.plot(results, flags.plot or workload.work / "results.png")
    if problem:
        print(problem, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
