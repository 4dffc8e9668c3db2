"""multiprocessing.Pool over byte ranges that end at line ends, merged in the parent."""

import os
import re
import sys
from collections import Counter
from multiprocessing import Pool

WORD = re.compile(r"[^\W\d_]+")
SPLIT_BYTES = 8 << 20
BLOCK_BYTES = 1 << 20

Split = tuple[str, int, int]


def count(split: Split) -> Counter[str]:
    """Words of the lines that begin in bytes [start, end)."""
    path, start, end = split
    counts: Counter[str] = Counter()
    with open(path, "rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()
        while (left := end - file.tell()) > 0:
            lines = file.read(min(BLOCK_BYTES, left - 1)) + file.readline()
            if not lines:
                break
            counts.update(WORD.findall(lines.decode("utf-8", "replace")))
    return counts


def splits(inputs: tuple[str, ...], workers: int) -> list[Split]:
    total = sum(map(os.path.getsize, inputs))
    step = max(1, min(SPLIT_BYTES, total // (4 * workers)))
    return [
        (path, start, min(start + step, size))
        for path in inputs
        for size in [os.path.getsize(path)]
        for start in range(0, size, step)
    ]


def main(workers: str, output: str, *inputs: str) -> None:
    counts: Counter[str] = Counter()
    with Pool(int(workers)) as pool:
        for part in pool.imap_unordered(count, splits(inputs, int(workers))):
            counts.update(part)
    with open(output, "w", encoding="utf-8") as out:
        out.writelines(f"{word} {count}\n" for word, count in sorted(counts.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
