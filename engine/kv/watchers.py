"""Those who watch keys: a position for each, and never a queue.

A watcher says how many answers it can take, and is told what happened after its position as soon as
there is something, from the history that the store keeps anyway. One that is slow, or away for a
while, costs nothing but its place; one that was away for too long is told so.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.contract import Link
from engine.kv.history import DELETE, Compacted
from engine.kv.history import Event as Change
from engine.kv.machine import Machine
from engine.kv.requests import FRAME_BYTES_MAX, Watch, Watched
from engine.kv.store import unpack_head, unpack_value

EVENTS_MAX = 1000
BYTES_MAX = 1 << 18
REVISION_BYTES_MAX = FRAME_BYTES_MAX
"""A transaction may change more than a message can carry, since appends make values long; then its
watchers are told to read the keys, as if it was compacted."""
SCANS_MAX = 64
"""Watchers that are looked after in one turn; the others have theirs in the next."""
WATCHES_MAX = 1000
"""Of one link."""


class Watchers:
    """Asked once a turn for `news`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._by_link: dict[Link, dict[int, Watch]] = {}
        self._told: dict[tuple[Link, int], int] = {}
        """Up to where each was told, which its position may be past: that was not for it."""
        self._turn: list[tuple[Link, int]] = []
        """Who has credit and may be behind, in the order in which they are served."""

    def ask(self, link: Link, ask: Watch) -> None:
        """Begin, go on, or end."""
        watches = self._by_link.setdefault(link, {})
        if ask.credit <= 0 or (len(watches) >= WATCHES_MAX and ask.number not in watches):
            watches.pop(ask.number, None)
            self._told.pop((link, ask.number), None)
            return
        watches[ask.number] = ask
        self._told[link, ask.number] = ask.after
        self._turn.append((link, ask.number))

    def gone(self, link: Link) -> None:
        for number in self._by_link.pop(link, ()):
            self._told.pop((link, number), None)

    def dismissed(self) -> list[tuple[Link, list[int]]]:
        """Everybody who was there, and is there no more."""
        all_of = [(link, [*watches]) for link, watches in self._by_link.items() if watches]
        self._by_link.clear()
        self._told.clear()
        self._turn.clear()
        return all_of

    @property
    def many(self) -> int:
        """How many there are."""
        return sum(map(len, self._by_link.values()))

    def news(self) -> Iterator[tuple[Link, Watched]]:
        """For whom there is something; bounded."""
        revision, turn = self._machine.revision, self._turn
        self._turn, left = [], SCANS_MAX
        seen: set[tuple[Link, int]] = set()
        for at, (link, number) in enumerate(turn):
            if not left:
                self._turn += turn[at:]
                return
            watch = self._by_link.get(link, {}).get(number)
            if watch is None or (link, number) in seen:
                continue
            seen.add((link, number))
            if watch.after < revision:
                left -= 1
                told = self._scan(watch, self._told[link, number])
                if told is not None:
                    yield link, told
                    watch = watch._replace(credit=watch.credit - 1)
                else:
                    watch = watch._replace(after=self._after)
                self._keep(link, watch, told)
            if watch.credit > 0 and number in self._by_link.get(link, {}):
                self._turn.append((link, number))

    _after = 0

    def _keep(self, link: Link, watch: Watch, told: Watched | None) -> None:
        if told is not None and told.compacted:
            self._by_link[link].pop(watch.number)
            self._told.pop((link, watch.number))
        else:
            if told is not None:
                self._told[link, watch.number] = self._after
            self._by_link[link][watch.number] = watch._replace(after=self._after)

    def _scan(self, watch: Watch, since: int) -> Watched | None:
        """None: nothing, up to `_after`."""
        number, start, end, after, _ = watch
        try:
            events, self._after = self._machine.events(after, start, end, EVENTS_MAX, BYTES_MAX)
        except Compacted as gone:
            self._after = gone.revision
            return Watched(0, number, since, gone.revision, gone.revision, ())
        if not events:
            return None
        if sum([len(key) + len(record) for _, _, key, record in events]) > REVISION_BYTES_MAX:
            return Watched(0, number, since, self._after, self._after, ())
        return Watched(0, number, since, self._after, 0, tuple(map(_told, events)))


def _told(event: Change) -> tuple[int, bytes, bool, bytes, int, int]:
    revision, kind, key, record = event
    if kind == DELETE:
        return revision, key, True, b"", 0, 0
    head = unpack_head(record)
    return revision, key, False, unpack_value(record), head.create, head.version
