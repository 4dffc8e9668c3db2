"""What a replica of the labs' log machine (`told`) does for its clients and operators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.contract import Link, ReadAt, Send
from engine.raft import told
from engine.raft.front import ENTRY_BYTES_MAX, Front
from engine.raft.messages import Placed, Propose, Read, Refused
from engine.raft.requests import (
    COMMAND_BYTES_MAX,
    SUBMIT,
    SUBMITTED,
    Applied,
    Follow,
    Look,
    Rejected,
    Seen,
    Start,
    Started,
    Status,
    Submit,
)
from engine.record import Record
from engine.storage.entries import Entry

FOLLOW_BYTES_MAX = 1 << 20
FOLLOW_MOST = 10_000


class Batch(Record):
    """Commands that became one entry: who asked, and what number they gave it."""

    asked: list[tuple[Link, int]]


class ToldFront(Front):
    """Appends commands, counts them, and tells who follows what was applied."""

    bulk = SUBMIT

    def __init__(self) -> None:
        super().__init__()
        self.state = told.Told()
        self._followers: dict[Link, Follow] = {}

    # --- requests --------------------------------------------------------------------------------

    def bundle(self, batch: list[tuple[Link, bytes]]) -> Iterator[Propose]:
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
                self.reject(Batch([(link, number)]), why, 0, unknown=False)
                continue
            commands.append(command)
            asked.append((link, number))
            if size > ENTRY_BYTES_MAX:
                yield self.propose(told.pack(commands), self.placed, Batch(asked))
                commands, asked, size = [], [], 0
        if commands:
            yield self.propose(told.pack(commands), self.placed, Batch(asked))

    def request(self, link: Link, ask: Any) -> list[Any]:
        kind = type(ask)
        if kind is Look:
            return [Read(self.context(self._seen, (link, ask.number)))]
        if link.role == "client":
            if kind is Submit:
                self.malformed += 1  # that comes in bulk
        elif kind is Follow:
            self._followers[link] = ask
        elif kind is Start:
            body = told.pack([ask.command])
            return [self.propose(body, self._started, (link, ask.number))]
        return []

    def gone(self, link: Link) -> None:
        self._followers.pop(link, None)

    # --- what became of them ---------------------------------------------------------------------

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

    def reject(self, asked: Batch, why: str, leader: int, *, unknown: bool) -> None:
        self.outcomes["unknown" if unknown else "rejected"] += len(asked.asked)
        for link, numbers in by_link(asked.asked).items():
            rejected = Rejected(self.replica.raft.me, tuple(numbers), why, leader, unknown)
            self.say(link, rejected)

    # --- the state machine -----------------------------------------------------------------------

    def enact(self, place: int, entry: Entry) -> int:
        """The answer: how many commands there were before."""
        before = self.state.commands
        self.state.apply(entry)
        return before

    def done(self, asked: Batch, answers: int) -> int:
        self.outcomes["submitted"] += len(asked.asked)
        done: dict[Link, list[tuple[int, int]]] = {}
        for place, (link, number) in enumerate(asked.asked, answers + 1):
            done.setdefault(link, []).append((number, place))
        me, pack = self.replica.raft.me, msgpack.packb
        told = [(link, pack((me, pairs))) for link, pairs in done.items()]
        self.replica.answers(SUBMITTED, told)  # each a `Submitted`, as the codec writes it
        return len(asked.asked)

    def pieces(self) -> Iterator[bytes]:
        return self.state.pieces()

    def load(self, pieces: Iterator[bytes]) -> None:
        """A snapshot from the leader; what was waited for may be in it, or not."""
        self.state.load(pieces)
        self.forsake()

    # --- the end of a turn -----------------------------------------------------------------------

    def sends(self) -> list[Send]:
        for link, ask in list(self._followers.items()):
            if self.replica.applied > ask.after:
                del self._followers[link]
                self.say(link, self._applied(ask))
        return super().sends()

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
