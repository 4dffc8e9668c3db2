"""Who has which of a client's watches in mind, and whether what they know is what we know.

A question or an answer that is lost is not said twice, and there may be no later one by which it is
missed. To ask for each watch again now and then would be more than all else, where there are many;
so each replica that tells us something is asked once a second how many watches of ours it has, and
for a sum over how far each has been told. If that is not our own sum all of them are *doubted*, and
asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.contract import SECOND, Nanos
from engine.kv.requests import AskHeld, Held, Watch, Watched, held_mark

SILENCE: Nanos = SECOND
"""From one such question to the next. Whoever has not answered by then is not counted on."""


class Tellers:
    """By number: who was asked last for a watch, up to where it was told, what may come yet."""

    def __init__(self) -> None:
        self.doubted: set[int] = set()
        self._rows: dict[int, tuple[str, int, int]] = {}
        self._asked: dict[str, int] = {}
        """Questions without an answer."""
        self._moved: set[str] = set()
        """Who was told of watches since it was asked: its answer fits nothing that we know."""
        self._number = 0
        self._beat_at: Nanos = 0

    def of(self, number: int) -> str:
        """Who tells this watch; "" if nobody does."""
        row = self._rows.get(number)
        return row[0] if row is not None else ""

    def asked(self, server: str, ask: Watch, now: Nanos) -> None:
        if not self._rows:
            self._beat_at = max(self._beat_at, now + SILENCE)
        self._rows[ask.number] = server, ask.after, ask.credit
        self._moved.add(server)
        self.doubted.discard(ask.number)

    def ended(self, server: str, number: int) -> None:
        """By us."""
        if server and self.of(number) == server:
            self._moved.add(server)
            del self._rows[number]
            self.doubted.discard(number)

    def told(self, server: str, told: Watched) -> None:
        row = self._rows.get(told.number)
        if row is None or row[0] != server:
            return
        if told.compacted:
            del self._rows[told.number]
        else:
            self._rows[told.number] = server, told.after, row[2] - 1

    def gone(self, server: str) -> None:
        """Not linked any more."""
        self._asked.pop(server, None)

    # --- the beat --------------------------------------------------------------------------------

    @property
    def beat_at(self) -> Nanos | None:
        """When to ask next, if there is anything to ask."""
        return self._beat_at if self._rows else None

    def beat(self, now: Nanos, favourite: str, up: Iterable[str]) -> tuple[list[str], list[str]]:
        """Whom to ask, by `question`, and who is silent. Those are doubted, and whoever is not the
        one that we ask for everything else, if that one is there."""
        self._beat_at = now + SILENCE
        there = set(up)
        of: dict[str, list[int]] = {}
        for number, (server, _, _) in self._rows.items():
            of.setdefault(server, []).append(number)
        ask, silent = [], []
        for server, numbers in of.items():
            if server in self._asked:
                silent.append(server)
            if server in self._asked or (server != favourite and favourite in there):
                self._asked.pop(server, None)
                self.doubted.update(numbers)
            elif server in there:
                ask.append(server)
        return ask, silent

    def question(self, server: str) -> AskHeld:
        self._number += 1
        self._asked[server] = self._number
        self._moved.discard(server)
        return AskHeld(self._number)

    def held(self, server: str, held: Held) -> None:
        """An answer."""
        if self._asked.get(server) != held.number:
            return
        del self._asked[server]
        ours = [(n, after, credit) for n, (of, after, credit) in self._rows.items() if of == server]
        mark = sum([held_mark(*one) for one in ours])
        if server not in self._moved and (len(ours), mark) != (held.many, held.mark):
            self.doubted.update([one[0] for one in ours])
