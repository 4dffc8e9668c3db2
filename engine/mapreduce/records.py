"""Records of a Python job: the lines that begin in a split, or the whole file.

Lines end with \\n or \\r\\n, which is not part of them. Text is UTF-8; every byte sequence that is
not becomes U+FFFD, which is no letter.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from engine.errors import JobFailed
from engine.mapreduce.job import Job
from engine.storage.files import read_at

RECORD_BYTES_MAX = 64 << 20
"""A longer line is an error: it would have to be held in memory several times over."""
_PIECE = 64 << 10


def read_records(
    job: Job, path: str, start: int, end: int, reached: Callable[[int], None] | None = None
) -> list[str]:
    """Records of bytes [start, end); OSError, or JobFailed for a line over 64 MiB.

    `reached` is told, about every megabyte, how far reading has come.
    """
    if job.records == "files":
        with open(path, "rb", buffering=0) as file:
            return [read_at(file.fileno(), end, 0, reached).decode("utf-8", "replace")]
    first, data = _lines(path, start, end, reached)
    if first < 0:
        return []
    if b"\r\n" in data:
        data = data.replace(b"\r\n", b"\n")
    return data.removesuffix(b"\n").decode("utf-8", "replace").split("\n")


def record_offset(job: Job, path: str, start: int, end: int, index: int) -> int:
    """Byte of the file at which a record begins; reads the split again."""
    if job.records == "files":
        return 0
    first, data = _lines(path, start, end)
    return first + sum(len(line) + 1 for line in data.split(b"\n", index)[:index])


def _lines(
    path: str, start: int, end: int, reached: Callable[[int], None] | None = None
) -> tuple[int, bytes]:
    """(offset of the first line that begins in [start, end), those lines), or (-1, b"")."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        first = start
        if start:
            first = _after_newline(fd, start - 1, end, path)
            if first < 0 or first >= end:
                return -1, b""
        data = read_at(fd, end - first, first, reached)
        if not data:
            return -1, b""
        if data.endswith(b"\n"):
            return first, data
        return first, data + _to_newline(fd, first + len(data), path)
    finally:
        os.close(fd)


def _after_newline(fd: int, offset: int, end: int, path: str) -> int:
    """The byte after the first newline at or after `offset`, if the newline is before `end`."""
    while offset < end:
        piece = os.pread(fd, _PIECE, offset)
        if not piece:
            return -1
        at = piece.find(b"\n")
        if at >= 0:
            return offset + at + 1
        offset += len(piece)
    return -1


def _to_newline(fd: int, offset: int, path: str) -> bytes:
    """Bytes from `offset` through the next newline, or to the end of the file."""
    pieces = []
    size = 0
    while True:
        piece = os.pread(fd, _PIECE, offset + size)
        at = piece.find(b"\n")
        if at >= 0 or not piece:
            pieces.append(piece[: at + 1])
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > RECORD_BYTES_MAX:
            raise JobFailed(
                f"{path}: the line around byte {offset} is longer than 64 MiB; "
                'is this a text file? A job can read whole files with records = "files".'
            )
