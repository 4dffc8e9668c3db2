"""A server of the primary/backup store, in whatever part the view gives it: see `engine.backup`.

What it is in a view, and what follows::

    primary   serves once the view service has noted its ping of this view, and its backup, if there
              is one, has taken the whole table (`Part`, one at a time) and then every operation
    backup    takes the table, then applies what is forwarded, and only then pings the new number
    neither   keeps nothing: it may be made backup at any time, and is sent everything then

The network may lose, repeat and reorder: parts and operations are repeated until acknowledged, and
everything names the view that it is said in, so what is said in another view means nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from engine.backup.messages import (
    FORGOTTEN,
    WRONG_SERVER,
    Answer,
    Applied,
    Forward,
    Operation,
    Part,
    Taken,
)
from engine.backup.table import Table
from engine.contract import SECOND, Event, Link, Linked, Nanos, Ready, Received, Send, peer
from engine.record import Record
from engine.relay import Relay
from engine.sessions import FORGOTTEN as UNKNOWN
from engine.sessions import NEW, REPEATED
from engine.views.messages import NOBODY, PING_INTERVAL, Ping, View

PINGS_MAX = 64
"""Pings whose answers are still waited for; older ones are as good as lost."""
NUMBER_MAX = 1 << 62
"""Nobody has counted so far; a number beyond it could not be counted on from and sent."""


class Settings(Record):
    """`name` is the address that others dial; `life` differs from every earlier life's."""

    name: str
    views: str
    life: int
    ping: Nanos = PING_INTERVAL
    retry: Nanos = SECOND // 20
    """What is not acknowledged is said again after so long."""


