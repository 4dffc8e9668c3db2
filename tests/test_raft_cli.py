"""`engine raft` as a user has it: every verb, its output, its exit codes, its sentences.

One group of three serves all tests that only ask, or add commands; those that change more start
their own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Program, programs
from support import Ran, engine, patience
from waiting import eventually

from engine_cmd import main as program

pytestmark = pytest.mark.processes

SHORTLY = ("--timeout", "0.3")
VERBS = ("init", "serve", "submit", "look", "status", "metrics", "members", "lead")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's own shell says is not ours to use."""
    monkeypatch.delenv("ENGINE_CLUSTER", raising=False)


class Three:
    """Members that serve from the folders a, b and c."""

    def __init__(self, folder: Path, start: Any) -> None:
        self.paths = [str(folder / name) for name in "abc"]
        self.cluster = ",".join(self.paths)
        made = json.loads(engine("raft", "init", *self.paths, "--json").out)
        self.members: dict[str, int] = made["members"]
        self.initial = ",".join(f"{self.members[p]}=ipc://{p}/peers" for p in self.paths)
        self.servers: dict[str, Program] = {}
        for path in self.paths:
            words = ("raft", "serve", "--dir", path, "--initial", self.initial, "--json")
            self.servers[path] = start(*words)
        for server in self.servers.values():
            eventually(lambda server=server: server.stdout().endswith("\n"), 20, "a member")
        assert engine("raft", "submit", "first", "--cluster", self.cluster) == (0, "1\n", "")

    def status(self) -> list[dict[str, Any]]:
        found = json.loads(engine("raft", "status", "--cluster", self.cluster, "--json").out)
        replicas: list[dict[str, Any]] = found["replicas"]
        return replicas


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    folder = tmp_path_factory.mktemp("r")
    with programs(folder) as start:
        yield Three(folder, start)


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """A command in this process, where it takes a millisecond."""
    capsys.readouterr()
    code = program.main(list(arguments))
    return Ran(code, *capsys.readouterr())


def fails(capsys: pytest.CaptureFixture[str], code: int, word: str, *line: str) -> None:
    """One sentence on stderr, or with `--json` one object on stdout; and nothing else."""
    ran = called(capsys, *line)
    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.startswith("engine: ")
    assert ran.err.count("\n") == 1, ran.err
    assert word in ran.err, ran.err
    ran = called(capsys, *line, "--json")
    assert (ran.code, ran.err) == (code, ""), ran
    said = json.loads(ran.out)
    assert (said["exit_code"], said["detail"]) == (code, "")
    assert word in said["error"]


# --- init and serve ------------------------------------------------------------------------------


def test_init_says_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(tmp_path / name) for name in "ab"]
    ran = called(capsys, "raft", "init", *paths)
    found = dict(line.split(" ", 1)[::-1] for line in ran.out.splitlines())
    assert (ran.code, list(found)) == (0, paths)
    again = called(capsys, "raft", "init", *paths, "--json")
    numbers = {path: int(number) for path, number in found.items()}
    assert json.loads(again.out) == {"members": numbers, "error": None}


def test_init_leaves_others_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    fails(capsys, 6, "is not empty: name a new folder", "raft", "init", str(tmp_path))
    fails(capsys, 2, "cannot be made", "raft", "init", str(tmp_path / "mine"))


def test_serve_says_where(three: Three) -> None:
    for path, server in three.servers.items():
        said = server.json()
        assert said == {
            "address": f"ipc://{path}/peers",
            "pid": server.pid,
            "member": three.members[path],
            **{name: f"ipc://{path}/{name}" for name in ("peers", "clients", "admin")},
        }


def test_serve_without_json_is_one_sentence(tmp_path: Path) -> None:
    with programs(tmp_path) as start:
        path = tmp_path / "m"
        engine("raft", "init", str(path))
        server = start("raft", "serve", "--dir", path)
        eventually(lambda: server.stderr().endswith("\n"), 20, "a member")
        assert re.fullmatch(rf"engine: member \d+ serves at ipc://{path}/peers\n", server.stderr())
        assert server.stdout() == ""


@pytest.mark.parametrize(
    ("code", "word", "flags"),
    [
        (3, "no member's folder: make one with `init`", ()),
        (2, "is not MEMBER=ENDPOINT", ("--initial", "x=ipc://y")),
        (2, "is not MEMBER=ENDPOINT", ("--initial", "7")),
        (2, "have 4096 bytes or more", ("--segment-bytes", "4095")),
        (6, "not on this machine's loopback", ("--listen", "tcp://192.0.2.1:9")),
    ],
)
def test_serve_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, word: str, flags: tuple[str, ...]
) -> None:
    path = tmp_path / "m"
    path.mkdir()
    if code == 6:
        called(capsys, "raft", "init", str(path))
        flags = (*flags, "--token", str(tmp_path / "token"))
    fails(capsys, code, word, "raft", "serve", "--dir", str(path), *flags)


