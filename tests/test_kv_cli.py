"""`engine kv` as a user has it: every verb, its output, its exit codes, its sentences.

One cluster of three serves all tests that only ask, or write keys of their own; those that change
or kill more start their own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import Program, programs
from keyrings import LOOPBACK, People
from kv.live import Cluster, cluster
from support import Ran, engine, patience
from waiting import eventually

from engine.kv import backup as backups
from engine.kv import calls
from engine.kv.backup import hashes
from engine.kv.client import Store
from engine.kv.reach import reached
from engine.kv.up import found
from engine.storage.home import make
from engine_cmd import main as program

pytestmark = pytest.mark.processes

VERBS = (
    "up", "down", "serve", "status", "page", "metrics", "member", "snapshot", "restore", "hash",
    "get", "put", "append", "delete", "cas", "txn", "range", "watch", "lease", "lock",
)  # fmt: skip
ASK = {
    "status": "", "member": "list", "snapshot": "f", "hash": "", "get": "k", "put": "k v",
    "append": "k v", "delete": "k", "cas": "k v --absent", "txn": "-", "range": "", "watch": "k",
    "lease": "grant 9", "lock": "l",
}  # fmt: skip
"""Those that ask a cluster, and what they need besides."""
OF_OPERATORS = ("status", "member", "snapshot", "hash")
"""Those that take the folder or endpoints for operators; the others take those for clients."""
BRIEFLY = ("--timeout", str(patience(0.4)))
ALL_BYTES = bytes(range(256)) * 2
Start = Callable[..., Program]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's own shell says is not ours to use."""
    monkeypatch.delenv("ENGINE_CLUSTER", raising=False)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("k")) as made:
        yield made


