"""The built-in jobs: what their functions say, by hand-written cases and against other programs."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.mapreduce.apps import BUILT_IN, SUMMARIES
from engine.mapreduce.apps.grep import Grep
from engine.mapreduce.apps.index import Index
from engine.mapreduce.apps.wordcount import WordCount, words
from engine.mapreduce.job import Job
from engine.mapreduce.letters import letters

DOCUMENTS = {
    "b.txt": ["to be or not to be", "that is the question"],
    "a.txt": ["be that as it may", "", "Be quick, don't wait: be"],
}


def run(job: Job, documents: dict[str, list[str]], combine: bool = False) -> list[str]:
    """The lines of a job, by nothing but a dict; with `combine`, of two halves combined twice."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for document, lines in documents.items():
        for line in lines:
            for key, value in job.map(document, line):
                groups[key].append(value)
    if combine and job.combine is not None:
        for key, values in groups.items():
            half = len(values) // 2
            first = [value for _, value in job.combine(key, values[:half])] if half else []
            groups[key] = [v for _, v in job.combine(key, first + values[half:])]
    return [
        job.line(*pair) for key in sorted(groups) for pair in job.reduce(key, iter(groups[key]))
    ]


@pytest.mark.parametrize("combine", [False, True])
def test_index_names_each_document_once(combine: bool) -> None:
    lines = run(Index(), DOCUMENTS, combine)
    assert "be 2 a.txt,b.txt" in lines
    assert "to 1 b.txt" in lines
    assert "Be 1 a.txt" in lines
    assert lines == sorted(lines)
    found = {word for lines in DOCUMENTS.values() for line in lines for word in words(line)}
    assert len(lines) == len(found)


@pytest.mark.parametrize("combine", [False, True])
def test_wordcount(combine: bool) -> None:
    text = " ".join(line for lines in DOCUMENTS.values() for line in lines)
    counts = Counter(re.findall("[A-Za-z]+", text))
    expected = [f"{word} {count}" for word, count in sorted(counts.items())]
    assert run(WordCount(), DOCUMENTS, combine) == expected
    folded = Counter(re.findall("[a-z]+", text.lower()))
    expected = [f"{word} {count}" for word, count in sorted(folded.items())]
    assert run(WordCount(fold_case="yes"), DOCUMENTS, combine) == expected


def test_what_is_not_utf8_separates_words() -> None:
    line = b"one\xfftwo \xe2\x82three \xc3\xa9t\xc3\xa9".decode("utf-8", "replace")
    assert words(line) == ["one", "two", "three", "été"]


def test_folding_keeps_words_apart_and_whole() -> None:
    job = WordCount(fold_case="yes")
    assert [key for key, _ in job.map("d", "ΟΔΟΣ Straße ÀÉ İ K")] == [
        "οδοσ",
        "straße",
        "àé",
        "İ",
        "k",
    ]


characters = st.characters(codec="utf-8") | st.sampled_from("aZé_0 -'\uffff\U00010400𝐀漢\U00020000")


@settings(max_examples=300, deadline=None)
@given(st.text(characters, max_size=30))
def test_words_are_maximal_runs_of_letters(text: str) -> None:
    obvious = re.compile(f"[{letters()}]+")
    assert words(text) == obvious.findall(text)


@pytest.mark.skipif(
    unicodedata.unidata_version != "14.0.0", reason="this Python's tables are not Unicode 14.0.0"
)
def test_letters_are_those_of_unicode() -> None:
    for code in [*range(0xD800), *range(0xE000, 0x30000, 7)]:
        assert bool(words(chr(code))) == unicodedata.category(chr(code)).startswith("L"), hex(code)


def test_grep_gives_lines_as_they_stand() -> None:
    lines = run(Grep(pattern=r"\bbe\b|^that"), DOCUMENTS)
    assert lines == [
        "a.txt:be that as it may",
        "a.txt:Be quick, don't wait: be",
        "b.txt:to be or not to be",
        "b.txt:that is the question",
    ]


@pytest.mark.parametrize(
    ("cls", "options", "words_of_it"),
    [
        (Grep, {}, "--set pattern"),
        (Grep, {"pattern": "("}, "no regular expression"),
        (WordCount, {"fold_case": "maybe"}, "'maybe'"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    cls: type[Job], options: dict[str, str], words_of_it: str
) -> None:
    with pytest.raises(UsageError, match=words_of_it) as caught:
        cls(**options)
    assert "\n" not in str(caught.value)


def test_every_job_is_registered_with_a_summary() -> None:
    assert BUILT_IN.keys() == SUMMARIES.keys()
    for where in BUILT_IN.values():
        module, _, attribute = where.partition(":")
        cls = getattr(importlib.import_module(module), attribute)
        assert issubclass(cls, Job)


def test_a_native_job_loads_without_regular_expressions() -> None:
    """Start-up time: neither the registry nor word count import what only Python jobs need."""
    code = (
        "import sys; before = set(sys.modules); import engine.mapreduce.apps.wordcount as w;"
        "w.WordCount(); new = set(sys.modules) - before;"
        "assert not {'re', 'engine.mapreduce.letters', 'msgpack'} & new, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
