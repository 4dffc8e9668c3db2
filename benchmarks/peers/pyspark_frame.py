"""PySpark's DataFrame API on local[N]: words by a regular expression, one groupBy."""

import os
import sys

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, explode, expr, lit, regexp_extract_all


def main(workers: str, output: str, *inputs: str) -> None:
    session = (
        SparkSession.builder.master(f"local[{workers}]")
        .config("spark.ui.enabled", "false")
        .config("spark.log.level", "ERROR")
        .config("spark.driver.memory", os.environ.get("BENCHMARK_SPARK_MEMORY", "4g"))
        .config("spark.sql.shuffle.partitions", workers)
        .getOrCreate()
    )
    lines = session.read.text(list(inputs))
    words = lines.select(
        explode(regexp_extract_all(col("value"), lit(r"(\p{L}+)"), lit(1))).alias("word")
    )
    counts = words.groupBy("word").count()
    pairs = counts.select(expr("concat(word, ' ', count)")).toLocalIterator()
    with open(output, "w", encoding="utf-8") as out:
        out.writelines(sorted(row[0] + "\n" for row in pairs))
    session.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
