"""Messages between a replica and those it serves: clients, and whoever operates it.

`number` is the asker's own, and comes back with the answer.
"""

# Annotations stay types here, not text: the codec reads them.
from engine.record import Record
from engine.wire.codec import message

SUBMIT, SUBMITTED = 144, 145
COMMAND_BYTES_MAX = 1 << 20


# --- clients -------------------------------------------------------------------------------------


@message(SUBMIT)
class Submit(Record):
    """Append this command. `Submitted` once it is decided and applied, else `Rejected`."""

    number: int
    command: bytes


@message(SUBMITTED)
class Submitted(Record):
    """By `sender`: (number of the request, which command of the log it became, from 1)."""

    sender: int
    done: tuple[tuple[int, int], ...]


@message(146)
class Rejected(Record):
    """These were not done, or with `unknown` it cannot be said whether they will be. `leader` is
    the member to ask instead, 0 if nobody is known."""

    sender: int
    numbers: tuple[int, ...]
    why: str
    leader: int
    unknown: bool


@message(147)
class Look(Record):
    """How many commands are there? Whoever answers knows all that was done before this came."""

    number: int


@message(148)
class Seen(Record):
    """`commands`, and a sum over all entries so far (`engine.raft.told`)."""

    sender: int
    number: int
    commands: int
    digest: int


# --- operators -----------------------------------------------------------------------------------


@message(149)
class AskStatus(Record):
    """`Status`."""

    number: int


class Seat(Record):
    """A member as its group knows it; `match`, `state` and `silent_ms` as its leader sees it."""

    id: int
    address: str
    role: str
    match: int
    state: str
    silent_ms: int


class Slow(Record):
    """A request that took long, as `engine.kv.slow` has it: `number` grows with every one; what it
    `waited` for longest, how it `ended`, and how many `others` that went with it were slow too.
    `key` is the beginning of it if it is `cut`, `session` the end of its client's."""

    number: int
    ago_ms: int
    took_ms: int
    verb: str
    key: bytes
    cut: bool
    client: str
    session: str
    waited: str
    ended: str
    others: int


@message(150)
class Status(Record):
    """All that a replica knows of itself. `lost`: a part of its log was damaged, and it does not
    vote before it has that again. `full`: its disk is. `log_bytes` are those of live entries,
    `disk_bytes` those of all its files. `counters` only grow while the process lives; `figures` say
    what there is just now, `slow` which requests took long lately, and `redis` where clients of
    Redis are served, "" if nowhere."""

    number: int
    member: int
    pid: int
    clients: str
    group: int
    role: str
    term: int
    leader: int
    commit: int
    applied: int
    last: int
    durable: int
    base: int
    snapshot: int
    commands: int
    digest: int
    seats: tuple[Seat, ...]
    joint: bool
    lost: bool
    full: bool
    log_bytes: int
    disk_bytes: int
    up_ms: int
    counters: tuple[tuple[str, int], ...]
    figures: tuple[tuple[str, int], ...] = ()
    slow: tuple[Slow, ...] = ()
    redis: str = ""


@message(151)
class Follow(Record):
    """What is applied after entry `after`, at most `most` entries. `Applied`, as soon as there is
    one; whoever wants more asks again."""

    number: int
    after: int
    most: int


@message(152)
class Applied(Record):
    """Entries from `first` on: (term, kind, body). If those after `after` are in a snapshot by now
    there are none: go on after entry `first` - 1, with so many `commands` and this `digest`."""

    number: int
    first: int
    entries: tuple[tuple[int, int, bytes], ...]
    commands: int
    digest: int


@message(153)
class Start(Record):
    """The labs' Start: place a command and do not wait for what becomes of it. `Started`."""

    number: int
    command: bytes


@message(154)
class Started(Record):
    """`place`: which command it becomes, if it stays in the log; 0 if this member does not lead."""

    number: int
    place: int
    term: int


@message(155)
class Reconfigure(Record):
    """Make these the members: (id, address, whether it votes). `Ordered`."""

    number: int
    members: tuple[tuple[int, str, bool], ...]


@message(156)
class HandOver(Record):
    """Let this member lead; 0: whoever has most. `Ordered`: it is tried."""

    number: int
    target: int


@message(157)
class Ordered(Record):
    """`why` it was refused, "" if it was not. `leader` is whom to ask instead, 0 if unknown."""

    number: int
    why: str
    leader: int
