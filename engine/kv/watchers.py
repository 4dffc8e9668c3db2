"""Those who watch keys: a position for all who have heard everything, and never a queue for each.

What happens is taken from the history that the store keeps anyway, and laid before those whom it
concerns (`Interest`): nobody else is looked at, however many there are. Who begins, or was away, is
brought up to the others first, from the history; one that was away for too long is told so. A
watcher says how many answers it can take, and whoever has had them stands aside until it says more.

Nothing is done for all in one turn. What there is to do is counted in steps, of about a tenth of a
microsecond, and a turn has so many: what is left over comes in the next ones (`busy`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from typing import TypeAlias

from engine.contract import Link
from engine.kv.history import DELETE, Compacted, Event
from engine.kv.interest import Guest, Interest, Place, Watcher
from engine.kv.machine import Machine
from engine.kv.recent import KEPT, Recent
from engine.kv.requests import FRAME_BYTES_MAX, Watch, Watched, held_mark
from engine.kv.store import unpack_head, unpack_value

EVENTS_MAX = 1000
BYTES_MAX = 1 << 18
REVISION_BYTES_MAX = FRAME_BYTES_MAX
"""A transaction may change more than a message can carry, since appends make values long; then its
watchers are told to read the keys, as if it was compacted."""
WATCHES_MAX = 100_000
"""Of one link."""
PENDING_MAX = 1 << 16
"""Events that wait to be told. While there are more no others are looked at."""
STEPS_MAX = 8_000
"""Of one turn."""
LOOK, BEGIN, TELL, LEAVE = 2, 20, 100, 5
"""Steps for an event that is laid before somebody, or looked at for one; for a watcher that begins;
for one that is told; for one that has gone."""
CROWD = 64
"""Watchers who wait, from which on it is worth knowing which keys changed when."""

Told: TypeAlias = tuple[int, bytes, bool, bytes, int, int]


class Telling:
    """What some watchers of a place are told, of whom some may have been told already."""

    def __init__(self, place: Place, part: list[Event], upto: int) -> None:
        self.place, self.upto, self.at = place, upto, 0
        self.audience = place.everybody()
        self.begins = part[0][0]
        size = sum([len(key) + len(record) for _, _, key, record in part])
        self.too_long = size > REVISION_BYTES_MAX
        self.events = () if self.too_long else tuple(map(_told, part))
        self.steps = TELL + LOOK * len(part) + size // 256


class Watchers:
    """Asked once a turn for `news`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._guests: dict[Link, Guest] = {}
        self.many = 0
        """How many there are."""
        self._interest = Interest()
        self._at = 0
        """Up to this revision all was laid before those who stand in `_interest`."""
        self._recent = Recent(0, ())
        self._waiting: deque[Watcher] = deque()
        """Who is to be brought up to there."""
        self._due: deque[Place] = deque()
        """Places with pending events."""
        self._pending = 0
        self._telling: Telling | None = None
        self._gone: list[Guest] = []
        self._missed: list[Guest] = []
        """Whose watchers, if they stand elsewhere than in `_interest`, have missed something."""
        self._left = 0
        """Steps of this turn."""

    @property
    def busy(self) -> bool:
        """There is more to do, without waiting for anything."""
        behind = bool(self._interest) and self._at < self._machine.revision
        work = self._waiting or self._due or self._telling or self._gone or self._missed
        return bool(work) or behind

    # --- who watches -----------------------------------------------------------------------------

    def ask(self, link: Link, ask: Watch) -> None:
        """Begin, go on, or end."""
        guest = self._guests.get(link)
        if guest is None:
            guest = self._guests[link] = Guest(link)
        self._drop(guest, ask.number)
        if ask.credit <= 0 or len(guest.watches) >= WATCHES_MAX:
            return
        watcher = Watcher(guest, ask.number, ask.start, ask.end, ask.after, ask.credit)
        guest.watches[ask.number] = watcher
        guest.mark += held_mark(ask.number, ask.after, ask.credit)
        self.many += 1
        self._waiting.append(watcher)

    def _drop(self, guest: Guest, number: int) -> None:
        watcher = guest.watches.pop(number, None)
        if watcher is not None:
            guest.mark -= held_mark(number, watcher.told, watcher.credit)
            self.many -= 1
            if watcher.place is not None:
                watcher.place.home.leave(watcher)

    def held(self, link: Link) -> tuple[int, int]:
        """How many watches a link has, and the sum of their marks."""
        guest = self._guests.get(link)
        return (len(guest.watches), guest.mark) if guest is not None else (0, 0)

    def gone(self, link: Link) -> None:
        guest = self._guests.pop(link, None)
        if guest is not None:
            guest.here = False
            self.many -= len(guest.watches)
            self._gone.append(guest)

    def dismissed(self) -> list[tuple[Link, list[int]]]:
        """Everybody who was there, and is there no more."""
        all_of = [(g.link, [*g.watches]) for g in self._guests.values() if g.watches]
        for link in list(self._guests):
            self.gone(link)
        return all_of

    # --- a turn ----------------------------------------------------------------------------------

    def news(self) -> Iterator[tuple[Link, Watched]]:
        """For whom there is something; bounded. Each kind of work has a share of the steps that no
        other can take, and what it leaves is for those that follow."""
        self._left = STEPS_MAX // 8
        while self._gone and self._left > 0:
            self._clear(self._gone)
        self._left += STEPS_MAX // 4
        self._lay_out()
        self._left += STEPS_MAX // 8
        while self._missed and self._left > 0:
            yield from self._own_up()
        self._left += STEPS_MAX // 4
        for _ in range(len(self._waiting)):  # each once: some wait again
            if self._left <= 0:
                break
            yield from self._bring_up(self._waiting.popleft())
        self._left += STEPS_MAX // 4
        while (self._due or self._telling) and self._left > 0:
            yield from self._tell()

    def _clear(self, gone: list[Guest]) -> None:
        guest = gone[-1]
        while guest.watches and self._left > 0:
            _, watcher = guest.watches.popitem()
            if watcher.place is not None:
                watcher.place.home.leave(watcher)
            self._left -= LEAVE
        if not guest.watches:
            gone.pop()

    # --- what happened ---------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """Lay what happened before those whom it concerns, by whole revisions."""
        machine, history = self._machine, self._machine.history
        if not self._interest:
            if self._waiting and self._at < machine.revision:
                self._begin()
            return
        if self._at < history.compacted:
            self._miss()
            self._begin()
            return
        events, young = history.events, self._recent.young
        at = bisect_left(events, (self._at + 1, 0, b"", b""), lo=history.head)
        while at < len(events) and self._left > 0 and self._pending < PENDING_MAX:
            revision = events[at][0]
            while at < len(events) and events[at][0] == revision:
                event = events[at]
                at += 1
                young[event[2]] = revision
                self._left -= LOOK
                self._lay_before(event)
            self._at = revision
        if at == len(events):
            self._at = max(self._at, machine.revision)
        self._recent.turn(self._at)

    def _lay_before(self, event: Event) -> None:
        place = self._interest.keys.get(event[2])
        if place is not None:
            self._await(place, event)
        for place, concerned in self._interest.ranges(event[2]):
            self._left -= LOOK
            if concerned:
                self._await(place, event)

    def _await(self, place: Place, event: Event) -> None:
        if not place.pending:
            self._due.append(place)
        place.pending.append(event)
        self._pending += 1

    def _begin(self) -> None:
        """Nobody stands there: from here on."""
        self._at = self._machine.revision
        self._recent = Recent(self._at, ())

    def _remember(self) -> None:
        """Which keys changed when, of all that are known: one look for all who wait."""
        history = self._machine.history
        upto = bisect_left(history.events, (self._at + 1, 0, b"", b""), lo=history.head)
        since = max(history.head, upto - KEPT)
        floor = history.events[since - 1][0] if since > history.head else history.compacted
        if floor < self._recent.floor:
            self._recent = Recent(floor, history.events[since:upto])
            self._left -= LOOK * (upto - since)

    def _miss(self) -> None:
        """What was not laid out yet is not kept any more."""
        self._interest, self._due, self._pending, self._telling = Interest(), deque(), 0, None
        self._missed = list(self._guests.values())

    def _own_up(self) -> Iterator[tuple[Link, Watched]]:
        guest, compacted = self._missed.pop(), self._machine.history.compacted
        for watcher in list(guest.watches.values()) if guest.here else ():
            place = watcher.place
            if place is None or place.home is self._interest:
                continue
            self._left -= TELL
            if watcher.after < compacted:
                yield guest.link, self._compacted(watcher, compacted)
            else:  # it was told more elsewhere than was known here
                place.home.leave(watcher)
                self._waiting.append(watcher)

    # --- those who begin, or were away -----------------------------------------------------------

    def _bring_up(self, watcher: Watcher) -> Iterator[tuple[Link, Watched]]:
        """Up to the others, or so far as one look goes."""
        guest = watcher.guest
        if guest.watches.get(watcher.number) is not watcher or not guest.here:
            return
        self._left -= BEGIN
        if watcher.after < self._at and not self._was_still(watcher):
            told = self._scan(watcher)
            if told is not None:
                yield guest.link, told
            if told is not None and (told.compacted or watcher.credit <= 0):
                return
        if watcher.after >= self._at:
            self._interest.enter(watcher)
        else:
            self._waiting.append(watcher)

    def _was_still(self, watcher: Watcher) -> bool:
        """It is known that nothing happened to its key meanwhile."""
        if watcher.end is not None:
            return False
        if watcher.after < self._recent.floor and len(self._waiting) >= CROWD:
            self._remember()
        recent = self._recent
        if watcher.after < recent.floor or recent.last(watcher.start) > watcher.after:
            return False
        watcher.after = self._at
        return True

    def _scan(self, watcher: Watcher) -> Watched | None:
        """What it has to know of the history. None: nothing, up to where `after` is now."""
        machine = self._machine
        self._left -= LOOK * min(machine.revision - watcher.after, KEPT)
        try:
            events, after = machine.events(
                watcher.after, watcher.start, watcher.end, EVENTS_MAX, BYTES_MAX
            )
        except Compacted as gone:
            return self._compacted(watcher, gone.revision)
        watcher.after = after
        if not events:
            return None
        if sum([len(key) + len(record) for _, _, key, record in events]) > REVISION_BYTES_MAX:
            return self._compacted(watcher, after)
        self._left -= TELL + LOOK * len(events)
        return self._message(watcher, after, tuple(map(_told, events)))

    # --- those who are told ----------------------------------------------------------------------

    def _tell(self) -> Iterator[tuple[Link, Watched]]:
        telling = self._telling
        if telling is None:
            telling = self._telling = self._next_telling(self._due.popleft())
        audience = telling.audience
        while telling.at < len(audience) and self._left > 0:
            watcher = audience[telling.at]
            telling.at += 1
            if watcher.place is not telling.place or not watcher.guest.here:
                continue
            self._left -= telling.steps
            if telling.too_long:
                yield watcher.guest.link, self._compacted(watcher, telling.upto)
                continue
            events = telling.events
            if watcher.after >= telling.begins:
                events = tuple([one for one in events if one[0] > watcher.after])
            if events:
                watcher.after = telling.upto
                yield watcher.guest.link, self._message(watcher, telling.upto, events)
                if watcher.credit <= 0:
                    telling.place.home.leave(watcher)
        if telling.at == len(audience):
            self._telling = None

    def _next_telling(self, place: Place) -> Telling:
        """What is pending there, or whole revisions of it if it is much."""
        pending, size, cut = place.pending, 0, 0
        for at, event in enumerate(pending):
            if at and event[0] != pending[at - 1][0]:
                cut = at
            size += len(event[2]) + len(event[3])
            if cut and (at >= EVENTS_MAX or size > BYTES_MAX):
                break
        else:
            cut = len(pending)
        part, place.pending = pending[:cut], pending[cut:]
        self._pending -= cut
        self._left -= len(pending)
        if place.pending:
            self._due.append(place)
            return Telling(place, part, place.pending[0][0] - 1)
        return Telling(place, part, self._at)

    def _message(self, watcher: Watcher, after: int, events: tuple[Told, ...]) -> Watched:
        guest, number, since = watcher.guest, watcher.number, watcher.told
        guest.mark -= held_mark(number, since, watcher.credit)
        watcher.told = after
        watcher.credit -= 1
        guest.mark += held_mark(number, after, watcher.credit)
        return Watched(0, number, since, after, 0, events)

    def _compacted(self, watcher: Watcher, revision: int) -> Watched:
        """It ends."""
        self._drop(watcher.guest, watcher.number)
        return Watched(0, watcher.number, watcher.told, revision, revision, ())


def _told(event: Event) -> Told:
    revision, kind, key, record = event
    if kind == DELETE:
        return revision, key, True, b"", 0, 0
    head = unpack_head(record)
    return revision, key, False, unpack_value(record), head.create, head.version
