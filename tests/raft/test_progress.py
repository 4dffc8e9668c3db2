"""What a leader knows of a follower, turn by turn."""

from __future__ import annotations

import random

import pytest
from support import dose

from engine.raft.progress import PROBE, STREAM, Progress

MS = 1_000_000


def streaming(*sent: tuple[int, int]) -> Progress:
    """After entry 10, with messages on their way: (last index, when in ms)."""
    progress = Progress(10, 0)
    progress.state = STREAM
    progress.matched(10, 0)
    for last, when in sent:
        progress.in_flight.append((last, when * MS))
        progress.next = last + 1
    return progress


def test_it_begins_behind_the_leaders_log_and_knows_nothing() -> None:
    progress = Progress(10, 5)
    assert (progress.state, progress.match, progress.next, progress.heard) == (PROBE, 0, 11, 5)
    assert not progress.paused


def test_an_answer_ends_every_message_up_to_it() -> None:
    progress = streaming((12, 0), (15, 1), (20, 2))
    progress.matched(15, 9 * MS)
    assert [last for last, _ in progress.in_flight] == [20]
    assert (progress.match, progress.next) == (15, 21)


def test_an_answer_of_before_moves_nothing_back() -> None:
    progress = streaming((12, 0), (15, 1))
    progress.matched(15, 2 * MS)
    progress.matched(12, 3 * MS)
    assert (progress.match, progress.next) == (15, 16)


def test_an_answer_beyond_what_was_sent_takes_next_along() -> None:
    progress = Progress(3, 0)
    progress.matched(9, 0)
    assert (progress.match, progress.next) == (9, 10)


def test_an_unanswered_piece_comes_again_later_each_time() -> None:
    progress = Progress(10, 0)
    progress.begin_snapshot(9)
    now, waits = 0, []
    for _ in range(7):
        progress.gave_piece(now)
        waits.append((progress.piece_at(40 * MS) - now) // MS)
        now = progress.piece_at(40 * MS)
        progress.sent = now  # what else is said does not count
    assert waits == [40, 80, 160, 320, 640, 640, 640]
    progress.paused = False  # it was answered
    progress.gave_piece(now)
    assert progress.piece_at(40 * MS) == now + 40 * MS


def test_a_probe_never_asks_about_what_is_known() -> None:
    progress = streaming((15, 0))
    progress.paused = True
    progress.probe(3)
    assert (progress.state, progress.next, progress.paused) == (PROBE, 11, False)
    assert not progress.in_flight
    progress.probe(14)
    assert progress.next == 14


@pytest.mark.parametrize("seed", range(dose(50, 2000)))
def test_next_is_always_behind_match(seed: int) -> None:
    rng = random.Random(seed)
    progress, match = Progress(rng.randint(0, 9), 0), 0
    for now in range(50):
        if rng.random() < 0.5:
            index = rng.randint(0, 20)
            progress.matched(index, now)
            match = max(match, index)
        else:
            progress.probe(rng.randint(0, 20))
        assert progress.match == match < progress.next


def test_the_trip_is_smoothed() -> None:
    progress = streaming((11, 0))
    progress.matched(11, 8 * MS)
    assert progress.trip == 2 * MS
    for _ in range(60):
        progress.in_flight.append((progress.next, 0))
        progress.matched(progress.next, 8 * MS)
    assert 7.9 * MS < progress.trip <= 8 * MS


def test_one_message_at_a_time_where_the_way_is_short() -> None:
    progress = streaming()
    assert progress.window(disk=0, most=8) == 1
    progress.trip = MS // 2
    assert progress.window(disk=2 * MS, most=8) == 1


def test_more_messages_where_the_way_is_long_but_not_beyond_the_most() -> None:
    progress = streaming()
    progress.trip = 100 * MS
    assert progress.window(disk=5 * MS, most=8) == 4
    assert progress.window(disk=0, most=8) == 8
    assert progress.window(disk=1000 * MS, most=8) == 1
