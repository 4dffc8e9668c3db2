"""What a replica of the store does for its clients.

Frames of requests come in bulk and are not looked into: what is to be placed in the log is placed
as it came, behind a header with the time, and understood when it is applied. All reads of a turn
are confirmed by one round of the members, and answered here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.contract import SECOND, Link, Nanos, ReadAt, Send
from engine.kernels.bulk import asks, packed, told
from engine.kv.care import Care
from engine.kv.digests import EVERY, Digests
from engine.kv.machine import Machine
from engine.kv.requests import (
    ANSWERED,
    ASK,
    FRAME_BYTES_MAX,
    LOCAL,
    READ,
    WRITE,
    AskHeld,
    AskTime,
    Checked,
    Held,
    Time,
    Watch,
)
from engine.kv.slow import SlowRequests
from engine.kv.watchers import Watchers
from engine.raft.front import ENTRY_BYTES_MAX, Front
from engine.raft.herd import Herd
from engine.raft.machine import NOBODY
from engine.raft.messages import Propose, Read, Refused
from engine.raft.requests import Rejected, Status
from engine.storage.entries import COMMAND, Entry

TICK: Nanos = SECOND // 20
"""From one entry that only expires what is due to the next."""
HURRY: Nanos = SECOND // 200
"""The same, while more is due than one entry ends."""
REST: Nanos = SECOND // 1000
"""Between parts of what is told to many, while an entry or a round of reads is under way: the other
replicas may need the processor for it."""

STRAY: Nanos = SECOND
"""A replica that has known no leader for so long hears of nothing, and tells its watchers so. One
that is no member, or not yet, never hears of anything."""
ALONE = "this replica knows no leader"
ANSWER_BYTES_MAX = FRAME_BYTES_MAX
"""Of answers in one message: the wire takes not much more."""

Frames = list[tuple[Link, bytes]]


class StoreFront(Front):
    """The store as a `StateMachine`, and its counter."""

    bulk = ASK
    gossip = Checked
    every = EVERY
    """Entries, after which digests are compared."""

    def __init__(self, machine: Machine, quarantine: Callable[[str], None]) -> None:
        """`quarantine` ends this replica, for good, with a reason."""
        super().__init__()
        self.machine, self.quarantine = machine, quarantine
        self.digests = Digests()
        self.watchers = Watchers(machine)
        self.care = Care(self)
        self.slow = SlowRequests()
        self.readers = Herd()
        self.outcomes |= {"reads": 0, "local_reads": 0, "watched_events": 0}
        self.outcomes |= {"write_requests": 0, "read_requests": 0, "slow_requests": 0}
        self._reads: Frames = []
        self._reading = False
        self._before = b""
        self._since: tuple[int, Nanos, Nanos] = (0, 0, 0)
        """Of the term that this member leads: the replicated time with which it began, and when
        that was by our clock."""
        self._tick_at: Nanos = 0
        self._ticking = False
        self._led_at: Nanos | None = None
        """When a leader was known last, or when we began."""

    # --- requests --------------------------------------------------------------------------------

    def events(self, events: list[Any], now: Nanos) -> list[Any]:
        self.slow.now = now
        return super().events(events, now)

    def take(self, batch: Iterable[tuple[Link, bytes]]) -> None:
        for link, body in asks(batch, self._intake, self._reads, FRAME_BYTES_MAX):
            try:
                how, frame = msgpack.unpackb(body, use_list=False, max_ext_len=0)
            except (ValueError, TypeError):
                self.malformed += 1
                continue
            if type(frame) is not bytes:
                self.malformed += 1
            elif len(frame) > FRAME_BYTES_MAX:
                why = f"a frame has at most {FRAME_BYTES_MAX} bytes"
                self.reject([(link, frame)], why, 0, unknown=False)
            elif how == WRITE:
                self._intake.append((link, frame))
            elif how == READ:
                self._reads.append((link, frame))
            elif how == LOCAL:
                self.outcomes["local_reads"] += 1
                self._answer("read_requests", [(link, frame)], [self.machine.read(frame)])
            else:
                self.malformed += 1
        self.slow.came(len(self._intake), len(self._reads))

    def bundle(self, batch: Frames) -> Iterator[Propose]:
        self.slow.entry_goes()
        at = 0
        while at < len(batch):
            time = self.time(self.replica.world.now())
            body, upto = packed(self.replica.group, time, batch, at, ENTRY_BYTES_MAX)
            part = batch[at:upto] if upto - at < len(batch) else batch
            yield self.propose(body, self.placed, part)
            at = upto

    def request(self, link: Link, ask: Any) -> list[Any]:
        kind = type(ask)
        if kind is AskTime:
            self.say(link, Time(self.replica.raft.me, ask.number, self.machine.time))
        elif kind is Watch:
            if ask.credit > 0 and self._stray:
                self._turn_away(link, [ask.number])
            else:
                self.watchers.ask(link, ask)
        elif kind is AskHeld:
            self.say(link, Held(self.replica.raft.me, ask.number, *self.watchers.held(link)))
        elif link.role == "admin":
            self.care.ask(link, ask)
        return []

    def gone(self, link: Link) -> None:
        self.watchers.gone(link)
        self.care.gone(link)

    def more(self, now: Nanos) -> list[Any]:
        """A round for the reads that wait, and what has to expire."""
        heard: list[Any] = []
        for link, answer in self.care.answers():
            self.say(link, answer)
        if self._reads_ripe(now):
            part, self._reads = self._reads, []
            self._reading, self.lately = True, len(part)
            self.slow.round_goes()
            heard.append(Read(self.context(self._read, part)))
        if self._overdue(now):
            self._ticking = True
            self._tick_at = now + TICK
            body, _ = packed(self.replica.group, self.time(now), [], 0, 0)
            heard.append(self.propose(body, self._ticked, None))
        return heard

    def _reads_ripe(self, now: Nanos) -> bool:
        waits = bool(self._reads) and not self._reading
        return waits and self.readers.here(len(self._reads), now)

    @property
    def until(self) -> Nanos | None:
        times = [super().until]
        if self._reads and not self._reading:
            times.append(self.readers.until)
        if self.care.busy or self.watchers.busy:
            others = self._waiting or self._reading
            times.append(self.replica.world.now() + REST if others else 0)
        due = self.machine.next_deadline()
        if due is not None and self._leads and not self._ticking and not self._waiting:
            _, began, at = self._since
            times.append(max(self._next_tick(due), at + due - began))
        return min((time for time in times if time is not None), default=None)

    def due(self, now: Nanos) -> bool:
        return super().due(now) or self._reads_ripe(now) or self._overdue(now)

    # --- watchers --------------------------------------------------------------------------------

    _stray = False
    """Nothing will be heard here, as far as we know."""

    def _look_for_leader(self) -> None:
        """Watchers are sent away from where they would wait in vain."""
        now, led = self.replica.world.now(), self.replica.raft.leader != NOBODY
        if led or self._led_at is None:
            self._led_at = now
        stray, self._stray = self._stray, now - self._led_at > STRAY
        if self._stray and not stray:
            for link, numbers in self.watchers.dismissed():
                self._turn_away(link, numbers)

    def _turn_away(self, link: Link, numbers: Sequence[int]) -> None:
        me = self.replica.raft.me
        self.say(link, Rejected(me, tuple(numbers), ALONE, NOBODY, False))

    # --- time ------------------------------------------------------------------------------------

    @property
    def _leads(self) -> bool:
        raft = self.replica.raft
        return raft.leader == raft.me

    def time(self, now: Nanos) -> Nanos:
        """Replicated time: what the leader found when it began, and what passed for it since. It
        stands still while nobody leads, so what expires only ever lives longer."""
        term = self.replica.raft.term
        if self._since[0] != term:
            self._since = term, self.machine.time, now
        _, began, at = self._since
        return max(self.machine.time, began + now - at)

    def _overdue(self, now: Nanos) -> bool:
        due = self.machine.next_deadline()
        if due is None or self._ticking or self._waiting or not self._leads:
            return False
        return now >= self._next_tick(due) and due <= self.time(now)

    def _next_tick(self, due: Nanos) -> Nanos:
        left_over = due <= self.machine.time
        return self._tick_at - TICK + HURRY if left_over else self._tick_at

    def _ticked(self, answer: Any, _: None) -> None:
        self._ticking = False

    # --- what became of them ---------------------------------------------------------------------

    def _read(self, answer: ReadAt | Refused, part: Frames) -> None:
        self._reading = False
        if isinstance(answer, Refused):
            self.slow.refused(part, self.replica.world.now())
            self.reject(part, answer.why, answer.leader, unknown=False)
            return
        self.outcomes["reads"] += len(part)
        read = self.machine.read
        answers = [read(frame) for _, frame in part]
        self._answer("read_requests", part, answers)
        now = self.replica.world.now()
        self.slow.read(part, answers, now)
        self.readers.answered(len(part), len(self._reads), now)

    def _answer(self, what: str, part: Frames, answers: list[bytes]) -> None:
        """All that is for one link in one message, if it is not too much for one; each request
        counts as `what`."""
        before = self._before or self._begin()
        messages, requests, malformed = told(before, part, answers, ANSWER_BYTES_MAX)
        self.outcomes[what] += requests
        self.malformed += malformed
        self.replica.answers(ANSWERED, messages)

    def _begin(self) -> bytes:
        """How each `Answered` begins, as the codec writes it."""
        packer = msgpack.Packer(autoreset=False)
        packer.pack_array_header(2)
        packer.pack(self.replica.raft.me)
        self._before = packer.bytes()
        return self._before

    def reject(self, asked: Frames, why: str, leader: int, *, unknown: bool) -> None:
        self.outcomes["unknown" if unknown else "rejected"] += len(asked)
        of: dict[Link, list[int]] = {}
        for link, frame in asked:
            number = number_of(frame)
            if number is not None:
                of.setdefault(link, []).append(number)
        for link, numbers in of.items():
            self.say(link, Rejected(self.replica.raft.me, tuple(numbers), why, leader, unknown))

    # --- the state machine -----------------------------------------------------------------------

    def enact(self, place: int, entry: Entry) -> list[bytes]:
        answers = self.machine.apply(entry.body) if entry.kind == COMMAND else []
        if place % self.every == 0:
            self._check(place)
        return answers

    def _check(self, place: int) -> None:
        """Tell the others what we have, and see whether it is what they have."""
        raft, digest = self.replica.raft, self.machine.digest
        self.digests.note(raft.me, place, digest)
        for member, link in raft.members.links.items():
            if member != raft.me:
                self.say(link, Checked(raft.me, place, digest))
        self._judge()

    def hear(self, gossip: Checked) -> None:
        self.digests.note(gossip.sender, gossip.place, gossip.digest)
        self._judge()

    def _judge(self) -> None:
        raft = self.replica.raft
        place = self.digests.broken(raft.me, raft.members.voters)
        if place:
            self.quarantine(
                f"what this replica has after entry {place} is not what a majority of the others "
                "has: its memory, its disk or its program is broken"
            )

    def done(self, asked: Frames, answers: list[bytes]) -> int:
        self.outcomes["submitted"] += len(asked)
        self._answer("write_requests", asked, answers)
        self.slow.wrote(asked, answers, self.replica.raft.stable, self.replica.world.now())
        return len(asked)

    def forsake(self) -> None:
        for one in self._waiting:
            self.slow.lost(one.asked, self.replica.raft.stable, self.replica.world.now())
        super().forsake()

    def pieces(self) -> Iterator[bytes]:
        return self.machine.pieces()

    def load(self, pieces: Iterator[bytes]) -> None:
        """A snapshot from the leader; what was waited for may be in it, or not."""
        self.machine.load(pieces)
        self.forsake()

    def status(self, number: int) -> Status:
        machine = self.machine
        self.outcomes["slow_requests"] = self.slow.many
        status = self.replica.status(number, machine.revision, machine.digest)
        figures = {
            "keys": len(machine.store.table),
            "state_bytes": machine.size,
            "sessions": len(machine.sessions.rows),
            "leases": len(machine.leases.by_id),
            "watchers": self.watchers.many,
        }
        slow = self.slow.told(self.replica.world.now())
        return status._replace(figures=tuple(figures.items()), slow=slow)

    # --- the end of a turn -----------------------------------------------------------------------

    def sends(self) -> list[Send]:
        self._look_for_leader()
        if self._waiting:
            self.slow.look(self._waiting[-1].place, self.replica.raft.stable)
        for link, news in self.watchers.news():
            self.outcomes["watched_events"] += len(news.events)
            self.say(link, news._replace(sender=self.replica.raft.me))
        return super().sends()


def number_of(frame: bytes) -> int | None:
    """What its sender calls a frame."""
    try:
        number = msgpack.unpackb(frame, use_list=False, max_ext_len=0)[0]
    except (ValueError, TypeError, IndexError):
        return None
    return number if type(number) is int and 0 <= number < 1 << 63 else None
