"""Planted bugs, each of which the comparison with the oracle must find."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from kv.plays import play, small

from engine.kv import sessions as kv_sessions
from engine.kv import txn as kv_txn
from engine.kv.history import History
from engine.kv.leases import Lease, Leases
from engine.kv.machine import Machine
from engine.kv.sessions import ENDED, HEAD, Sessions
from engine.kv.state import State
from engine.kv.store import Store, Walk

PLAYS = 40

MUTANTS: list[tuple[str, Any, str, Callable[[Any], Any]]] = []
"""What it is, where, the name of what is replaced, and by what: a function of what was there."""


def mutant(where: Any, name: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    def take(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        MUTANTS.append((make.__name__, where, name, make))
        return make

    return take


@mutant(Machine, "load")
def snapshot_without_sessions(was: Any) -> Any:
    return lambda self, found: (was(self, found), self.sessions.load(()))


@mutant(Sessions, "load")
def snapshot_forgets_the_order_of_the_sweep(was: Any) -> Any:
    return lambda self, rows: was(self, sorted(rows))


@mutant(Machine, "load")
def snapshot_forgets_the_greatest_lease(was: Any) -> Any:
    def load(self: Any, found: Any) -> None:
        was(self, found)
        self.leases.greatest = max(self.leases.by_id, default=0)

    return load


@mutant(Machine, "load")
def snapshot_forgets_what_is_compacted(was: Any) -> Any:
    return lambda self, found: (was(self, found), setattr(self.history, "compacted", 0))


@mutant(Walk, "put_aside")
def snapshot_with_keys_made_later(was: Any) -> Any:
    return lambda self, key, old: was(self, key, old) if old else None


@mutant(Walk, "put_aside")
def snapshot_puts_the_last_change_aside(was: Any) -> Any:
    def put_aside(self: Any, key: bytes, old: bytes) -> None:
        if key in self._aside:
            del self._aside[key]
        was(self, key, old)

    return put_aside


@mutant(Store, "remove")
def aside_forgotten_on_delete(was: Any) -> Any:
    def remove(self: Any, key: bytes) -> None:
        walks, self.walks = self.walks, []
        was(self, key)
        self.walks = walks

    return remove


@mutant(State, "expire")
def lease_lives_at_its_deadline(was: Any) -> Any:
    def expire(self: Any) -> None:
        self.time -= 1
        was(self)
        self.time += 1

    return expire


@mutant(Leases, "living")
def attaching_to_a_lease_that_is_ending(was: Any) -> Any:
    return lambda self, lease, time: self.by_id.get(lease)


@mutant(Leases, "keep_alive")
def keeping_alive_does_nothing(was: Any) -> Any:
    return lambda self, lease, time: None


@mutant(Leases, "next_keys")
def keys_of_a_lease_go_in_another_order(was: Any) -> Any:
    return lambda self, lease, most: was(self, lease, most)[::-1]


@mutant(Leases, "grant")
def chosen_ids_are_not_counted(was: Any) -> Any:
    def grant(self: Any, lease: int, ttl: int, time: int) -> Lease:
        greatest = self.greatest
        made: Lease = was(self, lease, ttl, time)
        self.greatest = greatest if lease else self.greatest
        return made

    return grant


@mutant(History, "_cut")
def history_splits_a_revision(was: Any) -> Any:
    def cut(self: Any, at: int) -> None:
        rest = self.events[at:]
        del self.events[at:]
        was(self, at)
        self.events += rest

    return cut


@mutant(History, "after")
def events_from_the_revision_on(was: Any) -> Any:
    return lambda self, revision, *rest: was(self, max(self.compacted, revision - 1), *rest)


@mutant(Sessions, "judge")
def late_requests_are_carried_out(was: Any) -> Any:
    def judge(*of: Any) -> str:
        found: str = was(*of)
        return kv_sessions.NEW if found == kv_sessions.LATE else found

    return judge


@mutant(Sessions, "judge")
def repeated_requests_are_carried_out(was: Any) -> Any:
    def judge(*of: Any) -> str:
        found: str = was(*of)
        return kv_sessions.NEW if found == kv_sessions.REPEATED else found

    return judge


@mutant(Sessions, "keep")
def failed_compare_does_not_move_the_sequence(was: Any) -> Any:
    def keep(self: Any, session: bytes, sequence: int, time: int, answer: bytes, *of: Any) -> None:
        if answer[1] != 1:
            was(self, session, sequence, time, answer, *of)

    return keep


@mutant(Sessions, "keep")
def ended_sessions_go_on(was: Any) -> Any:
    return lambda self, session, sequence, time, answer, ends=False: was(
        self, session, sequence, time, answer
    )


@mutant(Sessions, "keep")
def births_in_the_future_are_forgotten_too_soon(was: Any) -> Any:
    def keep(self: Any, session: bytes, sequence: int, time: int, *of: Any) -> None:
        was(self, session, sequence, time, *of)
        row = self.rows[session]
        last, used = HEAD.unpack_from(row)
        if last < ENDED and used > time:
            self.rows[session] = HEAD.pack(last, time) + row[HEAD.size :]

    return keep


@mutant(Sessions, "pass_time")
def the_horizon_falls(was: Any) -> Any:
    def pass_time(self: Any, time: int, keep: int) -> None:
        self.horizon = 0
        was(self, time, keep)

    return pass_time


@mutant(State, "put")
def a_revision_for_each_put_of_a_transaction(was: Any) -> Any:
    return lambda self, at, *rest: was(self, self.revision + 1, *rest)


@mutant(State, "remove")
def deleting_nothing_takes_a_revision(was: Any) -> Any:
    def remove(self: Any, at: int, key: bytes) -> bool:
        done: bool = was(self, at, key)
        self.revision = at
        return done

    return remove


@mutant(kv_txn, "refusal")
def half_a_transaction(was: Any) -> Any:
    return lambda state, branch: None if len(branch) > 1 else was(state, branch)


@mutant(kv_txn, "once")
def a_key_written_twice(was: Any) -> Any:
    return lambda branch: True


@pytest.mark.parametrize(("what", "where", "name", "make"), MUTANTS, ids=[m[0] for m in MUTANTS])
def test_a_planted_bug_is_found(
    monkeypatch: pytest.MonkeyPatch, what: str, where: Any, name: str, make: Any
) -> None:
    monkeypatch.setattr(where, name, make(getattr(where, name)))
    with small():
        for seed in range(PLAYS):
            try:
                play(Machine(), random.Random(seed), 60)
            except AssertionError:
                return
    pytest.fail(f"{what}: not found in {PLAYS} plays")
