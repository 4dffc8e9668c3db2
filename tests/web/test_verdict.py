"""What is said of a cluster, for all that may be wrong with it."""

from __future__ import annotations

import pytest
from web.sights import group, sight, status, well

from engine.raft.requests import Status
from engine.web.lookout import Sight
from engine.web.verdict import BAD, BEHIND, CARE, GOOD, members, verdict

LAST = "If one more ends, nothing can be written."
FOUR = group("voter", "voter", "voter", "learner")


def one(number: int, **others: object) -> tuple[Status, ...]:
    """All well but for this replica."""
    return tuple(s._replace(**others) if s.member == 100 + number else s for s in well())


@pytest.mark.parametrize(
    ("seen", "level", "text"),
    [
        (sight(*well()), GOOD, "All 3 voters reachable; replica 1 leads term 4."),
        (
            sight(*well()[:2]),
            CARE,
            f"2 of 3 voters reachable; replica 3 does not answer; replica 1 leads term 4. {LAST}",
        ),
        (
            sight(status(2), status(3)),
            BAD,
            "Nobody leads: 2 of 3 voters reachable; replica 1 does not answer.",
        ),
        (
            sight(status(2)),
            BAD,
            "Nothing can be written: 1 of 3 voters reachable, 2 needed; replicas 1 and 3 do not "
            "answer.",
        ),
        (sight(), BAD, "No replica answers: is the cluster up?"),
        (sight(problem="store has no cluster."), BAD, "store has no cluster."),
        (
            sight(*one(2, full=True)),
            CARE,
            "All 3 voters reachable; replica 1 leads term 4. Replica 2 has no space on its disk.",
        ),
        (
            sight(*one(3, lost=True, applied=50 - BEHIND)),
            CARE,
            "All 3 voters reachable; replica 1 leads term 4. Replica 3 repairs its log, and does "
            "not vote before.",
        ),
        (
            sight(*(s._replace(commit=BEHIND + 61) for s in one(3, applied=60))),
            CARE,
            "All 3 voters reachable; replica 1 leads term 4. Replica 1 is 10,011 entries behind. "
            "Replica 2 is 10,011 entries behind. Replica 3 is 10,001 entries behind.",
        ),
        (
            sight(*well(seats=FOUR), status(4, seats=FOUR), seats=4),
            CARE,
            "All 3 voters reachable; replica 1 leads term 4. Replica 4 learns and does not vote "
            "yet.",
        ),
        (
            sight(*well(), status(4, role="candidate", seats=()), seats=4),
            CARE,
            "All 3 voters reachable; replica 1 leads term 4. Replica 4 is no member of the group.",
        ),
        (
            sight(*well(joint=True)),
            CARE,
            "All 3 voters reachable; replica 1 leads term 4. The members are being changed.",
        ),
        (
            sight(*well(), seats=4),
            CARE,
            "All 3 voters reachable; replica 1 leads term 4; replica 4 does not answer.",
        ),
        (
            sight(status(1, "leader", seats=group("voter")), seats=1),
            GOOD,
            "The only voter reachable; replica 1 leads term 4.",
        ),
        (
            sight(*well(seats=group(*["voter"] * 5)), seats=5),
            CARE,
            "3 of 5 voters reachable; replicas 4 and 5 do not answer; replica 1 leads term 4. "
            f"{LAST}",
        ),
        (
            sight(*well(seats=group(*["voter"] * 5)), status(4), seats=5),
            CARE,
            "4 of 5 voters reachable; replica 5 does not answer; replica 1 leads term 4.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sentences(seen: Sight, level: str, text: str) -> None:
    judged = verdict(seen)
    assert (judged.text, judged.level) == (text, level)


def test_an_old_leader_does_not_count() -> None:
    """One that was cut off believes in its term until it hears of another."""
    old = status(3, "leader", term=3)
    assert verdict(sight(status(1, "leader"), status(2), old)).text == (
        "All 3 voters reachable; replica 1 leads term 4."
    )


def test_members_without_a_seat() -> None:
    """Somebody has added one by other means than `engine kv member`."""
    known = members(sight(*well(seats=group(*["voter"] * 4))))
    assert (known.voters, known.votes) == ((1, 2, 3), 4)


def test_members_while_nobody_leads() -> None:
    """Whoever has committed most knows best."""
    new, old = group("voter", "voter", "learner"), group("voter")
    told = (status(1, seats=old, commit=3), status(2, seats=new, commit=4))
    assert members(sight(*told)).learners == (3,)
    assert members(sight(*told)).votes == 2
