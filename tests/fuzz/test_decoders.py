"""Whatever bytes come from others, or from a disk: taken as what they are, or refused.

Each decoder begins with its corpus and goes on with what is made of it. Behind checksums, these are
made to fit for half of what is tried; otherwise nothing behind them would ever be reached.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import seeds
from mutation import corpus, fuzz
from support import dose

from engine.contract import Link
from engine.errors import DamagedData, EngineError, RefusedError
from engine.kernels.checksum import crc32c
from engine.kv.commands import pack_entry
from engine.kv.front import StoreFront
from engine.kv.machine import Machine
from engine.storage.directory import Folder
from engine.storage.log import Log
from engine.storage.records import name_of
from engine.storage.runs import open_run
from engine.storage.snapshots import HEADER, PIECE, Snapshots, read_header
from engine.wire import codec, envelope
from engine.wire.codec import WireError
from engine.wire.connection import Connection
from engine.wire.endpoint import Listener

for name in ("backup", "kv", "locks", "mapreduce", "raft", "views"):
    found = "requests" if name == "kv" else "messages"
    import_module(f"engine.{name}.{found}")

ROUNDS = dose(20_000, 1_000_000)
CLIENT = Link("client", 1)


def test_the_corpus_is_good() -> None:
    """So that mutants of it are nearly good."""
    for what in seeds.ALL:
        assert corpus(what)
    for data in corpus("frames").values():
        found = envelope.unpack(data)
        codec.decode(found.kind, found.body)
    for data in corpus("bulk").values():
        front = _front()
        front.take([(CLIENT, data)])
        assert front.malformed == 0


# --- the wire ------------------------------------------------------------------------------------


def test_frames() -> None:
    def target(data: bytes) -> None:
        found = envelope.unpack(data)
        value = codec.decode(found.kind, found.body)
        assert codec.encode(value)[0] == found.kind

    refused = fuzz("frames", target, (WireError,), ROUNDS)
    assert ROUNDS / 2 < refused < ROUNDS


def test_bodies() -> None:
    """What is understood is encoded and understood again."""

    def target(data: bytes) -> None:
        if not data:
            return
        value = codec.decode(data[0], data[1:])
        again = codec.decode(*codec.encode(value))
        assert type(again) is type(value)
        assert repr(again) == repr(value)

    refused = fuzz("bodies", target, (WireError,), ROUNDS)
    assert ROUNDS / 10 < refused < ROUNDS


@pytest.fixture
def listener() -> Iterator[Listener]:
    roles = ("client", "worker", "replica")
    with Listener("ipc://*", cluster=0x0102, roles=roles, bulk=160) as made:
        yield made


def test_a_listener_takes_anything(listener: Listener) -> None:
    """Handshake and messages, from whoever is known and whoever is not."""
    seen = 0

    def target(data: bytes) -> None:
        nonlocal seen
        listener._take(b"route", data)
        seen += len(listener.drain(10, 1000))
        if len(data) >= envelope.HEADER_BYTES:  # and as one that has a link
            for number in list(listener._peers)[-1:]:
                head = struct.pack("<QQ", listener.cluster, number)
                listener._take(b"route", data[:8] + head + data[24:])

    fuzz("frames", target, (), ROUNDS)
    assert listener.counts["malformed"] > ROUNDS / 4
    assert listener.counts["refused"] > 0
    assert listener.counts["received"] + seen > 0


class Given:
    """In place of `Frames`: what was received."""

    def __init__(self) -> None:
        self.queue: list[bytes] = []
        self.malformed = 0

    def receive(self, frames: int, size: int) -> tuple[list[Any], list[bytes]]:
        return [], [self.queue.pop(0)] if self.queue else []

    def send(self, route: bytes | None, head: bytes, body: bytes) -> int:
        return 0


def test_a_dialer_takes_anything() -> None:
    """In every state: before it is welcome, and when it is."""
    with Listener("ipc://*") as somewhere:
        made = Connection(somewhere.address, role="worker")
        given = Given()
        made._frames = given  # type: ignore[assignment]

        def target(data: bytes) -> None:
            made.link, made._number, made.cluster = None, 0, 0
            for state in (0, 0x0304):
                made._number = made._number or state
                given.queue = [data, data[:8] + bytes(16) + data[24:]]
                while given.queue:
                    made._receive_now()

        try:
            refused = fuzz("frames", target, (EngineError,), ROUNDS)
        finally:
            made.close()
    assert refused > ROUNDS / 4


# --- the store -----------------------------------------------------------------------------------


class Replica:
    """As much of one as a front needs to answer."""

    raft: Any = type("Raft", (), {"me": 1})

    def answer(self, *said: object) -> None:
        """To whoever asked."""

    answers = answer


def _front() -> StoreFront:
    front = StoreFront(Machine(1), lambda why: None)
    front.replica = Replica()  # type: ignore[assignment]
    return front


def test_what_clients_ask_in_bulk() -> None:
    front = _front()
    fuzz("bulk", lambda data: front.take([(CLIENT, data)]), (), ROUNDS)
    assert front.malformed > ROUNDS / 10
    assert front._intake


def test_requests_of_the_store() -> None:
    """Each is carried out or answered with nothing, and the others beside it are not disturbed."""
    machine = Machine(1)
    good = corpus("requests")["get"]
    time = malformed = 0

    def target(data: bytes) -> None:
        nonlocal time, malformed
        time += 1
        answers = machine.apply(pack_entry(1, time, [(0, data), (0, data)]))
        assert len(answers) == 2
        malformed += answers[0] == b""
        machine.read(data)
        assert machine.read(good)

    fuzz("requests", target, (), ROUNDS)
    assert ROUNDS / 4 < malformed < ROUNDS
    assert machine.revision > 0


def test_entries_of_the_store() -> None:
    """Only a faulty program could have placed others, and its peers outlive it."""
    machine = Machine(1)
    good = [pack_entry(1, 5, [(0, data)]) for data in corpus("requests").values()]

    def target(data: bytes) -> None:
        machine.apply(data)
        machine.apply(good[len(data) % len(good)][:20] + data)

    fuzz("requests", target, (), ROUNDS // 4)


def test_states_of_the_store() -> None:
    """A snapshot whose checksums fit, and whose pieces do not."""
    whole = list(corpus("pieces").values())

    def target(data: bytes) -> None:
        for at in range(len(whole)):
            try:
                Machine(1).load(iter([*whole[:at], data, *whole[at + 1 :]]))
            except DamagedData:
                continue

    Machine(1).load(iter(whole))
    fuzz("pieces", target, (), ROUNDS // 8)


# --- disks ---------------------------------------------------------------------------------------


def _sealed_snapshot(data: bytes) -> bytes:
    """With the header's checksum, and that of the first piece."""
    if len(data) < HEADER.size:
        return data
    size = struct.unpack_from("<I", data, HEADER.size - 8)[0] % 64
    head = data[: HEADER.size - 8] + struct.pack("<I", size)
    config = data[HEADER.size : HEADER.size + size]
    crc = crc32c(config, crc32c(head))
    made = head + struct.pack("<I", crc) + data[HEADER.size :]
    at = HEADER.size + size
    if len(made) >= at + PIECE.size:
        length = struct.unpack_from("<I", made, at)[0] % 64
        body = made[at + PIECE.size : at + PIECE.size + length]
        piece = struct.pack("<II", length, crc32c(body, crc))
        made = made[:at] + piece + made[at + PIECE.size :]
    return made


