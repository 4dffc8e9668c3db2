"""What clients and servers of the primary/backup store say to each other (kinds 112-127)."""

# Annotations stay types here, not text: the codec reads them, and text would have to be compiled.
from engine.record import Record
from engine.wire.codec import message

GET, PUT, APPEND = "get", "put", "append"

OK = "ok"
NO_KEY = "no key"
TOO_LARGE = "too large"
"""The key or the value (after the append) is over its limit; nothing was changed."""
WRONG_SERVER = "wrong server"
"""Not the primary, as far as it knows; nothing was done now."""
FORGOTTEN = "forgotten"
"""The client's earlier requests are no longer remembered; nothing was done now."""

KEY_CHARACTERS_MAX = 512
VALUE_CHARACTERS_MAX = 1 << 20


@message(112)
class Operation(Record):
    """From a client: `sequence` counts its operations from 1, and is kept when it asks again."""

    client: int
    sequence: int
    verb: str
    key: str
    value: str


@message(113)
class Answer(Record):
    """To a client. `status` is one of those above; `value` is that of a get, else empty."""

    client: int
    sequence: int
    status: str
    value: str


@message(114)
class Forward(Record):
    """From the primary of `view`: operations numbered from `first` on, in the order of effect."""

    view: int
    first: int
    operations: tuple[Operation, ...]


@message(115)
class Applied(Record):
    """From the backup of `view`: every operation up to this number has taken effect."""

    view: int
    number: int


class Session(Record):
    """The last answer of a client, as it is sent to a new backup."""

    client: int
    sequence: int
    status: str
    value: str


@message(116)
class Part(Record):
    """From the primary of `view`: part `part` of all its data, as after operation `number`.

    The parts are numbered from 0; the `last` completes the copy.
    """

    view: int
    part: int
    last: bool
    number: int
    rows: tuple[tuple[str, str], ...]
    sessions: tuple[Session, ...]


@message(117)
class Taken(Record):
    """From the backup of `view`: it has this part and all before it."""

    view: int
    part: int
