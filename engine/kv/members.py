"""Who belongs to a cluster of `engine kv up`: adding, removing and replacing replicas while it
serves, and handing leadership over."""

from __future__ import annotations

import select
from collections.abc import Sequence
from time import monotonic
from typing import Any, TypeVar

from engine.errors import ConnectionFailed, EngineError, NotFoundError, RefusedError
from engine.kv.reach import LOOK_MS, Place, Reach, reached
from engine.kv.up import Seat, found, new_seat, reread, write
from engine.raft.client import Operator
from engine.raft.membership import LEARNER

AnySeat = TypeVar("AnySeat", Seat, Seat | Place)

SETTLE_SECONDS = 60.0


def add(folder: str) -> Seat:
    """One more replica; returns when it votes. EngineError."""
    seats = found(folder)
    seat = new_seat(folder, seats)
    reached(folder).leader()  # before anything is written: somebody must be there to add it
    write(folder, [*seats, seat])
    reread(folder)
    _change(folder, lambda wanted: wanted.update({seat.member: (seat.peers, True)}))
    _await(folder, seat.member, votes=True)
    return seat


def remove(folder: str, number: int) -> Seat:
    """Let a replica go; its folder stays, and is of no use any more. EngineError."""
    seats = found(folder)
    seat = _seat(seats, number)
    if len(seats) == 1:
        raise RefusedError(f"Replica {number} is the only one: it has all there is.")
    _change(folder, lambda wanted: wanted.pop(seat.member, None))
    _await(folder, seat.member, votes=False)
    write(folder, [one for one in found(folder) if one.id != number])
    reread(folder)
    return seat


def replace(folder: str, number: int) -> Seat:
    """A new replica in place of one, which may be dead. EngineError."""
    _seat(found(folder), number)
    seat = add(folder)
    remove(folder, number)
    return seat


def lead(reach: Reach, number: int) -> None:
    """Hand leadership to this replica, 0 for whoever has most; returns when it leads."""
    leader, before = reach.leader()
    target = _member(reach, _seat(reach.seats, number)) if number else 0
    if before.member == target:
        return
    with Operator(leader.admin, **reach.way) as operator:
        operator.hand_over(target)
    deadline = monotonic() + SETTLE_SECONDS
    while True:
        after = reach.statuses()
        leads = {one.member: one.term for one in after.values() if one.role == "leader"}
        now = max(leads, key=lambda member: leads[member], default=0)
        if now and now != before.member and target in (0, now):
            return
        _patience(deadline, f"replica {number} does not lead")


def _member(reach: Reach, seat: Seat | Place) -> int:
    """Its number in the group. ConnectionFailed if only it knows, and does not answer."""
    if isinstance(seat, Seat):
        return seat.member
    told = reach.statuses().get(seat.id)
    if told is None:
        raise ConnectionFailed(f"Nobody answers at {seat.admin}, so nothing was changed.")
    return told.member


def _seat(seats: Sequence[AnySeat], number: int) -> AnySeat:
    for seat in seats:
        if seat.id == number:
            return seat
    there = ", ".join(str(seat.id) for seat in seats)
    raise NotFoundError(f"There is no replica {number}; there are {there}.")


def _change(folder: str, change: Any) -> None:
    """Order it, again while another change is under way or the leader goes."""
    deadline = monotonic() + SETTLE_SECONDS
    while True:
        try:
            leader, status = reached(folder).leader()
            wanted = {seat.id: (seat.address, seat.role != LEARNER) for seat in status.seats}
            change(wanted)
            with Operator(leader.admin) as operator:
                operator.change([(member, *rest) for member, rest in wanted.items()])
            return
        except EngineError as error:
            _patience(deadline, str(error))


def _await(folder: str, member: int, *, votes: bool) -> None:
    deadline = monotonic() + SETTLE_SECONDS
    while True:
        try:
            _, status = reached(folder).leader()
        except ConnectionFailed as error:
            _patience(deadline, str(error))
            continue
        roles = {seat.id: seat.role for seat in status.seats}
        if not status.joint and (roles.get(member) == "voter" if votes else member not in roles):
            return
        what = "does not vote yet" if votes else "still belongs to it"
        _patience(deadline, f"member {member} {what}")


def _patience(deadline: float, why: str) -> None:
    if monotonic() > deadline:
        raise EngineError(f"After {SETTLE_SECONDS:.0f} s: {why.rstrip('.')}.")
    select.poll().poll(LOOK_MS)
