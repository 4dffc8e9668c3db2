"""Messages between a replica of the store and its clients; what is in the frames: `commands`.

`number` is the asker's own, and comes back with the answer. What was not done is said by
`engine.raft.requests.Rejected`, and operators use what is there.
"""

# Annotations stay types here, not text: the codec reads them.
from engine.record import Record
from engine.wire.codec import message

ASK, ANSWERED = 160, 161

FRAME_BYTES_MAX = 12 << 20
"""A frame is sent on to other replicas whole, in an envelope with other things. What a request may
have is a limit of the store, and usually much less."""
WRITE, READ, LOCAL = range(3)
"""How a frame is to be treated: placed in the log; answered with all that was done before it came;
answered with what this replica happens to have."""


@message(ASK)
class Ask(Record):
    """A frame of requests, none of which depends on another: `WRITE`, `READ` or `LOCAL`."""

    how: int
    frame: bytes


@message(ANSWERED)
class Answered(Record):
    """By `sender`: a frame of answers for each of these frames."""

    sender: int
    frames: tuple[bytes, ...]


@message(162)
class AskTime(Record):
    """`Time`."""

    number: int


@message(163)
class Time(Record):
    """Replicated time, in ns, with which a session's name begins."""

    sender: int
    number: int
    time: int


@message(164)
class Watch(Record):
    """What happens to keys from `start` on, before `end` (b"": all; None: just that key), after
    this revision. `Watched` as soon as there is something, once for each of `credit`; a `Watch`
    with the same number and another credit gives more, one without any ends it."""

    number: int
    start: bytes
    end: bytes | None
    after: int
    credit: int


@message(165)
class Watched(Record):
    """What happened after `since`, which is where the last of these messages ended: whoever did not
    get that one asks again. (revision, key, whether it is deleted, value, create revision, version)
    of whole revisions, each once, in order. Go on `after` this one. `compacted` > 0: what happened
    up to that revision is not known any more, and nothing is told."""

    sender: int
    number: int
    since: int
    after: int
    compacted: int
    events: tuple[tuple[int, bytes, bool, bytes, int, int], ...]


@message(173)
class AskHeld(Record):
    """`Held`: for whoever watches, and was not told anything for long."""

    number: int


@message(174)
class Held(Record):
    """By `sender`: how many watches of this link it has in mind, and the sum of `held_mark` over
    them. Whoever knows of other ones has asked or been told something that was lost."""

    sender: int
    number: int
    many: int
    mark: int


def held_mark(number: int, after: int, credit: int) -> int:
    """Of a watch, up to where it was told last, and what it may be told yet; they are added, for
    then one that changes costs no more if they are many."""
    return (number * 0x9E3779B1 ^ after * 0x85EBCA77 ^ credit * 0xC2B2AE3D) & 0xFFFFFFFF


# --- operators -----------------------------------------------------------------------------------


@message(166)
class TakeSnapshot(Record):
    """Take a snapshot of all that is applied. `Taken` when it is complete."""

    number: int


@message(167)
class Taken(Record):
    """It covers the log up to entry `last`, of `term`, and has `size` bytes."""

    number: int
    last: int
    term: int
    size: int
    revision: int


@message(168)
class FetchSnapshot(Record):
    """What the snapshot up to entry `last` has from `offset` on. `SnapshotPiece`."""

    number: int
    last: int
    offset: int


@message(169)
class SnapshotPiece(Record):
    """Some of it; nothing at its end, or if it is not there any more."""

    number: int
    data: bytes


@message(170)
class AskHash(Record):
    """`Hash`."""

    number: int


@message(171)
class Hash(Record):
    """A sum over all keys as they were at this revision: equal on all replicas."""

    number: int
    revision: int
    crc: int


# --- replicas ------------------------------------------------------------------------------------


@message(172)
class Checked(Record):
    """What `sender` has after entry `place`: see `engine.kv.digests`."""

    sender: int
    place: int
    digest: int