@pytest.fixture
def kv(
    three: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """`kv("get", "k")` in this process, of the cluster that all share."""
    monkeypatch.setenv("ENGINE_CLUSTER", three.dir)
    return lambda *words: called(capsys, *words)


def called(capsys: pytest.CaptureFixture[str], *words: str) -> Ran:
    """`engine kv …` in this process, where it takes some milliseconds."""
    capsys.readouterr()
    code = program.main(["kv", *words])
    return Ran(code, *capsys.readouterr())


def fails(capsys: pytest.CaptureFixture[str], code: int, word: str, *words: str) -> None:
    """One sentence on stderr, or with `--json` one object on stdout; and nothing else."""
    ran = called(capsys, *words)
    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.startswith("engine: ")
    assert ran.err.count("\n") == 1, ran.err
    assert word in ran.err, ran.err
    ran = called(capsys, *words, "--json")
    assert (ran.code, ran.err) == (code, ""), ran
    said = json.loads(ran.out)
    assert said == {"error": said["error"], "exit_code": code, "detail": ""}
    assert word in said["error"]


def told(ran: Ran) -> dict[str, Any]:
    """The one object of a command that did well."""
    assert (ran.code, ran.err) == (0, ""), ran
    said: dict[str, Any] = json.loads(ran.out)
    assert said.pop("error") is None
    return said


def fed(data: bytes, *words: str) -> tuple[int, bytes, bytes]:
    """With this on its stdin."""
    ended = subprocess.run(
        [sys.executable, "-m", "engine_cmd.main", "kv", *words],
        input=data, capture_output=True, timeout=patience(60), check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


def sockets_of(folder: str) -> str:
    return found(folder)[0].sockets


# --- keys ----------------------------------------------------------------------------------------


def test_get_and_put(kv: Callable[..., Ran]) -> None:
    ran = kv("put", "greeting", "hello")
    assert (ran.code, ran.err) == (0, "")
    first = int(ran.out)
    assert kv("get", "greeting") == (0, "hello\n", "")
    assert told(kv("put", "greeting", "you", "--json")) == {"revision": first + 1}
    assert told(kv("append", "greeting", " all", "--json")) == {"revision": first + 2}
    assert kv("append", "greeting", "!") == (0, f"{first + 3}\n", "")
    assert told(kv("get", "greeting", "--json")) == {
        "key": "greeting", "value": "you all!", "created": first, "modified": first + 3,
        "version": 4, "lease": 0,
    }  # fmt: skip
    assert kv("put", "", "").code == 0
    assert kv("get", "") == (0, "\n", "")


def test_get_local(kv: Callable[..., Ran], three: Cluster) -> None:
    """Whichever replica is asked has it sooner or later."""
    kv("put", "near", "v")
    for seat in found(three.dir):
        words = ("get", "near", "--local", "--cluster", seat.client)
        eventually(lambda words=words: kv(*words) == (0, "v\n", ""), 10, "it to be there")


def test_delete(kv: Callable[..., Ran], capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("del/1", "del/2", "del/3", "dem"):
        kv("put", key, "v")
    assert kv("delete", "del/1") == (0, "1\n", "")
    fails(capsys, 3, "There is no key 'del/1'", "delete", "del/1")
    fails(capsys, 3, "There is no key 'del/1'", "get", "del/1")
    assert told(kv("delete", "del/", "--prefix", "--json")) == {"deleted": 2}
    fails(capsys, 3, "There is no key 'del/'", "delete", "del/", "--prefix")
    assert told(kv("delete", "dem", "--json")) == {"deleted": 1}


def test_cas(kv: Callable[..., Ran], capsys: pytest.CaptureFixture[str]) -> None:
    no = "The key 'cas' is not as expected; nothing was done."
    fails(capsys, 3, no, "cas", "cas", "v", "--expected", "")
    assert kv("cas", "cas", "v", "--absent") == (0, "", "")
    fails(capsys, 3, no, "cas", "cas", "w", "--absent")
    assert told(kv("cas", "cas", "w", "--expected", "v", "--json")) == {"done": True}
    revision = told(kv("get", "cas", "--json"))["modified"]
    fails(capsys, 3, no, "cas", "cas", "x", "--revision", str(revision - 1))
    assert kv("cas", "cas", "x", "--revision", str(revision)).code == 0
    assert kv("get", "cas").out == "x\n"
    fails(capsys, 2, "one of the arguments", "cas", "cas", "v")
    fails(capsys, 2, "not allowed with", "cas", "cas", "v", "--absent", "--revision", "1")
    fails(capsys, 2, "could not make sense of", "cas", "cas", "v", "--revision", "9" * 20)


def test_values_with_any_bytes(three: Cluster, kv: Callable[..., Ran]) -> None:
    at = ("--cluster", three.dir)
    code, out, _ = fed(ALL_BYTES, "put", "bin", "-", *at)
    assert (code, out[-1:]) == (0, b"\n")
    assert fed(b"", "get", "bin", *at) == (0, ALL_BYTES + b"\n", b"")
    assert fed(b"\0", "append", "bin", "-", *at)[0] == 0
    words = ("cas", "bin", "-", "--revision", str(told(kv("get", "bin", "--json"))["modified"]))
    assert fed(b"\xff\0", *words, *at)[0] == 0
    assert told(kv("get", "bin", "--json"))["value"] == {"base64": "/wA="}
    assert kv("put", "\udcff", "\udcfe").code == 0
    assert fed(b"", "get", b"\xff", *at) == (0, b"\xfe\n", b"")  # type: ignore[arg-type]
    assert kv("put", "é", "\N{SNOWMAN}").code == 0
    assert told(kv("get", "é", "--json"))["value"] == "\N{SNOWMAN}"


@pytest.mark.parametrize("megabytes", [2, 20])
def test_values_that_are_too_long(three: Cluster, megabytes: int) -> None:
    """For the store, and for any message."""
    code, out, err = fed(bytes(megabytes << 20), "put", "big", "-", "--cluster", three.dir)
    assert (code, out) == (6, b"")
    assert err.startswith(b"engine: Nothing was done: a ")
    assert b"may not be so long" in err


def test_range(kv: Callable[..., Ran]) -> None:
    for number in range(5):
        kv("put", f"r/{number}", f"v{number}")
    kv("put", "r0", "beyond")
    rows = [f"r/{number}\tv{number}\n" for number in range(5)]
    assert kv("range", "r/", "r0") == (0, "".join(rows), "")
    assert kv("range", "r/", "--prefix") == (0, "".join(rows), "")
    assert kv("range", "r/2", "r/4") == (0, "".join(rows[2:4]), "")
    assert kv("range", "r/", "--prefix", "--limit", "2") == (0, "".join(rows[:2]), "")
    assert kv("range", "r/", "--prefix", "--count") == (0, "5\n", "")
    assert told(kv("range", "r/", "--prefix", "--count", "--json")) == {"count": 5}
    found = told(kv("range", "r/", "--prefix", "--limit", "1", "--json"))["keys"]
    assert [(row["key"], row["value"], row["version"]) for row in found] == [("r/0", "v0", 1)]
    assert kv("range", "r/5", "r/6") == (0, "", "")
    assert told(kv("range", "r/5", "r/6", "--json")) == {"keys": []}
    everything = int(kv("range", "--count").out)
    assert len(told(kv("range", "--json"))["keys"]) == everything > 5


def test_txn(kv: Callable[..., Ran], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = str(tmp_path / "txn")

    def txn(**parts: Any) -> Ran:
        Path(name).write_text(json.dumps(parts))
        return kv("txn", name)

    then = [["put", "t/a", "1"], ["append", "t/b", "2"]]
    once = {"if": [["t/a", "version", "=", 0]], "then": then}
    done = told(txn(**once))
    assert done == {
        "succeeded": True, "revision": done["revision"],
        "answers": [{"version": 1}, {"version": 1}],
    }  # fmt: skip
    found = [told(kv("get", key, "--json"))["modified"] for key in ("t/a", "t/b")]
    assert found == [done["revision"]] * 2, "one revision for all of it"
    ran = txn(**once)
    assert ran.code == 3
    assert json.loads(ran.out)["succeeded"] is False
    again = told(txn(**once, **{"else": [["get", "t/b"], ["delete", "t/a"]]}))
    assert again["succeeded"] is False
    assert again["answers"] == [{"value": "2", "version": 1}, {"deleted": 1}]
    refused = txn(then=[["put", "t/a", "1"], ["put", "t/a", "2"]])
    assert refused.code == 2
    assert kv("get", "t/a").code == 3, "nothing of it was done"
    assert txn(**{"if": [["t/b", "value", "<", None]]}).code == 2
    fails(capsys, 2, "cannot be read", "txn", str(tmp_path / "none"))
    Path(name).write_text("{")
    fails(capsys, 2, "is no JSON", "txn", name)


def test_txn_from_stdin(three: Cluster) -> None:
    code, out, _ = fed(b'{"then": [["put", "t/c", "1"]]}', "txn", "-", "--cluster", three.dir)
    assert (code, json.loads(out)["answers"]) == (0, [{"version": 1}])


# --- leases, watches, locks ----------------------------------------------------------------------


def test_leases(kv: Callable[..., Ran], capsys: pytest.CaptureFixture[str]) -> None:
    number = kv("lease", "grant", "100").out.strip()
    assert kv("put", "leased", "v", "--lease", number).code == 0
    assert told(kv("get", "leased", "--json"))["lease"] == int(number)
    assert re.fullmatch(r"9\d(\.\d+)? of 100 s, 1 keys\n|100 of 100 s, 1 keys\n",
                        kv("lease", "show", number).out)  # fmt: skip
    shown = told(kv("lease", "show", number, "--json"))
    assert 90 < shown.pop("remaining") <= 100
    assert shown == {"lease": int(number), "ttl": 100, "keys": 1}
    assert kv("lease", "alive", number) == (0, "100\n", "")
    assert told(kv("lease", "alive", number, "--json")) == {
        "lease": int(number), "remaining": 100,
    }  # fmt: skip
    assert kv("lease", "revoke", number) == (0, "", "")
    fails(capsys, 3, "There is no key 'leased'", "get", "leased")
    for what in ("show", "alive", "revoke"):
        fails(capsys, 3, "There is no such key or lease", "lease", what, number)
    fails(capsys, 3, "There is no such key or lease", "put", "k", "v", "--lease", number)
    fails(capsys, 2, "is no lease", "lease", "show", "x")
    fails(capsys, 2, "is not a number of seconds", "lease", "grant", "x")
    for seconds in ("0", "nan", "inf", "1e10"):
        fails(capsys, 2, "a positive number of seconds", "lease", "grant", seconds)


def test_a_lease_ends(kv: Callable[..., Ran]) -> None:
    made = told(kv("lease", "grant", "0.3", "--json"))
    assert made["ttl"] == 0.3
    revision = int(kv("put", "brief", "v", "--lease", str(made["lease"])).out)
    ran = kv("watch", "brief", "--after", str(revision), "--limit", "1")
    assert ran == (0, f"{revision + 1}\tDELETE\tbrief\t\n", "")
    assert kv("get", "brief").code == 3


def test_watch(kv: Callable[..., Ran]) -> None:
    first = int(kv("put", "w/a", "1").out)
    kv("put", "w/b", "2")
    kv("delete", "w/a")
    lines = [
        f"{first}\tPUT\tw/a\t1\n",
        f"{first + 1}\tPUT\tw/b\t2\n",
        f"{first + 2}\tDELETE\tw/a\t\n",
    ]
    after = ("--after", str(first - 1))
    assert kv("watch", "w/", "--prefix", *after, "--limit", "3").out == "".join(lines)
    assert kv("watch", "w/", "--prefix", "--after", str(first), "--limit", "1").out == lines[1]
    assert kv("watch", "w/a", *after, "--limit", "2").out == lines[0] + lines[2]
    ran = kv("watch", "w/a", *after, "--limit", "2", "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == [
        {"event": "put", "revision": first, "key": "w/a", "value": "1"},
        {"event": "delete", "revision": first + 2, "key": "w/a", "value": ""},
    ]


def test_watch_from_now_on(three: Cluster, kv: Callable[..., Ran], tmp_path: Path) -> None:
    """Until ctrl-C; each event is there at once, though stdout is no terminal."""
    kv("put", "now", "before")
    with programs(tmp_path) as start:
        watch = start("kv", "watch", "now", "--cluster", three.dir)

        def seen() -> str:
            kv("put", "now", "after")
            return watch.stdout()

        lines = eventually(seen, 20, "an event").splitlines()
        assert all(re.fullmatch(r"\d+\tPUT\tnow\tafter", line) for line in lines)
        watch.interrupt()
        assert watch.wait(20) == 130
        assert watch.stderr() == ""


def test_watch_of_what_is_forgotten(
    three: Cluster, kv: Callable[..., Ran], capsys: pytest.CaptureFixture[str]
) -> None:
    revision = int(kv("put", "old", "v").out)
    with Store(three.dir) as store:
        store.compact(revision)
    word = f"what happened up to revision {revision} is not kept"
    words = ("watch", "old", "--after", "0", "--limit", "1")
    for seat in found(three.dir):  # one that is behind still knows
        at = ("--cluster", seat.client)
        eventually(lambda at=at: kv(*words, *at).code == 1, 10, "it to forget")
    fails(capsys, 1, word, *words)


def test_lock_runs_a_command(three: Cluster) -> None:
    """Its exit code is ours; the token is in its environment, and grows."""
    lock = ("kv", "lock", "cmd", "--cluster", three.dir)
    tokens = [int(engine(*lock, "--", "sh", "-c", "echo $ENGINE_LOCK_TOKEN").out) for _ in "ab"]
    assert 0 < tokens[0] < tokens[1]
    assert engine(*lock, "--", "sh", "-c", "exit 7") == (7, "", "")
    assert engine(*lock, "--", "sh", "-c", "kill -9 $$").code == 137
    ran = engine(*lock, "--json", "--", "true")
    assert json.loads(ran.out)["lock"] == "cmd"
    assert json.loads(ran.out)["token"] > tokens[1]
    ran = engine(*lock, "--", "no-such-program")
    assert (ran.code, ran.out) == (2, "")
    assert "'no-such-program' cannot be run" in ran.err
    with Store(three.dir) as store:
        assert store.count("cmd/", "cmd0") == 0, "nothing is held any more"


def test_lock_excludes(three: Cluster, tmp_path: Path) -> None:
    """One that waits gets it when the holder lets go; one that does not wait for long says so."""
    lock = ("kv", "lock", "ex", "--cluster", three.dir)
    hold = [sys.executable, "-m", "engine_cmd.main", *lock]
    pipe = subprocess.PIPE
    with subprocess.Popen(hold, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        first = int(holder.stdout.readline())
        ran = engine(*lock, "--wait", "0.1", "--", "true")
        assert (ran.code, ran.err) == (5, "engine: The lock ex is held by others.\n")
        with programs(tmp_path) as start:
            waiting = start(*lock, "--", "sh", "-c", "echo $ENGINE_LOCK_TOKEN")
            with Store(three.dir) as store:
                eventually(lambda: store.count("ex/", "ex0") == 2, 20, "it to wait")
            assert waiting.stdout() == ""
            holder.stdin.close()
            assert holder.wait(patience(20)) == 0
            assert waiting.wait(20) == 0
            assert int(waiting.stdout()) > first


def test_a_lost_lease_kills_the_command(three: Cluster, tmp_path: Path) -> None:
    with programs(tmp_path) as start, Store(three.dir) as store:
        words = ("kv", "lock", "lost", "--ttl", "0.6", "--cluster", three.dir, "--")
        lock = start(*words, "sh", "-c", "echo $$; exec sleep 1000")
        eventually(lambda: lock.stdout().endswith("\n"), 20, "the command")
        (command,) = lock.family()
        assert command.pid == int(lock.stdout())
        (key,) = store.prefix("lost/")
        store.run(calls.lease_revoke(key.lease))
        assert lock.wait(20) == 1
        assert lock.stderr() == "engine: The lease of the lock lost has ended.\n"
        assert not alive(command.pid)


# --- who is asked --------------------------------------------------------------------------------


def test_status(three: Cluster, kv: Callable[..., Ran]) -> None:
    ran = kv("status")
    line = (
        r"replica \d \(pid \d+\): (leader|follower) of term \d+, revision \d+, committed \d+, "
        r"applied \d+"
    )
    assert (ran.code, ran.err) == (0, "")
    assert all(re.fullmatch(line, said) for said in ran.out.splitlines()), ran.out
    assert len(ran.out.splitlines()) == 3
    said = told(kv("status", "--json"))
    assert said.keys() == {"leader", "term", "replicas"}
    assert [one["id"] for one in said["replicas"]] == [1, 2, 3]
    leads = next(one for one in said["replicas"] if one["role"] == "leader")
    assert (leads["id"], leads["term"]) == (said["leader"], said["term"])
    started = {one["id"]: one["pid"] for one in three.keeper.json()["replicas"]}
    for one in said["replicas"]:
        assert one["reachable"] is True
        assert one["pid"] == started[one["id"]]
        assert one["counters"]["turns"] > 0
        assert {"member", "client", "commit", "applied", "revision", "digest"} <= one.keys()


def test_member_list_and_hash(three: Cluster, kv: Callable[..., Ran]) -> None:
    seats = found(three.dir)
    assert kv("member", "list").out == "".join(f"{seat.id}\t{seat.client}\n" for seat in seats)
    assert told(kv("member", "list", "--json")) == {
        "replicas": [{"id": s.id, "member": s.member, "client": s.client} for s in seats]
    }
    revision = int(kv("put", "hashed", "v").out)

    def same() -> bool:
        rows = told(kv("hash", "--json"))["replicas"]
        assert [row["id"] for row in rows] == [1, 2, 3]
        there = [(row["revision"], row["hash"]) for row in rows]
        return len(set(there)) == 1 and there[0][0] == revision

    eventually(same, 20, "all to have it")
    ran = kv("hash")
    sums = re.findall(rf"^replica \d: ([0-9a-f]{{8}}) at revision {revision}$", ran.out, re.M)
    assert (ran.code, len(sums), len(set(sums))) == (0, 3, 1)


def test_named_by_endpoints(
    three: Cluster, kv: Callable[..., Ran], capsys: pytest.CaptureFixture[str]
) -> None:
    ends = ",".join(seat.client for seat in found(three.dir))
    kv("put", "named", "v")
    assert kv("get", "named", "--cluster", ends) == (0, "v\n", "")
    leader = next(seat for seat in found(three.dir) if seat.id == three.leader())
    assert kv("get", "named", "--cluster", leader.client) == (0, "v\n", "")
    other = next(seat for seat in found(three.dir) if seat.id != leader.id)
    word = "1 of 1 replicas reachable; this member does not lead: nothing was done."
    brief = ("--cluster", other.client, "--timeout", f"{patience(1)}")
    fails(capsys, 4, word, "get", "k", *brief)
    ran = called(capsys, "put", "k", "v", *brief)  # asked again and again: was the last one heard?
    assert (ran.code, ran.out) in [(4, ""), (5, "")], ran
    for verb in OF_OPERATORS:
        word = "belongs here. Are these the replicas' --admin endpoints?"
        fails(capsys, 6, word, verb, *ASK[verb].split(), "--cluster", ends)


def test_operators_name_endpoints(
    three: Cluster, kv: Callable[..., Ran], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on machines that share no folder: replicas are numbered as they are named."""
    seats = found(three.dir)[::-1]
    ends = ("--cluster", ",".join(seat.admin for seat in seats))
    revision = int(kv("put", "operated", "v").out)
    said = told(kv("status", *ends, "--json"))
    assert [one["id"] for one in said["replicas"]] == [1, 2, 3]
    assert [one["client"] for one in said["replicas"]] == [seat.client for seat in seats]
    assert seats[said["leader"] - 1].id == three.leader()
    assert kv("member", "list", *ends).out == "".join(
        f"{number}\t{seat.client}\n" for number, seat in enumerate(seats, 1)
    )
    rows = told(kv("hash", *ends, "--json"))["replicas"]
    assert [(row["id"], row["reachable"], len(row["hash"])) for row in rows] == [
        (number, True, 8) for number in (1, 2, 3)
    ]
    taken = told(kv("snapshot", str(tmp_path / "f"), *ends, "--json"))
    assert taken["revision"] >= revision
    wanted = said["leader"] % 3 + 1
    assert kv("member", "lead", str(wanted), *ends) == (0, "", "")
    assert three.leader() == seats[wanted - 1].id
    fails(capsys, 3, "There is no replica 4; there are 1, 2, 3", "member", "lead", "4", *ends)
    for what in (["add"], ["remove", "1"], ["replace", "1"]):
        fails(capsys, 2, "needs the folder of `engine kv up`", "member", *what, *ends)
    twice = ("--cluster", f"{seats[0].admin},{seats[0].admin}")
    fails(capsys, 2, "is named twice", "hash", *twice)


def test_operators_name_endpoints_where_nobody_is(
    three: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seats, gone = found(three.dir), f"ipc://{tmp_path}/x"
    some = ("--cluster", ",".join([gone, *[seat.admin for seat in seats]]), "--timeout", "0.4")
    ran = called(capsys, "status", *some)
    assert (ran.code, ran.out.count("\n")) == (0, 4), ran
    assert ran.out.startswith(f"replica 1: nobody answers at {gone}\n")
    one = told(called(capsys, "status", *some, "--json"))["replicas"][0]
    assert one == {"id": 1, "member": None, "client": None, "reachable": False}
    assert called(capsys, "member", "list", *some).out.startswith("1\tnobody answers\n2\tipc://")
    assert told(called(capsys, "hash", *some, "--json"))["replicas"][0] == {
        "id": 1, "reachable": False,
    }  # fmt: skip
    fails(capsys, 4, f"Nobody answers at {gone}, so nothing was changed.", "member", "lead", "1",
          *some)  # fmt: skip
    none = ("--cluster", gone, "--timeout", "0.2")
    fails(capsys, 4, "0 of 1 replicas reachable", "snapshot", str(tmp_path / "f"), *none)
    fails(capsys, 4, "Nobody leads, so nothing can be changed: 0 of 1", "member", "lead", *none)
    assert called(capsys, "hash", *none) == (0, "replica 1: nobody answers\n", "")


def test_operators_come_over_tcp_with_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A replica by itself: what it serves where is what it says."""
    people = People(tmp_path)
    people.make("host", "ann")
    people.allow("host", host="replica", ann="admin")
    people.allow("ann", host="replica")
    folder = str(tmp_path / "r")
    number = make(folder)
    ends = ["--clients", LOOPBACK, "--admin", LOOPBACK, "--redis", "127.0.0.2:0"]
    with programs(tmp_path) as start:
        one = start("kv", "serve", "--dir", folder, "--initial", f"{number}=ipc://{folder}/peers",
                    *ends, "--keys", people.path("host"), "--json")  # fmt: skip
        eventually(lambda: one.stdout().endswith("\n") or not one.running, 20, "a replica")
        assert one.running, one.stderr()
        served = one.json()
        at = ("--cluster", served["admin"], "--keys", people.path("ann"))
        eventually(lambda: called(capsys, "status", *at).code == 0, 20, "it to lead")
        said = told(called(capsys, "status", *at, "--json"))
        (row,) = said["replicas"]
        assert (row["member"], row["client"]) == (number, served["clients"])
        assert row["redis"] == served["redis"]
        assert served["redis"].startswith("127.0.0.2:")
        put = ("put", "k", "v", "--cluster", served["clients"], "--keys", people.path("ann"))
        revision = int(called(capsys, *put).out)
        ran = called(capsys, "snapshot", str(tmp_path / "f"), *at)
        assert ran.out.startswith(f"revision {revision}, "), ran
        assert told(called(capsys, "hash", *at, "--json"))["replicas"][0]["revision"] == revision
        fails(capsys, 6, "--admin endpoints?", "hash", "--cluster", served["clients"], *at[2:])


def test_hash_waits_for_a_replica_that_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody leads as soon as two of three are there. The third is a process that listens to
    nobody yet, which is waited for; when it is a process no more, it is not."""
    with cluster(tmp_path, "--no-restart") as made:
        at = ("--cluster", made.dir)
        seat = next(one for one in found(made.dir) if one.id != made.leader())
        eventually(lambda: len(made.pids()) == 3, 20, "all of them")
        pid = made.pids()[seat.id]
        path = seat.admin.removeprefix("ipc://")
        os.rename(path, f"{path}.away")
        with ThreadPoolExecutor() as pool:
            late = pool.submit(hashes, reached(made.dir), timeout=patience(20))
            with pytest.raises(TimeoutError):
                late.result(0.3)
            os.rename(f"{path}.away", path)
            assert all(late.result(patience(20)).values())
            os.rename(path, f"{path}.away")
            assert hashes(reached(made.dir), timeout=0.1)[seat.id] is None, "patience ends"
            late = pool.submit(hashes, reached(made.dir), timeout=None)
            os.kill(pid, signal.SIGKILL)
            assert late.result(patience(20))[seat.id] is None
        ran = called(capsys, "hash", *at, "--timeout", "never")
        assert f"replica {seat.id}: nobody answers\n" in ran.out


@pytest.mark.parametrize("verb", ASK)
def test_a_cluster_is_needed(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, 2, "Which service? Give --cluster", verb, *asking(verb, tmp_path))


@pytest.mark.parametrize("verb", ASK)
def test_there_is_no_such_cluster(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (verb, *asking(verb, tmp_path), "--cluster", str(tmp_path / "none"))
    fails(capsys, 3, "has no cluster: make one with `engine kv up --dir`", *words)


def asking(verb: str, folder: Path) -> list[str]:
    """What this verb needs besides a cluster."""
    (folder / "txn").write_text("{}")
    return [word if verb != "txn" else str(folder / "txn") for word in ASK[verb].split()]


@pytest.mark.parametrize("verb", ["get", "put", "range", "watch", "lease", "lock"])
def test_nobody_is_there(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--cluster", f"ipc://{tmp_path}/x,ipc://{tmp_path}/y", "--timeout", "0.2")
    word = "0 of 2 replicas reachable: nothing was done."
    fails(capsys, 4, word, verb, *ASK[verb].split(), *at)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "is damaged"),
        ('{"version": 2}', "is of version 2, we read 1"),
        ('{"version": 1}', "is damaged"),
        ('{"version": 1, "sockets": "/x", "members": [{}]}', "is damaged"),
        ("[]", "is damaged"),
    ],
)
def test_a_cluster_file_that_makes_no_sense(
    text: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.json").write_text(text)
    fails(capsys, 6, word, "get", "k", "--cluster", str(tmp_path))
    fails(capsys, 6, word, "up", "--dir", str(tmp_path))
    assert (tmp_path / "cluster.json").read_text() == text


# --- up and down ---------------------------------------------------------------------------------


def test_up_says_where_and_down_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--detach, in words and as JSON; a second one is refused; what was put is there again."""
    folder = str(tmp_path / "s")
    at = ("--cluster", folder)
    ran = engine("kv", "up", "--dir", folder, "--detach", "--replicas", "1")
    line = rf"replica 1 \(pid \d+\) at ipc://\S+/1\nengine kv status --cluster {folder}\n"
    assert re.fullmatch(line, ran.out), ran
    assert (ran.code, ran.err) == (0, "")
    try:
        assert called(capsys, "put", "k", "v", *at).code == 0
        sockets = sockets_of(folder)
        assert os.stat(sockets).st_mode & 0o077 == 0
        for flags in ((), ("--detach",), ("--json",), ("--detach", "--json")):
            ran = engine("kv", "up", "--dir", folder, *flags)
            said = ran.out if "--json" in flags else ran.err
            assert ran.code == 6, (flags, ran)
            assert re.search(rf"{folder} is in use by process \d+", said), (flags, ran)
            assert (ran.err if "--json" in flags else ran.out) == "", (flags, ran)
    finally:
        ran = called(capsys, "down", "--dir", folder)
    assert ran == (0, "", "")
    assert not os.path.exists(sockets)
    fails(capsys, 3, f"Nothing is up in {folder}", "down", "--dir", folder)
    fails(capsys, 3, "There is no folder", "down", "--dir", f"{folder}/none")
    fails(capsys, 4, "0 of 1 replicas reachable", "get", "k", *at, "--timeout", "0.2")
    fails(capsys, 6, "has 1 replicas, not 3", "up", "--dir", folder, "--replicas", "3")
    ran = engine("kv", "up", "--dir", folder, "--detach", "--json")
    said = json.loads(ran.out)
    try:
        assert called(capsys, "get", "k", *at) == (0, "v\n", "")
        assert sockets_of(folder) == sockets
    finally:
        ended = told(called(capsys, "down", "--dir", folder, "--json"))
    assert said.keys() == {"dir", "replicas"}
    assert said["dir"] == ended["dir"] == folder
    assert [one.keys() for one in said["replicas"]] == [{"id", "pid", "client"}]
    assert not any(map(alive, [ended["ended"], *[one["pid"] for one in said["replicas"]]]))


def alive(pid: int) -> bool:
    """Not a zombie either: an orphan is init's to reap, whenever it gets to it."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_up_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "s")
    fails(capsys, 2, "A cluster has 1 to 9 replicas, not 10", "up", "--dir", folder,
          "--replicas", "10")  # fmt: skip
    fails(capsys, 2, "--dir", "up")
    fails(capsys, 2, "is not a number", "up", "--dir", folder, "--replicas", "x")


def test_a_replica_that_dies_is_started_again(tmp_path: Path) -> None:
    """The leader, under the eyes of clients: the next put succeeds, and it comes back."""
    with cluster(tmp_path) as made, Store(made.dir, timeout=patience(30)) as store:
        said = made.keeper.json()
        assert said["dir"] == made.dir
        pids = {one["id"]: one["pid"] for one in said["replicas"]}
        eventually(lambda: made.pids() == pids, 20, "all to say who they are")
        assert [one["client"] for one in said["replicas"]] == [s.client for s in found(made.dir)]
        store.put("k", "1")
        leader = made.leader()
        died = made.kill(leader)
        ran = engine("kv", "put", "k", "2", "--cluster", made.dir)
        assert ran.code == 0, ran
        made.back(leader, died)
        eventually(lambda: made.pids().keys() == {1, 2, 3}, 20, "all of them")
        assert f"engine: replica {leader} ended with signal 9\n" in made.keeper.stderr()
        found_now = store.get("k")
        assert found_now is not None
        assert found_now.value == b"2"


def test_the_keeper_is_killed(tmp_path: Path) -> None:
    """Its replicas end with it, and `up` has all that was acknowledged."""
    with cluster(tmp_path) as made:
        with Store(made.dir) as store:
            revisions = [store.put(f"k{number}", str(number)) for number in range(20)]
            alive = [psutil.Process(pid) for pid in made.pids().values()]
            made.keeper.kill()
            _, left = psutil.wait_procs(alive, timeout=patience(10))
            assert not left
        ran = engine("kv", "status", "--cluster", made.dir, "--timeout", "0.2")
        assert (ran.code, ran.err) == (4, "engine: Nobody leads: 0 of 3 replicas reachable.\n")
        assert ran.out.count("nobody answers at ipc://") == 3
        made.up()
        with Store(made.dir) as store:
            assert [one.modified for one in store.prefix("k")] == sorted(
                revisions, key=lambda revision: str(revision - revisions[0])
            )


def test_the_dead_stay_dead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--no-restart: one of three may be away; without a majority it is said how many are there."""
    with cluster(tmp_path, "--no-restart") as made:
        at = ("--cluster", made.dir)
        assert called(capsys, "put", "k", "v", *at).code == 0
        dead = made.leader()
        made.kill(dead)
        assert called(capsys, "put", "k", "w", *at).code == 0
        said = told(called(capsys, "status", *at, "--json"))
        assert said["leader"] not in (None, dead)
        (gone,) = [one for one in said["replicas"] if one["id"] == dead]
        assert gone == {key: gone[key] for key in ("id", "member", "client")} | {"reachable": False}
        ran = called(capsys, "status", *at)
        assert ran.code == 0
        assert f"replica {dead}: nobody answers at ipc://" in ran.out
        ran = called(capsys, "hash", *at)
        assert f"replica {dead}: nobody answers\n" in ran.out
        made.kill(said["leader"])

        def lost() -> bool:
            return called(capsys, "status", *at).code == 4

        eventually(lost, 20, "the last one to know")
        few = "1 of 3 replicas reachable"
        ran = called(capsys, "status", *at)
        assert ran.err == f"engine: Nobody leads: {few}.\n"
        ran = called(capsys, "status", *at, "--json")
        said = json.loads(ran.out)
        assert (ran.code, said["leader"], said["error"]) == (4, None, f"Nobody leads: {few}.")
        fails(capsys, 4, few, "get", "k", *at, *BRIEFLY)
        ran = called(capsys, "put", "k", "x", *at, *BRIEFLY)
        assert ran.code == 4, "nobody was there who could have done it"
        assert few in ran.err
        fails(capsys, 4, few, "snapshot", str(tmp_path / "f"), *at, *BRIEFLY)
        fails(capsys, 4, f"Nobody leads, so nothing can be changed: {few}", "member", "add", *at)
        assert [seat.id for seat in found(made.dir)] == [1, 2, 3]
        assert called(capsys, "get", "k", "--local", *at) == (0, "w\n", "")


def test_quarantine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A replica that was found broken does not start; the others serve, and it can be replaced."""
    with cluster(tmp_path) as made:
        at = ("--cluster", made.dir)
        called(capsys, "put", "k", "v", *at)
        made.down()
        Path(made.dir, "2", "quarantine").write_text("its memory is broken\n")
        made.up()
        eventually(lambda: "replica 2 ended with code 6" in made.keeper.stderr(), 20, "it to end")
        sentence = f"{made.dir}/2 is in quarantine: its memory is broken. Replace it"
        assert sentence in Path(made.dir, "2.log").read_text()
        fails(capsys, 6, sentence, "serve", "--dir", f"{made.dir}/2")
        assert called(capsys, "get", "k", *at) == (0, "v\n", "")
        assert called(capsys, "member", "replace", "2", *at) == (0, "4\n", "")
        assert [seat.id for seat in found(made.dir)] == [1, 3, 4]
        assert made.keeper.stderr().count("replica 2 ended") == 1, "it was not started again"


def test_serve_needs_its_parent(tmp_path: Path) -> None:
    ran = engine("kv", "serve", "--dir", str(tmp_path), "--parent", "1")
    assert (ran.code, ran.err) == (4, "engine: Process 1 is not my parent (any more).\n")
    ran = engine("kv", "serve", "--dir", str(tmp_path))
    assert ran.code == 3
    assert "is no member's folder" in ran.err


# --- members and backups -------------------------------------------------------------------------


def test_members(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with cluster(tmp_path) as made:
        at = ("--cluster", made.dir)
        called(capsys, "put", "k", "v", *at)

        def ids() -> list[int]:
            return [seat.id for seat in found(made.dir)]

        def voters() -> int:
            one = made.statuses()[made.leader()]
            return [seat.role for seat in one.seats].count("voter")

        assert called(capsys, "member", "add", *at) == (0, "4\n", "")
        assert (ids(), voters()) == ([1, 2, 3, 4], 4)
        wanted = next(number for number in ids() if number != made.leader())
        assert called(capsys, "member", "lead", str(wanted), *at) == (0, "", "")
        assert made.leader() == wanted
        assert called(capsys, "member", "lead", str(wanted), *at).code == 0
        said = told(called(capsys, "member", "lead", *at, "--json"))
        assert [one["id"] for one in said["replicas"]] == ids()
        assert made.leader() != wanted
        assert called(capsys, "member", "remove", "1", *at) == (0, "", "")
        assert (ids(), voters()) == ([2, 3, 4], 3)
        new = told(called(capsys, "member", "replace", "3", *at, "--json"))
        assert new["id"] == 5
        assert (ids(), voters()) == ([2, 4, 5], 3)
        eventually(lambda: made.pids().keys() == {2, 4, 5}, 20, "all of them")
        fails(capsys, 3, "There is no replica 1; there are 2, 4, 5", "member", "remove", "1", *at)
        fails(capsys, 3, "There is no replica 9", "member", "lead", "9", *at)
        fails(capsys, 2, "Which replica?", "member", "replace", *at)
        assert called(capsys, "get", "k", *at) == (0, "v\n", "")
        made.down()
        made.up()
        assert called(capsys, "get", "k", *at) == (0, "v\n", "")


def test_the_only_replica_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with cluster(tmp_path, "--replicas", "1") as made:
        word = "Replica 1 is the only one"
        fails(capsys, 6, word, "member", "remove", "1", "--cluster", made.dir)


def test_snapshot_and_restore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new cluster has all there was: keys, their revisions, leases; and goes on from there."""
    backup, folder = str(tmp_path / "backup"), str(tmp_path / "new")
    with cluster(tmp_path) as made:
        at = ("--cluster", made.dir)
        lease = called(capsys, "lease", "grant", "1000", *at).out.strip()
        called(capsys, "put", "a", "1", "--lease", lease, *at)
        called(capsys, "put", "b", "2", *at)
        revision = int(called(capsys, "put", "b", "3", *at).out)
        before = told(called(capsys, "range", *at, "--json"))
        hashes = {row["hash"] for row in told(called(capsys, "hash", *at, "--json"))["replicas"]}
        size = os.path.getsize
        ran = called(capsys, "snapshot", backup, *at)
        assert ran == (0, f"revision {revision}, {size(backup)} bytes\n", "")
        again = told(called(capsys, "snapshot", f"{backup}2", *at, "--json"))
        assert again == {
            "file": f"{backup}2", "revision": revision, "bytes": size(f"{backup}2"),
        }  # fmt: skip
        fails(capsys, 6, "is there already: name a new file", "snapshot", backup, *at)
        fails(capsys, 2, "cannot be made", "snapshot", str(tmp_path / "no" / "f"), *at)
        fails(capsys, 6, "is not empty", "restore", backup, "--dir", made.dir)
    assert not [name for name in os.listdir(tmp_path) if name.startswith("backup.")]
    damaged_backups(tmp_path, capsys)
    half_restored(tmp_path, capsys)
    ran = called(capsys, "restore", backup, "--dir", folder)
    assert ran == (0, f"engine kv up --dir {folder}\n", "")
    assert not os.path.exists(sockets_of(folder))
    fails(capsys, 6, "is not empty: name a new folder", "restore", backup, "--dir", folder)
    with programs(tmp_path) as start:
        other = Cluster(start, Path(folder))
        at = ("--cluster", folder)
        try:
            assert told(called(capsys, "range", *at, "--json")) == before
            rows = told(called(capsys, "hash", *at, "--json"))["replicas"]
            assert {row["hash"] for row in rows} & hashes
            assert told(called(capsys, "lease", "show", lease, *at, "--json"))["keys"] == 1
            assert called(capsys, "put", "c", "4", *at).out == f"{revision + 1}\n"
        finally:
            other.down()


def damaged_backups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is made of them."""
    whole = (tmp_path / "backup").read_bytes()
    bad, folder = tmp_path / "bad", str(tmp_path / "never")
    for data in (b"", b"text", whole[:-1], whole[:100], flipped(whole, len(whole) // 2)):
        bad.write_bytes(data)
        fails(capsys, 1, "damaged at byte", "restore", str(bad), "--dir", folder)
        assert not os.path.exists(folder)
    fails(capsys, 3, "There is no backup", "restore", f"{bad}s", "--dir", folder)
    fails(capsys, 2, "Is a directory", "restore", str(tmp_path), "--dir", folder)
    one, many = str(tmp_path / "backup"), "10"
    fails(capsys, 2, "not 10", "restore", one, "--dir", folder, "--replicas", many)


def half_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who dies at the second of three replicas leaves no cluster that looks like an empty one."""
    folder, fill = str(tmp_path / "half"), backups._fill

    def fill_one(log: str, *rest: Any) -> None:
        if log.startswith(f"{folder}/2/"):
            raise KeyboardInterrupt
        fill(log, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backups, "_fill", fill_one)
        with pytest.raises(KeyboardInterrupt):
            backups.restore(str(tmp_path / "backup"), folder, 3)
    fails(capsys, 6, "a restore did not come to its end", "up", "--dir", folder, "--detach")
    fails(capsys, 3, "has no cluster", "status", "--cluster", folder)
    fails(capsys, 6, "is not empty", "restore", str(tmp_path / "backup"), "--dir", folder)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_rolling_restart_loses_nothing(tmp_path: Path) -> None:
    """As docs/operations.md has it: away from the leader, end it, wait until it is back."""
    with cluster(tmp_path) as made, Store(made.dir, timeout=patience(30)) as store:
        for number in (1, 2, 3):
            store.append("k", str(number))
            if made.leader() == number:
                assert engine("kv", "member", "lead", "--cluster", made.dir).code == 0
            before = made.pids()[number]
            os.kill(before, signal.SIGTERM)
            made.back(number, before)
        found_now = store.get("k")
        assert found_now is not None
        assert found_now.value == b"123"


# --- the family ----------------------------------------------------------------------------------


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    ran = called(capsys, "--help")
    assert ran.code == 0
    for verb in VERBS:
        assert re.search(rf"^ +{verb} ", ran.out, re.MULTILINE), verb
        assert called(capsys, verb, "--help").code == 0
    assert re.findall(r"^  (\w+) ", ran.out, re.MULTILINE)[: len(VERBS)] == list(VERBS)


def test_a_verb_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    ran = called(capsys, "gett")
    assert ran.code == 2
    assert "There is no `engine kv gett`; there is up, down" in ran.err
