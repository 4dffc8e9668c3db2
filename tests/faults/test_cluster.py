"""Clusters of real processes: how they start, how they are attacked, and that nothing stays."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support import TIME_FACTOR, patience
from waiting import eventually

from engine.errors import ConnectionFailed, EngineError, UsageError
from engine.faults import cluster as module
from engine.faults.cluster import Cluster
from engine.locks.client import Locks

pytestmark = pytest.mark.processes

PRIMARY = ("lock", "serve", "--primary")
SERVES = """
import signal
print('{"address": "somewhere"}', flush=True)
signal.pause()
"""
"""What a cluster takes for a server."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, seed=7, factor=TIME_FACTOR) as made:
        yield made


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(SERVES)
    return path


def gone(*pids: int) -> bool:
    """Ended, and reaped too: a zombie still has its pid."""
    return not any(map(psutil.pid_exists, pids))


def folders() -> set[str]:
    """What engines have made in the folder for temporary files."""
    return {name for name in os.listdir(tempfile.gettempdir()) if "engine" in name}


def status(cluster: Cluster, name: str) -> str:
    return str(psutil.Process(cluster.node(name).process.pid).status())


# --- starts and names ----------------------------------------------------------------------------


def test_it_starts_what_users_start(cluster: Cluster) -> None:
    node = cluster.start("primary", *PRIMARY)
    assert node.running
    assert node is cluster.node("primary")
    with Locks(
        [cluster.address("primary")], timeout=patience(20), via=cluster.via("clerk")
    ) as locks:
        assert locks.acquire("a")
    # It went through the proxy, over the link of these two.
    assert cluster.proxy.total("clerk", "primary").requests_delivered > 0
    assert node.said() == ""


def test_servers_reach_each_other_through_the_proxy(cluster: Cluster) -> None:
    backup = cluster.address("backup")
    cluster.start("backup", "lock", "serve", "--backup")
    cluster.start("primary", *PRIMARY, "--peer", backup)
    servers = [cluster.address("primary"), backup]
    with Locks(servers, timeout=patience(20), via=cluster.via("clerk")) as locks:
        assert locks.acquire("a")
    assert cluster.proxy.total("primary", "backup").requests_delivered > 0


def test_who_is_not_in_reach_is_not_reached(cluster: Cluster) -> None:
    cluster.address("a"), cluster.address("b")
    cluster.start("c", *PRIMARY, reaches=["b"])
    assert set(cluster.proxy.counts()) == {("c", "b")}


def test_names(cluster: Cluster) -> None:
    first, second = cluster.address("a"), cluster.address("b")
    assert first != second
    assert first == cluster.address("a")
    assert (cluster.name_of(first), cluster.name_of(second), cluster.name_of("")) == ("a", "b", "")
    # Everybody who was named, started or not, but not oneself; each by a way of this one's own.
    assert set(cluster.via("clerk")) == {first, second}
    assert set(cluster.via("a")) == {second}
    assert set(cluster.via("clerk", ["a"])) == {first}
    ways = [*cluster.via("clerk").values(), *cluster.via("other").values(), first, second]
    assert len(set(ways)) == 6
    assert cluster.via("clerk") == cluster.via("clerk")


def test_to_name_is_enough_to_be_reached_later(cluster: Cluster) -> None:
    via = cluster.via("clerk", ["late"])
    cluster.start("late", *PRIMARY)
    with Locks([cluster.address("late")], timeout=patience(20), via=via) as locks:
        assert locks.acquire("a")


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("import sys\nsys.exit('it is Monday')", "code 1: it is Monday"),
        ("import sys\nprint('not a line', end='')\nsys.exit('no')", "code 1: no"),
        ("import os\nos.kill(os.getpid(), 11)", "code -11: "),
        ("", "code 0: "),
    ],
)
def test_what_ends_instead_of_starting_says_why(
    cluster: Cluster, program: Path, text: str, how: str
) -> None:
    program.write_text(text)
    with pytest.raises(ConnectionFailed) as caught:
        cluster.start("s1", program=str(program))
    assert str(caught.value) == f"s1 did not start, it ended with {how}"
    assert gone(cluster.node("s1").process.pid)


def test_misuse_is_told_as_well(cluster: Cluster) -> None:
    with pytest.raises(ConnectionFailed, match=r"it said .*--primary"):
        cluster.start("s1", "lock", "serve")
    with pytest.raises(ConnectionFailed, match="no point 'nowhere'"):
        cluster.start("s2", *PRIMARY, kill_at=["nowhere:1"])
    with pytest.raises(UsageError, match="names no end"):
        cluster.start("*", *PRIMARY)


@pytest.mark.parametrize("line", ["", "[]", '{"error": "full"}', "serving"])
def test_another_sentence_is_no_start(cluster: Cluster, program: Path, line: str) -> None:
    program.write_text(SERVES.replace('{"address": "somewhere"}', line))
    with pytest.raises(ConnectionFailed) as caught:
        cluster.start("s1", program=str(program))
    assert str(caught.value).startswith("s1 did not start, it said ")
    assert line in str(caught.value)
    assert gone(cluster.node("s1").process.pid)


def test_what_says_nothing_is_given_up(
    cluster: Cluster, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.01)
    program.write_text("import signal\nsignal.pause()")
    with pytest.raises(ConnectionFailed, match="s1 did not start, it was silent"):
        cluster.start("s1", program=str(program))
    assert gone(cluster.node("s1").process.pid)


# --- attacks -------------------------------------------------------------------------------------


def test_kill(cluster: Cluster, program: Path) -> None:
    node = cluster.start("s1", program=str(program))
    cluster.kill("s1")
    assert not node.running
    assert gone(node.process.pid)
    assert node.process.returncode == -signal.SIGKILL
    cluster.kill("s1")  # once more is fine


