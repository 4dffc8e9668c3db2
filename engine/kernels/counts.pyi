"""Merge sorted runs of counted words (`ext/counts.pyx`)."""

from collections.abc import Sequence

class DamagedBlock(ValueError):
    """A block does not verify: of segment `segment` of those given, at byte `offset` of a file."""

    segment: int
    offset: int
    why: str
    def __init__(self, segment: int, offset: int, why: str) -> None: ...

Segment = tuple[int, int, int]
"""(file descriptor, offset, length): one partition of one section."""

def merge_to_text(
    segments: Sequence[Segment],
    out: int,
    *,
    job: int,
    partition: int,
    memory: int,
    page: memoryview | None = None,
) -> tuple[int, int, int, int]:
    """Write `key count` lines to `out`, sorted bytewise: (keys, sum of counts, bytes, crc32c).

    Streams: holds a window of each segment, as long as `memory` allows but at least a block, and
    one output buffer. GIL released. DamagedBlock, OSError, OverflowError.
    """

def merge_to_section(
    segments: Sequence[Segment],
    out: int,
    offset: int,
    *,
    job: int,
    task: int,
    attempt: int,
    partition: int,
    memory: int,
    page: memoryview | None = None,
) -> tuple[int, int, int]:
    """Merge into one segment at `offset` of `out`, for passes: (offset, length, records)."""
