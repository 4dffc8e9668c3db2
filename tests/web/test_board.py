"""Speeds from counters of processes that come and go, and what is told of a cluster."""

from __future__ import annotations

import json

import pytest
from web.sights import group, sight, status, well

from engine.kv.slow import KEPT
from engine.raft.requests import Slow
from engine.web.board import KEPT_SECONDS, Board, Speed


def count(writes: int, reads: int = 0) -> dict[str, int]:
    return {"write_requests": writes, "read_requests": reads}


def test_speeds_are_sums_of_what_passed() -> None:
    board = Board("store")
    board.see(sight(status(1, counters=count(1000, 50)), status(2, counters=count(7)), at=10))
    board.see(sight(status(1, counters=count(1300, 50)), status(2, counters=count(9, 4)), at=12))
    assert [*board.speeds] == [Speed(12, 151, 2)]


def test_the_first_sight_says_nothing_of_speed() -> None:
    board = Board("store")
    board.see(sight(*well()))
    assert not board.speeds


def test_a_process_that_is_new_counts_from_its_start() -> None:
    board = Board("store")
    board.see(sight(status(1, counters=count(1000)), at=10))
    board.see(sight(status(1, pid=7, up_ms=500, counters=count(30)), at=12))
    assert board.speeds[-1].writes == 15


def test_what_a_silent_one_did_meanwhile_is_of_no_known_time() -> None:
    """Or an hour's work would be seen as that of a second, when it is heard of again."""
    board = Board("store")
    board.see(sight(status(1, counters=count(0)), at=10))
    board.see(sight(status(1, counters=count(10)), status(2, counters=count(100_000)), at=11))
    assert board.speeds[-1].writes == 10


def test_a_silent_one_that_was_just_started_counts() -> None:
    board = Board("store")
    board.see(sight(status(1, counters=count(0)), at=10))
    board.see(sight(status(1), status(2, up_ms=400, counters=count(6)), at=11))
    assert board.speeds[-1].writes == 6


def test_gaps() -> None:
    """When nobody answers, that is not a speed of 0."""
    board = Board("store")
    for at, seen in enumerate([well(), (), (), well()]):
        board.see(sight(*seen, at=at))
    assert [one.writes for one in board.speeds] == [None, None, 0]


def test_five_minutes_are_kept() -> None:
    board = Board("store")
    for at in range(2 * KEPT_SECONDS):
        board.see(sight(*well(), at=at))
    told = board.told(2 * KEPT_SECONDS)["speeds"]
    assert len(told["before"]) == len(told["writes"]) == len(told["reads"]) == KEPT_SECONDS + 1
    assert (told["before"][0], told["before"][-1]) == (KEPT_SECONDS, 0)


def test_told() -> None:
    """All of it, as JSON that a reader in another language understands."""
    board = Board("/somewhere/store/")
    leader, second, _ = well(seats=group("voter", "voter", "learner"))
    board.see(sight(leader, second._replace(applied=20, last=30), at=10))
    board.see(sight(leader, second._replace(applied=20, last=30), at=11))
    told = json.loads(json.dumps(board.told(11.5)))
    assert told["cluster"] == "store"
    assert (told["age"], told["leader"], told["term"], told["revision"]) == (0.5, 1, 4, 44)
    assert told["figures"]["watchers"] == 3
    assert told["level"] == "care"
    assert told["sentences"][0].startswith("All 2 voters reachable; replica 1 leads term 4")
    one, two, three = told["replicas"]
    assert (one["id"], one["role"], one["pid"], one["seat"]) == (1, "leader", 1001, "voter")
    assert (one["log_behind"], one["applied_behind"]) == (0, 0)
    assert (two["log_behind"], two["applied_behind"]) == (20, 30)
    assert (two["cpu"], two["resident_bytes"], two["open_fds"]) == (2.5, 1 << 25, 30)
    assert two["silent_ms"] == 7
    assert two["counters"]["slow_turns"] == 1
    assert three == {"id": 3, "member": 103, "seat": "learner", "reachable": False}


def slow(number: int, ago_ms: int, key: bytes = b"k") -> Slow:
    return Slow(number, ago_ms, 250, "put", key, False, "ann", "05060708", "its disk", "done", 3)


def test_slow_requests() -> None:
    """Those of all replicas, the newest first; ages go on while nobody looks."""
    board = Board("store", keys=True)
    first = status(1, "leader", slow=(slow(1, 5000), slow(4, 500, b"<b>\xff")))
    board.see(sight(first, status(2, slow=(slow(9, 2000),)), at=10))
    newest, *rest = json.loads(json.dumps(board.told(10.25)))["slow"]
    assert newest == {
        "replica": 1, "pid": 1001, "number": 4, "seconds_ago": 0.75, "took_ms": 250, "verb": "put",
        "key": r"<b>\xff", "client": "ann", "session": "05060708", "waited": "its disk",
        "ended": "done", "others": 3,
    }  # fmt: skip
    assert [(one["replica"], one["number"]) for one in rest] == [(2, 9), (1, 1)]
    many = tuple(slow(n, 1000 - n) for n in range(KEPT))
    board.see(sight(status(1, slow=many), status(2, slow=many), at=11))
    assert [one["number"] for one in board.told(11)["slow"][:3]] == [KEPT - 1, KEPT - 1, KEPT - 2]
    assert len(board.told(11)["slow"]) == KEPT


def test_keys_are_told_if_somebody_wants_that() -> None:
    """All who have an account on the machine can look."""
    board = Board("store")
    board.see(sight(status(1, slow=(slow(1, 5, b"secret"),))))
    (told,) = board.told(10)["slow"]
    assert told["key"] is None
    assert "secret" not in json.dumps(told)


def test_told_of_nothing() -> None:
    board = Board("store")
    board.see(sight(problem="store has no cluster.", seats=0))
    told = board.told(10)
    assert (told["level"], told["sentences"]) == ("bad", ("store has no cluster.",))
    assert (told["leader"], told["term"], told["revision"], told["replicas"]) == (None,) * 3 + ([],)


@pytest.mark.parametrize("missing", ["write_requests", "read_requests"])
def test_a_replica_of_an_older_version(missing: str) -> None:
    """It counts less, and nobody fails for it."""
    told = status(1)
    told = told._replace(counters=tuple(one for one in told.counters if one[0] != missing))
    board = Board("store")
    board.see(sight(told, at=1))
    board.see(sight(told, at=2))
    assert board.speeds[-1] == Speed(2, 0, 0)
