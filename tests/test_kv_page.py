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
from kv.live import Cluster, cluster
from support import engine, need, patience
from waiting import eventually

from engine.kv.metrics import PREFIX, REFUSALS, names

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
