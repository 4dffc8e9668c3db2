"""The lock server, primary or backup: see `engine.locks` for the story.

Roles and what ends them::

    primary ──── backup silent for `patience`, or gone ──► alone
       └──────── the backup serves by itself ────────────► retired
    backup ───── a client asks ──────────────────────────► serving alone
       └──────── the primary serves alone ───────────────► retired
    alone, both at once: a partition; each retires when it hears of the other

The network may lose, repeat and reorder; forwards are repeated until they are acknowledged, and
applied in the order of their numbers. Nothing here needs a disk: both servers start empty, and one
that starts again is a stranger (`Link.incarnation`) whom the other does not take for the old one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from engine.contract import (
    SECOND,
    Event,
    Link,
    Linked,
    Nanos,
    Overslept,
    Ready,
    Received,
    Send,
    peer,
)
from engine.locks.messages import (
    ACQUIRE,
    DONE,
    FORGOTTEN,
    INVALID,
    NAME_CHARACTERS_MAX,
    RELEASE,
    RETIRED,
    Alone,
    Answer,
    Applied,
    Forward,
    Operation,
    Refusal,
)
from engine.record import Record
from engine.relay import Relay
from engine.sessions import FORGOTTEN as UNKNOWN
from engine.sessions import NEW, REPEATED, Sessions

PRIMARY, BACKUP, ALONE, GONE = "primary", "backup", "alone", "retired"


class Settings(Record):
    """`role` is `PRIMARY` or `BACKUP`; `backup` is the backup's address, for the primary."""

    role: str
    backup: str = ""
    patience: Nanos = 2 * SECOND
    """The backup is given up after so long without an answer."""
    grace: Nanos = SECOND // 4
    """And after so long when its connection went: that may be its death or only a broken pipe."""
    retry: Nanos = SECOND // 20
    """What is not acknowledged is said again after so long."""


