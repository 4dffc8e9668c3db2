"""The generator against the slow and obvious: cut the text into words with `re` and count them."""

import hashlib
import os
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.corpora import prose
from engine.corpora.generate import _arguments, make_generator
from engine.kernels.corpus import ROOM, WORD_BYTES_MAX

EXAMPLES = 400 if os.environ.get("ENGINE_DOSE") == "full" else 40
WORD = re.compile(r"[^\W\d_]+")
MOST = {"preset": "natural", "script": "latin", "distinct": None, "files": 1}


def arguments(size, seed=1, **given_ones):
    chosen = MOST | {"exponent": None, "shift": None, "beta": None} | given_ones
    return _arguments(
        size,
        seed,
        *(chosen[name] for name in ("preset", "script", "distinct", "files")),
        *(chosen[name] for name in ("exponent", "shift", "beta")),
    )


def write(generator, size, room=1 << 16):
    """One file of `size` bytes, through a buffer of `room` bytes."""
    generator.begin(size)
    buffer = bytearray(room)
    text = bytearray()
    while filled := generator.fill(buffer):
        text += buffer[:filled]
    return bytes(text)


def count_lines(generator, folded=False):
    return generator.lines(0, generator.sort(folded), folded)


def oracle_lines(words):
    """What a word count over the text has to print: bytewise sorted `word count` lines."""
    counts = Counter(word.encode() for word in words)
    return b"".join(b"%b %d\n" % (word, counts[word]) for word in sorted(counts))


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    size=st.integers(200, 60_000),
    seed=st.integers(0, 2**64 - 1),
    preset=st.sampled_from(sorted(prose.PRESETS)),
    script=st.sampled_from(sorted(prose.SCRIPTS)),
    share=st.integers(1, 100),
)
def test_the_tallies_are_the_text(size, seed, preset, script, share):
    distinct = max(1, size // 32 * share // 100)
    generator = make_generator(
        arguments(size, seed, preset=preset, script=script, distinct=distinct)
    )
    text = write(generator, size)
    words = WORD.findall(text.decode())
    assert len(text) == size
    assert text.endswith(b"\n") or size % 32 == 0
    assert generator.written == len(words)
    assert count_lines(generator) == oracle_lines(words)
    small = [word.lower() for word in words]
    assert count_lines(generator, folded=True) == oracle_lines(small)
    assert generator.vocabulary == distinct == len(set(small))


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1), rooms=st.lists(st.integers(ROOM, 9000), min_size=2, max_size=3)
)
def test_the_buffer_does_not_matter(seed, rooms):
    size = 30_000
    texts = {write(make_generator(arguments(size, seed)), size, room) for room in rooms}
    assert len(texts) == 1


def test_files_share_one_vocabulary_and_are_as_long_as_asked():
    generator = make_generator(arguments(50_000))
    texts = [write(generator, size) for size in (10_000, 64, 64, 39_000, 872)]
    assert [len(text) for text in texts] == [10_000, 64, 64, 39_000, 872]
    words = [word for text in texts for word in WORD.findall(text.decode())]
    assert count_lines(generator) == oracle_lines(words)


def test_another_seed_is_another_text():
    first, second = (write(make_generator(arguments(5000, seed)), 5000) for seed in (1, 2))
    assert first != second


def test_the_bytes_are_the_same_on_every_platform():
    """Golden: a change here changes every corpus anybody ever named by its arguments."""
    digests = {
        (preset, script): hashlib.sha256(
            write(make_generator(arguments(300_000, 7, preset=preset, script=script)), 300_000)
        ).hexdigest()[:16]
        for preset, script in (("natural", "latin"), ("cardinal", "latin"), ("natural", "greek"))
    }
    assert digests == {
        ("natural", "latin"): "119e399cbdadb945",
        ("cardinal", "latin"): "cf6b0d9a447bfe07",
        ("natural", "greek"): "731d62c663c386bc",
    }


def test_frequencies_are_zipf_mandelbrot():
    """By octave of rank, with all words shown early: within 3 % of 1 / (rank + q) ** s."""
    words, size, exponent, shift = 4000, 4_000_000, 1.2, 3.0
    generator = make_generator(
        arguments(size, preset="cardinal", distinct=words, exponent="1.2", shift="3", beta="0.01")
    )
    text = WORD.findall(write(generator, size).decode())
    ranks = {word: rank for rank, word in enumerate(dict.fromkeys(text), 1)}
    settled = text[len(text) // 10 :]
    found = Counter((ranks[word] - 1).bit_length() for word in settled)
    weights = Counter()
    for rank in range(1, words + 1):
        weights[(rank - 1).bit_length()] += 1 / (rank + shift) ** exponent
    for octave, weight in weights.items():
        expected = weight / weights.total()
        assert found[octave] / len(settled) == pytest.approx(expected, rel=0.03), octave


def test_an_alphabet_that_is_too_small_is_an_error():
    from engine.kernels.corpus import Generator

    tiny = {"letters": [(b"a", b"A")], "draw": bytes(256), "accents": b"", "accented": 0}
    with pytest.raises(OverflowError, match="too many for this alphabet"):
        Generator(
            1,
            **tiny,
            lengths=[(1, WORD_BYTES_MAX)] * 33,
            slots=prose.slots(100, "1", "2.7"),
            growth=prose.growth(100, 10_000, "0.6"),
            separators=[(b" ", False)] * 256,
            line=70,
            capitals=False,
        )


def test_a_buffer_that_is_too_small_is_a_bug():
    generator = make_generator(arguments(5000))
    generator.begin(5000)
    with pytest.raises(AssertionError, match="ROOM"):
        generator.fill(bytearray(ROOM - 1))
