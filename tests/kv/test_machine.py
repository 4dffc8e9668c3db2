"""The store's machine: formats by their bytes, whatever bytes there are, bounds, snapshots."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kv.oracle import Oracle
from kv.plays import MS, Player, configured, loaded, state, unpacked
from support import dose

from engine.errors import DamagedData
from engine.kernels.checksum import crc32c
from engine.kv import commands as c
from engine.kv.checks import WRITES, well_formed_write
from engine.kv.front import ANSWER_BYTES_MAX
from engine.kv.limits import MOST
from engine.kv.machine import Machine
from engine.kv.store import STEP_KEYS, Store, Walk, pack_record
from engine.kv.writes import WRITERS

SESSION = c.new_session(0, b"a client")


def ask(machine: Machine, *asks: Any) -> list[Any]:
    return c.unpack_answers(machine.read(c.pack_frame(1, *asks)))[1]


def do(machine: Machine, *commands: Any, time: int = 0) -> list[Any]:
    """One entry and frame; the answers."""
    frame = c.pack_frame(1, *[c.request(b"", 1, command) for command in commands])
    return c.unpack_answers(machine.apply(c.pack_entry(1, time, [(1, frame)]))[0])[1]


# --- formats -------------------------------------------------------------------------------------


def test_an_entry_by_its_bytes() -> None:
    frame = c.pack_frame(9, c.request(b"", 1, c.put(b"k", b"v")))
    body = bytes.fromhex(
        "01 00 01 00  01 00 00 00  05 00 00 00 00 00 00 00    07 00 00 00  0e 00 00 00"
        "92 09  96  c4 00  01  02  c4 01 6b  c4 01 76  00"
    )
    assert c.pack_entry(1, 5, [(7, frame)]) == body
    assert c.unpack_entry(body) == c.Entry(1, 5, (7,), [frame])
    machine = Machine(1)
    assert machine.apply(body) == [bytes.fromhex("92 09 93 00 01 01")]
    assert (machine.time, machine.revision) == (5, 1)
    assert machine.digest == crc32c(bytes.fromhex("92 09 93 00 01 01"), crc32c(body))
    assert machine.digest == 0x07DE0A91


def test_a_snapshot_by_its_bytes() -> None:
    machine = Machine(1)
    do(machine, c.lease_grant(5), c.put(b"k", b"v"), c.put(b"l", b"w", 1), time=1)
    frame = c.pack_frame(1, c.request(SESSION, 3, c.delete(b"l")))
    machine.apply(c.pack_entry(1, 9, [(1, frame)]))
    k = "c419 0100000000000000 0100000000000000 0100000000000000 76"
    w = "c421 0200000000000000 0200000000000000 0100000000000080 0100000000000000 77"
    assert [piece.hex() for piece in machine.pieces()] == [
        piece.replace(" ", "")
        for piece in (
            "01 99 01 01 03 09 cea8ab1fa0 00 00 01"
            "9a cd1000 ce00100000 ce00180000 ce00030d40 ce00030d40 cd4000 cd4000 ce02000000"
            "cf0000000200000000 cf0000034630b8a000",
            "02 91 93 01 05 ce004c4b41",
            "03 92 91 c410" + SESSION.hex() + "91 c414 0300000000000000 0900000000000000 93000301",
            f"04 93 9401 01 c4016b {k} 9402 01 c4016c {w} 9403 02 c4016c c400",
            f"05 92 91 c4016b 91 {k}",
            "06 94 01 01 03 01",
        )
    ]


def test_slots_are_those_of_redis_cluster() -> None:
    assert c.slot_of(b"123456789") == 0x31C3
    assert c.slot_of(b"foo") == 12182
    assert c.slot_of(b"{user1000}.following") == c.slot_of(b"user1000")
    assert c.slot_of(b"foo{}{bar}") != c.slot_of(b"bar")
    assert c.slot_of(b"foo{{bar}}zap") == c.slot_of(b"{bar")
    assert c.slot_of(b"foo{bar}{zap}") == c.slot_of(b"bar")


def test_prefixes() -> None:
    assert c.prefix_end(b"ab") == b"ac"
    assert c.prefix_end(b"a\xff\xff") == b"b"
    assert c.prefix_end(b"\xff") == b""
    assert c.prefix_end(b"") == b""


def test_every_write_is_known_to_all() -> None:
    assert {*WRITES} == {*WRITERS, c.TXN}
    assert not {*WRITES} & {True, False}


# --- any bytes -----------------------------------------------------------------------------------


def script(seed: int, entries: int) -> list[bytes]:
    """Bodies of a play."""
    oracle = Oracle()
    player = Player(random.Random(seed), oracle)
    configured(Machine(), oracle)
    bodies = []
    for _ in range(entries):
        time, frames = player.entry()
        packed = [msgpack.packb(frame) for frame in frames]
        oracle.apply(time, frames, [*map(len, packed)])
        bodies.append(c.pack_entry(1, time, [(1, frame) for frame in packed]))
    return bodies


def mutated(rng: random.Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            found[at : at + 1] = rng.randbytes(1)
        elif kind == 1:
            del found[at : at + rng.randrange(1, 4)]
        elif kind == 2:
            found[at:at] = rng.randbytes(rng.randrange(1, 4))
        else:
            found[at:at] = rng.choice([b"\xc0", b"\xc3", b"\x01", b"\x90", b"\x80", b"\xdf\xff"])
    return bytes(found)


def kept(machine: Machine) -> dict[str, Any]:
    """What changes only if something is carried out; sessions are swept for every entry."""
    found = state(machine)
    return {name: found[name] for name in ("keys", "order", "leases", "history", "limits")}


@settings(max_examples=dose(200, 5000), deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    machine = Machine()
    assert type(machine.apply(data)) is list
    assert type(machine.read(data)) is bytes
    assert machine.apply(c.pack_entry(1, 0, [(1, data)])) in ([b""], [machine.apply(b"")])
    assert machine.revision == 0


@pytest.mark.parametrize("seed", range(dose(4, 100)))
def test_frames_that_are_almost_right(seed: int) -> None:
    """They are malformed exactly if the checks say so, and then nothing happens."""
    rng = random.Random(seed)
    machine = Machine()
    for body in script(seed, 60):
        entry = c.unpack_entry(body)
        assert entry is not None
        for frame in entry.frames:
            damaged = mutated(rng, frame)
            try:
                right = well_formed_write(msgpack.unpackb(damaged, use_list=False, max_ext_len=0))
            except (ValueError, TypeError):
                right = False
            before = kept(machine)
            answer = machine.apply(c.pack_entry(1, machine.time, [(1, damaged)]))[0]
            assert bool(answer) == right, damaged
            assert right or kept(machine) == before
            assert type(machine.read(damaged)) is bytes
        machine.apply(mutated(rng, body))
        machine.apply(body)


@pytest.mark.parametrize(
    "request_",
    [
        (b"", True, c.PUT, b"k", b"v", 0),
        (b"", 1, c.PUT, b"k", b"v", False),
        (b"", 1, 2.0, b"k", b"v", 0),
        (b"", 0, c.PUT, b"k", b"v", 0),
        (b"", 1 << 63, c.PUT, b"k", b"v", 0),
        (b"", 1, c.PUT, "k", b"v", 0),
        (b"", 1, c.PUT, b"k", None, 0),
        (b"", 1, c.PUT, b"k", b"v", -2),
        (b"", 1, c.PUT, b"k", b"v"),
        (b"", 1, c.PUT, b"k", b"v", 0, 0),
        (b"", 1, c.GET, b"k"),
        (b"", 1, 1, b"k"),
        (b"short", 1, c.DELETE, b"k"),
        ({}, 1, c.PUT, b"k", b"v", 0),
        ([], 1, c.PUT, b"k", b"v", 0),
        (b"", 1, c.TXN, [[b"k", c.VALUE, c.LESS, None]], [], []),
        (b"", 1, c.TXN, [[b"k", c.MOD, c.EQUAL, b"v"]], [], []),
        (b"", 1, c.TXN, [[b"k", 5, c.EQUAL, 1]], [], []),
        (b"", 1, c.TXN, [], [[c.TXN, [], [], []]], []),
        (b"", 1, c.TXN, [], [[c.LEASE_GRANT, 1, 0]], []),
        (b"", 1, c.CONFIGURE, [-1]),
    ],
)
def test_a_malformed_request_spoils_its_frame_and_no_other(request_: Any) -> None:
    machine = Machine()
    good = (SESSION, 1, *c.put(b"k", b"v"))
    frames = [c.pack_frame(1, good, request_), c.pack_frame(2, request_), c.pack_frame(3, good)]
    answers = machine.apply(c.pack_entry(1, 0, [(1, frame) for frame in frames]))
    assert answers == [b"", b"", c.pack_frame(3, (c.OK, 1, 1))]
    # Nor in the way that is taken when the session is known.
    if request_[0] == b"":
        known = c.pack_frame(4, (SESSION, *request_[1:]))
        assert machine.apply(c.pack_entry(1, 0, [(1, known)])) == [b""]


def test_too_many_requests_are_malformed() -> None:
    machine = Machine()
    for many, right in ((0, False), (1, True), (c.FRAME_MOST, True), (c.FRAME_MOST + 1, False)):
        frame = c.pack_frame(1, *[(b"", 1, *c.delete(b"k"))] * many)
        assert bool(machine.apply(c.pack_entry(1, 0, [(1, frame)]))[0]) == right
        assert bool(machine.read(c.pack_frame(1, *[c.get(b"k")] * many))) == right


def test_entries_of_other_groups_and_of_no_time() -> None:
    machine = Machine(3)
    frame = c.pack_frame(1, (b"", 1, *c.put(b"k", b"v")))
    assert machine.apply(c.pack_entry(2, 5, [(1, frame)])) == []
    assert machine.apply(c.pack_entry(3, c.TIME_MAX + 1, [(1, frame)])) == []
    assert (machine.time, machine.revision) == (0, 0)
    assert machine.apply(b"") == []
    latest = do(Machine(), c.lease_grant(10 * 365 * 86_400_000), time=c.TIME_MAX)
    assert latest[0][0] == c.OK


# --- bounds --------------------------------------------------------------------------------------


def test_a_range_is_read_in_parts() -> None:
    machine = Machine()
    for n in range(0, 12_000, 1000):
        do(machine, *[c.put(b"%05d" % i, b"v") for i in range(n, n + 1000)])
    start, found = b"", []
    for more in (True, False):
        _, _, told, total, rows = ask(machine, c.key_range(start, b""))[0]
        assert (told, total) == (more, 12_000 - len(found))
        found += [row[0] for row in rows]
        start = c.after(found[-1])
    assert found == sorted(machine.store.table)
    both = ask(machine, c.key_range(b"", b"", 7000), c.key_range(b"", b"", 7000))
    assert [len(one[4]) for one in both] == [7000, 3000]
    assert do(machine, c.delete_range(b"", b"")) == [(c.TOO_MANY, "range")]
    assert do(machine, c.delete_range(b"", b"05000")) == [(c.OK, 12_001, 5000)]
    assert ask(machine, c.key_range(b"", b"", 0, c.COUNT_ONLY)) == [(c.OK, 12_001, False, 7000, ())]


def test_answers_are_not_longer_than_a_value_and_a_mebibyte() -> None:
    machine = Machine()
    value = bytes(700_000)
    do(machine, c.put(b"a", value))
    do(machine, c.put(b"b", value))
    codes = [one[0] for one in ask(machine, c.get(b"a"), c.get(b"b"), c.get(b"nothing"))]
    assert codes == [c.OK, c.TOO_LARGE, c.NOT_FOUND]
    _, _, more, total, rows = ask(machine, c.key_range(b"", b""))[0]
    assert (more, total, len(rows)) == (True, 2, 1)
    answer = do(machine, c.txn([], [c.get(b"a"), c.get(b"b"), c.put(b"c", b"")]))[0]
    assert [one[0] for one in answer[3]] == [c.OK, c.TOO_LARGE, c.OK]


def test_many_keys_of_leases_go_in_parts() -> None:
    machine = Machine()
    do(machine, *[c.lease_grant(1000) for _ in range(3)], time=1)
    for lease, many in ((1, 300), (2, 10), (3, 625)):
        for at in range(0, many, 500):
            keys = [b"%d-%05d" % (lease, n * 7919 % many) for n in range(at, min(many, at + 500))]
            do(machine, *[c.put(key, b"v", lease) for key in keys], time=1)
    due = machine.next_deadline()
    assert due == 1 + 1000 * MS
    machine.apply(c.pack_entry(1, due - 1, []))
    assert len(machine.store.table) == 935
    left = []
    for _ in range(4):
        refused = do(machine, c.delete(b"3-00600"), c.lease_alive(3), c.put(b"x", b"", 3), time=due)
        assert [one[0] for one in refused[1:]] == [c.NOT_FOUND] * 2
        left.append(len(machine.store.table))
        machine = loaded(machine, list(machine.pieces()))
    assert left == [684, 434, 184, 0]
    assert machine.next_deadline() is None
    assert machine.revision == 935 + 1 + 6  # a deletion, and 1+1, 1, 1, 1 parts, of three leases


def test_a_revoked_lease_with_many_keys_goes_on_in_the_next_entry() -> None:
    machine = Machine()
    do(machine, c.lease_grant(1000, 9))
    do(machine, *[c.put(b"%05d" % n, b"v", 9) for n in range(400)])
    answers = do(machine, c.lease_revoke(9), c.lease_revoke(9), c.lease_grant(5, 9))
    assert answers == [(c.OK, 401, 250), (c.NOT_FOUND, 401), (c.REFUSED, "lease")]
    assert machine.next_deadline() == 0
    machine.apply(c.pack_entry(1, 0, []))
    assert (machine.next_deadline(), machine.info().keys, machine.revision) == (None, 0, 402)


def test_revisions_never_fall() -> None:
    machine = Machine()
    do(machine, c.put(b"k", b""), c.delete(b"k"), c.put(b"k", b""))
    machine.raise_revision(100)
    machine.raise_revision(50)
    assert do(machine, c.put(b"k", b""), c.put(b"n", b"")) == [(c.OK, 101, 2), (c.OK, 102, 1)]
    assert loaded(machine, list(machine.pieces())).revision == 102
    assert machine.events(0, b"", b"", 100, 1 << 20)[1] == 102


def test_dead_sessions_make_room() -> None:
    machine = Machine()
    do(machine, c.configure([None] * 3 + [50] + [None] * 6))
    hour = machine.limits.horizon
    refused = 0
    for n in range(2000):
        time = n * hour // 10
        session = c.new_session(time, struct.pack("<Q", n))
        frame = c.pack_frame(1, (session, 1, *c.put(b"k", b"v")))
        answer = unpacked(machine.apply(c.pack_entry(1, time, [(1, frame)]))[0])
        refused += answer[1][0] != c.OK
        assert len(machine.sessions.rows) <= 50
    assert refused == 0
    again = unpacked(machine.apply(c.pack_entry(1, 0, [(1, frame)]))[0])
    assert again == answer
    machine.apply(c.pack_entry(1, time + hour + 1, []))
    late = unpacked(machine.apply(c.pack_entry(1, 0, [(1, frame)]))[0])
    assert late == (1, (c.SESSION_EXPIRED,))


@pytest.mark.parametrize("together", [False, True])
def test_a_dead_session_is_dead_before_its_row_is_dropped(together: bool) -> None:
    machine = Machine()
    names = [c.new_session(0, struct.pack("<Q", n)) for n in range(100)]

    def puts(time: int, sequence: int) -> list[Any]:
        asked = [(name, sequence, *c.put(b"k", b"v")) for name in names]
        frames = [c.pack_frame(1, *asked)] if together else [c.pack_frame(1, one) for one in asked]
        answers = machine.apply(c.pack_entry(1, time, [(1, frame) for frame in frames]))
        return [code for answer in answers for code, *_ in unpacked(answer)[1:]]

    hour = machine.limits.horizon
    assert puts(0, 1) == puts(hour, 2) == puts(2 * hour, 3) == [c.OK] * 100
    assert puts(3 * hour + 1, 4) == [c.SESSION_EXPIRED] * 100
    assert machine.revision == 300
    assert len(machine.sessions.rows) > 50


@pytest.mark.parametrize("together", [False, True])
def test_a_frame_that_is_too_large_is_answered(together: bool) -> None:
    machine = Machine()
    do(machine, c.configure([None, None, 100] + [None] * 7))
    for sequence, size, code in ((1, 10, c.OK), (2, 200, c.TOO_LARGE), (3, 20, c.OK)):
        asked = [(SESSION, sequence, *c.put(b"k", bytes(size)))] * (1 + together)
        answer = machine.apply(c.pack_entry(1, 0, [(1, c.pack_frame(1, *asked))]))[0]
        assert {one[0] for one in unpacked(answer)[1:]} == {code}
        smaller = c.pack_frame(1, (SESSION, sequence, *c.put(b"k", b"")))
        assert unpacked(machine.apply(c.pack_entry(1, 0, [(1, smaller)]))[0])[1][0] == code
    assert machine.revision == 2


def test_what_may_be_kept_can_be_told() -> None:
    """In one message, whatever the limits are."""
    machine = Machine()
    do(machine, c.configure(MOST))
    key, most = bytes(MOST.key_bytes), MOST.value_bytes
    half = most // 2
    for part in (half, most - half):
        assert do(machine, c.append(key, bytes(part)))[0][0] == c.OK
    assert do(machine, c.append(key, b"x")) == [(c.TOO_LARGE, "value")]
    reads = [c.get(key), c.key_range(b"", b""), c.key_range(b"", b""), c.get(key)]
    answers = [machine.read(c.pack_frame(1, read)) for read in reads[:2]]
    answers.append(machine.read(c.pack_frame(1, *reads)))
    txn = c.pack_frame(1, (b"", 1, *c.txn([], reads)))
    answers += machine.apply(c.pack_entry(1, 0, [(1, txn)]))
    for answer in answers:
        assert most < len(answer) <= ANSWER_BYTES_MAX


# --- snapshots -----------------------------------------------------------------------------------


def filled(many: int) -> Machine:
    machine = Machine()
    for at in range(0, many, 1000):
        do(machine, *[c.put(b"%06d" % n, b"v" * 50) for n in range(at, at + 1000)])
    return machine


@pytest.mark.parametrize("seed", range(3))
def test_a_snapshot_is_of_one_moment(seed: int) -> None:
    machine, rng = filled(10_000), random.Random(seed)
    right, digest = dict(machine.store.table), machine.digest
    pieces = machine.pieces()
    taken = []
    for piece in pieces:
        taken.append(piece)
        keys = [b"%06d" % rng.randrange(11_000) for _ in range(300)]
        commands = [rng.choice([c.put(key, b"new"), c.delete(key)]) for key in keys]
        do(machine, *commands, c.delete_range(b"%06d" % rng.randrange(11_000), None))
    assert len(taken) > 6
    assert max(map(len, taken)) < 2 << 17
    other = loaded(machine, taken)
    assert (dict(other.store.table), other.digest) == (right, digest)
    assert machine.store.walks == []


def test_a_step_of_a_snapshot_is_small_whatever_was_made_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if there is nothing of what it looks at that was there when it began."""
    machine, steps = filled(1000), 0
    step = Walk.step

    def counted(self: Walk, bytes_max: int) -> Any:
        nonlocal steps
        steps += 1
        return step(self, bytes_max)

    monkeypatch.setattr(Walk, "step", counted)
    right, digest, taken = dict(machine.store.table), machine.digest, []
    pieces = machine.pieces()
    for at in range(1000, 3 * STEP_KEYS + 1000, 100):
        do(machine, *[c.put(b"%06d" % n, b"new") for n in range(at, at + 100)])
    for piece in pieces:
        taken.append(piece)
        assert steps <= 1
        steps = 0
    assert b"" in taken
    other = loaded(machine, taken)
    assert (dict(other.store.table), other.digest) == (right, digest)


