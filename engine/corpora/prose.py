"""What invented prose is made of: alphabets, word lengths, frequencies, growth, punctuation.

All of it is turned into integer tables that `engine.kernels.corpus` draws from, so that a text
depends on its arguments and on nothing else: no platform's `pow` has a say (Python's `decimal`
computes the powers), and no random module either.

*Frequencies* follow Zipf–Mandelbrot: the word of rank r (from 1) is drawn with weight
1 / (r + shift) ** exponent. The first 256 ranks have a slot of their own in an alias table (Walker
1977, Vose 1991); beyond, ranks share one slot per 1/32 octave, within which they are equally
likely, so that no weight is off by more than about exponent * 1.1 %, and the whole table stays in
the cache even for millions of words.

*Growth* follows Heaps' law: D(n) = K * n ** beta different words among the first n. Sampling from
a finite vocabulary obeys it only in the middle, so it is built in: words are shown in the order of
their ranks, on a schedule by position in the text, and a draw of a word not shown yet is drawn
again. The counts are therefore Zipf–Mandelbrot among the words shown so far, and D is exact.
"""

from __future__ import annotations

from typing import NamedTuple

EXACT_RANKS = 256
SLOTS_PER_OCTAVE = 32
OCTAVES = 33
KNOTS = 128
WORD_BYTES_MAX = 18
TOKEN_BYTES_MAX = 32
"""What a word and its separator take at most, with room to spare."""

Slot = tuple[int, int, int, int]


class Preset(NamedTuple):
    """A kind of text. `heaps`: K of the default vocabulary, None: a share of the size instead."""

    exponent: str
    shift: str
    beta: str
    heaps: str | None
    capitals: bool
    lengths: tuple[tuple[int, int], ...]


class Script(NamedTuple):
    """An alphabet. `common` holds letters as often as they are to be drawn."""

    small: str
    common: str
    accents: str
    capitals: bool
    separators: tuple[tuple[str, int, bool], ...]
    line: int


def _rising(low: str, high: str) -> tuple[tuple[int, int], ...]:
    """Bounds in letters by octave of rank; the last ones hold for all octaves that follow."""
    bounds = [(int(a, 36), int(b, 36)) for a, b in zip(low, high, strict=True)]
    return tuple(bounds + [bounds[-1]] * (OCTAVES - len(bounds)))


PRESETS = {
    # K and beta are those of 26 real books (2.76 M words: 55 624 different, capitals included).
    "natural": Preset(
        exponent="1.1",
        shift="2.7",
        beta="0.6",
        heaps="6.5",
        capitals=True,
        lengths=_rising("11111222222333334455", "23344456778899abbcdd"),
    ),
    "cardinal": Preset(
        exponent="1",
        shift="2.7",
        beta="0.75",
        heaps=None,
        capitals=False,
        lengths=_rising("11222233333344455555", "3344556777888999aaaa"),
    ),
}

CARDINAL_WORDS = 5_000_000
CARDINAL_BYTES_PER_WORD = 40
"""Below 200 MB the vocabulary of `cardinal` shrinks with the size: one word in 40 bytes."""
BYTES_PER_TOKEN = 6
"""Only to turn a size into the n of Heaps' law; a text's own mean differs a little."""

_PROSE = (
    (" ", 212, False),
    (", ", 20, False),
    (". ", 12, True),
    (".\n\n", 1, True),
    ("? ", 1, True),
    ("! ", 1, True),
    ("; ", 2, False),
    (": ", 1, False),
    ("-", 2, False),
    ("--", 1, False),
    (" “", 1, False),
    ("” ", 1, False),
    (" 1837 ", 1, False),
)
_HAN = (("，", 150, False), ("、", 40, False), ("。", 50, True), ("！", 8, True), ("。\n", 8, True))

_ENGLISH = (
    "e" * 31 + "t" * 23 + "a" * 21 + "o" * 19 + "i" * 18 + "n" * 17 + "s" * 16 + "h" * 15
    + "r" * 15 + "d" * 11 + "l" * 10 + "u" * 7 + "c" * 7 + "m" * 6 + "w" * 6 + "f" * 6 + "g" * 5
    + "y" * 5 + "p" * 5 + "b" * 4 + "v" * 3 + "k" * 2 + "jxqz"
)  # fmt: skip

_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
_GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
_IDEOGRAPHS = "".join(map(chr, range(0x4E00, 0x4F00)))

