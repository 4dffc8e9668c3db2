"""How much the store takes. Part of the replicated state, and judged where entries are applied, so
that every replica refuses the same."""

from __future__ import annotations

from collections.abc import Sequence

from engine.contract import SECOND, Nanos
from engine.record import Record


class Limits(Record):
    """`CONFIGURE` changes them, by position."""

    key_bytes: int = 4096
    value_bytes: int = 1 << 20
    request_bytes: int = 3 << 19
    """Of a frame of requests."""
    sessions: int = 200_000
    leases: int = 200_000
    lease_keys: int = 16_384
    """That may hang on one lease. They are sorted when it ends, if they are many."""
    history_events: int = 16_384
    history_bytes: int = 32 << 20
    """Of keys and records in the history."""
    state_bytes: int = 8 << 30
    """Of keys and records, and of what is remembered of sessions."""
    horizon: Nanos = 3600 * SECOND
    """A session that is silent for longer is forgotten."""


# A value that can be stored can be told: key, value and what is known of them fit a frame.
LEAST = Limits(1, 0, 64, 0, 0, 0, 0, 0, 0, SECOND)
MOST = Limits(
    1 << 16,
    95 << 17,
    96 << 17,
    1 << 24,
    1 << 24,
    1 << 24,
    1 << 24,
    1 << 36,
    1 << 50,
    365 * 86400 * SECOND,
)


def changed(limits: Limits, values: Sequence[int | None]) -> Limits | None:
    """Those limits with new values, where there is one; None if that makes no sense."""
    if len(values) != len(limits):
        return None
    wanted = [was if new is None else new for was, new in zip(limits, values, strict=True)]
    bounds = zip(LEAST, wanted, MOST, strict=True)
    if not all(least <= value <= most for least, value, most in bounds):
        return None
    return Limits(*wanted)
