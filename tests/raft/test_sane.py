"""What a member does not hear, and that nothing a peer can say makes it stumble."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support import dose

from engine.contract import Durable, Finished, Received, peer
from engine.kernels.checksum import crc32c
from engine.raft.membership import founders, pack
from engine.raft.messages import (
    AppendEntries,
    AppendReply,
    Installed,
    InstallSnapshot,
    Propose,
    Read,
    SnapshotReply,
    StoreChunk,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from engine.raft.requests import AskStatus
from engine.raft.sane import NUMBER_MAX, CarefulRaft, sane
from engine.raft.settings import Settings
from engine.storage.entries import COMMAND, CONFIG, NOOP, Base, Entry, GroupLog

ADDRESSES = {1: "ipc://a", 2: "ipc://b", 3: "ipc://c"}
BASE = Base(1, 0, 0, pack(founders(ADDRESSES)))


def member(terms: tuple[int, ...] = (), term: int = 0, seed: int = 1) -> CarefulRaft:
    """Number 1 of three, with such a log."""
    log = GroupLog(term, 0, BASE, list(terms), [9] * len(terms), [], None)
    return CarefulRaft(Settings(1), log, [], random.Random(seed))


def entry(term: int, kind: int = COMMAND, body: bytes = b"x") -> Entry:
    return Entry(term, kind, crc32c(body), body)


def append(*entries: Entry, term: int = 3, sender: int = 2, **fields: Any) -> AppendEntries:
    ask = AppendEntries(term, sender, 1, 2, 2, 0, 0, entries)
    return ask._replace(**fields)


GOOD = [
    VoteRequest(3, 2, 1, 2, 2, False, False),
    VoteReply(3, 2, 1, True, True),
    append(),
    append(entry(2), entry(3), entry(3, NOOP, b""), entry(3, CONFIG, BASE.config)),
    AppendReply(3, 2, 1, 2, 0, True, 2, 0, 0, False, False),
    InstallSnapshot(3, 2, 1, 9, 3, 100, 90, b"0123456789"),
    SnapshotReply(3, 2, 1, 9, 100),
    TimeoutNow(3, 2, 1),
]


@pytest.mark.parametrize("message", GOOD, ids=lambda one: type(one).__name__)
def test_what_is_true_is_heard(message: Any) -> None:
    assert sane(member((1, 2), term=2), message)


@pytest.mark.parametrize("message", GOOD, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("number", [-1, NUMBER_MAX, 1 << 63])
def test_numbers_that_are_none(message: Any, number: int) -> None:
    for field, value in message._asdict().items():
        if type(value) is int:
            assert not sane(member((1, 2), term=2), message._replace(**{field: number})), field


BAD = {
    "another service's": AskStatus(1),
    "terms that fall": append(entry(3), entry(2)),
    "an entry before its log": append(entry(1)),
    "an entry after its term": append(entry(4)),
    "a log after its term": append(previous_term=4),
    "a kind of entry that is none": append(entry(3, 7)),
    "a flipped bit": append(entry(3)._replace(crc=1)),
    "a configuration that is none": append(entry(3, CONFIG, b"\xff")),
    "a group without voters": append(entry(3, CONFIG, b"")),
    "a piece behind the end": InstallSnapshot(3, 2, 1, 9, 3, 100, 91, b"0123456789"),
    "a snapshot of nothing": InstallSnapshot(3, 2, 1, 0, 0, 10, 0, b""),
    "a snapshot after its term": InstallSnapshot(3, 2, 1, 9, 4, 10, 0, b""),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_not_heard(what: str) -> None:
    assert not sane(member((1, 2), term=2), BAD[what])


def test_a_second_leader_of_a_term() -> None:
    raft = member((1, 2), term=2)
    link = peer("ipc://b")
    raft.step(0, [Received(link, append()), Received(link, append(sender=3))])
    assert (raft.leader, raft.malformed) == (2, 1)
    raft.step(0, [Received(link, InstallSnapshot(3, 3, 1, 9, 3, 10, 0, b""))])
    assert (raft.leader, raft.malformed) == (2, 2)
    raft.step(0, [Received(link, append(term=4, sender=3))])
    assert (raft.leader, raft.malformed) == (3, 2)


def test_nothing_takes_the_place_of_what_is_decided() -> None:
    raft = member((1, 2), term=2)
    link = peer("ipc://b")
    more = append(entry(3), entry(3), commit=3)
    other = append(entry(4), term=4, sender=3)
    raft.step(0, [Received(link, more), Received(link, other)])
    assert (raft.commit, raft.log.terms, raft.malformed) == (3, [1, 2, 3, 3], 1)
    raft.step(0, [Received(link, append(entry(4), term=4, sender=3, previous=3, previous_term=3))])
    assert (raft.log.terms, raft.malformed) == ([1, 2, 3, 4], 1)


def test_more_than_a_leader_has() -> None:
    raft = member((1, 2), term=2)
    reply = AppendReply(2, 2, 1, 2, 0, True, 3, 0, 0, False, False)
    assert not sane(raft, reply)
    assert sane(raft, reply._replace(match=2))
    assert sane(raft, reply._replace(term=1))


# --- by chance -----------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 3, 5, 17, 1 << 20, (1 << 31) - 1, 1 << 32, 1 << 53, 1 << 61, NUMBER_MAX - 1)


class Liar:
    """A peer that says anything, often almost right."""

    def __init__(self, raft: CarefulRaft, rng: random.Random) -> None:
        self.raft, self.rng = raft, rng

    def number(self, *near: int) -> int:
        rng = self.rng
        if near and rng.random() < 0.6:
            return max(0, rng.choice(near) + rng.randint(-2, 2))
        return rng.choice(NUMBERS) if rng.random() < 0.8 else rng.getrandbits(62)

    def entry(self, term: int) -> Entry:
        rng = self.rng
        one = pack(founders({rng.choice((1, 2, 3)): "ipc://*"}))
        body = rng.choice((b"", rng.randbytes(9), one, b"\xff" * 8))
        crc = crc32c(body) if rng.random() < 0.9 else 5
        kind = rng.choice((NOOP, COMMAND, COMMAND, CONFIG, rng.randrange(9)))
        return Entry(self.number(term), kind, crc, body)

    def says(self) -> Any:
        raft, rng, log = self.raft, self.rng, self.raft.log
        term = rng.choice((raft.term, raft.term, raft.term, raft.term + 1, self.number(raft.term)))
        if term > raft.term + 2 and rng.random() < 0.95:
            term = raft.term  # a term that is far away ends the lies about the present one
        me = rng.choice((1, 1, 1, 1, 2, self.number()))
        sender = rng.choice((2, 3, 2, 3, 1, self.number()))
        at = self.number(log.last, raft.commit, log.base)
        yes, lost = rng.random() < 0.5, rng.random() < 0.5
        entries = [self.entry(term) for _ in range(rng.randrange(4))]
        if yes:
            lower = [one._replace(term=min(one.term, term)) for one in entries]
            entries = sorted(lower, key=lambda one: one.term)
        there = log.term(at) if log.base <= at <= log.last else self.number(term)
        before = max(0, rng.choice((there, self.number(term))))
        n = self.number
        data = rng.randbytes(rng.randrange(100))
        return rng.choice((
            VoteRequest(term, sender, me, n(term), at, yes, lost),
            VoteReply(term, sender, me, yes, lost),
            AppendEntries(term, sender, me, at, before, n(raft.commit, log.last), n(),
                          tuple(entries)),
            AppendReply(term, sender, me, at, n(), yes, n(log.last), at, n(term), lost, not yes),
            InstallSnapshot(term, sender, me, at, n(term), n(100), rng.choice((0, n(0))), data),
            SnapshotReply(term, sender, me, at, n()),
            TimeoutNow(term, sender, me),
        ))  # fmt: skip


@pytest.mark.parametrize("seed", range(dose(60, 5000)))
def test_no_lie_makes_a_member_stumble(seed: int) -> None:
    """`step` never raises for anything a peer can send, and the invariants hold."""
    rng = random.Random(seed)
    raft = member(seed=seed)
    liar = Liar(raft, rng)
    jobs: list[Any] = []
    now = 0
    for turn in range(300):
        now += rng.choice((0, 1_000_000, 30_000_000, 200_000_000))
        events: list[Any] = [Received(peer(rng.choice(["ipc://b", "ipc://c", "ipc://x"])), says)
                             for says in (liar.says(), liar.says(), liar.says())]  # fmt: skip
        if raft.written > raft.durable and rng.random() < 0.7:
            events.append(Durable(raft.written))
        if rng.random() < 0.1:
            events += [Propose(turn, ((crc32c(b"x"), b"x"),)), Read(turn + 1_000_000)]
        for job in jobs:
            events.append(finished(job, rng))
        raft.step(now, events)
        jobs = list(raft.ready().jobs)
        raft.check()
    assert raft.malformed > 0


def finished(job: Any, rng: random.Random) -> Finished:
    work = job.work
    if type(work) is StoreChunk:
        return Finished(job.number, work.offset + len(work.data))
    if rng.random() < 0.5:
        return Finished(job.number, error="it is damaged")
    return Finished(job.number, Installed(work.last, work.term, BASE.config, work.size))
