"""What must hold of the store, whatever happens to its replicas and on the way to its clients.

The judge keeps books of its own, made where an entry is applied for the first time: what the state
is after each entry, every change by its revision, what each key was at each revision.

1 replicas that applied the same have the same · 2 an answer is of a revision that exists, and not
of one before what was acknowledged when it was asked for · 3 a read gives what its keys were at its
revision · 4 what is written once is there once, at the revision that was acknowledged · 5 what was
said not to be done is never done · 6 watchers are told every change once, in order · 7 a lease
lasts for its time from the moment at which it was last asked for, and ends after that · 8 there is
an order that explains what clients saw of each key (`engine.verify`) · 9 when all is well everybody
gets answers.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from engine.contract import Nanos
from engine.kernels.checksum import crc32c
from engine.kv.commands import COMPARE_FAILED, NOT_FOUND, OK
from engine.kv.feed import Event
from engine.kv.history import DELETE, matches
from engine.kv.machine import Machine
from engine.kv.store import unpack_head, unpack_value
from engine.sim.experiment import Violation

if TYPE_CHECKING:
    from engine.kv.trial import StoreCluster
    from engine.kv.trial_node import StoreNode

LEASED = b"lease/"
"""What such keys hang on ends them, and nobody else."""
Row = tuple[bytes, int, int, int, int]
"""value, create, mod, version, lease."""


def mark(machine: Machine) -> tuple[int, ...]:
    """What tells two states apart, cheaply."""
    sessions, history, leases = machine.sessions, machine.history, machine.leases
    first = leases.first()
    return (
        machine.digest,
        machine.revision,
        machine.time,
        len(machine.store.table),
        machine.store.size,
        len(sessions.rows),
        sessions.bytes,
        sessions.horizon,
        crc32c(b"".join(sessions.order)),
        history.compacted,
        len(history),
        history.bytes,
        len(leases.by_id),
        leases.greatest,
        0 if first is None else first.deadline,
    )


def token_of(value: bytes) -> bytes:
    """Which write made it: each ends its value with a text of its own."""
    return value[value.rfind(b"<") :]


class Lease:
    """As those know it who asked for it."""

    def __init__(self, ttl: Nanos, asked: Nanos) -> None:
        self.ttl, self.asked = ttl, asked
        self.revoked = False
        self.ended: Nanos | None = None


class Books:
    """Of one cluster."""

    def __init__(self, cluster: StoreCluster) -> None:
        self.cluster = cluster
        self.marks = [mark(Machine())]
        """By place of an entry."""
        self.events: list[Event] = []
        self.revision = self.compacted = 0
        self.acknowledged = 0
        """The latest revision that any client was told of by one who had to know."""
        self.leases: dict[int, Lease] = {}
        self.fastest = (1, 1)
        """Seconds that a clock may show in a second."""
        self._keys: dict[bytes, tuple[list[int], list[Row | None]]] = {}
        self._made: dict[bytes, int] = {}
        self._refused: set[bytes] = set()

    # --- replicas --------------------------------------------------------------------------------

    def applied(self, node: StoreNode, place: int, machine: Machine) -> None:
        """1. An entry was applied there."""
        found = mark(machine)
        if place < len(self.marks):
            self._same(node, place, found)
            return
        assert place == len(self.marks), (place, len(self.marks))
        self.marks.append(found)
        seen = self.cluster.seen
        seen["compacted"] += machine.history.compacted > self.compacted
        self.compacted = machine.history.compacted
        self._note(machine)

    def loaded(self, node: StoreNode, place: int, machine: Machine) -> None:
        """1. It became what a snapshot says."""
        self.cluster.seen["loaded"] += 1
        self._same(node, place, mark(machine))

    def _same(self, node: StoreNode, place: int, found: tuple[int, ...]) -> None:
        if self.marks[place] != found:
            raise Violation(
                f"1: {node.name} has {found} after entry {place}, others {self.marks[place]}"
            )

    def _note(self, machine: Machine) -> None:
        """What is new, from the history that the machine keeps."""
        fresh = []
        for event in reversed(machine.history.events):
            if event[0] <= self.revision:
                break
            fresh.append(event)
        for revision, kind, key, record in reversed(fresh):
            revisions, rows = self._keys.setdefault(key, ([0], [None]))
            if kind == DELETE:
                self._deleted(key, rows[-1])
                rows.append(None)
                self.events.append(Event(revision, key, True, b"", 0, 0))
            else:
                value, head = unpack_value(record), unpack_head(record)
                rows.append((value, *head))
                self.events.append(Event(revision, key, False, value, head.create, head.version))
                self._written(token_of(value), revision)
            revisions.append(revision)
        self.revision = machine.revision
        if fresh and fresh[0][0] != machine.revision:
            raise Violation(f"6: revision {machine.revision} ends with {fresh[0]}")

    def _written(self, token: bytes, revision: int) -> None:
        """4, 5."""
        if token in self._made:
            raise Violation(f"4: {token!r} is written at {self._made[token]}, and at {revision}")
        if token in self._refused:
            raise Violation(f"5: {token!r} was said not to be done, and is, at {revision}")
        self._made[token] = revision

    def at(self, key: bytes, revision: int) -> Row | None:
        """What a key was."""
        revisions, rows = self._keys.get(key, ([0], [None]))
        return rows[bisect_right(revisions, revision) - 1]

    def range_at(self, start: bytes, end: bytes | None, revision: int) -> list[tuple[Any, ...]]:
        keys = sorted(key for key in self._keys if matches(key, start, end))
        found = [(key, self.at(key, revision)) for key in keys]
        return [(key, *row) for key, row in found if row is not None]

    # --- clients ---------------------------------------------------------------------------------

    def answered(self, who: str, answer: tuple[Any, ...], floor: int, *, local: bool) -> None:
        """2."""
        if answer[0] not in (OK, COMPARE_FAILED, NOT_FOUND):
            return
        revision = answer[1]
        if revision > self.revision:
            raise Violation(f"2: {who} is told of revision {revision}, before it is applied")
        if local:
            return
        if revision < floor:
            raise Violation(f"2: {who} is told of {revision}, after {floor} was acknowledged")
        self.acknowledged = max(self.acknowledged, revision)

    def got(self, who: str, key: bytes, answer: tuple[Any, ...]) -> None:
        """3."""
        was = self.at(key, answer[1])
        found = None if answer[0] == NOT_FOUND else tuple(answer[2:])
        if found != was:
            raise Violation(f"3: {who} gets {found} for {key!r} at {answer[1]}, and it was {was}")

    def ranged(self, who: str, start: bytes, end: bytes | None, answer: tuple[Any, ...]) -> None:
        """3. A range that is told as a whole."""
        was, found = self.range_at(start, end, answer[1]), [tuple(row) for row in answer[4]]
        if found != was:
            raise Violation(f"3: {who} gets {found} at {answer[1]}, and there was {was}")

    def done(self, who: str, token: bytes, revision: int) -> None:
        """4. A write was acknowledged."""
        if self._made.get(token) != revision:
            made = self._made.get(token)
            raise Violation(f"4: {who} is told that {token!r} is done at {revision}: {made}")

    def refused(self, who: str, token: bytes) -> None:
        """5. A write is said not to be done."""
        if token in self._made:
            raise Violation(f"5: {who} is told that {token!r} is not done, and it is")
        self._refused.add(token)

    # --- watchers --------------------------------------------------------------------------------

    def place_after(self, revision: int) -> int:
        """Where the changes after a revision begin."""
        return bisect_right(self.events, revision, key=lambda event: event.revision)

    def next_for(self, place: int, start: bytes, end: bytes | None) -> int:
        """The next change of a range, or the end of all."""
        while place < len(self.events) and not matches(self.events[place].key, start, end):
            place += 1
        return place

    # --- leases ----------------------------------------------------------------------------------

    def lasts(self, lease: int, asked: Nanos) -> None:
        """7. It was granted or kept alive, by what was asked at that time."""
        self._check_lease(lease, self.leases[lease], asked)
        self.leases[lease].asked = max(self.leases[lease].asked, asked)

    def gone(self, lease: int) -> None:
        """7. A client is told that there is no such lease any more."""
        self._end(lease)

    def _deleted(self, key: bytes, row: Row | None) -> None:
        if key.startswith(LEASED) and row is not None and row[4]:
            self._end(row[4])

    def _end(self, number: int) -> None:
        lease = self.leases.get(number)
        if lease is None:
            return  # whoever asked for it does not know
        if lease.ended is None:
            lease.ended = self.cluster.timeline.now
            self.cluster.seen["lease expired"] += not lease.revoked
        self._check_lease(number, lease, lease.asked)

    def _check_lease(self, number: int, lease: Lease, asked: Nanos) -> None:
        """A clock that is fast by so much may end it so much sooner."""
        shown, passed = self.fastest
        early = lease.ended is not None and lease.ended < asked + lease.ttl * passed // shown
        if early and not lease.revoked:
            raise Violation(
                f"7: lease {number} of {lease.ttl} ns, asked for at {asked}, ends at {lease.ended}"
            )

    def hanging(self) -> list[bytes]:
        """Keys that are still there because of a lease."""
        return [k for k, (_, rows) in self._keys.items() if k.startswith(LEASED) and rows[-1]]
