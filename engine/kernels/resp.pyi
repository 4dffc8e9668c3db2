"""RESP on one side and frames of the store on the other (`ext/resp.pyx`).

A `Stream` reads what a Redis client says. Its plain commands, those of one key without options, go
straight from its buffer into a frame of requests, and what the frame is answered straight back into
the buffers of those who asked: there is no Python object for any of them. All others come to Python
as lists of arguments. Which is which: GET, EXISTS, STRLEN; SET, SETNX, DEL, UNLINK, APPEND.

The commands of a stream have their effects in order, for what it waits for is always in one frame,
and a frame holds only reads, or only writes, which the store carries out in the order of the frame.
"""

from collections.abc import Callable
from typing import Any

class ProtocolError(Exception):
    """What a client says is not RESP, and nothing that it says from there on can be understood."""

class Stream:
    """One connection's bytes, both ways. `owner` is whoever is told about it."""

    owner: Any
    waits: int
    """Plain commands that were not answered yet."""
    resp3: bool
    slow: bool
    """No command is plain."""
    closed: bool
    """Replies are dropped."""

    def __init__(self, owner: object, bulk_max: int) -> None:
        """`bulk_max`: bytes of an argument, at most."""

    @property
    def unread(self) -> int:
        """Bytes that came and were not understood yet."""

    @property
    def unsent(self) -> int:
        """Bytes of replies."""

    @property
    def held(self) -> int:
        """Bytes of memory."""

    def restrict(self, guest: bool, reads_only: bool) -> None:
        """Nothing that a guest says is plain, and it has at most 10 arguments of 16 KiB. With
        `reads_only` nothing is plain that writes."""

    def feed(self, data: bytes) -> None:
        """This has arrived."""

    def next(self, intake: Intake) -> list[bytes] | bytes | None:
        """Take commands that are complete, as long as they are plain. The next that is not, once
        all before it are answered; a line that is no array of RESP comes as it is. None: more must
        arrive first, or be answered. ProtocolError, when all before it are answered.
        """

    def reply(self, data: bytes) -> None:
        """Send this behind all others."""

    def output(self, most: int) -> bytes:
        """What is to be sent next."""

    def sent(self, size: int) -> None:
        """So much of it was."""

class Batch:
    """Requests that go in one frame."""

    how: int
    """`engine.kv.requests.WRITE` or `READ`."""
    number: int

    def __len__(self) -> int: ...
    def frame(self) -> bytes:
        """As `engine.kv.commands` has it; the same each time, so that it may be said again."""

    def answer(
        self, frame: bytes
    ) -> tuple[list[Any], list[tuple[Any, bytes]], list[tuple[Any, Batch]]]:
        """The frame was answered: (owners of streams that wait no more, (who, answer) of calls,
        (owner, what has to be asked again since the answer had no room for it) of other streams).
        ValueError: that is no answer.
        """

    def fail(self, reply: bytes) -> tuple[list[Any], list[tuple[Any, None]], list[Any]]:
        """It was not, and never will be. Streams are replied to with this."""

class Intake:
    """Frames that are being filled.

    Writes have sessions, one each while they are under way, of which the frame has the names: said
    again, to whomever, it is done once. New names begin with `birth`, a replicated time in ns; a
    session that was not used for `forget` seconds of `now` gets another one.
    """

    forget: float
    now: float
    birth: int

    def __init__(
        self,
        explain: Callable[[bytes], bytes],
        chance: Callable[[int], bytes],
        most: int,
        size: int,
        forget: float,
    ) -> None:
        """`explain` makes a reply of an answer that is an error, `chance` gives random bytes.
        Frames have up to `most` requests and about `size` bytes, or one that is longer.
        """

    def pending(self, how: int) -> int:
        """Requests in frames that were not taken."""

    def take(self, how: int) -> list[Batch]:
        """The frames, to be sent; some may be empty."""

    def call(self, how: int, who: object, commands: list[bytes]) -> None:
        """Ask for these too, packed as [op, argument, …], one after the other in one frame: `who`
        comes back with each answer. ValueError if they are too many for one.
        """

def number_of(frame: bytes) -> int | None:
    """Of which frame these are the answers; None if they are none."""
