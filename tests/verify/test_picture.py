"""The picture: one page that loads nothing, holds what it should, and takes no text for markup."""

from __future__ import annotations

import itertools
import json
import random
from html.parser import HTMLParser
from typing import Any

import pytest
from oracles import lived, spoilt

from engine.verify.history import Operation
from engine.verify.linearizable import RIGHT, WRONG, Judged, check, stuck
from engine.verify.models import MODELS
from engine.verify.picture import label, page, shown

EVIL = "</script><script>alert(1)</script><b>&amp;'\"\u2028@@DATA@@"
VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """The page's elements, its data, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.words += data

    @property
    def keys(self) -> Any:
        return json.loads(self.scripts[0])


def wrong(name: str, seed: int = 0) -> Judged:
    rng = random.Random(seed)
    while True:
        operations = lived(rng, name, 12, 3)
        for _ in range(3):
            operations = spoilt(rng, name, operations)
        (judged,) = check(operations, MODELS[name], explain=True)
        if judged.verdict == WRONG:
            return judged


@pytest.mark.parametrize("name", MODELS)
def test_it_holds_every_operation_and_order(name: str) -> None:
    for seed in range(20):
        judged = wrong(name, seed)
        (key,) = Page(page([judged], MODELS[name], "a history")).keys
        assert [box["label"] for box in key["boxes"]] == [label(o) for o in judged.operations]
        assert len(key["orders"]) == max(1, len(judged.orders))
        for order, drawn in zip(judged.orders, key["orders"], strict=False):
            assert tuple(drawn["operations"]) == order
            assert drawn["stuck"] == stuck(judged.operations, order)
            assert len(drawn["states"]) == len(order)
        assert key["longest"] == {str(i): at for i, at in judged.longest.items()}
        for box, o in zip(key["boxes"], judged.operations, strict=True):
            assert 0 <= box["from"] <= box["to"] < key["places"]
            assert box["unknown"] == (o.returned is None)


def test_boxes_of_a_row_do_not_overlap_and_a_row_is_of_one_client() -> None:
    for seed in range(20):
        (key,) = Page(page([wrong("register", seed)], MODELS["register"], "h")).keys
        rows: dict[int, list[tuple[int, int, str]]] = {}
        for box in key["boxes"]:
            rows.setdefault(box["row"], []).append((box["from"], box["to"], box["client"]))
        assert set(rows) == set(range(len(key["rows"])))
        for boxes in rows.values():
            boxes.sort()
            assert len({client for _, _, client in boxes}) == 1
            assert all(one[1] < two[0] for one, two in itertools.pairwise(boxes))


def test_it_loads_nothing() -> None:
    read = Page(page([wrong("lock")], MODELS["lock"], "a history"))
    for tag, attributes in read.elements:
        assert tag not in ("link", "img", "iframe")
        assert not {"src", "href"} & attributes.keys()
    policies = [a["content"] for tag, a in read.elements if a.get("http-equiv")]
    assert policies
    assert str(policies[0]).startswith("default-src 'none';")
    assert "prefers-color-scheme: dark" in page([], MODELS["lock"], "")


def test_no_text_is_taken_for_markup() -> None:
    operations = [
        Operation(EVIL, "write", EVIL, EVIL, 0, 1, None),
        Operation(2, "read", EVIL, (), 2, 3, EVIL + "2"),
    ]
    judged = check(operations, MODELS["register"], explain=True)
    text = page(judged, MODELS["register"], EVIL)
    assert "alert(1)</script>" not in text
    read = Page(text)
    assert [tag for tag, _ in read.elements].count("script") == 2
    assert "b" not in {tag for tag, _ in read.elements}
    assert read.keys[0]["boxes"][0]["client"] == EVIL
    assert f"Not linearizable: {EVIL}" in read.words


def test_right_keys_are_not_drawn() -> None:
    operations = [Operation(1, "read", "right", (), 0, 1, None)]
    operations.append(Operation(1, "read", "wrong", (), 0, 1, "x"))
    judged = check(operations, MODELS["register"], explain=True)
    assert [one.verdict for one in judged] == [RIGHT, WRONG]
    (key,) = Page(page(judged, MODELS["register"], "h")).keys
    assert key["key"] == '"wrong"'
    assert key["orders"] == [{"operations": [], "states": [], "stuck": [0]}]
    assert key["sentence"].endswith('at the beginning this cannot come: client 1 read → "x".')


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (Operation(1, "write", "k", "a", 0, 1), 'write "a"'),
        (Operation(1, "write", "k", "a", 0), 'write "a" → ?'),
        (Operation(1, "read", "k", (), 0, 1), "read → nothing"),
        (Operation(1, "get", "k", "", 0, 1, ("a", 3)), 'get → "a" @ 3'),
        (Operation(1, "cas", "k", (1, None), 0, 1, False), "cas 1 nothing → false"),
        (Operation(1, "acquire", "k", (), 0, 1, True), "acquire → true"),
    ],
)
def test_labels(operation: Operation, words: str) -> None:
    assert label(operation) == words


def test_long_values_are_cut_in_the_middle() -> None:
    text = shown("begin" + "x" * 1000 + "end")
    assert text.startswith('"begin')
    assert text.endswith('end" (1010 letters)')
    assert len(text) < 100
