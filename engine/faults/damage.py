"""Damage to the files of a replica that is not running: bits of its log or its snapshots."""

from __future__ import annotations

from pathlib import Path
from random import Random

from engine.storage.records import HEADER_BYTES, numbered


def flip_log(home: Path, rng: Random) -> list[str]:
    """A bit of what the log has written; where that is. Nothing if it has written nothing."""
    written: list[tuple[Path, int]] = []
    for path in sorted((home / "log").iterdir()):
        if numbered(path.name) is not None:
            used = len(path.read_bytes()[:-HEADER_BYTES].rstrip(b"\0"))
            if used > HEADER_BYTES:
                written.append((path, used))
    if not written:
        return []
    path, used = rng.choices(written, [used for _, used in written])[0]
    return [_flip(path, rng.randrange(HEADER_BYTES, used), rng)]


def flip_snapshots(home: Path, rng: Random) -> list[str]:
    """A bit of the newest snapshot, and now and then one of the other; where that is."""
    whole = [path for path in (home / "log").glob("snapshot-*") if not path.suffix]
    newest = sorted(whole, reverse=True)[: rng.choice((1, 1, 2))]
    return [_flip(path, rng.randrange(path.stat().st_size), rng) for path in newest]


def _flip(path: Path, offset: int, rng: Random) -> str:
    bit = rng.randrange(8)
    with open(path, "r+b") as file:
        file.seek(offset)
        was = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([was ^ 1 << bit]))
    return f"bit {bit} of byte {offset} of {path.parent.parent.name}/{path.name}"
