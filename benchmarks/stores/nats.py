"""NATS JetStream: a bucket with three replicas."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stores.base import Needs, Servers, build_go, free_ports

CLIENT = "/usr/share/gocode/src/github.com/nats-io/nats.go"
SYNCED = "sync_interval: always"
CONFIGURATION = """\
server_name: n{number}
listen: 127.0.0.1:{client}
http: 127.0.0.1:{monitor}
jetstream {{
  store_dir: "{folder}"
  {sync}
}}
cluster {{
  name: bench
  listen: 127.0.0.1:{peer}
  routes: [{routes}]
}}
"""


class Nats(Servers):
    name = "nats"
    promise = (
        "a write is with two of three; a read asks the stream's leader, which asks no quorum, so "
        "one that does not know yet that it is replaced answers what is stale"
    )
    fails_over = True
    version_command = ("nats-server", "--version")
    needs = Needs(
        ("nats-server", "go"),
        "nats-server, golang-go, golang-github-nats-io-go-nats-dev",
        (CLIENT,),
    )

    @classmethod
    def missing(cls) -> str:
        return cls.needs.lacking()

    @classmethod
    def build(cls, work: Path) -> Path:
        return build_go(work, "nats")

    def __init__(self, folder: Path, load: Path) -> None:
        ports = free_ports(9)
        self.clients, self.peers, self.monitors = ports[:3], ports[3:6], ports[6:]
        super().__init__(folder, load)

    def start(self) -> None:
        sync = SYNCED
        self._configure(0, sync)
        command = ["nats-server", "-t", "-c", str(self._path(0))]
        known = subprocess.run(command, capture_output=True, env=self.environment(), check=False)
        if known.returncode:
            sync = ""
            self.notes.append(
                "this version does not know `sync_interval: always` (2.10 does), so it syncs now "
                "and then, and an acknowledged write may be in memory only"
            )
        for number in range(3):
            self._configure(number, sync)
        super().start()

    def _path(self, number: int) -> Path:
        return self.folder / f"n{number}.conf"

    def _configure(self, number: int, sync: str) -> None:
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self.peers)
        text = CONFIGURATION.format(
            number=number,
            client=self.clients[number],
            monitor=self.monitors[number],
            folder=self.folder / f"n{number}",
            sync=sync,
            peer=self.peers[number],
            routes=routes,
        )
        self._path(number).write_text(text)

    def server(self, number: int) -> list[str]:
        return ["nats-server", "-c", str(self._path(number))]

    def _seen(self, number: int) -> dict[str, Any]:
        """{} if it does not answer, or the group that leads all of JetStream has no leader."""
        url = f"http://127.0.0.1:{self.monitors[number]}/jsz?accounts=true&streams=true"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                seen = dict(json.load(answer))
        except OSError:
            return {}
        return seen if seen.get("meta_cluster", {}).get("leader") else {}

    def _group(self, number: int) -> dict[str, Any]:
        """The replicas of the bucket as one of them sees them, or of all while there is none."""
        seen = self._seen(number)
        for account in seen.get("account_details", ()):
            for stream in account.get("stream_detail", ()):
                return dict(stream.get("cluster", {}))
        return dict(seen.get("meta_cluster", {}))

    def leader(self) -> int | None:
        """Once two others follow it: before, there is no place for a bucket of three."""
        for number in self.processes:
            name = self._group(number).get("leader", "")
            at = int(name[1:]) if name else -1
            if at in self.processes and self._followed(at):
                return at
        return None

    def _followed(self, number: int) -> bool:
        replicas = self._group(number).get("replicas", [])
        return len(replicas) == 2 and all(one.get("current") for one in replicas)

    def complete(self) -> bool:
        return self._followed(self.at)

    def command(self, protocol: str, sizes: Sequence[str]) -> list[str]:
        return [str(self.load), protocol, f"nats://127.0.0.1:{self.clients[self.at]}", *sizes]

    def all_addresses(self) -> str:
        return ",".join(f"nats://127.0.0.1:{port}" for port in self.leader_first(self.clients))
