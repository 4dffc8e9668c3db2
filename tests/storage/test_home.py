"""A member's folder: made once, held by one process, and what is said when it is not one."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from engine.errors import NotFoundError, RefusedError, UsageError
from engine.storage.home import MEMBER_BITS, Home, make, member_of


def test_the_documented_example(tmp_path: Path) -> None:
    (tmp_path / "member").write_text('{"version": 1, "member": 2871983405}\n')
    assert member_of(str(tmp_path)) == 2871983405


def test_made_once(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    number = make(str(path))
    assert 0 < number < 1 << MEMBER_BITS
    assert json.loads((path / "member").read_text()) == {"version": 1, "member": number}
    assert make(str(path)) == number
    assert sorted(os.listdir(path)) == ["log", "member"]
    for name in ("", "log"):
        assert stat.S_IMODE((path / name).stat().st_mode) == 0o700
    assert stat.S_IMODE((path / "member").stat().st_mode) == 0o600


def test_numbers_are_drawn(tmp_path: Path) -> None:
    assert len({make(str(tmp_path / str(number))) for number in range(50)}) == 50


def test_a_folder_that_was_begun_is_finished(tmp_path: Path) -> None:
    """A crash may leave `log` and no number, or a file of a private name."""
    path = tmp_path / "m"
    (path / "log").mkdir(parents=True)
    (path / "lock").touch()
    (path / ".member.17.0a0b").write_text("half")
    number = make(str(path))
    assert member_of(str(path)) == number
    assert sorted(os.listdir(path)) == ["lock", "log", "member"]


def test_somebody_else_s_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RefusedError, match="is not empty: name a new folder"):
        make(str(tmp_path))
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made"):
        make(str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot be made"):
        make(str(tmp_path / "file" / "below"))


def test_nobody_s_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotFoundError, match="is no member's folder: make one with `init`"):
            Home(str(path))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"version": 1}', '{"member": 3}', '{"version": 1, "member"', "null"],
)
def test_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "member").write_text(text)
    with pytest.raises(RefusedError, match="does not say whose folder this is: it is damaged"):
        member_of(str(tmp_path))


@pytest.mark.parametrize(
    "found",
    [
        {"version": 2, "member": 3},
        {"version": "1", "member": 3},
        {"version": 1, "member": 0},
        {"version": 1, "member": -3},
        {"version": 1, "member": "3"},
        {"version": 1, "member": 1.5},
        {"version": 1, "member": True},
    ],
    ids=str,
)
def test_another_version(tmp_path: Path, found: dict[str, object]) -> None:
    (tmp_path / "member").write_text(json.dumps(found))
    with pytest.raises(RefusedError, match="is of version"):
        member_of(str(tmp_path))


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "member").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        member_of(str(tmp_path))


def test_held_by_one_process(tmp_path: Path) -> None:
    number = make(str(tmp_path))
    home = Home(str(tmp_path))
    try:
        assert home.member == number
        assert home.log.names() == []
        with pytest.raises(RefusedError, match=f"is in use by process {os.getpid()}"):
            Home(str(tmp_path))
    finally:
        home.close()
    Home(str(tmp_path)).close()
