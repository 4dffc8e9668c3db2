"""The format of segments: golden files, the grammar's oracle, positions, headers.

The golden files are what version 1 wrote; they stay as they are for ever. `python
tests/storage/test_records.py` writes them, for a new version.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import log_oracle as oracle
from books import Book, Shelf, Writer, contents, entry, salts
from memory import Memory

from engine.kernels.records import Batch
from engine.storage import records
from engine.storage.entries import CONFIG, NOOP, Append, Base, State
from engine.storage.log import Log, LogSettings
from engine.storage.records import (
    HEADER_BYTES,
    Header,
    name_of,
    number_of,
    numbered,
    offset_of,
    pack_header,
    parse_header,
    place,
)
from engine.storage.snapshots import Snapshots

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = LogSettings(segment_bytes=1024, spare=0)


def golden_writes(writer: Writer) -> None:
    writer.put(Base(1, 0, 0, b"three members"), State(1, 1, 1))
    writer.put(Append(1, 1, (entry(1, b"", NOOP), entry(1, b"hello"), entry(1, b"four", CONFIG))))
    writer.put(State(1, 2, 0), Append(2, 1, (entry(9, b"another group"),)))
    writer.put(Append(1, 3, (entry(2, b"replaced"), entry(2, b"."))), Base(1, 2, 1, b"config"))
    writer.put(State(2, 10, 3))


def written() -> tuple[dict[str, bytes], Shelf]:
    """The files of the golden log, and what it holds."""
    folder = Memory()
    writer = Writer(Log.open(folder, SETTINGS, salts(1)))
    golden_writes(writer)
    return {name: bytes(folder.files[name].data) for name in folder.names()}, writer.shelf


def snapshot() -> dict[str, bytes]:
    folder = Memory()
    taken = Snapshots(folder, 1).writer(5, 3, b"config")
    for piece in (b"first", b"second piece"):
        taken.write(piece)
    return {taken.finish().name: bytes(next(iter(folder.files.values())).data)}


def golden(version: int) -> dict[str, bytes]:
    return {
        path.stem: path.read_bytes()
        for path in sorted((GOLDEN / f"version-{version}").iterdir())
        if path.suffix in (".segment", ".snapshot")
    }


def test_the_golden_log_of_version_1_is_read() -> None:
    files = {name: data for name, data in golden(1).items() if name.startswith("log-")}
    folder = Memory()
    for name, data in files.items():
        folder.create(name).inode.data[:] = data
    log = Log.open(folder, SETTINGS, salts(2))
    assert contents(log) == written()[1].frozen()
    assert log.recovered[1].configs == []
    assert not log.findings


def test_the_golden_log_of_version_1_is_what_the_grammar_says() -> None:
    shelf = Shelf()
    previous = end = 0
    files = {name: data for name, data in golden(1).items() if name.startswith("log-")}
    assert len(files) == 2
    for name, data in sorted(files.items()):
        header = oracle.header(data)
        assert header == oracle.header(data[-64:])
        assert header["version"] == 1
        assert name == f"log-{header['number']:016x}"
        assert (header["continues"], header["chain"]) == (end, previous)
        rows = oracle.scan(data, 64, header["salt"], header["number"], previous)
        previous, end = rows[-1].crc, (header["number"] << 32) + rows[-1].end
        assert not any(data[rows[-1].end : -64])
        for row in rows:
            assert row.watermark <= (header["number"] << 32) + row.offset
            if row.kind == 1:
                one = entry(row.term, row.body, row.entry)
                shelf.take(Append(row.group, row.index, (one,)))
            elif row.kind == 2:
                vote, last = struct.unpack("<QQ", row.body)
                shelf.take(State(row.group, row.term, vote))
                book = shelf.books.get(row.group, Book())
                assert row.index == book.end
                assert last == (book.entries[-1][0] if book.entries else book.base[1])
            else:
                shelf.take(Base(row.group, row.index, row.term, row.body))
    assert shelf.frozen() == written()[1].frozen()


def test_what_is_written_is_the_golden_files() -> None:
    assert written()[0] | snapshot() == golden(1)


def test_the_golden_snapshot_of_version_1_is_read() -> None:
    (name, data), *_ = [item for item in golden(1).items() if item[0].startswith("snapshot-")]
    folder = Memory()
    folder.create(name).inode.data[:] = data
    snapshots = Snapshots(folder, 1)
    (found,) = snapshots.find()
    assert (found.last, found.term, found.config) == (5, 3, b"config")
    assert list(snapshots.pieces(found)) == [b"first", b"second piece"]


def test_the_example_of_the_documentation() -> None:
    assert records.__doc__
    example = records.__doc__.split("nothing was durable::")[1].strip()
    batch = Batch(56, records.seed_of(0), place(1, HEADER_BYTES), 0, 0)
    batch.entries(1, 5, (entry(3, b"hi"),))
    assert bytes(batch.data).hex(" ") == bytes.fromhex(example).hex(" ")


def test_positions_and_names() -> None:
    position = place(0x123, 0x456)
    assert (number_of(position), offset_of(position)) == (0x123, 0x456)
    assert place(1, 2**32 - 1) < place(2, 0)
    assert numbered(name_of(0xABC)) == 0xABC
    for name in ("log-", "log-12", "lock", "log-00000000000000AB", "spare-0000000000000001"):
        assert numbered(name) is None
    assert numbered("log-" + "f" * 16) is None


@pytest.mark.parametrize("copy", [0, 1])
def test_either_header_is_enough(copy: int) -> None:
    header = Header(5, 2**64 - 1, 77, 88)
    packed = pack_header(header)
    assert len(packed) == HEADER_BYTES
    for byte in range(HEADER_BYTES):
        damaged = bytearray(packed + packed)
        damaged[copy * HEADER_BYTES + byte] ^= 4
        assert parse_header(bytes(damaged), "x", 5) == header
        damaged[(1 - copy) * HEADER_BYTES + byte] ^= 4
        assert parse_header(bytes(damaged), "x", 5) is None
    assert parse_header(packed + packed, "x", 6) is None
    assert parse_header(packed[:-1], "x", 5) is None
    assert parse_header(b"", "x", 5) is None


if __name__ == "__main__":
    folder = GOLDEN / f"version-{records.VERSION}"
    folder.mkdir(parents=True)
    for name, data in (written()[0] | snapshot()).items():
        suffix = ".segment" if name.startswith("log-") else ".snapshot"
        (folder / f"{name}{suffix}").write_bytes(data)
