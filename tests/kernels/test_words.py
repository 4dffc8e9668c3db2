"""The word kernel against a slow, obvious oracle: one regular expression over decoded text.

Kernels are run with tiny chunks, so that every place in a text is some time the end of a chunk, and
with every instruction set that this machine has.
"""

from __future__ import annotations

import array
import errno
import itertools
import os
import random
import threading
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from words_oracle import (
    ATTEMPT,
    JOB,
    SPECIMENS,
    TASK,
    fold_table,
    oracle,
    random_text,
    slow_partition,
    texts,
    word_pattern,
    written,
)

from engine.kernels import words as kernel
from engine.mapreduce import letters, progress

FULL = os.environ.get("ENGINE_DOSE") == "full"
LEVELS = kernel.isa_levels()
ROOMY = 64 << 20


def counted(
    path: Path,
    ranges: list[tuple[int, int]],
    scratch: Path,
    *,
    isa: str,
    memory: int = ROOMY,
    chunk: int = 0,
    fold: bool = False,
    partitions: int = 3,
) -> Counter[bytes]:
    """Count ranges of a file as a worker does: write a section whenever the table is full."""
    table = kernel.WordTable(partitions, memory, fold_case=fold, isa=isa, chunk=chunk)
    total: Counter[bytes] = Counter()
    for start, end in ranges:
        while start < min(end, path.stat().st_size):
            stopped = table.count(str(path), start, end)
            assert stopped > start
            start = stopped
            if start < min(end, path.stat().st_size):
                total += written(table, partitions, scratch)
    words = table.words
    rest = written(table, partitions, scratch)
    assert words == rest.total()
    return total + rest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


def saved(folder: Path, text: bytes) -> Path:
    path = folder / "text"
    path.write_bytes(text)
    return path


# --- tables --------------------------------------------------------------------------------------


def test_kernel_and_module_come_from_the_same_tables() -> None:
    assert kernel.LETTERS == letters.NAME


@pytest.mark.skipif(
    unicodedata.unidata_version not in letters.NAME.split(), reason="another Unicode version"
)
def test_tables_are_those_of_their_unicode_version() -> None:
    expected = {c for c in range(0x110000) if unicodedata.category(chr(c))[0] == "L"}
    found = {c for c in range(0x110000) if word_pattern().match(chr(c))}
    assert found == expected
    for code in expected:
        for folded in (chr(code).casefold(), chr(code).lower(), chr(code)):
            if len(folded) == 1:
                break
        assert fold_table().get(code, code) == ord(folded)


def every_form() -> list[bytes]:
    """All sequences of lead and continuation bytes that could be taken for a code point."""
    forms = [chr(code).encode("utf-8", "surrogatepass") for code in range(0x110000)]
    for code in range(0x800):  # overlong
        forms.append(bytes([0xC0 | code >> 6 & 31, 0x80 | code & 63]))
        forms.append(bytes([0xE0, 0x80 | code >> 6, 0x80 | code & 63]))
        forms.append(bytes([0xF0, 0x80, 0x80 | code >> 6, 0x80 | code & 63]))
    for code in range(0x110000, 0x200000, 61):
        forms.append(bytes([0xF0 | code >> 18, *(0x80 | code >> s & 63 for s in (12, 6, 0))]))
    return forms


def test_every_code_point_and_every_forbidden_form(folder: Path) -> None:
    letters_only = {chr(c).encode() for c in range(0x110000) if word_pattern().match(chr(c))}
    forms = every_form()
    path = saved(folder, b" ".join(forms))
    expected = Counter(form for form in forms if form in letters_only)
    for isa in LEVELS:
        table = kernel.WordTable(1, ROOMY, isa=isa)
        table.count(str(path), 0, path.stat().st_size)
        assert table.keys == len(expected)
        assert table.words == expected.total()
    assert written(table, 1, folder / "run") == expected


def test_fold_is_the_table_s_for_every_code_point() -> None:
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    assert kernel.fold(text.encode()) == text.translate(fold_table()).encode()
    assert kernel.fold(b"A\xffB\xd0") == b"a\xffb\xd0"


@given(st.binary(max_size=40), st.integers(1, 1 << 20))
def test_partition(key: bytes, partitions: int) -> None:
    assert kernel.partition(key, partitions) == slow_partition(key, partitions)


# --- counting ------------------------------------------------------------------------------------


