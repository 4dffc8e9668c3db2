"""etcd, as its packages have it, with its defaults."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stores.base import Needs, Servers, build_go, free_ports

CLIENT = "/usr/share/gocode/src/go.etcd.io/etcd/clientv3"


class Etcd(Servers):
    name = "etcd"
    promise = "a write is on the disks of two of three; reads are linearizable"
    fails_over = True
    version_command = ("etcd", "--version")
    needs = Needs(
        ("etcd", "etcdctl", "go"),
        "etcd-server, etcd-client, golang-go, golang-etcd-server-dev",
        (CLIENT,),
    )

    @classmethod
    def missing(cls) -> str:
        return cls.needs.lacking()

    @classmethod
    def build(cls, work: Path) -> Path:
        return build_go(work, "etcd")

    def __init__(self, folder: Path, load: Path) -> None:
        ports = free_ports(6)
        self.clients = [f"http://127.0.0.1:{port}" for port in ports[:3]]
        self.peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
        super().__init__(folder, load)

    def server(self, number: int) -> list[str]:
        initial = ",".join(f"n{n}={peer}" for n, peer in enumerate(self.peers))
        client, peer = self.clients[number], self.peers[number]
        command = ["etcd", "--name", f"n{number}", "--data-dir", str(self.folder / f"n{number}")]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", initial, "--initial-cluster-state", "new"]
        return [*command, "--quota-backend-bytes", str(8 << 30)]

    def _status(self, number: int) -> dict[str, Any]:
        """{} if it does not answer."""
        command = [
            "etcdctl",
            "--endpoints",
            self.clients[number],
            "endpoint",
            "status",
            "-w",
            "json",
        ]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return dict(json.loads(done.stdout)[0]["Status"]) if done.returncode == 0 else {}

    def leader(self) -> int | None:
        for number in self.processes:
            status = self._status(number)
            if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                return number
        return None

    def complete(self) -> bool:
        return all(self._status(number).get("leader") for number in range(3))

    def command(self, protocol: str, sizes: Sequence[str]) -> list[str]:
        return [str(self.load), protocol, self.clients[self.at], *sizes]

    def all_addresses(self) -> str:
        return ",".join(self.leader_first(self.clients))
