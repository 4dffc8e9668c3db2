"""What the benchmark of the store found out, as rows, as Markdown and as a plot."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stores.failover import GOALS as FAILOVER_GOALS

PROTOCOLS = ("put", "get", "mix")
GOALS: dict[str, dict[int, float]] = {
    "put": {1: 1.15, 16: 2.5, 64: 4.0, 256: 7.0, 1000: 10.0},
    "get": {64: 5.0, 1000: 15.0},
    "mix": {},
}
"""Operations a second over those of etcd, by clients."""
LOAD_CORES_MAX = 0.9
"""A load that used more of the processor than this may have been what was measured."""
COLOURS = {
    "ours": "#c44e52",
    "etcd": "#4c72b0",
    "zookeeper": "#55a868",
    "nats": "#8172b3",
    "redis": "#ccb974",
    "pysyncobj": "#8c8c8c",
}

Turns = Mapping[tuple[str, str, int], Sequence[Mapping[str, float]]]
"""(who, protocol, clients): of each turn ops, p50_ms, p99_ms, cpu_us and mostly load_cores."""


def rows(turns: Turns, clients: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Medians, one row for each protocol, number of clients and store, ours first."""
    stores = list(dict.fromkeys(who for who, _, _ in turns))
    for protocol in PROTOCOLS:
        for many in clients:
            ours = None
            for who in stores:
                made = turns.get((who, protocol, many))
                if not made:
                    continue
                row: dict[str, Any] = {"protocol": protocol, "clients": many, "store": who}
                for what in ("ops", "p50_ms", "p99_ms", "cpu_us", "load_cores"):
                    values = [one[what] for one in made if what in one]
                    row[what] = statistics.median(values) if values else None
                if who == "ours":
                    ours = row["ops"]
                elif ours:
                    row["ours_over"] = ours / row["ops"]
                    row["goal"] = GOALS[protocol].get(many) if who == "etcd" else None
                row["turns"] = [dict(one) for one in made]
                yield row


def busy_load(row: Mapping[str, Any]) -> bool:
    return (row["load_cores"] or 0) > LOAD_CORES_MAX


def throughput_lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not found:
        return
    cores = os.cpu_count() or 1
    head = "| clients | store | ops/s | p50 ms | p99 ms | CPU us | load, cores | ours/peer | n |"
    for protocol in PROTOCOLS:
        yield f"### {protocol}\n\n{head}\n{'|---' * 9}|"
        for row in found:
            if row["protocol"] != protocol:
                continue
            load = "inside"
            if row["load_cores"] is not None:
                mark = " **busy**" if busy_load(row) else ""
                load = f"{row['load_cores']:.2f} ({row['load_cores'] / cores:.0%}){mark}"
            goal = f" (goal {row['goal']:g})" if row.get("goal") else ""
            ratio = f"{row['ours_over']:.2f}{goal}" if "ours_over" in row else ""
            yield (
                f"| {row['clients']} | {row['store']} | {row['ops']:.0f} | {row['p50_ms']:.2f} "
                f"| {row['p99_ms']:.1f} | {row['cpu_us']:.1f} | {load} | {ratio} "
                f"| {len(row['turns'])} |"
            )
        yield ""
    yield (
        "CPU: of all servers of a store, for an operation. Load: processor that the load itself "
        "used, and how much of the machine that is; **busy** is more than "
        f"{LOAD_CORES_MAX:g} cores. Loads in Go may use more than one: busy says that the load "
        "took from its servers, not that it was at its limit."
    )


def failover_lines(failovers: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    if not failovers:
        return
    head = "| store | the leader is | median ms | max | goals | each |"
    yield f"### Failover\n\n{head}\n{'|---' * 6}|"
    for who, by_blow in failovers.items():
        for how, taken in by_blow.items():
            median, most = FAILOVER_GOALS[how] if who == "ours" else (None, None)
            goals = ", ".join(str(goal) for goal in (median, most) if goal)
            each = " ".join(f"{one:.0f}" for one in taken)
            middle = statistics.median(taken)
            yield f"| {who} | {how} | {middle:.0f} | {max(taken):.0f} | {goals} | {each} |"


def show(report: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
    for line in throughput_lines(report["throughput"]):
        print(line)
    print()
    for line in failover_lines(report["failover_ms"]):
        print(line)
    for name, value in report["million"].items():
        print(f"\n{name}: {value:.1f}")
    print("\n### What each promises\n")
    for name, about in report["stores"].items():
        version = f" ({about['version']})" if about["version"] else ""
        notes = "".join(f"; {note}" for note in about["notes"])
        print(f"* {name}{version}: {about['promise']}{notes}.")
        if about["idle_cores"] is not None:
            print(f"  Used {about['idle_cores']:.3f} cores when nobody asked anything of it.")
    for name, why in report["missing"].items():
        print(f"* **{name} did not take part, or not to the end**: {why}")
    print("\n### Machine\n")
    for name in ("when", "cpu", "cores", "load", "system", "filesystem", "python", "commit"):
        print(f"* {name}: {machine[name]}")
    print(f"* versions: {machine['versions']}")


def plot(found: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], path: Path) -> str:
    """Throughput and p99 by clients, a column for each protocol: "" or why there is no plot."""
    try:
        import matplotlib  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return "matplotlib is not installed (extra `bench`): no plot"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    measures = (("ops", "operations a second"), ("p99_ms", "p99, ms"))
    figure, axes = pyplot.subplots(
        2, len(PROTOCOLS), figsize=(14, 8), squeeze=False, layout="constrained"
    )
    for column, protocol in enumerate(PROTOCOLS):
        for line, (what, unit) in enumerate(measures):
            panel = axes[line][column]
            for who in dict.fromkeys(row["store"] for row in found):
                mine = [r for r in found if (r["store"], r["protocol"]) == (who, protocol)]
                points = [r["clients"] for r in mine], [r[what] for r in mine]
                panel.loglog(*points, "o-", color=COLOURS[who], label=who, linewidth=1.2)
            ticks = sorted({row["clients"] for row in found})
            panel.set_xticks(ticks, [str(one) for one in ticks], minor=False)
            panel.minorticks_off()
            panel.set_xlabel("requests outstanding")
            panel.set_ylabel(unit)
            panel.set_title(protocol)
            panel.grid(alpha=0.3)
    lines, names = axes[0][0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside right upper")
    figure.suptitle(f"{machine['cpu']}, {machine['cores']} cores, {machine['when'][:10]}")
    figure.savefig(path)
    pyplot.close(figure)
    return ""
