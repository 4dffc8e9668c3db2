"""Inputs: which files a job reads, pinned as they are now, and how they are cut into splits.

A split is a byte range of a file. A native job counts the words that begin in it, a job of lines
gets the lines that begin in it, so any cut gives the same answer; only speed depends on it. A file
is pinned by (size, modification time, inode): whoever reads a split compares, so that a file that
changes under a job fails the job instead of giving an answer that was never true.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import NoReturn

from engine.errors import JobFailed, NotFoundError, UsageError
from engine.mapreduce.job import Job
from engine.record import Record

NATIVE_SPLIT_BYTES = 8 << 20
"""A run of the kernel over 8 MB takes about 8 ms: long against a message, short against a job."""
SPLITS_PER_WORKER = 4
"""Small inputs are cut finer, so that workers end together."""
SPLIT_BYTES_MIN = 64 << 10
SPLITS_MAX = 1 << 20
"""What the journal and the numbering of attempts hold; at 8 MB each it is 8 TB."""

Identity = tuple[int, int, int]
Split = tuple[str, int, int, Identity]


class Input(Record):
    """One file and what pins it."""

    path: str
    identity: Identity

    @property
    def size(self) -> int:
        """Bytes."""
        return self.identity[0]


def identify(path: str) -> Identity:
    """(size, mtime in ns, inode) of a file as it is now."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def unchanged(path: str, identity: Identity) -> None:
    """Raise `JobFailed` unless the file is still the one that the job began with."""
    try:
        now = identify(path)
    except OSError as error:
        raise JobFailed(f"{path}: cannot be read any more ({error.strerror}).") from error
    if now != identity:
        raise JobFailed(
            f"{path}: changed while the job ran (size {identity[0]} -> {now[0]}, "
            "or its time or inode); run the job again on files that stand still."
        )


def scan(inputs: Iterable[str]) -> list[Input]:
    """All files of the inputs: files as they are given, directories sorted by path.

    In directories, names that begin with "." or "_" are left out, as Hadoop and Spark do, and a
    file that can be reached in several ways (links, nested directories) is read once. Errors name
    the file.
    """
    given = list(inputs)
    found: list[Input] = []
    seen: dict[tuple[int, int], str] = {}
    for name in given:
        paths = list(_files(name))
        if not paths:
            raise NotFoundError(f"{name}: no files in it to read.")
        for path in paths:
            device, entry = _pin(path)
            first = seen.setdefault((device, entry.identity[2]), path)
            if first is path:
                found.append(entry)
            elif path == os.path.abspath(name):
                raise UsageError(f"{path} is given twice (also as {first}); name it once.")
    if not found:
        raise UsageError("No inputs: name at least one file or directory.")
    return found


def _files(given: str) -> Iterator[str]:
    path = os.path.abspath(given)
    if os.path.isdir(path):
        yield from _walk(path, set())
    else:
        yield path


def _walk(folder: str, above: set[tuple[int, int]]) -> Iterator[str]:
    """Files below a folder, links to folders followed unless they lead back up."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        _unreadable(error)
    folders = []
    for name in names:
        path = os.path.join(folder, name)
        if name[0] in "._":
            continue
        if os.path.isdir(path):
            folders.append(path)
        else:
            yield path
    for path in folders:
        yield from _walk(path, above | {here})


def _unreadable(error: OSError) -> NoReturn:
    raise NotFoundError(f"{error.filename}: cannot be listed ({error.strerror}).")


def _pin(path: str) -> tuple[int, Input]:
    try:
        status = os.stat(path)
        readable = os.access(path, os.R_OK)
    except OSError as error:
        raise NotFoundError(f"{path}: cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path}: not a regular file, so it cannot be read again after a crash.")
    if not readable:
        raise NotFoundError(f"{path}: cannot be read (Permission denied).")
    return status.st_dev, Input(path, (status.st_size, status.st_mtime_ns, status.st_ino))


def plan(inputs: list[Input], job: Job, workers: int) -> tuple[Split, ...]:
    """The splits of a job, in the order of its inputs. Empty files have none."""
    if job.records == "files":
        return tuple((i.path, 0, i.size, i.identity) for i in inputs)
    total = sum(i.size for i in inputs)
    wanted = NATIVE_SPLIT_BYTES if job.native else job.split_bytes
    step = max(SPLIT_BYTES_MIN, min(wanted, -(-total // (SPLITS_PER_WORKER * max(workers, 1)))))
    cut = tuple(
        (i.path, start, min(start + step, i.size), i.identity)
        for i in inputs
        for start in range(0, i.size, step)
    )
    if len(cut) > SPLITS_MAX:
        raise UsageError(f"{len(cut)} splits are more than {SPLITS_MAX}: run it in several jobs.")
    return cut
