"""What the word kernel is held against: a slow, obvious oracle, a block parser, and nasty texts.

The oracle decodes with Python's own strict decoder, one character at a time; a byte that begins
none becomes a separator of its own; then one regular expression finds the words.
"""

from __future__ import annotations

import functools
import random
import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hypothesis import strategies as st

from engine.kernels import words as kernel
from engine.kernels.checksum import crc32c
from engine.mapreduce import letters

JOB, TASK, ATTEMPT = 0x1234_5678_9ABC_DEF0, 7, 9

# --- oracles -------------------------------------------------------------------------------------


@functools.cache
def word_pattern() -> re.Pattern[str]:
    return re.compile(f"[{letters.letters()}]+")


@functools.cache
def fold_table() -> dict[int, int]:
    return letters.folds()


def decode(text: bytes) -> tuple[str, list[int]]:
    """The characters of `text` and the byte at which each begins; an invalid byte becomes "\\0"."""
    characters, begins, at = [], [], 0
    while at < len(text):
        for size in range(1, 5):
            try:
                character = text[at : at + size].decode("utf-8", "strict")
            except UnicodeDecodeError:
                continue
            break
        else:
            character, size = "\0", 1
        characters.append(character[0])
        begins.append(at)
        at += len(character[0].encode())
    return "".join(characters), begins


@functools.lru_cache(maxsize=4)
def words_by_place(text: bytes, fold: bool = False) -> list[tuple[int, bytes]]:
    """(byte at which it begins, word) of every word."""
    characters, begins = decode(text)
    found = []
    for match in word_pattern().finditer(characters):
        word = match.group()
        if fold:
            word = word.translate(fold_table())
        found.append((begins[match.start()], word.encode()))
    return found


def oracle(
    text: bytes, start: int = 0, end: int | None = None, fold: bool = False
) -> Counter[bytes]:
    end = len(text) if end is None else end
    return Counter(word for at, word in words_by_place(text, fold) if start <= at < end)


@functools.cache
def slow_crc_table() -> tuple[int, ...]:
    def entry(crc: int) -> int:
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        return crc

    return tuple(entry(byte) for byte in range(256))


def oracle_crc32c(data: bytes) -> int:
    """Bit by bit; the kernel that has its own test where that would take too long."""
    if len(data) > 4096:
        return crc32c(data)
    crc, table = 0xFFFFFFFF, slow_crc_table()
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def slow_partition(key: bytes, partitions: int) -> int:
    value = 2166136261
    for byte in key:
        value = (value ^ byte) * 16777619 % (1 << 32)
    return (value & 0x7FFFFFFF) % partitions


def uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def block_records(payload: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at < len(payload):
        length, at = uvarint(payload, at)
        key = payload[at : at + length]
        assert len(key) == length
        count, at = uvarint(payload, at + length)
        yield key, count


HEADER = struct.Struct("<IHHQIIIIIIII")


def read_segment(data: bytes, partition: int) -> list[tuple[bytes, int]]:
    """The records of a segment; every promise of `engine/storage/runs.py` is checked."""
    records: list[tuple[bytes, int]] = []
    while data:
        header = HEADER.unpack_from(data)
        magic, version, kind, job, task, attempt, part, count, keys, length, crc, zero = header
        assert (magic, version, kind) == (0x4C424E45, 1, 1)
        assert (job, task, attempt, part) == (JOB, TASK, ATTEMPT, partition)
        assert (keys, zero) == (0, 0)
        payload = data[HEADER.size : HEADER.size + length]
        bare = HEADER.pack(*header[:10], 0, 0)
        assert crc == oracle_crc32c(bare + payload)
        block = list(block_records(payload))
        assert len(block) == count > 0
        assert HEADER.size + length <= 65536 or count == 1
        records += block
        data = data[HEADER.size + length :]
    keys_only = [key for key, _ in records]
    assert keys_only == sorted(set(keys_only))
    return records


def written(
    table: kernel.WordTable, partitions: int, path: Path, offset: int = 0
) -> Counter[bytes]:
    """Write a section into `path` and read it back."""
    counts: Counter[bytes] = Counter()
    keys = table.keys
    with open(path, "wb") as file:
        index = table.write_section(file.fileno(), offset, JOB, TASK, ATTEMPT)
    data = path.read_bytes()
    position = offset
    for partition, (begin, length, records) in enumerate(index):
        assert begin == position
        segment = read_segment(data[begin : begin + length], partition)
        assert len(segment) == records
        assert all(slow_partition(key, partitions) == partition for key, _ in segment)
        counts.update(dict(segment))
        position += length
    assert position == len(data) or (not keys and not data)
    assert len(index) == partitions
    assert (table.keys, table.words) == (0, 0)
    assert len(counts) == keys
    return counts


# --- texts ---------------------------------------------------------------------------------------

SPECIMENS = [
    b"", b"a", b"A", b"z", b"Z", b"the", b"The", b"eighthbb", b"ninebytes", b"sixteenletterabc",
    b"seventeenletterab", b"twentyfourlettersabcdefg", b"q" * 63, b"q" * 64, b"w" * 65, b"e" * 200,
    b" ", b"\n", b"'", b"-", b"@", b"[", b"`", b"{", b"0", b"_", b"\0", b"\x7f",
    "é".encode(), "ß".encode(), "ẞ".encode(), "\u212a".encode(), "ſ".encode(), "Ⱥ".encode(),
    "İ".encode(), "ǅ".encode(), "Ж".encode(), "слово".encode(), "СЛОВО".encode(),
    "ѣ".encode(), "҂".encode(), "Ωμέγα".encode(), "×".encode(), "÷".encode(),
    "語".encode(), "中文字".encode(), "。".encode(), "、".encode(), "한국어".encode(),
    "Ꭰ".encode(), "𐐀".encode(), "𐐨".encode(), "𠮷".encode(), "🙂".encode(), "ªº".encode(),
    "Ⅷ".encode(), "\u0300".encode(), "\uffff".encode(), "\U0010ffff".encode(),
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\x81", b"\xc1\xbf", b"\xc3", b"\xd0", b"\xd0\xd0\x96",
    b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xe0\xa4", b"\xe4\xb8", b"\xe4", b"\xe4\xb8\xe4\xb8\xad",
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x81\x81\x81", b"\xf0\x90\x90",
    b"\xf0\xa0", b"\xf0", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80",
    b"\xf8\x90\x90\x80", b"\xfc", b"\xfe", b"\xff", b"\xf0\xa0\xae\xb7\xb7", b"\xd0\x96\x96",
]  # fmt: skip

pieces = st.one_of(
    st.sampled_from(SPECIMENS),
    st.text(st.characters(codec="utf-8"), max_size=6).map(str.encode),
    st.text(st.characters(codec="utf-8", categories=["L"]), max_size=12).map(str.encode),
    st.binary(max_size=5),
    st.integers(0, 70).map(lambda size: b"x" * size),
    st.integers(0, 70).map(lambda size: b"." * size),
)
texts = st.lists(pieces, max_size=40).map(b"".join)


def random_text(rng: random.Random, size: int) -> bytes:
    """Mixed text without hypothesis: cheap enough for larger sizes."""
    text = bytearray()
    while len(text) < size:
        kind = rng.random()
        if kind < 0.5:
            text += bytes(rng.choices(b"abcdefgXYZ", k=rng.randrange(1, 20)))
        elif kind < 0.8:
            text += rng.choice(SPECIMENS)
        elif kind < 0.9:
            text += chr(rng.choice([*range(0x80, 0xD800), *range(0x1F000, 0x22000)])).encode()
        else:
            text += bytes(rng.choices(range(256), k=rng.randrange(1, 4)))
        if rng.random() < 0.7:
            text += rng.choice([b" ", b" ", b"\n", b", "])
    return bytes(text)
