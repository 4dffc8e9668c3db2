"""The page as text: it loads nothing, and runs nothing but its own."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from engine.web.page import POLICY, page
from engine.web.page_script import SCRIPT

PAGE = page("/somewhere/store").decode()


@pytest.mark.parametrize("name", ["script", "style"])
def test_the_policy_has_the_digests_of_what_is_in_the_page(name: str) -> None:
    (inside,) = re.findall(rf"<{name}>(.*?)</{name}>", PAGE, re.DOTALL)
    digest = b64encode(sha256(inside.encode()).digest()).decode()
    assert f"{name}-src 'sha256-{digest}';" in POLICY
    assert PAGE.count(f"<{name}") == 1


def test_the_policy_forbids_the_rest() -> None:
    rules = dict(one.strip().split(" ", 1) for one in POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in POLICY


def test_nothing_comes_from_elsewhere() -> None:
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", PAGE)
    assert set(addresses) == {"data:,", "/status.json", "/metrics"}
    assert not re.search(r"https?://|@import|//[a-z]+\.", PAGE)


def test_texts_stay_texts() -> None:
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(", SCRIPT
    )


def test_a_name_is_text() -> None:
    text = page("/x/<img src=x onerror=alert(1)>").decode()
    assert "<img" not in text
    assert "<title>&lt;img src=x onerror=alert(1)&gt;</title>" in text


def test_a_name_that_is_no_text() -> None:
    assert b"<title>?</title>" in page("/x/\udcff")


def test_no_place_is_left_to_fill() -> None:
    assert "@@" not in PAGE
