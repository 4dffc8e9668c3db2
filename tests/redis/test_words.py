"""What people type, globs, replies: small things, each against something slow and obvious."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dose

from engine.errors import UsageError
from engine.redis.door import beyond, parse_address
from engine.redis.lines import words
from engine.redis.replies import Problem, Simple, Text, reply
from engine.redis.scans import bounds, matches


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", []),
        (b"  \t ", []),
        (b"set a b", [b"set", b"a", b"b"]),
        (b" set  a ", [b"set", b"a"]),
        (b'set "a b" c', [b"set", b"a b", b"c"]),
        (b'"\\x41\\n\\r\\t\\b\\a\\"\\\\\\z"', [b'A\n\r\t\b\a"\\z']),
        (b"'a\\'b\\n\"'", [b"a'b\\n\""]),
        (b'x"y"', [b"xy"]),
        (b'""', [b""]),
        (b'"a', None),
        (b"'a", None),
        (b'"a"b', None),
        (b"'a'b", None),
        (b'"\\', None),
    ],
)
def test_words_of_a_line(line: bytes, expected: list[bytes] | None) -> None:
    assert words(line) == expected


@given(st.binary(max_size=30))
def test_every_line_has_words_or_none(line: bytes) -> None:
    found = words(line)
    assert found is None or all(isinstance(word, bytes) for word in found)


PIECES = [b"*", b"?", b"a", b"b", b"\\*", b"[ab]", b"[^a]", b"[a-c]", b"[b-a]", b"\\a"]
AS_REGEX = {
    b"*": b"(?s:.*)", b"?": b"(?s:.)", b"[b-a]": b"[a-b]", b"\\*": b"\\*", b"\\a": b"a",
}  # fmt: skip


@settings(max_examples=dose(300, 20_000))
@given(st.lists(st.sampled_from(PIECES), max_size=6), st.text("abcd*", max_size=6))
def test_globs(pieces: list[bytes], text: str) -> None:
    key = text.encode()
    regex = b"".join([AS_REGEX.get(piece, piece) for piece in pieces])
    pattern = b"".join(pieces)
    expected = re.fullmatch(regex, key) is not None
    assert matches(pattern, key) == expected
    start, end = bounds(pattern)
    if expected:
        assert key >= start
        assert not end or key < end


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_any_glob_ends(pattern: bytes, key: bytes) -> None:
    assert matches(pattern, key) in (True, False)
    if not set(pattern) & set(b"*?[\\"):
        assert matches(pattern, key) == (pattern == key)


def test_a_long_glob_takes_no_time() -> None:
    assert not matches(b"a*" * 200 + b"b", b"a" * 4000)


@pytest.mark.parametrize(
    ("value", "second", "third"),
    [
        (None, b"$-1\r\n", b"_\r\n"),
        (5, b":5\r\n", b":5\r\n"),
        (b"a\r\n", b"$3\r\na\r\n\r\n", b"$3\r\na\r\n\r\n"),
        (Simple("OK"), b"+OK\r\n", b"+OK\r\n"),
        (Text(b"hi"), b"$2\r\nhi\r\n", b"=6\r\ntxt:hi\r\n"),
        (Problem("ERR a\r\nb"), b"-ERR a  b\r\n", b"-ERR a  b\r\n"),
        ([1, [None]], b"*2\r\n:1\r\n*1\r\n$-1\r\n", b"*2\r\n:1\r\n*1\r\n_\r\n"),
        ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
    ],
)
def test_replies(value: Any, second: bytes, third: bytes) -> None:
    assert reply(value, False) == second
    assert reply(value, True) == third


def test_addresses() -> None:
    assert parse_address("6379") == ("127.0.0.1", 6379)
    assert parse_address("localhost:0") == ("127.0.0.1", 0)
    assert parse_address("[::1]:7") == ("::1", 7)
    for text in ("x", "70000", "127.0.0.1", "", "example.org:1", "1.2.3:4", ":\u0661"):
        with pytest.raises(UsageError):
            parse_address(text)
    for text in ("0.0.0.0:6379", "[::]:1", "10.0.0.1:5", "[fe80::1]:0"):
        assert beyond(parse_address(text)[0])
    for text in ("1", "127.9.9.9:1", "[::1]:7"):
        assert not beyond(parse_address(text)[0])
