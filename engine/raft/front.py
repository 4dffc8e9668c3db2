"""What a replica does for those it serves, whatever its group carries.

Requests become events for the member, and what the member decides becomes answers. All commands of
one turn are one entry. A command is answered when its entry is applied here; if another entry is
applied at its place it was never done, and if this member stops leading before, nobody can say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from engine.contract import Link, Linked, Nanos, ReadAt, Received, Requests, Send
from engine.kernels.checksum import crc32c
from engine.raft.herd import Herd
from engine.raft.messages import Change, Placed, Propose, Refused, Transfer
from engine.raft.requests import AskStatus, HandOver, Ordered, Reconfigure, Status
from engine.record import Record
from engine.storage.entries import Entry

if TYPE_CHECKING:
    from engine.raft.serving import Serving

WINDOW = 1
"""Entries of clients' commands under way at a time."""
ENTRY_BYTES_MAX = 4 << 20
GONE = "this member does not lead any more"


class Waiting(Record):
    """Those who wait for the entry at `place`, of `term`."""

    place: int
    term: int
    asked: Any


class Front:
    """A `StateMachine` (`engine.raft.server`) and its counter. Subclasses say what an entry of
    clients' requests is (`bundle`), does (`enact`) and answers (`done`, `reject`)."""

    replica: Serving
    bulk = 0
    """The kind of message that clients ask in bulk with."""
    gossip: type | None = None
    """What the fronts of members tell each other, which is not for the member."""

    def __init__(self) -> None:
        self.malformed = 0
        self.outcomes = {"submitted": 0, "rejected": 0, "unknown": 0}
        self.herd = Herd()
        self.crowd = 0
        """Requests that went into the log together last."""
        self.lately = 0
        """In the last entry or round of reads."""
        self._sends: list[Send] = []
        self._context = 0
        self._asked: dict[int, tuple[Callable[..., None], Any]] = {}
        """By context: what to call with `Placed`, `Refused` or `ReadAt`, and with what besides."""
        self._intake: list[tuple[Link, bytes]] = []
        self._waiting: deque[Waiting] = deque()
        self._handing: list[int] = []
        """Contexts of orders to hand over leadership: no refusal in the same turn is consent."""

    # --- for subclasses --------------------------------------------------------------------------

    def take(self, batch: Iterable[tuple[Link, bytes]]) -> None:
        """What clients ask in bulk."""
        self._intake += batch

    def request(self, link: Link, ask: Any) -> list[Any]:
        """Another message of a client's or operator's: what the member is to hear of it."""
        return []

    def more(self, now: Nanos) -> list[Any]:
        """What else the member is to hear in this turn."""
        return []

    def hear(self, gossip: Any) -> None:
        """What another member's front says."""

    def gone(self, link: Link) -> None:
        """Whoever was there has left."""

    def bundle(self, batch: list[tuple[Link, bytes]]) -> Iterator[Propose]:
        """Entries of requests, by `propose`."""
        raise NotImplementedError

    def enact(self, place: int, entry: Entry) -> Any:
        """Do what the entry at this place says: the answers to it."""
        raise NotImplementedError

    def done(self, asked: Any, answers: Any) -> int:
        """An entry of ours was enacted: tell those who asked; how many they are."""
        raise NotImplementedError

    def reject(self, asked: Any, why: str, leader: int, *, unknown: bool) -> None:
        """It was not done, or nobody knows."""
        raise NotImplementedError

    def pieces(self) -> Iterator[bytes]:
        """As `StateMachine` says."""
        raise NotImplementedError

    def load(self, pieces: Iterator[bytes]) -> None:
        """As `StateMachine` says; what was waited for may be in it, or not (`forsake`)."""
        raise NotImplementedError

    def status(self, number: int) -> Status:
        """What operators are told."""
        raise NotImplementedError

    # --- requests --------------------------------------------------------------------------------

    def events(self, events: list[Any], now: Nanos) -> list[Any]:
        """What the member is to hear, in place of what others asked."""
        heard: list[Any] = []
        for event in events:
            kind = type(event)
            if kind is Requests:
                self.take(event.batch)
            elif kind is Received and event.link.role in ("client", "admin"):
                heard += self._request(event.link, event.message)
            elif kind is Received and type(event.message) is self.gossip:
                self.hear(event.message)
            else:
                if kind is Linked and not event.up:
                    self.gone(event.link)
                heard.append(event)
        if self.ripe(now):
            batch, self._intake = self._intake, []
            self.crowd = self.lately = len(batch)
            heard += self.bundle(batch)
        heard += self.more(now)
        return heard

    def due(self, now: Nanos) -> bool:
        """Whether a turn would have something to do even if nothing has arrived."""
        return self.ripe(now)

    def ripe(self, now: Nanos) -> bool:
        """Requests are here, and it is time for an entry with them.

        Each entry costs every member a sync and some turns, whatever it holds. So while one is
        under way others wait, and when it is done those who were answered are waited for (`Herd`).
        """
        return self.waits and self.herd.here(len(self._intake), now)

    @property
    def waits(self) -> bool:
        """Requests are here, and no entry is under way."""
        return bool(self._intake) and len(self._waiting) < WINDOW

    @property
    def until(self) -> Nanos | None:
        """When to look again if nothing arrives."""
        return self.herd.until if self.waits else None

    def propose(self, body: bytes, then: Callable[..., None], besides: Any) -> Propose:
        return Propose(self.context(then, besides), ((crc32c(body), body),))

    def context(self, then: Callable[..., None], besides: Any) -> int:
        """A number by which the member calls what it is asked."""
        self._context += 1
        self._asked[self._context] = then, besides
        return self._context

    def _request(self, link: Link, ask: Any) -> list[Any]:
        kind = type(ask)
        if link.role == "admin":
            if kind is AskStatus:
                self.say(link, self.status(ask.number))
                return []
            if kind is Reconfigure:
                return [Change(self.context(self._ordered, (link, ask.number)), ask.members)]
            if kind is HandOver:
                self._handing.append(self.context(self._ordered, (link, ask.number)))
                return [Transfer(self._handing[-1], ask.target)]
        return self.request(link, ask)

    # --- what became of them ---------------------------------------------------------------------

    def answered(self, answer: Placed | Refused) -> None:
        then, besides = self._asked.pop(answer.context)
        then(answer, besides)

    def confirmed(self, read: ReadAt) -> None:
        then, besides = self._asked.pop(read.context)
        then(read, besides)

    def placed(self, answer: Placed | Refused, asked: Any) -> None:
        """What to do with the entry of `bundle` that was proposed for those who `asked`."""
        if isinstance(answer, Placed):
            self._waiting.append(Waiting(answer.first, answer.term, asked))
        else:
            self.reject(asked, answer.why, answer.leader, unknown=False)

    def _ordered(self, answer: Placed | Refused | None, besides: tuple[Link, int]) -> None:
        link, number = besides
        if isinstance(answer, Refused):
            self.say(link, Ordered(number, answer.why, answer.leader))
        else:
            self.say(link, Ordered(number, "", 0))

    # --- the state machine -----------------------------------------------------------------------

    def apply(self, first: int, entries: tuple[Entry, ...]) -> None:
        waiting = self._waiting
        for place, entry in enumerate(entries, first):
            answers = self.enact(place, entry)
            while waiting and waiting[0].place <= place:
                one = waiting.popleft()
                if (one.place, one.term) == (place, entry.term):
                    many = self.done(one.asked, answers)
                    self.herd.answered(many, len(self._intake), self.replica.world.now())
                else:  # another leader's entry has its place
                    self.reject(one.asked, GONE, self.replica.raft.leader, unknown=False)

    # --- the end of a turn -----------------------------------------------------------------------

    def say(self, link: Link, message: Any) -> None:
        self._sends.append(Send(link, message))

    def sends(self) -> list[Send]:
        """Answers of this turn."""
        raft = self.replica.raft
        if self._waiting and not (raft.leader == raft.me and raft.term == self._waiting[-1].term):
            self.forsake()
        for context in self._handing:
            if context in self._asked:
                self._ordered(None, self._asked.pop(context)[1])
        self._handing.clear()
        sends, self._sends = self._sends, []
        return sends

    def forsake(self) -> None:
        """This member does not lead any more, and may never hear what becomes of these."""
        while self._waiting:
            asked = self._waiting.popleft().asked
            self.reject(asked, GONE, self.replica.raft.leader, unknown=True)
