"""One question to many, of whom some are silent, late or gone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from web.sights import status

from engine.contract import Linked, Received, peer
from engine.web.lookout import PATIENCE, AskAll, Lookout, process_of

A, B = "ipc:///a", "ipc:///b"


def begun(up: set[str]) -> AskAll:
    call = AskAll([A, B], up, 7)
    call.step(0, [])
    return call


def told(address: str, number: int = 7) -> Received:
    return Received(peer(address), status(1)._replace(number=number))


def said(call: AskAll) -> list[str]:
    return [send.link.principal for send in call.ready().now]


def answers(call: AskAll) -> Any:
    return None if call.outcome is None else set(call.outcome.answer)


def test_it_ends_with_the_last_answer() -> None:
    call = begun({A, B})
    assert said(call) == [A, B]
    call.step(1, [told(A)])
    assert answers(call) is None
    call.step(2, [told(B)])
    assert answers(call) == {A, B}


def test_an_answer_to_an_earlier_question_is_none() -> None:
    """It would be of a time before this look."""
    call = begun({A, B})
    call.step(1, [told(A), told(B, number=6)])
    assert answers(call) is None


def test_who_is_silent_is_not_waited_for() -> None:
    call = begun({A, B})
    call.step(1, [told(A)])
    call.step(PATIENCE - 1, [])
    assert answers(call) is None
    call.step(PATIENCE, [])
    assert answers(call) == {A}


def test_who_goes_is_not_waited_for_either() -> None:
    call = begun({A, B})
    call.step(1, [told(A)])
    call.step(2, [Linked(peer(B), False)])
    assert answers(call) == {A}


def test_who_comes_is_asked() -> None:
    """What is said to one that is not there is lost."""
    call = begun({A})
    said(call)
    call.step(1, [told(A), Linked(peer(B), True)])
    assert said(call) == [B]
    call.step(2, [told(B)])
    assert answers(call) == {A, B}


def test_a_folder_without_a_cluster(tmp_path: Path) -> None:
    with Lookout(str(tmp_path)) as lookout:
        seen = lookout.look()
    assert "has no cluster" in seen.problem
    assert (seen.seats, seen.leader) == ((), 0)


def test_processes() -> None:
    mine = process_of(os.getpid())
    assert mine is not None
    assert mine.open_fds > 2
    assert mine.resident_bytes > 1 << 20
    assert mine.cpu_seconds > 0
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    assert process_of(child) is None
