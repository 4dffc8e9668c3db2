"""PySyncObj: three Python processes, the load inside the one that leads."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import tail

from stores.base import PEERS, VALUE_BYTES, Servers, free_ports

ANSWER_SECONDS = 90.0
"""More than any turn takes."""


class PySyncObj(Servers):
    name = "pysyncobj"
    promise = (
        "a write is with two of three, in journals that are never synced; a read goes through the "
        "log as a write does, and is linearizable; there is no client from outside, so the load is "
        "in the leader, where it costs no network, and its CPU is in that of the servers"
    )
    restless = True  # a fifth of a core, for ticks

    @classmethod
    def missing(cls) -> str:
        return "" if find_spec("pysyncobj") else "install pysyncobj (PyPI; extra `peers`)"

    @classmethod
    def build(cls, work: Path) -> Path:
        return PEERS / "pysyncobj_node.py"

    def __init__(self, folder: Path, load: Path) -> None:
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
        super().__init__(folder, load)

    def server(self, number: int) -> list[str]:
        partners = ",".join(a for n, a in enumerate(self.addresses) if n != number)
        journal = str(self.folder / f"n{number}.journal")
        return [sys.executable, str(self.load), self.addresses[number], partners, journal]

    def spawn(self, number: int) -> subprocess.Popen[Any]:
        with open(self.folder / f"{number}.log", "ab") as log:
            return subprocess.Popen(
                self.server(number), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def _ask(self, number: int, *command: object) -> dict[str, Any]:
        process = self.processes[number]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], ANSWER_SECONDS)
        assert ready, f"{self.name}: no answer to {command[0]} within {ANSWER_SECONDS:g} s"
        answer = process.stdout.readline()
        log = self.folder / f"{number}.log"
        assert answer, f"{self.name} ended: {tail(log)}"
        return dict(json.loads(answer))

    def leader(self) -> int | None:
        """Once all three know the same one."""
        known = {self._ask(number, "status")["leader"] for number in self.processes}
        return (
            next((self.addresses.index(a) for a in known if a), None) if len(known) == 1 else None
        )

    def run(self, protocol: str, clients: int, seconds: float) -> dict[str, Any]:
        return self._ask(self.at, protocol, clients, seconds, VALUE_BYTES)

    @classmethod
    def version(cls) -> str:
        return metadata.version("pysyncobj")
