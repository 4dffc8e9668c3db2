"""The view service as a pure machine: see `engine.views` for the rules.

A view goes on to the next one when it may and must, which is looked at after everything that
arrives and at the moment when somebody's silence becomes too long.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from engine.contract import Event, Link, Nanos, Overslept, Ready, Received, Send
from engine.record import Record
from engine.views.messages import NOBODY, PING_INTERVAL, Get, Ping, View

DEAD_PINGS = 5
SERVERS_MAX = 1024
"""Beyond that many, new servers are answered but not remembered."""
NAME_CHARACTERS_MAX = 512


class Settings(Record):
    """A server is dead when it was silent for `dead`."""

    dead: Nanos = DEAD_PINGS * PING_INTERVAL


class Heard(Record):
    """A server that pings, as it was last heard."""

    asked: int
    life: int
    number: int
    heard_at: Nanos


class ViewService:
    """See the module.

    Invariants: numbers only grow, by 1; the primary of a view was primary or ready backup of the
    one before; `acknowledged` is true only if the primary has pinged this number in the life that
    the view was made for, and `ready_backup` likewise.
    """

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        # Nothing here needs chance: `rng` is there because the contract promises it.
        self.settings = settings
        self.number, self.primary, self.backup = 0, NOBODY, NOBODY
        self.acknowledged = self.ready_backup = False
        self._lives: dict[str, int] = {}
        self._crashed: set[str] = set()
        self._servers: dict[str, Heard] = {}
        self._sends: list[Send] = []

    # --- the contract ----------------------------------------------------------------------------

    def step(self, now: Nanos, events: Sequence[Event]) -> None:
        """Take in every ping, forget the silent, go on to the next view if it is time."""
        asked: list[tuple[Link, int]] = []
        for event in events:
            if isinstance(event, Overslept) and event.by > self.settings.dead // 2:
                self._overslept(now)
            if not isinstance(event, Received):
                continue
            link, message = event
            if isinstance(message, Ping) and link.role == "server":
                self._ping(now, message)
            if isinstance(message, Ping | Get):
                asked.append((link, message.asked))
        self._forget(now)
        self._advance()
        lives = self._lives.get(self.primary, 0), self._lives.get(self.backup, 0)
        for link, number in asked:
            view = View(number, self.number, self.primary, lives[0], self.backup, lives[1])
            self._sends.append(Send(link, view))

    def ready(self) -> Ready:
        sends, self._sends = tuple(self._sends), []
        heard = min((server.heard_at for server in self._servers.values()), default=None)
        return Ready(now=sends, wake_at=None if heard is None else heard + self.settings.dead)

    def check(self) -> None:
        """What shows of the invariants here."""
        assert (self.number == 0) == (self.primary == NOBODY), (self.number, self.primary)
        assert self.primary != self.backup or self.number == 0, self.primary
        assert self._crashed <= {self.primary, self.backup}, self._crashed

    # --- servers ---------------------------------------------------------------------------------

    def _ping(self, now: Nanos, ping: Ping) -> None:
        name, before = ping.server, self._servers.get(ping.server)
        if not 0 < len(name) <= NAME_CHARACTERS_MAX:
            return
        if before is None:
            if len(self._servers) >= SERVERS_MAX:
                return
        elif ping.asked <= before.asked:
            return  # a late copy: it would make a server that goes on look as if it had restarted
        self._servers[name] = Heard(ping.asked, ping.life, ping.number, now)
        if name not in (self.primary, self.backup):
            return
        if self.number == 1 and not self.acknowledged:
            self._lives[name] = ping.life  # it has not served yet, so it has lost nothing
        known = before is not None and before.number > 0
        if self._lives[name] != ping.life or (ping.number == 0 and known):
            self._crashed.add(name)
        elif ping.number == self.number:
            self.acknowledged |= name == self.primary
            self.ready_backup |= name == self.backup

    def _forget(self, now: Nanos) -> None:
        for name, server in list(self._servers.items()):
            if now - server.heard_at >= self.settings.dead:
                del self._servers[name]

    def _overslept(self, now: Nanos) -> None:
        """Silence proves nothing when nobody listens: everybody gets time to ping again."""
        for name, server in self._servers.items():
            self._servers[name] = server._replace(heard_at=now)

    # --- views -----------------------------------------------------------------------------------

    def _alive(self, name: str) -> bool:
        return name in self._servers and name not in self._crashed

    def _idle(self) -> str:
        """A server in no part of the view, or one that lost its part by starting again."""
        for name in self._servers:
            if name not in (self.primary, self.backup) or name in self._crashed:
                return name
        return NOBODY

    def _advance(self) -> None:
        if self.number == 0:
            first = next(iter(self._servers), NOBODY)
            if first != NOBODY:
                self._go_on(first, NOBODY)
        elif self.acknowledged:
            if not self._alive(self.primary):
                if self._alive(self.backup) and self.ready_backup:
                    self._go_on(self.backup, self._idle())
            elif not self._alive(self.backup):
                idle = self._idle()
                if idle != NOBODY or self.backup != NOBODY:
                    self._go_on(self.primary, idle)

    def _go_on(self, primary: str, backup: str) -> None:
        self.number += 1
        self.primary, self.backup = primary, backup
        self.acknowledged = self.ready_backup = False
        self._crashed.clear()
        members = (name for name in (primary, backup) if name != NOBODY)
        self._lives = {name: self._servers[name].life for name in members}
