"""The judge of traces: a story of three members in which all is well, and what is wrong with each
way to spoil it; files that are no traces; and `engine verify --trace`."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raft import watched
from support import dose, engine

from engine.errors import NotFoundError, UsageError
from engine.verify.trace import Judged, judge
from engine_cmd import main as program

Row = dict[str, Any]
MEMBERS = (1, 2, 3)
LIFE: Row = {
    "version": 1, "wall": 1000, "boot": "b", "pid": 1, "term": 0, "vote": 0, "base": [0, 0],
    "terms": [], "configs": [[0, [1, 2, 3], []]], "lost": None, "snapshot": None, "commit": 0,
}  # fmt: skip


class Story:
    """Events of all members in their order, each `(member, event)`; a turn for each `at`."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, Row]] = []
        self.now = 0

    def note(self, member: int, event: str, **fields: Any) -> None:
        self.now += 10
        if event == "life":
            fields = LIFE | {"member": member} | fields
        if event == "say":
            fields = {"after": 0, "pre": False} | fields
        self.rows.append((member, {"at": self.now, "event": event, **fields}))

    def role(self, member: int, role: str, term: int, leader: int = 0) -> None:
        self.note(member, "role", role=role, term=term, leader=leader)

    def write(self, member: int, ticket: int, *records: list[Any]) -> None:
        self.note(member, "write", ticket=ticket, records=list(records))

    def say(self, member: int, what: str, term: int, to: int, **fields: Any) -> None:
        self.note(member, "say", what=what, term=term, to=to, **fields)

    def save(self, folder: Path) -> list[str]:
        """A file for each member."""
        folder.mkdir(exist_ok=True)
        for member in MEMBERS:
            lines = [json.dumps(row) + "\n" for who, row in self.rows if who == member]
            (folder / f"{member}.jsonl").write_text("".join(lines))
        return [str(folder / f"{member}.jsonl") for member in MEMBERS]

    # --- spoiling it ---

    def find(self, member: int, event: str, **fields: Any) -> int:
        """The place of the first event that has these fields."""
        for place, (who, row) in enumerate(self.rows):
            if who == member and row["event"] == event and fields.items() <= row.items():
                return place
        raise AssertionError(f"member {member} has no {event} {fields}")

    def alter(self, member: int, event: str, where: Row, **fields: Any) -> None:
        self.rows[self.find(member, event, **where)][1].update(fields)

    def drop(self, member: int, event: str, **where: Any) -> None:
        del self.rows[self.find(member, event, **where)]

    def until(self, member: int, event: str, **where: Any) -> None:
        """It ends behind this event."""
        place = self.find(member, event, **where)
        del self.rows[place + 1 :]
        self.now = self.rows[-1][1]["at"]


