"""Planted bugs: the classic mistakes of replicated stores, each as a small patch.

They are hunted by what the judge sees. Two are of the group underneath (`engine.raft.trial_bugs`):
what reads rest on is the group's, and what comes of it when it is broken is seen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.contract import Link, Nanos, Span
from engine.errors import ConnectionFailed
from engine.kv.desk import Desk, Ticket
from engine.kv.feed import Event, Feed
from engine.kv.front import StoreFront
from engine.kv.history import History
from engine.kv.leases import Lease, Leases
from engine.kv.machine import Machine
from engine.kv.requests import Watch, Watched
from engine.kv.sessions import LATE, NEW, REPEATED, Sessions
from engine.kv.state import State
from engine.kv.store import Store, Walk
from engine.kv.watchers import Watchers
from engine.raft.front import Front
from engine.raft.messages import Placed
from engine.raft.server import RaftServer
from engine.raft.trial_bugs import BUGS as RAFT_BUGS
from engine.sim.planting import Patch
from engine.storage.entries import Entry

# --- done once -----------------------------------------------------------------------------------


def _without_sessions(original: Any) -> Any:
    """A snapshot has the keys, but not what was answered to whom."""
    return lambda self, found: (original(self, found), self.sessions.load(()))


def _old_sessions_stay(original: Any) -> Any:
    """A replica that loads a snapshot keeps the sessions that it had besides."""
    return lambda self, rows: original(self, {**self.rows, **dict(rows)}.items())


def _always_new(original: Any) -> Any:
    """Whatever is asked again is done again."""

    def judge(*of: Any) -> Any:
        found = original(*of)
        return NEW if found == REPEATED else found

    return judge


def _late_is_new(original: Any) -> Any:
    """A request that was on its way for long is done, after later ones of its session."""

    def judge(*of: Any) -> Any:
        found = original(*of)
        return NEW if found == LATE else found

    return judge


def _failures_are_forgotten(original: Any) -> Any:
    """A compare that failed did nothing, so there is nothing to remember."""

    def keep(
        self: Sessions, session: bytes, sequence: int, time: Nanos, answer: bytes, *of: Any
    ) -> None:
        if answer[1] != 1:
            original(self, session, sequence, time, answer, *of)

    return keep


def _new_sequence(original: Any) -> Any:
    """Asking again is asking something new."""

    def packed(self: Desk, ticket: Ticket) -> Any:
        if ticket.key is not None and ticket.handed:
            ticket.key = [b"", 0]
        return original(self, ticket)

    return packed


def _session_of_a_connection(original: Any) -> Any:
    """Sessions end with the connection over which they were used."""

    def linked(self: Desk, link: Link, up: bool) -> None:
        if not up:
            for frame in self._frames.values():
                for ticket in frame.tickets:
                    if frame.address == link.principal and ticket.key is not None:
                        ticket.key = [b"", 0]
        original(self, link, up)

    return linked


# --- answers -------------------------------------------------------------------------------------


def _reads_at_once(original: Any) -> Any:
    """Whoever is asked answers from what it has."""

    def take(self: StoreFront, batch: Iterable[tuple[Link, bytes]]) -> None:
        original(self, batch)
        part, self._reads = self._reads, []
        self._answer("read_requests", part, [self.machine.read(frame) for _, frame in part])

    return take


def _leader_reads_at_once(original: Any) -> Any:
    """Whoever believes to lead answers, and does not ask the others whether it still does."""

    def take(self: StoreFront, batch: Iterable[tuple[Link, bytes]]) -> None:
        original(self, batch)
        if self._leads:
            part, self._reads = self._reads, []
            self._answer("read_requests", part, [self.machine.read(frame) for _, frame in part])

    return take


def _answered_when_placed(original: Any) -> Any:
    """It is in the leader's log, so it is as good as done."""

    def placed(self: StoreFront, answer: Any, asked: Any) -> None:
        if not isinstance(answer, Placed):
            original(self, answer, asked)
            return
        frames = []
        for _, frame in asked:
            number, *requests = msgpack.unpackb(frame, use_list=False)
            told = (0, self.machine.revision + 1, 1, ())
            frames.append(msgpack.packb((number, *([told] * len(requests)))))
        self._answer("write_requests", asked, frames)

    return placed


def _unknown_is_not_done(original: Any) -> Any:
    """A leader that is deposed says that what it had placed is not done."""

    def reject(self: StoreFront, asked: Any, why: str, leader: int, *, unknown: bool) -> None:
        original(self, asked, why, leader, unknown=False)

    return reject


def _too_late_is_not_done(_: Any) -> Any:
    """What was not answered in time was not done."""
    return lambda self, ticket: ConnectionFailed("nothing was done.")


# --- watches -------------------------------------------------------------------------------------


def _watch_skips(original: Any) -> Any:
    """A position moves past what there was no room for."""

    def after(self: History, *of: Any) -> Any:
        found, last = original(self, *of)
        return [one for one in found if one[0] == found[0][0]], last

    return after


def _watch_from_now(original: Any) -> Any:
    """Who watches is told what happens from now on, whatever it has seen."""

    def ask(self: Watchers, link: Link, ask: Watch) -> None:
        original(self, link, ask._replace(after=max(ask.after, self._machine.revision)))

    return ask


def _watch_repeats(_: Any) -> Any:
    """Who goes on elsewhere begins anew."""

    def take(self: Feed, told: Watched) -> None:
        self._credit -= 1
        self._events.extend(Event(*one) for one in told.events)

    return take


def _watch_compacted_unsaid(original: Any) -> Any:
    """What is not kept any more is passed over in silence."""

    def after(self: History, revision: int, *of: Any) -> Any:
        return original(self, max(revision, self.compacted), *of)

    return after


