"""Asks all replicas of a cluster what they know of themselves, at once, as often as one likes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from engine.calls import Call
from engine.contract import SECOND, Link, Nanos
from engine.errors import EngineError
from engine.kv.up import Seat, found, listens
from engine.raft.client import leader_of as leading
from engine.raft.requests import AskStatus, Status
from engine.record import Record
from engine.runtime.caller import Caller

PATIENCE: Nanos = SECOND * 4 // 5
"""For all answers together. A replica that is stopped takes connections, and says nothing."""


class Process(Record):
    """What the system knows of a replica's process."""

    pid: int
    cpu_seconds: float
    resident_bytes: int
    open_fds: int


class Sight(Record):
    """What was seen at one time (seconds of a clock that only goes forward); by the seats' `id`.
    `problem` says why there is nothing to see, "" if there is."""

    at: float
    seats: tuple[Seat, ...]
    statuses: Mapping[int, Status]
    processes: Mapping[int, Process]
    problem: str = ""

    @property
    def leader(self) -> int:
        """Who leads the latest term that anybody leads; 0 if nobody does."""
        try:
            return int(leading({str(number): one for number, one in self.statuses.items()}))
        except EngineError:
            return 0


class AskAll(Call):
    """One question to many; ends with those that have answered by then."""

    retry = SECOND  # whoever is silent is asked once a look, and when it comes back

    def __init__(self, addresses: Iterable[str], up: set[str], number: int) -> None:
        super().__init__(PATIENCE, up)
        self.request = AskStatus(number)
        self.answers: dict[str, Status] = {}
        self._missing = set(addresses)

    def ask(self, now: Nanos) -> None:
        for address in sorted(self._missing):
            self.say(address, self.request, harmless=True)

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        if type(message) is Status and message.number == self.request.number:
            self.answers[link.principal] = message
            self._done_with(link.principal)

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        if up:
            self.ask_at(now)
        else:
            self._done_with(link.principal)

    def _done_with(self, address: str) -> None:
        """It has answered, or will not."""
        self._missing.discard(address)
        if not self._missing:
            self.finish(self.answers)

    def _give_up(self) -> None:
        self.finish(self.answers)


class Lookout:
    """Looks at the cluster of a folder, whoever belongs to it just then; for one thread, and a
    context manager."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._caller: Caller | None = None
        self._addresses: tuple[str, ...] = ()
        self._up: set[str] = set()
        self._number = 0

    def look(self) -> Sight:
        """Takes some milliseconds, or `PATIENCE` if a replica is silent. Raises nothing: what it
        cannot see, it says."""
        at = monotonic()  # they answer at once, however long others are waited for
        try:
            seats = tuple(found(self.folder))
        except EngineError as error:
            return Sight(at, (), {}, {}, str(error))
        statuses = self._asked(seats)
        processes = {n: seen for n, one in statuses.items() if (seen := process_of(one.pid))}
        return Sight(at, seats, statuses, processes)

    def _asked(self, seats: Sequence[Seat]) -> dict[int, Status]:
        addresses = tuple(seat.admin for seat in seats)
        if addresses != self._addresses:
            self.close()  # whoever was removed is not dialed for ever
            self._addresses = addresses
        there = [seat for seat in seats if seat.admin in self._up or listens(seat)]
        if not there:
            return {}
        if self._caller is None:
            self._caller = Caller(timeout=None, role="admin")
        self._number += 1
        call = AskAll((seat.admin for seat in there), self._up, self._number)
        try:
            self._caller.run(call)
        except EngineError:
            pass  # all refuse to talk to us, so there is nothing to see
        return {s.id: call.answers[s.admin] for s in there if s.admin in call.answers}

    def close(self) -> None:
        """Close the connections."""
        if self._caller is not None:
            self._caller.close()
        self._caller, self._addresses = None, ()
        self._up.clear()

    def __enter__(self) -> Lookout:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def process_of(pid: int) -> Process | None:
    """None if it has ended, or is not ours to look at."""
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            spent = process.cpu_times()
            resident = process.memory_info().rss
            return Process(pid, spent.user + spent.system, resident, process.num_fds())
    except psutil.Error:
        return None
