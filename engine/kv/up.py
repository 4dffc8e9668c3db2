"""A cluster of replicas on this machine with one command: made, started, and started again.

    DIR/            mode 0700, locked while it is up
      cluster.json  who belongs to it, and where they listen
      1/ 2/ 3/      the replicas' folders (`engine.storage.home`), and their logs, `1.log` …

Grammar of `cluster.json`, version 1: one JSON object, and a newline. Worked example::

    {"version": 1, "sockets": "/tmp/engine-0c5a1f", "members": [{"id": 1, "member": 2871983405}]}

`sockets` is a private directory with a short name, since sockets' paths may not be long; it is made
again if somebody has tidied up.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from engine.errors import ConnectionFailed, EngineError, NotFoundError, RefusedError, UsageError
from engine.raft.client import Operator
from engine.record import Record
from engine.storage.files import DirectoryLock, write_atomically
from engine.storage.home import make
from engine.wire.addresses import private_address

VERSION = 1
REPLICAS_MAX = 9
RESTART_SECONDS = (0.0, 0.2, 1.0, 5.0)
"""Before a replica that died is started again, for the n-th time in a minute."""
READY_SECONDS = 30.0
END_SECONDS = 10.0


class Seat(Record):
    """A replica: `id` from 1, its folder, its number in the group, and where it listens."""

    id: int
    folder: str
    member: int
    sockets: str

    @property
    def peers(self) -> str:
        return f"ipc://{self.sockets}/{self.id}.peers"

    @property
    def client(self) -> str:
        return f"ipc://{self.sockets}/{self.id}"

    @property
    def admin(self) -> str:
        return f"ipc://{self.sockets}/{self.id}.admin"


def found(folder: str) -> list[Seat]:
    """The cluster of a folder. NotFoundError, RefusedError, UsageError."""
    name = os.path.join(folder, "cluster.json")
    try:
        with open(name, "rb") as file:
            read = json.loads(file.read(1 << 20))
        if read["version"] != VERSION:
            raise RefusedError(f"{name} is of version {read['version']!r}, we read {VERSION}.")
        sockets, folder = str(read["sockets"]), os.path.abspath(folder)
        return [
            Seat(int(one["id"]), os.path.join(folder, str(one["id"])), int(one["member"]), sockets)
            for one in read["members"]
        ]
    except FileNotFoundError:
        raise NotFoundError(
            f"{folder} has no cluster: make one with `engine kv up --dir`."
        ) from None
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        raise RefusedError(f"{name} is damaged: restore it from a backup.") from None


def founded(folder: str, replicas: int) -> list[Seat]:
    """The cluster of a folder, made if there is none."""
    try:
        seats = found(folder)
    except NotFoundError:
        return _made(folder, replicas)
    if replicas not in (0, len(seats)):
        raise RefusedError(
            f"{folder} has {len(seats)} replicas, not {replicas}: add and remove them with "
            "`engine kv member`, or name another folder."
        )
    _socket_folder(seats[0].sockets)
    return seats


def _made(folder: str, replicas: int) -> list[Seat]:
    replicas = replicas or 3
    if not 1 <= replicas <= REPLICAS_MAX:
        raise UsageError(f"A cluster has 1 to {REPLICAS_MAX} replicas, not {replicas}.")
    folder = os.path.abspath(folder)
    sockets = os.path.dirname(private_address().removeprefix("ipc://"))
    numbers = range(1, replicas + 1)
    seats = [
        Seat(n, os.path.join(folder, str(n)), make(os.path.join(folder, str(n))), sockets)
        for n in numbers
    ]
    members = [{"id": seat.id, "member": seat.member} for seat in seats]
    text = json.dumps({"version": VERSION, "sockets": sockets, "members": members})
    write_atomically(os.path.join(folder, "cluster.json"), text.encode() + b"\n", mode=0o600)
    return seats


def _socket_folder(path: str) -> None:
    """There, ours, and nobody else's. RefusedError."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        status = os.lstat(path)
        private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        if status.st_uid != os.geteuid() or not private:
            raise RefusedError(f"{path} is not ours alone: remove it.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be made: {error.strerror}.") from None


