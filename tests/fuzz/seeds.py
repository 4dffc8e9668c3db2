"""Writes the corpus anew: one good sample of each kind of bytes that others can give us.

    python tests/fuzz/seeds.py

What a fuzzer has found is kept beside them, under names that begin with `found-`.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.kernels.checksum import crc32c
from engine.kv import commands
from engine.kv.machine import Machine
from engine.kv.requests import READ, WRITE, AskTime, Watch
from engine.mapreduce.messages import Join, Scanned, Stop
from engine.raft.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from engine.raft.requests import AskStatus, Follow, HandOver, Look, Reconfigure, Rejected
from engine.storage.directory import Folder
from engine.storage.entries import COMMAND, Append, Base, Entry, State
from engine.storage.log import Log, LogSettings
from engine.storage.records import name_of
from engine.storage.runs import COUNTS, RunWriter
from engine.storage.snapshots import Snapshots
from engine.wire import codec
from engine.wire.handshake import (
    Again,
    Challenge,
    Hello,
    Probe,
    Proof,
    Refused,
    Welcome,
    frame_of,
)

ROOT = Path(__file__).parent / "corpus"
SEGMENT = LogSettings(segment_bytes=4096, spare=0, cache_bytes=0)
JOB = 7
Samples = Iterator[tuple[str, bytes]]

HANDSHAKE = (
    Hello("worker", -1, 5, bytes(16)), Challenge(bytes(16), bytes(32)), Proof(bytes(32)),
    Welcome(3, 4), Refused("role", "No."), Again(), Probe(),
)  # fmt: skip
ENTRY = Entry(3, COMMAND, crc32c(b"body"), b"body")


def messages() -> tuple[Any, ...]:
    return (
        *HANDSHAKE, Join(7), Scanned(2), Stop("done"), AskTime(1), Watch(1, b"a", b"b", 0, 10),
        VoteRequest(3, 1, 2, 2, 9, False, False), VoteReply(3, 2, 1, False, True),
        AppendEntries(3, 1, 2, 8, 2, 7, 1, (ENTRY, ENTRY)),
        AppendReply(3, 2, 1, 8, 1, True, 10, 0, 0, False, False),
        InstallSnapshot(3, 1, 2, 9, 2, 100, 0, b"data"), SnapshotReply(3, 2, 1, 9, 4),
        TimeoutNow(3, 1, 2), AskStatus(1), Follow(1, 2, 3), HandOver(1, 2), Look(4),
        Reconfigure(1, ((5, "ipc:///x", True),)), Rejected(1, (2, 3), "no", 0, True),
    )  # fmt: skip


def write_frame(number: int, *requests: Any) -> bytes:
    packed: bytes = msgpack.packb((number, *requests))
    return packed


def frames() -> Samples:
    for value in messages():
        yield type(value).__name__, frame_of(value, 0x0102, 0x0304)
    for value in HANDSHAKE[:1]:
        yield f"first-{type(value).__name__}", frame_of(value, 0, 0)


def bodies() -> Samples:
    """A kind, and the body."""
    for value in messages():
        kind, body = codec.encode(value)
        yield type(value).__name__, bytes([kind]) + body


def requests() -> Samples:
    session = commands.new_session(1, b"12345678")
    asked = commands.request
    yield "put", write_frame(1, asked(session, 1, commands.put(b"k", b"v", 0)))
    yield (
        "several",
        write_frame(
            2, asked(session, 2, commands.append(b"k", b"v")), asked(b"", 0, commands.delete(b"k"))
        ),
    )
    txn = commands.txn(
        (), [commands.put(b"a", b"b", 0), commands.get(b"a")], [commands.delete(b"a")]
    )
    yield "txn", write_frame(3, asked(session, 3, txn))
    yield "cas", write_frame(4, asked(session, 4, commands.cas_value(b"k", None, b"x", 0)))
    yield "lease", write_frame(5, asked(session, 5, commands.lease_grant(1000, 0)))
    yield "range", write_frame(6, commands.key_range(b"", b"", 3, 0))
    yield "get", write_frame(7, commands.get(b"k"))


def bulk() -> Samples:
    """The body of a message of the kind `ASK`."""
    for name, frame in requests():
        for how in (WRITE, READ):
            packed: bytes = msgpack.packb((how, frame))
            yield f"{name}-{how}", packed


def pieces() -> Samples:
    machine = Machine(1)
    for number, (_, frame) in enumerate(requests(), 1):
        machine.apply(commands.pack_entry(1, number, [(0, frame)]))
    for number, piece in enumerate(machine.pieces()):
        yield f"{number:02}", piece


def snapshots() -> Samples:
    with tempfile.TemporaryDirectory() as folder:
        writer = Snapshots(Folder(folder), 1).writer(5, 3, b"config")
        for piece in (b"first piece", b"x" * 100):
            writer.write(piece)
        made = writer.finish()
        yield "two", (Path(folder) / made.name).read_bytes()


def segments() -> Samples:
    with tempfile.TemporaryDirectory() as folder:
        log = Log.open(Folder(folder), SEGMENT, lambda: 11)
        log.append((Base(1, 0, 0, b"config"), State(1, 3, 2)))
        log.append([Append(1, 1, tuple(ENTRY for _ in range(5)))])
        log.settle(log.sync())
        log.close()
        yield "one", (Path(folder) / name_of(1)).read_bytes()


def uvarint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + uvarint(value >> 7) if value > 127 else bytes([value])


def runs() -> Samples:
    payload = b"".join(uvarint(len(k)) + k + uvarint(v) for k, v in ((b"a", 1), (b"bc", 300)))
    header = struct.pack("<4sHHQIIIIII", b"ENBL", 1, 1, JOB, 4, 0, 0, 2, 0, len(payload))
    crc = crc32c(header + bytes(8) + payload)
    block = header + struct.pack("<II", crc, 0) + payload
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        writer = RunWriter(str(path), COUNTS, JOB, 2)
        os.pwrite(writer.fd, block, writer.position)
        writer.add_section(4, [(0, len(block), 2), (len(block), 0, 0)])
        writer.close()
        yield "two", path.read_bytes()


ALL = {
    "frames": frames, "bodies": bodies, "requests": requests, "bulk": bulk, "pieces": pieces,
    "snapshots": snapshots, "segments": segments, "runs": runs,
}  # fmt: skip


def main() -> None:
    for name, samples in ALL.items():
        (ROOT / name).mkdir(parents=True, exist_ok=True)
        for sample, data in samples():
            (ROOT / name / f"{sample}.bin").write_bytes(data)
            print(f"{name}/{sample}: {len(data)} bytes")


if __name__ == "__main__":
    main()
