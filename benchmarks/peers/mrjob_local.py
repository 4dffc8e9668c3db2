"""mrjob: the same job under its inline (one worker) or its local runner.

Lines come out sorted within a reducer, not across reducers; the harness sorts before comparing.
"""

import re
import sys
from collections.abc import Iterable, Iterator

from mrjob.job import MRJob
from mrjob.protocol import RawValueProtocol

WORD = re.compile(r"[^\W\d_]+")


class WordCount(MRJob):
    OUTPUT_PROTOCOL = RawValueProtocol

    def mapper(self, _: None, line: str) -> Iterator[tuple[str, int]]:
        for word in WORD.findall(line):
            yield word, 1

    def combiner(self, word: str, counts: Iterable[int]) -> Iterator[tuple[str, int]]:
        yield word, sum(counts)

    def reducer(self, word: str, counts: Iterable[int]) -> Iterator[tuple[None, str]]:
        yield None, f"{word} {sum(counts)}"


def main(workers: str, output: str, *inputs: str) -> None:
    runner = "inline" if workers == "1" else "local"
    cores = ["--num-cores", workers] if runner == "local" else []
    job = WordCount(["--runner", runner, "--no-conf", "--quiet", *cores, *inputs])
    with open(output, "wb") as out, job.make_runner() as run:
        run.run()
        out.writelines(run.cat_output())


if __name__ == "__main__":
    # mrjob starts this file again as its tasks, with flags of its own.
    if len(sys.argv) > 3 and not sys.argv[1].startswith("-"):
        main(*sys.argv[1:])
    else:
        WordCount.run()
