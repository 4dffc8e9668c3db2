"""`engine kv page` and `engine kv metrics` as programs, beside a cluster that changes."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Program, programs
from kv.live import Cluster, cluster, slowed
from support import engine, need, patience
from waiting import eventually

from engine.faults.power import Power
from engine.kv.client import Store
from engine.kv.metrics import PREFIX, REFUSALS, names
from engine.kv.up import found

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("k")) as made:
        yield made


class Served:
    """A server of figures, and what it says at a path."""

    def __init__(self, program: Program) -> None:
        self.program = program
        eventually(lambda: program.stdout().endswith("\n"), 20, "its address")
        told = program.json()
        self.address = told["address"]
        assert told["pid"] == program.pid

    def get(self, path: str) -> str:
        base = self.address.rpartition("/")[0]
        with urllib.request.urlopen(base + path, timeout=patience(10)) as answer:
            return str(answer.read().decode())

    def status(self) -> Any:
        return json.loads(self.get("/status.json"))

    def end(self) -> None:
        self.program.process.terminate()
        assert self.program.wait(20) == 0
        assert self.program.stderr() == ""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """`serve("page", "--cluster", DIR)`."""
    with programs(tmp_path) as start:
        yield lambda verb, *words: Served(start("kv", verb, "--json", *words))


def names_in(text: str) -> set[str]:
    parser = need("prometheus_client.parser", "test")
    families = parser.text_string_to_metric_families(text)
    return {sample.name for family in families for sample in family.samples}


def test_all_metrics_come_from_a_real_cluster(three: Cluster) -> None:
    """None is promised that no replica gives, and none given that is not promised."""
    ran = engine("kv", "metrics", "--cluster", three.dir)
    assert (ran.code, ran.err) == (0, "")
    assert names_in(ran.out) == names() - {PREFIX + REFUSALS}
    assert ran.out.count("engine_kv_up{") == 3


def test_metrics_are_looked_at_when_they_are_asked_for(
    three: Cluster, serve: Callable[..., Served]
) -> None:
    served = serve("metrics", "--cluster", three.dir, "--listen", "0")
    assert served.address.endswith("/metrics")

    def turns() -> float:
        found = re.findall(r'^engine_kv_turns_total\{replica="1"\} (\d+)$', text(), re.MULTILINE)
        return int(found[0])

    def text() -> str:
        return served.get("/metrics")

    before = turns()
    eventually(lambda: turns() > before, 10, "more turns")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        served.get("/status.json")
    served.end()


def test_page(three: Cluster, serve: Callable[..., Served]) -> None:
    served = serve("page", "--cluster", three.dir)
    assert "<title>store</title>" in served.get("/")
    assert "engine_kv_up{" in served.get("/metrics")
    told = served.status()
    assert (told["cluster"], told["level"]) == ("store", "good")
    assert told["leader"] == three.leader()
    assert {one["id"]: one["pid"] for one in told["replicas"]} == three.pids()
    served.end()


def test_a_write_that_waits_for_a_majority(three: Cluster, serve: Callable[..., Served]) -> None:
    """The others are stopped for a while: the leader says what was slow, and whose fault it was.
    Whoever has an account on this machine can look: keys are shown if somebody wants that."""
    blind, served = (
        serve("page", "--cluster", three.dir, *more) for more in ((), ("--show-keys",))
    )
    slowed(three, b"<b>slow</b> \xff\0" + b"x" * 100)

    def seen() -> Any:
        rows = [one for one in served.status()["slow"] if one["key"].startswith("<b>slow")]
        return rows[-1] if rows else None

    told = eventually(seen, 20, "the request")
    assert told["key"] == r"<b>slow</b> \xff\x00" + "x" * 50 + "…"
    assert (told["verb"], told["waited"]) == ("put", "a majority")
    assert told["ended"] in ("done", "unknown"), "it steps down when it hears of nobody for long"
    assert 100 < told["took_ms"] < patience(30) * 1000
    assert told["seconds_ago"] < patience(30)
    assert re.fullmatch(r"client \d+", told["client"])
    assert re.fullmatch("[0-9a-f]{8}", told["session"]), "not enough of it to speak in it"
    assert told["replica"] in (1, 2, 3)
    counted = re.findall(
        r"^engine_kv_slow_requests_total\{.*\} (\d+)$", served.get("/metrics"), re.M
    )
    assert sum(map(int, counted)) >= 1
    assert all(one["key"] is None for one in blind.status()["slow"])
    assert "slow</b>" not in blind.get("/status.json")
    ran = engine("kv", "status", "--cluster", three.dir, "--json")
    slow = [one for row in json.loads(ran.out)["replicas"] for one in row["slow"]]
    assert told["key"] in [one["key"] for one in slow]
    admins = ",".join(seat.admin for seat in found(three.dir))
    assert engine("raft", "status", "--cluster", admins, "--json").code == 0
    served.end()
    blind.end()


def test_a_write_that_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a read beside it, which needs none, does not. The leader is alone: of several, it is
    chance whose disk is the slowest."""
    (tmp_path / "store").mkdir()
    with Power(tmp_path / "store", 7) as power:
        for name, value in power.environment().items():
            monkeypatch.setenv(name, value)
        alone = cluster(tmp_path, "--replicas", "1")
        with alone as made, Store(made.dir, timeout=patience(30)) as store:
            store.put("k", "v")
            power.slow(400)
            store.put("slow", "v")
            store.get("k")
            power.heal()
            told = [one for status in made.statuses().values() for one in status.slow]
    (found,) = [one for one in told if one.key == b"slow" and one.ended == "done"]
    assert (found.verb, found.waited, found.others) == ("put", "its disk", 0)
    assert found.took_ms >= 400


