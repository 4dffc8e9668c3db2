"""What is decided about a link: the fate of each message, who is cut off, what is counted.

A link is a directed pair of names (source, destination); the source dials. It has two ways,
`REQUEST` (from the dialer) and `REPLY` (from the listener). Nothing here knows sockets or time.

A message of the endpoints' own handshake (an envelope of kind 1 to 15) is outside the weather and
uncounted; a cut drops it and a hold delays it like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from engine.contract import Nanos
from engine.faults.zmtp import Message
from engine.record import Record
from engine.sim.weather import CALM, Weather
from engine.wire import envelope

REQUEST, REPLY = 0, 1
WAYS = {"request": (REQUEST,), "reply": (REPLY,), "both": (REQUEST, REPLY)}
NAMES = ("request", "reply")

HANDSHAKE_KINDS = range(16)
PROBE = 7
"""The one kind of those that nobody misses."""
KIND_AT = 5

UNCOUNTED = -1
"""Size of a message that is not counted."""


class Counts(Record):
    """Of one link, or of several together. Of each way:

    taken + duplicated = delivered + lost (+ swallowed) + what is still on its way.
    """

    requests: int = 0
    """Taken from the dialer, whatever became of them."""
    requests_delivered: int = 0
    requests_lost: int = 0
    """By the weather, in a cut, or with their connection."""
    requests_duplicated: int = 0
    request_bytes: int = 0
    """Of the requests taken, without the envelopes' headers."""
    replies: int = 0
    replies_delivered: int = 0
    replies_lost: int = 0
    replies_duplicated: int = 0
    reply_bytes: int = 0
    """Of the replies delivered, without the envelopes' headers."""
    swallowed: int = 0

    @property
    def lost(self) -> int:
        return self.requests_lost + self.replies_lost

    @property
    def duplicated(self) -> int:
        return self.requests_duplicated + self.replies_duplicated


def generator(seed: int, source: str, destination: str, way: int) -> Random:
    """The chance of one way of a link: one does not disturb the other."""
    return Random(f"{seed}/{source}/{destination}/{NAMES[way]}")


class Verdict(Record):
    """What is to happen to a message: `delays` of its copies; `size` is what is counted."""

    what: str
    """`request` or `reply`, `handshake`, or `swallowed`."""
    delays: tuple[Nanos, ...]
    size: int