def test_a_crash_point(cluster: Cluster) -> None:
    node = cluster.start("s1", *PRIMARY, kill_at=["turned:2"])
    assert node.process.wait(patience(20)) == -signal.SIGKILL
    assert not node.running
    cluster.kill("s1")
    cluster.stop("s1")
    cluster.go_on("s1")  # all fine with what is gone


def test_stopped_when_stop_returns(cluster: Cluster, program: Path) -> None:
    cluster.start("s1", program=str(program))
    for _ in range(20):
        cluster.stop("s1")
        assert status(cluster, "s1") == psutil.STATUS_STOPPED
        cluster.stop("s1")  # once more is fine
        cluster.go_on("s1")
        eventually(lambda: status(cluster, "s1") != psutil.STATUS_STOPPED)
    assert cluster.node("s1").running


def test_stopped_for_a_while(cluster: Cluster, program: Path) -> None:
    cluster.start("s1", program=str(program))
    with cluster.stopped("s1"):
        assert status(cluster, "s1") == psutil.STATUS_STOPPED
        assert cluster.node("s1").running
    eventually(lambda: status(cluster, "s1") != psutil.STATUS_STOPPED)
    with pytest.raises(ZeroDivisionError), cluster.stopped("s1"):
        raise ZeroDivisionError
    eventually(lambda: status(cluster, "s1") != psutil.STATUS_STOPPED)


def test_killed_while_it_is_stopped(cluster: Cluster, program: Path) -> None:
    node = cluster.start("s1", program=str(program))
    with cluster.stopped("s1"):
        cluster.kill("s1")
    assert gone(node.process.pid)


def test_the_same_name_again(cluster: Cluster) -> None:
    address, first = cluster.address("s1"), cluster.start("s1", *PRIMARY)
    with pytest.raises(AssertionError, match="s1 is running"):
        cluster.start("s1", *PRIMARY)
    assert first.running
    cluster.kill("s1")
    second = cluster.start("s1", *PRIMARY)
    assert cluster.node("s1") is second
    assert second.process.pid != first.process.pid
    assert second.log != first.log
    with Locks([address], timeout=patience(20), via=cluster.via("clerk")) as locks:
        assert locks.acquire("a")


def test_the_same_name_after_a_start_that_failed(cluster: Cluster, program: Path) -> None:
    program.write_text("raise SystemExit(3)")
    with pytest.raises(ConnectionFailed):
        cluster.start("s1", program=str(program))
    program.write_text(SERVES)
    assert cluster.start("s1", program=str(program)).running


# --- the end -------------------------------------------------------------------------------------


def test_close_leaves_nothing(tmp_path: Path, program: Path) -> None:
    """Whatever state its processes are in: running, stopped, ended, killed, never started."""
    before = folders()
    with Cluster(tmp_path, factor=TIME_FACTOR) as cluster:
        names = ["running", "stopped", "ended", "killed"]
        nodes = [cluster.start(name, program=str(program)) for name in names]
        cluster.start("serves", *PRIMARY)
        cluster.address("named")
        program.write_text("raise SystemExit(1)")
        with pytest.raises(ConnectionFailed):
            cluster.start("failed", program=str(program))
        cluster.stop("stopped")
        nodes[2].process.terminate()  # and nobody reaps it
        cluster.kill("killed")
        pids = [cluster.node(name).process.pid for name in [*names, "serves", "failed"]]
        pids.append(cluster.proxy.pid)
        assert not gone(*pids)
        assert len(folders() - before) == 2, "of sockets: the cluster's and the proxy's"
    assert gone(*pids)
    assert folders() == before
    cluster.close()  # once more is fine


@pytest.mark.parametrize("accident", [KeyboardInterrupt, ZeroDivisionError])
def test_an_accident_in_the_middle_of_a_start(
    tmp_path: Path,
    program: Path,
    monkeypatch: pytest.MonkeyPatch,
    accident: type[BaseException],
) -> None:
    before = folders()

    def interrupted(*_: object) -> None:
        raise accident

    def start(cluster: Cluster) -> None:
        with cluster:
            cluster.start("s1", program=str(program))
            monkeypatch.setattr(module.select, "select", interrupted)
            cluster.start("s2", program=str(program))

    cluster = Cluster(tmp_path)
    with pytest.raises(accident):
        start(cluster)
    pids = [cluster.node(name).process.pid for name in ("s1", "s2")]
    assert gone(*pids, cluster.proxy.pid)
    assert folders() == before


def test_a_proxy_that_died(tmp_path: Path, program: Path) -> None:
    before = folders()
    with Cluster(tmp_path, factor=TIME_FACTOR) as cluster:
        node = cluster.start("s1", program=str(program))
        os.kill(cluster.proxy.pid, signal.SIGKILL)
    assert gone(node.process.pid, cluster.proxy.pid)
    assert folders() == before


@pytest.mark.parametrize("part", ["Proxy", "private_address"])
def test_a_cluster_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    before = folders()
    children = {child.pid for child in psutil.Process().children()}

    def fails(*_: object) -> None:
        raise UsageError("no room")

    monkeypatch.setattr(module, part, fails)
    with pytest.raises(UsageError, match="no room"):
        Cluster(tmp_path)
    assert folders() == before
    assert {child.pid for child in psutil.Process().children()} <= children


def test_a_server_that_crashes_fails_the_block(tmp_path: Path) -> None:
    """Others may have covered up for it, so that nobody would have noticed."""

    def crash() -> None:
        with Cluster(tmp_path) as cluster:
            process = cluster.start("views", "view", "serve").process
            process.send_signal(signal.SIGABRT)
            process.wait()

    with pytest.raises(EngineError, match="views ended by itself, code -6"):
        crash()