def test_a_replica_that_is_started_again(three: Cluster, serve: Callable[..., Served]) -> None:
    served = serve("page", "--cluster", three.dir)
    pid = three.kill(2)

    def back() -> bool:
        told = served.status()
        seen = {one["id"]: one.get("pid", pid) for one in told["replicas"]}
        return seen[2] != pid and told["level"] == "good"

    eventually(back, 20, "another process")
    served.end()


def test_a_cluster_that_is_down_and_one_that_is_gone(
    tmp_path: Path, serve: Callable[..., Served]
) -> None:
    with cluster(tmp_path) as made:
        served = serve("page", "--cluster", made.dir)
        assert served.status()["level"] == "good"
        made.down()
        eventually(lambda: "No replica answers" in served.status()["sentences"][0], 20)
        assert engine("kv", "metrics", "--cluster", made.dir).out.count(" 0\n") == 3
        made.up()
        eventually(lambda: served.status()["level"] == "good", 20, "all to be well")
        made.down()
        shutil.rmtree(made.dir)
        eventually(lambda: "has no cluster" in served.status()["sentences"][0], 20)
        assert served.status()["replicas"] == []
        served.end()


@pytest.mark.parametrize("verb", ["page", "metrics"])
def test_misuse(three: Cluster, serve: Callable[..., Served], tmp_path: Path, verb: str) -> None:
    at = ("--cluster", three.dir)
    ran = engine("kv", verb, *at, "--listen", "0.0.0.0:0")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "engine: 0.0.0.0:0 is not 127.0.0.1:PORT: figures are served on this machine only.\n"
    )
    ran = engine("kv", verb, "--cluster", str(tmp_path), "--listen", "0", "--json")
    assert (ran.code, ran.err) == (3, "")
    assert "has no cluster" in json.loads(ran.out)["error"]
    served = serve(verb, *at, "--listen", "127.0.0.1:0")
    taken = re.findall(r"//([\d.:]+)/", served.address)[0]
    ran = engine("kv", verb, *at, "--listen", taken)
    assert ran.code == 6
    assert f"process {served.program.pid}" in ran.err
    served.end()
