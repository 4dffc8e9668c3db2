"""One process, the standard library: what the labs' sequential program does."""

import re
import sys
from collections import Counter

WORD = re.compile(r"[^\W\d_]+")


def main(_workers: str, output: str, *inputs: str) -> None:
    counts: Counter[str] = Counter()
    for path in inputs:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                counts.update(WORD.findall(line))
    with open(output, "w", encoding="utf-8") as out:
        out.writelines(f"{word} {count}\n" for word, count in sorted(counts.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
