"""A client's side of a watch: what was told, and who has to be told to go on."""

from __future__ import annotations

from collections import deque

from engine.contract import Nanos
from engine.kv.desk import LOOK_AGAIN, Desk
from engine.kv.history import Compacted
from engine.kv.requests import Watch, Watched
from engine.record import Record

CREDIT = 16
"""Answers that may come before we ask for more."""


class Event(Record):
    """A key was written, or with `deleted` is no more, at this revision."""

    revision: int
    key: bytes
    deleted: bool
    value: bytes
    created: int
    version: int


class Feed:
    """Of one watch. `tend` after each turn, until there is something to `take`.

    Whichever replica tells it goes on where the last one stopped: `after` moves by whole revisions,
    each of which is handed out once.
    """

    def __init__(self, desk: Desk, start: bytes, end: bytes | None, after: int) -> None:
        desk.known.number += 1
        self.ask = Watch(desk.known.number, start, end, after, CREDIT)
        self.handed = after
        self._events: deque[Event] = deque()
        self._told_by = ""
        self._credit = 0
        self._wait: Nanos = 0
        """Nobody is asked before: whoever was does not hear of anything."""

    def take(self) -> Event:
        """The next, of those that there are."""
        event = self._events.popleft()
        if not self._events or self._events[0].revision != event.revision:
            self.handed = event.revision
        return event

    def tend(self, desk: Desk) -> bool:
        """Take what was told, and see that somebody has us in mind; whether there is something.
        Compacted."""
        for one in desk.watched.pop(self.ask.number, ()):
            self._take(one)
        if self._events:
            return True
        if self.ask.number in desk.dismissed:
            desk.dismissed.remove(self.ask.number)
            self._told_by, self._credit = "", 0
            self._wait = desk.now + LOOK_AGAIN
        if desk.now < self._wait:
            desk.watch_by(self._wait)
            return False
        doubted = self.ask.number in desk.tellers.doubted
        if doubted or self._told_by not in desk.known.up or self._credit <= 0:
            self._ask(desk)
        return False

    def _ask(self, desk: Desk) -> None:
        """Whoever is asked now; another one that has us in mind need not go on."""
        before, self._told_by = self._told_by, desk.say_watch(self.ask)
        self._credit = CREDIT if self._told_by else 0
        if before != self._told_by:
            desk.end_watch(before, self.ask)

    def end(self, desk: Desk) -> None:
        """Whoever tells it need not go on."""
        desk.end_watch(self._told_by, self.ask)
        self._told_by, self._credit = "", 0

    def _take(self, told: Watched) -> None:
        if told.since > self.ask.after:
            self._credit = 0  # one before it was lost on the way: from where we are, again
            return
        if told.compacted:
            raise Compacted(told.compacted)
        self._credit -= 1
        if told.after > self.ask.after:
            # A replica that is behind may tell again what another one has told.
            fresh = [one for one in told.events if one[0] > self.ask.after]
            self._events.extend(Event(*one) for one in fresh)
            self.ask = self.ask._replace(after=told.after)
