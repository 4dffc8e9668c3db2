"""DuckDB: lines as a one-column table, words by a regular expression, one GROUP BY."""

import sys

import duckdb

QUERY = r"""
COPY (
    SELECT word || ' ' || count(*)
    FROM (
        SELECT unnest(regexp_extract_all(line, '\p{L}+')) AS word
        FROM read_csv($inputs, columns = {line: 'VARCHAR'}, delim = '\x01', quote = '',
                      escape = '', header = false, auto_detect = false,
                      max_line_size = 67108864, null_padding = false, nullstr = '\x02')
    )
    GROUP BY word
    ORDER BY encode(word)
) TO $output (FORMAT csv, HEADER false, QUOTE '', DELIMITER '\x01')
"""


def main(workers: str, output: str, *inputs: str) -> None:
    with duckdb.connect(config={"threads": int(workers)}) as connection:
        quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in inputs)
        query = QUERY.replace("$inputs", f"[{quoted}]").replace(
            "$output", "'" + output.replace("'", "''") + "'"
        )
        connection.execute(query.replace("\\x01", "\x01").replace("\\x02", "\x02"))


if __name__ == "__main__":
    main(*sys.argv[1:])
