"""What a replica does for its clients and operators, with the labs' log machine behind it.

Requests become events for the member, and what the member decides becomes answers. All commands of
one turn are one entry. A command is answered when its entry is applied here; if another entry is
applied at its place it was never done, and if this member stops leading before, nobody can say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]

from engine.contract import Link, Linked, Nanos, ReadAt, Received, Requests, Send
from engine.kernels.checksum import crc32c
from engine.raft import told
from engine.raft.herd import Herd
from engine.raft.messages import Change, Placed, Propose, Read, Refused, Transfer
from engine.raft.requests import (
    COMMAND_BYTES_MAX,
    SUBMITTED,
    Applied,
    AskStatus,
    Follow,
    HandOver,
    Look,
    Ordered,
    Reconfigure,
    Rejected,
    Seen,
    Start,
    Started,
    Status,
    Submit,
)
from engine.record import Record
from engine.storage.entries import Entry

if TYPE_CHECKING:
    from engine.raft.replica import Replica

WINDOW = 1
"""Entries of clients' commands under way at a time."""
ENTRY_BYTES_MAX = 4 << 20
FOLLOW_BYTES_MAX = 1 << 20
FOLLOW_MOST = 10_000
GONE = "this member does not lead any more"


class Batch(Record):
    """Commands that became one entry: who asked, and what number they gave it."""

    asked: list[tuple[Link, int]]


class Waiting(Record):
    """For the entry at `place`, of `term`."""

    place: int
    term: int
    batch: Batch


