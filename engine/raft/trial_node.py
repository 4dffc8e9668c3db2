"""A member in the simulator: the shipped machine, turn, log and snapshots, on a disk that fails.

`Node` is the world of its server. Its disk (`engine.sim.drives.Drive`) outlives it; what is beside
the disk dies with it. `Told` is the least of state machines: it remembers what it was told.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from engine.contract import Durable, Event, Finished, Job, Nanos, ReadAt, Received, Send, Write
from engine.errors import DamagedData
from engine.kernels.checksum import crc32c
from engine.raft.machine import Raft
from engine.raft.messages import AppendReply, InstallSnapshot, Placed, Refused, SnapshotReply
from engine.raft.server import Limits, RaftServer, recover
from engine.raft.settings import Settings
from engine.sim.cluster import Process
from engine.sim.drives import Drive, Ticket
from engine.sim.network import LATE
from engine.sim.timeline import Crashed
from engine.storage.entries import COMMAND, Entry
from engine.storage.log import Log, LogSettings
from engine.storage.snapshots import Snapshots

if TYPE_CHECKING:
    from engine.raft.trial import RaftCluster

GROUP = 1
PIECE = 96
"""Bytes of a snapshot's piece: small, so that there are several."""


class Told:
    """A state machine: the number of commands, and a sum over all of them in their order."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.applied = self.count = self.digest = 0

    def apply(self, first: int, entries: tuple[Entry, ...]) -> None:
        for index, entry in enumerate(entries, first):
            if entry.kind == COMMAND:
                self.count += 1
                self.digest = crc32c(entry.body, self.digest)
            self.applied = index
            self._node.cluster.judge.applied(self._node, index, entry)
            self._node.cluster.was_applied(self._node, index, entry.term)

    def pieces(self) -> Iterator[bytes]:
        state = b"%d %d %d " % (self.applied, self.count, self.digest)
        state += b"." * min(4 * self.count, 400)
        return iter([state[at : at + PIECE] for at in range(0, len(state), PIECE)])

    def load(self, pieces: Iterator[bytes]) -> None:
        words = b"".join(pieces).split(b" ")
        before = self.applied
        self.applied, self.count, self.digest = map(int, words[:3])
        self._node.cluster.judge.loaded(self._node, before, self.applied, self.digest)

    def confirmed(self, read: ReadAt) -> None:
        self._node.cluster.confirmed(self._node, read.context)

    def answered(self, answer: Placed | Refused) -> None:
        self._node.cluster.answered(self._node, answer)


class Node(Process):
    """One life of a member. OSError, DamagedData or `Crashed` where its process would end."""

    cluster: RaftCluster
    over = 0
    """The latest term in which it was answered: in an earlier one it does not lead any more."""
    doom = ""
    """What ends its reign, if that is to be short."""
    last_written = 0
    """The last index of its log, as far as it was written."""

    def __init__(self, cluster: RaftCluster, name: str, member: int, drive: Drive) -> None:
        self.cluster, self.member, self.drive, self.name = cluster, member, drive, name
        plan = cluster.plan
        rng = cluster.timeline.rng
        sizes = LogSettings(segment_bytes=plan["segment_bytes"], spare=1, cache_bytes=4096)
        drive.synchronous = True
        self.log = Log.open(drive, sizes, lambda: rng.getrandbits(64))
        files = Snapshots(drive, GROUP)
        recovered, kept = recover(GROUP, self.log, files)
        drive.synchronous = False
        cluster.judge.recovered(self, recovered)
        settings = Settings(
            member,
            GROUP,
            timing=plan["timing"],
            entries_max=plan["entries_max"],
            chunk_bytes=plan["chunk_bytes"],
            uncommitted_max=plan["uncommitted_max"],
            promotion_lag=4,
        )
        machine = Raft(settings, recovered, kept, Random(rng.getrandbits(64)))
        limits = Limits(plan["snapshot_every"], plan.get("snapshot_bytes", 0), reserve=1024)
        self.raft = machine
        self.server = self.serve(machine, files, limits)
        self.committed = 0
        self.configuration = machine.members.now
        """As of its last turn, for the judge."""
        self._ticket = 0
        self._appended = (0, 0)
        self._syncing = False
        super().__init__(cluster, name, "replica", machine)

    def serve(self, machine: Raft, files: Snapshots, limits: Limits) -> RaftServer:
        """The server of this life, and what its group carries."""
        self.state = Told(self)
        return RaftServer(machine, self, self.log, files, self.state, limits)

    def hear(self, event: Event | Any) -> None:
        super().hear(event)
        message: Any = event.message if type(event) is Received else None
        if type(message) in (AppendReply, SnapshotReply) and message.to == self.member:
            self.over = max(self.over, message.term)

    def turn(self) -> Nanos | None:
        """An error of the disk ends the process."""
        try:
            return self.server.turn()
        except DamagedData as error:
            raise self._ends(f"damage: {error}") from None
        except OSError as error:
            raise self._ends(f"disk: {error}") from None

    def _ends(self, why: str) -> Crashed:
        self.cluster.timeline.note(self.name, "ends", why)
        self.cluster.seen["ended by its disk"] += 1
        return Crashed(why)

    # --- the log ---------------------------------------------------------------------------------

    def send(self, sends: Iterable[Send]) -> None:
        for send in sends:
            self.cluster.judge.said(self, send.message)
            if type(send.message) is not InstallSnapshot or self._arrives(send):
                self.cluster.send(self, send.link, send.message)

    def _arrives(self, piece: Send) -> bool:
        """Some come again when much has changed. In the calm, which loses nothing else, some are
        lost: they have to be said again, whatever else is said meanwhile."""
        timeline, calm = self.cluster.timeline, self.cluster.calm
        unlike = timeline.chance(self.cluster.plan["again"])
        if unlike and not calm:
            timeline.after(timeline.spread(LATE), self.cluster.send, self, *piece)
        return not (unlike and calm)

    def write(self, group: Sequence[Write]) -> int:
        records = [write.record for write in group]
        self.cluster.judge.written(self, records)
        mark = self.log.append(records)
        self._ticket += 1
        self._appended = (self._ticket, mark)
        if not self._syncing:
            self._sync()
        return self._ticket

    def _sync(self) -> None:
        """Of all that was written until now; what comes meanwhile goes with the next."""
        self._syncing = True
        self.log.sync()
        covered = self.drive.flush()
        self.cluster.timeline.after(
            self.cluster.disk_time(self), self._synced, self._appended, covered
        )

    def _synced(self, appended: tuple[int, int], covered: Ticket) -> None:
        if not self.alive:
            return
        ticket, mark = appended
        self.drive.complete(covered)
        self.cluster.judge.durable(self, ticket)
        try:
            self.log.settle(mark, tell=False)
            self._syncing = False
            if self._appended[0] > ticket:
                self._sync()
        except OSError as error:
            self._ends(f"disk: {error}")
            self.cluster.kill(self)
            return
        self.hear(Durable(ticket))

    # --- long work -------------------------------------------------------------------------------

    def start(self, job: Job) -> None:
        self.cluster.timeline.after(self.cluster.disk_time(self), self._work, job)

    def _work(self, job: Job) -> None:
        if not self.alive:
            return
        result, error = None, ""
        self.drive.synchronous = True
        try:
            result = self.server.work(job.work)
        except DamagedData as damage:
            self.cluster.seen["damaged snapshot refused"] += 1
            error = str(damage)
        except OSError as problem:
            if problem.errno != errno.ENOSPC:
                self._ends(f"disk: {problem}")
                self.cluster.kill(self)
                return
            error = str(problem)
        except Crashed:
            self.cluster.kill(self)
            return
        finally:
            self.drive.synchronous = False
        self.hear(Finished(job.number, result, error))

    def __repr__(self) -> str:
        return f"{self.name} {self.raft!r}"
