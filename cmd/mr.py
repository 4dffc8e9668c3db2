"""`engine mr`: run MapReduce jobs, alone or with workers that join.

Each verb turns its flags into one `Request`, hands it to `engine.mapreduce.client` and prints the
`Summary`: one line and, if asked for, a table on stdout; or one JSON object.
"""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any

from engine_cmd.flags import Family, Parser, keys_flag, shown

if TYPE_CHECKING:
    from engine.mapreduce.client import Request, Summary

APP_HELP = "a built-in (engine mr apps), module:Class, or FILE.py with one Job (FILE.py:Class)"
MEGABYTE = 1 << 20
UNITS = {"": MEGABYTE, "K": 1 << 10, "M": MEGABYTE, "G": 1 << 30, "T": 1 << 40}

EXAMPLES = """\
examples:
  engine mr run wordcount texts --out out --top 10
  engine mr run wordcount texts --out out --fold-case --json
  engine mr run my_job.py:Links pages/ --out links --set depth=3 --skip-bad 100
  engine mr run wordcount texts --out out --resume      after the machine went down
"""


# --- the verbs -----------------------------------------------------------------------------------


def run(argv: list[str]) -> int:
    """run a job on this machine, on every core"""
    parser = _parser("run", "Run a job on this machine. Its output is the same whatever the way.")
    _job_arguments(parser)
    _pace_arguments(parser)
    parser.add_argument(
        "--on", choices=("inline", "local"), default="", help="one process, or worker processes"
    )
    parser.add_argument("--workers", type=_positive, metavar="N", help="processes (default: cores)")
    flags = parser.parse_args(argv)
    return _carry_out(flags, _request(flags, on=flags.on, workers=flags.workers))


def sequential(argv: list[str]) -> int:
    """run a job in one process with one output file: the reference"""
    parser = _parser("sequential", "Run a job in this process and write one file, mr-out-0.")
    _job_arguments(parser, reducers=False)
    flags = parser.parse_args(argv)
    return _carry_out(flags, _request(flags, on="inline", workers=1, reducers=1))


def coordinator(argv: list[str]) -> int:
    """coordinate a job; workers join by its address"""
    parser = _parser("coordinator", "Coordinate a job and print the address that workers join.")
    _job_arguments(parser)
    _pace_arguments(parser)
    parser.add_argument(
        "--listen",
        required=True,
        metavar="ENDPOINT",
        help="ipc:///PATH or tcp://127.0.0.1:*; any other tcp with --keys",
    )
    parser.add_argument("--advertise", default="", metavar="ENDPOINT", help="what workers are told")
    keys_flag(parser, "keys")
    parser.add_argument(
        "--workers", type=_count, default=0, metavar="N", help="own workers besides (default: 0)"
    )
    flags = parser.parse_args(argv)
    return _carry_out(
        flags, _request(flags, on="local", workers=flags.workers, listen=flags.listen)
    )


def worker(argv: list[str]) -> int:
    """work for a coordinator until its job is over"""
    parser = _parser("worker", "Join a coordinator and work until its job is over.")
    parser.add_argument("--join", required=True, metavar="ENDPOINT", help="what it printed")
    keys_flag(parser, "token")
    parser.add_argument(
        "--token", metavar="FILE", default=SUPPRESS, help="the coordinator's token file (tcp only)"
    )
    parser.add_argument("--json", action="store_true", help="errors as one JSON object")
    flags = parser.parse_args(argv)
    from engine.mapreduce.worker import join

    join(flags.join, flags.token)
    return 0


def apps(argv: list[str]) -> int:
    """list the built-in jobs"""
    parser = _parser("apps", "List the built-in jobs.")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    flags = parser.parse_args(argv)
    from engine.mapreduce.apps import SUMMARIES

    if flags.json:
        shown({"apps": SUMMARIES, "error": None})
        return 0
    width = max(map(len, SUMMARIES))
    for name, summary in SUMMARIES.items():
        print(f"{name:<{width}}  {summary}")
    return 0


MR = Family(
    "mr", EXAMPLES, {call.__name__: call for call in (run, sequential, coordinator, worker, apps)}
)
main = MR.main


# --- flags ---------------------------------------------------------------------------------------


def _parser(verb: str, description: str) -> Parser:
    epilog = EXAMPLES if verb == "run" else None
    return Parser(prog=f"engine mr {verb}", description=description, epilog=epilog)


def _job_arguments(parser: Parser, reducers: bool = True) -> None:
    """What every way of running a job takes."""
    add = parser.add_argument
    add("app", metavar="APP", help=APP_HELP)
    add("inputs", nargs="+", metavar="INPUT", help="files, and directories to read all files of")
    add("--out", required=True, metavar="DIR", help="where mr-out-0 … and the manifest go")
    if reducers:
        add("--reducers", type=_positive, default=10, metavar="R", help="output files (default 10)")
    add("--top", type=_positive, metavar="K", help="print the K largest values")
    add("--scratch", metavar="DIR", help="disk directory for run files (default: in --out)")
    add("--memory", type=_memory, metavar="MB", help="per worker: 512, 512M or 1G")
    add("--skip-bad", type=_count, default=0, metavar="N", help="bad records to pass over, at most")
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="go on with a run that was killed")
    earlier.add_argument("--force", action="store_true", help="replace an earlier job's output")
    add("--fold-case", action="store_true", help="count words whatever their case (wordcount)")
    add("--set", action="append", default=[], type=_setting, metavar="NAME=VALUE", help="option")
    add("--json", action="store_true", help="the result, or the error, as one JSON object")
    add("--isa", default="", help=SUPPRESS)


