"""Figures as Prometheus itself reads them, and the board that stands on their names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from support import need
from tidy import ROOT
from web.sights import SEATS, THREE, sight, status, well

from engine.kv.metrics import COUNTERS, PREFIX, names, text_of
from engine.raft.requests import Status
from engine.web.lookout import Sight

BOARD = ROOT / "docs/grafana.json"
ALL = dict.fromkeys(COUNTERS, 3) | {"clients_refused_token": 2}


def text(seen: Sight) -> str:
    return text_of(seen.seats, seen.statuses, seen.processes)


def parsed(seen: Sight) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Series by name and labels, as the client library of Prometheus understands the text."""
    families = need("prometheus_client.parser", "test").text_string_to_metric_families(text(seen))
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in families:
        assert family.documentation.endswith("."), family.name
        assert family.type in ("gauge", "counter"), family.name
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample
            series = found.setdefault(sample.name, {})
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in series, sample
            series[labels] = sample.value
    return found


def value(seen: Sight, name: str, replica: int, **labels: str) -> float:
    key = tuple(sorted({"replica": str(replica), **labels}.items()))
    return parsed(seen)[PREFIX + name][key]


def test_every_name_is_there_and_no_other() -> None:
    """Whoever renames one breaks somebody's board: then it goes into the change log."""
    leader, *others = (one._replace(counters=tuple(ALL.items())) for one in well())
    assert parsed(sight(leader, *others)).keys() == names()


def test_values() -> None:
    lagging = [one._replace(match=30, silent_ms=250) if one.id == 103 else one for one in THREE]
    leader = status(1, "leader", seats=tuple(lagging), up_ms=1500, counters=ALL)
    seen = sight(leader, status(2, full=True, applied=20))
    for name, replica, expected in (
        ("up", 1, 1), ("up", 3, 0), ("leads", 1, 1), ("leads", 2, 0), ("term", 2, 4),
        ("commit_index", 2, 50), ("applied_index", 2, 20), ("last_index", 1, 51),
        ("revision", 1, 44), ("disk_full", 1, 0), ("disk_full", 2, 1), ("up_seconds", 1, 1.5),
        ("follower_lag_entries", 2, 11), ("follower_lag_entries", 3, 21),
        ("follower_silent_seconds", 3, 0.25), ("votes", 3, 1), ("keys", 1, 5), ("watchers", 2, 3),
        ("write_requests_total", 1, 3), ("peers_sent_total", 1, 3), ("slow_turns_total", 2, 1),
        ("process_cpu_seconds_total", 1, 25), ("process_resident_bytes", 2, 1 << 25),
        ("process_open_fds", 1, 30),
    ):  # fmt: skip
        assert value(seen, name, replica) == expected, name
    assert value(seen, "role", 1, role="leader") == value(seen, "role", 2, role="follower") == 1
    assert value(seen, "role", 2, role="leader") == 0


def test_a_counter_that_is_new_here() -> None:
    """A replica may count what we have not heard of."""
    seen = sight(status(1, counters={"admin_surprises": 8}))
    assert value(seen, "admin_surprises_total", 1) == 8


def test_refusals_are_by_reason() -> None:
    seen = sight(status(1, counters=ALL))
    labels = {"endpoint": "clients", "reason": "token"}
    assert value(seen, "refused_by_reason_total", 1, **labels) == 2
    assert "engine_kv_clients_refused_token" not in text(seen)


def test_nobody_answers() -> None:
    seen = parsed(sight())
    assert seen.keys() == {PREFIX + "up"}
    assert set(seen[PREFIX + "up"].values()) == {0}
    assert text_of((), {}, {}) == "\n"


@pytest.mark.parametrize("terms", [(4, 5), (5, 4)])
def test_lag_is_by_the_latest_leader(terms: tuple[int, int]) -> None:
    """One that was cut off leads in its own eyes, and knows nothing of the others any more."""
    first, second = terms
    seen = sight(status(1, "leader", term=first, last=1000), status(2, "leader", term=second))
    latest = 1 if first > second else 2
    assert value(seen, "follower_lag_entries", 3) == (960 if latest == 1 else 11)


def test_a_member_without_a_seat_goes_by_its_number() -> None:
    leader: Status = status(1, "leader")
    told = parsed(Sight(1.0, SEATS[:1], {1: leader}, {}))
    assert (("replica", "103"),) in told[PREFIX + "follower_lag_entries"]


# --- the board -----------------------------------------------------------------------------------


def queries(value: Any) -> Iterator[str]:
    """All of a board."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "query", "definition") and isinstance(inner, str):
                yield inner
            else:
                yield from queries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from queries(inner)


def test_the_board_asks_for_what_there_is() -> None:
    asked = [one for one in queries(json.loads(BOARD.read_text())) if one != "prometheus"]
    used = {name for one in asked for name in re.findall(r"\bengine_\w+", one)}
    assert used <= names(), used - names()
    assert len(used) > 20
    for one in asked:
        assert re.search(r"\bengine_kv_", one), one
        for name in re.findall(r"\bengine_\w+", one):
            counted = re.search(rf"(rate|increase)\({name}\b", one) is not None
            assert counted == name.endswith("_total"), one


def test_the_board_is_one_grafana_takes() -> None:
    board = json.loads(BOARD.read_text())
    assert board["uid"] == "engine-kv"
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        assert panel["datasource"]["uid"] == "${source}", panel["title"]
        assert panel["targets"]
        assert panel["description"].endswith("."), panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    taken = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken)), "panels lie on one another"


def test_the_documentation_has_every_name() -> None:
    told = (ROOT / "docs/page.md").read_text()
    ends = re.findall(r"`(peers|clients|admin)_…_total`", told)
    assert len(ends) == 3
    for name in sorted(one.removeprefix(PREFIX) for one in names()):
        if not name.startswith(tuple(f"{end}_" for end in ends)):
            assert re.search(rf"`{name}[`{{]", told), name
    used = set(re.findall(r"\bengine_kv_\w+", told)) - {PREFIX}
    assert used <= names(), used - names()
