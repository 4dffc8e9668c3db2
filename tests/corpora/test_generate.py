"""`engine data generate`: folders, manifests, growth, sizes, refusals."""

import hashlib
import json
import math
import re

import pytest

from engine.corpora import folder, prose
from engine.corpora.generate import generate, parse_size
from engine.errors import EngineError, UsageError

WORD = re.compile(r"[^\W\d_]+")


def read(path):
    return b"".join(file.read_bytes() for file in sorted(path.glob("*.txt")))


def test_the_manifest_and_the_counts_tell_what_is_there(tmp_path):
    made = generate(str(tmp_path / "new"), 200_000, 3, files=3)
    text = read(tmp_path / "new")
    words = WORD.findall(text.decode())
    counts = (tmp_path / "new" / folder.COUNTS).read_bytes()
    assert (len(text), made.size, len(made.files)) == (200_000, 200_000, 3)
    assert made.words == len(words)
    assert made.exact.distinct == len(set(words)) == counts.count(b"\n")
    assert made.exact.sha256 == hashlib.sha256(counts).hexdigest()
    assert made.folded.distinct == len({word.lower() for word in words})
    manifest = json.loads((tmp_path / "new" / folder.MANIFEST).read_bytes())
    assert folder.damaged(str(tmp_path / "new"), manifest) == []
    assert sorted(entry.name for entry in (tmp_path).iterdir()) == ["new"]


def test_the_same_arguments_do_nothing_twice(tmp_path):
    first = generate(str(tmp_path), 50_000)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = generate(str(tmp_path), 50_000)
    assert not first.already
    assert again == first._replace(already=True, seconds=0.0)
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


def test_a_new_text_replaces_the_old_one_and_nothing_else(tmp_path):
    (tmp_path / "mine.txt").write_text("not yours")
    generate(str(tmp_path), 50_000, files=4)
    generate(str(tmp_path), 50_000, files=2)
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["_counts.tsv", "_source.json", "mine.txt", "natural-1.txt", "natural-2.txt"]
    assert (tmp_path / "mine.txt").read_text() == "not yours"


def test_a_damaged_file_is_noticed(tmp_path):
    generate(str(tmp_path), 50_000, files=2)
    manifest = folder.read_manifest(str(tmp_path))
    data = bytearray((tmp_path / "natural-2.txt").read_bytes())
    data[100] ^= 1
    (tmp_path / "natural-2.txt").write_bytes(data)
    assert folder.damaged(str(tmp_path), manifest) == ["natural-2.txt"]
    (tmp_path / "natural-2.txt").write_bytes(data[:-1])
    assert not generate(str(tmp_path), 50_000, files=2).already
    assert folder.damaged(str(tmp_path), manifest) == []


@pytest.mark.parametrize("preset", sorted(prose.PRESETS))
def test_growth_is_heaps_law(tmp_path, preset):
    """A straight line through (log words, log different words) has the slope beta."""
    size = 3_000_000
    generate(str(tmp_path), size, preset=preset, files=1)
    words = [word.lower() for word in WORD.findall(read(tmp_path).decode())]
    seen, points = set(), []
    for n, word in enumerate(words, 1):
        seen.add(word)
        if n % 5000 == 0 and n < len(words) * 63 // 64:
            points.append((math.log(n), math.log(len(seen))))
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    rise = sum((x - mean_x) * (y - mean_y) for x, y in points)
    slope = rise / sum((x - mean_x) ** 2 for x, _ in points)
    assert slope == pytest.approx(float(prose.PRESETS[preset].beta), abs=0.03)


def test_natural_text_is_as_rich_as_real_books():
    """26 real books: 15.1 MB, 2.76 million words, 55 624 different with capitals."""
    assert 40_000 < prose.vocabulary_of(prose.PRESETS["natural"], 15_100_000) < 55_624
    assert prose.vocabulary_of(prose.PRESETS["cardinal"], 1 << 30) == 5_000_000


def test_three_words_in_a_hundred_have_a_letter_of_two_bytes(tmp_path):
    generate(str(tmp_path), 1_000_000, preset="cardinal", files=1)
    words = set(WORD.findall(read(tmp_path).decode()))
    assert 0.02 < sum(not word.isascii() for word in words) / len(words) < 0.04


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("64M", 64 << 20), ("1G", 1 << 30), ("2k", 2048)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1", "1X", "1GB", "²"])
def test_no_sizes(text):
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"size": 10}, "a file has 64 bytes"),
        ({"size": 5000, "files": 0}, "in 0 files"),
        ({"size": 5000, "distinct": 5000}, "do not fit"),
        ({"size": 5000, "distinct": 0}, "ask for 1 to"),
        ({"size": 5000, "seed": -1}, "Seed -1"),
        ({"size": 5000, "preset": "odd"}, "no preset 'odd'"),
        ({"size": 5000, "script": "runes"}, "no script 'runes'"),
        ({"size": 5000, "beta": "2"}, "beta '2'"),
        ({"size": 5000, "exponent": "much"}, "exponent 'much'"),
        ({"size": 5000, "shift": "nan"}, "shift 'nan'"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(tmp_path, given, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        generate(str(tmp_path / "new"), **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preset", sorted(prose.PRESETS))
@pytest.mark.parametrize("beta", ["0", "0.5", "1"])
@pytest.mark.parametrize(
    ("size", "files", "most"), [(6400, 100, 200), (9500, 100, 200), (64, 1, 2)]
)
def test_as_many_words_as_are_allowed_do_fit(tmp_path, preset, beta, size, files, most):
    """The bound in the refusal is a promise: so many words appear, even in the tiniest files."""
    made = generate(
        str(tmp_path), size, preset=preset, beta=beta, script="han", files=files, distinct=most
    )
    assert made.folded.distinct == most
    with pytest.raises(UsageError, match=f"ask for 1 to {most}"):
        generate(str(tmp_path), size, files=files, distinct=most + 1)


def test_no_space_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(EngineError, match="do not fit"):
        generate(str(tmp_path / "new"), 1 << 44, distinct=10, files=1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "texts").write_text("a file")
    with pytest.raises(UsageError, match="is not a folder"):
        generate(str(tmp_path / "texts"), 5000)


@pytest.mark.parametrize("weights", [[1], [1, 1], [7, 1, 4], [0x1000000, 1, 1, 1], [3] * 10])
def test_an_alias_table_keeps_the_weights(weights):
    table, total = prose.alias(weights), sum(weights)
    mass = [0.0] * len(weights)
    for index, (threshold, other) in enumerate(table):
        mass[index] += threshold / 2**32
        mass[other] += 1 - threshold / 2**32
    expected = [weight * len(weights) / total for weight in weights]
    assert mass == pytest.approx(expected, abs=1e-6)