def told() -> Story:
    """Member 1 is elected by 2 in term 1, and decides two entries with it; 2 dies and is there
    again. Then 3, which heard of nothing, asks in term 2, in vain."""
    story = Story()
    for member in MEMBERS:
        story.note(member, "life")
        story.role(member, "follower", 0)
        story.note(member, "config", entry=0, voters=[1, 2, 3], outgoing=[])
    story.role(1, "candidate", 1)
    story.write(1, 1, ["state", 1, 1])
    story.note(1, "durable", ticket=1)
    for other in (2, 3):
        story.say(1, "VoteRequest", 1, other)
    story.role(2, "follower", 1)
    story.write(2, 1, ["state", 1, 1])
    story.note(2, "durable", ticket=1)
    story.say(2, "VoteReply", 1, 1, granted=True, after=1)
    story.role(1, "leader", 1, 1)
    story.write(1, 2, ["append", 1, [[1, 0, 0]]])
    story.say(1, "AppendEntries", 1, 2)
    story.role(2, "follower", 1, 1)
    story.write(2, 2, ["append", 1, [[1, 0, 0]]])
    story.note(1, "durable", ticket=2)
    story.note(2, "durable", ticket=2)
    story.say(2, "AppendReply", 1, 1, accepted=True, match=1, after=2)
    story.note(1, "commit", to=1)
    story.note(1, "apply", first=1, entries=[[1, 0]])
    story.write(1, 3, ["append", 2, [[1, 1, 77]]])
    story.say(1, "AppendEntries", 1, 2)
    story.note(2, "hear", term=1)
    story.write(2, 3, ["append", 2, [[1, 1, 77]]])
    story.note(2, "commit", to=1)
    story.note(2, "apply", first=1, entries=[[1, 0]])
    story.note(2, "durable", ticket=3)
    story.say(2, "AppendReply", 1, 1, accepted=True, match=2, after=3)
    story.note(1, "durable", ticket=3)
    story.note(1, "commit", to=2)
    story.note(1, "apply", first=2, entries=[[1, 77]])
    story.note(1, "ask", context=5)
    story.note(1, "read", context=5, last=2)
    story.note(1, "take")
    story.note(1, "taken", last=2)
    story.note(2, "life", term=1, vote=1, terms=[[1, 2]])
    story.role(2, "follower", 1, 1)
    story.note(2, "commit", to=2)
    story.note(2, "apply", first=1, entries=[[1, 0], [1, 77]])
    story.role(3, "candidate", 2)
    story.write(3, 1, ["state", 2, 3])
    story.note(3, "durable", ticket=1)
    story.say(3, "VoteRequest", 2, 2)
    story.role(2, "follower", 2)
    story.write(2, 1, ["state", 2, 0])
    story.note(2, "durable", ticket=1)
    story.say(2, "VoteReply", 2, 3, granted=False)
    story.note(1, "end")
    return story


def judged(story: Story, folder: Path) -> Judged:
    return judge(story.save(folder))


def test_the_story_is_right(tmp_path: Path) -> None:
    found = judged(told(), tmp_path)
    assert found.violations == []
    assert (found.members, found.lives, found.elections, found.entries) == (3, 4, 1, 2)


# --- spoilt --------------------------------------------------------------------------------------

Spoil = Callable[[Story], None]
SPOILT: dict[str, tuple[str, str, Spoil]] = {}
"""By name: the rule that it breaks, what is said of it, and how it is done."""


def breaks(rule: str, words: str = "") -> Callable[[Spoil], Spoil]:
    def keep(spoil: Spoil) -> Spoil:
        SPOILT[spoil.__name__] = rule, words, spoil
        return spoil

    return keep


@breaks("election safety")
def two_leaders(story: Story) -> None:
    story.until(1, "commit", to=1)
    story.role(3, "leader", 1, 3)


@breaks("election safety")
def speaks_for_the_leader(story: Story) -> None:
    story.say(3, "AppendEntries", 2, 1)


@breaks("election safety")
def makes_an_entry_of_another_term(story: Story) -> None:
    story.write(3, 2, ["append", 1, [[2, 0, 0]]])


@breaks("election safety")
def follows_nobody_in_particular(story: Story) -> None:
    story.alter(2, "role", {"term": 2}, leader=3)


@breaks("promises", "votes for 3 in term 1, and its disk")
def votes_twice(story: Story) -> None:
    story.until(2, "say", what="VoteReply")
    story.say(2, "VoteReply", 1, 3, granted=True)


@breaks("promises", "and voted for 1")
def votes_twice_in_two_lives(story: Story) -> None:
    story.until(2, "life", vote=1)
    story.say(2, "VoteReply", 1, 3, granted=True)


@breaks("promises", "speaks in term")
def votes_before_it_is_durable(story: Story) -> None:
    story.drop(2, "durable", ticket=1)
    story.alter(2, "say", {"what": "VoteReply"}, after=0)


@breaks("promises")
def asks_before_it_is_durable(story: Story) -> None:
    story.drop(3, "durable", ticket=1)


@breaks("promises", "acknowledges entry 2, and its disk")
def acknowledges_before_it_is_durable(story: Story) -> None:
    story.drop(2, "durable", ticket=3)
    story.alter(2, "say", {"what": "AppendReply", "match": 2}, after=0)


@breaks("quorum")
def is_not_voted_for(story: Story) -> None:
    story.drop(2, "say", what="VoteReply")


@breaks("quorum")
def is_refused(story: Story) -> None:
    story.alter(2, "say", {"what": "VoteReply"}, granted=False)