class Front:
    """A `StateMachine` (`engine.raft.server`)."""

    replica: Replica

    def __init__(self) -> None:
        self.state = told.Told()
        self.herd = Herd()
        self.malformed = 0
        self.outcomes = {"submitted": 0, "rejected": 0, "unknown": 0}
        self._sends: list[Send] = []
        self._context = 0
        self._asked: dict[int, tuple[Callable[..., None], Any]] = {}
        """By context: what to call with `Placed`, `Refused` or `ReadAt`, and with what besides."""
        self._intake: list[tuple[Link, bytes]] = []
        self._waiting: deque[Waiting] = deque()
        self._followers: dict[Link, Follow] = {}
        self._handing: list[int] = []
        """Contexts of orders to hand over leadership: no refusal in the same turn is consent."""

    # --- requests --------------------------------------------------------------------------------

    def events(self, events: list[Any], now: Nanos) -> list[Any]:
        """What the member is to hear, in place of what others asked."""
        heard: list[Any] = []
        for event in events:
            kind = type(event)
            if kind is Requests:
                self._intake += event.batch
            elif kind is Received and event.link.role in ("client", "admin"):
                heard += self._request(event.link, event.message)
            else:
                if kind is Linked and not event.up:
                    self._followers.pop(event.link, None)
                heard.append(event)
        if self.ripe(now):
            batch, self._intake = self._intake, []
            heard += self._submit(batch)
        return heard

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

    def _submit(self, batch: list[tuple[Link, bytes]]) -> Iterator[Any]:
        unpack = msgpack.unpackb
        commands: list[bytes] = []
        asked: list[tuple[Link, int]] = []
        size = 0
        for link, body in batch:
            try:
                number, command = unpack(body, use_list=False, max_ext_len=0)
            except (ValueError, TypeError):
                self.malformed += 1
                continue
            if type(number) is not int or type(command) is not bytes:
                self.malformed += 1
                continue
            size += len(command)
            if len(command) > COMMAND_BYTES_MAX:
                why = f"a command has at most {COMMAND_BYTES_MAX} bytes"
                self._reject([(link, number)], why, 0, unknown=False)
                continue
            commands.append(command)
            asked.append((link, number))
            if size > ENTRY_BYTES_MAX:
                yield self._propose(commands, self._batched, Batch(asked))
                commands, asked, size = [], [], 0
        if commands:
            yield self._propose(commands, self._batched, Batch(asked))

    def _propose(self, commands: list[bytes], then: Callable[..., None], besides: Any) -> Propose:
        body = told.pack(commands)
        return Propose(self._new(then, besides), ((crc32c(body), body),))

    def _new(self, then: Callable[..., None], besides: Any) -> int:
        self._context += 1
        self._asked[self._context] = then, besides
        return self._context

    def _request(self, link: Link, ask: Any) -> list[Any]:
        kind = type(ask)
        if kind is Look:
            return [Read(self._new(self._seen, (link, ask.number)))]
        if link.role == "client":
            if kind is Submit:
                self.malformed += 1  # that comes in bulk
            return []
        if kind is AskStatus:
            self.say(link, self.status(ask.number))
        elif kind is Follow:
            self._followers[link] = ask
        elif kind is Start:
            return [self._propose([ask.command], self._started, (link, ask.number))]
        elif kind is Reconfigure:
            return [Change(self._new(self._ordered, (link, ask.number)), ask.members)]
        elif kind is HandOver:
            self._handing.append(self._new(self._ordered, (link, ask.number)))
            return [Transfer(self._handing[-1], ask.target)]
        return []

    # --- what became of them ---------------------------------------------------------------------

    def answered(self, answer: Placed | Refused) -> None:
        then, besides = self._asked.pop(answer.context)
        then(answer, besides)

    def confirmed(self, read: ReadAt) -> None:
        then, besides = self._asked.pop(read.context)
        then(read, besides)

    def _batched(self, answer: Placed | Refused, batch: Batch) -> None:
        if isinstance(answer, Placed):
            self._waiting.append(Waiting(answer.first, answer.term, batch))
        else:
            self._reject(batch.asked, answer.why, answer.leader, unknown=False)

    def _seen(self, answer: ReadAt | Refused, besides: tuple[Link, int]) -> None:
        link, number = besides
        me, state = self.replica.raft.me, self.state
        if isinstance(answer, Refused):
            self.say(link, Rejected(me, (number,), answer.why, answer.leader, False))
        else:
            self.say(link, Seen(me, number, state.commands, state.digest))

    def _started(self, answer: Placed | Refused, besides: tuple[Link, int]) -> None:
        link, number = besides
        if isinstance(answer, Refused):
            self.say(link, Started(number, 0, self.replica.raft.term))
            return
        before = self.replica.tail(self.replica.applied + 1, answer.first - 1)
        place = self.state.commands + sum(told.count_of(e.body) for e in before) + 1
        self.say(link, Started(number, place, answer.term))

    def _ordered(self, answer: Placed | Refused | None, besides: tuple[Link, int]) -> None:
        link, number = besides
        if isinstance(answer, Refused):
            self.say(link, Ordered(number, answer.why, answer.leader))
        else:
            self.say(link, Ordered(number, "", 0))

    def _reject(
        self, asked: list[tuple[Link, int]], why: str, leader: int, *, unknown: bool
    ) -> None:
        self.outcomes["unknown" if unknown else "rejected"] += len(asked)
        for link, numbers in by_link(asked).items():
            rejected = Rejected(self.replica.raft.me, tuple(numbers), why, leader, unknown)
            self.say(link, rejected)

    # --- the state machine -----------------------------------------------------------------------

    def apply(self, first: int, entries: tuple[Entry, ...]) -> None:
        waiting, state = self._waiting, self.state
        for place, entry in enumerate(entries, first):
            before = state.commands
            state.apply(entry)
            while waiting and waiting[0].place <= place:
                one = waiting.popleft()
                if (one.place, one.term) == (place, entry.term):
                    self._done(one.batch, before)
                else:  # another leader's entry has its place
                    self._reject(one.batch.asked, GONE, self.replica.raft.leader, unknown=False)

    def _done(self, batch: Batch, before: int) -> None:
        self.outcomes["submitted"] += len(batch.asked)
        self.herd.answered(len(batch.asked), len(self._intake), self.replica.world.now())
        done: dict[Link, list[tuple[int, int]]] = {}
        for place, (link, number) in enumerate(batch.asked, before + 1):
            done.setdefault(link, []).append((number, place))
        me, answer, pack = self.replica.raft.me, self.replica.answer, msgpack.packb
        for link, pairs in done.items():
            answer(link, SUBMITTED, pack((me, pairs)))  # a `Submitted`, as the codec writes it

    def pieces(self) -> Iterator[bytes]:
        return self.state.pieces()

    def load(self, pieces: Iterator[bytes]) -> None:
        """A snapshot from the leader; what was waited for may be in it, or not."""
        self.state.load(pieces)
        self._forsake()

    # --- the end of a turn -----------------------------------------------------------------------

    def say(self, link: Link, message: Any) -> None:
        self._sends.append(Send(link, message))

    def sends(self) -> list[Send]:
        """Answers of this turn."""
        raft = self.replica.raft
        if self._waiting and not (raft.leader == raft.me and raft.term == self._waiting[-1].term):
            self._forsake()
        for context in self._handing:
            if context in self._asked:
                self._ordered(None, self._asked.pop(context)[1])
        self._handing.clear()
        for link, ask in list(self._followers.items()):
            if self.replica.applied > ask.after:
                del self._followers[link]
                self.say(link, self._applied(ask))
        sends, self._sends = self._sends, []
        return sends

    def _forsake(self) -> None:
        """This member does not lead any more, and may never hear what becomes of these."""
        while self._waiting:
            asked = self._waiting.popleft().batch.asked
            self._reject(asked, GONE, self.replica.raft.leader, unknown=True)

    def _applied(self, ask: Follow) -> Applied:
        replica, state = self.replica, self.state
        if ask.after < replica.raft.log.base:
            return Applied(ask.number, replica.applied + 1, (), state.commands, state.digest)
        most = max(1, min(ask.most, FOLLOW_MOST))
        last = min(replica.applied, ask.after + most)
        entries = replica.log.entries(replica.group, ask.after + 1, last, FOLLOW_BYTES_MAX)
        told_as = tuple([(entry.term, entry.kind, entry.body) for entry in entries])
        return Applied(ask.number, ask.after + 1, told_as, state.commands, state.digest)

    def status(self, number: int) -> Status:
        return self.replica.status(number, self.state.commands, self.state.digest)


def by_link(asked: list[tuple[Link, int]]) -> dict[Link, list[int]]:
    """The numbers that each has asked for."""
    found: dict[Link, list[int]] = {}
    for link, number in asked:
        found.setdefault(link, []).append(number)
    return found
