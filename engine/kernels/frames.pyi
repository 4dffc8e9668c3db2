"""Frames between a pyzmq socket and Python (`ext/frames.pyx`), the one kernel that knows sockets.

pyzmq's own way costs an exception whenever nothing is left, and two calls more for each frame. The
wheels of pyzmq have no headers, and linking a libzmq of the system would load a second one, so the
functions are looked up in the one that pyzmq has loaded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

class Frames:
    """Never waits. `routed` for a ROUTER, where each message is a route and a frame.

    The socket stays its maker's to close; from then on all methods raise ValueError.
    """

    socket: Any
    quiet: bool
    """Nothing was there when a `Poller` looked last, and nothing was done with it since. Whoever
    goes by that, at once, takes it back: it does not stay so."""
    malformed: int
    """Messages of other than one frame, which were dropped; whoever counts them sets it to 0."""

    def __init__(self, socket: object, *, routed: bool, named: bool = False) -> None: ...
    def receive(
        self,
        frames: int,
        size: int,
        proven: Mapping[bytes, tuple[bytes, Any]] | None = None,
    ) -> tuple[list[tuple[Any, bytes]], list[Any]]:
        """What has arrived, up to so many frames and about so many bytes: (requests, others).

        A frame that begins with a key of `proven`, the 24 bytes of an envelope before its length,
        that came by the route which is known for it, and that is as long as it says, is a request:
        (what is known, the body). Others are (route, frame), or just the frame if not `routed`; if
        `named`, (route, frame, user, descriptor): whom the ZAP handler found at the other end of
        the connection, and the number of its socket, as bytes; b"" for what is not known.
        OSError.
        """

    def send(self, route: bytes | None, head: bytes, body: bytes) -> int:
        """One frame, `head` and then `body`. 0, or the error number for which it was not sent."""

    def answer(
        self,
        kind: int,
        cluster: int,
        ways: dict[Any, tuple[bytes, int]],
        told: list[tuple[Any, bytes]],
    ) -> list[tuple[int, int]]:
        """Bodies in envelopes of this kind, each to a link; `ways` has its route and its number.

        Returns (number, error number) for each that was not sent, and (0, 0) for each whose way is
        not known. For a ROUTER. The bodies are no longer than an envelope takes.
        """

class Poller:
    """What has something to read, of some `Frames` and some file descriptors.

    ZeroMQ's own looks into each socket twice before it waits. Here only those are looked into that
    were used since the last time, or whose descriptor says that something has happened there.
    Nothing but their `Frames` may be used to send and receive.

    Whoever is woken from sleep waits for a processor to wake first, which takes as long as much of
    what is done here. So a poller that was given `spin`, in microseconds, looks again and again for
    so long before it sleeps; but only if it has waited less than a millisecond the last time, and
    not when others have use for the processor.
    """

    spins: int
    """How often it did."""
    may_spin: bool

    def __init__(self, spin: int = 0) -> None: ...
    def __len__(self) -> int: ...
    def add(self, source: Frames | int) -> None: ...
    def remove(self, source: Frames | int) -> None:
        """ValueError for one that is not there."""

    def descriptors(self) -> list[int]:
        """Of all, in some order."""

    def poll(self, milliseconds: int, without: Sequence[Frames | int] = ()) -> list[Frames | int]:
        """Those that have something, at once or as soon as one has; none after so many
        milliseconds, or when a signal came. Those `without`, each once, are not looked at this
        time. OSError, ValueError."""
