"""`engine chaos`: a store on real processes, accidents drawn from a seed, and a verdict."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from engine.errors import RefusedError, UsageError
from engine_cmd.flags import Parser, natural, shown

if TYPE_CHECKING:
    from engine.faults.accidents import Accident
    from engine.faults.chaos import Chaos, Settings

EXAMPLES = """\
examples:
  engine chaos --dir run --seconds 60
  engine chaos --dir run --seed 7 --only power-loss,pause:leader
  engine chaos --dir again --plan run/plan.json
  engine chaos --dir broken --unsafe no-fsync --i-am-testing
  engine chaos --list

DIR is new, and on a disk. All that is needed to look into a failure stays there: plan.json,
history.jsonl (engine verify DIR/history.jsonl --model store), and what each replica said in
replicas/*.log. Ends with 0 if the store kept its promises, 1 if it did not; docs/chaos.md tells
what is looked at.
"""
REPLICAS = (3, 5, 7)
SECONDS_MAX = 86_400
WINDOW_SECONDS = (0.8, 3.0)
"""The longest window of a short run and of a long one: many kinds, or much of each."""
WINDOWS = 40


def main(argv: list[str]) -> int:
    """Play one run; the verdict is the exit code."""
    parser = _parser()
    flags = parser.parse_args(argv)
    if flags.list:
        return _list(flags.json)
    if not flags.dir:
        parser.error("give --dir DIR, a new folder")
    settings = _settings(flags)
    from engine.faults.chaos import Chaos

    chaos = Chaos(settings, _progress)
    ended_by = _end_with_signals(chaos)
    _progress(f"seed {settings.seed}, {settings.replicas} replicas, in {settings.folder}")
    well = chaos.run()
    if ended_by and well:
        raise Ended(ended_by[0])
    report = chaos.report()
    if flags.json:
        error = None if well else report["violations"][0]
        shown({**report, "error": error})
    else:
        _print(report)
    return 0 if well else 1


def _parser() -> Parser:
    parser = Parser(
        prog="engine chaos",
        description="Does a store keep its promises, whatever happens to its replicas?",
        epilog=EXAMPLES,
    )
    parser.add_argument("--dir", metavar="DIR", default="", help="a new folder, on a disk")
    parser.add_argument(
        "--seconds", type=_seconds, metavar="S", default=0, help="of accidents (default: 60)"
    )
    parser.add_argument("--seed", type=natural, metavar="N", help="default: another one each time")
    parser.add_argument(
        "--replicas", type=natural, metavar="N", default=0, help="3, 5 or 7 (default: 5)"
    )
    parser.add_argument("--only", metavar="KIND,…", default="", help="these accidents alone")
    parser.add_argument("--plan", metavar="FILE", default="", help="what happened in another run")
    parser.add_argument("--unsafe", metavar="SWITCH", default="", help="break the store first")
    parser.add_argument(
        "--i-am-testing", action="store_true", help="without this nothing is broken"
    )
    parser.add_argument(
        "--patience", type=_factor, metavar="X", default=1.0, help="stretch all deadlines"
    )
    parser.add_argument("--list", action="store_true", help="say which accidents there are")
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    return parser


def _seconds(text: str) -> int:
    value: int = natural(text)
    if not 1 <= value <= SECONDS_MAX:
        raise ArgumentTypeError(f"{text} seconds: it is 1 to {SECONDS_MAX}")
    return value


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 100:
        raise ArgumentTypeError(f"{text!r} is not a number from 1 to 100")
    return value


def _settings(flags: Namespace) -> Settings:
    """What the flags say. UsageError, NotFoundError, RefusedError."""
    from engine.faults.chaos import Settings

    if flags.unsafe:
        from engine.faults.unsafe import check_switch

        check_switch(flags.unsafe)
        if not flags.i_am_testing:
            raise RefusedError(
                f"--unsafe {flags.unsafe} breaks the store that it starts: say --i-am-testing too."
            )
    replicas, seed, accidents, kinds, seconds = _what(flags)
    if replicas not in REPLICAS:
        raise UsageError(f"A run has 3, 5 or 7 replicas, not {replicas}.")
    return Settings(
        flags.dir, seconds, seed, replicas, accidents, kinds, flags.unsafe, flags.patience
    )


def _what(flags: Namespace) -> tuple[int, int, Iterable[Accident], int, float]:
    """Replicas, seed, accidents, of how many kinds, for how many seconds."""
    from engine.faults.accidents import check_kind, kinds_of, read_plan, schedule

    if flags.plan:
        if flags.seconds or flags.only or flags.replicas or flags.seed is not None:
            raise UsageError(
                "A plan says what happens: --plan goes with none of --seconds, --seed, "
                "--replicas and --only."
            )
        plan = read_plan(flags.plan)
        names = {accident.name for accident in plan.accidents}
        return plan.replicas, plan.seed, plan.accidents, len(names), 0
    seconds = flags.seconds or 60
    kinds = [check_kind(one, aimed=False) for one in flags.only.split(",")] if flags.only else []
    kinds = kinds or kinds_of("kv")
    seed = flags.seed if flags.seed is not None else _new_seed()
    shortest, longest = WINDOW_SECONDS
    window = min(longest, max(shortest, seconds / WINDOWS))
    names = {kind.partition(":")[0] for kind in kinds}
    return flags.replicas or 5, seed, schedule(seed, kinds, window), len(names), seconds


def _new_seed() -> int:
    import secrets

    return secrets.randbelow(1_000_000)


class Ended(KeyboardInterrupt):
    """By a signal, after all was put away."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


def _end_with_signals(chaos: Chaos) -> list[int]:
    """The first one ends the run in good order, since what was begun has memory and processes; the
    next one ends us at once. Those that came are in the list."""
    import signal

    came: list[int] = []

    def end(number: int, frame: object) -> None:
        came.append(number)
        chaos.end()
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_DFL)

    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, end)
    return came


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- what is printed -----------------------------------------------------------------------------


def _list(as_json: bool) -> int:
    from engine.faults.accidents import KINDS
    from engine.faults.unsafe import SWITCHES

    if as_json:
        accidents = [
            {"kind": name, "what": kind.what, "aims": list(kind.aims)}
            for name, kind in KINDS.items()
        ]
        unsafe = [
            {"switch": name, "what": one.what, "accident": one.accident}
            for name, one in SWITCHES.items()
        ]
        shown({"accidents": accidents, "unsafe": unsafe, "error": None})
        return 0
    print("accidents, and behind a colon whom they can be aimed at:")
    for name, kind in KINDS.items():
        aims = f" ({', '.join(kind.aims)})" if kind.aims else ""
        print(f"  {name:17}{kind.what}{aims}")
    print("unsafe switches, and what brings each to light:")
    for name, one in SWITCHES.items():
        print(f"  {name:17}{one.what} ({one.accident})")
    return 0


def _print(report: dict[str, Any]) -> None:
    """The report as a table."""
    times = report["recovery_seconds"]
    asked = report["operations"]
    many = sum(report["accidents"].values())
    shares = "  ".join(f"{name} {count}" for name, count in report["accidents"].items())
    kinds = "  ".join(f"{name} {count}" for name, count in asked["acknowledged"].items())
    rows = {
        "run": f"seed {report['seed']}, {report['replicas']} replicas, {report['seconds']} s",
        "accidents": f"{many}: {shares}",
        "acknowledged": f"{sum(asked['acknowledged'].values())}: {kinds}",
        "not": f"{asked['unknown']} of unknown outcome, {asked['refused']} certainly not done",
        "reads": f"{report['reads']}, {report['reads_while_cut']} of them in partitions",
        "judged": f"{report['judged']['operations']} operations on {report['judged']['sets']} sets "
        f"of keys, {report['watched']} changes watched",
        "back within": f"{times['median']} s (median), {times['p99']} s (p99), {times['max']} s",
        "lost power": f"{report['unsynced_bytes_lost']} bytes that were not synced",
        "versions": ", ".join(f"{name} {text}" for name, text in report["versions"].items()),
    }
    for name, text in rows.items():
        print(f"{name:13}{text}")
    if report["verdict"] == "ok":
        print("the store kept its promises")
        return
    print("the store broke its promises:")
    for text in report["violations"][:10]:
        print(f"  {text}")
    folder = report["dir"]
    print(f"look into {folder}: engine verify {folder}/history.jsonl --model store")
    print(f"play it again: engine chaos --plan {folder}/plan.json --dir NEW")
