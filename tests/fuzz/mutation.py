"""Bytes made of other bytes, by a seed that the commit determines: no two commits try the same.

A find is shown as hex, and belongs into `corpus/` as a file, where every later run begins with it.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
ODD = (
    bytes(4), b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7),
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc0",
    b"\xcb\x7f\xf8" + bytes(6), b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xd4\x01\x00",
    b"\x91" * 100, b"\x81\xa1a\x01", b"\xc3", b"\xa1\xff", b"\x80\x04\x95",
)  # fmt: skip
"""Ends of ranges, msgpack's headers that promise much, what it has besides, and a pickle."""


@cache
def commit() -> bytes:
    """What the seeds are derived from; without git, from the corpus."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=FOLDER, capture_output=True, check=False)
    return git.stdout or b"".join(path.read_bytes() for path in sorted(CORPUS.rglob("*.bin")))


def corpus(name: str) -> dict[str, bytes]:
    """Good ones, and what was found before, by name."""
    found = {path.stem: path.read_bytes() for path in sorted((CORPUS / name).glob("*.bin"))}
    assert found, f"{CORPUS}/{name} is empty: python {FOLDER}/seeds.py"
    return found


def mutated(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """A few changes, of all kinds."""
    made = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at, kind = rng.randrange(len(made) + 1), rng.randrange(8)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(made):
            made[at] = rng.randrange(256)
        elif kind == 2:
            made[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 3:
            del made[at : at + rng.randrange(1, 17)]
        elif kind == 4:
            odd = rng.choice(ODD)
            made[at : at + rng.choice((0, len(odd)))] = odd
        elif kind == 5:
            del made[at:]
        elif kind == 6:
            other = rng.choice(others)
            begin = rng.randrange(len(other) + 1)
            made[at:at] = other[begin : begin + rng.randrange(1, 65)]
        else:
            made[at:at] = made[: rng.randrange(1, 33)]
    return bytes(made)


def fuzz(
    name: str,
    target: Callable[[bytes], object],
    refusals: tuple[type[Exception], ...],
    rounds: int,
    *,
    sealed: Callable[[bytes], bytes] = bytes,
) -> int:
    """How many were refused. The test fails for whatever else the target raises. `sealed` makes
    checksums fit again, so that what lies behind them is reached."""
    good = list(corpus(name).values())
    base = blake2b(commit() + name.encode(), digest_size=8).hexdigest()
    refused = 0
    for number in range(rounds):
        rng = random.Random(f"{base}/{number}")
        data = good[number] if number < len(good) else mutated(rng, rng.choice(good), good)
        if number >= len(good) and rng.randrange(2):
            data = sealed(data)
        try:
            target(data)
        except refusals:
            refused += 1
        except Exception as error:
            pytest.fail(f"{name}: {error!r} for {data.hex()}")
    return refused
