"""What clients and servers of the lock service say to each other (kinds 80-95)."""

# Annotations stay types here, not text: the codec reads them, and text would have to be compiled.
from engine.record import Record
from engine.wire.codec import message

ACQUIRE, RELEASE = "acquire", "release"

DONE = "done"
"""`changed` says whether it had an effect."""
FORGOTTEN = "forgotten"
"""The server no longer knows the client; nothing was done now, earlier tries may have been."""
RETIRED = "retired"
"""The server does not serve (any more); nothing was done."""

INVALID = "invalid"
"""There is no such verb, or no lock can have this name; nothing was done."""
NAME_CHARACTERS_MAX = 512


@message(80)
class Operation(Record):
    """From a client: `sequence` counts its operations from 1, and is kept when it asks again."""

    client: int
    sequence: int
    verb: str
    name: str


@message(81)
class Answer(Record):
    """To a client. `status` is one of those above."""

    client: int
    sequence: int
    status: str
    changed: bool


@message(82)
class Forward(Record):
    """From the primary: operations numbered from `first` on, in the order of their effect."""

    first: int
    operations: tuple[Operation, ...]


@message(83)
class Applied(Record):
    """From the backup: every operation up to this number has taken effect."""

    number: int


@message(84)
class Alone(Record):
    """From the primary: it serves without the backup, whose state is therefore out of date."""


@message(85)
class Refusal(Record):
    """From the backup: it serves clients itself, so whoever forwards is no primary any more."""
