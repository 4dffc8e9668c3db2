"""The real folder, held to the same questions as the one in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from memory import Memory

from engine.storage.directory import PIECES_MAX, Directory, Folder


@pytest.fixture(params=["real", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Directory:
    return Folder(str(tmp_path)) if request.param == "real" else Memory()


def test_files_are_written_and_read_at_offsets(folder: Directory) -> None:
    file = folder.create("a")
    assert file.size() == 0
    assert file.read(0, 10) == b""
    file.write(5, [b"one", bytearray(b"two"), memoryview(b"three")])
    file.write(0, [])
    file.write(6, [b"N"])
    file.sync()
    assert file.size() == 16
    again = folder.open("a")
    assert again.read(0, 100) == b"\0\0\0\0\0oNetwothree"
    assert again.read(8, 3) == b"two"
    assert again.read(16, 3) == b""
    file.close()
    file.close()
    again.close()


def test_more_pieces_than_one_call_takes(folder: Directory) -> None:
    pieces = [b"%06d" % at for at in range(2 * PIECES_MAX + 7)]
    file = folder.create("a")
    file.write(3, pieces)
    assert file.read(3, 1 << 20) == b"".join(pieces)
    file.close()


def test_names(folder: Directory) -> None:
    for name in ("b", "a", "c"):
        file = folder.create(name)
        file.write(0, [name.encode()])
        file.close()
    with pytest.raises(FileExistsError):
        folder.create("a")
    folder.rename("a", "c")
    folder.sync()
    assert folder.names() == ["b", "c"]
    file = folder.open("c")
    assert file.read(0, 9) == b"a"
    file.close()
    folder.remove("b")
    for missing in (folder.open, folder.remove):
        with pytest.raises(FileNotFoundError):
            missing("b")
    assert folder.names() == ["c"]


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take less than it was given."""
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, some, at: real(fd, [b"".join(some)[:4]], at))
    file = Folder(str(tmp_path)).create("a")
    file.write(2, [b"12", b"34567", b"8"])
    file.write(10, [b"9"])
    assert file.read(0, 99) == b"\0\x00123456789"
    file.close()


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    Folder(str(tmp_path)).create("a").close()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