SCRIPTS = {
    "latin": Script("abcdefghijklmnopqrstuvwxyz", _ENGLISH, "éèêàâäöüñçåø", True, _PROSE, 68),
    "cyrillic": Script(
        _CYRILLIC, _CYRILLIC + "аеинорст" * 20 + "влкмдпу" * 9, "", True, _PROSE, 120
    ),
    "greek": Script(_GREEK, _GREEK + "αεηιοστν" * 20 + "ρκλμπυγ" * 10, "", True, _PROSE, 120),
    # No spaces: what a counter of letters sees as a word is a run between punctuation marks.
    "han": Script(_IDEOGRAPHS, _IDEOGRAPHS, "", False, _HAN, 1 << 30),
}


def vocabulary_of(preset: Preset, size: int) -> int:
    """How many different words (capitals aside) a text of `size` bytes has by default."""
    from decimal import Decimal

    if preset.heaps is None:
        return max(1, min(CARDINAL_WORDS, size // CARDINAL_BYTES_PER_WORD))
    tokens = Decimal(max(1, size // BYTES_PER_TOKEN))
    return max(1, int(Decimal(preset.heaps) * tokens ** Decimal(preset.beta)))


def slots(words: int, exponent: str, shift: str) -> list[Slot]:
    """The alias table of Zipf–Mandelbrot: (first rank from 0, ranks, threshold / 2^32, other)."""
    from decimal import Context, Decimal

    context = Context(prec=20)
    power, offset = Decimal(exponent), Decimal(shift)
    spans: list[tuple[int, int]] = []
    weights: list[int] = []
    for first, width in _spans(words):
        middle = Decimal(first) + 1 + offset + Decimal(width - 1) / 2
        weight = context.divide(Decimal(width), context.power(middle, power))
        spans.append((first, width))
        weights.append(max(1, int(weight * (1 << 60))))
    return [
        (first, width, threshold, other)
        for (first, width), (threshold, other) in zip(spans, alias(weights), strict=True)
    ]


def _spans(words: int) -> list[tuple[int, int]]:
    """(first, width) of the runs of ranks that share a slot."""
    spans = [(rank, 1) for rank in range(min(words, EXACT_RANKS))]
    first = EXACT_RANKS
    while first < words:
        width = max(1, (1 << first.bit_length() - 1) // SLOTS_PER_OCTAVE)
        spans.append((first, min(width, words - first)))
        first += width
    return spans


def alias(weights: list[int]) -> list[tuple[int, int]]:
    """Vose's alias table in integers: (threshold out of 2^32, other index) for each weight."""
    total, count = sum(weights), len(weights)
    scaled = [weight * count for weight in weights]
    table = [((1 << 32) - 1, index) for index in range(count)]
    small = [index for index in range(count) if scaled[index] < total]
    large = [index for index in range(count) if scaled[index] >= total]
    while small and large:
        poor, rich = small.pop(), large.pop()
        table[poor] = ((scaled[poor] << 32) // total, rich)
        scaled[rich] -= total - scaled[poor]
        (small if scaled[rich] < total else large).append(rich)
    return table


def growth(words: int, size: int, beta: str) -> list[tuple[int, int]]:
    """Knots of Heaps' law by position: (byte, words shown by then), all shown at 63/64 of `size`.

    Knots lie on a cubic scale, dense where the law is steep. In between it is linear.
    """
    from decimal import Context, Decimal

    context = Context(prec=20)
    end = max(KNOTS, size - size // 64)
    knots = [(0, 0)]
    for knot in range(1, KNOTS + 1):
        position = max(knots[-1][0] + 1, end * knot**3 // KNOTS**3)
        share = context.power(Decimal(min(position, end)) / end, Decimal(beta))
        knots.append((position, int(words * share)))
    knots[-1] = (max(end, knots[-2][0] + 1), words)
    return knots


def separators(script: Script) -> list[tuple[bytes, bool]]:
    """The 256 equally likely pieces between two words."""
    pieces = [
        (text.encode(), ends) for text, times, ends in script.separators for _ in range(times)
    ]
    assert len(pieces) == 256, f"{len(pieces)} separators, 256 wanted"
    return pieces


def lengths(preset: Preset, script: Script) -> list[tuple[int, int]]:
    """The preset's bounds, cut to what `WORD_BYTES_MAX` holds of this script's letters."""
    most = WORD_BYTES_MAX // max(len(letter.encode()) for letter in script.small + script.accents)
    most = most if len(script.small[0].encode()) > 1 else WORD_BYTES_MAX - 1
    return [(min(low, most), min(high, most)) for low, high in preset.lengths]


def draws(script: Script) -> bytes:
    """256 indexes of letters, as frequent as in `common`."""
    common = script.common
    return bytes(script.small.index(common[i * len(common) // 256]) for i in range(256))
