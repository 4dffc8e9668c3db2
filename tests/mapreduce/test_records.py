"""Any cut of a file into splits gives the lines of the file, once each and in order."""

from __future__ import annotations

import itertools
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import JobFailed
from engine.mapreduce import Job, records


class Files(Job):
    records = "files"


def oracle(data: bytes) -> list[str]:
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


pieces = st.sampled_from(
    [b"\n", b"\r\n", b"a", b"word ", "é".encode(), "語".encode(), b"\xff", b"\r"]
)


@given(st.lists(pieces, max_size=40).map(b"".join), st.lists(st.integers(0, 200), max_size=6))
def test_any_cut_gives_the_same_lines(data, cuts):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        found = []
        for start, end in itertools.pairwise(bounds):
            part = records.read_records(Job(), file.name, start, end)
            for index in range(len(part)):
                offset = records.record_offset(Job(), file.name, start, end, index)
                assert offset == 0 or data[offset - 1 : offset] == b"\n"
                assert start <= offset < end
            found += part
        assert found == oracle(data)


def test_long_lines_cross_pieces_and_splits(tmp_path):
    path = tmp_path / "a"
    long = "x" * (3 * 65536 + 17)
    path.write_text(f"{long}\nshort\n{long}")
    size = path.stat().st_size
    assert records.read_records(Job(), str(path), 0, 10) == [long]
    assert records.read_records(Job(), str(path), 10, 20) == []
    assert records.read_records(Job(), str(path), 10, size) == ["short", long]


def test_whole_files_are_one_record(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one\r\ntwo\xff")
    assert records.read_records(Files(), str(path), 0, 9) == ["one\r\ntwo\ufffd"]


def test_a_line_without_end_is_an_error_not_a_memory_hole(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORD_BYTES_MAX", 1 << 20)
    path = tmp_path / "blob"
    path.write_bytes(b"x" * (3 << 20))
    with pytest.raises(JobFailed, match=r"blob.*longer than"):
        records.read_records(Job(), str(path), 0, 4096)