@pytest.mark.parametrize("flag", ["--snapshot-every", "--segment-bytes"])
@pytest.mark.parametrize("value", ["-1", "x", "1.5", ""])
def test_numbers_are_numbers(tmp_path: Path, flag: str, value: str) -> None:
    ran = engine("raft", "serve", "--dir", str(tmp_path), f"{flag}={value}")
    assert ran.code == 2
    assert "is not a number" in ran.err


# --- clients -------------------------------------------------------------------------------------


def test_submit_and_look(three: Three, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--cluster", three.cluster)
    before = int(called(capsys, "raft", "look", *at).out)
    assert called(capsys, "raft", "submit", "hello", *at) == (0, f"{before + 1}\n", "")
    ran = called(capsys, "raft", "submit", "--json", "hello", *at)
    assert json.loads(ran.out) == {"command": before + 2, "error": None}
    ran = called(capsys, "raft", "look", "--json", *at)
    found = json.loads(ran.out)
    assert (found["commands"], found["error"]) == (before + 2, None)
    assert 0 < found["digest"] < 1 << 32


def test_submit_from_stdin(three: Three) -> None:
    """Any bytes; and any that a command line can hold."""
    look = ("raft", "look", "--cluster", three.cluster)
    before = int(engine(*look).out)
    words = [sys.executable, "-m", "engine_cmd.main", "raft", "submit", "-"]
    ended = subprocess.run(
        [*words, "--cluster", three.cluster], input=b"\xff\0\n", capture_output=True,
        timeout=patience(30), check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, b"%d\n" % (before + 1))
    assert engine("raft", "submit", "\udcff", "--cluster", three.cluster).out == f"{before + 2}\n"


def test_a_command_has_a_limit(three: Three) -> None:
    words = [sys.executable, "-m", "engine_cmd.main", "raft", "submit", "-"]
    ended = subprocess.run(
        [*words, "--cluster", three.cluster], input=bytes((1 << 20) + 1), capture_output=True,
        timeout=patience(30), check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert b"A command has at most 1,048,576 bytes, not 1,048,577." in ended.stderr


def test_the_cluster_may_be_in_the_environment(
    three: Three, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_CLUSTER", three.cluster)
    assert called(capsys, "raft", "look").code == 0


def test_one_replica_is_enough_if_it_leads(
    three: Three, capsys: pytest.CaptureFixture[str]
) -> None:
    """And endpoints do as well as folders."""
    leads = next(one for one in three.status() if one["role"] == "leader")
    for cluster in (leads["clients"], os.path.dirname(leads["clients"].removeprefix("ipc://"))):
        assert called(capsys, "raft", "look", "--cluster", cluster).code == 0
    follows = next(one for one in three.status() if one["role"] != "leader")["clients"]
    word = "this member does not lead"
    fails(capsys, 4, word, "raft", "look", "--cluster", follows, *SHORTLY)


@pytest.mark.parametrize("verb", ["look", "status", "lead", "metrics", "submit", "members"])
def test_a_cluster_is_needed(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("raft", verb, *(("x",) if verb == "submit" else ()))
    ran = called(capsys, *words)
    assert ran.code == 2
    assert "--cluster" in ran.err


@pytest.mark.parametrize(
    ("verb", "word"),
    [
        ("submit x", "0 of 1 replicas reachable"),
        ("look", "0 of 1 replicas reachable"),
        ("lead", "Nobody leads: is a majority of the voters running?"),
        ("members", "Nobody leads: is a majority of the voters running?"),
    ],
)
def test_nobody_is_there(
    verb: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, 4, word, "raft", *verb.split(), "--cluster", str(tmp_path / "m"), *SHORTLY)


# --- operators -----------------------------------------------------------------------------------


def test_status(three: Three, capsys: pytest.CaptureFixture[str]) -> None:
    found = three.status()
    assert {one["member"] for one in found} == set(three.members.values())
    assert {one["pid"] for one in found} == {server.pid for server in three.servers.values()}
    assert [one["role"] for one in found].count("leader") == 1
    for one in found:
        assert one["reachable"]
        assert {seat["role"] for seat in one["seats"]} == {"voter"}
        assert one["counters"]["turns"] > 0
        assert (one["lost"], one["full"], one["joint"]) == (False, False, False)
        assert "number" not in one
    ran = called(capsys, "raft", "status", "--cluster", three.cluster)
    line = r"ipc://\S+/admin: member \d+ \(pid \d+\), (leader|follower) of term \d+, \d+ commands, "
    assert len(ran.out.splitlines()) == 3
    for said in ran.out.splitlines():
        assert re.match(line, said), said


def test_status_of_who_is_not_there(
    three: Three, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some answer: that is an answer. None does: it is said, and so is who was asked."""
    gone = str(tmp_path / "gone")
    some = ("raft", "status", "--cluster", f"{three.paths[0]},{gone}", *SHORTLY)
    ran = called(capsys, *some)
    assert ran.code == 0
    assert f"ipc://{gone}/admin: nobody answers\n" in ran.out
    ran = called(capsys, *some, "--json")
    assert json.loads(ran.out)["replicas"][1] == {
        "admin": f"ipc://{gone}/admin",
        "reachable": False,
    }
    ran = called(capsys, "raft", "status", "--cluster", gone, *SHORTLY)
    assert ran.code == 4
    assert ran.err == "engine: 0 of 1 replicas reachable.\n"


def test_metrics(three: Three, tmp_path: Path) -> None:
    ran = engine("raft", "metrics", "--cluster", three.cluster)
    assert ran.code == 0
    assert ran.out.count("engine_raft_up{") == 3
    with programs(tmp_path) as start:
        words = ("raft", "metrics", "--cluster", three.cluster, "--listen", "127.0.0.1:0", "--json")
        server = start(*words)
        eventually(lambda: server.stdout().endswith("\n"), 20, "the figures")
        address = server.json()["address"]
        with urllib.request.urlopen(address, timeout=patience(10)) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert answer.read().decode().count("engine_raft_up{") == 3
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address.replace("metrics", "x"), timeout=patience(10))
        taken = address.removeprefix("http://").removesuffix("/metrics")
        ran = engine("raft", "metrics", "--cluster", three.cluster, "--listen", taken)
        assert ran.code == 6
        assert f"process {server.pid}" in ran.err
        server.process.terminate()
        assert server.wait(20) == 0


def test_lead(three: Three, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--cluster", three.cluster)
    wanted = next(one["member"] for one in three.status() if one["role"] != "leader")
    ran = called(capsys, "raft", "lead", str(wanted), *at, "--json")
    assert (ran.code, json.loads(ran.out)["error"]) == (0, None)

    def leads() -> bool:
        return any(one["role"] == "leader" and one["member"] == wanted for one in three.status())

    eventually(leads, 20, "it to lead")
    fails(capsys, 6, "cannot be handed leadership", "raft", "lead", "17", *at)
    assert called(capsys, "raft", "lead", *at) == (0, "", "")


def test_members(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Added as a learner, made a voter, removed."""
    with programs(tmp_path) as start:
        three = Three(tmp_path, start)
        path = str(tmp_path / "d")
        number = json.loads(engine("raft", "init", path, "--json").out)["members"][path]
        start("raft", "serve", "--dir", path, "--json")
        at = ("--cluster", three.cluster)

        def role() -> str:
            leads = next((one for one in three.status() if one["role"] == "leader"), None)
            seats = leads["seats"] if leads else []
            return next((seat["role"] for seat in seats if seat["id"] == number), "none")

        def becomes(wanted: str, *flags: str) -> None:
            def ordered() -> bool:
                ran = called(capsys, "raft", "members", *flags, *at)
                later = ("under way", "its term", "caught up")
                assert ran.code == 0 or any(why in ran.err for why in later), ran
                return ran.code == 0

            eventually(ordered, 20, " ".join(flags))
            eventually(lambda: role() == wanted, 20, wanted)

        place = f"{number}=ipc://{path}/peers"
        becomes("learner", "--learner", place)
        becomes("voter", "--add", place)
        becomes("none", "--remove", str(number))
        fails(capsys, 2, "There is no member 17", "raft", "members", "--remove", "17", *at)
        fails(capsys, 2, "is not MEMBER=ENDPOINT", "raft", "members", "--add", "17", *at)
        everybody = [word for one in three.members.values() for word in ("--remove", str(one))]
        fails(capsys, 6, "a group needs a voter", "raft", "members", *everybody, *at)


# --- the family ----------------------------------------------------------------------------------


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    ran = called(capsys, "raft", "--help")
    assert ran.code == 0
    for verb in VERBS:
        assert re.search(rf"^ +{verb} ", ran.out, re.MULTILINE), verb
        assert called(capsys, "raft", verb, "--help").code == 0


def test_a_verb_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    ran = called(capsys, "raft", "submitt")
    assert ran.code == 2
    assert "submit" in ran.err
