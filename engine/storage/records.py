"""The format of the log's segments: headers, records, positions.

Grammar, version 1, little-endian. A segment is a file `log-` and its number (16 hex digits)::

    segment = header record* zeros header        (equal headers: the second in the last 64 bytes)
    header  = magic:8 "ENLOGSEG"  version:u32  zero:u32  number:u64  salt:u64  continues:u64
              chain:u32  zero:16  crc:u32                                            (64 bytes)
    record  = crc:u32  previous:u32  kind:u8  entry:u8  zero:u16  size:u32  body_crc:u32
              group:u32  index:u64  term:u64  watermark:u64  body  zeros to a multiple of 8
    kind    = 1 ENTRY  an entry of kind `entry`; the body is its body
            | 2 STATE  hard state: `term`; the body is vote:u64 and the term of the log's last
                       entry, whose index is `index`
            | 3 BASE   a snapshot covers all up to `index` of `term`; the body is its config;
                       with `entry` 1, nothing of the group's log before this counts any more
            | 4 LOST   the log is known to have reached `index` of `term`, and to be damaged

A *position* is a segment's number times 2^32 plus an offset in it. Numbers are never used again,
so positions only grow, and tell the place of a byte without any table. `crc` of a record is the
CRC32C, begun with the CRC32C of the salt's 8 bytes, of its position and of its head from
`previous` on: a record verifies by itself, but only at its own place in its segment's present
life. `previous` is the `crc` of the record before it, across segments, so records form one chain.
`watermark` is a position: all before it survived power loss when the record was written.

`continues` is the position where what came before this segment ends, and `chain` the `crc` of the
record before it. A record is *live* if it lies below the `continues` of every later segment; what
does not was dropped as torn or damaged, or was written again. Dead records are never looked at.

Every batch of records ends with the hard state of each group that it or the batch before wrote,
and every segment begins with base, hard state and losses of all groups. So wherever damage can be
proven by a later watermark, a later copy says where the logs ended and who was voted for.

Worked example: an entry of kind COMMAND, body `hi`, with index 5 and term 3 in group 1, the first
record of segment 1, whose salt is 0, written when nothing was durable::

    9c 6f 8d 04  00 00 00 00  01 01 00 00  02 00 00 00  c2 d9 9d f5  01 00 00 00
    05 00 00 00 00 00 00 00  03 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
    68 69 00 00 00 00 00 00
"""

from __future__ import annotations

import struct
from array import array

from engine.errors import RefusedError
from engine.kernels import records as kernel
from engine.kernels.checksum import crc32c
from engine.record import Record

ENTRY, STATE, BASE, LOST = 1, 2, 3, 4
ANEW = 1
HEAD_BYTES = 48
STATE_BYTES = HEAD_BYTES + 16
STATE_BODY = struct.Struct("<QQ")

MAGIC = b"ENLOGSEG"
VERSION = 1
HEADER = struct.Struct("<8sIIQQQI16sI")
HEADER_BYTES = HEADER.size
PREFIX = "log-"

_OFFSET_BITS = 32
OFFSET_MAX = (1 << _OFFSET_BITS) - 1
NUMBER_MAX = (1 << 31) - 1
"""A position stays below 2^63."""


def place(number: int, offset: int) -> int:
    """The position of a byte of a segment."""
    return number << _OFFSET_BITS | offset


def number_of(position: int) -> int:
    """The segment that a position is in."""
    return position >> _OFFSET_BITS


def offset_of(position: int) -> int:
    return position & OFFSET_MAX


def start_of(number: int) -> int:
    """The position of a segment's first record."""
    return place(number, HEADER_BYTES)


def name_of(number: int) -> str:
    return f"{PREFIX}{number:016x}"


def numbered(name: str) -> int | None:
    """The number of the segment of this name; None if it is none's."""
    digits = name.removeprefix(PREFIX)
    if len(digits) != 16 or digits == name or set(digits) - set("0123456789abcdef"):
        return None
    number = int(digits, 16)
    return number if number <= NUMBER_MAX else None


def seed_of(salt: int) -> int:
    return crc32c(salt.to_bytes(8, "little"))


def record_bytes(body: int) -> int:
    """Bytes of a record with a body of this many."""
    return HEAD_BYTES + (body + 7 & ~7)


class Header(Record):
    """What a segment says about itself."""

    number: int
    salt: int
    continues: int
    chain: int


def pack_header(header: Header) -> bytes:
    number, salt, continues, chain = header
    unchecked = HEADER.pack(MAGIC, VERSION, 0, number, salt, continues, chain, bytes(16), 0)[:-4]
    return unchecked + crc32c(unchecked).to_bytes(4, "little")


def parse_header(data: bytes, name: str, number: int) -> Header | None:
    """The header of a segment, from whichever copy verifies; RefusedError for another version."""
    for at in (0, len(data) - HEADER_BYTES):
        if len(data) < HEADER_BYTES:
            break
        magic, version, zero, mine, salt, continues, chain, zeros, crc = HEADER.unpack_from(
            data, at
        )
        if magic != MAGIC or crc != crc32c(data[at : at + HEADER_BYTES - 4]) or mine != number:
            continue
        if version != VERSION:
            raise RefusedError(
                f"{name} is a log segment of format {version}, and this program knows {VERSION}: "
                "go on with the program that wrote it."
            )
        if zero == 0 and zeros == bytes(16):
            return Header(mine, salt, continues, chain)
    return None


class Columns(Record):
    """Verified records of a segment, a column for each field; `offsets` are in the segment.

    `kinds` has two bytes a record, kind and kind of entry. `runs` are where something begins that
    is not the next entry of the same group; `configs` are the records that are CONFIG entries.
    `end` is where the last record ends and `previous` its sum.
    """

    kinds: bytes
    groups: array[int]
    indexes: array[int]
    terms: array[int]
    watermarks: array[int]
    offsets: array[int]
    sizes: array[int]
    sums: array[int]
    runs: list[int]
    configs: list[int]
    end: int
    previous: int


def scan(data: bytes, start: int, header: Header, previous: int) -> Columns:
    """The records from `start` on, as far as they verify and are chained."""
    found = kernel.scan(data, start, seed_of(header.salt), place(header.number, 0), previous)
    return _columns(found)


def search(data: bytes, start: int, header: Header) -> Columns:
    """All records that verify from `start` on; lengths are trusted only of those that do."""
    return _columns(kernel.search(data, start, seed_of(header.salt), place(header.number, 0)))


def _columns(found: kernel.Columns) -> Columns:
    kinds, groups, indexes, terms, watermarks, offsets, sizes, sums, runs, configs, *last = found
    end, previous = last
    return Columns(
        kinds,
        array("I", groups),
        array("Q", indexes),
        array("Q", terms),
        array("Q", watermarks),
        array("Q", offsets),
        array("I", sizes),
        array("I", sums),
        runs,
        configs,
        end,
        previous,
    )
