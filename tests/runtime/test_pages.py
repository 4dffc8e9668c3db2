"""Progress pages: shared between processes, and gone with the last who uses them."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from engine.mapreduce import progress
from engine.runtime.pages import PAGE_BYTES, WORDS, Pages


def test_a_page_has_the_words_that_the_progress_page_names() -> None:
    assert WORDS == progress.WORDS


def test_what_one_writes_the_other_reads(tmp_path: Path) -> None:
    path = str(tmp_path / "pages")
    mine = Pages.create(path, 5)
    theirs = Pages.attach(path)
    assert theirs.slots == 5
    assert os.stat(path).st_mode & 0o777 == 0o600
    for slot in range(5):
        view = theirs.slot(slot)
        for word in range(WORDS):
            view[word] = 2**64 - 1 - slot * WORDS - word
    for slot in range(5):
        assert mine.read(slot) == tuple(2**64 - 1 - slot * WORDS - w for w in range(WORDS))
    for wrong in (-1, 5):
        with pytest.raises(AssertionError):
            mine.slot(wrong)


def test_its_space_is_taken_before_it_is_used(tmp_path: Path) -> None:
    """A hole would be a SIGBUS in whoever writes to it, once the disk is full."""
    path = tmp_path / "pages"
    Pages.create(str(path), 1024)
    assert path.stat().st_blocks * 512 >= 1024 * PAGE_BYTES


@pytest.mark.skipif(sys.platform == "darwin", reason="there it is written instead")
def test_a_full_disk_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    path = tmp_path / "pages"
    with pytest.raises(OSError, match="No space left") as caught:
        Pages.create(str(path), 5)
    assert caught.value.filename == str(path)
    assert not path.exists()


def test_another_process_sees_it(tmp_path: Path) -> None:
    path = str(tmp_path / "pages")
    pages = Pages.create(path, 2)
    pid = os.fork()
    if pid == 0:
        Pages.attach(path).slot(1)[3] = 77
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert pages.read(1)[3] == 77
    assert pages.read(0) == (0,) * WORDS


def test_a_view_outlives_its_pages_and_no_descriptor_is_kept(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    views = []
    for number in range(20):
        pages = Pages.create(str(tmp_path / "pages"), 1)
        views.append(pages.slot(0))
        pages.close()
        views[-1][0] = number
    assert [view[0] for view in views] == list(range(20)), "a new file is not the old one's memory"
    assert len(os.listdir("/dev/fd")) <= before + 20
    views.clear()
    assert len(os.listdir("/dev/fd")) == before


def test_what_is_not_there_cannot_be_attached(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Pages.attach(str(tmp_path / "none"))
