"""The replicas of a cluster as its operators reach them: by the folder of `engine kv up`, or, on
other machines, by the endpoints at which replicas hear operators."""

from __future__ import annotations

import select
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from engine.errors import ConnectionFailed, RefusedError, UsageError
from engine.kv.up import Seat, found, listened_at, statuses
from engine.raft.client import Operator
from engine.record import Record

if TYPE_CHECKING:
    from engine.raft.requests import Status

ELECTION_SECONDS = 5.0
LOOK_MS = 50


class Place(Record):
    """A replica of which nothing but its operators' endpoint is known; `id` is its place among
    those that were named."""

    id: int
    admin: str

    @property
    def silent(self) -> bool:
        """Nobody is there, as one knows at once of sockets on this machine."""
        return self.admin.startswith("ipc:///") and not listened_at(self.admin)


class Reach(Record):
    """`folder` is "" if there is none; `way` is the token and the detours, for endpoints."""

    seats: tuple[Seat | Place, ...]
    folder: str
    way: Mapping[str, Any]

    def statuses(self, seconds: float = 1.0) -> dict[int, Status]:
        """What each replica that answers says of itself, by `id`. RefusedError if an endpoint is
        not for operators, or not for us."""
        if self.folder:
            return statuses([seat for seat in self.seats if isinstance(seat, Seat)], seconds)
        told = {}
        for seat in self.seats:
            if isinstance(seat, Place) and seat.silent:
                continue
            try:
                with Operator(seat.admin, timeout=seconds, **self.way) as operator:
                    told[seat.id] = operator.status()
            except ConnectionFailed:
                pass  # it does not answer
            except RefusedError as error:
                raise self.not_for_us(seat, error) from None
        return told

    def not_for_us(self, seat: Seat | Place, error: RefusedError) -> RefusedError:
        """What to say when a replica does not talk to operators there, or not to this one."""
        if self.folder:
            return error
        why = str(error).rstrip(".")
        return RefusedError(f"{why}. Are these the replicas' --admin endpoints?")

    def leader(self, seconds: float = ELECTION_SECONDS) -> tuple[Seat | Place, Status]:
        """Who leads, and its status; while as many answer as can elect somebody, it waits so long
        for that. ConnectionFailed."""
        deadline = monotonic() + seconds
        while True:
            told = self.statuses()
            leads = [(one.term, number) for number, one in told.items() if one.role == "leader"]
            if leads:
                number = max(leads)[1]
                return next(seat for seat in self.seats if seat.id == number), told[number]
            if 2 * len(told) <= len(self.seats) or monotonic() > deadline:
                raise ConnectionFailed(
                    f"Nobody leads, so nothing can be changed: {len(told)} of {len(self.seats)} "
                    "replicas reachable."
                )
            select.poll().poll(LOOK_MS)


def reached(cluster: str, token: str | None = None, via: Mapping[str, str] | None = None) -> Reach:
    """The folder of `engine kv up`, or endpoints: A,B,C. EngineError."""
    if "://" not in cluster:
        return Reach(tuple(found(cluster)), cluster, {})
    addresses = cluster.split(",")
    if len(set(addresses)) < len(addresses):
        raise UsageError("An endpoint is named twice: each replica has one of its own.")
    seats = tuple([Place(number, one) for number, one in enumerate(addresses, 1)])
    return Reach(seats, "", {"token": token, "via": via})
