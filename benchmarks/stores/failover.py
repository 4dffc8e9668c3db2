"""How long nobody takes a write after the leader was killed (-9) or stopped.

A client writes 50 keys, the leader is struck, the client writes one more at once, asking again as
often as it must: the time until that is acknowledged. All stores have their default timeouts, and
these are what is seen here more than anything else. The clients of peers give an attempt up after
200 ms (`attempt` in `peers/store/loop.go`), so their figures are that much coarser than ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from harness import progress, tail

from engine.kv.client import Store as Client
from stores.base import VALUE_BYTES, Servers, until
from stores.ours import Ours

GOALS = {"killed": (150, 400), "stopped": (350, None)}
"""Of ours, milliseconds: the median and the maximum."""


def of_ours(work: Path, load: Path, kills: int) -> dict[str, list[float]]:
    """Milliseconds of each blow, by what was done to the leader."""
    return {how: list(_blows(work / f"ours-{how}", load, how, kills)) for how in GOALS}


def _blows(folder: Path, load: Path, how: str, kills: int) -> Iterator[float]:
    ours = Ours(folder, load)
    try:
        for turn in range(kills):
            progress(f"failover: ours, {how}, {turn + 1}/{kills}")
            ours.find()
            yield _blow(ours, how)
            if how == "stopped":
                os.kill(ours.leader_pid, signal.SIGCONT)
            else:
                ours.close()
                ours.start()
            until("three replicas", ours.all_follow)
    finally:
        ours.close()


def _blow(ours: Ours, how: str) -> float:
    with Client(str(ours.folder), timeout=10) as store:
        for number in range(50):
            store.put(f"before-{number}", "x")
        pid = ours.leader_pid
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        store.put("after", "x")
        return (time.monotonic() - begin) * 1e3


def of_peer(peer: type[Servers], work: Path, load: Path, kills: int) -> list[float]:
    """The same, killed, with the peer's own client."""
    taken = []
    servers = peer(work / f"{peer.name}-killed", load)
    try:
        servers.fill()
        for turn in range(kills):
            progress(f"failover: {peer.name}, killed, {turn + 1}/{kills}")
            servers.find()
            taken.append(_blow_peer(servers))
            servers.mend()
    finally:
        servers.close()
    return taken


def _blow_peer(servers: Servers) -> float:
    command = [str(servers.load), "failover", servers.all_addresses(), "1", "1", "0"]
    command.append(str(VALUE_BYTES))
    log = servers.folder / "client.log"  # libraries complain there about the leader's death
    with (
        open(log, "ab") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as client,
    ):
        assert client.stdin is not None
        assert client.stdout is not None
        said = client.stdout.readline()
        assert said == "ready\n", f"{servers.name}, nothing is written: {tail(log)}"
        begin = time.monotonic()
        servers.kill_leader()
        client.stdin.write("go\n")
        client.stdin.flush()
        said = client.stdout.readline()
        taken = time.monotonic() - begin
        assert said == "acked\n", f"{servers.name}, the leader was killed: {tail(log)}"
        return taken * 1e3
