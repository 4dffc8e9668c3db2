"""Inputs are found, pinned and cut so that every byte is in one split."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import JobFailed, NotFoundError, UsageError
from engine.mapreduce import Job, splits


class Lines(Job):
    pass


class Native(Job):
    native = "words"


class Files(Job):
    records = "files"


def test_directories_are_sorted_and_hidden_files_left_out(tmp_path):
    for name in ("b.txt", "a.txt", ".hidden", "_SOURCE.json", "deep/c.txt", ".git/d.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    found = splits.scan([str(tmp_path)])
    assert [os.path.relpath(entry.path, tmp_path) for entry in found] == [
        "a.txt",
        "b.txt",
        "deep/c.txt",
    ]
    assert found[0].size == 5


def test_links_are_followed_once_and_never_in_circles(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text("b")
    (tmp_path / "in" / "a.txt").write_text("a")
    (tmp_path / "in" / "latest").symlink_to(tmp_path / "in" / "a.txt")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "up").symlink_to(tmp_path / "in")
    found = splits.scan([str(tmp_path / "in"), str(tmp_path / "elsewhere")])
    assert [os.path.basename(entry.path) for entry in found] == ["a.txt", "b.txt"]


def test_errors_name_the_file(tmp_path):
    (tmp_path / "empty").mkdir()
    file = tmp_path / "a"
    file.write_text("x")
    os.mkfifo(tmp_path / "pipe")
    cases = [
        ([str(tmp_path / "missing")], NotFoundError, "missing"),
        ([str(tmp_path / "empty")], NotFoundError, "no files"),
        ([], UsageError, "No inputs"),
        ([str(file), str(file)], UsageError, "twice"),
        ([str(tmp_path / "pipe")], UsageError, "regular file"),
    ]
    for inputs, error, text in cases:
        with pytest.raises(error, match=text):
            splits.scan(inputs)


@given(
    st.lists(st.integers(0, 100_000_000), min_size=1, max_size=6),
    st.integers(1, 64),
    st.sampled_from([Lines, Native]),
)
def test_every_byte_is_in_one_split(sizes, workers, job):
    inputs = [splits.Input(f"/{i}", (size, 0, i)) for i, size in enumerate(sizes)]
    plan = splits.plan(inputs, job(), workers)
    for entry in inputs:
        mine = [(start, end) for path, start, end, _ in plan if path == entry.path]
        assert [start for start, _ in mine] == [0, *(end for _, end in mine)][: len(mine)]
        assert sum(end - start for start, end in mine) == entry.size
        assert all(0 < end - start <= splits.NATIVE_SPLIT_BYTES for start, end in mine)
    assert [path for path, *_ in plan] == sorted((p for p, *_ in plan), key=lambda p: int(p[1:]))


def test_small_inputs_are_cut_for_all_workers():
    plan = splits.plan([splits.Input("/a", (16 << 20, 0, 0))], Native(), workers=4)
    assert len(plan) == 4 * splits.SPLITS_PER_WORKER


def test_whole_files_stay_whole_even_when_empty():
    inputs = [splits.Input("/a", (1 << 30, 0, 0)), splits.Input("/b", (0, 0, 1))]
    assert [split[:3] for split in splits.plan(inputs, Files(), 2)] == [
        ("/a", 0, 1 << 30),
        ("/b", 0, 0),
    ]


@pytest.mark.parametrize("change", ["grow", "touch", "replace", "remove"])
def test_a_changed_input_is_noticed(tmp_path, change):
    path = tmp_path / "a.txt"
    path.write_text("before")
    identity = splits.identify(str(path))
    splits.unchanged(str(path), identity)
    if change == "grow":
        path.write_text("before and after")
    elif change == "touch":
        os.utime(path, ns=(0, identity[1] + 1))
    elif change == "replace":
        other = tmp_path / "other"
        other.write_text("before")
        os.utime(other, ns=(0, identity[1]))
        other.rename(path)
    else:
        path.unlink()
    with pytest.raises(JobFailed, match=r"a\.txt"):
        splits.unchanged(str(path), identity)
