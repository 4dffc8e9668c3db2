"""Clients of the simulated store: the shipped desk and feed, and what they ask and watch.

A `Customer` is a process with a desk and some lanes, each of which asks one thing after the other.
Some are patient, others give up and may never know. A `Watcher` follows a range from replica to
replica. Both tell the judge's books all that they are told.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from engine.contract import SECOND, Nanos
from engine.errors import EngineError, NotFoundError, OutcomeUnknown
from engine.kv import calls, commands
from engine.kv.calls import CompareFailed, Plan
from engine.kv.commands import OK, prefix_end
from engine.kv.desk import Desk, Ticket
from engine.kv.feed import Feed
from engine.kv.history import Compacted
from engine.kv.requests import READ
from engine.kv.trial_judge import LEASED, Lease
from engine.kv.trial_model import ABSENT
from engine.record import Record
from engine.sim.experiment import Violation
from engine.sim.timeline import MILLISECOND

if TYPE_CHECKING:
    from engine.kv.trial import StoreCluster

LEASES_MAX = 2
"""Of one customer."""
CHANGES = ("put", "append", "log", "cas", "cas", "revision", "version", "version", "txn")
WRITES = (*CHANGES, "delete", "delete")
VERSIONED = b"versioned"
"""Nobody deletes it: versions begin anew then, and a versioned put that is said again may be done
again."""
TXN = "txn "
NEWCOMERS = 0.5
"""How many compares expect no key: only that comes again, for all else is written once."""
KEPT = 20
"""Revisions that whoever compacts leaves."""


class Wanted(Record):
    """What a lane asks. `key` "": it is not for the search for an order. `tokens`: what the write
    puts there. `about`: a lease, or a range."""

    kind: str
    plan: Plan
    key: str = ""
    argument: Any = None
    tokens: tuple[bytes, ...] = ()
    about: Any = None


class Lane:
    """One thing at a time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.wanted: Wanted | None = None
        self.ticket: Ticket | None = None
        self.called: Nanos = 0
        self.led = False
        """Somebody had led when it was asked: of the wait for the first leader it is no part."""
        self.floor = 0


