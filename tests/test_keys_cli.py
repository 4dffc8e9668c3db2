"""`engine keys`, as a user would run it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from support import Ran

from engine_cmd.main import main


def keys(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    code = main(["keys", *arguments])
    out, err = capsys.readouterr()
    return Ran(code, out, err)


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder of keys of n1, beside which bob.public lies."""
    assert keys(capsys, "new", "n1", "--dir", str(tmp_path / "keys")).code == 0
    assert keys(capsys, "new", "bob", "--dir", str(tmp_path / "bob")).code == 0
    os.rename(tmp_path / "bob" / "bob.public", tmp_path / "bob.public")
    return tmp_path / "keys"


def test_new_keys_are_private(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()}
    assert modes["n1.secret"] == modes["allowed"] == 0o600
    assert modes["n1.public"] & 0o022 == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    secret = (home / "n1.secret").read_text().split()[3]
    made = keys(capsys, "new", "n2", "--dir", str(home), "--json")
    assert json.loads(made.out)["file"] == str(home / "n2.public")
    for again in ("n1", "n2"):
        ran = keys(capsys, "new", again, "--dir", str(home))
        assert (ran.code, "never overwritten" in ran.err) == (6, True)
    assert (home / "n1.secret").read_text().split()[3] == secret
    assert secret not in made.out + made.err


def test_allow_revoke_and_list(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bob = str(home.parent / "bob.public")
    with open(home / "allowed", "a") as file:
        file.write("# a remark\n")
    n1 = ("allow", str(home), str(home / "n1.public"), "--role", "replica", "--member", "7",
          "--at", "10.0.0.1", "--at", "n1:70")  # fmt: skip
    assert keys(capsys, *n1).code == 0
    assert keys(capsys, "allow", str(home), bob, "--role", "client").code == 0
    assert keys(capsys, "allow", str(home), bob, "--role", "admin").code == 0
    text = (home / "allowed").read_text()
    assert "# a remark" in text
    listed = keys(capsys, "list", str(home)).out.splitlines()
    assert [line.split()[0::2] for line in listed] == [
        ["replica", "n1", "at=10.0.0.1"], ["admin", "bob"],
    ]  # fmt: skip
    rows = json.loads(keys(capsys, "list", str(home), "--json").out)["allowed"]
    assert [(r["role"], r["name"], r["member"], r["at"]) for r in rows] == [
        ("replica", "n1", 7, ["10.0.0.1", "n1:70"]), ("admin", "bob", 0, []),
    ]  # fmt: skip
    assert keys(capsys, "revoke", str(home), "bob").code == 0
    assert "revoked" in keys(capsys, "list", str(home)).out
    again = keys(capsys, "allow", str(home), bob, "--role", "client")
    assert (again.code, "was revoked: make another one" in again.err) == (6, True)
    twice = keys(capsys, "revoke", str(home), "bob")
    assert (twice.code, "No key that is allowed" in twice.err) == (3, True)
    assert keys(capsys, "revoke", str(home), str(home / "n1.public")).code == 0


def test_a_key_may_be_given_by_its_digits(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = (home.parent / "bob.public").read_text().split()[3]
    ran = keys(capsys, "allow", str(home), digits, "--role", "client", "--name", "robert", "--json")
    assert json.loads(ran.out)["name"] == "robert"
    other = (home / "n1.public").read_text().split()[3]
    taken = keys(capsys, "allow", str(home), other, "--role", "client", "--name", "robert")
    assert (taken.code, "Another key has the name robert" in taken.err) == (6, True)
    assert keys(capsys, "revoke", str(home), digits).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("new", "../x", "--dir", "{home}"), 2, "no name for a key"),
        (("new", "x", "--dir", "{home}/n1.public"), 6, "cannot be made"),
        (("allow", "{home}", "{home}/none", "--role", "client"), 3, "There is no"),
        (("allow", "{home}", "{home}/n1.secret", "--role", "client"), 2, "is no public key"),
        (("allow", "{home}", "{home}/n1.public", "--role", "king"), 2, "no role 'king'"),
        (("allow", "{home}", "{home}/n1.public", "--role", "client", "--member", "3"), 2, "Only"),
        (("allow", "{home}", "{home}/n1.public", "--role", "replica", "--at", "a b"), 2, "HOST"),
        (("allow", "{home}/none", "{home}/n1.public", "--role", "client"), 3, "no folder of keys"),
        (("revoke", "{home}", "nobody"), 3, "No key that is allowed"),
        (("list", "{home}/none"), 3, "no folder of keys"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    ran = keys(capsys, *(one.format(home=home) for one in arguments))
    assert (ran.code, said in ran.err) == (code, True)
    assert "Traceback" not in ran.err
    secret = (home / "n1.secret").read_text().split()[3]
    assert secret not in ran.err + ran.out


def test_a_list_that_is_broken_is_not_written_over(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "allowed").write_text("nonsense\n")
    ran = keys(capsys, "allow", str(home), str(home / "n1.public"), "--role", "client")
    assert (ran.code, "line 1 is not ROLE KEY NAME" in ran.err) == (6, True)
    assert (home / "allowed").read_text() == "nonsense\n"