@settings(max_examples=2000 if FULL else 150, deadline=None)
@given(
    text=texts,
    isa=st.sampled_from(LEVELS),
    chunk=st.sampled_from([1, 2, 3, 5, 16, 61, 64, 65, 127, 1000, 0]),
    fold=st.booleans(),
    data=st.data(),
)
def test_any_partition_of_any_text(
    folder: Path, text: bytes, isa: str, chunk: int, fold: bool, data: st.DataObject
) -> None:
    path = saved(folder, text)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    bounds = [0, *sorted(cuts), len(text) + data.draw(st.integers(0, 3))]
    ranges = list(itertools.pairwise(bounds))
    found = counted(path, ranges, folder / "run", isa=isa, chunk=chunk, fold=fold)
    assert found == oracle(text, fold=fold)


@pytest.mark.parametrize("isa", LEVELS)
def test_every_split_and_every_chunk_end(folder: Path, isa: str) -> None:
    rng = random.Random("splits")
    for size in (40, 300 if FULL else 90):
        text = random_text(rng, size)
        path = saved(folder, text)
        for at in range(len(text) + 1):
            chunk = rng.choice([1, 7, 64, 0])
            ranges = [(0, at), (at, len(text))]
            found = counted(path, ranges, folder / "run", isa=isa, chunk=chunk)
            assert found == oracle(text), (text, at, chunk)
        for chunk in range(1, len(text) + 1):
            found = counted(path, [(0, len(text))], folder / "run", isa=isa, chunk=chunk)
            assert found == oracle(text), (text, chunk)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("fold", [False, True])
def test_every_alignment_in_a_block(folder: Path, isa: str, fold: bool) -> None:
    """Each specimen at each offset modulo 64, so at each place of a block and across its end."""
    rng = random.Random("alignment")
    text = bytearray()
    for offset in range(64):
        for specimen in SPECIMENS:
            text += b"-" * ((offset - len(text)) % 64) + specimen + rng.choice(SPECIMENS)
    path = saved(folder, bytes(text))
    found = counted(path, [(0, len(text))], folder / "run", isa=isa, fold=fold)
    assert found == oracle(bytes(text), fold=fold)


@pytest.mark.parametrize("isa", LEVELS)
def test_text_without_ascii_separators(folder: Path, isa: str) -> None:
    """Chinese prose: chunks must be cut at any character that is no letter."""
    rng = random.Random("prose")
    vocabulary = ["天地", "玄黃", "宇宙洪荒", "日月盈昃", "辰宿列張寒來暑往"]
    prose = "".join(rng.choice(vocabulary) + rng.choice("。、，") for _ in range(30_000)).encode()
    path = saved(folder, prose)
    table = kernel.WordTable(1, ROOMY, isa=isa, chunk=1024)
    before = table.memory
    assert table.count(str(path), 0, len(prose)) == len(prose)
    assert table.memory <= before + (64 << 10)  # no chunk has waited for an ASCII separator
    assert written(table, 1, folder / "run") == oracle(prose)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("fold", [False, True])
def test_tiny_budgets_spill_and_add_up(folder: Path, isa: str, fold: bool) -> None:
    rng = random.Random("budget")
    lengths = rng.choices([4, 8, 12, 16, 17, 30], k=8000)
    text = b" ".join(bytes(rng.choices(b"abcdefghiJKLM", k=length)) for length in lengths)
    text += random_text(rng, 10_000)
    path = saved(folder, text)
    expected = oracle(text, fold=fold)
    for memory in (0, 1 << 20):
        table = kernel.WordTable(2, memory, isa=isa, fold_case=fold)
        at, total, sections, largest = 0, Counter[bytes](), 0, 0
        smallest = table.memory
        while at < len(text):
            stopped = table.count(str(path), at, len(text))
            assert stopped > at
            largest = max(largest, table.memory)
            at, sections = stopped, sections + 1
            total += written(table, 2, folder / "run")
        assert total == expected
        assert sections > 1
        assert largest <= max(memory, smallest + (128 << 10))