@breaks("log matching")
def another_entry(story: Story) -> None:
    story.alter(2, "write", {"ticket": 3}, records=[["append", 2, [[1, 1, 78]]]])


@breaks("log matching")
def a_gap(story: Story) -> None:
    story.alter(2, "write", {"ticket": 3}, records=[["append", 3, [[1, 1, 77]]]])


@breaks("log matching")
def behind_another_entry(story: Story) -> None:
    story.until(1, "apply", first=2)
    story.write(3, 1, ["state", 1, 0], ["append", 1, [[0, 0, 0]]], ["append", 2, [[1, 1, 77]]])


@breaks("append only", "leads, and replaces")
def a_leader_replaces(story: Story) -> None:
    story.until(1, "write", ticket=3)
    story.write(1, 4, ["append", 2, [[1, 1, 79]]])


@breaks("append only", "and has committed 1")
def what_is_committed_is_replaced(story: Story) -> None:
    story.until(1, "apply", first=2)
    story.write(2, 4, ["append", 1, [[1, 0, 0], [1, 1, 77]]])


@breaks("append only", "by itself")
def what_is_right_is_replaced(story: Story) -> None:
    story.until(2, "durable", ticket=2)
    story.write(2, 3, ["append", 1, [[1, 0, 0], [1, 1, 77]]])


@breaks("leader completeness")
def leads_without_what_is_committed(story: Story) -> None:
    story.alter(2, "say", {"what": "VoteReply", "term": 2}, granted=True)
    story.alter(2, "write", {"ticket": 1, "records": [["state", 2, 0]]}, records=[["state", 2, 3]])
    story.role(3, "leader", 2, 3)


@breaks("state machine safety")
def applies_something_else(story: Story) -> None:
    story.alter(1, "apply", {"first": 2}, entries=[[1, 78]])


@breaks("state machine safety")
def applies_twice(story: Story) -> None:
    story.alter(1, "apply", {"first": 2}, first=1, entries=[[1, 0], [1, 77]])


@breaks("state machine safety")
def applies_early(story: Story) -> None:
    story.alter(2, "apply", {"first": 1}, entries=[[1, 0], [1, 77]])


@breaks("state machine safety")
def goes_back(story: Story) -> None:
    story.until(1, "taken")
    story.note(1, "load", last=1, term=1)


@breaks("commit")
def commits_on_one_disk(story: Story) -> None:
    story.drop(2, "durable", ticket=2)
    story.drop(2, "say", what="AppendReply", match=1)


@breaks("commit")
def commits_what_no_leader_did(story: Story) -> None:
    story.alter(2, "commit", {"to": 1}, to=2)


@breaks("commit", "of term 1 as the leader of term 4")
def commits_an_old_term(story: Story) -> None:
    story.until(1, "apply", first=1)
    story.write(1, 3, ["state", 4, 1])
    story.note(1, "durable", ticket=3)
    story.role(1, "leader", 4, 1)
    story.note(1, "commit", to=1)


@breaks("monotone")
def commit_falls(story: Story) -> None:
    story.until(1, "apply", first=2)
    story.note(1, "commit", to=1)


@breaks("monotone")
def term_falls(story: Story) -> None:
    story.role(3, "follower", 1)


@breaks("monotone")
def does_not_take_a_later_term(story: Story) -> None:
    story.until(1, "taken")
    story.note(1, "hear", term=3)
    story.note(1, "take")


@breaks("recovery", "and begins with")
def forgets_an_entry(story: Story) -> None:
    story.alter(2, "life", {"vote": 1}, terms=[[1, 1]])


@breaks("recovery")
def forgets_a_vote(story: Story) -> None:
    story.alter(2, "life", {"term": 1}, vote=0)


@breaks("recovery")
def forgets_a_term(story: Story) -> None:
    story.alter(2, "life", {"term": 1}, term=0, vote=0)


@breaks("recovery")
def remembers_what_never_was(story: Story) -> None:
    story.alter(2, "life", {"vote": 1}, terms=[[1, 3]])


@breaks("recovery")
def snapshot_is_gone(story: Story) -> None:
    story.alter(2, "life", {"vote": 1}, base=[2, 1], terms=[], configs=[[2, [1, 2, 3], []]])


