"""The page of a store in a real browser, while its replicas are stopped, added and killed."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.chrome import Tab, browser
from harness import Program, programs
from kv.live import Cluster, cluster, slowed
from waiting import eventually

from engine.kv import members
from engine.kv.client import Store

pytestmark = pytest.mark.processes

PICTURES = os.environ.get("ENGINE_PICTURES", "")
"""A folder for pictures of the page, for whoever changes it."""
CONTRAST = """
(() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(one => one / 255)
    .map(one => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4)
    .reduce((sum, one, index) => sum + one * [.2126, .7152, .0722][index], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const [r, g, b, a = 1] = parts(getComputedStyle(element).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter(one => one.nodeType === 3)
      .map(one => one.data.trim()).join("");
    if (!text || !element.getClientRects().length || element.closest("script")) continue;
    const style = getComputedStyle(element);
    const ink = light(parts(element.ownerSVGElement ? style.fill : style.color));
    const paper = light(behind(element));
    const ratio = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
    found.push([ratio, parseFloat(style.fontSize), text]);
  }
  return found;
})()
"""
"""[contrast as WCAG has it, pixels, text] of every text that is shown."""
ROWS = """
[...document.querySelectorAll("#rows tr")].map(row =>
  [...row.children].map(cell => cell.innerText.trim()))
"""


HOSTILE = (
    b'<img src=x onerror="window.planted=1">\0\x1b[31m\xff' + "\u202e&amp;".encode() + b"z" * 99,
    b"z" * 200,
)
"""Keys of requests that were slow before the page is looked at."""


class Stage:
    """A cluster, the process of its page, and a browser that looks at it."""

    def __init__(self, store: Cluster, page: Program, tab: Tab, address: str) -> None:
        self.store, self.page, self.tab, self.address = store, page, tab, address

    def sentences(self) -> str:
        return self.tab.text("#sentences")

    def says(self, *words: str) -> str:
        """What is wrong, as soon as all of this is said."""
        return eventually(
            lambda: said if all(one in (said := self.sentences()) for one in words) else "",
            20,
            f"{words} instead of {self.sentences()!r}",
        )

    def rows(self) -> dict[str, list[str]]:
        """What stands in the table, by replica."""
        return {row[0].split("\n")[0]: row for row in self.tab.run(ROWS)}

    def roles(self) -> dict[str, str]:
        return {number: row[1].split("\n")[0] for number, row in self.rows().items()}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("p")
    with browser(folder / "browser") as chrome, cluster(folder, "--no-restart") as store:
        for key in HOSTILE:
            slowed(store, key)
        with programs(folder) as start:
            page = start("kv", "page", "--cluster", store.dir, "--show-keys", "--json")
            eventually(lambda: page.stdout().endswith("\n"), 20, "the page")
            tab = chrome.tab()
            tab.size(1280, 900)
            address = page.json()["address"]
            tab.open(address)
            yield Stage(store, page, tab, address)


def test_three_replicas_and_who_leads(stage: Stage) -> None:
    def agreed() -> dict[str, str]:
        leader = stage.store.leader()
        said, roles = stage.says("All 3 voters reachable", "leads term"), stage.roles()
        right = f"replica {leader} leads" in said and roles.get(str(leader)) == "leader"
        return roles if right and len(roles) == 3 else {}

    roles = eventually(agreed, 20, "the page and the cluster to agree")
    assert sorted(roles.values()) == ["follower", "follower", "leader"]
    assert stage.tab.run("document.body.className") == "good"
    pids = stage.store.pids()
    for number, row in stage.rows().items():
        assert row[0] == f"{number}\npid {pids[int(number)]}"
        assert re.search(r"^\d+\sMB\nlog ", row[4]), row
        assert re.search(r"^\d+\sMB", row[5]), row
        assert re.search(r"^\d+\nof [\d,]+$", row[6]), row


def test_requests_are_counted(stage: Stage) -> None:
    def seen() -> dict[str, int]:
        label = stage.tab.run("document.getElementById('chart').getAttribute('aria-label')")
        writes, reads = label.replace(",", "").split("Reads:")
        return {
            "writes": int(re.findall(r"at most (\d+)", writes)[0]),
            "reads": int(re.findall(r"at most (\d+)", reads)[0]),
        }

    with Store(stage.store.dir) as store:
        for n in range(60):
            store.put(f"k{n}", "v")
            if n % 2:
                store.get("k1")
        revision = store.info().revision
    most = eventually(lambda: m if min((m := seen()).values()) >= 10 else None, what="the chart")
    assert most["reads"] <= 62
    eventually(lambda: f"Revision\n{revision}" in stage.tab.text("#facts"), what="the revision")
    assert "Keys\n62" in stage.tab.text("#facts")
    assert stage.tab.run("document.querySelector('#chart .line.w').getAttribute('d')")
    assert all("up to date" in row[3] for row in eventually(lambda: settled(stage)).values())


def settled(stage: Stage) -> dict[str, list[str]]:
    rows = stage.rows()
    return rows if all("up to date" in row[3] for row in rows.values()) else {}


SLOW = """
[...document.querySelectorAll("#slow-rows tr")].map(row =>
  [...row.children].map(cell => [...cell.children].map(one => one.textContent)))
