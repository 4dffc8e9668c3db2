"""What servers, clients and the view service say to each other (kinds 96-111)."""

# Annotations stay types here, not text: the codec reads them, and text would have to be compiled.
from engine.contract import SECOND, Nanos
from engine.record import Record
from engine.wire.codec import message

NOBODY = ""
PING_INTERVAL: Nanos = SECOND // 10


@message(96)
class View(Record):
    """The answer to everything. Members are named by the address that they serve at, and are in
    the view for one life: a server that was started again is no longer the one that is meant.

    `asked` is the number of the question that this answers.
    """

    asked: int
    number: int
    primary: str
    primary_life: int
    backup: str
    backup_life: int


@message(97)
class Ping(Record):
    """From a server, every interval. `asked` grows with every ping, also over lives.

    `life` tells a server that was started again from the one before; `number` is the view that it
    acts on, 0 if it acts on none.
    """

    asked: int
    server: str
    life: int
    number: int


@message(98)
class Get(Record):
    """From anybody: the view, without volunteering for anything."""

    asked: int