# --- leases --------------------------------------------------------------------------------------


def _local_clock(original: Any) -> Any:
    """Each replica ends leases by its own clock."""

    def enact(self: StoreFront, place: int, entry: Entry) -> Any:
        self.machine.time = max(self.machine.time, self.replica.world.now())
        return original(self, place, entry)

    return enact


def _time_of_the_machine(original: Any) -> Any:
    """A leader adds all that its clock shows to the time that it found."""

    def time(self: StoreFront, now: Nanos) -> Any:
        found = original(self, now)
        term, began, _ = self._since
        self._since = term, began, 0
        return found

    return time


def _not_kept_alive(_: Any) -> Any:
    """A keep-alive is answered, and the lease ends when it would have."""
    return lambda self, lease, time: None


def _leases_hang_loose(original: Any) -> Any:
    """After a snapshot nobody knows when the leases in it end."""

    def load(self: Leases, leases: Iterable[Lease]) -> None:
        original(self, leases)
        self._heap = []

    return load


def _nobody_ticks(_: Any) -> Any:
    """Leases end with the next entry, if there is ever one."""
    return lambda self: None


# --- replicas ------------------------------------------------------------------------------------


def _limit_of_its_own(original: Any) -> Any:
    """One replica is set up to take shorter values than the others."""

    def enact(self: StoreFront, place: int, entry: Entry) -> Any:
        if self.replica.raft.me == 1:
            self.machine.limits = self.machine.limits._replace(value_bytes=24)
        return original(self, place, entry)

    return enact


def _aside_forgotten(original: Any) -> Any:
    """What is deleted while a snapshot is taken is not in it."""

    def remove(self: Store, key: bytes) -> None:
        walks, self.walks = self.walks, []
        original(self, key)
        self.walks = walks

    return remove


def _made_later(original: Any) -> Any:
    """What is made while a snapshot is taken is in it."""
    return lambda self, key, old: original(self, key, old) if old else None


def _time_not_loaded(original: Any) -> Any:
    """A snapshot does not say what time it is."""

    def load(self: Machine, found: Iterator[bytes]) -> None:
        time = self.time
        original(self, found)
        self.time = time

    return load


def _half_a_history(original: Any) -> Any:
    """A snapshot does not say what is missing from its history."""

    def load(self: Machine, found: Iterator[bytes]) -> None:
        original(self, found)
        self.history.load(())

    return load


def _expires_at_once(original: Any) -> Any:
    """A lease ends with all others that are older."""

    def expire(self: State) -> None:
        time = self.time
        if self.leases.first() is not None:
            self.time += 100_000_000
        original(self)
        self.time = time

    return expire


def _overtaken_unnoticed(original: Any) -> Any:
    """A replica goes on with a snapshot of its own when it has become another one's."""

    def apply(self: RaftServer, span: Span) -> None:
        original(self, span)
        self._overtaken = False

    return apply


BUGS: dict[str, tuple[Patch, ...]] = {
    "snapshot_without_sessions": (Patch(Machine, "load", _without_sessions),),
    "old_sessions_stay": (Patch(Sessions, "load", _old_sessions_stay),),
    "repeated_is_done_again": (Patch(Sessions, "judge", _always_new),),
    "late_is_done": (Patch(Sessions, "judge", _late_is_new),),
    "failed_compare_is_forgotten": (Patch(Sessions, "keep", _failures_are_forgotten),),
    "new_sequence_when_asked_again": (Patch(Desk, "_packed", _new_sequence),),
    "session_of_a_connection": (Patch(Desk, "_linked", _session_of_a_connection),),
    "anybody_reads": (Patch(StoreFront, "take", _reads_at_once),),
    "leader_reads_at_once": (Patch(StoreFront, "take", _leader_reads_at_once),),
    "read_without_quorum": RAFT_BUGS["read_without_quorum"],
    "read_confirmed_by_the_past": RAFT_BUGS["read_confirmed_by_the_past"],
    "answered_when_placed": (Patch(Front, "placed", _answered_when_placed),),
    "deposed_says_not_done": (Patch(StoreFront, "reject", _unknown_is_not_done),),
    "too_late_is_not_done": (Patch(Desk, "_too_late", _too_late_is_not_done),),
    "watch_skips": (Patch(History, "after", _watch_skips),),
    "watch_begins_now": (Patch(Watchers, "ask", _watch_from_now),),
    "watch_repeats_elsewhere": (Patch(Feed, "_take", _watch_repeats),),
    "watch_hides_what_is_compacted": (Patch(History, "after", _watch_compacted_unsaid),),
    "expires_by_its_own_clock": (Patch(StoreFront, "enact", _local_clock),),
    "time_of_a_new_leader_is_fast": (Patch(StoreFront, "time", _time_of_the_machine),),
    "lease_ends_early": (Patch(State, "expire", _expires_at_once),),
    "lease_is_not_kept_alive": (Patch(Leases, "keep_alive", _not_kept_alive),),
    "lease_hangs_loose_when_loaded": (Patch(Leases, "load", _leases_hang_loose),),
    "lease_ends_with_the_next_entry": (Patch(Machine, "next_deadline", _nobody_ticks),),
    "limit_of_its_own": (Patch(StoreFront, "enact", _limit_of_its_own),),
    "aside_forgotten_on_delete": (Patch(Store, "remove", _aside_forgotten),),
    "snapshot_with_what_came_later": (Patch(Walk, "put_aside", _made_later),),
    "time_is_not_loaded": (Patch(Machine, "load", _time_not_loaded),),
    "snapshot_of_a_state_that_has_gone": (Patch(RaftServer, "_apply", _overtaken_unnoticed),),
    "history_is_not_loaded": (Patch(Machine, "load", _half_a_history),),
}
