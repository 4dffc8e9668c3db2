"""The fixed header in front of every message between processes, checked before anything is parsed.

Grammar, version 1, little-endian; one ZeroMQ frame is one envelope::

    frame   = header body
    header  = magic:4 "ENGW"  version:u8  kind:u8  zero:u16
              cluster:u64  link:u64  length:u32                               (28 bytes)
    body    = msgpack array of the fields of the message class of this kind   (`length` bytes)

`cluster` is the number of the job or cluster that is meant; 0 in a first hello: whichever is there.
`link` is the random number that the server gave to this sender when it had proven itself; 0 before.
A frame is at most `FRAME_MAX` bytes.

Worked example: a message of kind 17 with the one field 7, in cluster 0x0102, on link 0x0304::

    45 4e 47 57  01  11  00 00   magic, version, kind, zero
    02 01 00 00 00 00 00 00      cluster
    04 03 00 00 00 00 00 00      link
    02 00 00 00                  length
    91 07                        body: an array of one, the number 7
"""

from __future__ import annotations

import struct

from engine.record import Record
from engine.wire.codec import WireError

MAGIC = b"ENGW"
VERSION = 1
HEADER = struct.Struct("<4sBBHQQI")
FRAME_MAX = 16 << 20
BODY_MAX = FRAME_MAX - HEADER.size
HEADER_BYTES = HEADER.size
PREFIX_BYTES = HEADER_BYTES - 4
"""What comes before the length."""


class VersionError(WireError):
    """The sender speaks another version of this format; `version` is which."""

    def __init__(self, version: int) -> None:
        super().__init__(f"envelope version {version}, ours is {VERSION}")
        self.version = version


class Envelope(Record):
    """A frame whose header was checked; the body not yet."""

    kind: int
    cluster: int
    link: int
    body: memoryview


def head(kind: int, cluster: int, link: int, size: int) -> bytes:
    """What goes before a body of `size` bytes. `WireError` if that is more than `BODY_MAX`."""
    if size > BODY_MAX:
        raise WireError(f"a body of {size} bytes; the limit is {BODY_MAX}")
    return HEADER.pack(MAGIC, VERSION, kind, 0, cluster, link, size)


def pack(kind: int, cluster: int, link: int, body: bytes) -> bytes:
    """One frame. `WireError` if the body is larger than `BODY_MAX`."""
    return head(kind, cluster, link, len(body)) + body


def unpack(frame: bytes) -> Envelope:
    """The envelope of one whole frame; `WireError` (for one, `VersionError`) for anything else."""
    if not HEADER.size <= len(frame) <= FRAME_MAX:
        raise WireError(f"a frame of {len(frame)} bytes")
    magic, version, kind, zero, cluster, link, length = HEADER.unpack_from(frame)
    if magic != MAGIC:
        raise WireError("not an envelope")
    if version != VERSION:
        raise VersionError(version)
    if zero or length != len(frame) - HEADER.size:
        raise WireError("an envelope whose header contradicts itself")
    return Envelope(kind, cluster, link, memoryview(frame)[HEADER.size :])
