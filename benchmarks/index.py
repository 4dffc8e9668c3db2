"""`engine mr run index` beside a hand-written program with the same map and reduce functions.

The time of a job in Python is spent in the user's functions; what an engine adds around them shows
only beside a program that adds nothing (peers/index_by_hand.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from answers import compare
from contenders import PEERS, parts
from harness import ROOT, Contender, Rounds, compete, engine_command, engine_python
from inputs import Corpus
from report import Table


def answer_plainly(paths: Sequence[Path], right: Path) -> None:
    """The index by one loop over whole files: one dictionary, no splits, no processes."""
    from engine.mapreduce.load import load

    job = load("index")
    groups: defaultdict[str, list[object]] = defaultdict(list)
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = [text] if job.records == "files" else text.removesuffix("\n").split("\n")
        for line in lines:
            for key, value in job.map(path.name, line):
                groups[key].append(value)
    with right.open("w", encoding="utf-8") as out:
        for key in sorted(groups):
            out.writelines(job.line(*pair) + "\n" for pair in job.reduce(key, groups[key]))


class Index:
    """One table for each corpus."""

    def __init__(self, corpora: Sequence[Corpus], work: Path, rounds: Rounds, workers: int) -> None:
        self.corpora = corpora
        self.work = work
        self.rounds = rounds
        self.workers = workers
        self.tables: list[Table] = []

    def right(self, corpus: Corpus) -> Path:
        return self.work / "corpora" / f"{corpus.inputs.right.stem}.index"

    def generate(self) -> None:
        for corpus in self.corpora:
            answer_plainly(corpus.inputs.paths, self.right(corpus))

    def execute(self) -> None:
        for corpus in self.corpora:
            taking = [self.by_hand(corpus), self.ours(corpus)]
            rows = compete(taking, corpus.inputs.paths, corpus.bytes, self.work, self.rounds)
            title = f"index, {corpus.name}"
            self.tables.append(Table("index", title, corpus.about, tuple(rows)))

    def by_hand(self, corpus: Corpus) -> Contender:
        return Contender(
            name=f"hand-written, {self.workers} processes",
            kind="limit",
            workers=self.workers,
            command=lambda folder: [
                *engine_python(),
                str(PEERS / "index_by_hand.py"),
                str(self.workers),
                str(folder / "out"),
                *map(str, corpus.inputs.paths),
            ],
            check=lambda folder: compare(parts(folder / "out"), self.right(corpus)),
            extra={"PYTHONPATH": str(ROOT)},
        )

    def ours(self, corpus: Corpus) -> Contender:
        return Contender(
            name=f"engine, {self.workers} workers",
            kind="engine",
            workers=self.workers,
            command=lambda folder: [
                *engine_command(),
                *("mr", "run", "index", *map(str, corpus.inputs.paths)),
                *("--out", str(folder / "out"), "--workers", str(self.workers)),
                *("--on", "local", "--json"),
            ],
            check=lambda folder: compare(parts(folder / "out"), self.right(corpus)),
        )
