"""What a member of a group is told at its birth, and the two timings that have names."""

from __future__ import annotations

from engine.contract import SECOND, Nanos
from engine.record import Record

MILLISECOND: Nanos = SECOND // 1000


class Timing(Record):
    """How patient a group is. An election takes one round trip and two fsyncs."""

    heartbeat: Nanos
    """A leader that has nothing to say says so this often."""
    election_min: Nanos
    election_max: Nanos
    """A follower that hears nothing for a time drawn evenly from this range asks for votes."""


LAN = Timing(40 * MILLISECOND, 150 * MILLISECOND, 300 * MILLISECOND)
"""For machines close to each other, whose connections tell when they break."""

LABS = Timing(100 * MILLISECOND, 500 * MILLISECOND, 1000 * MILLISECOND)
"""For the network of MIT's labs, which loses, delays and reorders: there two elections of three
succeed with this range, and one of eight with that of `LAN`."""


class Settings(Record):
    """Of one member of one group."""

    me: int
    """This member, for ever: a random number kept in its directory, so that whoever lost the
    directory is somebody else. Never 0."""
    group: int = 1
    timing: Timing = LAN
    entries_max: int = 1024
    bytes_max: int = 1 << 20
    """Entries and bytes of bodies in one message; one entry always fits."""
    window_max: int = 8
    """Messages with entries on their way to one follower, if the way is long: see `progress`."""
    thrift: Nanos = 0
    """Whoever is not needed for a majority gets entries after so long, with what came meanwhile."""
    uncommitted_max: int = 64 << 20
    """Bytes of bodies that a leader takes before any of them is committed."""
    chunk_bytes: int = 1 << 20
    """Of a snapshot, in one message."""
    promotion_lag: int = 64
    """A learner that has all but so many entries is made a voter, if it is to be one."""
    backoff_max: int = 5
    """A failed campaign doubles the range of the next, so often at most."""