def test_snapshots(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    snapshots = Snapshots(folder, 1)
    path = tmp_path / snapshots.name(5, 3)

    def target(data: bytes) -> None:
        path.write_bytes(data)
        for one in snapshots.find():
            list(snapshots.pieces(one))
        file = folder.open(path.name)
        try:
            read_header(file, path.name, 1)
        finally:
            file.close()

    rounds = ROUNDS // 20
    refused = fuzz(
        "snapshots", target, (DamagedData, RefusedError), rounds, sealed=_sealed_snapshot
    )
    assert refused > 0


def test_segments_of_the_log(tmp_path: Path) -> None:
    """It is opened, and what is lost is told; or it is refused."""
    damaged = 0

    def target(data: bytes) -> None:
        nonlocal damaged
        for path in tmp_path.iterdir():
            path.unlink()
        (tmp_path / name_of(1)).write_bytes(data)
        log = Log.open(Folder(str(tmp_path)), seeds.SEGMENT, lambda: 12)
        try:
            damaged += any(finding.damage for finding in log.findings)
            for number, group in log.recovered.items():
                first = group.base.last + 1
                log.entries(number, first, first + len(group.terms) - 1, 1 << 20)
        finally:
            log.close()

    fuzz("segments", target, (DamagedData, RefusedError), ROUNDS // 200)
    assert damaged > 0


def _sealed_run(data: bytes) -> bytes:
    """With the index's checksum, which the trailer has."""
    trailer = struct.Struct("<QII8s")
    if len(data) < trailer.size:
        return data
    start, length, _, magic = trailer.unpack(data[-trailer.size :])
    end = len(data) - trailer.size
    if not 0 <= start <= end:
        start = max(0, end - length % 64)
    index = data[start:end]
    return data[:end] + trailer.pack(start, len(index), crc32c(index), magic)


def test_runs(tmp_path: Path) -> None:
    path = tmp_path / "run"

    def target(data: bytes) -> None:
        path.write_bytes(data)
        with open_run(str(path), job=seeds.JOB, partitions=2) as run:
            assert all(len(section.segments) == 2 for section in run.sections)

    rounds = ROUNDS // 20
    refused = fuzz("runs", target, (DamagedData,), rounds, sealed=_sealed_run)
    assert rounds / 2 < refused < rounds