class LockServer:
    """See the module.

    Invariants: `applied` operations have taken effect here, in the order of their numbers;
    `_relay` holds those behind them, and only a primary has any. Whoever is `ALONE` or `GONE` never
    becomes anything else but `GONE`.
    """

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        # Nothing here needs chance: `rng` is there because the contract promises it.
        self.settings = settings
        self.role = settings.role
        self.held: set[str] = set()
        self.sessions = Sessions()
        self.applied = 0
        self._relay = Relay(settings.retry, lambda operation: 64 + 4 * len(operation.name))
        self._primary: int | None = None
        self._took_over = False
        """A backup that has served by itself: its primary must not go on."""
        self._patience = settings.patience
        self._give_up_at: Nanos | None = None
        self._warn_at: Nanos | None = None
        self._sends: list[Send] = []
        if settings.role == PRIMARY and not settings.backup:
            self.role = ALONE

    # --- the contract ----------------------------------------------------------------------------

    def step(self, now: Nanos, events: Sequence[Event]) -> None:
        """Take in what arrived, forward what is new, give up who is late."""
        for event in events:
            if isinstance(event, Received):
                self._take(now, event.link, event.message)
            elif isinstance(event, Linked) and event.link == self._backup:
                self._linked(now, event.up)
            elif isinstance(event, Overslept) and event.by > self.settings.grace:
                self._overslept(now)
        if self.role == PRIMARY:
            if self._give_up_at is not None and now >= self._give_up_at:
                self._go_alone(now)
            else:
                self._forward(now)
        elif self._warn_at is not None and now >= self._warn_at:
            self._warn(now)

    def ready(self) -> Ready:
        sends, self._sends = tuple(self._sends), []
        times = (self._give_up_at, self._warn_at, self._relay.wake_at)
        wake_at = min((when for when in times if when is not None), default=None)
        return Ready(now=sends, wake_at=wake_at)

    def check(self) -> None:
        """The invariants above, as far as they show here."""
        assert self.role == PRIMARY or not self._relay, (self.role, len(self._relay))
        self._relay.check()

    def _take(self, now: Nanos, link: Link, message: Any) -> None:
        if isinstance(message, Operation):
            self._ask(now, link, message)
        elif isinstance(message, Forward) and link.role == "server":
            self._follow(link, message)
        elif isinstance(message, Applied) and link == self._backup:
            self._acknowledged(now, message.number)
        elif isinstance(message, Alone) and link.role == "server":
            self._heard_alone(link)
        elif isinstance(message, Refusal) and link == self._backup:
            self._retire()

    # --- clients ---------------------------------------------------------------------------------

    def _ask(self, now: Nanos, link: Link, operation: Operation) -> None:
        client, sequence = operation.client, operation.sequence
        verdict = self.sessions.judge(client, sequence)
        if self.role == GONE:
            self._answer(link, operation, RETIRED, False)
        elif not _valid(operation):
            self._answer(link, operation, INVALID, False)
        elif verdict == REPEATED:
            self._answer(link, operation, DONE, self.sessions.answer(client))
        elif verdict == UNKNOWN:
            self._answer(link, operation, FORGOTTEN, False)
        elif verdict == NEW and self.role == PRIMARY:
            self._relay.add(operation, link)
        elif verdict == NEW:
            self._take_over()
            self._answer(link, operation, DONE, self._apply(operation))

    def _apply(self, operation: Operation) -> bool:
        """Let it take effect; whether it had one."""
        changed = (operation.name in self.held) == (operation.verb == RELEASE)
        if changed:
            self.held ^= {operation.name}
        self.sessions.keep(operation.client, operation.sequence, changed)
        self.applied += 1
        return changed

    def _answer(self, link: Link, operation: Operation, status: str, changed: bool) -> None:
        answer = Answer(operation.client, operation.sequence, status, changed)
        self._sends.append(Send(link, answer))

    # --- the primary -----------------------------------------------------------------------------

    @property
    def _backup(self) -> Link:
        return peer(self.settings.backup)

    def _forward(self, now: Nanos) -> None:
        if self._relay and self._give_up_at is None:
            self._give_up_at = now + self._patience
        for before, operations in self._relay.parts(now):
            forward = Forward(self.applied + before + 1, operations)
            self._sends.append(Send(self._backup, forward))

    def _acknowledged(self, now: Nanos, number: int) -> None:
        """The backup has these: they take effect here too, and are answered."""
        if self.role == PRIMARY and number > self.applied:
            self._take_effect(number - self.applied)
            self._give_up_at = now + self._patience if self._relay else None

    def _take_effect(self, count: int) -> None:
        for operation, link in self._relay.take(count):
            self._answer(link, operation, DONE, self._apply(operation))

    def _linked(self, now: Nanos, up: bool) -> None:
        self._patience = self.settings.patience if up else self.settings.grace
        if self.role == PRIMARY:
            self._give_up_at = now + self._patience if self._relay else None
            self._relay.again()  # what was said before it came is lost
        elif self.role == ALONE and up:
            self._warn(now)

    def _overslept(self, now: Nanos) -> None:
        """The backup may have answered, or even taken our place, while we were not there."""
        if self._give_up_at is not None:
            self._give_up_at = now + self.settings.patience
            self._relay.again()

    def _go_alone(self, now: Nanos) -> None:
        self.role, self._give_up_at = ALONE, None
        self._take_effect(len(self._relay))
        self._warn(now)

    def _warn(self, now: Nanos) -> None:
        """Should the backup be alive after all, it must not serve from what it has."""
        if self.role == ALONE and self.settings.backup:
            self._sends.append(Send(self._backup, Alone()))
            self._warn_at = now + self.settings.patience
        else:
            self._warn_at = None

    # --- the backup ------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """A backup that is asked takes the primary's place."""
        self._took_over |= self.settings.role == BACKUP
        self.role = ALONE

    def _follow(self, link: Link, forward: Forward) -> None:
        if self.settings.role != BACKUP:
            return
        if self._primary is None:
            self._primary = link.incarnation
        if self._took_over or link.incarnation != self._primary:
            self._sends.append(Send(link, Refusal()))
        elif self.role == BACKUP:
            known = self.applied + 1 - forward.first
            if known >= 0:
                for operation in forward.operations[known:]:
                    self._apply(operation)
            self._sends.append(Send(link, Applied(self.applied)))

    def _heard_alone(self, link: Link) -> None:
        if self.settings.role == BACKUP:
            if self._took_over:
                self._sends.append(Send(link, Refusal()))
            self._retire()

    def _retire(self) -> None:
        """Somebody else serves: whoever asked here may ask there."""
        self.role, self._give_up_at, self._warn_at = GONE, None, None
        for operation, link in self._relay.take(len(self._relay)):
            self._answer(link, operation, RETIRED, False)


def _valid(operation: Operation) -> bool:
    name = operation.name
    return operation.verb in (ACQUIRE, RELEASE) and 0 < len(name) <= NAME_CHARACTERS_MAX
