"""Dask bag on its process scheduler: frequencies of words over blocks of lines."""

import re
import sys

import dask
import dask.bag

WORD = re.compile(r"[^\W\d_]+")


def main(workers: str, output: str, *inputs: str) -> None:
    lines = dask.bag.read_text(list(inputs), blocksize=8 << 20, errors="replace")
    counts = lines.map(WORD.findall).flatten().frequencies()
    with dask.config.set(scheduler="processes", num_workers=int(workers)):
        pairs = sorted(counts.compute())
    with open(output, "w", encoding="utf-8") as out:
        out.writelines(f"{word} {count}\n" for word, count in pairs)


if __name__ == "__main__":
    main(*sys.argv[1:])