def test_one_snapshot_at_a_time() -> None:
    machine = filled(10_000)
    first = machine.pieces()
    next(first)
    second = machine.pieces()
    with pytest.raises(RuntimeError, match="given up"):
        list(first)
    assert len(machine.store.walks) == 1
    second.close()  # type: ignore[attr-defined]
    assert machine.store.walks == []
    third = machine.pieces()
    assert len(machine.store.walks) == 1
    del third
    assert machine.store.walks == []


def test_pieces_that_are_missing_or_wrong() -> None:
    machine = filled(5000)
    taken = list(machine.pieces())
    at = next(n for n, piece in enumerate(taken) if piece[0] == 5)
    for damaged in (taken[:-1], taken[1:], taken[:at] + taken[at + 1 :], []):
        with pytest.raises(DamagedData):
            loaded(machine, damaged)
    with pytest.raises(DamagedData, match="group 1"):
        Machine(2).load(taken)
    newer = bytes([1]) + msgpack.packb((2, *msgpack.unpackb(taken[0][1:])[1:]))
    with pytest.raises(DamagedData, match="version 2"):
        Machine(1).load([newer, *taken[1:]])


def test_the_hash_is_of_keys_and_records() -> None:
    one, other = filled(2000), filled(2000)
    do(other, c.lease_grant(5))
    assert [*one.state_hash()][-1] == [*other.state_hash()][-1]
    do(other, c.put(b"000000", b"other"))
    assert [*one.state_hash()][-1] != [*other.state_hash()][-1]


def test_a_store_by_itself() -> None:
    store = Store()
    for key in (b"b", b"a"):
        store.write(key, pack_record(1, 2, 3, 4, b"v"))
    assert store.head(b"a") == (1, 2, 3, 4)
    assert (store.value(b"a"), store.value_bytes(b"a"), store.size) == (b"v", 1, 2 * 34)
    assert (store.head(b"c"), store.value(b"c"), store.value_bytes(b"c")) == ((0,) * 4, None, 0)


# --- the same everywhere -------------------------------------------------------------------------

DIGEST = """
import sys
from kv.test_machine import script
from engine.kv.machine import Machine
machine = Machine()
for body in script(5, 400):
    machine.apply(body)
print(machine.digest, machine.revision, [*machine.state_hash()][-1], len([*machine.pieces()]))
"""


def test_hash_seeds_make_no_difference() -> None:
    found = set()
    for seed in ("0", "1", "77"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(
            [sys.executable, "-c", DIGEST], env=env, capture_output=True, text=True, check=True
        )
        found.add(ran.stdout)
    assert len(found) == 1, found
    assert int(found.pop().split()[1]) > 100
