"""What the replicas of a lab have applied, compared with each other index by index.

A replica is heard in order, from its first entry or from a snapshot on. Whatever two of them apply
at one index must be the same, in any of their lives, so one book serves for all: a replica's log
is the book up to where that replica is.
"""

from __future__ import annotations

from engine.kernels.checksum import crc32c
from engine.raft import told
from engine.storage.entries import COMMAND

UNSEEN = b"(unseen: every server had it in a snapshot before we asked)"


class Book:
    """AssertionError where replicas do not agree."""

    def __init__(self) -> None:
        self.entries: dict[int, tuple[int, int, bytes]] = {}
        """By index: term, kind, body."""
        self.counts, self.digests = {0: 0}, {0: 0}
        """By index: commands up to there, and the sum over the bodies that hold them."""
        self.commands: dict[int, bytes] = {}
        """By number."""

    def applied(self, who: str, index: int, entry: tuple[int, int, bytes]) -> None:
        """Somebody that was at `index` - 1 has applied this entry."""
        known = self.entries.setdefault(index, entry)
        assert known == entry, f"{who} applies {entry} at {index}, and another applied {known}"
        count, digest = self.counts[index - 1], self.digests[index - 1]
        _, kind, body = entry
        if kind == COMMAND:
            commands = told.unpack(body)
            for number, command in enumerate(commands, count + 1):
                had = self.commands.setdefault(number, command)
                assert had == command, f"{who} has {command!r} as {number}, another {had!r}"
            count, digest = count + len(commands), crc32c(body, digest)
        self.holds(who, index, count, digest)

    def holds(self, who: str, index: int, commands: int, digest: int) -> None:
        """Somebody's state at this index: so many commands, with this sum."""
        state = commands, digest
        known = self.counts.setdefault(index, commands), self.digests.setdefault(index, digest)
        assert known == state, f"{who} has {state} at {index}, and a replay gives {known}"

    def command(self, number: int) -> bytes:
        return self.commands.get(number, UNSEEN)

    def log(self, index: int) -> list[bytes]:
        """All commands up to this index."""
        return [self.command(number) for number in range(1, self.counts[index] + 1)]
