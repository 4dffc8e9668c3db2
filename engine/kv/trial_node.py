"""A replica of the store in the simulator: the shipped member, turn, front and state machine.

What is added to `engine.raft.trial_node` is how clients are heard: what they ask comes in bulk, as
bytes, as from a listener. The judge looks on where entries are applied and snapshots loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engine.contract import Event, Link, Nanos, Received, Requests, Send, Span
from engine.kv.front import StoreFront
from engine.kv.machine import Machine
from engine.kv.requests import ASK
from engine.kv.sessions import Sessions
from engine.raft.machine import Raft
from engine.raft.sane import MESSAGES
from engine.raft.server import Limits, RaftServer
from engine.raft.serving import Serving
from engine.raft.trial_node import GROUP, Node
from engine.sim.experiment import Violation
from engine.sim.timeline import Clock, Timeline
from engine.storage.entries import Entry
from engine.storage.snapshots import Snapshots
from engine.wire.codec import decode, encode

if TYPE_CHECKING:
    from engine.kv.trial import StoreCluster

EVERY = 32
"""Digests are compared after each of so many entries: a seed does not live to see 1024 twice."""


class Uptime(Clock):
    """A machine's monotonic clock: it begins anywhere, and at 0 when the machine starts again."""

    def __init__(self, timeline: Timeline, shown: Nanos) -> None:
        super().__init__(timeline)
        self._shown = shown

    def reboot(self) -> None:
        self._shown, self._since = 0, self._timeline.now


class CountedSessions(Sessions):
    """Whose verdicts are counted, so that a test can tell that requests do come again."""

    def __init__(self, seen: Counter[str]) -> None:
        super().__init__()
        self._seen = seen

    def judge(self, session: bytes, sequence: int, time: Nanos, most: int) -> str:
        verdict = super().judge(session, sequence, time, most)
        self._seen[f"session {verdict}"] += 1
        return verdict


class JudgedFront(StoreFront):
    """The front of one life of a replica."""

    every = EVERY

    def __init__(self, node: StoreNode) -> None:
        super().__init__(Machine(GROUP), node.broken)
        self._node = node
        self.machine.sessions = CountedSessions(node.cluster.seen)

    def enact(self, place: int, entry: Entry) -> list[bytes]:
        cluster = self._node.cluster
        cluster.judge.applied(self._node, place, entry)
        answers = super().enact(place, entry)
        cluster.books.applied(self._node, place, self.machine)
        return answers

    def load(self, pieces: Iterator[bytes]) -> None:
        waited = len(self._waiting)
        super().load(pieces)
        self._node.cluster.seen["forsaken by a snapshot"] += waited

    def _turn_away(self, link: Link, numbers: Sequence[int]) -> None:
        self._node.cluster.seen["watchers turned away"] += len(numbers)
        super()._turn_away(link, numbers)

    def reject(self, asked: Any, why: str, leader: int, *, unknown: bool) -> None:
        self._node.cluster.seen["said unknown" if unknown else "said not done"] += len(asked)
        super().reject(asked, why, leader, unknown=unknown)


class SimulatedReplica(Serving):
    """As `engine.raft.replica.Replica`, without a process around it."""

    node: StoreNode

    def _apply(self, span: Span) -> None:
        before = self.applied
        super()._apply(span)
        if span.load:
            self.node.loaded(before, span.after)

    def answers(self, kind: int, messages: list[tuple[Link, bytes]]) -> None:
        for link, body in messages:
            self.node.cluster.send(self.node, link, decode(kind, body))


class StoreNode(Node):
    """One life of a replica."""

    cluster: StoreCluster
    front: JudgedFront

    def serve(self, machine: Raft, files: Snapshots, limits: Limits) -> RaftServer:
        self.front = JudgedFront(self)
        server = SimulatedReplica(machine, self, self.log, files, self.front, limits)
        server.node = self
        return server

    def drain(self, frames: int, size: int) -> list[Event]:
        batch, others = [], []
        for event in super().drain(frames, size):
            if type(event) is Received:
                kind, body = encode(event.message)
                if kind == ASK:
                    batch.append((event.link, body))
                    continue
            others.append(event)
        return [Requests(tuple(batch)), *others] if batch else others

    def send(self, sends: Iterable[Send]) -> None:
        for send in sends:
            if type(getattr(send.message, "message", send.message)) in MESSAGES:
                super().send((send,))
            else:
                self.cluster.send(self, *send)

    def loaded(self, before: int, place: int) -> None:
        """A snapshot that ends with this entry was installed, or found at the start."""
        judge = self.cluster.judge
        known = judge.decided[place][2] if place < len(judge.decided) else -1
        judge.loaded(self, before, place, known)
        self.cluster.books.loaded(self, place, self.front.machine)

    def broken(self, why: str) -> None:
        """The front's quarantine."""
        raise Violation(f"{self.name} is in quarantine: {why}")