@breaks("recovery", "knows only of")
def does_not_know_what_it_lost(story: Story) -> None:
    story.alter(2, "life", {"vote": 1}, terms=[[1, 1]], lost=[1, 1])


@breaks("tickets")
def does_not_wait(story: Story) -> None:
    story.alter(2, "say", {"what": "AppendReply", "match": 1}, after=3)


@breaks("tickets")
def durable_before_it_was_written(story: Story) -> None:
    story.alter(3, "durable", {"ticket": 1}, ticket=2)


@breaks("members")
def goes_by_others(story: Story) -> None:
    story.alter(3, "config", {}, voters=[3])


@breaks("members")
def changes_too_soon(story: Story) -> None:
    story.until(1, "write", ticket=2)
    story.write(1, 3, ["append", 2, [[1, 2, 9, [1, 2], []]]])
    story.note(1, "take")


@breaks("members")
def changes_too_much(story: Story) -> None:
    story.until(1, "taken")
    story.write(1, 4, ["append", 3, [[1, 2, 9, [1], []]]])


@breaks("reads")
def reads_the_past(story: Story) -> None:
    story.alter(1, "read", {}, last=1)


@breaks("snapshots")
def covers_less(story: Story) -> None:
    story.alter(1, "taken", {}, last=1)


@breaks("recovery", "which nobody has committed")
def has_a_snapshot_of_the_future(story: Story) -> None:
    base: Row = {"base": [5, 1], "snapshot": [5, 1], "commit": 5}
    story.alter(2, "life", {"vote": 1}, terms=[], configs=[[5, [1, 2, 3], []]], **base)


@breaks("recovery", "has forgotten that it lost")
def forgets_that_it_lost(story: Story) -> None:
    story.alter(2, "life", {"vote": 1}, terms=[[1, 1]], lost=[1, 2])
    story.until(2, "life", vote=1)
    story.note(2, "life", term=1, vote=1, terms=[[1, 1]])


@breaks("recovery", "has forgotten term 1")
def forgets_a_vote_with_what_it_lost(story: Story) -> None:
    story.alter(2, "life", {"vote": 1}, terms=[[1, 1]], lost=[1, 2], vote=0)


@breaks("tickets", "writes group 2")
def leaves_a_group_out(story: Story) -> None:
    story.alter(3, "write", {}, ticket=2)


@breaks("monotone", "writes term 1")
def writes_an_earlier_term(story: Story) -> None:
    story.write(3, 2, ["state", 1, 0])


@breaks("promises", "voted for 3 in term 2, now for 1")
def writes_another_vote(story: Story) -> None:
    story.write(3, 2, ["state", 2, 1])


@breaks("promises", "leads term 1, and its disk does not know")
def leads_before_it_is_durable(story: Story) -> None:
    story.drop(1, "durable", ticket=1)


@breaks("promises", "acknowledges entry 1 of term 1, and has one of term 0")
def acknowledges_what_it_has_not(story: Story) -> None:
    story.alter(2, "write", {"ticket": 2}, records=[["append", 1, [[0, 0, 0]]]])


@breaks("log matching", "behind one of term 2")
def terms_fall_along_a_log(story: Story) -> None:
    story.write(3, 2, ["append", 1, [[2, 0, 0], [1, 1, 77]]])


@breaks("commit", "commits entry 5, and has")
def commits_what_it_has_not(story: Story) -> None:
    story.alter(1, "commit", {"to": 2}, to=5)


@breaks("state machine safety", "commits entry 1 of term 0, not 1")
def commits_something_else(story: Story) -> None:
    story.alter(2, "write", {"ticket": 2}, records=[["append", 1, [[0, 0, 0]]]])


@breaks("state machine safety", "loads a snapshot up to entry 2 of term 9")
def loads_something_else(story: Story) -> None:
    story.note(3, "load", last=2, term=9)


