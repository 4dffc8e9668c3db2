"""Finds single messages in one direction of a ZeroMQ connection: ZMTP 3.x without security.

Grammar (https://rfc.zeromq.org/spec/23)::

    stream    = greeting *command "READY" *(command | message)
    greeting  = %xFF 8OCTET %x7F  %x03 OCTET  "NULL" 16%x00  32OCTET           (64 bytes)
    message   = *(frame with MORE) frame
    frame     = flags:u8 size:u8 body  |  flags:u8 size:u64 (big-endian) body
    flags     = MORE 1, LONG 2 (the size has 8 bytes), COMMAND 4; all else 0
    command   = frame with COMMAND, whose body is length:u8 name data

The peers exchange the greeting in pieces and wait for each other's, so pieces are handed out as
they come. Messages are handed out whole, as the very bytes that arrived.
"""

from __future__ import annotations

from engine.record import Record
from engine.wire.envelope import FRAME_MAX

MORE, LONG, COMMAND = 1, 2, 4

MESSAGE_MAX = 2 * FRAME_MAX
"""Wire bytes of one message: bounds what a splitter keeps."""
COMMAND_MAX = 1 << 16

_GREETING: tuple[int | None, ...] = (
    0xFF,
    *(None,) * 8,
    0x7F,
    3,
    None,
    *b"NULL".ljust(20, b"\0"),
    *(None,) * 32,
)
"""What each byte must be; None: anything."""


class Setup(Record):
    """A piece of the greeting, or a command up to READY: what a connection is made of."""

    raw: bytes


class Command(Record):
    """A later command: PING, PONG."""

    raw: bytes
    name: bytes


class Message(Record):
    """All frames of a message as they arrived; the last one's body starts at `begin`."""

    raw: bytes
    begin: int


Item = Setup | Command | Message


class Splitter:
    """Bytes in, items out. Once `malformed` says why, nothing more comes out."""

    def __init__(self) -> None:
        self.malformed = ""
        self._greeted = 0
        self._ready = False
        self._buffer = bytearray()
        self._at = 0
        """Where, in the buffer, the first frame begins that has not arrived whole."""

    @property
    def amid_message(self) -> bool:
        """Whether a part of a message has arrived, and not all of it."""
        return self._at > 0 or (len(self._buffer) > 0 and not self._buffer[0] & COMMAND)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Item]:
        """The items that these bytes complete."""
        items: list[Item] = []
        if self._greeted < len(_GREETING) and not self.malformed:
            data = self._greet(bytes(data), items)
        if self.malformed:
            return items
        buffer = self._buffer
        buffer += data
        start, at = 0, self._at
        while (body := self._body(start, at)) is not None:
            begin, end = body
            flags = buffer[at]
            at = end
            item: Item | None
            if flags & COMMAND:
                item = self._command(bytes(buffer[start:end]), begin - start)
            elif flags & MORE:
                continue
            else:
                item = Message(bytes(buffer[start:end]), begin - start)
            if item is None:
                break
            items.append(item)
            start = end
        if start:
            del buffer[:start]
        self._at = at - start
        return items

    def _greet(self, data: bytes, items: list[Item]) -> bytes:
        """Take what belongs to the greeting; the rest."""
        piece = data[: len(_GREETING) - self._greeted]
        good = 0
        for byte, allowed in zip(piece, _GREETING[self._greeted :], strict=False):
            if allowed is not None and byte != allowed:
                self.malformed = f"byte {self._greeted + good} of the greeting is {byte}"
                break
            good += 1
        if good:
            items.append(Setup(piece[:good]))
        self._greeted += good
        return data[good:]

    def _body(self, start: int, at: int) -> tuple[int, int] | None:
        """(begin, end) of the body of the frame at `at`; None if it is not there, or malformed.

        The message that it belongs to begins at `start`.
        """
        buffer = self._buffer
        there = len(buffer)
        if at >= there:
            return None
        flags = buffer[at]
        long = flags & LONG
        begin = at + (9 if long else 2)
        if flags & ~(MORE | LONG | COMMAND):
            self.malformed = f"a frame with flags {flags}"
        elif flags & COMMAND and (flags & MORE or at > start):
            self.malformed = "a command amid a message"
        elif not (flags & COMMAND or self._ready):
            self.malformed = "a message before READY"
        elif begin <= there:
            size = int.from_bytes(buffer[at + 1 : begin], "big") if long else buffer[at + 1]
            if begin + size - start > (COMMAND_MAX if flags & COMMAND else MESSAGE_MAX):
                self.malformed = f"a frame of {size} bytes"
            elif begin + size <= there:
                return begin, begin + size
        return None

    def _command(self, raw: bytes, begin: int) -> Setup | Command | None:
        body = raw[begin:]
        if not body or not 0 < body[0] < len(body):
            self.malformed = "a command without a name"
            return None
        if self._ready:
            return Command(raw, body[1 : 1 + body[0]])
        self._ready = body[1 : 1 + body[0]] == b"READY"
        return Setup(raw)
