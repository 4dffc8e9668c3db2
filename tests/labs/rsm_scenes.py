"""The tests of the labs' replicated state machine (rsm, 4A and 4C of 2025): what happens in them.

The state is the log itself: a command becomes the n-th, which is what its client is told. So every
command counts (the labs' Inc), and Null, which there changes nothing, counts as well; Dec is one
that must never be in any log. Beyond the lab, whatever a client was told is looked up in the logs.

A lab is `raft_process_lab.ProcessLab`, or whatever has its `submit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from raft_common import RETURN_SECONDS

Make = Callable[..., Any]

COUNTED_SECONDS = 30.7
"""30 looks, at growing distances, for so many replicas to hold a value."""
PROMPT_SECONDS = 1.0
"""In which whoever waits hears that all servers are dead. The lab gives them eleven."""


def inc(lab: Any) -> int:
    """A command that must be done; what its client is told."""
    asked = lab.submit(lab.command())
    assert lab.until(lambda: asked.over, RETURN_SECONDS), f"no answer: {lab.picture()}"
    assert asked.place, f"not done: {asked.error}"
    return int(asked.place)


def at_once(lab: Any, kind: bytes, many: int, *among: int) -> list[Any]:
    """Commands of many clients."""
    return [lab.submit(kind + lab.command(), *among) for _ in range(many)]


def over(asked: Iterable[Any]) -> bool:
    return all(one.over for one in asked)


def check_counter(lab: Any, value: int, servers: int, seconds: float = COUNTED_SECONDS) -> None:
    """So many replicas hold this value, soon."""

    def hold() -> bool:
        return sum(len(lab.log(at)) == value for at in range(3) if lab.is_up(at)) >= servers

    assert lab.until(hold, seconds), f"not {value} on {servers}: {lab.picture()}"


def check_told(lab: Any, asked: Iterable[Any]) -> None:
    """What was acknowledged is where it was said to be, and nothing is there twice."""
    log = lab.log(0)
    for one in asked:
        if one.place:
            assert log[one.place - 1] == one.body, (one.body, one.place, log[one.place - 1])
    assert len(set(log)) == len(log), "a command was done twice"


def basic4a(make: Make) -> None:
    """Ten commands, one after another, are told 1 to 10."""
    lab = make(3)
    for turn in range(1, 11):
        assert inc(lab) == turn
    check_counter(lab, 10, 3)


def concurrent4a(make: Make) -> None:
    """Fifty at once. Beyond the lab, each is told another number."""
    lab = make(3)
    asked = at_once(lab, b"Inc", 50)
    assert lab.until(lambda: over(asked), RETURN_SECONDS)
    assert sorted(one.place for one in asked) == list(range(1, 51))
    check_counter(lab, 50, 3)
    check_told(lab, asked)


def leader_failure4a(make: Make) -> None:
    """Two go on without their leader, which hears of it when it comes back."""
    lab = make(3)
    assert inc(lab) == 1
    leader = lab.check_one_leader()
    lab.disconnect(leader)
    assert inc(lab) == 2
    check_counter(lab, 2, 2)
    lab.connect(leader)
    check_counter(lab, 2, 3)


def leader_partition4a(make: Make) -> None:
    """A hundred commands are given to a leader that is alone, while the others go on: none is done,
    and all who wait hear that. In the lab they may wait until a second after the heal; here a
    leader that is alone notices it. Also it is seen to have taken them, and no log has them."""
    lab = make(3)
    assert inc(lab) == 1
    leader = lab.check_one_leader()
    last = lab.last(leader)
    lab.disconnect(*[at for at in range(3) if at != leader])
    vain = at_once(lab, b"Dec", 100, leader)
    assert lab.until(lambda: lab.last(leader) > last, 0.5), "the leader did not take them"
    lab.disconnect(leader)
    lab.connect(*[at for at in range(3) if at != leader])
    lab.run_for(0.01)
    assert inc(lab) == 2
    lab.run_for(1.0)
    assert lab.until(lambda: over(vain), 1.0), "some who waited were not told"
    lab.connect(leader)
    assert not any(one.place for one in vain)
    assert inc(lab) == 3
    check_counter(lab, 3, 3)
    for at in range(3):
        assert not any(command.startswith(b"Dec") for command in lab.log(at))


def restart_replay4a(make: Make, commands: int = 100) -> None:
    """After a hundred all are stopped for a second, and then go on with the next."""
    lab = make(3)
    for turn in range(1, commands + 1):
        assert inc(lab) == turn
        check_counter(lab, turn, 3)
    lab.crash(0, 1, 2)
    lab.run_for(1.0)
    lab.restart(0, 1, 2)
    assert inc(lab) == commands + 1
    check_counter(lab, commands + 1, 3, 1.0)


def shutdown4a(make: Make) -> None:
    """All servers end while a hundred wait, who must hear it. Beyond the lab, once more with a
    leader that is alone, so that all do wait: there a second must do, and nobody is told that it
    was done."""
    lab = make(3)
    inc(lab)
    asked = at_once(lab, b"Null", 100)
    lab.run_for(0.02)
    lab.crash(0, 1, 2)
    assert lab.until(lambda: over(asked), RETURN_SECONDS)
    lab.restart(0, 1, 2)
    inc(lab)
    leader = lab.check_one_leader()
    last = lab.last(leader)
    lab.disconnect(*[at for at in range(3) if at != leader])
    vain = at_once(lab, b"Null", 100, leader)
    assert lab.until(lambda: lab.last(leader) > last, 0.5), "the leader did not take them"
    lab.crash(0, 1, 2)
    assert lab.until(lambda: over(vain), PROMPT_SECONDS)
    assert not any(one.place for one in vain)
    lab.restart(0, 1, 2)
    value = inc(lab)
    check_counter(lab, value, 3)
    check_told(lab, asked)


def restart_submit4a(make: Make, commands: int = 100) -> None:
    """Requests of before a restart, and of before another that came amid a hundred, are not taken
    for those of after it."""
    lab = make(3)
    asked = []
    for turn in range(1, commands + 1):
        assert inc(lab) == turn
    check_counter(lab, commands, 3)
    lab.restart(0, 1, 2)
    assert inc(lab) == commands + 1
    lab.run_for(1.0)
    asked = at_once(lab, b"Null", 100)
    lab.run_for(0.02)
    lab.crash(0, 1, 2)
    assert lab.until(lambda: over(asked), RETURN_SECONDS)
    lab.restart(0, 1, 2)
    value = inc(lab)
    done = sum(bool(one.place) for one in asked)
    assert commands + 1 + done < value <= commands + 102
    check_counter(lab, value, 3)
    check_told(lab, asked)


def snapshot4c(make: Make, commands: int = 100) -> None:
    """Logs stay under twice their limit of a thousand bytes, and begin again from snapshots."""
    lab = make(3, snapshots=True)
    for turn in range(1, commands + 1):
        assert inc(lab) == turn
    check_counter(lab, commands, 3)
    size = lab.log_bytes()
    assert size <= 2 * 1000, f"{size} bytes of log"
    lab.restart(0, 1, 2)
    assert inc(lab) == commands + 1
    check_counter(lab, commands + 1, 3)
    assert lab.loads() >= 3, "somebody began without a snapshot"