def _pace_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--record-timeout", type=_seconds, metavar="S", help="a record that takes longer is bad"
    )


def _positive(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise ArgumentTypeError(f"{text!r} is not a whole number above 0")


def _count(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    raise ArgumentTypeError(f"{text!r} is not a whole number")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0 < seconds < float("inf"):
        return seconds
    raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


def _memory(text: str) -> int:
    """Bytes: a number of MB, or one with K, M, G or T behind it (and B or iB behind that)."""
    number = text.strip().upper()
    if number[-1:] == "B":
        number = number[:-2] if number[-2:-1] == "I" else number[:-1]
    unit = number[-1:] if number[-1:] in ("K", "M", "G", "T") else ""
    digits = number.removesuffix(unit)
    if digits.isascii() and digits.isdigit() and int(digits) > 0:
        return int(digits) * UNITS[unit]
    raise ArgumentTypeError(f"{text!r} is not an amount of memory; give 512, 512M or 1G")


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if name and equals:
        return name, value
    raise ArgumentTypeError(f"{text!r} is not NAME=VALUE")


def _request(
    flags: Namespace, on: str, workers: int | None, reducers: int = 0, listen: str | None = None
) -> Request:
    from engine.mapreduce.client import Request

    options = tuple(flags.set) + ((("fold_case", "yes"),) if flags.fold_case else ())
    return Request(
        app=flags.app,
        inputs=tuple(flags.inputs),
        out=flags.out,
        workers=workers,
        reducers=reducers or flags.reducers,
        on=on,
        scratch=flags.scratch,
        memory=flags.memory,
        record_timeout=getattr(flags, "record_timeout", None),
        skip_bad=flags.skip_bad,
        resume=flags.resume,
        force=flags.force,
        options=options,
        isa=flags.isa,
        listen=listen,
        advertise=getattr(flags, "advertise", ""),
        keys=getattr(flags, "keys", None) if listen else None,
        progress=sys.stderr.isatty(),
    )


# --- results -------------------------------------------------------------------------------------


def _carry_out(flags: Namespace, request: Request) -> int:
    from engine.mapreduce import client
    from engine.mapreduce.top import top

    summary = client.run(request)
    table = top(summary.output, flags.top) if flags.top else []
    if flags.json:
        found = _result(summary)
        if flags.top:
            found["top"] = table
        shown(found)
        return 0
    for sample in summary.samples:
        print(f"engine: skipped: {sample}", file=sys.stderr)
    print(_sentence(request.app, summary))
    width = max((len(f"{value:,}") for _, value in table), default=0)
    for key, value in table:
        print(f"{value:>{width},}  {key}")
    return 0


def _result(summary: Summary) -> dict[str, Any]:
    """The JSON object of a job that ended well."""
    from engine import __version__

    return {
        "seconds": round(summary.seconds, 6),
        "bytes": summary.bytes,
        "mb_per_second": round(_rate(summary), 3),
        "words": summary.words,
        "distinct": summary.distinct,
        "workers": summary.workers,
        "attempts": summary.attempts,
        "rss_max_bytes": summary.rss_max_bytes,
        "output": summary.output,
        "skipped": summary.skipped,
        "deaths": summary.deaths,
        "notes": summary.notes,
        "version": __version__,
        "error": None,
    }


def _sentence(app: str, summary: Summary) -> str:
    """What a person wants to know of a job that ended well, on one line."""
    if summary.notes.get("complete"):
        return f"{app}: was complete already; output in {summary.output}"
    unit = "words" if summary.notes.get("native", True) else "records"
    parts = [
        f"{app}: {_amount(summary.bytes)}, {summary.words:,} {unit}, "
        f"{summary.distinct:,} distinct in {summary.seconds:.2f} s "
        f"({_amount(_rate(summary) * 1e6)}/s, {_plural(summary.workers, 'worker')})"
    ]
    if summary.skipped:
        parts.append(f"{_plural(summary.skipped, 'bad record')} skipped")
    if summary.deaths:
        was = "was" if summary.deaths == 1 else "were"
        parts.append(f"{_plural(summary.deaths, 'worker')} died and {was} replaced")
    return "; ".join([*parts, f"output in {summary.output}"])


def _rate(summary: Summary) -> float:
    """Megabytes (10**6 bytes) of input a second."""
    return summary.bytes / 1e6 / summary.seconds if summary.seconds > 0 else 0.0


def _amount(number: float) -> str:
    """Bytes for people: three digits or so, in steps of a thousand."""
    unit, *larger = ("B", "kB", "MB", "GB")
    while number >= 1000 and larger:
        number /= 1000
        unit, *larger = larger
    return f"{number:.{0 if unit == 'B' or number >= 100 else 1}f} {unit}"


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