class Keeper:
    """Starts the replicas of a folder, and starts those again that die. A context manager, which
    ends them all on leaving. RefusedError if another one has the folder."""

    def __init__(
        self, folder: str, replicas: int, flags: Sequence[str] = (), *, restart: bool = True
    ) -> None:
        os.makedirs(folder, 0o700, exist_ok=True)
        self._lock = DirectoryLock(folder)
        try:
            self.seats = founded(folder, replicas)
        except BaseException:
            self._lock.close()
            raise
        self.folder, self.restart = folder, restart
        self._flags = tuple(flags)
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._died: dict[int, list[float]] = {seat.id: [] for seat in self.seats}
        self._start_at: dict[int, float] = {seat.id: 0.0 for seat in self.seats}

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all, and wait for it."""
        for process in self._running.values():
            process.terminate()
        deadline = monotonic() + END_SECONDS
        for process in self._running.values():
            try:
                process.wait(max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        self._lock.close()

    def pid(self, seat: Seat) -> int:
        """Of its process; 0 if it does not run."""
        process = self._running.get(seat.id)
        return process.pid if process is not None else 0

    def look(self) -> float | None:
        """Start who is due; the seconds until the next is."""
        now = monotonic()
        for seat in self.seats:
            process = self._running.get(seat.id)
            if process is not None and process.poll() is not None:
                del self._running[seat.id]
                self._ended(seat, process.returncode, now)
        for seat in self.seats:
            at = self._start_at.get(seat.id)
            if at is not None and at <= now:
                del self._start_at[seat.id]
                self._running[seat.id] = self._started(seat)
        return min((at - now for at in self._start_at.values()), default=None)

    def _ended(self, seat: Seat, code: int, now: float) -> None:
        how = f"signal {-code}" if code < 0 else f"code {code}"
        sys.stderr.write(f"engine: replica {seat.id} ended with {how}\n")
        if self.restart:
            recent = [at for at in self._died[seat.id] if at > now - 60]
            self._died[seat.id] = [*recent, now]
            self._start_at[seat.id] = now + RESTART_SECONDS[min(len(recent), 3)]

    def _started(self, seat: Seat) -> subprocess.Popen[bytes]:
        initial = ",".join(f"{one.member}={one.peers}" for one in self.seats)
        command = [sys.executable, "-m", "engine_cmd.main", "kv", "serve", "--dir", seat.folder]
        command += ["--initial", initial, "--listen", seat.peers, "--clients", seat.client]
        command += ["--admin", seat.admin, "--parent", str(os.getpid()), *self._flags]
        with open(f"{seat.folder}.log", "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self, seconds: float | None, bell: int) -> None:
        """Until a replica ends, `bell` is readable, or for so long."""
        poll = select.poll()
        poll.register(bell, select.POLLIN)
        fds = []
        for process in self._running.values():
            try:
                fds.append(os.pidfd_open(process.pid))
            except (AttributeError, OSError):
                seconds = min(seconds or 0.2, 0.2)
        for fd in fds:
            poll.register(fd, select.POLLIN)
        poll.poll(None if seconds is None else max(0, int(seconds * 1000) + 1))
        for fd in fds:
            os.close(fd)

    def statuses(self) -> dict[int, Any]:
        return statuses(self.seats)


def statuses(seats: Sequence[Seat], seconds: float = 1.0) -> dict[int, Any]:
    """What each replica that answers says of itself, by `id`."""
    answers = {}
    for seat in seats:
        try:
            with Operator(seat.admin, timeout=seconds) as operator:
                answers[seat.id] = operator.status()
        except ConnectionFailed:
            pass
        except EngineError as error:
            if not isinstance(error, RefusedError):
                raise
    return answers


def keep(keeper: Keeper, ready: Callable[[Keeper], None]) -> None:
    """Keep it up until SIGINT or SIGTERM; `ready` is called once somebody leads."""
    bell, ring = os.pipe()
    os.set_blocking(ring, False)
    ended: list[int] = []

    def end(number: int, _: object) -> None:
        ended.append(number)
        os.write(ring, b"!")

    before = {n: signal.signal(n, end) for n in (signal.SIGINT, signal.SIGTERM)}
    deadline, told = monotonic() + READY_SECONDS, False
    try:
        while not ended:
            seconds = keeper.look()
            if not told:
                if any(s.role == "leader" and s.commit for s in keeper.statuses().values()):
                    ready(keeper)
                    told = True
                elif monotonic() > deadline:
                    raise ConnectionFailed(
                        f"No leader after {READY_SECONDS:.0f} s: see {keeper.folder}/*.log."
                    )
                seconds = 0.05
            keeper.wait(seconds, bell)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(bell)
        os.close(ring)


def end(folder: str) -> int:
    """End whoever keeps the cluster of a folder up, and wait for it; its pid. NotFoundError."""
    if not os.path.isdir(folder):
        raise NotFoundError(f"There is no folder {folder}.")
    try:
        DirectoryLock(folder).close()
    except RefusedError:
        pass
    else:
        raise NotFoundError(f"Nothing is up in {folder}.")
    with open(os.path.join(folder, "lock"), encoding="ascii", errors="replace") as file:
        text = file.read(32).strip()
    if not text.isdecimal():
        raise RefusedError(f"{folder}/lock does not say who holds it: try again.")
    pid = int(text)
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return pid
    deadline = monotonic() + 2 * END_SECONDS
    poll = select.poll()
    while monotonic() < deadline:
        try:
            DirectoryLock(folder).close()
            return pid
        except RefusedError:
            poll.poll(20)
    raise RefusedError(f"Process {pid} keeps {folder} up and does not end.")
