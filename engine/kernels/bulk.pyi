"""Frames of requests that came in bulk: told apart, put into an entry, found in one, answered
(`ext/bulk.pyx`). What they look like is in `engine.kv.commands` and `engine.kv.requests`."""

from collections.abc import Iterable
from typing import TypeVar

Link = TypeVar("Link")

def asks(
    batch: Iterable[tuple[Link, bytes]],
    writes: list[tuple[Link, bytes]],
    reads: list[tuple[Link, bytes]],
    frame_max: int,
) -> list[tuple[Link, bytes]]:
    """Append the frames of bodies of `Ask`, each with its link, to the writes and the reads.

    Returns what is anything else: another way of asking, longer than `frame_max` bytes, malformed,
    or just packed as nobody does it.
    """

def packed(
    group: int, time: int, batch: list[tuple[Link, bytes]], first: int, bytes_max: int
) -> tuple[bytes, int]:
    """An entry's body with the frames from the `first` on: one, and more while they have no more
    than `bytes_max` bytes. Returns it and the first that is not in it. All principals are 0."""

def unpacked(entry: bytes) -> tuple[int, int, list[bytes]] | None:
    """(group, time, frames) of an entry's body; None if it is none."""

def told(
    before: bytes, part: list[tuple[Link, bytes]], answers: list[bytes], bytes_max: int
) -> tuple[list[tuple[Link, bytes]], int, int]:
    """What each link is told, with the answer frames to what was asked, in the same order: the
    body of an `Answered` whose array and sender are packed as `before`. All that is for one link is
    in one, unless all answers together have more than `bytes_max` bytes: then each is alone.

    Returns these messages, how many requests are answered, and how many answers were b"", which
    nobody is told. ValueError if there are not as many answers as frames.
    """
