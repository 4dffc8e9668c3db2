"""Replicated stores, three replicas each on this machine, for the benchmark of the store.

Each says where its leader is, for the load (`load.c`, or `peers/etcd` for etcd), and what
its processes used.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

WAIT_SECONDS = 60.0
PEERS = Path(__file__).parent / "peers"


def until(what: str, true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return found


def cpu_of(pids: list[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(one.user + one.system for one in times)


class Ours:
    """`engine kv up`."""

    name = "engine"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._engine("up", "--dir", str(folder), "--detach", "--json", "--no-restart")
        self.find()

    def _engine(self, *words: str) -> Any:
        command = [sys.executable, "-m", "engine_cmd.main", "kv", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return json.loads(done.stdout)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self._engine("status", "--cluster", str(self.folder), "--json")
        return found

    def find(self) -> None:
        found = until("a leader", lambda: (s := self.status()).get("leader") and s)
        self.replicas = [one for one in found["replicas"] if one["reachable"]]
        self.pids = [one["pid"] for one in self.replicas]
        self.leader = next(one for one in self.replicas if one["id"] == found["leader"])

    def command(self, load: dict[str, str], protocol: str, sizes: list[str]) -> list[str]:
        return [load["ours"], load["library"], protocol, self.leader["client"], *sizes]

    @property
    def leader_pid(self) -> int:
        return int(self.leader["pid"])

    def close(self) -> None:
        self._engine("down", "--dir", str(self.folder), "--json")


class Etcd:
    """As its packages have it, with its defaults."""

    name = "etcd"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        ports = free_ports(6)
        self.clients = [f"http://127.0.0.1:{port}" for port in ports[:3]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
        initial = ",".join(f"n{n}={peer}" for n, peer in enumerate(peers))
        self.processes = []
        for n in range(3):
            command = ["etcd", "--name", f"n{n}", "--data-dir", str(folder / f"n{n}")]
            command += ["--listen-client-urls", self.clients[n]]
            command += ["--advertise-client-urls", self.clients[n]]
            command += ["--listen-peer-urls", peers[n], "--initial-advertise-peer-urls", peers[n]]
            command += ["--initial-cluster", initial, "--initial-cluster-state", "new"]
            command += ["--quota-backend-bytes", str(8 << 30)]
            with open(folder / f"n{n}.log", "wb") as log:
                self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        self.pids = [process.pid for process in self.processes]
        self.find()

    def find(self) -> None:
        self.at = until("a leader of etcd", self._leader) - 1

    def _leader(self) -> int:
        """Its place, from 1; 0 if there is none."""
        environment = {**os.environ, "ETCDCTL_API": "3"}
        for at, endpoint in enumerate(self.clients):
            command = ["etcdctl", "--endpoints", endpoint, "endpoint", "status", "-w", "json"]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                status = json.loads(done.stdout)[0]["Status"]
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return at + 1
        return 0

    def command(self, load: dict[str, str], protocol: str, sizes: list[str]) -> list[str]:
        return [load["etcd"], protocol, self.clients[self.at], *sizes]

    @property
    def leader_pid(self) -> int:
        return self.pids[self.at]

    def close(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


def free_ports(many: int) -> list[int]:
    """Of this moment: somebody else may take them, and then the peer says so and the run ends."""
    sockets = [socket.socket() for _ in range(many)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def build_loads(work: Path, source: Path) -> dict[str, str]:
    """The programs, and the library that ours needs; that for etcd only where Go is."""
    import zmq

    load = {"ours": str(work / "load")}
    command = ["cc", "-O2", "-o", load["ours"], str(source), "-ldl"]
    subprocess.run(command, check=True)
    libraries = Path(zmq.__file__).parent.parent / "pyzmq.libs"
    load["library"] = next(str(path) for path in libraries.glob("libzmq*"))
    if shutil.which("go") and shutil.which("etcd") and shutil.which("etcdctl"):
        load["etcd"] = str(work / "etcdload")
        environment = {
            **os.environ,
            "GO111MODULE": "off",
            "GOPATH": f"/usr/share/gocode:{work / 'go'}",
            "GOCACHE": str(work / "gocache"),
        }
        command = ["go", "build", "-o", load["etcd"], "."]
        subprocess.run(command, cwd=PEERS / "etcd", env=environment, check=True)
    return load
