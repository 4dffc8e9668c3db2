"""Files of keys and lists of whom they let in: what is taken, and what is refused."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from keyrings import People

from engine.errors import NotFoundError, RefusedError, UsageError
from engine.wire import curve
from engine.wire.curve import Allowed, AllowList, Keyring, Malformed, parse_allowed, parse_key

A, B = "ab" * 32, "cd" * 32


@pytest.fixture
def people(tmp_path: Path) -> People:
    found = People(tmp_path)
    found.make("n1", "n2")
    found.allow("n1", n1="replica")
    return found


def test_a_list_is_read_as_it_is_written() -> None:
    text = f"# people\n\nreplica {A} n1 member=7 at=10.0.0.1 at=n1.example:70\nclient {B} bob\n"
    found = parse_allowed(text)
    assert found == {
        A: Allowed("replica", A, "n1", 7, ("10.0.0.1", "n1.example:70")),
        B: Allowed("client", B, "bob"),
    }
    assert parse_allowed("".join(f"{one}\n" for one in found.values())) == found


@pytest.mark.parametrize(
    "line",
    [
        "replica", f"replica {A}", f"king {A} n1", f"replica {A[1:]} n1", f"replica {A.upper()} n1",
        f"replica {A} n/1", f"replica  {A} n1", f" replica {A} n1", f"replica {A} n1 member=x",
        f"replica {A} n1 member={1 << 64}", f"replica {A} n1 at=", f"replica {A} n1 more",
        f"replica {A} n1 ", f"client {B} bob", "\x00", f"replica {A} n1 member=-1",
    ],
)  # fmt: skip
def test_a_line_that_is_none_spoils_the_list(line: str) -> None:
    """Half a list would be another one than its author meant."""
    with pytest.raises(Malformed):
        parse_allowed(f"client {B} bob\n{line}\n")


def test_key_files_are_one_line() -> None:
    line = curve.key_line("public", "n1", A).decode()
    assert parse_key(line, "public") == ("n1", A)
    for wrong in ("", line + line, line[:-2], line.replace("1", "2"), f"engine-public 1 n1 {A}z"):
        with pytest.raises(Malformed):
            parse_key(wrong, "public")
    with pytest.raises(Malformed):
        parse_key(line, "secret")


def test_names_are_plain() -> None:
    for name in ("", ".", "..", "../x", "a b", "a" * 65, "ä", "a\n", "/x", ".hidden"):
        with pytest.raises(UsageError, match="no name for a key"):
            curve.check_name(name)
    assert curve.check_name("n1.example-2_x") == "n1.example-2_x"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_a_secret_that_others_can_open_is_refused(people: People, mode: int) -> None:
    (people.folder / "n1" / "n1.secret").chmod(mode)
    with pytest.raises(RefusedError, match=r"n1\.secret is open to other users: run chmod 600"):
        people.ring("n1")


@pytest.mark.parametrize("name", ["n1.public", "allowed"])
def test_what_others_can_write_is_refused(people: People, name: str) -> None:
    path = people.folder / "n1" / name
    path.chmod(0o644)
    people.ring("n1")
    for mode in (0o664, 0o646):
        path.chmod(mode)
        with pytest.raises(RefusedError, match="open to other users: run chmod 644"):
            people.ring("n1")


def test_a_folder_that_others_can_enter_is_refused(people: People) -> None:
    (people.folder / "n1").chmod(0o755)
    with pytest.raises(RefusedError, match="open to other users: run chmod 700"):
        people.ring("n1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_keys_of_another_user_are_refused(people: People) -> None:
    for path in (people.folder / "n1" / "n1.secret", people.folder / "n1"):
        os.chown(path, 12345, 12345)
        with pytest.raises(RefusedError, match="another user"):
            people.ring("n1")
        os.chown(path, 0, 0)


def test_a_secret_behind_a_link_is_refused(people: People) -> None:
    secret = people.folder / "n1" / "n1.secret"
    secret.rename(people.folder / "elsewhere")
    secret.symlink_to(people.folder / "elsewhere")
    with pytest.raises(RefusedError, match="cannot be read"):
        people.ring("n1")


def test_what_is_missing_is_said(people: People, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no folder of keys"):
        Keyring(str(tmp_path / "none" / "x"))
    (people.folder / "n2" / "allowed").unlink()
    with pytest.raises(NotFoundError, match="allowed"):
        people.ring("n2")
    (people.folder / "n2" / "n2.secret").unlink()
    with pytest.raises(NotFoundError, match="no secret key"):
        people.ring("n2")
    for end in ("secret", "public"):
        path = people.folder / "n1" / f"n1.{end}"
        good = path.read_bytes()
        path.write_bytes(b"nonsense\n")
        with pytest.raises(RefusedError, match=f"is no {end} key"):
            people.ring("n1")
        path.write_bytes(good)


def test_of_several_keys_one_is_named(people: People) -> None:
    for end in ("secret", "public"):
        (people.folder / "n2" / f"n2.{end}").rename(people.folder / "n1" / f"n2.{end}")
    with pytest.raises(UsageError, match="say which"):
        people.ring("n1")
    assert Keyring(people.path("n1") + "/n2").public == people.public["n2"]
    assert Keyring(people.path("n1") + "/n1").public == people.public["n1"]


def test_a_list_is_read_again_when_it_has_changed(people: People) -> None:
    known = AllowList(people.path("n1"))
    assert not known.fresh()
    people.allow("n1", n2="client")
    assert known.fresh()
    assert known.find(people.public["n2"]) is not None
    people.write("n1", "nonsense\n")
    assert known.fresh()
    assert "line 1" in known.broken
    people.allow("n1", n2="revoked")
    assert known.fresh()
    assert known.broken == ""
    found = known.find(people.public["n2"])
    assert found is not None
    assert found.role == "revoked"


def test_nonsense_never_is_a_list_by_chance() -> None:
    """Bytes of a good list changed here and there: it is read as another one, or refused."""
    rng = random.Random(7)
    good = f"replica {A} n1 member=7 at=10.0.0.1\nclient {B} bob\n"
    refused = 0
    for _ in range(3000):
        text = list(good)
        for _ in range(rng.randint(1, 4)):
            text[rng.randrange(len(text))] = chr(rng.choice((0, 10, 32, 61, 97, 233, 0x2028)))
        try:
            found = parse_allowed("".join(text))
        except Malformed:
            refused += 1
            continue
        assert all(one.role in curve.SPEAKS and len(one.key) == 64 for one in found.values())
    assert refused > 1000
