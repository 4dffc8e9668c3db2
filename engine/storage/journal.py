"""An append-only journal of messages: what a service must remember to go on after a kill.

Grammar, version 1, little-endian::

    journal = header record*
    header  = magic:8 "ENJOURNL"  version:u32  zero:u32  salt:16  crc:u32        (36 bytes)
    record  = length:u32  sequence:u32  durable:u64  crc:u32  kind:u8  body      (21 + body bytes)
    body    = msgpack array of the message of this kind (`engine.wire.codec`)

`length` counts kind and body. Records are numbered 1, 2, 3 … by `sequence`. The header's `crc` is
the CRC32C of what precedes it; a record's is of salt, length, sequence, durable, kind and body, so
that no bytes of another journal, or of this one at another place, verify. `durable` is a position
in the file: all before it was known to survive power loss when this record was written.

Worked example, with a salt of 16 zero bytes: the first record, of kind 70 with the one field 3::

    03 00 00 00  01 00 00 00  24 00 00 00 00 00 00 00  12 7f 4a a2  46  91 03

Recovery stops at the first record that does not verify. If a later one verifies and says that this
place was durable, then something that had been promised is damaged: `DamagedData`, and nothing is
touched. Otherwise it is the torn end of what was never promised, and is cut off. Later records may
well be whole without meaning damage: a disk writes the pages of one batch in any order.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from engine.errors import DamagedData, RefusedError
from engine.kernels.checksum import crc32c
from engine.storage.files import read_at, sync_directory, sync_file, write_at
from engine.wire import codec

MAGIC = b"ENJOURNL"
VERSION = 1
HEADER = struct.Struct("<8sII16sI")
RECORD = struct.Struct("<IIQI")
RECORD_MAX = 1 << 30
"""Bytes of kind and body."""

_CHECKED = RECORD.size - 4
"""The part of a record's head that its CRC covers: all but the CRC."""


class Journal:
    """An open journal. One thread appends; another one may sync."""

    def __init__(self, path: str, fd: int, salt: bytes, end: int, sequence: int) -> None:
        self.path = path
        self._fd, self._salt = fd, crc32c(salt)
        self._end, self._sequence = end, sequence
        self._durable = HEADER.size
        self._named = False

    @classmethod
    def create(cls, path: str) -> Journal:
        """A new, empty journal; durable with the first `sync`. FileExistsError, OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return cls._begin(path, fd)

    @classmethod
    def _begin(cls, path: str, fd: int) -> Journal:
        salt = os.urandom(16)
        write_at(fd, _header(salt), 0)
        return cls(path, fd, salt, HEADER.size, 0)

    @classmethod
    def open(cls, path: str) -> tuple[Journal, list[Any]]:
        """The journal and its records; a torn end is cut off and the rest made durable.

        DamagedData (the file is left as it is), RefusedError for another version, OSError.
        """
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            data = read_at(fd, os.fstat(fd).st_size, 0)
            if len(data) < HEADER.size:  # killed while it was created
                os.ftruncate(fd, 0)
                return cls._begin(path, fd), []
            salt = _salt(path, data)
            records, end = _recover(path, data, crc32c(salt))
            if end < len(data):
                os.ftruncate(fd, end)
            journal = cls(path, fd, salt, end, len(records))
            journal.sync()
            return journal, records
        except BaseException:
            os.close(fd)
            raise

    def append(self, records: Iterable[Any]) -> int:
        """Write registered messages, all or (on OSError) none; not durable yet. Bytes written."""
        group = bytearray()
        sequence = self._sequence
        for record in records:
            sequence += 1
            group += frame(self._salt, sequence, self._durable, *codec.encode(record))
        try:
            write_at(self._fd, group, self._end)
        except OSError:
            os.ftruncate(self._fd, self._end)
            raise
        self._end += len(group)
        self._sequence = sequence
        return len(group)

    def sync(self) -> None:
        """Return when all that was appended before the call survives power loss.

        After an OSError nothing is known about what was appended: the process must end.
        """
        end = self._end
        sync_file(self._fd)
        if not self._named:
            sync_directory(os.path.dirname(self.path) or ".")
            self._named = True
        self._durable = end

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """Close the file, without syncing; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def frame(salt: int, sequence: int, durable: int, kind: int, body: bytes) -> bytes:
    """The bytes of one record; `salt` is the CRC32C of the journal's salt."""
    tail = bytes((kind,)) + body
    if len(tail) > RECORD_MAX:
        raise ValueError(f"a record of {len(tail)} bytes; the limit is {RECORD_MAX}")
    head = RECORD.pack(len(tail), sequence, durable, 0)[:_CHECKED]
    return head + struct.pack("<I", crc32c(tail, crc32c(head, salt))) + tail


def _header(salt: bytes) -> bytes:
    unchecked = HEADER.pack(MAGIC, VERSION, 0, salt, 0)[:-4]
    return unchecked + struct.pack("<I", crc32c(unchecked))


def _salt(path: str, data: bytes) -> bytes:
    magic, version, zero, salt, crc = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise DamagedData(path, 0, "this is no journal")
    if crc != crc32c(data[: HEADER.size - 4]) or zero:
        raise DamagedData(path, 0, "its header does not verify")
    if version != VERSION:
        raise RefusedError(
            f"{path} is a journal of format {version}, and this program knows {VERSION}: "
            "go on with the program that wrote it, or start anew."
        )
    return bytes(salt)


def _recover(path: str, data: bytes, salt: int) -> tuple[list[Any], int]:
    """(records, where the first that does not verify begins)."""
    records: list[Any] = []
    end = HEADER.size
    while (found := _verify(data, end, salt)) and found[0] == len(records) + 1:
        _, _, after = found
        try:
            records.append(
                codec.decode(data[end + RECORD.size], data[end + RECORD.size + 1 : after])
            )
        except codec.WireError as error:
            raise DamagedData(path, end, f"a whole record of another program: {error}") from None
        end = after
    for start, (sequence, durable, _) in _later(data, end, salt):
        if sequence > len(records) and durable > end:
            raise DamagedData(path, end, f"but record {sequence} at byte {start} came after it")
    return records, end


def _later(data: bytes, bad: int, salt: int) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Records that verify behind a place that does not; lengths there cannot be trusted."""
    start = bad + 1
    while start < len(data) - RECORD.size:
        found = _verify(data, start, salt)
        if found:
            yield start, found
        start = found[2] if found else start + 1


def _verify(data: bytes, start: int, salt: int) -> tuple[int, int, int] | None:
    """(sequence, durable, end) of the record that begins there, if one does."""
    if start + RECORD.size >= len(data):
        return None
    length, sequence, durable, crc = RECORD.unpack_from(data, start)
    tail = start + RECORD.size
    if not 0 < length <= min(RECORD_MAX, len(data) - tail) or durable > start:
        return None
    view = memoryview(data)
    if crc != crc32c(view[tail : tail + length], crc32c(view[start : start + _CHECKED], salt)):
        return None
    return sequence, durable, tail + length