@pytest.mark.parametrize("isa", LEVELS)
def test_budget_is_never_exceeded_while_a_table_grows(folder: Path, isa: str) -> None:
    rng = random.Random("growth")
    text = b" ".join(
        bytes(rng.choices(b"abcdefghijkl", k=rng.randrange(4, 12))) for _ in range(40_000)
    )
    path = saved(folder, text)
    expected = oracle(text)
    for memory in (2 << 20, 3 << 20, 5 << 20):
        table = kernel.WordTable(1, memory, isa=isa)
        at, total = 0, Counter[bytes]()
        while at < len(text):
            at = table.count(str(path), at, len(text))
            assert table.memory <= memory
            total += written(table, 1, folder / "run")
            assert table.memory <= memory
        assert total == expected


@pytest.mark.parametrize("isa", LEVELS)
def test_words_longer_than_the_budget_and_than_a_block(folder: Path, isa: str) -> None:
    long_words = [b"a" * 70_000, b"b" * 150_000, b"a" * 70_001, "ж".encode() * 50_000]
    text = b" x ".join([*long_words, *long_words, b"end"])
    path = saved(folder, text)
    for memory in (0, ROOMY):
        found = counted(
            path, [(0, len(text))], folder / "run", isa=isa, memory=memory, partitions=2
        )
        assert found == oracle(text)
    middle = 40_000  # inside the first word: it belongs to the first range alone
    found = counted(path, [(middle, len(text))], folder / "run", isa=isa, chunk=4096)
    assert found == oracle(text, middle)


def test_order_of_words_that_begin_alike(folder: Path) -> None:
    """Prefixes, and more words equal in their first 16 bytes than an insertion sort takes."""
    rng = random.Random("order")
    stems = [b"a" * size for size in range(1, 40)]
    tails = [bytes(rng.choices(b"ab", k=rng.randrange(1, 14))) for _ in range(3000)]
    some = [*stems, *(b"a" * rng.choice([7, 8, 9, 15, 16, 17, 24]) + tail for tail in tails)]
    text = b" ".join(some * 2)
    path = saved(folder, text)
    for isa in LEVELS:
        assert counted(path, [(0, len(text))], folder / "run", isa=isa) == Counter(some * 2)


@pytest.mark.parametrize("size", [kernel.WORD_BYTES_MAX, kernel.WORD_BYTES_MAX + 1])
@pytest.mark.parametrize("behind", [b"", b"\xd0\x20", b". more"])
def test_the_longest_word(folder: Path, size: int, behind: bytes) -> None:
    path = saved(folder, b"see: " + b"w" * size + behind)
    total = path.stat().st_size
    table = kernel.WordTable(1, 1 << 20)
    if size > kernel.WORD_BYTES_MAX:
        stopped = table.count(str(path), 0, 5)
        assert stopped == 5
        with pytest.raises(kernel.WordTooLong, match="byte 5") as raised:
            table.count(str(path), 0, total)
        assert raised.value.offset == 5
        # ... but who begins behind its first byte passes over it, in little memory.
        table = kernel.WordTable(1, 1 << 20)
        before = table.memory
        assert table.count(str(path), 6, total) == total
        assert table.keys == behind.count(b"more")
        assert table.memory == before
        return
    at, longest, records = 0, 0, 0
    while at < total:
        at = table.count(str(path), at, total)
        with open(folder / "run", "wb") as file:
            index = table.write_section(file.fileno(), 0, JOB, TASK, ATTEMPT)
        longest = max(longest, index[0][1])
        records += index[0][2]
        assert table.memory <= 2 << 20
    assert longest > size
    assert records == len([b"see", b"w", *behind.split()]) - behind.count(b".") - behind.count(
        b"\xd0"
    )


def test_table_is_reused_after_clear_and_after_writing(folder: Path) -> None:
    path = saved(folder, b"one two two elephantine internationalisation")
    table = kernel.WordTable(2, ROOMY)
    for _ in range(3):
        table.count(str(path), 0, 100)
        assert (table.keys, table.words) == (4, 5)
        table.clear()
        assert (table.keys, table.words) == (0, 0)
        table.count(str(path), 0, 100)
        assert written(table, 2, folder / "run", offset=4096)[b"two"] == 2
    many = saved(
        folder, b" ".join(b"k" + bytes(97 + int(d) for d in str(n)) for n in range(50_000))
    )
    for _ in range(2):
        table.count(str(many), 0, 1 << 30)
        assert table.keys == 50_000
        assert len(written(table, 2, folder / "run")) == 50_000
    large = table.memory
    for _ in range(6):
        table.count(str(many), 0, 10)
        table.clear()
    assert table.memory < large / 2  # what is not used for long is given back
    table.count(str(many), 0, 1 << 30)
    assert len(written(table, 2, folder / "run")) == 50_000


