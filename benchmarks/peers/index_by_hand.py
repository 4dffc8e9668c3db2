"""An inverted index by two forked processes and partition files: what one writes without an engine.

It calls the same map, combine and reduce functions as ours, with nothing around them: no other
machine, no checksum, no limit on memory, no retry. Each process maps a contiguous half of the
input, pickles its groups by partition, waits for the others, then reduces its share of the
partitions.

usage: index_by_hand.py WORKERS OUTPUT_FOLDER INPUT...
"""

import os
import pickle
import sys
from collections import defaultdict
from collections.abc import Iterator
from zlib import crc32

from engine.mapreduce.job import Job
from engine.mapreduce.load import load

Split = tuple[str, int, int]
SPLIT_BYTES = 1 << 20


def splits(job: Job, inputs: list[str]) -> list[Split]:
    found = []
    for path in inputs:
        size = os.path.getsize(path)
        step = size if job.records == "files" else SPLIT_BYTES
        found += [(path, at, min(at + step, size)) for at in range(0, size, max(step, 1))]
    return found


def shares(found: list[Split], workers: int) -> list[list[Split]]:
    """Contiguous shares of about the same number of bytes."""
    total = sum(end - start for _, start, end in found)
    taken: list[list[Split]] = [[] for _ in range(workers)]
    before = 0
    for split in found:
        taken[min(before * workers // max(total, 1), workers - 1)].append(split)
        before += split[2] - split[1]
    return taken


def records(job: Job, split: Split) -> Iterator[str]:
    path, start, end = split
    with open(path, "rb") as file:
        if job.records == "files":
            yield file.read().decode("utf-8", "replace")
            return
        if start:
            file.seek(start - 1)
            file.readline()
        if (left := end - file.tell()) > 0:
            text = file.read(left - 1) + file.readline()
            yield from text.decode("utf-8", "replace").removesuffix("\n").split("\n")


def map_share(job: Job, share: list[Split], number: int, workers: int, output: str) -> None:
    groups: defaultdict[str, list[object]] = defaultdict(list)
    for split in share:
        document = os.path.basename(split[0])
        for record in records(job, split):
            for key, value in job.map(document, record):
                groups[key].append(value)
    pieces: list[dict[str, list[object]]] = [{} for _ in range(workers)]
    for key, values in groups.items():
        if job.combine is not None:
            values = [value for _, value in job.combine(key, values)]
        pieces[crc32(key.encode()) % workers][key] = values
    for partition, piece in enumerate(pieces):
        with open(f"{output}/piece-{partition}-{number}", "wb") as file:
            pickle.dump(piece, file, pickle.HIGHEST_PROTOCOL)


def reduce_partition(job: Job, partition: int, workers: int, output: str) -> None:
    groups: defaultdict[str, list[object]] = defaultdict(list)
    for number in range(workers):
        with open(f"{output}/piece-{partition}-{number}", "rb") as file:
            for key, values in pickle.load(file).items():
                groups[key] += values
    with open(f"{output}/mr-out-{partition}", "w", encoding="utf-8") as out:
        for key in sorted(groups):
            for name, value in job.reduce(key, groups[key]):
                out.write(job.line(name, value) + "\n")


def each(workers: int, work: object, *arguments: object) -> None:
    """Run work(number, *arguments) in forked processes; exit with 1 if one fails."""
    assert callable(work)
    children = []
    for number in range(workers):
        child = os.fork()
        if not child:
            work(number, *arguments)
            os._exit(0)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    if any(statuses):
        sys.exit("a child process failed")


def main(count: str, output: str, *inputs: str) -> None:
    job, workers = load("index"), int(count)
    os.makedirs(output, exist_ok=True)
    taken = shares(splits(job, list(inputs)), workers)
    each(workers, lambda number: map_share(job, taken[number], number, workers, output))
    each(workers, lambda number: reduce_partition(job, number, workers, output))


if __name__ == "__main__":
    main(*sys.argv[1:])
