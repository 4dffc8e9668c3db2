"""Positions compare as Raft compares logs; entries and their records are pure."""

from __future__ import annotations

import subprocess
import sys

from engine.storage.entries import Entry, Position


def test_positions_compare_by_term_first() -> None:
    """Section 5.4.1: the later term, and of equal terms the longer log."""
    order = [Position(0, 0), Position(1, 9), Position(2, 3), Position(2, 4), Position(3, 1)]
    assert sorted({*order}) == order
    assert max(order) == Position(3, 1)
    assert Position(2, 3) >= Position(2, 3) > Position(1, 100)


def test_an_entry_is_what_travels() -> None:
    entry = Entry(3, 1, 0, b"body")
    assert tuple(entry) == (3, 1, 0, b"body")
    assert entry.body == b"body"


def test_pure_machines_may_import_it() -> None:
    """Nothing of the operating system comes with it."""
    program = (
        "import sys; before = set(sys.modules); import engine.storage.entries;"
        "print(sorted(name for name in set(sys.modules) - before if name.startswith('engine')))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == str(
        ["engine", "engine.record", "engine.storage", "engine.storage.entries"]
    )
