"""The store as one would write it without a thought for time or memory: the model for its tests.

It takes requests as tuples, shares no code with the store but the numbers of operations and codes,
and looks at everything each time.
"""

from __future__ import annotations

from typing import Any

import msgpack

from engine.kv import commands as c

MS = 1_000_000
LIMITS = [
    *("key", "value", "request", "sessions", "leases", "lease_keys"),
    *("history_events", "history_bytes", "state", "horizon"),
]
DEFAULTS = (
    4096, 1 << 20, 3 << 19, 200_000, 200_000, 16_384, 16_384, 32 << 20, 8 << 30, 3600 * 1000 * MS
)  # fmt: skip
LEAST = (1, 0, 64, 0, 0, 0, 0, 0, 0, 1000 * MS)
EXPIRE = 250


class Refused(Exception):
    def __init__(self, *answer: Any) -> None:
        super().__init__(answer)
        self.answer = answer


class Oracle:
    def __init__(self) -> None:
        self.revision = self.time = self.horizon = self.greatest = self.compacted = 0
        self.limits = dict(zip(LIMITS, DEFAULTS, strict=True))
        self.keys: dict[bytes, tuple[int, int, int, int, bytes]] = {}
        self.leases: dict[int, list[int]] = {}  # ttl, deadline
        self.sessions: list[list[Any]] = []  # name, last, used, answer, ended
        self.history: list[tuple[int, bytes, Any]] = []  # revision, key, row or None

    # --- entries ---------------------------------------------------------------------------------

    def apply(self, time: int, frames: list[tuple[Any, ...]], sizes: list[int]) -> list[Any]:
        self.time = max(self.time, time)
        self.horizon = max(self.horizon, self.time - self.limits["horizon"])
        self.sweep(4)
        self.expire()
        answers = []
        for (number, *requests), size in zip(frames, sizes, strict=True):
            self.room = [1 << 20, 10_000, True]
            large = size > self.limits["request"]
            answers.append((number, [self.request(*request, large=large) for request in requests]))
        self.trim()
        return answers

    def sweep(self, most: int) -> None:
        for _ in range(min(most, len(self.sessions))):
            row = self.sessions.pop(0)
            if row[2] >= self.horizon:
                self.sessions.append(row)

    def expire(self) -> None:
        left = EXPIRE
        while left > 0:
            due = [(row[1], one) for one, row in self.leases.items() if row[1] <= self.time]
            if not due:
                return
            left -= max(1, self.end_lease(min(due)[1], left))

    def end_lease(self, lease: int, most: int) -> int:
        self.begin()
        hanging = sorted(key for key, row in self.keys.items() if row[3] == lease)
        for key in hanging[:most]:
            self.remove(key)
        if len(hanging) <= most:
            del self.leases[lease]
        return len(hanging[:most])

    def trim(self) -> None:
        def much() -> bool:
            size = sum(self.event_bytes(one) for one in self.history)
            many = len(self.history)
            return many > self.limits["history_events"] or size > self.limits["history_bytes"]

        while much():
            self.compact(self.history[0][0])

    def event_bytes(self, event: tuple[int, bytes, Any]) -> int:
        return len(event[1]) + (self.row_bytes(event[2]) if event[2] else 0)

    def row_bytes(self, row: tuple[int, int, int, int, bytes]) -> int:
        return 24 + (8 if row[3] else 0) + len(row[4])

    def compact(self, revision: int) -> None:
        self.history = [event for event in self.history if event[0] > revision]
        self.compacted = max(self.compacted, revision)

    # --- sessions --------------------------------------------------------------------------------

    def request(self, session: bytes, sequence: int, op: int, *rest: Any, large: bool) -> Any:
        if session == b"":
            return self.carry_out(op, rest, large)
        birth = int.from_bytes(session[:8], "big")
        row = next((row for row in self.sessions if row[0] == session), None)
        if row is None:
            if birth < self.horizon or birth > self.time + 60_000 * MS:
                return (c.SESSION_EXPIRED,)
            self.sweep(2)
            if len(self.sessions) >= self.limits["sessions"]:
                return c.TOO_MANY, "sessions"
        else:
            _, last, used, answer, ended = row
            if used < self.horizon:
                return (c.SESSION_EXPIRED,)
            if sequence == last:
                return answer
            if sequence < last:
                return (c.LATE,)
            if ended:
                return (c.SESSION_EXPIRED,)
        answer = self.carry_out(op, rest, large)
        if row is None:
            row = [session, 0, 0, None, False]
            self.sessions.append(row)
        ended = op == c.END_SESSION and not large
        row[1:] = [sequence, birth if ended else max(self.time, birth), answer, ended]
        return answer

    def carry_out(self, op: int, rest: tuple[Any, ...], large: bool) -> Any:
        if large:
            return c.TOO_LARGE, "request"
        self.begin()
        leases = {lease: list(row) for lease, row in self.leases.items()}
        before = dict(self.keys), leases, list(self.history), self.revision
        try:
            return self.do(op, rest)
        except Refused as refused:
            self.keys, self.leases, self.history, self.revision = before
            answer = refused.answer
            return (answer[0], self.revision, *answer[2:]) if answer[1] is None else answer

    def size(self) -> int:
        rows = sum(len(key) + self.row_bytes(row) for key, row in self.keys.items())
        return rows + sum(32 + len(msgpack.packb(row[3])) for row in self.sessions)

    # --- changes ---------------------------------------------------------------------------------

    def begin(self) -> None:
        self.at = self.revision + 1
        self.spent = 0
        self.hung: dict[int, int] = {}

    def write(self, key: bytes, value: bytes, lease: int) -> int:
        row = self.check(key, value, lease)
        self.keys[key] = row
        self.happened(key, row)
        return row[2]

    def check(self, key: bytes, value: bytes, lease: int) -> tuple[int, int, int, int, bytes]:
        """What becomes of a key. `spent` and `hung` say what the rest of a transaction takes."""
        old = self.keys.get(key, (self.at, 0, 0, 0, b""))
        if len(key) > self.limits["key"]:
            raise Refused(c.TOO_LARGE, "key")
        if len(value) > self.limits["value"]:
            raise Refused(c.TOO_LARGE, "value")
        if lease > 0:
            if not self.lives(lease):
                raise Refused(c.NOT_FOUND, None)
            hanging = self.hanging(lease) + self.hung.get(lease, 0)
            if old[3] != lease and hanging >= self.limits["lease_keys"]:
                raise Refused(c.TOO_MANY, "lease")
            self.hung[lease] = self.hung.get(lease, 0) + (old[3] != lease)
        row = (old[0], self.at, old[2] + 1, old[3] if lease == -1 else lease, value)
        grows = self.row_bytes(row) + (-self.row_bytes(old) if old[2] else len(key))
        if grows > 0 and self.size() + self.spent + grows > self.limits["state"]:
            raise Refused(c.TOO_LARGE, "space")
        self.spent += max(0, grows)
        return row

    def happened(self, key: bytes, row: Any) -> None:
        self.history.append((self.at, key, row))
        self.revision = self.at

    def remove(self, key: bytes) -> int:
        if self.keys.pop(key, None) is None:
            return 0
        self.happened(key, None)
        return 1

    def lives(self, lease: int) -> bool:
        return lease in self.leases and self.leases[lease][1] > self.time

    def hanging(self, lease: int) -> int:
        return sum(row[3] == lease for row in self.keys.values())

    def inside(self, start: bytes, end: bytes | None) -> list[bytes]:
        if end is None:
            return [key for key in self.keys if key == start]
        return sorted(key for key in self.keys if start <= key and (key < end or end == b""))

    def do(self, op: int, rest: tuple[Any, ...]) -> Any:
        return getattr(self, f"do_{NAMES[op]}")(*rest)

    def do_put(self, key: bytes, value: bytes, lease: int) -> Any:
        version = self.write(key, value, lease)
        return c.OK, self.revision, version

    def do_append(self, key: bytes, value: bytes) -> Any:
        value = (self.keys[key][4] if key in self.keys else b"") + value
        version = self.write(key, value, -1)
        return c.OK, self.revision, version, len(value)

    def do_delete(self, key: bytes) -> Any:
        deleted = self.remove(key)
        return c.OK, self.revision, deleted

    def do_delete_range(self, start: bytes, end: bytes | None) -> Any:
        keys = self.inside(start, end)
        if len(keys) > 10_000:
            raise Refused(c.TOO_MANY, "range")
        for key in keys:
            self.remove(key)
        return c.OK, self.revision, len(keys)

    def failed(self, key: bytes) -> Any:
        row = self.keys.get(key, (0, 0, 0, 0, b""))
        return c.COMPARE_FAILED, self.revision, row[1], row[2]

    def do_cas_value(self, key: bytes, expected: bytes | None, value: bytes, lease: int) -> Any:
        found = self.keys[key][4] if key in self.keys else None
        return self.do_put(key, value, lease) if found == expected else self.failed(key)

    def do_cas_revision(self, key: bytes, expected: int, value: bytes, lease: int) -> Any:
        found = self.keys[key][1] if key in self.keys else 0
        return self.do_put(key, value, lease) if found == expected else self.failed(key)

    def do_put_version(self, key: bytes, value: bytes, version: int) -> Any:
        if key not in self.keys:
            if version:
                return c.NOT_FOUND, self.revision
        elif self.keys[key][2] != version:
            return self.failed(key)
        return self.do_put(key, value, 0)

    def do_txn(self, compares: Any, then: Any, otherwise: Any) -> Any:
        for branch in (then, otherwise):
            touched = []
            for op, *args in branch:
                if op in (c.PUT, c.APPEND, c.DELETE):
                    touched.append((args[0], None))
                elif op == c.DELETE_RANGE:
                    touched.append(tuple(args))
            pairs = [(a, b) for n, a in enumerate(touched) for b in touched[:n]]
            if any(overlap(a, b) for a, b in pairs):
                return c.INVALID, "txn"
        if max(len(compares), len(then), len(otherwise)) > 128:
            return c.INVALID, "txn"
        succeeded = all(self.compare(*compare) for compare in compares)
        branch = then if succeeded else otherwise
        for op, *args in branch:  # what frees space, or a lease, does not count
            if op == c.PUT:
                self.check(*args)
            elif op == c.APPEND:
                old = self.keys[args[0]][4] if args[0] in self.keys else b""
                self.check(args[0], old + args[1], -1)
            elif op == c.DELETE_RANGE and len(self.inside(*args)) > 10_000:
                raise Refused(c.TOO_MANY, "range")
        self.spent, self.hung = -1 << 60, dict.fromkeys(self.leases, -1 << 60)  # it is all judged
        answers = [self.do(op, tuple(args)) for op, *args in branch]
        return c.OK, self.revision, succeeded, answers

    def compare(self, key: bytes, target: int, operator: int, operand: Any) -> bool:
        create, mod, version, lease, value = self.keys.get(key, (0, 0, 0, 0, None))
        found: Any = (value, version, create, mod, lease)[target]
        if operator in (0, 1):
            return (found == operand) == (operator == 0)
        if found is None:
            return False
        return found < operand if operator == 2 else found > operand

    def do_lease_grant(self, ttl: int, lease: int) -> Any:
        if not 1 <= ttl <= 3650 * 86_400_000:
            return c.INVALID, "ttl"
        if lease > 1 << 53:
            return c.INVALID, "lease"
        if lease in self.leases:
            return c.REFUSED, "lease"
        if len(self.leases) >= self.limits["leases"]:
            return c.TOO_MANY, "leases"
        lease = lease or self.greatest + 1
        self.greatest = max(self.greatest, lease)
        self.leases[lease] = [ttl, self.time + ttl * MS]
        return c.OK, self.revision, lease, ttl

    def do_lease_revoke(self, lease: int) -> Any:
        if not self.lives(lease):
            return c.NOT_FOUND, self.revision
        self.leases[lease][1] = 0
        deleted = self.end_lease(lease, EXPIRE)
        return c.OK, self.revision, deleted

    def do_lease_alive(self, lease: int) -> Any:
        if not self.lives(lease):
            return c.NOT_FOUND, self.revision
        self.leases[lease][1] = self.time + self.leases[lease][0] * MS
        return c.OK, self.revision, self.leases[lease][0]

    def do_configure(self, values: Any) -> Any:
        if len(values) != len(LIMITS) or any(
            value is not None and value < least for value, least in zip(values, LEAST, strict=True)
        ):
            return c.INVALID, "limits"
        given = {n: v for n, v in zip(LIMITS, values, strict=True) if v is not None}
        self.limits.update(given)
        return c.OK, self.revision

    def do_compact(self, revision: int) -> Any:
        if revision > self.revision:
            return c.INVALID, "revision"
        self.trim()
        self.compact(revision)
        return c.OK, self.revision, self.compacted

    def do_end_session(self) -> Any:
        return c.OK, self.revision

    # --- reads -----------------------------------------------------------------------------------

    def read(self, number: int, *asks: tuple[Any, ...]) -> Any:
        self.room = [1 << 20, 10_000, True]
        return number, [self.do(ask[0], ask[1:]) for ask in asks]

    def take(self, size: int) -> bool:
        left, rows, fresh = self.room
        if not fresh and (size > left or rows <= 0):
            return False
        self.room = [left - size, rows - 1, False]
        return True

    def do_get(self, key: bytes) -> Any:
        if key not in self.keys:
            return c.NOT_FOUND, self.revision
        create, mod, version, lease, value = row = self.keys[key]
        if not self.take(len(key) + self.row_bytes(row)):
            return c.TOO_LARGE, "answer"
        return c.OK, self.revision, value, create, mod, version, lease

    def do_range(self, start: bytes, end: bytes | None, limit: int, flags: int) -> Any:
        keys = self.inside(start, end)
        if flags & c.COUNT_ONLY:
            return c.OK, self.revision, False, len(keys), []
        rows: list[Any] = []
        for key in reversed(keys) if flags & c.REVERSE else keys:
            create, mod, version, lease, value = self.keys[key]
            value = b"" if flags & c.KEYS_ONLY else value
            full = len(rows) == (limit or 10_000) or len(rows) == 10_000
            if full or not self.take(len(key) + len(value)):
                break
            rows.append((key, value, create, mod, version, lease))
        return c.OK, self.revision, len(rows) < len(keys), len(keys), rows

    def left(self, lease: int) -> int:
        return max(0, (self.leases[lease][1] - self.time + MS - 1) // MS)

    def do_lease_get(self, lease: int) -> Any:
        if not self.lives(lease):
            return c.NOT_FOUND, self.revision
        told = self.leases[lease][0], self.left(lease), self.hanging(lease)
        return c.OK, self.revision, *told

    def do_leases(self, limit: int) -> Any:
        rows = [
            (one, row[0], self.left(one), self.hanging(one)) for one, row in self.leases.items()
        ]
        return c.OK, self.revision, len(rows) > limit, rows[:limit]

    def do_limits(self) -> Any:
        return c.OK, self.revision, tuple(self.limits.values())

    def do_info(self) -> Any:
        size = sum(len(key) + self.row_bytes(row) for key, row in self.keys.items())
        numbers = len(self.keys), size, len(self.sessions), len(self.leases), self.compacted
        return c.OK, self.revision, self.time, *numbers

    def events(self, after: int, start: bytes, end: bytes | None) -> Any:
        """All of them, however many; None if they are compacted."""
        if after < self.compacted:
            return None
        keys = {key for _, key, _ in self.history if covers((start, end), key)}
        return [event for event in self.history if event[0] > after and event[1] in keys]


def covers(span: Any, key: bytes) -> bool:
    start, end = span
    return key == start if end is None else start <= key and (end == b"" or key < end)


def overlap(one: Any, other: Any) -> bool:
    """Spans have a key in common if one of their beginnings is in both, unless they are empty."""
    ends = (one[0], other[0])
    return any(covers(one, key) and covers(other, key) for key in ends)


NAMES = {getattr(c, name[3:].upper()): name[3:] for name in vars(Oracle) if name[:3] == "do_"}
