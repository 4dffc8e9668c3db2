"""Commands as people type them: words of a line, with quotes as redis-cli has them."""

from __future__ import annotations

import re
from collections.abc import Callable

_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_PLAIN = re.compile(rb"[^\s\x00'\"]+")
_SPACE = re.compile(rb"[\s\x00]*")
_DOUBLE = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE = re.compile(rb"'((?:[^'\\]|\\'|\\(?!'))*)'", re.DOTALL)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)


def words(line: bytes) -> list[bytes] | None:
    """None if quotes are not balanced, or something follows a closing one at once."""
    found: list[bytes] = []
    at = _end(_SPACE.match(line))
    while at < len(line):
        word = b""
        while at < len(line) and not _SPACE.fullmatch(line[at : at + 1]):
            if line[at : at + 1] == b'"':
                match = _DOUBLE.match(line, at)
                read: Callable[[bytes], bytes] = _unescaped
            elif line[at : at + 1] == b"'":
                match, read = _SINGLE.match(line, at), _unquoted
            else:
                match, read = _PLAIN.match(line, at), _plain
            if match is None:
                return None
            at = match.end()
            word += read(match.group(match.re.groups))
            if read is not _plain and at < len(line) and not _SPACE.fullmatch(line[at : at + 1]):
                return None
        found.append(word)
        at = _end(_SPACE.match(line, at))
    return found


def _end(match: re.Match[bytes] | None) -> int:
    assert match is not None
    return match.end()


def _plain(text: bytes) -> bytes:
    return text


def _unescaped(text: bytes) -> bytes:
    return _ESCAPE.sub(_escape, text)


def _escape(match: re.Match[bytes]) -> bytes:
    what = match.group(1)
    if len(what) == 3:
        return bytes([int(what[1:], 16)])
    return _ESCAPES.get(what, what)


def _unquoted(text: bytes) -> bytes:
    return text.replace(b"\\'", b"'")
