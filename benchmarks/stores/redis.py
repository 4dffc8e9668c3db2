"""Redis: a primary and two replicas, every write followed by WAIT."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from stores.base import PEERS, Needs, Servers, build_c, free_ports


class Redis(Servers):
    name = "redis"
    promise = (
        "a write is on the primary's disk and in the memory of one replica (WAITAOF of 7.2 would "
        "wait for its disk); a replica that takes over may lack it; reads are the primary's, not "
        "linearizable; nobody takes over without Sentinel, so there is no failover here"
    )
    version_command = ("redis-server", "--version")
    needs = Needs(("redis-server", "cc"), "redis-server, gcc")

    @classmethod
    def missing(cls) -> str:
        return cls.needs.lacking()

    @classmethod
    def build(cls, work: Path) -> Path:
        return build_c(work / "redisload", PEERS / "redis.c")

    def __init__(self, folder: Path, load: Path) -> None:
        self.ports = free_ports(3)
        super().__init__(folder, load)

    def server(self, number: int) -> list[str]:
        folder = self.folder / f"n{number}"
        folder.mkdir(exist_ok=True)
        command = ["redis-server", "--port", str(self.ports[number]), "--bind", "127.0.0.1"]
        command += ["--dir", str(folder), "--save", "", "--appendonly", "yes"]
        command += ["--appendfsync", "always"]
        if number:
            command += ["--replicaof", "127.0.0.1", str(self.ports[0])]
        return command

    def leader(self) -> int | None:
        """The primary, once both replicas are in step with it."""
        try:
            with socket.create_connection(("127.0.0.1", self.ports[0]), timeout=2) as asked:
                asked.sendall(b"INFO replication\r\nQUIT\r\n")
                answer = b""
                while more := asked.recv(4096):
                    answer += more
        except OSError:
            return None
        return 0 if answer.count(b"state=online") == 2 else None

    def command(self, protocol: str, sizes: Sequence[str]) -> list[str]:
        return [str(self.load), protocol, f"127.0.0.1:{self.ports[self.at]}", *sizes]