RULES = {
    "election safety", "promises", "quorum", "log matching", "append only", "leader completeness",
    "state machine safety", "commit", "monotone", "recovery", "tickets", "members", "reads",
    "snapshots",
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt(name: str, tmp_path: Path) -> None:
    rule, words, spoil = SPOILT[name]
    story = told()
    spoil(story)
    found = judged(story, tmp_path)
    assert any(v.rule == rule and words in v.what for v in found.violations), found.violations
    for violation in found.violations:
        lines = Path(violation.file).read_text().splitlines()
        assert 1 <= violation.line <= len(lines)
        assert violation.what.startswith("member ")


def test_every_rule_is_broken_once() -> None:
    assert {rule for rule, _, _ in SPOILT.values()} == RULES


def test_the_rules_are_documented() -> None:
    from engine.verify import trace

    assert trace.__doc__ is not None
    table = (Path(__file__).parents[2] / "docs/verify.md").read_text()
    for rule in RULES:
        assert f"* *{rule}*: " in trace.__doc__
        assert f"| {rule} | " in table


# --- what is not wrong ---------------------------------------------------------------------------


def test_more_than_what_was_durable_may_be_there(tmp_path: Path) -> None:
    """A write that was under way at a death is there, or its beginning, or nothing of it."""
    for terms in ([[1, 2]], [[1, 1]]):
        story = told()
        story.drop(2, "durable", ticket=3)
        story.drop(2, "say", what="AppendReply", match=2)
        story.alter(2, "life", {"vote": 1}, terms=terms)
        place = story.find(2, "life", vote=1)
        story.rows = [
            (who, row)
            for at, (who, row) in enumerate(story.rows)
            if who != 1 or row.get("ticket") != 3 or at < place
        ]
        found = {violation.rule for violation in judged(story, tmp_path).violations}
        assert "recovery" not in found


def test_who_has_no_trace_is_believed(tmp_path: Path) -> None:
    paths = told().save(tmp_path)
    assert judge([paths[0]]).violations == []
    assert judge([paths[1]]).violations == []
    assert judge([]).events == 0


def test_a_life_after_the_machine_has_booted(tmp_path: Path) -> None:
    """Its clock begins anew, and what it says comes after all the rest nevertheless."""
    story = told()
    place = story.find(2, "life", vote=1)
    for who, row in story.rows[place:]:
        row["at"] -= story.rows[place][1]["at"] - 1
        if row["event"] == "life":
            row.update(boot="later", wall=5000)
        elif who != 2:
            row["at"] += 1 << 40
    found = judged(story, tmp_path)
    assert [violation.rule for violation in found.violations] == []


def test_lines_that_are_missing_or_elsewhere_are_survived(tmp_path: Path) -> None:
    """Whatever the order of the lines, there is a verdict, or a sentence about a line."""
    watched.run(tmp_path / "whole", 0)
    whole = {path: Path(path).read_bytes().splitlines(True) for path in
             watched.files(tmp_path / "whole")}  # fmt: skip
    rng, verdicts, refused = random.Random(1), 0, list[str]()
    for case in range(dose(ci=25, full=1000)):
        paths = []
        for number, lines in enumerate(whole.values()):
            some = lines[: rng.randrange(2, 400)]
            for _ in range(rng.choice((1, 2, 20))):
                one, other = rng.randrange(len(some)), rng.randrange(len(some))
                if rng.random() < 0.5:
                    some[one], some[other] = some[other], some[one]
                elif len(some) > 1:
                    del some[one]
            path = tmp_path / f"{case}-{number}.jsonl"
            path.write_bytes(b"".join(some))
            paths.append(str(path))
        try:
            verdicts += judge(paths).events > 0
        except UsageError as error:
            refused.append(str(error))
    assert all("is no line of a member's trace" in why for why in refused)
    assert verdicts > 2
    shutil.rmtree(tmp_path / "whole")


# --- files that are none -------------------------------------------------------------------------

GOOD = json.dumps({"at": 1, "event": "life", "member": 1, **LIFE}).encode() + b"\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"hello\n", "line 1 is no line of a member's trace: it is no JSON"),
        (b"\xff\xfe\n", "line 1 is no line"),
        (b"[1]\n", "it has no time"),
        (b'{"client": 1, "op": "write", "key": "x"}\n', "it has no time"),
        (b'{"at": true, "event": "life"}\n', "it has no time"),
        (b'{"at": 1, "event": "rest"}\n', "there is no event 'rest'"),
        (b'{"at": 1, "event": {}}\n', "there is no event {}"),
        (b'{"at": 1, "event": "durable", "ticket": 1}\n', "a trace begins with the beginning"),
        (GOOD.replace(b'"version": 1', b'"version": 2'), "it is of version 2, and 1 is known"),
        (GOOD.replace(b'"terms": []', b'"terms": [1]'), "terms of life is [1]"),
        (GOOD + b"half\n" + b'{"at": 2, "event": "end"}\n', "line 2 is no line"),
        (GOOD + b"half\nhalf\n", "line 2 is no line"),
        (GOOD + b'{"at": 2, "event": "write", "ticket": 1, "records": [[]]}\n{}\n', "its records"),
        (
            GOOD + b'{"at": 2, "event": "write", "ticket": 1, "records": [["append", 1, [[1]]]]}\n'
            b'{"at": 2, "event": "end"}\n',
            "line 2",
        ),
        (b"[" * 100_000 + b"\n", "line 1 is no line"),
    ],
)
def test_what_is_no_trace(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(data)
    with pytest.raises(UsageError) as found:
        judge([str(path)])
    assert why in str(found.value)
    assert str(path) in str(found.value)


def test_an_empty_file_is_the_trace_of_who_did_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"")
    assert judge([str(path)]) == Judged([], 0, 0, 0, 0, 0)
    with pytest.raises(NotFoundError):
        judge([str(path), str(tmp_path / "y")])