"""


def test_slow_requests(stage: Stage) -> None:
    """A key may be anything: it is shown as text, and does nothing. What is shown stays."""
    text = r'<img src=x onerror="window.planted=1">\x00\x1b[31m\xff\u202e&amp;' + "z" * 11 + "…"

    def seen() -> dict[str, list[list[str]]]:
        rows = {row[4][1]: row for row in stage.tab.run(SLOW)}
        return rows if {text, "z" * 64 + "…"} <= rows.keys() else {}

    row = eventually(seen, 20, "both keys")[text]
    (at, replica), (took, ended), (waited, _), (client, session), (verb, _) = row
    assert re.fullmatch(r"\d\d:\d\d:\d\d", at)
    assert re.fullmatch(r"replica \d", replica)
    assert int(took.split("\u00a0")[0].replace(",", "")) > 100
    assert (verb, waited) == ("put", "a majority")
    assert ended in ("done", "outcome unknown")
    assert re.fullmatch(r"client \d+", client)
    assert re.fullmatch("session [0-9a-f]{8}", session)
    assert stage.tab.run("document.querySelectorAll('main img').length") == 0
    assert stage.tab.run("window.planted === undefined")
    assert stage.tab.run("document.getElementById('slow-none').hidden")
    looked = "document.getElementById('time').textContent"
    before = stage.tab.run(looked)
    eventually(lambda: stage.tab.run(looked) != before, 10, "another look")
    assert seen()[text] == row


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 700, 1280])
def test_it_fits_and_can_be_read(stage: Stage, width: int, dark: bool) -> None:
    stage.tab.size(width, 900, dark=dark)
    try:
        stage.says("All 3 voters")
        eventually(lambda: stage.tab.run("document.querySelector('#chart text') !== null"))
        wide = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
        assert stage.tab.run(wide) <= stage.tab.run("window.innerWidth") == width
        texts = stage.tab.run(CONTRAST)
        assert len(texts) > 50
        assert [one for one in texts if one[0] < 4.5 or one[1] < 12] == []
        paper = stage.tab.run("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper))) < 200) == dark
        if PICTURES:
            stage.tab.picture(Path(PICTURES) / f"page-{width}-{'dark' if dark else 'light'}.png")
    finally:
        stage.tab.size(1280, 900)


@pytest.mark.parametrize("width", [320, 1280])
def test_what_a_screen_reader_is_told(stage: Stage, width: int) -> None:
    stage.tab.size(width, 900)
    try:
        tree = stage.tab.tree()
    finally:
        stage.tab.size(1280, 900)
    roles = [role for role, _ in tree]
    assert ("table", "Replicas") in tree
    assert ("table", "Slow requests") in tree
    rows = stage.tab.run("document.querySelectorAll('#slow-rows tr').length")
    assert roles.count("row") == 4 + 1 + rows
    assert [name for role, name in tree if role == "columnheader"] == [
        "Replica", "Role", "Log", "Applied", "Disk", "Memory", "Slow turns",
        "Over at", "Took", "Waited for", "Client", "Request",
    ]  # fmt: skip
    assert roles.count("rowheader") == 3
    assert "status" in roles
    assert "main" in roles
    (picture,) = [name for role, name in tree if role == "image"]
    assert picture.startswith("Writes: ")
    headings = [name for role, name in tree if role == "heading"]
    assert headings == ["store · engine kv", "Requests answered a second", "Replicas",
                        "Slow requests"]  # fmt: skip


def test_the_keyboard_is_enough(stage: Stage) -> None:
    """Tab goes through all that can be used, and shows where it is."""
    been = []
    stage.tab.run("document.activeElement.blur()")
    for _ in range(4):
        stage.tab.press("Tab")
        been.append(stage.tab.run("document.activeElement.innerText.split('\\n')[0]"))
        assert stage.tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert been[2:] == ["as JSON", "for Prometheus"]
    assert [word.split("\t")[0] for word in been[:2]] == ["Replica", "Over at"]


def test_a_stopped_replica_and_its_return(stage: Stage) -> None:
    """It takes connections and says nothing; the page does not wait for it."""
    number = min(stage.store.pids().keys() - {stage.store.leader()})
    pid = stage.store.pids()[number]
    os.kill(pid, signal.SIGSTOP)
    try:
        stage.says(f"2 of 3 voters reachable; replica {number} does not answer", "If one more ends")
        assert stage.roles()[str(number)] == "does not answer"
        assert stage.tab.run("document.body.className") == "care"
    finally:
        os.kill(pid, signal.SIGCONT)
    stage.says("All 3 voters reachable")
    assert eventually(lambda: stage.roles()[str(number)] == "follower")


def test_who_is_added_and_removed(stage: Stage) -> None:
    new = members.add(stage.store.dir)
    stage.says("All 4 voters reachable")
    assert eventually(lambda: stage.roles().get(str(new.id)) in ("follower", "leader"))
    members.remove(stage.store.dir, new.id)
    stage.says("All 3 voters reachable")
    assert eventually(lambda: str(new.id) not in stage.roles())


def test_a_killed_leader(stage: Stage) -> None:
    dead = stage.store.leader()
    stage.store.kill(dead)
    said = stage.says("2 of 3 voters reachable", f"replica {dead} does not answer", "leads term")
    new = int(re.findall(r"replica (\d+) leads", said)[0])
    assert new != dead
    roles = eventually(lambda: r if (r := stage.roles())[str(dead)] == "does not answer" else None)
    assert roles[str(new)] == "leader"


def test_nothing_went_wrong_and_nothing_left(stage: Stage) -> None:
    """All that the page asked for is its own, and nothing of it was refused or threw."""
    assert stage.tab.errors == []
    assert set(stage.tab.requests) == {stage.address, f"{stage.address}status.json"}
    told: dict[str, Any] = json.loads(stage.tab.run("fetch('/status.json').then(a => a.text())"))
    assert told["age"] < 5


def test_what_another_page_could_do(stage: Stage) -> None:
    """The policy stops what the page has no need of, whoever brought it in."""
    assert stage.tab.run(
        "new Promise(done => { const one = document.createElement('script');"
        " one.textContent = 'window.planted = 1'; document.body.append(one);"
        " const two = new Image(); two.onerror = () => done(window.planted === undefined);"
        " two.src = '/metrics'; })"
    )
    failed = [told for method, told in stage.tab.events if method == "Network.loadingFailed"]
    assert failed[-1]["blockedReason"] == "csp"
    assert any("script-src" in one for one in stage.tab.errors)


def test_an_end_of_its_process_is_said(stage: Stage) -> None:
    """What is still shown was true once, and says when."""
    stage.page.process.terminate()
    assert stage.page.wait(20) == 0
    stage.says("Stale since ", "the process that serves this page does not answer")
    assert "stale" in stage.tab.run("document.body.className")