class StoreServer:
    """See the module.

    Invariants: `holds` is the number of the view whose whole data `table` has, 0 if none; it is
    `view.number` for a primary, and for a backup once it has taken everything. Only a primary has
    operations waiting. `acts` is what it pings: it never falls, and is `view.number` at the latest
    when it serves.
    """

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        # Nothing here needs chance: `rng` is there because the contract promises it.
        self.settings = settings
        self.view = View(0, 0, NOBODY, 0, NOBODY, 0)
        self.table = Table()
        self.holds = self.acts = 0
        self.noted = 0
        """The last view that the view service is known to know that we act on."""
        self._relay = Relay(settings.retry, _weigh)
        self._copy: Iterator[Part] | None = None
        self._part: Part | None = None
        self._part_at: Nanos = 0
        self._incoming: tuple[int, int, Table] = (0, 0, self.table)
        self._pinged: dict[int, int] = {}
        self._asked = -1
        self._ping_at: Nanos = 0
        self._sends: list[Send] = []

    # --- the contract ----------------------------------------------------------------------------

    def step(self, now: Nanos, events: Sequence[Event]) -> None:
        """Take in what arrived, say what is new or due, ping if it is time."""
        for event in events:
            if isinstance(event, Received):
                self._take(event.link, event.message)
            elif isinstance(event, Linked) and event.up:
                self._linked(event.link)
        if self._serves:
            self._serve(now)
        if now >= self._ping_at:
            self._ping(now)

    def ready(self) -> Ready:
        sends, self._sends = tuple(self._sends), []
        times = [self._ping_at]
        if self._serves and self._part is not None:
            times.append(self._part_at)
        elif self._serves and self._relay.wake_at is not None:
            times.append(self._relay.wake_at)
        return Ready(now=sends, wake_at=min(times))

    def check(self) -> None:
        """The invariants above, as far as they show here."""
        assert self.primary or not self._relay, len(self._relay)
        assert not self.primary or self.holds == self.view.number, (self.holds, self.view)
        assert self.acts <= self.view.number, (self.acts, self.view)
        self._relay.check()

    def _take(self, link: Link, message: Any) -> None:
        if isinstance(message, Operation):
            self._ask(link, message)
        elif isinstance(message, View) and link == peer(self.settings.views):
            self._viewed(message)
        elif isinstance(message, Part) and link.role == "server":
            self._take_part(link, message)
        elif isinstance(message, Forward) and link.role == "server":
            self._follow(link, message)
        elif isinstance(message, Taken) and link == peer(self.view.backup):
            self._part_taken(message)
        elif isinstance(message, Applied) and link == peer(self.view.backup):
            self._acknowledged(message)

    def _linked(self, link: Link) -> None:
        """What was said to it before is lost."""
        if link == peer(self.settings.views):
            self._ping_at = 0
        elif self.view.backup != NOBODY and link == peer(self.view.backup):
            self._relay.again()
            self._part_at = 0

    # --- views -----------------------------------------------------------------------------------

    def _is(self, name: str, life: int) -> bool:
        return (name, life) == (self.settings.name, self.settings.life)

    @property
    def primary(self) -> bool:
        """Whether the view that we know says so; and if it is to be believed."""
        return self._is(self.view.primary, self.view.primary_life) and self.holds > 0

    @property
    def _serves(self) -> bool:
        """A primary that the view service has noted as such."""
        return self.primary and self.noted == self.view.number

    @property
    def backup(self) -> bool:
        return self._is(self.view.backup, self.view.backup_life)

    def _ping(self, now: Nanos) -> None:
        self._ping_at = now + self.settings.ping
        self._asked = max(now, self._asked + 1)
        self._pinged[self._asked] = self.acts
        while len(self._pinged) > PINGS_MAX:
            del self._pinged[next(iter(self._pinged))]
        ping = Ping(self._asked, self.settings.name, self.settings.life, self.acts)
        self._sends.append(Send(peer(self.settings.views), ping))

    def _viewed(self, view: View) -> None:
        if view.number > self.view.number:
            self._change(view)
        acted = self._pinged.pop(view.asked, 0)
        if acted == view.number == self.view.number:
            self.noted = acted

    def _change(self, view: View) -> None:
        """Another part to play. Whoever waits for an answer waits on, unless it is not ours."""
        held, self.view = self.holds, view
        self._copy = self._part = None
        self._relay.again()
        if self._is(view.primary, view.primary_life) and (view.number == 1 or held > 0):
            self.holds = self.acts = view.number
            if view.backup != NOBODY:
                self._copy = self.table.parts(view.number)
                self._next_part()
        else:
            self.holds = 0
            self._dismiss()
            if not self.backup:
                self.acts, self.table = view.number, Table()
        self._ping_at = 0

    def _dismiss(self) -> None:
        for operation, link in self._relay.take(len(self._relay)):
            self._answer(link, operation, WRONG_SERVER)

    # --- the primary -----------------------------------------------------------------------------

    def _ask(self, link: Link, operation: Operation) -> None:
        verdict = self.table.sessions.judge(operation.client, operation.sequence)
        if not self.primary:
            self._answer(link, operation, WRONG_SERVER)
        elif verdict == NEW:
            self._relay.add(operation, link)
        elif verdict == REPEATED:
            self._sends.append(Send(link, self.table.sessions.answer(operation.client)))
        elif verdict == UNKNOWN:
            self._answer(link, operation, FORGOTTEN)

    def _answer(self, link: Link, operation: Operation, status: str) -> None:
        answer = Answer(operation.client, operation.sequence, status, "")
        self._sends.append(Send(link, answer))

    def _serve(self, now: Nanos) -> None:
        """Alone at once; with a backup when it has everything: first the copy, then what waits."""
        if self.view.backup == NOBODY:
            self._take_effect(len(self._relay))
        elif self._part is not None:
            if now >= self._part_at:
                self._part_at = now + self.settings.retry
                self._sends.append(Send(peer(self.view.backup), self._part))
        else:
            for before, operations in self._relay.parts(now):
                first = self.table.number + before + 1
                forward = Forward(self.view.number, first, operations)
                self._sends.append(Send(peer(self.view.backup), forward))

    def _take_effect(self, count: int) -> None:
        for operation, link in self._relay.take(count):
            self._sends.append(Send(link, self.table.apply(operation)))

    def _part_taken(self, taken: Taken) -> None:
        if self.primary and self._part is not None and taken == (self._part.view, self._part.part):
            self._next_part()

    def _next_part(self) -> None:
        assert self._copy is not None
        self._part, self._part_at = next(self._copy, None), 0

    def _acknowledged(self, applied: Applied) -> None:
        if self.primary and applied.view == self.view.number and self._part is None:
            count = applied.number - self.table.number
            if count > 0:
                self._take_effect(count)

    # --- the backup ------------------------------------------------------------------------------

    def _is_ours(self, view: int) -> bool:
        """Whether this is said in our view, to us as its backup; if it is later, look at it."""
        if view > self.view.number:
            self._ping_at = 0
        return view == self.view.number and self.backup

    def _take_part(self, link: Link, part: Part) -> None:
        if not self._is_ours(part.view) or not 0 <= part.number < NUMBER_MAX:
            return
        if self.holds != part.view:
            view, expected, table = self._incoming
            if view != part.view:
                view, expected, table = part.view, 0, Table()
            if part.part == expected:
                table.take(part)
                expected += 1
                if part.last:
                    self.table, self.holds, self.acts = table, part.view, part.view
                    self._ping_at = 0
            self._incoming = view, expected, table
            if part.part >= expected:
                return  # one before it is missing
        self._sends.append(Send(link, Taken(part.view, part.part)))

    def _follow(self, link: Link, forward: Forward) -> None:
        if not self._is_ours(forward.view) or self.holds != forward.view:
            return
        known = self.table.number + 1 - forward.first
        if known >= 0:
            for operation in forward.operations[known:]:
                self.table.apply(operation)
        self._sends.append(Send(link, Applied(forward.view, self.table.number)))


def _weigh(operation: Operation) -> int:
    return 64 + len(operation.key) + len(operation.value)