class Way:
    """One direction of a link."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.cut = False
        self.hold: Nanos = 0
        self.taken = self.taken_bytes = 0
        self.delivered = self.delivered_bytes = 0
        self.lost = self.duplicated = 0

    def arrived(self, size: int) -> None:
        """A copy was handed on."""
        if size != UNCOUNTED:
            self.delivered += 1
            self.delivered_bytes += size

    def failed(self, size: int) -> None:
        """A copy could not be handed on."""
        self.lost += size != UNCOUNTED


class Link:
    """One directed link."""

    def __init__(self, seed: int, number: int, source: str, destination: str) -> None:
        self.number, self.source, self.destination = number, source, destination
        self.target = ""
        self.ways = tuple(Way(generator(seed, source, destination, way)) for way in WAYS["both"])
        self.weather = CALM
        self.refused = False
        self.silent = False
        """A reply was swallowed: nothing passes, and no end is seen, for `hide` more after it."""
        self.hide: Nanos = 0
        self.swallowed = 0
        self._armed = False
        self._awaited: int | None = None

    def blocked(self, way: int) -> bool:
        """Whether nothing passes this way."""
        return self.silent or self.ways[way].cut

    @property
    def disturbed(self) -> bool:
        """Whether nothing passes one way or the other, so that no connection can be made."""
        return self.blocked(REQUEST) or self.blocked(REPLY)

    def take(self, way: int, message: Message, connection: int, *, doomed: bool = False) -> Verdict:
        """Decide about a message that a connection brought; `doomed`: it came through a cut."""
        kind, size = kind_and_size(message)
        state = self.ways[way]
        lost = doomed or self.blocked(way)
        if kind in HANDSHAKE_KINDS:
            delays = () if lost else (state.hold,)
            return Verdict("handshake" if kind != PROBE else "probe", delays, UNCOUNTED)
        state.taken += 1
        state.taken_bytes += size
        if lost:
            fates: tuple[Nanos, ...] = ()
        elif way == REQUEST and self._armed:
            self._armed, self._awaited = False, connection
            fates = (0,)
        elif way == REPLY and self._awaited == connection:
            self._awaited, self.silent = None, True
            self.swallowed += 1
            return Verdict("swallowed", (), size)
        elif way == REQUEST:
            fates = self.weather.request_fates(state.rng)
        else:
            fates = self.weather.reply_fates(state.rng)
        state.lost += not fates
        state.duplicated += max(0, len(fates) - 1)
        if state.hold:
            fates = tuple([fate + state.hold for fate in fates])
        return Verdict(NAMES[way], fates, size)

    def swallow(self, hide: Nanos) -> None:
        """Deliver the next request and swallow its reply."""
        self._armed, self._awaited, self.hide = True, None, hide

    def closed(self, connection: int) -> None:
        """A connection is gone. If it owed the reply to be swallowed, the next request's is."""
        if self._awaited == connection:
            self._armed, self._awaited = True, None

    def obey(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Set what a rule says. The last rule about a thing wins, so rules can be replayed."""
        if name == "weather":
            self.weather = Weather._make(tuple(a) if isinstance(a, list) else a for a in arguments)
        elif name == "cut":
            for way in WAYS[arguments[0]]:
                self.ways[way].cut = True
        elif name == "heal":
            self.silent = False
            for state in self.ways:
                state.cut = False
        elif name == "hold":
            for way in WAYS[arguments[0]]:
                self.ways[way].hold = arguments[1]
        else:
            self.refused = name == "refuse"

    def counts(self) -> Counts:
        request, reply = self.ways
        return Counts(
            requests=request.taken,
            requests_delivered=request.delivered,
            requests_lost=request.lost,
            requests_duplicated=request.duplicated,
            request_bytes=request.taken_bytes,
            replies=reply.taken,
            replies_delivered=reply.delivered,
            replies_lost=reply.lost,
            replies_duplicated=reply.duplicated,
            reply_bytes=reply.delivered_bytes,
            swallowed=self.swallowed,
        )


RULES = ("weather", "cut", "heal", "hold", "refuse", "accept")


class Links:
    """All links, and the rules given so far, which hold for links made later as well."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._links: dict[tuple[str, str], Link] = {}
        self._rules: dict[tuple[str, str, str, str], tuple[Any, ...]] = {}

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links.values())

    def get(self, source: str, destination: str) -> Link | None:
        return self._links.get((source, destination))

    def make(self, source: str, destination: str) -> Link:
        """A new link, under all the rules."""
        link = Link(self._seed, len(self._links), source, destination)
        self._links[source, destination] = link
        for (name, *pattern, _), arguments in self._rules.items():
            if matches(link, *pattern):
                link.obey(name, arguments)
        return link

    def matching(self, source: str, destination: str) -> list[Link]:
        return [link for link in self if matches(link, source, destination)]

    def rule(self, name: str, source: str, destination: str, arguments: tuple[Any, ...]) -> None:
        """Keep a rule, and have all links that it is about obey it."""
        direction = arguments[0] if name in ("cut", "hold") else ""
        key = name, source, destination, direction
        # The same rule again takes the place of the earlier one, so they stay few; it goes to the
        # end, because the last one wins.
        self._rules.pop(key, None)
        self._rules[key] = arguments
        for link in self.matching(source, destination):
            link.obey(name, arguments)


def matches(link: Link, source: str, destination: str) -> bool:
    """Whether a rule's names, of which `*` is everybody, are those of the link."""
    return source in ("*", link.source) and destination in ("*", link.destination)


def kind_and_size(message: Message) -> tuple[int | None, int]:
    """(kind, bytes of the body) of an envelope; (None, bytes) of anything else."""
    raw, begin = message
    size = len(raw) - begin
    if size < envelope.HEADER.size or not raw.startswith(envelope.MAGIC, begin):
        return None, size
    return raw[begin + KIND_AT], size - envelope.HEADER.size
