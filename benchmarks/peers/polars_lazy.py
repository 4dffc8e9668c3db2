"""Polars, streaming: lines as a one-column frame, words by a regular expression, one group-by."""

import os
import sys


def main(workers: str, output: str, *inputs: str) -> None:
    os.environ["POLARS_MAX_THREADS"] = workers  # read when the library is imported
    import polars

    lines = polars.scan_csv(
        list(inputs),
        has_header=False,
        separator="\x01",
        quote_char=None,
        schema={"line": polars.String},
        encoding="utf8-lossy",
    )
    words = lines.select(polars.col("line").str.extract_all(r"\p{L}+").explode().alias("word"))
    counts = words.drop_nulls().group_by("word").len().sort("word")
    text = counts.select(polars.format("{} {}", "word", "len"))
    text.sink_csv(output, include_header=False, quote_style="never", separator="\x01")


if __name__ == "__main__":
    main(*sys.argv[1:])
