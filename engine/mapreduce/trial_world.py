"""A simulated coordinator process: the real scheduler and the real turn, on a simulated disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

from engine.contract import Event, Finished, Job, Nanos, Send, Server, Write
from engine.mapreduce.machine import Recovered, Scheduler
from engine.mapreduce.messages import (
    Discard,
    Kill,
    OutputAccepted,
    Publish,
    Spawn,
    Sweep,
)
from engine.sim.timeline import MILLISECOND, Crashed
from engine.wire.codec import decode, encode

if TYPE_CHECKING:
    from engine.mapreduce.trial_cluster import Cluster

JOURNAL = "job/journal"


class Coordinator(Server):
    """A coordinator process; satisfies `engine.contract.World` for its own turn."""

    def __init__(self, cluster: Cluster, records: list[Any], resumed: bool) -> None:
        self.cluster = cluster
        self.inbox: list[Event] = []
        self.paused = False
        self.due = False
        self.timer: Nanos | None = None
        self.tickets = 0
        self.synced_at: Nanos = 0
        self.records = records
        recovered = Recovered(tuple(records), resumed)
        self.scheduler = Scheduler(recovered, cluster.settings, cluster.timeline.rng)
        super().__init__(self.scheduler, self)

    def now(self) -> Nanos:
        return self.cluster.timeline.now

    def drain(self, frames: int, size: int) -> list[Event]:
        events, self.inbox = self.inbox, []
        return events

    def send(self, sends: Iterable[Send]) -> None:
        for link, message in sends:
            self.cluster.send(link, message)

    def write(self, group: Sequence[Write]) -> int:
        """The bytes are in the journal at once, and durable some time later."""
        cluster = self.cluster
        self.tickets += 1
        for write in group:
            cluster.timeline.note("journal", "write", write.record)
            cluster.judge.write(write.record)
            cluster.seen[type(write.record).__name__] += 1
            cluster.disk.append(JOURNAL, frame(write.record))
            self.records.append(write.record)
        self._sync_later(self.tickets, len(self.records))
        return self.tickets

    def _sync_later(self, ticket: int, count: int) -> None:
        # Syncs of one file come back in the order in which they were asked for.
        delay = self.cluster.timeline.spread(self.cluster.plan["sync"])
        self.synced_at = max(self.synced_at + 1, self.now() + delay)
        wait = self.synced_at - self.now()
        self.cluster.timeline.after(wait, self.cluster.synced, self, ticket, count)

    def start(self, job: Job) -> None:
        cluster, disk, work = self.cluster, self.cluster.disk, job.work
        cluster.timeline.note("coordinator", "starts", job)
        cluster.judge.start(work)
        cluster.seen[type(work).__name__] += 1
        if isinstance(work, Spawn):
            cluster.timeline.after(MILLISECOND, cluster.spawn, self, job.number, work.node)
        elif isinstance(work, Kill):
            cluster.kill(work.node)
        elif isinstance(work, Discard):
            for path in work.paths:
                disk.unlink(path)
        elif isinstance(work, Sweep):
            disk.remove_folder("scratch")
            disk.remove_folder("parts")
        elif isinstance(work, Publish):
            self._publish(job.number, work, 0)

    def point(self, name: str) -> None:
        if self.cluster.timeline.chance(self.cluster.crash_point):
            self.cluster.timeline.note("coordinator", "dies", "at", name)
            self.cluster.seen[f"died {name}"] += 1
            raise Crashed(name)

    # --- publishing ------------------------------------------------------------------------------

    def _publish(self, job: int, work: Publish, step: int) -> None:
        """One step of it; the process may die between any two."""
        cluster, disk, parts = self.cluster, self.cluster.disk, work.parts
        if cluster.coordinator is not self:
            return
        try:
            self.point("publishing")
        except Crashed:
            cluster.die_at_point()
            return
        if step == 0:
            missing = tuple(p.partition for p in parts if not self._part(p))
            if missing:
                cluster.tell(self, Finished(job, missing))
                return
        elif step <= len(parts):
            disk.sync(self._part(parts[step - 1]))
        elif step <= 2 * len(parts):
            part = parts[step - 1 - len(parts)]
            if self._part(part) == part.path:
                disk.rename(part.path, f"out/{part.partition}")
        elif not disk.exists("out/manifest"):
            # Beside the manifest, then renamed: it is there whole or not at all.
            disk.unlink("job/manifest")
            disk.append("job/manifest", b"complete")
            disk.sync("job/manifest")
            disk.rename("job/manifest", "out/manifest")
        else:
            disk.sync_directory("out")
            cluster.tell(self, Finished(job, ()))
            return
        wait = cluster.timeline.spread(cluster.plan["sync"])
        cluster.timeline.after(wait, self._publish, job, work, step + 1)

    def _part(self, part: OutputAccepted) -> str:
        """Where a part is that verifies; "" if nowhere."""
        for path in (f"out/{part.partition}", part.path):
            if self.cluster.disk.exists(path):
                data = self.cluster.disk.read(path)
                if len(data) == part.size and crc32(data) == part.digest:
                    return path
        return ""


# --- the journal's bytes: crc:u32 kind:u8 length:u32 body; the crc is of all behind it -----------


def frame(record: Any) -> bytes:
    kind, body = encode(record)
    data = bytes([kind]) + len(body).to_bytes(4, "big") + body
    return crc32(data).to_bytes(4, "big") + data


def unframe(data: bytes) -> tuple[list[Any], int]:
    """(the records before the first that does not verify, their size)."""
    records: list[Any] = []
    at = 0
    while at + 9 <= len(data):
        end = at + 9 + int.from_bytes(data[at + 5 : at + 9], "big")
        if end > len(data) or crc32(data[at + 4 : end]) != int.from_bytes(data[at : at + 4], "big"):
            break
        records.append(decode(data[at + 4], data[at + 9 : end]))
        at = end
    return records, at