def test_counts_of_several_files_add_up(folder: Path) -> None:
    table = kernel.WordTable(1, ROOMY)
    for text in (b"a b c", b"b c", b"c"):
        table.count(str(saved(folder, text)), 0, len(text))
    assert written(table, 1, folder / "run") == {b"a": 1, b"b": 2, b"c": 3}


def test_more_misfits_than_are_remembered(folder: Path) -> None:
    """Letters whose folded form is shorter or longer, in every word of a chunk."""
    text = "Kelvin ſee Ⱥbc plain ẞtraße ".encode() * 1500
    path = saved(folder, text)
    for isa in LEVELS:
        found = counted(path, [(0, len(text))], folder / "run", isa=isa, fold=True)
        assert found == oracle(text, fold=True)


# --- the rest of the interface -------------------------------------------------------------------


def test_page_moves(folder: Path) -> None:
    text = b"word " * 200_000
    path = saved(folder, text)
    page = array.array("Q", [0] * progress.WORDS)
    table = kernel.WordTable(1, ROOMY)
    with memoryview(page) as view:
        table.count(str(path), 0, 600_001, view)
        assert page[progress.OFFSET] == page[progress.BYTES] == 600_001
        beats = page[progress.BEAT]
        assert beats >= 600_001 // (256 << 10)
        table.count(str(path), 600_001, len(text), view)
    assert page[progress.BYTES] == len(text)
    assert page[progress.OFFSET] == len(text)
    assert page[progress.KEYS] == table.keys == 1
    assert page[progress.BEAT] > beats
    assert table.words == 200_000
    with pytest.raises(ValueError, match="16 words"):
        table.count(str(path), 0, 1, memoryview(array.array("Q", [0] * 8)))


def test_end_of_file_and_empty_ranges(folder: Path) -> None:
    path = saved(folder, b"one two")
    table = kernel.WordTable(1, ROOMY)
    assert table.count(str(path), 0, 1 << 40) == 7
    assert table.count(str(path), 7, 9) == 7
    assert table.count(str(path), 50, 90) == 7
    assert table.count(str(path), 3, 3) == 3
    assert table.words == 2
    assert table.count(str(saved(folder, b"")), 0, 5) == 0
    assert written(table, 1, folder / "run") == {b"one": 1, b"two": 1}
    assert table.write_section(-1, 5, JOB, TASK, ATTEMPT) == [(5, 0, 0)]


def test_errors(folder: Path) -> None:
    table = kernel.WordTable(1, ROOMY)
    with pytest.raises(FileNotFoundError) as missing:
        table.count(str(folder / "nothing"), 0, 1)
    assert missing.value.filename == str(folder / "nothing")
    with pytest.raises(IsADirectoryError):
        table.count(str(folder), 0, 1 << 20)
    table.count(str(saved(folder, b"word")), 0, 4)
    with pytest.raises(OSError, match="Bad file descriptor"):
        table.write_section(-1, 0, JOB, TASK, ATTEMPT)
    assert table.keys == 0
    with pytest.raises(ValueError, match="partitions"):
        kernel.WordTable(0, ROOMY)
    with pytest.raises(ValueError, match="instruction set 'none'"):
        kernel.WordTable(1, ROOMY, isa="none")
    assert kernel.WordTable(1, ROOMY).isa == LEVELS[-1]
    with pytest.raises(ValueError, match="partitions"):
        kernel.partition(b"", 0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_no_space(folder: Path) -> None:
    table = kernel.WordTable(1, ROOMY)
    table.count(str(saved(folder, b"word")), 0, 4)
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match="No space") as raised,
    ):
        table.write_section(full.fileno(), 0, JOB, TASK, ATTEMPT)
    assert raised.value.errno == errno.ENOSPC


def test_a_table_refuses_a_second_thread(folder: Path) -> None:
    """The GIL is let go while counting, so another thread can run, and must be kept out."""
    fifo_like = saved(folder, b"word " * 4_000_000)
    table = kernel.WordTable(1, ROOMY)
    counting = threading.Thread(target=table.count, args=(str(fifo_like), 0, 1 << 30))
    counting.start()
    refused = 0
    while counting.is_alive():
        try:
            table.count(str(fifo_like), 0, 1)
        except RuntimeError:
            refused += 1
    counting.join()
    assert refused > 0
