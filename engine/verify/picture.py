"""A picture of what went wrong: one HTML page that needs nothing else.

A row for each client, a box for each operation from its call to its return, and the longest order
that one copy explains, numbered; red is what would have to come next and cannot. The page is drawn
by its own script (`picture_page.py`) from the data that are made here.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from engine.verify.files import arguments
from engine.verify.history import Operation
from engine.verify.linearizable import WRONG, Judged, Model, stuck
from engine.verify.models import NO_ARGUMENT
from engine.verify.picture_page import PAGE

SHOWN_MAX = 60
"""Letters of a value; of a longer one, the beginning and the end."""


def page(judged: Iterable[Judged], model: Model, name: str) -> str:
    """The HTML of every key that is WRONG and explained; `name` is what was judged."""
    wrong = [one for one in judged if one.verdict == WRONG]
    data = json.dumps([drawing(one, model) for one in wrong], ensure_ascii=True)
    for letter in "<>&":  # nothing in a script element may look like its end
        data = data.replace(letter, f"\\u{ord(letter):04x}")
    summary = "".join(f"<p>{html.escape(sentence(one))}</p>\n" for one in wrong)
    filled = {"NAME": html.escape(name), "SUMMARY": summary, "DATA": data}
    head, *parts = PAGE.split("@@")
    return head + "".join(filled.get(part, part) for part in parts)


def sentence(judged: Judged) -> str:
    """What is wrong with a key."""
    return f"{shown(judged.key)}: {what(judged)}"


def what(judged: Judged) -> str:
    """What is wrong, and what cannot follow."""
    begin = f"no order of its {len(judged.operations)} operations explains them"
    order = judged.orders[0] if judged.orders else ()
    blocked = [judged.operations[index] for index in stuck(judged.operations, order)]
    after = f"; after the longest legal one, of {len(order)}, " if order else "; at the beginning "
    which = "this cannot come" if len(blocked) == 1 else "none of these can come"
    some = "; ".join(f"client {o.client} {label(o)}" for o in blocked[:3])
    more = f", and {len(blocked) - 3} more" if len(blocked) > 3 else ""
    return f"{begin}{after}{which}: {some}{more}."


def label(operation: Operation) -> str:
    """`write "a"`, `read → "a"`, `cas "a" "b" → false`."""
    given = [] if operation.argument in NO_ARGUMENT else arguments(operation)
    asked = " ".join([operation.kind, *(shown(value) for value in given)])
    if operation.returned is None:
        return f"{asked} → ?"
    quiet = operation.result is None and given
    return asked if quiet else f"{asked} → {shown(operation.result)}"


def shown(value: Any) -> str:
    """A value as one reads it."""
    if isinstance(value, tuple) and value[:1] == ("client",):
        return f"client {value[1]}"
    if isinstance(value, tuple):
        return " @ ".join(shown(part) for part in value)
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    if len(text) <= SHOWN_MAX:
        return text
    return f"{text[: SHOWN_MAX // 2]}…{text[-SHOWN_MAX // 2 :]} ({len(text)} letters)"


def drawing(judged: Judged, model: Model) -> dict[str, Any]:
    """One key as the script of the page takes it: times are places in the order of all of them."""
    operations = judged.operations
    times = sorted(
        {o.called for o in operations} | {o.returned for o in operations if o.returned is not None}
    )
    place = {time: index for index, time in enumerate(times)}
    begun = times[0] if times else 0
    rows, names = _rows(operations)
    boxes = [
        {
            "row": rows[index],
            "client": str(o.client),
            "label": label(o),
            "from": place[o.called],
            "to": len(times) if o.returned is None else place[o.returned],
            "unknown": o.returned is None,
            "time": _span(o, begun),
        }
        for index, o in enumerate(operations)
    ]
    orders = [
        {
            "operations": list(order),
            "states": _states(operations, order, model),
            "stuck": stuck(operations, order),
        }
        for order in judged.orders or ((),)
    ]
    return {
        "key": shown(judged.key),
        "sentence": what(judged),
        "rows": names,
        "places": len(times) + 1,
        "boxes": boxes,
        "orders": orders,
        "longest": {str(index): which for index, which in judged.longest.items()},
        "initial": shown(model.initial),
    }


def _rows(operations: Sequence[Operation]) -> tuple[list[int], list[str]]:
    """(row of each operation, name of each row): one for a client, or more if its own overlap, as
    they do after one of unknown outcome."""
    clients = sorted({o.client for o in operations}, key=lambda who: (isinstance(who, str), who))
    ends: dict[int | str, list[float]] = {client: [] for client in clients}
    lane = [0] * len(operations)
    for index in sorted(range(len(operations)), key=lambda i: operations[i].called):
        o = operations[index]
        busy = ends[o.client]
        free = [number for number, end in enumerate(busy) if end < o.called]
        lane[index] = free[0] if free else len(busy)
        if not free:
            busy.append(0.0)
        busy[lane[index]] = float("inf") if o.returned is None else o.returned
    first: dict[int | str, int] = {}
    names: list[str] = []
    for client in clients:
        first[client] = len(names)
        names += [str(client)] + [""] * (len(ends[client]) - 1)
    return [first[o.client] + lane[index] for index, o in enumerate(operations)], names


def _span(operation: Operation, begun: int) -> str:
    start = f"{(operation.called - begun) / 1e6:,.3f} ms"
    if operation.returned is None:
        return f"called at {start}, outcome unknown"
    took = (operation.returned - operation.called) / 1e6
    return f"called at {start}, returned after {took:,.3f} ms"


def _states(operations: Sequence[Operation], order: Iterable[int], model: Model) -> list[str]:
    """The state after each operation of an order."""
    state: Any = model.initial
    states = []
    for index in order:
        _, state = model.step(state, operations[index])
        states.append(shown(state))
    return states
