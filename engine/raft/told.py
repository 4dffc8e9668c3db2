"""The labs' log machine: commands in their order, and nothing done with them.

An entry is a batch of commands. Grammar of its body, little-endian::

    batch = count:u32  size:u32 * count  command * count

Worked example: the commands `a` and `bc`::

    02 00 00 00  01 00 00 00  02 00 00 00  61  62 63

A body that is none, which only a faulty program could have placed, holds no commands.

State: how many commands there were, and the CRC32C over the bodies of all entries that hold any,
each begun with the sum before it. A snapshot is one piece, `count:u64 digest:u32`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from engine.kernels.checksum import crc32c
from engine.storage.entries import COMMAND, Entry

STATE = struct.Struct("<QI")


def pack(commands: Sequence[bytes]) -> bytes:
    """The body of an entry."""
    count = len(commands)
    return b"".join([struct.pack(f"<{count + 1}I", count, *map(len, commands)), *commands])


def unpack(body: bytes) -> list[bytes]:
    """Its commands."""
    count = count_of(body)
    at = 4 * (count + 1)
    commands = []
    for size in struct.unpack_from(f"<{count}I", body, 4) if count else ():
        commands.append(body[at : at + size])
        at += size
    return commands if at == len(body) else []


def count_of(body: bytes) -> int:
    """How many it holds, by what it says itself."""
    count = int.from_bytes(body[:4], "little")
    return count if 4 * (count + 1) <= len(body) else 0


class Told:
    """The state; `entry_applied` for each entry, in order."""

    def __init__(self) -> None:
        self.commands = self.digest = 0

    def apply(self, entry: Entry) -> None:
        if entry.kind == COMMAND:
            self.commands += count_of(entry.body)
            self.digest = crc32c(entry.body, self.digest)

    def pieces(self) -> Iterator[bytes]:
        """A snapshot of it as it is now."""
        return iter([STATE.pack(self.commands, self.digest)])

    def load(self, pieces: Iterator[bytes]) -> None:
        """Become that."""
        self.commands, self.digest = STATE.unpack(b"".join(pieces))
