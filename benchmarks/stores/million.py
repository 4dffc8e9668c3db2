"""Ours with many keys: memory per key, the longest stall while a snapshot is taken, recovery."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from harness import progress

from engine.errors import EngineError
from engine.kv.aio import AsyncStore
from engine.kv.backup import StoreOperator
from engine.kv.client import Store as Client
from engine.kv.up import found
from stores.base import VALUE_BYTES
from stores.ours import Ours

SNAPSHOTS = 3


def measure(folder: Path, load: Path, keys: int) -> dict[str, float]:
    progress(f"{keys} keys")
    ours = Ours(folder, load)
    try:
        empty = min(psutil.Process(pid).memory_info().rss for pid in ours.pids)
        asyncio.run(fill(str(folder), keys))
        ours.find()
        follower = next(one for one in ours.replicas if one["id"] != ours.leader["id"])
        rss = psutil.Process(follower["pid"]).memory_info().rss
        return {
            "bytes_per_key": (rss - empty) / keys,
            "stall_ms": stall(ours),
            "recovery_s": recovery(ours, follower),
        }
    finally:
        ours.close()


async def fill(folder: str, keys: int) -> None:
    """Keys of 16 bytes with values of 256, many at a time."""
    value = bytes(VALUE_BYTES)
    async with AsyncStore(folder, timeout=60) as store:
        for first in range(0, keys, 2000):
            names = range(first, min(first + 2000, keys))
            await asyncio.gather(*(store.put(f"key-{name:012d}", value) for name in names))


def stall(ours: Ours) -> float:
    """The slowest of a lone client's writes while the leader takes a snapshot, of three."""
    seat = next(s for s in found(str(ours.folder)) if s.id == ours.leader["id"])
    script = (
        "import sys; from engine.kv.backup import StoreOperator\n"
        "with StoreOperator(sys.argv[1], timeout=120) as one: one.take_snapshot()"
    )
    slowest = 0.0
    with Client(str(ours.folder), timeout=10) as store:
        store.put("stall", "x")  # which connects it
        for _ in range(SNAPSHOTS):
            process = subprocess.Popen([sys.executable, "-c", script, seat.admin])
            while process.poll() is None:
                begin = time.monotonic()
                store.put("stall", "x")
                slowest = max(slowest, time.monotonic() - begin)
            assert process.returncode == 0
    return slowest * 1e3


def recovery(ours: Ours, follower: dict[str, Any]) -> float:
    """From its start until it leads nothing but answers: a read that only it can answer."""
    seat = next(s for s in found(str(ours.folder)) if s.id == follower["id"])
    with StoreOperator(seat.admin, timeout=120) as operator:
        operator.take_snapshot()
    os.kill(follower["pid"], signal.SIGKILL)
    psutil.wait_procs([psutil.Process(follower["pid"])], timeout=10)
    wanted = ours.status()
    applied = max(one.get("applied", 0) for one in wanted["replicas"])
    seats = found(str(ours.folder))
    command = [sys.executable, "-m", "engine_cmd.main", "kv", "serve", "--dir", seat.folder]
    command += ["--initial", ",".join(f"{one.member}={one.peers}" for one in seats)]
    command += ["--listen", seat.peers, "--clients", seat.client, "--admin", seat.admin]
    begin = time.monotonic()
    with open(f"{seat.folder}.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while True:
            try:
                with StoreOperator(seat.admin, timeout=0.5) as operator:
                    if operator.status().applied >= applied:
                        break
            except EngineError:
                pass
        with Client([seat.client], timeout=10) as store:
            assert store.get("key-000000000001", local=True) is not None
        return time.monotonic() - begin
    finally:
        process.terminate()
        process.wait()
