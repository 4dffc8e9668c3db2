"""Hosts on one machine: network namespaces behind a switch that is in one of its own.

Nothing is made outside of them, so all of it goes when they are removed. Only root can.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from support import IN_CI, Ran, patience, run

PROGRAM = (sys.executable, "-m", "engine_cmd.main")

SNIFFER = """
# All that passes the ports of the switch.
import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
print("sniffing", flush=True)
with open(sys.argv[1], "ab", buffering=0) as file:
    while True:
        file.write(wire.recv(1 << 16))
"""


def ip(*words: str) -> None:
    ran = run(["ip", *words], 20)
    assert ran.code == 0, f"ip {' '.join(words)}: {ran.err}"


def need_namespaces() -> None:
    """Skips where there can be none; in CI, as root, that is a failure."""
    name = f"e{os.urandom(3).hex()}"
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    why = "there is no program `ip`"
    if shutil.which("ip"):
        ran = run(["ip", "netns", "add", name], 20)
        if ran.code == 0:
            ip("netns", "del", name)
            return
        why = f"no network namespaces: {ran.err.strip()}"
    if IN_CI:
        pytest.fail(why)
    pytest.skip(why)


class Hosts:
    """`host(n)` is reached at 10.77.0.n by the others. A context manager."""

    def __init__(self, folder: Path, many: int) -> None:
        self.folder, self.many = folder, many
        self._prefix = f"e{os.urandom(3).hex()}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._made: list[str] = []

    def namespace(self, host: int) -> str:
        """0 is the switch."""
        return f"{self._prefix}-{host}"

    def address(self, host: int) -> str:
        return f"10.77.0.{host}"

    def __enter__(self) -> Self:
        try:
            for host in range(self.many + 1):
                ip("netns", "add", self.namespace(host))
                self._made.append(self.namespace(host))
            switch = self.namespace(0)
            ip("-n", switch, "link", "add", "br0", "type", "bridge")
            ip("-n", switch, "link", "set", "br0", "up")
            for host in range(1, self.many + 1):
                name, port = self.namespace(host), f"p{host}"
                ip("link", "add", "eth0", "netns", name, "type", "veth",
                   "peer", "name", port, "netns", switch)  # fmt: skip
                ip("-n", switch, "link", "set", port, "master", "br0", "up")
                ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for name in self._made:
            run(["ip", "netns", "del", name], 20)

    def plug(self, host: int, *, into: bool) -> None:
        """The cable between a host and the switch."""
        ip("-n", self.namespace(0), "link", "set", f"p{host}", "up" if into else "down")

    def start(self, host: int, command: Sequence[object], name: str) -> subprocess.Popen[bytes]:
        """Its output goes to `folder/name.out`."""
        with open(self.folder / f"{name}.out", "ab") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace(host), *map(str, command)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def run(self, host: int, *command: object, **how: Any) -> Ran:
        """To its end."""
        where = ["ip", "netns", "exec", self.namespace(host)]
        return run([*where, *map(str, command)], 30, **how)

    def engine(self, host: int, *arguments: object) -> Ran:
        return self.run(host, *PROGRAM, *arguments)

    def told(self) -> bytes:
        """All that was printed."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.glob("*.out")))

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        process.send_signal(signal.SIGTERM)
        return process.wait(patience(20))
