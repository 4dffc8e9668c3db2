"""Ours: `engine kv up`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import HERE

from stores.base import Store, build_c, until


class Ours(Store):
    name = "ours"
    promise = (
        "a write is on the disks of two of three when it is acknowledged, and is made once however "
        "often it is sent; reads are linearizable"
    )

    @classmethod
    def build(cls, work: Path) -> Path:
        return build_c(work / "load", HERE / "load.c")

    def start(self) -> None:
        self._engine("up", "--dir", str(self.folder), "--detach", "--json", "--no-restart")

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

    def all_follow(self) -> bool:
        up = [one for one in self.status()["replicas"] if one["reachable"]]
        return len(up) == 3 and len({one["applied"] for one in up}) == 1

    def command(self, protocol: str, sizes: Sequence[str]) -> list[str]:
        return [str(self.load), protocol, self.leader["client"], *sizes]

    @property
    def leader_pid(self) -> int:
        return int(self.leader["pid"])

    def close(self) -> None:
        self._engine("down", "--dir", str(self.folder), "--json")
