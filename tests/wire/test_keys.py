"""Token files, and proofs of knowing what is in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import NotFoundError, RefusedError
from engine.wire.keys import make_token, proof, proves, read_token


def test_a_token_is_made_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "token"
    old = os.umask(0)
    try:
        token = make_token(str(path))
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_token(str(path)) == token
    assert len(bytes.fromhex(token)) == 32
    with pytest.raises(RefusedError, match="never overwritten"):
        make_token(str(path))
    assert read_token(str(path)) == token


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    make_token(str(path))
    path.chmod(mode)
    with pytest.raises(RefusedError, match=r"run chmod 600"):
        read_token(str(path))


@pytest.mark.parametrize("text", ["", "ab", "g" * 64, "ab" * 31, "ab" * 33, "é" * 64])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(text, "utf-8")
    with pytest.raises(RefusedError, match="64 hex digits"):
        read_token(str(path))


def test_what_is_no_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no token file"):
        read_token(str(tmp_path / "none"))


def test_a_proof_depends_on_everything_in_it() -> None:
    token, other = "ab" * 32, "cd" * 32
    said = proof(token, "dialer", b"a" * 16, b"b" * 16)
    assert proves(said, proof(token, "dialer", b"a" * 16, b"b" * 16))
    for different in (
        proof(other, "dialer", b"a" * 16, b"b" * 16),
        proof(token, "listener", b"a" * 16, b"b" * 16),
        proof(token, "dialer", b"x" * 16, b"b" * 16),
        proof(token, "dialer", b"a" * 16, b"x" * 16),
        b"",
    ):
        assert not proves(different, said)
    assert bytes.fromhex(token) not in said
