"""The file of users: its grammar, who is in it, and what becomes of those who look at it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_inside import Users
from support import dose

from engine.errors import NotFoundError, RefusedError, UsageError
from engine.redis import users
from engine.redis.users import UserList, made, parse_users, proven, users_of
from engine.wire.curve import Malformed

SECRET = b"correct horse battery staple"


def test_the_worked_example_is_right() -> None:
    words = str(users.__doc__).split("\n\n")
    shown = next(part for part in words if "write alice sha256:" in part)
    line = " ".join(shown.split()).replace(": ", ":")
    user = parse_users(line)["alice"]
    assert (user.role, str(user)) == ("write", line)
    assert proven(user, SECRET)
    assert not proven(user, b"incorrect horse battery staple")


@settings(max_examples=dose(60, 1000), deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_nobody_has_the_secret_but_who_has_all_of_it(secret: bytes, other: bytes) -> None:
    user = parse_users(str(made("read", "x", secret)))["x"]
    assert proven(user, secret)
    tried = {other, secret + b"\0", secret[:-1], secret[1:], secret.upper(), secret + other, b""}
    for one in tried - {secret}:
        assert not proven(user, one)
    again = made("read", "x", secret)
    assert (again.salt, again.digest) != (user.salt, user.digest)


@settings(max_examples=dose(100, 3000), deadline=None)
@given(st.data())
def test_what_is_damaged_is_refused_or_as_it_was(data: st.DataObject) -> None:
    entry = f"sha256:{'0a' * 16}:{'5e' * 32}"
    text = f"# who\nread reader {entry}\nwrite writer {entry}\n"
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(["", "\n", " ", "x", "0", "é", "#", ":"]))
    try:
        found = parse_users(text[:at] + other + text[at + 1 :])
    except Malformed:
        return
    assert all(str(user) in text[:at] + other + text[at + 1 :] for user in found.values())


@pytest.mark.parametrize(
    "text",
    ["read a", "read a sha256:00:00", "admin a sha256:{s}", "read .a sha256:{s}",
     "read a md5:{s}", "read a sha256:{s} ", "read a b sha256:{s}", "read  a sha256:{s}",
     "read " + "a" * 65 + " sha256:{s}", "read a sha256:{s}\nwrite a sha256:{s}"],
)  # fmt: skip
def test_lines_that_are_none(text: str) -> None:
    with pytest.raises(Malformed):
        parse_users(text.replace("{s}", f"{'0' * 32}:{'0' * 64}"))


def test_names_and_roles_that_are_none() -> None:
    for role, name in (("king", "a"), ("read", "a b"), ("read", ""), ("read", ".a"), ("", "a")):
        with pytest.raises(UsageError):
            made(role, name, SECRET)


def test_a_list_is_read_again(tmp_path: Path) -> None:
    given = Users(tmp_path / "keys")
    found = given.list()
    version = found.version
    found.fresh()
    assert found.version == version
    alice = found.find("alice")
    assert alice is not None
    assert found.proven("alice", given.secrets["alice"].encode()) == alice
    assert found.proven("alice", given.secrets["bob"].encode()) is None
    assert found.proven("", b"") is None
    given.remove("alice")
    found.fresh()
    assert (found.version, found.find("alice")) == (version + 1, None)
    for broken in ("nonsense", "read bob sha256:00"):
        given.write(broken)
        found.fresh()
        assert "line 1 is not ROLE NAME" in found.broken
        assert found.find("bob") is not None  # whoever is in stays
    os.unlink(given.path)
    found.fresh()
    assert "There is no" in found.broken
    given.write("# nobody\n")
    found.fresh()
    assert (found.broken, found.find("bob")) == ("", None)


def test_lists_with_which_nothing_begins(tmp_path: Path) -> None:
    given = Users(tmp_path / "keys")
    os.chmod(given.path, 0o640)
    with pytest.raises(RefusedError, match="run chmod 600"):
        given.list()
    for text, why in (("# nobody\n", "has no users"), ("", "has no users"), ("x\n", "line 1")):
        given.write(text)
        with pytest.raises(RefusedError, match=why):
            given.list()
    os.unlink(given.path)
    with pytest.raises(NotFoundError):
        given.list()
    os.chmod(given.folder, 0o750)
    with pytest.raises(RefusedError, match="chmod 700"):
        given.list()
    with pytest.raises(NotFoundError):
        UserList(str(tmp_path / "none"))


def test_a_token_file_has_no_users(tmp_path: Path) -> None:
    given = Users(tmp_path / "keys")
    token = tmp_path / "keys" / "token"
    token.touch(0o600)
    assert users_of(None) is None
    assert users_of(str(token)) is None
    assert users_of(given.folder) is not None
    (tmp_path / "keys" / "n1.secret").touch(0o600)
    assert users_of(f"{given.folder}/n1") is not None
    os.unlink(given.path)
    assert users_of(given.folder) is None
