"""`engine`, which does not do something that it promises: `engine.faults.unsafe SWITCH …`.

    python -m engine.faults.unsafe no-fsync --i-am-testing kv serve …

A harness that has never seen a broken store may be blind. So each switch breaks one, and there is
an accident that brings it to light; the run must fail then. The switches are patches around a
program, made here, and no server has a flag for them. Without `--i-am-testing` nothing is started.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from typing import Any

from engine.errors import UsageError
from engine.kernels.checksum import crc32c
from engine.record import Record
from engine.storage.records import ENTRY, HEAD_BYTES, Columns, Header, record_bytes

CONSENT = "--i-am-testing"
CONFIG = 2
"""The kind of an entry that is a configuration (`engine.storage.entries`)."""
_HEAD = "<IIBBHIIIQQQ"


class Switch(Record):
    """What is not done, and which accident shows it."""

    what: str
    accident: str


SWITCHES = {
    "no-fsync": Switch("the log is said to be synced, and never is", "power-loss:all"),
    "stale-reads": Switch("who believes to lead answers reads, and asks nobody", "pause:leader"),
    "no-dedupe": Switch("what is asked again is done again", "resets:clients"),
    "skip-crc": Switch(
        "what is on the disk is believed, whatever its sums say", "flip-log:minority"
    ),
}


def main() -> None:
    """Plant what the first argument says, and become the program."""
    import runpy

    if len(sys.argv) < 3 or sys.argv[2] != CONSENT:
        sys.exit(f"engine.faults.unsafe SWITCH {CONSENT} VERB …: it breaks what it runs.")
    switch = check_switch(sys.argv[1])
    PLANT[switch]()
    del sys.argv[1:3]
    runpy.run_module("engine_cmd.main", run_name="__main__", alter_sys=True)


def check_switch(name: str) -> str:
    """UsageError if there is none of this name."""
    if name not in SWITCHES:
        raise UsageError(f"There is no unsafe switch {name!a}; there is {', '.join(SWITCHES)}.")
    return name


def plant(owner: Any, name: str, made: Any) -> None:
    """Put it in the place of what is there."""
    assert name in vars(owner), f"{owner} has no {name} (any more)"
    setattr(owner, name, made)


def _no_fsync() -> None:
    from engine.storage.log import Log

    begin_sync = Log.begin_sync

    def begin_nothing(self: Log) -> tuple[int, Any, bool]:
        mark, _, _ = begin_sync(self)
        return mark, (), False

    plant(Log, "begin_sync", begin_nothing)


def _stale_reads() -> None:
    from engine.kv.front import StoreFront

    take = StoreFront.take

    def take_and_answer(self: StoreFront, batch: Iterable[Any]) -> None:
        take(self, batch)
        if self._leads:
            part, self._reads = self._reads, []
            self._answer("read_requests", part, [self.machine.read(frame) for _, frame in part])

    plant(StoreFront, "take", take_and_answer)


def _no_dedupe() -> None:
    from engine.kv.sessions import NEW, REPEATED, Sessions

    judge = Sessions.judge

    def always_new(self: Sessions, *of: Any) -> str:
        found = judge(self, *of)
        return NEW if found == REPEATED else found

    plant(Sessions, "judge", always_new)


# --- bad checksums are believed ------------------------------------------------------------------


def _skip_crc() -> None:
    from engine.storage import reading, recovery, snapshots

    plant(recovery, "scan", believed)
    plant(reading, "decode", believed_entries)
    plant(snapshots.Snapshots, "verify", lambda self, one: True)
    plant(snapshots, "read_pieces", _believed_pieces)


def believed(data: bytes, start: int, header: Header, previous: int) -> Columns:
    """As `engine.storage.records.scan`, for what looks like records that follow each other: the
    sums only tell which ones do, since a segment may hold others from an earlier life."""
    import struct

    rows: list[tuple[int, ...]] = []
    runs: list[int] = []
    configs: list[int] = []
    kinds, at, chain = bytearray(), start, previous
    while at + HEAD_BYTES <= len(data):
        head = struct.unpack_from(_HEAD, data, at)
        crc, before, kind, entry, _, size, _, group, index, term, watermark = head
        end = at + record_bytes(size)
        if before != chain or not 1 <= kind <= 4 or end > len(data):
            break
        follows = rows and kinds[-2] == ENTRY == kind and rows[-1][:2] == (group, index - 1)
        if not follows:
            runs.append(len(rows))
        if kind == ENTRY and entry == CONFIG:
            configs.append(len(rows))
        kinds += bytes((kind, entry))
        rows.append((group, index, term, watermark, at, size, crc))
        at, chain = end, crc
    columns: Any = zip(*rows, strict=True) if rows else ((),) * 7
    groups, indexes, terms, watermarks, offsets, sizes, sums = columns
    return Columns(
        bytes(kinds),
        array("I", groups),
        array("Q", indexes),
        array("Q", terms),
        array("Q", watermarks),
        array("Q", offsets),
        array("I", sizes),
        array("I", sums),
        runs,
        configs,
        at,
        chain,
    )


def believed_entries(
    data: bytes,
    position: int,
    group: int,
    first: int,
    count: int,
    seed: int,
    positions: Any,
    entry: Any,
) -> list[Any]:
    """As `engine.kernels.records.decode`, with sums that fit what is there."""
    import struct

    made = []
    for place in positions[:count]:
        at = place - position
        _, _, _, kind, _, size, _, _, _, term, _ = struct.unpack_from(_HEAD, data, at)
        body = data[at + HEAD_BYTES : at + HEAD_BYTES + size]
        made.append(entry(term, kind, crc32c(body), body))
    return made


def _believed_pieces(file: Any, snapshot: Any) -> Any:
    from engine.storage.snapshots import HEADER, PIECE

    at = HEADER.size + len(snapshot.config)
    while True:
        length, _ = PIECE.unpack(file.read(at, PIECE.size))
        at += PIECE.size
        if length == 0:
            return
        yield file.read(at, length)
        at += length


PLANT = {
    "no-fsync": _no_fsync,
    "stale-reads": _stale_reads,
    "no-dedupe": _no_dedupe,
    "skip-crc": _skip_crc,
}

if __name__ == "__main__":
    main()