class Customer:
    """A process that asks."""

    def __init__(self, cluster: StoreCluster, number: int) -> None:
        rng = cluster.timeline.rng
        self.cluster, self.rng = cluster, rng
        self.name, self.number = f"client {number}", b"%d" % number
        names = list(cluster.members)
        servers = [*names[number % len(names) :], *names[: number % len(names)]]
        self.desk = Desk(servers, Random(rng.getrandbits(64)))
        self.lanes = [Lane(f"{number}.{lane}") for lane in range(cluster.plan["lanes"])]
        self.leases: list[int] = []
        self.known: dict[bytes, tuple[bytes | None, int, int]] = {}
        """Value, revision and version of keys, as last heard."""
        self._count = 0
        self.process = cluster.start(self.name, "client", self.desk)
        self.process.after_turn = self._look
        for lane in self.lanes:
            cluster.timeline.after(rng.randrange(200 * MILLISECOND), self._go_on, lane)

    @property
    def idle(self) -> bool:
        return all(lane.ticket is None for lane in self.lanes)

    # --- what it asks ----------------------------------------------------------------------------

    def _go_on(self, lane: Lane) -> None:
        if not self.cluster.calm and lane.ticket is None:
            patience = self.rng.choice(self.cluster.plan["patience"])
            self.ask(lane, self._choose(), patience)

    def ask(self, lane: Lane, wanted: Wanted, patience: Nanos | None = None) -> None:
        now = self.cluster.timeline.now
        plan = wanted.plan
        lane.wanted, lane.called, lane.floor = wanted, now, self.cluster.books.acknowledged
        lane.led = self.cluster.seen["led"] > 0
        self.cluster.timeline.note(self.name, "asks", lane.name, wanted.kind, plan.command)
        if wanted.key:
            self.cluster.history.call(now, lane.name, wanted.kind, wanted.key, wanted.argument)
        if wanted.about == TXN:  # what it does to each key by itself, of which this is less
            self.cluster.history.call(now, TXN + lane.name, "append", "both", wanted.tokens[1])
        lane.ticket = self.desk.ask(plan.how, plan.command, patience, now, once=plan.once)
        if wanted.kind == "revoke":
            self.cluster.books.leases[wanted.about].revoked = True
        self.process.wake()

    def token(self) -> bytes:
        self._count += 1
        return b"<%s.%d>" % (self.number, self._count)

    def _choose(self) -> Wanted:
        rng, plan = self.rng, self.cluster.plan
        key = b"key %d" % rng.randrange(plan["keys"])
        if rng.random() < plan["reads"]:
            return self._choose_read(key)
        if rng.random() < plan["leases"]:
            return self._choose_lease()
        if rng.random() < plan["locks"]:
            return self._choose_lock()
        kind = rng.choice(WRITES)
        return self.write(kind, key)

    def _choose_lock(self) -> Wanted:
        """A key that comes and goes: whoever finds none makes it, and deletes it again."""
        if (self.known.get(b"lock", ABSENT)[0] or b"").startswith(b"<%s." % self.number):
            return Wanted("delete", calls.delete(b"lock"), "lock")
        token = self.token()
        plan = calls.cas(b"lock", None, token)
        return Wanted("cas", plan, "lock", (None, token), (token,))

    def write(self, kind: str, key: bytes) -> Wanted:
        """One of these, with a text that nobody else writes."""
        key = VERSIONED if kind == "version" else key
        token, name = self.token(), key.decode()
        value, revision, version = self.known.get(key, ABSENT)
        if kind in ("cas", "revision") and self.rng.random() < NEWCOMERS:
            value, revision, version = ABSENT
        if kind == "put":
            return Wanted("put", calls.put(key, token), name, token, (token,))
        if kind == "append":
            return Wanted("append", calls.append(key, token), name, token, (token,))
        if kind == "log":
            return Wanted("append", calls.append(b"log", token), "log", token, (token,))
        if kind == "cas":
            return Wanted("cas", calls.cas(key, value, token), name, (value, token), (token,))
        if kind == "revision":
            plan = calls.cas_revision(key, revision, token)
            return Wanted("cas_revision", plan, name, (revision, token), (token,))
        if kind == "version":
            plan = calls.put_version(key, token, version)
            return Wanted("version", plan, name, (version, token), (token,))
        if kind == "delete":
            return Wanted("delete", calls.delete(key), name)
        other = self.token()
        plan = calls.txn(
            [commands.compare(key, commands.VALUE, commands.EQUAL, value)],
            [commands.put(key, token), commands.append(b"both", other), commands.get(b"log")],
            [commands.get(key), commands.get(b"log")],
        )
        return Wanted("cas", plan, name, (value, token), (token, other), TXN)

    def _choose_read(self, key: bytes) -> Wanted:
        kind = self.rng.choice(("get", "get", "get", "version", "log", "range", "local", "info"))
        if kind in ("get", "version"):
            key = VERSIONED if kind == "version" else key
            return Wanted("get", calls.get(key), key.decode())
        if kind == "log":
            return Wanted("get", calls.get(b"log"), "log")
        if kind == "local":
            return Wanted("local", calls.get(key, local=True), about=key)
        if kind == "range":
            start, end = self.rng.choice(((b"", b""), (b"k", b"l"), (LEASED, prefix_end(LEASED))))
            return Wanted("range", calls.page(start, end), about=(start, end))
        if self.rng.random() < 0.5:
            return Wanted("info", calls.info())
        upto = max(0, self.cluster.books.acknowledged - self.rng.randrange(KEPT))
        return Wanted("compact", calls.compact(upto))

    def _choose_lease(self) -> Wanted:
        rng = self.rng
        if not self.leases or (len(self.leases) < LEASES_MAX and rng.random() < 0.3):
            ttl = rng.choice((200, 400, 800)) * MILLISECOND
            return Wanted("grant", calls.lease_grant(ttl / SECOND), about=ttl)
        lease = rng.choice(self.leases)
        kind = rng.choice(("put", "put", "alive", "alive", "left", "revoke"))
        if kind == "put":
            token = self.token()
            key = LEASED + b"%d/%d" % (lease, rng.randrange(3))
            return Wanted("hang", calls.put(key, token, lease), tokens=(token,), about=lease)
        if kind == "alive":
            return Wanted("alive", calls.lease_alive(lease), about=lease)
        if kind == "left":
            return Wanted("left", calls.lease_left(lease), about=lease)
        self.leases.remove(lease)
        return Wanted("revoke", calls.lease_revoke(lease), about=lease)

    def abandon(self) -> None:
        """Nobody will ever know what becomes of what it still asks."""
        for lane in self.lanes:
            if lane.ticket is not None and lane.wanted is not None:
                if lane.wanted.key:
                    self.cluster.history.abandon(lane.name)
                if lane.wanted.about == TXN:
                    self.cluster.history.abandon(TXN + lane.name)

    # --- what it is told -------------------------------------------------------------------------

    def _look(self) -> None:
        for lane in self.lanes:
            if lane.ticket is not None and lane.ticket.over:
                self._settle(lane, lane.ticket)
                lane.ticket = None
                pause = self.cluster.timeline.spread(self.cluster.plan["think"])
                self.cluster.timeline.after(pause, self._go_on, lane)

    def _settle(self, lane: Lane, ticket: Ticket) -> None:
        wanted = lane.wanted
        assert wanted is not None
        cluster = self.cluster
        cluster.seen["said again"] += ticket.handed > 1
        try:
            if ticket.error is not None:
                raise ticket.error
            result = wanted.plan.meaning(ticket.answer, ticket.handed)
        except OutcomeUnknown as error:
            self._told(lane, "unknown", error)
            cluster.seen["unknown"] += 1
            cluster.seen["unknown, and led"] += lane.led
            if wanted.key:
                cluster.history.abandon(lane.name)
            if wanted.about == TXN:
                cluster.history.abandon(TXN + lane.name)
        except CompareFailed as error:  # of a version; others say so by their result
            self._told(lane, "not as expected", error)
            self._done(lane, wanted, ticket.answer, None)
        except EngineError as error:
            self._told(lane, "not done", error)
            self._not_done(lane, wanted, error)
        else:
            self._told(lane, "done", ticket.answer)
            self._done(lane, wanted, ticket.answer, result)

    def _told(self, lane: Lane, what: str, about: Any) -> None:
        self.cluster.timeline.note(self.name, "is told", lane.name, what, about)

    def _not_done(self, lane: Lane, wanted: Wanted, error: EngineError) -> None:
        self.cluster.seen["not done"] += 1
        for token in wanted.tokens:
            self.cluster.books.refused(lane.name, token)
        if wanted.key:
            self.cluster.history.fail(lane.name)
        if wanted.about == TXN:
            self.cluster.history.fail(TXN + lane.name)
        if wanted.kind in ("hang", "alive", "left") and isinstance(error, NotFoundError):
            self.cluster.books.gone(wanted.about)
            if wanted.about in self.leases:
                self.leases.remove(wanted.about)

    def _done(self, lane: Lane, wanted: Wanted, answer: tuple[Any, ...], result: Any) -> None:
        cluster, books = self.cluster, self.cluster.books
        cluster.done += 1
        cluster.seen["answered"] += 1
        books.answered(lane.name, answer, lane.floor, local=wanted.kind == "local")
        did = answer[0] == OK and (wanted.about != TXN or result.succeeded)
        for token in wanted.tokens:
            if did:
                books.done(lane.name, token, answer[1])
            else:
                books.refused(lane.name, token)
        if wanted.key:
            self._remember(lane, wanted, answer, result, did)
        elif wanted.kind == "local":
            books.got(lane.name, wanted.about, answer)
        elif wanted.kind == "range":
            start, end = wanted.about
            books.ranged(lane.name, start, end, answer)
        elif wanted.kind == "grant":
            self.leases.append(result[0])
            books.leases[result[0]] = Lease(wanted.about, lane.called)
        elif wanted.kind == "alive":
            books.lasts(wanted.about, lane.called)

    def _remember(
        self, lane: Lane, wanted: Wanted, answer: tuple[Any, ...], result: Any, did: bool
    ) -> None:
        """For the search for an order, and for what is asked next."""
        key, kind = wanted.key.encode(), wanted.kind
        told: Any = answer[1] if did else None
        if kind == "get":
            self.cluster.books.got(lane.name, key, answer)
            told = None if result is None else (result.value, result.modified, result.version)
            self.known[key] = told or ABSENT
        elif kind == "delete":
            told = result
            self.known[key] = ABSENT
        elif did and kind in ("put", "cas", "cas_revision", "version"):
            value = wanted.argument if kind == "put" else wanted.argument[1]
            self.known[key] = value, answer[1], 0 if wanted.about == TXN else answer[2]
        now, history = self.cluster.timeline.now, self.cluster.history
        history.finish(now, lane.name, told)
        if wanted.about == TXN and did:
            history.finish(now, TXN + lane.name, told)
        elif wanted.about == TXN:
            history.fail(TXN + lane.name)