# --- the command ---------------------------------------------------------------------------------


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = program.main(["verify", *arguments])
    return (code, *capsys.readouterr())


def test_a_right_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = told().save(tmp_path)
    code, said, _ = call(capsys, "--trace", *paths)
    assert code == 0
    assert said.startswith("all rules hold: ")
    assert "3 members, 4 lives, 1 elections, 2 entries" in said
    code, said, _ = call(capsys, "--json", "--trace", *paths)
    assert code == 0
    shown = json.loads(said)
    assert (shown["verdict"], shown["violations"], shown["lives"]) == ("ok", [], 4)


def test_a_wrong_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = told()
    forgets_a_vote(story)
    paths = story.save(tmp_path)
    line = 1 + [row for who, row in story.rows if who == 2].index(
        story.rows[story.find(2, "life", term=1)][1]
    )
    code, said, _ = call(capsys, "--trace", *paths)
    assert code == 1
    assert said.startswith("a rule is broken: ")
    assert "  recovery: member 2 had term 1, vote 1" in said
    assert f"({paths[1]}, line {line})\n" in said
    code, said, _ = call(capsys, "--trace", *paths, "--json")
    shown = json.loads(said)
    assert (code, shown["verdict"], shown["error"]) == (1, "violation", None)
    one = shown["violations"][0]
    assert (one["rule"], one["file"], one["line"]) == ("recovery", paths[1], line)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["--trace"], 2, "--trace"),
        (["--trace", "no.jsonl"], 3, "There is no trace no.jsonl."),
        (["--trace", "."], 2, ". cannot be read"),
        (["--trace", "x.jsonl"], 2, "x.jsonl, line 1 is no line of a member's trace"),
        (["x.jsonl", "--trace", "x.jsonl"], 2, "traces alone"),
        (["--trace", "x.jsonl", "--model", "lock"], 2, "traces alone"),
        ([], 2, "--trace"),
        (["x.jsonl"], 2, "--model"),
    ],
)
def test_misuse_is_one_sentence(
    arguments: list[str],
    code: int,
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "x.jsonl").write_text("hello\n")
    monkeypatch.chdir(tmp_path)
    found = call(capsys, *arguments)
    assert found[0] == code
    assert why in found[2]
    assert found[2].count("\n") == 1
    found = call(capsys, *arguments, "--json")
    assert found[0] == json.loads(found[1])["exit_code"] == code


def test_as_a_user_has_it(tmp_path: Path) -> None:
    ran = engine("verify", "--trace", *told().save(tmp_path))
    assert (ran.code, ran.err) == (0, "")
    assert "--trace" in engine("verify", "--help").out
