"""Clusters of real processes for tests: started as a user would, every link through the proxy.

    with Cluster(folder, seed=7) as cluster:
        cluster.start("views", "view", "serve")
        cluster.start("s1", "pb", "serve", "--cluster", cluster.address("views"))
        store = Store(cluster.address("views"), via=cluster.via("clerk"))
        cluster.proxy.cut("s1", "views")
        cluster.kill("s1")

A process has a name and listens at `address(name)`. Nobody dials that directly: `via(name)` gives,
for every process that there may be, the proxy's door for this one link. What is not started yet can
be named. On leaving, everything is killed and reaped, whatever state it is in; and a server that
has crashed by itself fails the block, since others may have covered up for it.

What is started with a `power` (`engine.faults.power`) is on a disk that can fail, and
`kill(name, power=True)` takes what it had not synced.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO

from engine.errors import ConnectionFailed, EngineError, UsageError
from engine.faults.control import Proxy
from engine.faults.power import Loss, Power
from engine.faults.subject import LIVE_SECONDS
from engine.wire.addresses import private_address

START_SECONDS = 20.0
"""A program that has not said that it serves by then, on however slow a machine, never will."""


class Node:
    """One started program: `process`, and the file that has what it said on stderr."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: str) -> None:
        self.name, self.process, self.log = name, process, log
        self.told = False
        """Somebody was told how it ended."""
        self.power: Power | None = None

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def crashed(self) -> bool:
        """Whether it ended in a way that nobody wished: neither killed nor told to."""
        return self.process.poll() not in (None, 0, -signal.SIGKILL, -signal.SIGTERM)

    def said(self) -> str:
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()


class Cluster:
    """See the module. For one thread, which outlives it: its processes end with that thread.

    `folder` takes the logs. `factor` stretches how long a start may take, and `live` is after how
    many seconds every process ends by itself, should everybody forget it.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        seed: int = 0,
        factor: float = 1,
        live: int = LIVE_SECONDS,
    ) -> None:
        self._folder, self._factor, self._live = os.fspath(folder), factor, live
        self._nodes: dict[str, Node] = {}
        self._crashes: list[str] = []
        self._starts = 0
        self._names: list[str] = []
        self.proxy = Proxy(seed)
        try:
            self._sockets = os.path.dirname(private_address().removeprefix("ipc://"))
        except BaseException:
            self.proxy.close()
            raise

    # --- names -----------------------------------------------------------------------------------

    def address(self, name: str) -> str:
        """Where this process listens, and what others call it."""
        if name not in self._names:
            self._names.append(name)
        return f"ipc://{self._sockets}/{name}"

    def name_of(self, address: str) -> str:
        """The inverse of `address`; "" for ""."""
        return address.rpartition("/")[2]

    def via(self, source: str, destinations: Sequence[str] = ()) -> Mapping[str, str]:
        """How `source` reaches the others: `via` of clients, by address. No `destinations`:
        all that were named or started until now."""
        names = [name for name in (destinations or self._names) if name != source]
        addresses = {name: self.address(name) for name in names}
        return {a: self.proxy.link(source, name, a) for name, a in addresses.items()}

    # --- processes -------------------------------------------------------------------------------

    def start(
        self,
        name: str,
        *arguments: str,
        reaches: Sequence[str] = (),
        kill_at: Sequence[str] = (),
        program: str = "engine_cmd.main",
        power: Power | None = None,
        wait: bool = True,
    ) -> Node:
        """`engine ARGUMENTS --listen …` under this name; returns when it says that it serves, or
        with `wait=False` at once: then whoever needs it to serve has to call `await_start`.

        `reaches` are those that it may dial (default: all that were named). `kill_at` are crash
        points, and `program` is another one than `engine`, as `engine.faults.subject` takes them.
        `power` watches the folder that this one writes to, and no other process does.
        ConnectionFailed, with what it said, if it ends instead.
        """
        if name in self._nodes:
            assert not self._nodes[name].running, f"{name} is running"
            self._look_at(self._nodes[name])
        flags = ["--listen", self.address(name), "--json"]
        for address, way in self.via(name, reaches).items():
            flags += ["--via", f"{address}={way}"]
        self._starts += 1
        log = os.path.join(self._folder, f"{self._starts}-{name}.log")
        points = [word for point in kill_at for word in ("--kill-at", point)]
        command = [sys.executable, "-m", "engine.faults.subject", "--parent", str(os.getpid())]
        command += ["--live", str(self._live), *points, "-m", program, *arguments, *flags]
        with open(log, "wb") as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                env={**os.environ, **power.environment()} if power is not None else None,
            )
        node = self._nodes[name] = Node(name, process, log)
        node.power = power
        if wait:
            self.await_start(name)
        return node

    def await_start(self, name: str) -> None:
        """Until it says that it serves. ConnectionFailed, with what it said, if it ends instead."""
        node = self._nodes[name]
        out: IO[bytes] | None = node.process.stdout
        assert out is not None
        with out:
            ready, _, _ = select.select([out], [], [], START_SECONDS * self._factor)
            line = out.readline() if ready else b""
        if _serves(line):
            return
        node.told = True
        node.process.kill()
        code = node.process.wait()
        how = f"it ended with code {code}" if ready else "it was silent for too long"
        if line.endswith(b"\n"):
            how = f"it said {line.decode(errors='replace').strip()}"
        raise ConnectionFailed(f"{node.name} did not start, {how}: {node.said().strip()}")

    def started(self, name: str) -> bool:
        """Whether there ever was one under this name."""
        return name in self._nodes

    def node(self, name: str) -> Node:
        """The last that was started under this name."""
        return self._nodes[name]

    def kill(self, name: str, *, power: bool = False) -> Loss | None:
        """SIGKILL, and reap it; fine if it is gone. With `power` it loses that, and how much."""
        node = self._nodes[name]
        self._look_at(node)
        node.process.kill()
        node.process.wait()
        if node.process.stdout is not None:
            node.process.stdout.close()  # of one that was never awaited
        if not power:
            return None
        if node.power is None:
            raise UsageError(f"{name} was started without a power that it could lose.")
        return node.power.lose()

    def stop(self, name: str) -> None:
        """SIGSTOP: it is there, and does nothing any more; fine if it is gone."""
        process = self._nodes[name].process
        process.send_signal(signal.SIGSTOP)
        with contextlib.suppress(ChildProcessError):  # it was reaped: nothing to wait for
            # A signal takes a moment to arrive.
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        self._nodes[name].process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Stopped for as long as the block runs."""
        self.stop(name)
        try:
            yield
        finally:
            self.go_on(name)

    # --- the end ---------------------------------------------------------------------------------

    def crashes(self) -> list[str]:
        """What became of those that have ended by themselves, each told once."""
        for node in self._nodes.values():
            self._look_at(node)
        told, self._crashes = self._crashes, []
        return told

    def close(self) -> None:
        """Kill and reap everything, remove the sockets. A second call does nothing."""
        import shutil

        for name in self._nodes:
            self.kill(name)
        self.proxy.close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _look_at(self, node: Node) -> None:
        if node.crashed and not node.told:
            node.told = True
            code = node.process.returncode
            self._crashes.append(f"{node.name} ended by itself, code {code}: {node.said().strip()}")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if error is None and self._crashes:
            raise EngineError("; ".join(self._crashes))


def _serves(line: bytes) -> bool:
    """Whether this is how a server says that it serves (`engine.runtime.service`)."""
    try:
        said = json.loads(line)
    except ValueError:
        return False
    return isinstance(said, dict) and "address" in said
