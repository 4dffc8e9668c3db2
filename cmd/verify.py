"""`engine verify`: is there an order in which one copy would have given these answers?

With `--trace`: is what the members of a group noted of themselves what consensus allows?
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import NotFoundError, OutcomeUnknown, RefusedError, UsageError
from engine_cmd.flags import Parser, seconds, shown

if TYPE_CHECKING:
    from engine.verify.history import Operation
    from engine.verify.linearizable import Judged
    from engine.verify.models import Tabled
    from engine.verify.sets import Sets

EXAMPLES = """\
examples:
  engine verify history.jsonl --model register
  engine verify history.jsonl --model append --html wrong.html --timeout 600
  some-program | engine verify - --model lock --json
  engine verify --trace traces/*.jsonl

A history is JSON lines: {client, op, key, args, call, return, result, outcome}; docs/verify.md has
it, and the models. Ends with 0 if it is linearizable, 1 if it is not, 5 if time or memory ran out
before that was known, which is no verdict.

The traces are those of all members of one group, one file each; `engine/raft/trace.py` has their
grammar. Ends with 0 if nothing in them breaks a rule, 1 if something does.
"""
MODELS = ("register", "append", "versioned", "lock")
STORE = "store"
"""The model of sets of keys of our own store, which has no kernel."""
WRONG_CODE = 1
UNDECIDED_CODE = OutcomeUnknown.exit_code
SHOWN_MAX = 10
"""Violations that are printed: what follows the first is often its consequence."""
CONFIGURATIONS_MAX = 50_000_000
"""Of one key: 5 to 10 GB. Who has that many waits for minutes."""


def main(argv: list[str]) -> int:
    """Judge one history, or the traces of one group; the verdict is the exit code."""
    parser = Parser(
        prog="engine verify",
        description="Is a history linearizable? Did a group keep to the rules?",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "history", metavar="HISTORY", nargs="?", help="a file of JSON lines, or - for stdin"
    )
    parser.add_argument("--model", choices=(*MODELS, STORE), help="what one copy would do")
    parser.add_argument(
        "--trace", metavar="FILE", nargs="+", help="judge the traces of a group's members instead"
    )
    parser.add_argument("--html", metavar="OUT", help="draw what is wrong, if something is")
    parser.add_argument(
        "--timeout", type=seconds, metavar="S", default=60.0, help="seconds, or never (default: 60)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    flags = parser.parse_args(argv)
    if flags.trace:
        if flags.history or flags.model or flags.html:
            parser.error("--trace judges traces alone, by no model, and draws nothing")
        return _judge_traces(flags.trace, flags.json)
    if flags.history is None or flags.model is None:
        parser.error("a history needs HISTORY and --model, and a group --trace")
    from engine.verify.linearizable import Limits, check
    from engine.verify.models import MODELS as MODEL_OF
    from engine.verify.sets import Sets

    model = Sets() if flags.model == STORE else MODEL_OF[flags.model]
    operations = _operations(flags.history, model)
    limits = Limits(None, CONFIGURATIONS_MAX, flags.timeout)
    judged = check(operations, model, limits, explain=True)
    return _tell(flags, operations, judged, model)


def _judge_traces(files: Sequence[str], as_json: bool) -> int:
    from engine.verify.trace import judge

    judged = judge(files)
    figures = {
        "events": judged.events,
        "members": judged.members,
        "lives": judged.lives,
        "elections": judged.elections,
        "entries": judged.entries,
    }
    wrong = judged.violations
    if as_json:
        violations = [one._asdict() for one in wrong]
        verdict = "violation" if wrong else "ok"
        shown({"verdict": verdict, **figures, "violations": violations, "error": None})
        return WRONG_CODE if wrong else 0
    told = ", ".join(f"{number} {what}" for what, number in figures.items())
    print(f"{'a rule is broken' if wrong else 'all rules hold'}: {told}")
    for one in wrong[:SHOWN_MAX]:
        print(f"  {one.rule}: {one.what} ({one.file}, line {one.line})")
    if len(wrong) > SHOWN_MAX:
        print(f"  and {len(wrong) - SHOWN_MAX} more")
    return WRONG_CODE if wrong else 0


def _operations(path: str, model: Tabled | Sets) -> list[Operation]:
    from engine.verify.files import read

    if path == "-":
        return read(sys.stdin.buffer, "stdin", model.problem)
    try:
        with open(path, "rb") as lines:
            return read(lines, path, model.problem)
    except FileNotFoundError:
        raise NotFoundError(f"There is no history {path}.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None


def _tell(
    flags: Any, operations: Sequence[Operation], judged: Sequence[Judged], model: Tabled | Sets
) -> int:
    from engine.verify.linearizable import UNDECIDED, WRONG, overall
    from engine.verify.picture import sentence

    verdict = overall(judged)
    drawn = flags.html if flags.html and verdict == WRONG else None
    if drawn is not None:
        _draw(drawn, flags.history, judged, model)
    bad = [one for one in judged if one.verdict == WRONG]
    open_ones = [one for one in judged if one.verdict == UNDECIDED]
    count = f"{len(operations)} operations on {len(judged)} keys"
    if flags.json:
        shown(
            {
                "verdict": {WRONG: "violation", UNDECIDED: "undecided"}.get(verdict, "ok"),
                "operations": len(operations),
                "keys": len(judged),
                "wrong": [{"key": one.key, "what": sentence(one)} for one in bad],
                "undecided": [{"key": one.key, "bound": one.bound} for one in open_ones],
                "tried": sum(one.tries for one in judged),
                "html": drawn,
                "error": None,
            }
        )
    elif verdict == WRONG:
        print(f"not linearizable: {count}, {len(bad)} of the keys wrong")
        for one in bad:
            print(f"  {sentence(one)}")
        if drawn is not None:
            print(f"drawn in {drawn}")
    elif verdict == UNDECIDED:
        print(f"undecided: {count}, {len(open_ones)} of the keys not judged to the end")
        for one in open_ones[:10]:
            print(f"  {one.key}: out of {one.bound} after {one.tries:,} tries")
    else:
        print(f"linearizable: {count}")
    return {WRONG: WRONG_CODE, UNDECIDED: UNDECIDED_CODE}.get(verdict, 0)


def _draw(out: str, name: str, judged: Sequence[Judged], model: Tabled | Sets) -> None:
    from engine.verify.picture import page

    try:
        with open(out, "w", encoding="utf-8") as file:
            file.write(page(judged, model, "stdin" if name == "-" else name))
    except OSError as error:
        raise RefusedError(
            f"{out} cannot be written: {error.strerror}; give --html a path."
        ) from None
