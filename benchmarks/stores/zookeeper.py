"""ZooKeeper: three servers of our own configuration, never the one that the system runs."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from stores.base import Needs, Servers, build_go, free_ports

JAR = "/usr/share/java/zookeeper.jar"
CLIENT = "/usr/share/gocode/src/github.com/samuel/go-zookeeper/zk"
CONFIGURATION = """\
tickTime=2000
initLimit=10
syncLimit=5
dataDir={folder}
clientPort={client}
clientPortAddress=127.0.0.1
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr
"""


class ZooKeeper(Servers):
    name = "zookeeper"
    promise = (
        "a write is on the disks of two of three; a read is sync and getData, two round trips; "
        "sync asks no quorum, so a leader that does not know yet that it is replaced answers what "
        "is stale"
    )
    fails_over = True
    version_command = ("dpkg-query", "--show", "zookeeper")
    needs = Needs(
        ("java", "go"),
        "zookeeper, openjdk-17-jre-headless, golang-go, golang-github-samuel-go-zookeeper-dev",
        (JAR, CLIENT),
    )

    @classmethod
    def missing(cls) -> str:
        return cls.needs.lacking()

    @classmethod
    def build(cls, work: Path) -> Path:
        return build_go(work, "zookeeper")

    def __init__(self, folder: Path, load: Path) -> None:
        ports = free_ports(9)
        self.clients, self.peers, self.elections = ports[:3], ports[3:6], ports[6:]
        super().__init__(folder, load)

    def server(self, number: int) -> list[str]:
        folder = self.folder / f"n{number}"
        folder.mkdir(exist_ok=True)
        (folder / "myid").write_text(f"{number + 1}\n")
        lines = CONFIGURATION.format(folder=folder, client=self.clients[number])
        for n in range(3):
            lines += f"server.{n + 1}=127.0.0.1:{self.peers[n]}:{self.elections[n]}\n"
        path = folder / "zoo.cfg"
        path.write_text(lines)
        # The heap is what zkServer.sh gives a server.
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return ["java", "-Xmx1000m", "-cp", JAR, main, str(path)]

    def _mode(self, number: int) -> str:
        """ "leader", "follower", or "" while it serves nobody."""
        try:
            with socket.create_connection(("127.0.0.1", self.clients[number]), timeout=2) as asked:
                asked.sendall(b"srvr")
                answer = b""
                while more := asked.recv(4096):
                    answer += more
        except OSError:
            return ""
        lines = answer.decode(errors="replace").splitlines()
        return next((line[6:] for line in lines if line.startswith("Mode: ")), "")

    def leader(self) -> int | None:
        return next((n for n in self.processes if self._mode(n) == "leader"), None)

    def complete(self) -> bool:
        return all(self._mode(number) for number in range(3))

    def command(self, protocol: str, sizes: Sequence[str]) -> list[str]:
        return [str(self.load), protocol, f"127.0.0.1:{self.clients[self.at]}", *sizes]

    def all_addresses(self) -> str:
        ports = self.leader_first(self.clients)
        return ",".join(f"127.0.0.1:{port}" for port in ports)
