"""Planted bugs for the Raft labs' tests: those of the trial, and more that only the labs are after.

`CORE_BUGS` are of the core and its log, wherever they run; `PROCESS_BUGS` of what a process alone
has: its answers to clients, and the state machine behind it.
"""

from __future__ import annotations

from typing import Any

from engine.raft import told
from engine.raft.front import Front
from engine.raft.leader import Leader
from engine.raft.machine import Raft
from engine.raft.membership import Membership
from engine.raft.messages import AppendEntries
from engine.raft.progress import Progress
from engine.raft.snapshots import Snapshots
from engine.raft.told_front import ToldFront
from engine.raft.trial_bugs import BUGS
from engine.sim.planting import Patch
from engine.sim.timeline import MILLISECOND
from engine.storage.log import Log
from engine.storage.snapshots import Snapshots as SnapshotFiles


def _says_nothing(_: Any) -> Any:
    """Heartbeats are not sent."""

    def heartbeat(self: Leader, member: int) -> None:
        self.progress[member].sent = self.raft.now

    return heartbeat


def _deaf(original: Any) -> Any:
    """A leader does not believe in later terms."""

    def receive(self: Raft, link: Any, message: Any) -> None:
        if type(self.role) is not Leader or message.term <= self.term:
            original(self, link, message)

    return receive


def _tells_no_commit(original: Any) -> Any:
    """Followers are not told what is committed."""

    def say_now(self: Raft, link: Any, message: Any) -> None:
        if type(message) is AppendEntries:
            message = message._replace(commit=0)
        elif hasattr(message, "last") and type(message[0]) is AppendEntries:
            message = message._replace(message=message.message._replace(commit=0))
        original(self, link, message)

    return say_now


def _says_thrice(original: Any) -> Any:
    """Every message with entries is sent three times."""

    def say(self: Leader, *about: Any) -> None:
        for _ in range(3):
            original(self, *about)

    return say


def _so_many_are_enough(count: int) -> Any:
    """An entry is decided when so many have it."""

    def make(_: Any) -> Any:
        def reached(self: Membership, value: Any) -> int:
            return int(sorted(map(value, self.voters), reverse=True)[count - 1])

        return reached

    return make


def _never_backs_up(_: Any) -> Any:
    """A rejection changes nothing."""
    return lambda self, progress, reply: None


def _backs_up_by_one(_: Any) -> Any:
    """A rejection moves the next entry back by one."""

    def rejected(self: Leader, progress: Progress, reply: Any) -> None:
        progress.probe(reply.previous)

    return rejected


def _same_index(original: Any) -> Any:
    """All commands of a turn are told the index of the first."""

    def propose(self: Leader, ask: Any) -> None:
        original(self, ask)
        answers = self.raft._answers
        answers[-1] = answers[-1]._replace(first=answers[0].first)

    return propose


def _talks_all_the_time(original: Any) -> Any:
    """A heartbeat every 5 ms."""

    def begin(self: Raft, settings: Any, recovered: Any, kept: Any, rng: Any) -> None:
        timing = settings.timing._replace(heartbeat=5 * MILLISECOND)
        original(self, settings._replace(timing=timing), recovered, kept, rng)

    return begin


def _forgets_the_last(original: Any) -> Any:
    """Recovery drops the last entry, as if it were torn."""

    def begin(self: Raft, settings: Any, recovered: Any, kept: Any, rng: Any) -> None:
        shorter = recovered._replace(terms=recovered.terms[:-1], sizes=recovered.sizes[:-1])
        original(self, settings, shorter, kept, rng)

    return begin


def _nothing(_: Any) -> Any:
    return lambda self, *about: None


def _without_snapshot(original: Any) -> Any:
    """A member starts without loading its snapshot."""
    return lambda self, raft, kept: original(self, raft, ())


def _keeps_none(original: Any) -> Any:
    """Snapshots are removed once they are complete."""
    return lambda self, count: original(self, 0)


def _true(_: Any) -> Any:
    return lambda self: True


CORE_BUGS: dict[str, tuple[Patch, ...]] = BUGS | {
    "no_heartbeats": (Patch(Leader, "_heartbeat", _says_nothing),),
    "no_check_quorum": (Patch(Leader, "holds", _true),),
    "zombie_leader": (Patch(Leader, "holds", _true), Patch(Raft, "_receive", _deaf)),
    "commits_not_told": (Patch(Raft, "say_now", _tells_no_commit),),
    "said_three_times": (Patch(Leader, "_say", _says_thrice),),
    "one_is_enough": (Patch(Membership, "reached", _so_many_are_enough(1)),),
    "two_are_enough": (Patch(Membership, "reached", _so_many_are_enough(2)),),
    "never_backs_up": (Patch(Leader, "_rejected", _never_backs_up),),
    "backs_up_by_one": (Patch(Leader, "_rejected", _backs_up_by_one),),
    "same_index_for_all": (Patch(Leader, "propose", _same_index),),
    "talks_all_the_time": (Patch(Raft, "__init__", _talks_all_the_time),),
    "last_entry_forgotten": (Patch(Raft, "__init__", _forgets_the_last),),
    "log_never_compacted": (Patch(Snapshots, "_compact", _nothing),),
    "segments_never_retired": (Patch(Log, "_retire", _nothing),),
    "snapshot_not_loaded": (Patch(Snapshots, "__init__", _without_snapshot),),
    "snapshots_removed": (Patch(SnapshotFiles, "keep", _keeps_none),),
}


# --- of processes --------------------------------------------------------------------------------


def _any_entry_will_do(original: Any) -> Any:
    """Whoever waits for an index is told of whatever comes there."""

    def apply(self: Front, first: int, entries: Any) -> None:
        for at, one in enumerate(self._waiting):
            if first <= one.place < first + len(entries):
                self._waiting[at] = one._replace(term=entries[one.place - first].term)
        original(self, first, entries)

    return apply


def _answered_at_once(original: Any) -> Any:
    """A client is told that its command is done when it is placed."""

    def batched(self: ToldFront, answer: Any, batch: Any) -> None:
        original(self, answer, batch)
        while self._waiting:
            self.done(self._waiting.popleft().asked, self.state.commands)

    return batched


def _tries_again(original: Any) -> Any:
    """What may have been done is said not to have been, and so is done again."""

    def reject(self: ToldFront, asked: Any, why: str, leader: int, *, unknown: bool) -> None:
        original(self, asked, why, leader, unknown=False)

    return reject


def _log_forgotten(original: Any) -> Any:
    """A member without a snapshot begins with an empty log."""

    def begin(self: Raft, settings: Any, recovered: Any, kept: Any, rng: Any) -> None:
        nothing = recovered._replace(terms=[], sizes=[], configs=[])
        original(self, settings, recovered if kept else nothing, kept, rng)

    return begin


def _remembers_nothing(_: Any) -> Any:
    return lambda self, pieces: list(pieces) and None


PROCESS_BUGS: dict[str, tuple[Patch, ...]] = {
    "waiters_not_woken": (Patch(Front, "forsake", _nothing),),
    "any_entry_will_do": (Patch(Front, "apply", _any_entry_will_do),),
    "answered_when_placed": (Patch(Front, "placed", _answered_at_once),),
    "unknown_is_no": (Patch(ToldFront, "reject", _tries_again),),
    "state_not_loaded": (Patch(told.Told, "load", _remembers_nothing),),
    "log_forgotten": (Patch(Raft, "__init__", _log_forgotten),),
}
