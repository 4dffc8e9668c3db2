"""What a leader knows of one follower, and how much it sends it.

A follower is *probed* while its leader does not know where their logs part: one message, then the
answer or the next heartbeat. Once they agree, entries go out as they come (*stream*), a few
messages at a time. One whose next entry is in a snapshot gets that first.

One message in flight is best where a message takes about as long as a disk: whatever arrives
meanwhile goes with the next. Where the way is long the window is as many messages as fit the way.
"""

from __future__ import annotations

from collections import deque

from engine.contract import Nanos

PROBE, STREAM, SNAPSHOT = "probe", "stream", "snapshot"
REPEATS_MAX = 4
"""A piece of a snapshot comes again after the time of a heartbeat, then of two, of 16 at most."""


class Progress:
    """Of one follower. Times are the leader's."""

    __slots__ = (
        "asked",
        "commit",
        "full",
        "heard",
        "in_flight",
        "match",
        "next",
        "offset",
        "paused",
        "pieced",
        "repeats",
        "round",
        "sent",
        "snapshot",
        "state",
        "trip",
    )

    def __init__(self, last: int, now: Nanos) -> None:
        self.state = PROBE
        self.match = 0
        """Up to here its log is the leader's, and on its disk."""
        self.next = last + 1
        """The first entry to send."""
        self.commit = 0
        """The last commit index that it was told."""
        self.round = 0
        """The last round of reads that it answered."""
        self.asked = 0
        """The last round that it was told of."""
        self.heard = now
        """When it last answered."""
        self.sent = now - (1 << 40)
        """When it was last sent anything."""
        self.paused = False
        """It was probed, or given a piece, and has not answered."""
        self.pieced = self.sent
        """When it was last sent a piece of a snapshot."""
        self.repeats = 0
        """How often that had been sent before; 0 when anything is answered: the way is free."""
        self.in_flight: deque[tuple[int, Nanos]] = deque()
        """Messages with entries: (last index, when sent)."""
        self.trip: Nanos = 0
        """How long an answer takes, smoothed."""
        self.snapshot = 0
        """The snapshot that it is sent, and how far it got."""
        self.offset = 0
        self.full = False
        """It has no space: it is asked from time to time."""

    def matched(self, index: int, now: Nanos) -> None:
        """It has all up to here."""
        while self.in_flight and self.in_flight[0][0] <= index:
            _, sent = self.in_flight.popleft()
            self.trip += (now - sent - self.trip) // 4
        self.match = max(self.match, index)
        self.next = max(self.next, index + 1)

    def probe(self, first: int) -> None:
        """Nothing is known about entries from `first` on."""
        self.state = PROBE
        self.next = max(self.match + 1, first)
        self.paused = False
        self.in_flight.clear()

    def begin_snapshot(self, last: int) -> None:
        """What is next is in the snapshot that ends with entry `last`."""
        self.state, self.snapshot, self.offset = SNAPSHOT, last, 0
        self.paused = False
        self.in_flight.clear()

    def gave_piece(self, now: Nanos) -> None:
        """It was sent one, maybe again."""
        self.repeats = self.repeats + 1 if self.paused else 0
        self.paused, self.sent, self.pieced = True, now, now

    def piece_at(self, heartbeat: Nanos) -> Nanos:
        """From when on an unanswered piece is taken for lost, whatever else was said meanwhile.
        Later each time that nothing at all is answered: where the way is narrow ever more copies
        would be on it."""
        return self.pieced + (heartbeat << min(self.repeats, REPEATS_MAX))

    def window(self, disk: Nanos, most: int) -> int:
        """Messages with entries that may be on their way, if a disk takes so long."""
        return max(1, min(most, self.trip // (4 * disk + 1_000_000)))
