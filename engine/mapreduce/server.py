"""The coordinator: the scheduler's world made of real processes, sockets, files and clocks.

`engine.mapreduce.machine` decides; this module drains what happened, carries out what was asked and
waits. The turn is `engine.contract.Server.turn`, the same that the simulator calls.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic_ns
from typing import Any

from engine.contract import (
    Durable,
    Event,
    Exited,
    Finished,
    Job,
    Moved,
    Nanos,
    Send,
    Write,
)
from engine.kernels.frames import Poller
from engine.mapreduce import messages, progress
from engine.mapreduce.publish import OutputDirectory, publish_job
from engine.runtime.pages import Pages
from engine.runtime.processes import Supervisor
from engine.runtime.syncer import Syncer
from engine.storage.files import remove_tree, unlink_if_there
from engine.storage.journal import Journal
from engine.wire.endpoint import ASSIGNED_NODE_FIRST, Listener

PAGE_SAMPLE_NS = 50_000_000
"""Pages are looked at so often: leases are seconds, a display refreshes five times a second."""
SLOTS = 1024
"""Workers alive at one time; a slot is used again when its worker is gone."""
WAIT_MS_MAX = 200
"""Longest wait: bounds what a lost wake-up could cost, and moves the progress line."""

STOP_LINGER_MS = 1000
"""How long a last word to a joined worker may take to leave."""


class LocalWorld:
    """Processes of this machine. Satisfies `engine.contract.World`; one thread calls it."""

    def __init__(
        self,
        listener: Listener,
        supervisor: Supervisor | None,
        journal: Journal,
        output: OutputDirectory,
        scratch: str,
        manifest: Callable[[messages.Publish], dict[str, Any]],
    ) -> None:
        self.listener, self.supervisor, self.journal = listener, supervisor, journal
        self.output, self.scratch, self.manifest = output, scratch, manifest
        self.pages = Pages.create(output.pages_path, SLOTS)
        self._slots: dict[int, int] = {}
        self._free_slots = list(range(SLOTS - 1, -1, -1))
        self._positions: dict[int, tuple[int, ...]] = {}
        self.memory_peak = 0
        """Largest resident memory of any worker, in bytes; known once publishing begins."""
        self._begun = False
        self._dead: list[Exited] = []
        self._sampled_at = self._bytes_of_dead = 0
        self._ticket = self._durable = 0
        self._syncer = Syncer(journal.sync)
        self._publisher: threading.Thread | None = None
        self._finished: deque[Finished] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poller = Poller()
        for source in listener.pollables():
            self._poller.add(source)
        self._watched: set[int] = set()

    # --- the contract ---

    def now(self) -> Nanos:
        """CLOCK_MONOTONIC."""
        return monotonic_ns()

    def drain(self, frames: int, size: int) -> list[Event]:
        """Durable first, then messages, then deaths: a worker's last words count."""
        if not self._begun:
            # Workers were started before the scheduler was: it asks for them in its first turn,
            # and must not hear from one before.
            self._begun = True
            return []
        self._forget_dead()
        events: list[Event] = []
        durable = self._syncer.durable()
        if durable > self._durable:
            self._durable = durable
            events.append(Durable(durable))
        while self._finished:
            events.append(self._finished.popleft())
        exits = self._exits()
        events += self.listener.drain(frames, size)
        events += self._moves(bool(exits))
        events += exits
        return events

    def send(self, sends: Iterable[Send]) -> None:
        """Lost when the peer's pipe is full or gone; the scheduler's leases see to that."""
        for link, message in sends:
            if isinstance(message, messages.Configure):
                if link.node not in self._slots and not self._free_slots:
                    message = messages.Stop("no room for another worker")
                else:
                    message = message._replace(slot=self._slot(link.node))
            self.listener.send(link, message)

    def write(self, group: Sequence[Write]) -> int:
        """Append to the journal now, fdatasync in the syncer's thread."""
        self.journal.append([write.record for write in group])
        self._ticket += 1
        self._syncer.submit(self._ticket)
        return self._ticket

    def start(self, job: Job) -> None:
        """Spawn and Kill at once, Discard at once, Publish in a thread of its own."""
        work = job.work
        if isinstance(work, messages.Spawn):
            assert self.supervisor is not None, "a job without supervised workers spawned one"
            self.supervisor.spawn(work.node)
            self._slot(work.node)
            self._finished.append(Finished(job.number))
        elif isinstance(work, messages.Kill):
            if self.supervisor is not None:
                self.supervisor.kill(work.node)
            self._finished.append(Finished(job.number))
        elif isinstance(work, messages.Discard):
            for path in work.paths:
                unlink_if_there(path)
            self._finished.append(Finished(job.number))
        elif isinstance(work, messages.Sweep):
            remove_tree(self.scratch)
        else:
            if self.supervisor is not None:  # now, for soon they are told to stop
                self.memory_peak = self.supervisor.peak()
            self._publisher = threading.Thread(target=self._publish, args=(job,), name="publish")
            self._publisher.start()

    def point(self, name: str) -> None:
        """Nothing: crash points are for tests, which replace this method."""

    # --- waiting ---

    def wait(self, until: Nanos | None) -> None:
        """Until something arrives or `until`; at most `WAIT_MS_MAX`."""
        if self._finished:
            return
        self._watch()
        timeout = WAIT_MS_MAX
        if until is not None:
            timeout = min(timeout, max(0, -(-(until - monotonic_ns()) // 1_000_000)))
        self._poller.poll(timeout)
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass

    def _watch(self) -> None:
        wanted = {self._wake_read, self._syncer.fileno()}
        if self.supervisor is not None:
            wanted.update(self.supervisor.filenos())
        for gone in self._watched - wanted:
            self._poller.remove(gone)
        for new in wanted - self._watched:
            self._poller.add(new)
        self._watched = wanted

    # --- pages and deaths ---

    def _slot(self, node: int) -> int:
        if node not in self._slots:
            assert self._free_slots, f"more than {SLOTS} workers at one time"
            slot = self._slots[node] = self._free_slots.pop()
            view = self.pages.slot(slot)
            for word in range(progress.WORDS):
                view[word] = 0
        return self._slots[node]

    def bytes_read(self) -> int:
        """Input bytes that all workers, dead ones too, have read until now."""
        alive = sum(self.pages.slot(slot)[progress.BYTES] for slot in self._slots.values())
        return self._bytes_of_dead + alive

    def _moves(self, always: bool) -> list[Event]:
        now = monotonic_ns()
        if not always and now - self._sampled_at < PAGE_SAMPLE_NS:
            return []
        self._sampled_at = now
        moved: list[Event] = []
        for node, slot in self._slots.items():
            position = self.pages.read(slot)
            if position != self._positions.get(node):
                self._positions[node] = position
                moved.append(Moved(node, position))
        return moved

    def _exits(self) -> list[Exited]:
        if self.supervisor is not None:
            self._dead = list(self.supervisor.events())
        return self._dead

    def _forget_dead(self) -> None:
        """Free the slots of the dead, once the scheduler has seen their last position."""
        for event in self._dead:
            slot = self._slots.pop(event.process, None)
            self._positions.pop(event.process, None)
            if slot is not None:
                self._bytes_of_dead += self.pages.slot(slot)[progress.BYTES]
                self._free_slots.append(slot)
        self._dead = []

    # --- long work ---

    def _publish(self, job: Job) -> None:
        try:
            done = publish_job(self.output, self.manifest(job.work), job, self.point)
        except BaseException as error:  # whatever it is, the loop must not wait for ever
            done = Finished(job.number, error=f"publishing failed with {error!r}")
        self._finished.append(done)
        os.write(self._wake_write, b"!")

    # --- the end ---

    def close(self) -> None:
        """Stop the syncer, close the journal and the pages; kill and reap supervised workers."""
        if self.supervisor is not None:
            self.supervisor.close()
        if self._publisher is not None:
            self._publisher.join()  # what it has begun it must end, whatever interrupted us
        self._syncer.close()
        # Whoever is linked but has not said Join yet was not told by the scheduler.
        strangers = [link for link in self.listener.links if link.node >= ASSIGNED_NODE_FIRST]
        for link in strangers:
            self.listener.send(link, messages.Stop("over"))
        # What the scheduler said last may be on its way, also to who was silent for a moment.
        self.listener.close(STOP_LINGER_MS)
        self.journal.close()
        self.pages.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
