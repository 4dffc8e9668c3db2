"""The commonest thing that the store does: one plain put in a session that is known, and to drop
the events of old ones (`ext/puts.pyx`)."""

from collections.abc import Callable

from engine.kernels.table import Table

def puts(
    frames: list[bytes],
    first: int,
    answers: list[bytes],
    table: Table,
    rows: dict[bytes, bytes],
    events: list[tuple[int, int, bytes, bytes]],
    aside: Callable[[bytes, bytes | None], None] | None,
    limits: tuple[int, ...],
    revision: int,
    time: int,
    horizon: int,
    room: int,
) -> tuple[int, int, int, int]:
    """Carry out write frames from the `first` on, up to one that is anything else.

    `limits` begins with the bytes of a key, a value and a frame; the table may grow by `room`
    bytes. `aside`, if there is one, is called with every key that is about to change, and its
    record. Answers are appended.

    Returns (the first frame that was not carried out, the revision, and by how many bytes the
    history and the rows have grown).
    """

def dropped(
    events: list[tuple[int, int, bytes, bytes]],
    first: int,
    upto: int,
    filler: tuple[int, int, bytes, bytes],
) -> int:
    """Put `filler` in the place of these events; how many bytes their keys and records had.
    IndexError."""
