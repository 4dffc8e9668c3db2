"""The format of log segments once more, slowly, from its grammar: what the kernel is held to."""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = b"ENLOGSEG"


def _table() -> list[int]:
    values = list(range(256))
    for _ in range(8):
        values = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in values]
    return values


TABLE = _table()


def crc32c(data: bytes, crc: int = 0) -> int:
    """One byte at a time (RFC 3720, section 12.1)."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


class Row(NamedTuple):
    """A record, and where it is in its segment."""

    offset: int
    crc: int
    previous: int
    kind: int
    entry: int
    group: int
    index: int
    term: int
    watermark: int
    body: bytes

    @property
    def end(self) -> int:
        return self.offset + 48 + (len(self.body) + 7) // 8 * 8


def encode(salt: int, number: int, row: Row) -> bytes:
    """The bytes of a record; its `crc` is made."""
    head = struct.pack(
        "<IBBHIIIQQQ",
        row.previous,
        row.kind,
        row.entry,
        0,
        len(row.body),
        crc32c(row.body),
        row.group,
        row.index,
        row.term,
        row.watermark,
    )
    position = (number << 32) + row.offset
    crc = crc32c(struct.pack("<Q", salt) + struct.pack("<Q", position) + head)
    padding = bytes(-len(row.body) % 8)
    return struct.pack("<I", crc) + head + row.body + padding


def decode(data: bytes, offset: int, salt: int, number: int) -> Row | None:
    """The record that verifies there, if one does."""
    if len(data) < offset + 48:
        return None
    fields = struct.unpack_from("<IIBBHIIIQQQ", data, offset)
    crc, previous, kind, entry, zero, size, body_crc, group, index, term, watermark = fields
    body = data[offset + 48 : offset + 48 + size]
    padded = data[offset + 48 : offset + 48 + (size + 7) // 8 * 8]
    if not 1 <= kind <= 4 or zero or len(padded) != (size + 7) // 8 * 8:
        return None
    position = (number << 32) + offset
    seed = struct.pack("<QQ", salt, position)
    if crc32c(seed + data[offset + 4 : offset + 48]) != crc or crc32c(body) != body_crc:
        return None
    if any(padded[size:]):
        return None
    return Row(offset, crc, previous, kind, entry, group, index, term, watermark, body)


def scan(data: bytes, start: int, salt: int, number: int, previous: int) -> list[Row]:
    rows: list[Row] = []
    while (row := decode(data, start, salt, number)) and row.previous == previous:
        rows.append(row)
        start, previous = row.end, row.crc
    return rows


def search(data: bytes, start: int, salt: int, number: int) -> list[Row]:
    rows: list[Row] = []
    start = (start + 7) // 8 * 8
    while start < len(data):
        row = decode(data, start, salt, number)
        if row is not None:
            rows.append(row)
        start = row.end if row else start + 8
    return rows


def header(data: bytes) -> dict[str, int]:
    """The fields of a segment's header, checked."""
    magic, version, zero, number, salt, continues, chain = struct.unpack_from("<8sIIQQQI", data)
    assert magic == MAGIC
    assert zero == 0
    assert data[44:60] == bytes(16)
    assert struct.unpack_from("<I", data, 60)[0] == crc32c(data[:60])
    return {
        "version": version,
        "number": number,
        "salt": salt,
        "continues": continues,
        "chain": chain,
    }
