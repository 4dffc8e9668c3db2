"""The commonest thing that is asked of the store: gets, one or many in a frame (`ext/gets.pyx`)."""

from engine.kernels.table import Table

def gets(frame: bytes, table: Table, revision: int, room: int, rows: int) -> bytes | None:
    """The answer frame to a frame of gets, which has room for so many bytes of keys and records and
    so many rows, the first of which always fits; None if the frame is anything else, or packed as
    nobody does it."""
