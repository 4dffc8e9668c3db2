"""The journal against a list of records, with every cut and every flipped byte."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dose

from engine.errors import DamagedData, RefusedError
from engine.mapreduce.messages import OutputDropped, Published, Publishing, RunAccepted, RunDropped
from engine.storage import journal as journal_module
from engine.storage.journal import HEADER, RECORD, Journal

SOME: list[Any] = [
    RunAccepted(1, (1, 2), "run-1", 100, 7, (1, 2, 3)),
    RunDropped(1),
    RunAccepted(2, (), "ünïcode", 2**63, 2**32 - 1, ()),
    Publishing(10),
    OutputDropped(3),
    Published(10),
]

GOLDEN = (
    "454e4a4f55524e4c 01000000 00000000 00000000000000000000000000000000 72cb1d9d"
    " 03000000 01000000 2400000000000000 127f4aa2 46 9103"
    " 05000000 02000000 2400000000000000 28645872 42 91cd1000"
)
"""Version 1: a journal with a salt of zeros that holds Published(3), RunDropped(4096)."""


def write(path: Path, groups: list[list[Any]], *, sync: bool = True) -> list[int]:
    """Write groups of records; where each record begins, and the end."""
    with Journal.create(str(path)) as journal:
        places = []
        for group in groups:
            for record in group:
                places.append(path.stat().st_size)
                journal.append([record])
            if sync:
                journal.sync()
    return [*places, path.stat().st_size]


def read(path: Path) -> list[Any]:
    journal, records = Journal.open(str(path))
    journal.close()
    return records


def test_what_is_appended_is_there_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, [SOME[:2], SOME[2:3]])
    journal, records = Journal.open(str(path))
    assert records == SOME[:3]
    size = path.stat().st_size
    assert journal.append(SOME[3:]) == path.stat().st_size - size
    assert journal.append([]) == 0
    journal.sync()
    journal.close()
    journal.close()
    assert read(path) == SOME
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, [SOME])
    with pytest.raises(FileExistsError):
        Journal.create(str(path))
    with pytest.raises(FileNotFoundError):
        Journal.open(str(tmp_path / "none"))
    assert read(path) == SOME


def test_the_golden_file_of_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    path.write_bytes(bytes.fromhex(GOLDEN))
    assert read(path) == [Published(3), RunDropped(4096)]
    monkeypatch.setattr(os, "urandom", bytes)
    again = tmp_path / "again"
    write(again, [[Published(3), RunDropped(4096)]])
    assert again.read_bytes() == bytes.fromhex(GOLDEN)
    assert HEADER.size == 36
    assert RECORD.size + 1 == 21


def test_the_example_of_the_documentation() -> None:
    assert journal_module.__doc__
    example = journal_module.__doc__.split("field 3::")[1].strip().splitlines()[0]
    golden = bytes.fromhex(GOLDEN)
    assert golden[HEADER.size :].startswith(bytes.fromhex(example))


@pytest.mark.parametrize("sync", [True, False])
def test_a_torn_end_is_cut_off_wherever_it_is_torn(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "journal"
    places = write(path, [SOME], sync=sync)
    whole = path.read_bytes()
    near = {place + step for place in places for step in (-1, 0, 1, RECORD.size, RECORD.size + 1)}
    some = near | set(range(0, len(whole), 9))
    for length in sorted(dose(some, set(range(len(whole)))) & set(range(len(whole)))):
        path.write_bytes(whole[:length])
        kept = max(0, sum(place <= length for place in places) - 1)
        assert read(path) == SOME[:kept]
        assert path.stat().st_size == max(HEADER.size, places[kept] if places else 0)
        journal, records = Journal.open(str(path))
        journal.append([Published(99)])
        journal.close()
        assert read(path) == [*records, Published(99)]


def test_a_torn_batch_may_lack_its_beginning(tmp_path: Path) -> None:
    """Nothing was promised of it, so a hole in it is no damage."""
    path = tmp_path / "journal"
    with Journal.create(str(path)) as journal:
        journal.append(SOME[:2])
        journal.sync()
        first = path.stat().st_size
        journal.append(SOME[2:4])
        journal.append(SOME[4:])
    data = bytearray(path.read_bytes())
    data[first : first + 30] = bytes(30)
    path.write_bytes(data)
    assert read(path) == SOME[:2]
    assert path.stat().st_size == first


def test_every_flipped_bit_of_what_was_promised_is_found(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    places = write(path, [SOME[:3], SOME[3:5], SOME[5:]])
    whole = path.read_bytes()
    promised = places[5]  # the last record says that all before its own group was durable
    rng = random.Random(4)
    for place in range(HEADER.size, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        if place < promised:
            with pytest.raises(DamagedData) as caught:
                read(path)
            assert caught.value.offset == max(p for p in places if p <= place)
            assert path.read_bytes() == damaged, "evidence was destroyed"
        else:
            assert read(path) == SOME[:5]


def test_every_flipped_bit_of_the_header_is_found(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, [SOME])
    whole = path.read_bytes()
    for place in range(HEADER.size):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(DamagedData):
            read(path)


def test_another_version_is_refused_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    monkeypatch.setattr(journal_module, "VERSION", 2)
    write(path, [SOME])
    monkeypatch.undo()
    with pytest.raises(RefusedError, match="format 2"):
        read(path)


def test_records_of_another_journal_or_place_do_not_verify(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    places = write(one, [SOME[:2]])
    write(other, [SOME[:2]])
    mixed = one.read_bytes()[: HEADER.size] + other.read_bytes()[HEADER.size :]
    other.write_bytes(mixed)
    assert read(other) == []
    whole = one.read_bytes()
    one.write_bytes(whole + whole[places[0] : places[1]])  # the first record once more
    assert read(one) == SOME[:2]


def test_a_record_of_an_unknown_kind_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, [SOME[:1]])
    with open(path, "r+b") as file:
        data = file.read()
        salt = journal_module.crc32c(data[16:32])
        file.write(journal_module.frame(salt, 2, HEADER.size, 199, b"\x90"))
    with pytest.raises(DamagedData, match="another program"):
        read(path)


def test_no_space_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    journal = Journal.create(str(path))
    journal.append(SOME[:1])
    real, room = os.pwrite, 30

    def full(fd: int, data: Any, offset: int) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = bytes(data[: min(room, 7)])
        room -= len(part)
        return real(fd, part, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        journal.append(SOME[1:])
    monkeypatch.undo()
    held, found = Journal.open(str(path))
    held.close()
    assert found == SOME[:1], "the part of the group that had room is not there either"
    journal.append(SOME[4:])
    journal.close()
    assert read(path) == [SOME[0], *SOME[4:]]


@given(st.lists(st.lists(st.sampled_from(SOME), max_size=4), max_size=5), st.data())
@settings(max_examples=dose(60, 3000), deadline=None)
def test_a_kill_at_any_time_loses_nothing_durable(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[Any]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    durable, size, records = 0, HEADER.size, []
    with Journal.create(str(path)) as journal:
        for group in groups:
            journal.append(group)
            records += group
            if data.draw(st.booleans()):
                journal.sync()
                durable, size = len(records), path.stat().st_size
    whole = path.read_bytes()
    cut = data.draw(st.integers(size, len(whole)))
    noise = data.draw(st.binary(max_size=60))
    path.write_bytes(whole[:cut] + noise)
    found = read(path)
    assert found == records[: len(found)]
    assert len(found) >= durable
