"""Results as Markdown tables, as JSON and as a plot.

In the tables `x limit` is the median wall time over that of the limit of the same table: the given
`wc_limit` if there was one, else the C program over our own kernel. `MB/s a core` divides by the
CPU seconds of all processes, so it does not flatter whoever has more threads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from harness import FOREIGN_MAX, Row, Turn

MB = 1e6
TEXTS = ("books", "small", "natural")
"""Kinds of tables that differ in nothing but size."""
COLOURS = {"engine": "#c44e52", "limit": "#4c72b0", "floor": "#8c8c8c", "peer": "#ccb974"}


class Table(NamedTuple):
    """Rows that were measured in the same interleaved rounds."""

    kind: str
    """What the goals and the plot go by: "natural", "cardinal", "scaling" …"""
    title: str
    about: str
    rows: tuple[Row, ...]
    figures: Mapping[str, float] = MappingProxyType({})
    """What was measured besides, such as "noticed" (milliseconds)."""


class Goal(NamedTuple):
    """A figure that is judged; `value` is None when a part of it was not measured."""

    text: str
    value: float | None
    bound: float
    unit: str

    @property
    def met(self) -> bool | None:
        return None if self.value is None else self.value <= self.bound


class Results(NamedTuple):
    """All that one run found out."""

    machine: dict[str, Any]
    tables: tuple[Table, ...]
    goals: tuple[Goal, ...]
    missing: dict[str, str]


# --- Markdown ------------------------------------------------------------------------------------


def missing_lines(missing: Mapping[str, str]) -> str:
    lines = [f"- {name}: {why}" for name, why in sorted(missing.items())] or ["- nobody"]
    return "\n".join(["### Not taking part", "", *lines])


def machine_lines(machine: dict[str, Any]) -> str:
    software = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    memory = machine["memory_bytes"] / 2**30
    return (
        f"{machine['when']}, {machine['cpu']}, {machine['cores']} cores, {memory:.0f} GiB, "
        f"{machine['system']}, {machine['filesystem']}, load {machine['load'][0]:.1f}  \n"
        f"{machine['python']}, kernel for {', '.join(machine['isa']) or '(not built)'}, "
        f"commit {machine['commit'] or '(none)'}  \n{software}"
    )


def table_lines(table: Table) -> str:
    base = base_of(table.rows)
    head = (
        "| | wall s (min..max, n) | MB/s | MB/s a core | CPU s | tree MB | largest MB |"
        " x limit | answer |"
    )
    lines = [f"### {table.title}", "", table.about, "", head, "|---" * 9 + "|"]
    ordered = sorted(table.rows, key=lambda row: row.failed * 1e9 + row.wall)
    return "\n".join([*lines, *(row_line(row, base) for row in ordered)])


def base_of(rows: Iterable[Row]) -> float | None:
    """Wall seconds of the limit: the given one before our own, most workers first."""
    limits = [row for row in rows if row.kind == "limit" and not row.failed]
    limits.sort(key=lambda row: ("kernel" in row.name, -row.workers))
    return limits[0].wall if limits else None


def row_line(row: Row, base: float | None) -> str:
    walls = [turn.wall for turn in row.counted]
    first = "" if row.turns else ", first run"
    foreign = f" (others: {row.foreign:.1f} cores)" if (row.foreign or 0) > FOREIGN_MAX else ""
    ratio = f"{row.wall / base:.2f}" if base and not row.failed else "-"
    answer = row.answer if row.answer in ("equal", "n/a") else f"**{row.answer}**"
    note = f" ({row.note})" if row.note else ""
    return (
        f"| {row.name.replace('|', chr(92) + '|')}{note} | {row.wall:.3f}"
        f" ({min(walls):.3f}..{max(walls):.3f}, {len(walls)}{first}){foreign}"
        f" | {speed(row.bytes, row.wall)} | {speed(row.bytes, row.cpu)} | {row.cpu:.2f}"
        f" | {row.tree / MB:.0f} | {row.largest / MB:.0f} | {ratio} | {answer} |"
    )


def speed(size: int, seconds: float) -> str:
    return f"{size / MB / seconds:.1f}" if size and seconds else "-"


def goal_lines(goals: Sequence[Goal]) -> str:
    marks = {True: "yes", False: "**no**", None: "not measured"}
    lines = ["### Goals", "", "| goal | bound | measured | met |", "|---|---|---|---|"]
    for goal in goals:
        value = "-" if goal.value is None else f"{goal.value:.3g} {goal.unit}"
        text = goal.text.replace("|", "\\|")
        lines.append(f"| {text} | {goal.bound:g} {goal.unit} | {value} | {marks[goal.met]} |")
    return "\n".join(lines)


# --- JSON ----------------------------------------------------------------------------------------


def as_json(results: Results) -> str:
    return json.dumps(
        {
            "machine": results.machine,
            "tables": [
                {
                    "kind": table.kind,
                    "title": table.title,
                    "about": table.about,
                    "figures": dict(table.figures),
                    "rows": [row_values(row) for row in table.rows],
                }
                for table in results.tables
            ],
            "goals": [{**goal._asdict(), "met": goal.met} for goal in results.goals],
            "missing": results.missing,
        },
        indent=1,
    )


def row_values(row: Row) -> dict[str, Any]:
    """Every turn as it was measured, and the medians that the tables show."""
    return {
        "name": row.name,
        "kind": row.kind,
        "workers": row.workers,
        "bytes": row.bytes,
        "wall": row.wall,
        "cpu": row.cpu,
        "tree_bytes": row.tree,
        "largest_bytes": row.largest,
        "answer": row.answer,
        "note": row.note,
        "first": turn_values(row.first),
        "turns": [turn_values(turn) for turn in row.turns],
    }


def turn_values(turn: Turn) -> dict[str, Any]:
    return dict(turn._asdict())


# --- plot ----------------------------------------------------------------------------------------


def plot(results: Results, path: Path) -> str:
    """A panel for each table, and one for speed and size: "" or why there is no plot."""
    try:
        import matplotlib  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return "matplotlib is not installed (extra `bench`): no plot"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    tables = [table for table in results.tables if any(row.bytes for row in table.rows)]
    columns = 2
    lines = (len(tables) + 2) // columns
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(14, 4.2 * lines), squeeze=False, layout="constrained"
    )
    panels = list(axes.flat)
    for panel, table in zip(panels, tables, strict=False):
        scaling_panel(panel, table) if table.kind == "scaling" else bar_panel(panel, table)
    size_panel(panels[len(tables)], tables)
    for panel in panels[len(tables) + 1 :]:
        panel.set_axis_off()
    machine = results.machine
    figure.suptitle(f"{machine['cpu']}, {machine['cores']} cores, {machine['when'][:10]}")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return ""


def bar_panel(panel: Any, table: Table) -> None:
    """Median wall time of each row, with the range."""
    rows = sorted((row for row in table.rows if not row.failed), key=lambda row: -row.wall)
    walls = [row.wall for row in rows]
    below = [row.wall - min(turn.wall for turn in row.counted) for row in rows]
    above = [max(turn.wall for turn in row.counted) - row.wall for row in rows]
    names = [row.name if row.answer in ("equal", "n/a") else f"{row.name} *" for row in rows]
    panel.barh(
        names,
        walls,
        xerr=[below, above],
        color=[COLOURS[row.kind] for row in rows],
        error_kw={"elinewidth": 0.8},
    )
    if walls and max(walls) > 5 * min(walls):  # else bars from zero say more
        panel.set_xscale("log")
    panel.tick_params(axis="y", labelsize=7)
    panel.set_xlabel("seconds, whole process (* another answer)")
    panel.set_title(table.title)


def scaling_panel(panel: Any, table: Table) -> None:
    """MB/s over the number of workers, a line for each kind."""
    for kind in ("limit", "engine"):
        rows = sorted((r for r in table.rows if r.kind == kind), key=lambda row: row.workers)
        speeds = [row.bytes / MB / row.wall for row in rows]
        panel.plot([r.workers for r in rows], speeds, "o-", color=COLOURS[kind], label=kind)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("workers")
    panel.set_ylabel("MB/s")
    panel.legend()
    panel.set_title(table.title)


def size_panel(panel: Any, tables: Sequence[Table]) -> None:
    """MB/s over the size of the input, a line for each that ran on more than one."""
    series: dict[str, list[tuple[int, float]]] = {}
    kinds: dict[str, str] = {}
    for table in tables:
        if table.kind not in TEXTS:
            continue
        for row in table.rows:
            if not row.failed and row.bytes:
                series.setdefault(row.name, []).append((row.bytes, row.bytes / MB / row.wall))
                kinds[row.name] = row.kind
    for name, points in series.items():
        sizes, speeds = zip(*sorted(points), strict=True)
        panel.loglog(sizes, speeds, "o-", color=COLOURS[kinds[name]], linewidth=1)
        panel.annotate(name, (sizes[-1], speeds[-1]), fontsize=6)
    panel.set_xlabel("bytes of input")
    panel.set_ylabel("MB/s")
    panel.set_title("speed and size, text")