class Watcher:
    """A process that watches."""

    def __init__(self, cluster: StoreCluster, number: int) -> None:
        rng = cluster.timeline.rng
        self.cluster = cluster
        self.name = f"watcher {number}"
        names = list(cluster.members)
        self.desk = Desk(rng.sample(names, len(names)), Random(rng.getrandbits(64)))
        self.range: tuple[bytes, bytes | None] = rng.choice(
            ((b"", b""), (b"", b""), (b"key", b"kez"), (LEASED, prefix_end(LEASED)), (b"log", None))
        )
        self.feed: Feed | None = None
        self.place = 0
        self._ticket: Ticket | None = None
        self._tellers: set[str] = set()
        self.process = cluster.start(self.name, "client", self.desk)
        self.process.after_turn = self._look

    @property
    def behind(self) -> bool:
        """There is something that it was not told yet."""
        books = self.cluster.books
        if self.feed is None:
            return True
        return books.next_for(self.place, *self.range) < len(books.events)

    def _look(self) -> None:
        if self.feed is None:
            self._begin()
        if self.feed is not None:
            try:
                while self.feed.tend(self.desk):
                    self._told(self.feed.take())
            except Compacted as error:
                self._compacted(self.feed, error)
        if self.desk.pending:
            self.process.wake()

    def _begin(self) -> None:
        """From what there is now on."""
        now = self.cluster.timeline.now
        if self._ticket is None:
            plan = calls.info()
            self._ticket = self.desk.ask(READ, plan.command, None, now, once=False)
            self.process.wake()
        elif self._ticket.over:
            revision = self._ticket.answer[1]
            self._ticket = None
            self.feed = Feed(self.desk, *self.range, revision)
            self.place = self.cluster.books.place_after(revision)

    def _told(self, event: Any) -> None:
        """The next of its range, and nothing else."""
        books, seen = self.cluster.books, self.cluster.seen
        seen["watched"] += 1
        assert self.feed is not None
        teller = self.feed._told_by
        if teller and teller not in self._tellers:
            seen["watch resumed elsewhere"] += bool(self._tellers)
            self._tellers.add(teller)
        place = books.next_for(self.place, *self.range)
        wanted = books.events[place] if place < len(books.events) else None
        if event != wanted:
            raise Violation(f"6: {self.name} is told {event}, and the next is {wanted}")
        self.place = place + 1

    def _compacted(self, feed: Feed, error: Compacted) -> None:
        if not feed.ask.after < error.revision <= self.cluster.books.compacted:
            raise Violation(f"6: {self.name} is told at {feed.ask.after}: {error}")
        self.cluster.seen["watch compacted"] += 1
        self.feed = None
        self.process.wake()
