"""What all stores of the benchmark are to it: started, filled, asked who leads, put under load."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import psutil
from harness import tail

T = TypeVar("T")
WAIT_SECONDS = 60.0
SOCKETS_MAX = 100
VALUE_BYTES = 256
TRIES = 5
PEERS = Path(__file__).resolve().parent.parent / "peers" / "store"


class Needs(NamedTuple):
    """What must be there before a peer can take part, and the packages that bring it."""

    programs: tuple[str, ...]
    """On PATH."""
    packages: str
    files: tuple[str, ...] = ()

    def lacking(self) -> str:
        """One sentence; "" if nothing is."""
        wanted = [name for name in self.programs if not shutil.which(name, path=search_path())]
        wanted += [name for name in self.files if not Path(name).exists()]
        return f"{', '.join(wanted)} not found; install {self.packages}" if wanted else ""


def search_path() -> str:
    """PATH, and where Debian has servers, which is not on the PATH of every user."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])


def until(what: str, true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return found


def cpu_of(pids: Sequence[int]) -> float:
    """Seconds of processor time, that of children which ended (they write snapshots) included."""
    return sum(sum(psutil.Process(pid).cpu_times()[:4]) for pid in pids)


def free_ports(many: int) -> list[int]:
    """Of this moment: somebody else may take them, and then the peer says so and the run ends."""
    sockets = [socket.socket() for _ in range(many)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Store(ABC):
    """Three replicas on this machine."""

    name: ClassVar[str]
    promise: ClassVar[str]
    """What an acknowledged write and a read are worth, and what of it differs from ours."""
    version_command: ClassVar[tuple[str, ...]] = ()
    restless: ClassVar[bool] = False
    """Whether it takes so much processor when idle that it would slow the others down."""
    pids: list[int]

    @classmethod
    def missing(cls) -> str:
        """Why it cannot take part, and what to install; "" if it can."""
        return ""

    def __init__(self, folder: Path, load: Path) -> None:
        """Start it below `folder`; `load` is the program that `build` left."""
        self.folder, self.load = folder, load
        self.notes: list[str] = []
        """What this machine's version does not do."""
        try:
            self.start()
            self.find()
        except BaseException:
            self.close()
            raise

    @classmethod
    def version(cls) -> str:
        """What its command says first; "" if there is none."""
        if not cls.version_command:
            return ""
        done = subprocess.run(
            cls.version_command,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": search_path()},
            check=False,
        )
        return (done.stdout.splitlines() or [""])[0].replace("\t", " ")

    @classmethod
    @abstractmethod
    def build(cls, work: Path) -> Path:
        """Make its load in `work`, and say where it is."""

    @abstractmethod
    def start(self) -> None:
        """Start the servers, those of them that do not run."""

    @abstractmethod
    def find(self) -> None:
        """Wait for a leader, and note who it is."""

    @property
    @abstractmethod
    def leader_pid(self) -> int: ...

    @abstractmethod
    def close(self) -> None:
        """End all servers."""

    def command(self, protocol: str, sizes: Sequence[str]) -> list[str]:
        """A run of the load against the leader."""
        raise NotImplementedError(self.name)

    def run(self, protocol: str, clients: int, seconds: float) -> dict[str, Any]:
        """What the load says, or {"failed": why}."""
        sizes = [str(min(clients, SOCKETS_MAX)), str(clients), str(seconds), str(VALUE_BYTES)]
        command = self.command(protocol, sizes)
        limit = seconds + WAIT_SECONDS
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:  # a client may wait for a dead server for ever
            return {"failed": f"the load did not end within {limit:g} s"}
        told: dict[str, Any] = (
            {"failed": done.stderr} if done.returncode else json.loads(done.stdout)
        )
        return told

    def turn(self, protocol: str, clients: int, seconds: float) -> dict[str, float]:
        """The same with `cpu_us`, what all servers used for an operation; whoever leads."""
        for _ in range(TRIES):
            before = cpu_of(self.pids)
            told = self.run(protocol, clients, seconds)
            if "failed" not in told:
                told["cpu_us"] = (cpu_of(self.pids) - before) / told["done"] * 1e6
                return told
            self.find()  # somebody else leads
        raise AssertionError(f"{self.name}, {protocol}, {clients} clients: {told['failed']}")

    def rest(self) -> None:
        """Others have their turns: if it is `restless`, it is stopped."""
        if self.restless:
            for pid in self.pids:
                os.kill(pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Its turn comes. It may have to elect anew, as after any long silence."""
        if self.restless:
            for pid in self.pids:
                os.kill(pid, signal.SIGCONT)
            self.find()

    def fill(self) -> None:
        """Every key once, so that reads find something; then whoever leads has been decided."""
        self.turn("fill", 64, 1.0)
        self.find()


class Servers(Store):
    """Three processes that we start ourselves, each by one command."""

    fails_over: ClassVar[bool] = False
    """Whether its load has `failover`."""

    def __init__(self, folder: Path, load: Path) -> None:
        folder.mkdir()
        self.processes: dict[int, subprocess.Popen[Any]] = {}
        super().__init__(folder, load)

    @abstractmethod
    def server(self, number: int) -> list[str]:
        """The command of one of the three."""

    @abstractmethod
    def leader(self) -> int | None:
        """The number of the one that leads; None if there is none yet."""

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": search_path()}

    def start(self) -> None:
        for number in range(3):
            if number not in self.processes:
                self.processes[number] = self.spawn(number)
        self.pids = [self.processes[number].pid for number in range(3)]

    def spawn(self, number: int) -> subprocess.Popen[Any]:
        with open(self.folder / f"{number}.log", "ab") as log:
            return subprocess.Popen(
                self.server(number), stdout=log, stderr=log, env=self.environment()
            )

    def find(self) -> None:
        def found() -> bool:
            self.check()
            at = self.leader()
            self.at = -1 if at is None else at
            return self.at >= 0

        until(f"a leader of {self.name}", found)

    def check(self) -> None:
        """All three run: the figures of two would look better, if anything."""
        for number, process in self.processes.items():
            log = self.folder / f"{number}.log"
            assert process.poll() is None, f"{self.name}, a server ended: {tail(log)}"

    def turn(self, protocol: str, clients: int, seconds: float) -> dict[str, float]:
        told = super().turn(protocol, clients, seconds)
        self.check()
        return told

    @property
    def leader_pid(self) -> int:
        return self.processes[self.at].pid

    def kill_leader(self) -> None:
        self.processes[self.at].send_signal(signal.SIGKILL)

    def mend(self) -> None:
        """Start the one that was killed, and wait until it takes part again."""
        self.processes.pop(self.at).wait()
        self.start()
        self.find()
        until(f"three of {self.name}", self.complete)

    def all_addresses(self) -> str:
        """For a client that outlives the leader."""
        raise NotImplementedError(self.name)

    def leader_first(self, clients: Sequence[T]) -> list[T]:
        """The order in which a client that is about to lose its server knows them."""
        return [clients[self.at], *(one for n, one in enumerate(clients) if n != self.at)]

    def complete(self) -> bool:
        """Whether all three take part."""
        raise NotImplementedError(self.name)

    def close(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.processes.clear()


def build_go(work: Path, name: str) -> Path:
    """The loop of `peers/store/loop.go` with that of one store, by Debian's Go packages."""
    program = work / f"{name}load"
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": f"/usr/share/gocode:{work / 'go'}",
        "GOCACHE": str(work / "gocache"),
    }
    command = ["go", "build", "-o", str(program), "loop.go", f"{name}.go"]
    subprocess.run(command, cwd=PEERS, env=environment, check=True)
    return program


def build_c(program: Path, source: Path, *more: str) -> Path:
    subprocess.run(["cc", "-O2", "-o", str(program), str(source), *more], check=True)
    return program
