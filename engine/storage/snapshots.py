"""Snapshots of a group: files of pieces, whole or not there at all.

Grammar, version 1, little-endian. A snapshot is a file `snapshot-` and group (8 hex digits), last
index and its term (16 each), with a `-` between::

    snapshot = header config piece* trailer
    header   = magic:8 "ENSNAPSH"  version:u32  group:u32  last:u64  term:u64  size:u32  crc:u32
    piece    = size:u32  crc:u32  body                                     (size is not 0)
    trailer  = zero:u32  zero:u32  length:u64  digest:32

The header's `size` is that of `config`, and its `crc` the CRC32C of what precedes it and of the
config. A piece's is of its body, begun with the crc before it (the header's, for the first), so
that pieces verify as they come, and only in their order. `length` is that of the whole file, and
`digest` the BLAKE2b-256 (RFC 7693) of all that precedes it.

Worked example: the header of group 1 up to entry 5 of term 3, with an empty config::

    45 4e 53 4e 41 50 53 48  01 00 00 00  01 00 00 00  05 00 00 00 00 00 00 00
    03 00 00 00 00 00 00 00  00 00 00 00  4e 66 a1 b4

A snapshot is written, or received, under a private name (`.taking`, `.receiving` behind its own),
verified, synced, and only then named: the one before stays until that has happened.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.errors import DamagedData, RefusedError
from engine.kernels.checksum import crc32c
from engine.record import Record
from engine.storage.directory import Directory, File
from engine.storage.segments import NoSpace, full

if TYPE_CHECKING:
    import hashlib

MAGIC = b"ENSNAPSH"
VERSION = 1
HEADER = struct.Struct("<8sIIQQII")
PIECE = struct.Struct("<II")
TRAILER = struct.Struct("<IIQ32s")
DIGEST_BYTES = 32
PIECE_MAX = 1 << 30
PACE_BYTES = 1 << 20
"""Bytes written between syncs: a burst would hold up the syncs of the log."""
READ_BYTES = 1 << 20
TAKING, RECEIVING = ".taking", ".receiving"


class Snapshot(Record):
    """A snapshot that covers all entries up to `last`, which is of `term`.

    `config` is the one as of there, and `size` the bytes of the file `name`.
    """

    last: int
    term: int
    config: bytes
    size: int
    name: str


class Snapshots:
    """The snapshots of one group in a folder that it may share with others, and with the log."""

    def __init__(self, directory: Directory, group: int) -> None:
        self.directory, self.group = directory, group
        self._prefix = f"snapshot-{group:08x}-"
        self._verified: set[str] = set()

    def name(self, last: int, term: int) -> str:
        return f"{self._prefix}{last:016x}-{term:016x}"

    def find(self) -> list[Snapshot]:
        """Those whose header verifies, newest first. OSError, RefusedError for another version.

        Another thread may remove old ones meanwhile (`keep`), the oldest first: who opens the
        newest first never finds one without those that followed it.
        """
        found = []
        for name in reversed(self.directory.names()):
            if name.startswith(self._prefix) and "." not in name:
                try:
                    file = self.directory.open(name)
                except FileNotFoundError:
                    continue
                try:
                    header = read_header(file, name, self.group)
                    if header is not None and self.name(header.last, header.term) == name:
                        found.append(header)
                finally:
                    file.close()
        return found

    def verify(self, snapshot: Snapshot) -> bool:
        """Whether every byte is as it was written. OSError."""
        try:
            for _ in self.pieces(snapshot):
                pass
        except (DamagedData, FileNotFoundError):
            return False
        self._verified.add(snapshot.name)
        return True

    def pieces(self, snapshot: Snapshot) -> Iterator[bytes]:
        """What was written, piece by piece, each verified; at the end so is the whole.

        DamagedData, OSError.
        """
        file = self.directory.open(snapshot.name)
        try:
            yield from read_pieces(file, snapshot)
        finally:
            file.close()

    def read(self, snapshot: Snapshot, offset: int, size: int) -> bytes:
        """Bytes of the file, to be sent; fewer only at its end, none if it is gone. OSError."""
        try:
            file = self.directory.open(snapshot.name)
        except FileNotFoundError:
            return b""
        try:
            return file.read(offset, size)
        finally:
            file.close()

    def writer(self, last: int, term: int, config: bytes) -> SnapshotWriter:
        """Begin a snapshot; one that was begun earlier is given up. NoSpace, OSError."""
        self._clear(TAKING)
        return SnapshotWriter(self, last, term, config)

    def receiver(self, last: int, term: int, size: int) -> SnapshotReceiver:
        """Begin to receive a snapshot of `size` bytes, or go on; others are given up. OSError."""
        name = f"{self.name(last, term)}{RECEIVING}-{size:x}"
        self._clear(RECEIVING, keep=name)
        return SnapshotReceiver(self, Snapshot(last, term, b"", size, name))

    def keep(self, count: int = 2) -> None:
        """Remove those that are older than the newest `count` that verify. OSError.

        A damaged one that is newer stays: nothing here is so sure of itself.
        """
        kept, old = 0, []
        for snapshot in self.find():
            if kept < count:
                kept += snapshot.name in self._verified or self.verify(snapshot)
            else:
                old.append(snapshot.name)
        for name in reversed(old):
            self._verified.discard(name)
            self.directory.remove(name)

    def publish(self, private: str, file: File, last: int, term: int) -> Snapshot:
        """Verify a private file, make it durable and name it. DamagedData, OSError."""
        header = read_header(file, private, self.group)
        if header is None or (header.last, header.term) != (last, term):
            raise DamagedData(private, 0, f"it is not the snapshot up to {last} of term {term}")
        for _ in read_pieces(file, header):
            pass
        file.sync()
        name = self.name(last, term)
        self.directory.rename(private, name)
        self.directory.sync()
        self._verified.add(name)
        return header._replace(name=name)

    def _clear(self, kind: str, keep: str = "") -> None:
        for name in self.directory.names():
            if name.startswith(self._prefix) and kind in name and name != keep:
                self.directory.remove(name)


class SnapshotWriter:
    """A snapshot that is being written."""

    def __init__(self, snapshots: Snapshots, last: int, term: int, config: bytes) -> None:
        self._snapshots, self._last, self._term = snapshots, last, term
        self._name = snapshots.name(last, term) + TAKING
        self._file = snapshots.directory.create(self._name)
        self._digest = new_digest()
        self._at = self._paced = 0
        header = pack_header(snapshots.group, last, term, config)
        self._crc = int.from_bytes(header[-4:], "little")
        self._put(header, config)

    def write(self, piece: bytes) -> None:
        """Append a piece. NoSpace or OSError, and then it is given up."""
        if len(piece) > PIECE_MAX:
            raise ValueError(f"a piece of {len(piece)} bytes; the limit is {PIECE_MAX}")
        if piece:
            self._crc = crc32c(piece, self._crc)
            self._put(PIECE.pack(len(piece), self._crc), piece)
        if self._at - self._paced > PACE_BYTES:
            self._file.sync()
            self._paced = self._at

    def finish(self) -> Snapshot:
        """End it, read it back, make it durable and name it. NoSpace, OSError."""
        self._put(TRAILER.pack(0, 0, self._at + TRAILER.size, b"")[:-DIGEST_BYTES])
        self._put(self._digest.digest())
        try:
            return self._snapshots.publish(self._name, self._file, self._last, self._term)
        except DamagedData:
            self._snapshots.directory.remove(self._name)
            raise
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Remove what was written. OSError."""
        self._file.close()
        self._snapshots.directory.remove(self._name)

    def _put(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._digest.update(piece)
        try:
            self._file.write(self._at, pieces)
        except OSError as error:
            self.abandon()
            if full(error):
                raise NoSpace(f"no space for the snapshot {self._name}: free some") from None
            raise
        self._at += sum(map(len, pieces))


class SnapshotReceiver:
    """A snapshot that arrives in chunks, in order; what has arrived survives a restart."""

    def __init__(self, snapshots: Snapshots, wanted: Snapshot) -> None:
        self._snapshots, self._wanted = snapshots, wanted
        directory = snapshots.directory
        try:
            self._file = directory.open(wanted.name)
        except FileNotFoundError:
            self._file = directory.create(wanted.name)
        self.next = self._file.size()
        """The offset of the byte that is wanted next."""

    def write(self, data: bytes) -> None:
        """The bytes from `next` on. DamagedData if there are too many, NoSpace, OSError."""
        if self.next + len(data) > self._wanted.size:
            raise DamagedData(self._wanted.name, self.next, "more bytes than were announced")
        try:
            self._file.write(self.next, [data])
        except OSError as error:
            if full(error):
                raise NoSpace(f"no space to receive {self._wanted.name}: free some") from None
            raise
        paced = self.next // PACE_BYTES
        self.next += len(data)
        if self.next // PACE_BYTES > paced:
            self._file.sync()

    def finish(self) -> Snapshot:
        """Verify all, make it durable and name it. DamagedData (it is removed then), OSError."""
        wanted = self._wanted
        try:
            if self.next != wanted.size:
                why = f"{wanted.size} bytes were announced, and it has {self.next}"
                raise DamagedData(wanted.name, self.next, why)
            return self._snapshots.publish(wanted.name, self._file, wanted.last, wanted.term)
        except DamagedData:
            self._snapshots.directory.remove(wanted.name)
            raise
        finally:
            self._file.close()


# --- the format ----------------------------------------------------------------------------------


def new_digest() -> hashlib.blake2b:
    import hashlib  # 2 ms

    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def pack_header(group: int, last: int, term: int, config: bytes) -> bytes:
    unchecked = HEADER.pack(MAGIC, VERSION, group, last, term, len(config), 0)[:-4]
    return unchecked + crc32c(config, crc32c(unchecked)).to_bytes(4, "little")


def read_header(file: File, name: str, group: int) -> Snapshot | None:
    """What a snapshot says about itself; None if that does not verify. RefusedError, OSError."""
    data = file.read(0, HEADER.size)
    size = file.size()
    if len(data) < HEADER.size:
        return None
    magic, version, mine, last, term, length, crc = HEADER.unpack(data)
    if magic != MAGIC or mine != group or length > size:
        return None
    config = file.read(HEADER.size, length)
    if crc != crc32c(config, crc32c(data[:-4])):
        return None
    if version != VERSION:
        raise RefusedError(
            f"{name} is a snapshot of format {version}, and this program knows {VERSION}: "
            "go on with the program that wrote it."
        )
    return Snapshot(last, term, config, size, name)


def read_pieces(file: File, snapshot: Snapshot) -> Iterator[bytes]:
    """The pieces of a file whose header is this snapshot's. DamagedData, OSError."""
    name, size = snapshot.name, file.size()
    digest = new_digest()
    at = HEADER.size + len(snapshot.config)
    head = file.read(0, at)
    digest.update(head)
    if size < at + TRAILER.size or head[HEADER.size :] != snapshot.config:
        raise DamagedData(name, 0, "its header is not what it was, or it is cut")
    crc = int.from_bytes(head[HEADER.size - 4 : HEADER.size], "little")
    if crc != crc32c(snapshot.config, crc32c(head[: HEADER.size - 4])):
        raise DamagedData(name, 0, "its header does not verify")
    while True:
        head = file.read(at, PIECE.size)
        digest.update(head)
        if len(head) < PIECE.size:
            raise DamagedData(name, at, "it is cut")
        length, expected = PIECE.unpack(head)
        at += PIECE.size
        if length == 0:
            break
        body = file.read(at, length) if length <= size - at else b""
        crc = crc32c(body, crc)
        if not body or crc != expected:
            raise DamagedData(name, at, "a piece does not verify")
        digest.update(body)
        at += length
        yield body
    rest = file.read(at, TRAILER.size - PIECE.size + 1)
    digest.update(rest[: TRAILER.size - PIECE.size - DIGEST_BYTES])
    length = int.from_bytes(rest[:8], "little")
    right = rest[8:] == digest.digest() and length == size == at + len(rest)
    if expected or not right:
        raise DamagedData(name, at, "its end does not verify")
