"""`engine keys user`, as somebody would run it who lets Redis clients in."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import Ran

from engine.redis.users import UserList, parse_users
from engine_cmd.main import main

LONG = "correct horse battery staple"


@pytest.fixture
def home(tmp_path: Path) -> str:
    (tmp_path / "keys").mkdir(0o700)
    return str(tmp_path / "keys")


class Keys:
    """Runs the verbs; `said` is what comes on stdin."""

    def __init__(
        self, home: str, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
    ) -> None:
        self.home, self._capsys, self._patch = home, capsys, patch

    def __call__(self, *arguments: str, said: bytes = b"") -> Ran:
        self._patch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(said)))
        code = main(["keys", "user", *arguments, "--dir", self.home])
        return Ran(code, *self._capsys.readouterr())


@pytest.fixture
def keys(home: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Keys:
    return Keys(home, capsys, monkeypatch)


def test_a_secret_is_drawn_and_said_once(keys: Keys) -> None:
    drawn = keys("add", "alice", "--role", "write")
    secret = drawn.out.removesuffix("\n")
    assert (drawn.code, drawn.err, len(secret)) == (0, "", 32)
    path = f"{keys.home}/users"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    found = UserList(keys.home)
    assert found.proven("alice", secret.encode()) is not None
    again = keys("add", "alice", "--role", "read")
    assert (again.code, "There is a user alice already" in again.err) == (6, True)
    other = json.loads(keys("add", "carol", "--role", "read", "--json").out)
    assert (other["name"], other["role"], other["error"]) == ("carol", "read", None)
    assert other["secret"] != secret
    listed = keys("list")
    assert listed.out == "write alice\nread carol\n"
    assert json.loads(keys("list", "--json").out)["users"] == [
        {"name": "alice", "role": "write"}, {"name": "carol", "role": "read"},
    ]  # fmt: skip
    assert keys("remove", "alice") == (0, "", "")
    gone = keys("remove", "alice")
    assert (gone.code, "There is no user 'alice'" in gone.err) == (3, True)
    text = Path(path).read_text()
    assert not [one for one in (secret, other["secret"]) if one in text + listed.out]
    assert list(parse_users(text)) == ["carol"]


def test_a_secret_may_be_brought(keys: Keys) -> None:
    for said in (LONG, f"{LONG}\n", f"{LONG}\r\n", "пароль-пароль-пароль"):
        ran = keys("add", "bob", "--role", "read", "--password", "-", said=said.encode())
        assert ran == (0, "", "")
        found = UserList(keys.home)
        assert found.proven("bob", said.strip().encode()) is not None
        assert keys("remove", "bob").code == 0
    told = keys("add", "bob", "--role", "read", "--password", "-", "--json", said=LONG.encode())
    assert "secret" not in json.loads(told.out)


def test_remarks_stay_and_what_is_broken_is_not_written_over(keys: Keys) -> None:
    assert keys("add", "alice", "--role", "write").code == 0
    path = Path(keys.home, "users")
    text = path.read_text() + "# the night shift\n\n"
    path.write_text(text)
    assert keys("add", "bob", "--role", "read").code == 0
    assert keys("remove", "bob").code == 0
    assert path.read_text() == text
    path.write_text("nonsense\n")
    ran = keys("add", "bob", "--role", "read")
    assert (ran.code, "line 1 is not ROLE NAME" in ran.err) == (6, True)
    assert path.read_text() == "nonsense\n"
    os.chmod(path, 0o644)
    ran = keys("list")
    assert (ran.code, "is open to other users: run chmod 600" in ran.err) == (6, True)


@pytest.mark.parametrize(
    ("arguments", "said", "code", "told"),
    [
        (("add", "x", "--role", "king"), b"", 2, "no role 'king' for users; there is read and w"),
        (("add", "a b", "--role", "read"), b"", 2, "no name"),
        (("add", "x", "--role", "read", "--password", "-"), b"fifteen letters", 2, "16 characters"),
        (("add", "x", "--role", "read", "--password", "-"), b"\xff" * 20, 2, "no text in UTF-8"),
        (("add", "x", "--role", "read", "--password", "-"), b"a" * 16 + b"\nb", 2, "not one line"),
        (("add", "x", "--role", "read", "--password", "-"), b"a" * 5000, 2, "at most 4096 bytes"),
        (
            ("add", "x", "--role", "read", "--password", "hush-hush-hush-hush"),
            b"",
            2,
            "is never an",
        ),
        (("remove", "x"), b"", 3, "There is no user 'x'"),
        (("rename", "x"), b"", 2, "there is add, remove, list"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence(
    keys: Keys, arguments: tuple[str, ...], said: bytes, code: int, told: str
) -> None:
    ran = keys(*arguments, said=said)
    assert (ran.code, ran.out, told in ran.err) == (code, "", True)
    assert ran.err.count("\n") == 1
    assert "hush-hush" not in ran.err
    assert not os.path.lexists(f"{keys.home}/users")


def test_there_has_to_be_a_folder(keys: Keys) -> None:
    keys.home += "/none"
    for words in (("add", "x", "--role", "read"), ("remove", "x"), ("list",)):
        ran = keys(*words)
        assert (ran.code, "There is no folder of keys" in ran.err) == (3, True)
