"""The figures we hold ourselves to, worked out from the tables of one run.

All are medians of interleaved rounds on a warm page cache. Ratios are to a row of the same table;
where that row was not measured, the goal says "not measured" instead of guessing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from harness import Row
from report import MB, Goal, Table

BEATEN_AT_15_MB = ("multiprocessing.Pool", "Polars", "DuckDB", "tr | mawk")


def judge(tables: Sequence[Table]) -> tuple[Goal, ...]:
    return tuple(
        goal for table in tables if table.kind in RULES for goal in RULES[table.kind](table)
    )


def find(table: Table, kind: str, name: str = "") -> Row | None:
    """The first row of this kind that ended well and whose name holds `name`."""
    return next(
        (row for row in table.rows if row.kind == kind and name in row.name and not row.failed),
        None,
    )


def given_limit(table: Table) -> Row | None:
    """`wc_limit`, the yardstick of the goals; never our own kernel in its place."""
    rows = (row for row in table.rows if row.kind == "limit" and "kernel" not in row.name)
    return next(rows, None)


def ratio(row: Row | None, base: Row | None) -> float | None:
    return row.wall / base.wall if row and base else None


def seconds(row: Row | None) -> float | None:
    return row.wall if row else None


def start(table: Table) -> Iterable[Goal]:
    ours = seconds(find(table, "engine"))
    yield Goal("engine --version", None if ours is None else 1000 * ours, 50, "ms")


def books(table: Table) -> Iterable[Goal]:
    yield Goal(table.title, seconds(find(table, "engine")), 0.12, "s")


def small(table: Table) -> Iterable[Goal]:
    ours = find(table, "engine")
    yield Goal(table.title, seconds(ours), 0.15, "s")
    for name in BEATEN_AT_15_MB:
        yield Goal(f"{table.title} beside {name}", ratio(ours, find(table, "peer", name)), 1.0, "x")


def natural(table: Table) -> Iterable[Goal]:
    ours = find(table, "engine")
    yield Goal(f"{table.title} beside wc_limit", ratio(ours, given_limit(table)), 1.3, "x")
    largest = ours.largest / MB if ours else None
    yield Goal(f"{table.title}, peak RSS of the largest process", largest, 100, "MB")


def cardinal(table: Table) -> Iterable[Goal]:
    value = ratio(find(table, "engine", "512 MB"), given_limit(table))
    yield Goal(f"{table.title}, 512 MB a worker, beside wc_limit", value, 1.5, "x")


def killed(bound: float) -> Callable[[Table], Iterable[Goal]]:
    def goals(table: Table) -> Iterable[Goal]:
        value = ratio(find(table, "engine", "killed"), find(table, "engine", "clean"))
        yield Goal(f"{table.title}, beside a clean run", value, bound, "x")
        yield Goal(f"{table.title}, noticed", table.figures.get("noticed"), 20, "ms")

    return goals


def index(table: Table) -> Iterable[Goal]:
    value = ratio(find(table, "engine"), find(table, "limit", "hand-written"))
    yield Goal(f"{table.title}, beside two hand-written processes", value, 1.15, "x")


RULES: dict[str, Callable[[Table], Iterable[Goal]]] = {
    "start": start,
    "books": books,
    "small": small,
    "natural": natural,
    "cardinal": cardinal,
    "killed natural": killed(1.1),
    "killed cardinal": killed(1.4),
    "index": index,
}
