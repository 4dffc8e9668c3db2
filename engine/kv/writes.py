"""What each request does: a function of the state and the arguments, which are well-formed.

Each returns its answer, and has changed nothing if that is not OK.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.kv.commands import (
    APPEND,
    CAS_REVISION,
    CAS_VALUE,
    COMPACT,
    COMPARE_FAILED,
    CONFIGURE,
    DELETE,
    DELETE_RANGE,
    END_SESSION,
    INVALID,
    KEEP_LEASE,
    LEASE_ALIVE,
    LEASE_GRANT,
    LEASE_REVOKE,
    NOT_FOUND,
    OK,
    PUT,
    PUT_VERSION,
    REFUSED,
    ROWS_MAX,
    TOO_LARGE,
    TOO_MANY,
)
from engine.kv.leases import CHOSEN_MAX, TTL_MAX
from engine.kv.limits import changed
from engine.kv.state import EXPIRE_KEYS_MAX, State

Answer = tuple[Any, ...]
Arguments = tuple[Any, ...]


def refusal(
    state: State, key: bytes, value_bytes: int, lease: int, spent: int = 0, hanging: int = 0
) -> Answer | None:
    """Why a key may not have a value of this size, if so. The rest of a transaction takes `spent`
    bytes, and hangs so many keys on that lease."""
    limits = state.limits
    if len(key) > limits.key_bytes:
        return TOO_LARGE, "key"
    if value_bytes > limits.value_bytes:
        return TOO_LARGE, "value"
    old = state.store.head(key)
    if lease not in (0, KEEP_LEASE):
        found = state.leases.living(lease, state.time)
        if found is None:
            return NOT_FOUND, state.revision
        if old.lease != lease and state.leases.size(lease) + hanging >= limits.lease_keys:
            return TOO_MANY, "lease"
    growth = state.growth(key, value_bytes, old.lease if lease == KEEP_LEASE else lease)
    if growth > 0 and state.size + spent + growth > limits.state_bytes:
        return TOO_LARGE, "space"
    return None


def put(state: State, arguments: Arguments) -> Answer:
    key, value, lease = arguments
    return refusal(state, key, len(value), lease) or put_now(state, state.revision + 1, arguments)


def put_now(state: State, at: int, arguments: Arguments) -> Answer:
    """What is not refused."""
    key, value, lease = arguments
    if lease == KEEP_LEASE:
        lease = state.store.head(key).lease
    version = state.put(at, key, value, lease)
    return OK, state.revision, version


def append(state: State, arguments: Arguments) -> Answer:
    key, value = arguments
    size = state.store.value_bytes(key) + len(value)
    refused = refusal(state, key, size, KEEP_LEASE)
    return refused or append_now(state, state.revision + 1, arguments)


def append_now(state: State, at: int, arguments: Arguments) -> Answer:
    """What is not refused."""
    key, value = arguments
    joined = (state.store.value(key) or b"") + value
    version = state.put(at, key, joined, state.store.head(key).lease)
    return OK, state.revision, version, len(joined)


def delete(state: State, arguments: Arguments) -> Answer:
    return delete_now(state, state.revision + 1, arguments)


def delete_now(state: State, at: int, arguments: Arguments) -> Answer:
    deleted = state.remove(at, arguments[0])
    return OK, state.revision, int(deleted)


def range_refusal(state: State, arguments: Arguments) -> Answer | None:
    """All or nothing is deleted, and no request may take for ever."""
    start, end = arguments
    first, last = state.store.positions(start, end)
    return (TOO_MANY, "range") if last - first > ROWS_MAX else None


def delete_range(state: State, arguments: Arguments) -> Answer:
    refused = range_refusal(state, arguments)
    return refused or delete_range_now(state, state.revision + 1, arguments)


def delete_range_now(state: State, at: int, arguments: Arguments) -> Answer:
    """What is not refused."""
    keys = list(state.store.span(*state.store.positions(*arguments)))
    for key in keys:
        state.remove(at, key)
    return OK, state.revision, len(keys)


# --- put, if -------------------------------------------------------------------------------------


def unequal(state: State, key: bytes) -> Answer:
    """What was found is not what was expected."""
    head = state.store.head(key)
    return COMPARE_FAILED, state.revision, head.mod, head.version


def cas_value(state: State, arguments: Arguments) -> Answer:
    key, expected, value, lease = arguments
    if state.store.value(key) != expected:
        return unequal(state, key)
    return put(state, (key, value, lease))


def cas_revision(state: State, arguments: Arguments) -> Answer:
    key, expected, value, lease = arguments
    if state.store.head(key).mod != expected:
        return unequal(state, key)
    return put(state, (key, value, lease))


def put_version(state: State, arguments: Arguments) -> Answer:
    key, value, version = arguments
    found = state.store.head(key).version
    if found == 0 and version > 0:
        return NOT_FOUND, state.revision
    if found != version:
        return unequal(state, key)
    return put(state, (key, value, 0))


# --- leases --------------------------------------------------------------------------------------


def lease_grant(state: State, arguments: Arguments) -> Answer:
    ttl, lease = arguments
    leases = state.leases
    if not 0 < ttl <= TTL_MAX:
        return INVALID, "ttl"
    if lease > CHOSEN_MAX:
        return INVALID, "lease"
    if lease in leases.by_id:
        return REFUSED, "lease"
    if len(leases.by_id) >= state.limits.leases:
        return TOO_MANY, "leases"
    return OK, state.revision, leases.grant(lease, ttl, state.time).id, ttl


def lease_revoke(state: State, arguments: Arguments) -> Answer:
    """More keys than one entry may delete go with the next ones."""
    lease = state.leases.living(arguments[0], state.time)
    if lease is None:
        return NOT_FOUND, state.revision
    state.leases.revoke(lease)
    deleted = state.end_lease(lease, EXPIRE_KEYS_MAX)
    return OK, state.revision, deleted


def lease_alive(state: State, arguments: Arguments) -> Answer:
    lease = state.leases.living(arguments[0], state.time)
    if lease is None:
        return NOT_FOUND, state.revision
    state.leases.keep_alive(lease, state.time)
    return OK, state.revision, lease.ttl


# --- the group -----------------------------------------------------------------------------------


def configure(state: State, arguments: Arguments) -> Answer:
    limits = changed(state.limits, arguments[0])
    if limits is None:
        return INVALID, "limits"
    state.limits = limits
    return OK, state.revision


def compact(state: State, arguments: Arguments) -> Answer:
    if arguments[0] > state.revision:
        return INVALID, "revision"
    state.trim()
    state.history.compact(arguments[0])
    return OK, state.revision, state.history.compacted


def end_session(state: State, _: Arguments) -> Answer:
    """Whoever keeps the answer ends the session with it."""
    return OK, state.revision


WRITERS: dict[int, Callable[[State, Arguments], Answer]] = {
    PUT: put,
    APPEND: append,
    DELETE: delete,
    DELETE_RANGE: delete_range,
    CAS_VALUE: cas_value,
    CAS_REVISION: cas_revision,
    PUT_VERSION: put_version,
    LEASE_GRANT: lease_grant,
    LEASE_REVOKE: lease_revoke,
    LEASE_ALIVE: lease_alive,
    CONFIGURE: configure,
    COMPACT: compact,
    END_SESSION: end_session,
}
"""All but transactions (`txn`)."""
