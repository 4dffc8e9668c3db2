"""A replica of a dictionary on PySyncObj, which has no client from outside: the load is in here.

    python pysyncobj_node.py ADDRESS PARTNER,PARTNER JOURNAL

Takes a line of JSON from standard input and says one: `["status"]` who leads; `["put", CLIENTS,
SECONDS, BYTES]`, or `get`, `mix`, `fill`: what a closed loop of so many calls did, as in load.c.
The end of the input ends it.

A get is a command of the log as a put is: a look at the own copy would be quick, and may be stale.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated  # type: ignore[import-not-found, import-untyped, unused-ignore]

KEYS = 10_000


class Replica(SyncObj):  # type: ignore[misc, unused-ignore]
    """Bytes by key, by way of the log."""

    def __init__(self, address: str, partners: list[str], journal: str) -> None:
        # A batch waits for the next beat of 100 ms: 20 calls a second of one client. Without it
        # each command is sent at once.
        # The benchmark stops it while others have their turns: that breaks no connection.
        configuration = SyncObjConf(
            journalFile=journal,
            fullDumpFile=f"{journal}.dump",
            appendEntriesUseBatch=False,
            connectionTimeout=3600.0,
        )
        super().__init__(address, partners, configuration)
        self.values: dict[str, bytes] = {}

    @replicated  # type: ignore[untyped-decorator, unused-ignore]
    def put(self, key: str, value: bytes) -> None:
        self.values[key] = value

    @replicated  # type: ignore[untyped-decorator, unused-ignore]
    def get(self, key: str) -> bytes | None:
        return self.values.get(key)


class Load:
    """A closed loop of `clients` calls; `measure` returns when it is over."""

    def __init__(self, replica: Replica, protocol: str, clients: int, size: int) -> None:
        self.replica, self.protocol, self.clients = replica, protocol, clients
        self.value = b"v" * size
        self.random = random.Random(time.monotonic())
        self.took: list[float] = []
        self.done = self.outstanding = self.filled = 0
        self.warm = self.end = 0.0
        self.failed = ""
        self.over = threading.Event()
        self.lock = threading.RLock()
        """The first calls are made while the thread that ticks answers some of them already."""

    def measure(self, seconds: float) -> dict[str, Any]:
        begin = time.monotonic()
        self.warm, self.end = begin + seconds / 10, begin + seconds
        self.outstanding = self.clients
        for _ in range(self.clients):
            with self.lock:
                self._ask()
        self.over.wait()
        if self.failed:
            return {"failed": self.failed}
        if self.protocol == "fill":
            return {"done": self.done}
        wall = time.monotonic() - self.warm
        took = sorted(self.took)
        if not took:
            return {"failed": "nothing was done"}
        return {
            "ops": len(took) / wall,
            "p50_ms": took[len(took) // 2] * 1e3,
            "p99_ms": took[len(took) * 99 // 100] * 1e3,
            "max_ms": took[-1] * 1e3,
            "done": self.done,
        }

    def _ask(self) -> None:
        at = time.monotonic()
        over = self.filled >= KEYS if self.protocol == "fill" else at > self.end
        if over or self.failed:
            self.outstanding -= 1
            if not self.outstanding:
                self.over.set()
            return
        number = self.filled if self.protocol == "fill" else self.random.randrange(KEYS)
        self.filled += 1
        key = f"key-{number:012d}"

        write = self.protocol in ("put", "fill") or (
            self.protocol == "mix" and self.random.randrange(10) == 0
        )

        def answered(value: bytes | None, reason: int) -> None:
            with self.lock:
                if reason:
                    self.failed = f"a command failed with reason {reason}"
                elif not write and value != self.value:
                    self.failed = f"{key} has not the value that was put"
                self.done += 1
                if at > self.warm:
                    self.took.append(time.monotonic() - at)
                self._ask()

        if write:
            self.replica.put(key, self.value, callback=answered)
        else:
            self.replica.get(key, callback=answered)


def main(address: str, partners: str, journal: str) -> None:
    replica = Replica(address, partners.split(","), journal)
    for line in sys.stdin:
        command, *rest = json.loads(line)
        if command == "status":
            status = replica.getStatus()
            told: Any = {"leader": str(status["leader"] or "")}
        else:
            clients, seconds, size = rest
            told = Load(replica, command, clients, size).measure(seconds)
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
