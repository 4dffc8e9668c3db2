"""Transactions: if all of this holds then that, else something else, in one revision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from engine.kv import reads, writes
from engine.kv.commands import (
    APPEND,
    DELETE,
    DELETE_RANGE,
    EQUAL,
    GET,
    INVALID,
    KEEP_LEASE,
    LESS,
    OK,
    PUT,
    RANGE,
    TXN_MOST,
    UNEQUAL,
    VALUE,
    VERSION,
    after,
)
from engine.kv.commands import CREATE as CREATE_TARGET
from engine.kv.commands import LEASE as LEASE_TARGET
from engine.kv.commands import MOD as MOD_TARGET
from engine.kv.reads import Room
from engine.kv.state import State
from engine.kv.writes import Answer, Arguments

Change = Callable[[State, int, Arguments], Answer]

CHANGES: dict[int, Change] = {
    PUT: writes.put_now,
    APPEND: writes.append_now,
    DELETE: writes.delete_now,
    DELETE_RANGE: writes.delete_range_now,
}
READS = {GET: reads.get, RANGE: reads.key_range}


def txn(state: State, room: Room, arguments: Arguments) -> Answer:
    compares, then, otherwise = arguments
    if max(map(len, arguments)) > TXN_MOST or not (once(then) and once(otherwise)):
        return INVALID, "txn"
    succeeded = all(holds(state, compare) for compare in compares)
    branch = then if succeeded else otherwise
    refused = refusal(state, branch)
    if refused:
        return refused
    at = state.revision + 1
    answers: list[Answer] = []
    for op, *rest in branch:
        if op in CHANGES:
            answers.append(CHANGES[op](state, at, tuple(rest)))
        else:
            answers.append(READS[op](state, room, tuple(rest)))
    return OK, state.revision, succeeded, answers


def once(branch: Arguments) -> bool:
    """No key is written by two of these. So each finds what was there before all of them."""
    spans: list[tuple[bytes, bytes]] = []
    endless: list[bytes] = []
    for op, *rest in branch:
        if op == DELETE_RANGE and rest[1] is not None:
            start, end = rest
            if not end:
                endless.append(start)
            elif start < end:
                spans.append((start, end))
        elif op in CHANGES:
            spans.append((rest[0], after(rest[0])))
    spans.sort()
    apart = all(one[1] <= other[0] for one, other in pairwise(spans))
    if endless:
        return apart and len(endless) == 1 and (not spans or spans[-1][1] <= endless[0])
    return apart


def holds(state: State, compare: Arguments) -> bool:
    key, target, operator, operand = compare
    head = state.store.head(key)
    found: Any
    if target == VALUE:
        found = state.store.value(key)
    else:
        found = {
            VERSION: head.version,
            CREATE_TARGET: head.create,
            MOD_TARGET: head.mod,
            LEASE_TARGET: head.lease,
        }[target]
    if operator == EQUAL:
        return bool(found == operand)
    if operator == UNEQUAL:
        return bool(found != operand)
    if found is None:
        return False
    return bool(found < operand if operator == LESS else found > operand)


def refusal(state: State, branch: Arguments) -> Answer | None:
    """Why it may not be done, if so: what the first that is refused would be answered. Space that
    it frees does not count."""
    spent = 0
    hanging: Counter[int] = Counter()
    for op, *rest in branch:
        refused: Answer | None = None
        if op == DELETE_RANGE:
            refused = writes.range_refusal(state, tuple(rest))
        elif op in (PUT, APPEND):
            key, value = rest[:2]
            was = state.store.head(key).lease
            lease = rest[2] if op == PUT else KEEP_LEASE
            size = len(value) + (state.store.value_bytes(key) if op == APPEND else 0)
            refused = writes.refusal(state, key, size, lease, spent, hanging[lease])
            hanging[lease] += was != lease
            kept = was if lease == KEEP_LEASE else lease
            spent += max(0, state.growth(key, size, kept))
        if refused:
            return refused
    return None
