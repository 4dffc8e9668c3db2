"""Accidents as data: what there is, a schedule that is drawn from a seed, and plans in files.

The kind of an accident says what happens and, behind a colon, to whom: `pause:leader`. All else
that is decided in it is drawn from its own seed, so an accident is the same one in every plan.

Grammar of a plan, version 1: one JSON object. Worked example::

    {"version": 1, "seed": 7, "replicas": 5,
     "accidents": [{"kind": "pause:leader", "seconds": 0.5, "seed": 1234}]}
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from engine.errors import NotFoundError, UsageError
from engine.record import Record

VERSION = 1
QUIET = "quiet"
QUIET_AFTER = 1 / 3
"""How often a quiet window follows an accident, so that a quarter of all windows are quiet."""
SHORTEST = 0.1
SECONDS_MAX = 600.0
"""Of one accident: replicas that hear nothing for longer learn nothing new from it."""
ANYBODY = ("leader", "one", "minority", "majority", "all")
FEW = ("leader", "one", "minority")


class Kind(Record):
    """What happens, and whom it can be aimed at; `cuts`: replicas do not reach each other."""

    what: str
    aims: tuple[str, ...] = ()
    cuts: bool = False
    store: bool = False
    """Only the store can do that, not every group."""


KINDS: dict[str, Kind] = {
    QUIET: Kind("nothing"),
    "kill": Kind("SIGKILL", ANYBODY),
    "power-loss": Kind("SIGKILL, and what was not synced is lost", ANYBODY),
    "kill-recovering": Kind("the same, again and again while they recover", ("one", "majority")),
    "pause": Kind("SIGSTOP for the whole window", ANYBODY),
    "isolate": Kind("no other replica reaches it", ("leader", "one"), cuts=True),
    "split": Kind("a minority and a majority that do not reach each other", cuts=True),
    "bridge": Kind("two sides that reach only one replica in the middle", cuts=True),
    "ring": Kind("each reaches a majority, and no two the same", cuts=True),
    "one-link": Kind("two replicas do not reach each other", ("leader", "one"), cuts=True),
    "one-way": Kind("it is not heard, or does not hear", ("leader", "one"), cuts=True),
    "delay": Kind("all messages are late by 10 to 100 ms", ("leader", "all")),
    "resets": Kind("connections are reset, again and again", ("peers", "clients", "all")),
    "weather": Kind("a tenth of all messages is lost, some come twice, all are late"),
    "slow-sync": Kind("syncs take 50 to 400 ms longer", ("leader", "one", "all")),
    "failing-sync": Kind("the next sync fails, and its replica has to end", FEW),
    "full-disk": Kind("no space", ("leader", "one", "minority", "majority")),
    "flip-log": Kind("a bit of its log is flipped while it is down", ("one", "minority")),
    "flip-snapshot": Kind("a bit of its snapshots is flipped while it is down", FEW),
    "add": Kind("one more member, if there is room"),
    "remove": Kind("a member less, if enough remain", ("leader", "one")),
    "replace": Kind("a new member in the place of one that is dead", ("leader", "one")),
    "lead": Kind("leadership is handed over, three times"),
    "snapshot": Kind("a snapshot is taken", ("leader", "all"), store=True),
}


class Accident(Record):
    """What happens, for how long, and where its own draws begin."""

    kind: str
    seconds: float
    seed: int

    @property
    def name(self) -> str:
        """Of its kind, whoever it is aimed at."""
        return self.kind.partition(":")[0]

    @property
    def aim(self) -> str:
        return self.kind.partition(":")[2]


def check_kind(text: str, *, aimed: bool) -> str:
    """A kind, with an aim if it takes one, or without where not `aimed`. UsageError."""
    name, _, aim = text.partition(":")
    if name not in KINDS:
        raise UsageError(f"There is no accident {name!a}; there is {', '.join(KINDS)}.")
    aims = KINDS[name].aims
    if (aim and aim not in aims) or (aimed and aims and not aim):
        what = f"is aimed at {', '.join(aims)}" if aims else "is aimed at nobody"
        raise UsageError(f"{text!a} is no accident: {name} {what}.")
    return text


def kinds_of(verb: str) -> list[str]:
    """All kinds that a group of this verb can stand, but for quiet."""
    return [n for n, kind in KINDS.items() if n != QUIET and (verb == "kv" or not kind.store)]


def schedule(seed: int, kinds: Sequence[str], longest: float) -> Iterator[Accident]:
    """All these kinds in an order of their own, again and again, without end.

    A window lasts up to `longest` seconds. A kind without an aim is aimed anew each time.
    """
    rng = random.Random(f"nemesis {seed}")

    def window(kind: str) -> Accident:
        aims = KINDS[kind].aims if kind in KINDS else ()
        aimed = f"{kind}:{rng.choice(aims)}" if aims else kind
        return Accident(aimed, round(rng.uniform(SHORTEST, longest), 3), rng.getrandbits(32))

    order = list(kinds)
    while True:
        rng.shuffle(order)
        for kind in order:
            yield window(kind)
            if rng.random() < QUIET_AFTER:
                yield window(QUIET)


# --- plans ---------------------------------------------------------------------------------------


class Plan(Record):
    """What happens to how many replicas; `seed` is that of all that no accident decides."""

    seed: int
    replicas: int
    accidents: tuple[Accident, ...]


def written(seed: int, replicas: int, accidents: Iterable[Accident]) -> str:
    """A plan as its file has it."""
    rows = [accident._asdict() for accident in accidents]
    plan = {"version": VERSION, "seed": seed, "replicas": replicas, "accidents": rows}
    return json.dumps(plan) + "\n"


def read_plan(path: str) -> Plan:
    """NotFoundError; UsageError, with what makes no sense in it."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read())
    except FileNotFoundError:
        raise NotFoundError(f"There is no plan {path}.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UsageError(f"{path} is no plan: {error}.") from None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise UsageError(f"{path} is no plan of version {VERSION}.")
    seed, replicas, rows = (found.get(name) for name in ("seed", "replicas", "accidents"))
    if not (_whole(seed) and _whole(replicas) and isinstance(rows, list) and rows):
        raise UsageError(f"{path} is no plan: it has a seed, replicas, and accidents.")
    accidents = tuple([_accident(path, number, row) for number, row in enumerate(rows, 1)])
    return Plan(found["seed"], found["replicas"], accidents)


def _accident(path: str, number: int, row: Any) -> Accident:
    where = f"{path}, accident {number}"
    if not isinstance(row, dict) or row.keys() != {"kind", "seconds", "seed"}:
        raise UsageError(f"{where}: it has kind, seconds and seed, and nothing else.")
    seconds = row["seconds"]
    if not isinstance(seconds, int | float) or not 0 <= seconds <= SECONDS_MAX:
        raise UsageError(f"{where}: it lasts 0 to {SECONDS_MAX:.0f} seconds, not {seconds!a}.")
    if not _whole(row["seed"]) or not isinstance(row["kind"], str):
        raise UsageError(f"{where}: its seed is a number, and its kind a text.")
    try:
        return Accident(check_kind(row["kind"], aimed=True), float(seconds), row["seed"])
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
