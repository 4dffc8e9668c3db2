"""A cluster of replicas on this machine with one command: made, started, and started again.

    DIR/            mode 0700, locked while it is up
      cluster.json  who belongs to it, and where they listen
      1/ 2/ 3/      the replicas' folders (`engine.storage.home`), and their logs, `1.log` …

Grammar of `cluster.json`, version 1: one JSON object, and a newline. Worked example::

    {"version": 1, "sockets": "/tmp/engine-0c5a1f",
     "members": [{"id": 1, "member": 2871983405, "founder": true}]}

`sockets` is a private directory with a short name, since sockets' paths may not be long; it is gone
while the cluster is down, and made again under the same name. Whoever founded the group knows the
others from the start; a member that is no founder waits until the leader adds it.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from engine.errors import ConnectionFailed, EngineError, NotFoundError, RefusedError, UsageError
from engine.raft.client import Operator
from engine.record import Record
from engine.storage.files import DirectoryLock, write_atomically
from engine.storage.home import make
from engine.wire.addresses import private_address

if TYPE_CHECKING:
    import subprocess

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
    founder: bool = True

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
        seats = [(int(one["id"]), int(one["member"]), one["founder"]) for one in read["members"]]
        return [
            Seat(id_, os.path.join(folder, str(id_)), member, sockets, founder is True)
            for id_, member, founder in seats
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
        seats = drawn(folder, replicas)
        write(folder, seats)
        return seats
    if replicas not in (0, len(seats)):
        raise RefusedError(
            f"{folder} has {len(seats)} replicas, not {replicas}: add and remove them with "
            "`engine kv member`, or name another folder."
        )
    _socket_folder(seats[0].sockets)
    return seats


def drawn(folder: str, replicas: int) -> list[Seat]:
    """The replicas of a new cluster, which there is as soon as they are written down. RefusedError
    if one of them has a log already."""
    replicas = replicas or 3
    if not 1 <= replicas <= REPLICAS_MAX:
        raise UsageError(f"A cluster has 1 to {REPLICAS_MAX} replicas, not {replicas}.")
    folders = [os.path.join(os.path.abspath(folder), str(n)) for n in range(1, replicas + 1)]
    members = [make(path) for path in folders]
    if any(os.listdir(os.path.join(path, "log")) for path in folders):
        raise RefusedError(
            f"{folder} has replicas, but no cluster.json that says who they are: put it back; or, "
            "if a restore did not come to its end, restore into a new folder."
        )
    sockets = os.path.dirname(private_address().removeprefix("ipc://"))
    return [
        Seat(number, path, member, sockets)
        for number, (path, member) in enumerate(zip(folders, members, strict=True), 1)
    ]


def write(folder: str, seats: Sequence[Seat]) -> None:
    """Make these the cluster of a folder, durably."""
    members = [{"id": s.id, "member": s.member, "founder": s.founder} for s in seats]
    text = json.dumps({"version": VERSION, "sockets": seats[0].sockets, "members": members})
    write_atomically(os.path.join(folder, "cluster.json"), text.encode() + b"\n", mode=0o600)


def new_seat(folder: str, seats: Sequence[Seat]) -> Seat:
    """One more, with a folder of its own, that is nobody's yet."""
    taken = {int(name) for name in os.listdir(folder) if name.isdecimal()}
    number = max(taken | {seat.id for seat in seats}) + 1
    path = os.path.join(os.path.abspath(folder), str(number))
    return Seat(number, path, make(path), seats[0].sockets, founder=False)


def remove_sockets(seats: Sequence[Seat]) -> None:
    """The sockets' directory and what is left in it, when no replica runs: whoever removes the
    cluster's folder then has removed all of it."""
    folder = seats[0].sockets
    try:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except FileNotFoundError:
        pass  # somebody has tidied up
    except OSError as error:
        sys.stderr.write(f"engine: {folder} stays behind: {error.strerror}\n")


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
        self,
        folder: str,
        replicas: int,
        flags: Sequence[str] = (),
        *,
        restart: bool = True,
        redis_of: Callable[[Seat], str] | None = None,
    ) -> None:
        """`redis_of` says where Redis clients are served, when a replica is started first."""
        os.makedirs(folder, 0o700, exist_ok=True)
        self._lock = DirectoryLock(folder)
        try:
            self.seats = founded(folder, replicas)
        except BaseException:
            self._lock.close()
            raise
        self.folder, self.restart = folder, restart
        self._flags = tuple(flags)
        self._redis_of = redis_of
        self.redis: dict[int, str] = {}
        """Of replicas, by id: they stay the same as long as the cluster is up."""
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._leaving: list[subprocess.Popen[bytes]] = []
        self._died: dict[int, list[float]] = {seat.id: [] for seat in self.seats}
        self._start_at: dict[int, float] = {seat.id: 0.0 for seat in self.seats}

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all, and wait for it."""
        import subprocess

        for process in self._running.values():
            process.terminate()
        deadline = monotonic() + END_SECONDS
        for process in (*self._running.values(), *self._leaving):
            try:
                process.wait(max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        remove_sockets(self.seats)
        self._lock.close()

    def pid(self, seat: Seat) -> int:
        """Of its process; 0 if it does not run."""
        process = self._running.get(seat.id)
        return process.pid if process is not None else 0

    def reread(self) -> None:
        """Somebody has added or removed replicas."""
        seats = {seat.id: seat for seat in found(self.folder)}
        for seat in self.seats:
            if seat.id not in seats:
                self._start_at.pop(seat.id, None)
                process = self._running.pop(seat.id, None)
                if process is not None:
                    process.terminate()
                    self._leaving.append(process)
        for number in seats.keys() - {seat.id for seat in self.seats}:
            self._died[number], self._start_at[number] = [], 0.0
        self.seats = list(seats.values())

    def look(self) -> float | None:
        """Start who is due; the seconds until the next is."""
        now = monotonic()
        self._leaving = [process for process in self._leaving if process.poll() is None]
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
        if self.restart and code != RefusedError.exit_code:  # what is refused stays so
            recent = [at for at in self._died[seat.id] if at > now - 60]
            self._died[seat.id] = [*recent, now]
            self._start_at[seat.id] = now + RESTART_SECONDS[min(len(recent), 3)]

    def _started(self, seat: Seat) -> subprocess.Popen[bytes]:
        import subprocess

        command = [sys.executable, "-m", "engine_cmd.main", "kv", "serve", "--dir", seat.folder]
        if seat.founder:
            founders = [f"{one.member}={one.peers}" for one in self.seats if one.founder]
            command += ["--initial", ",".join(founders)]
        command += ["--listen", seat.peers, "--clients", seat.client]
        command += ["--admin", seat.admin, "--parent", str(os.getpid()), *self._flags]
        if self._redis_of is not None:
            if seat.id not in self.redis:
                self.redis[seat.id] = self._redis_of(seat)
            command += ["--redis", self.redis[seat.id]]
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
    for seat in filter(listens, seats):
        try:
            with Operator(seat.admin, timeout=seconds) as operator:
                answers[seat.id] = operator.status()
        except ConnectionFailed:
            pass
        except EngineError as error:
            if not isinstance(error, RefusedError):
                raise
    return answers


def listens(seat: Seat) -> bool:
    """Whether anybody is there to be waited for."""
    return listened_at(seat.admin)


def listened_at(address: str) -> bool:
    """Of a socket on this machine: that of a process which has died refuses at once."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        path = address.removeprefix("ipc://")
        return probe.connect_ex(path) not in (errno.ENOENT, errno.ECONNREFUSED)


def starting(folder: str, seat: Seat) -> bool:
    """Whether whoever keeps the cluster up has a process for a replica, heard or not."""
    import psutil

    try:
        children = psutil.Process(keeper_of(folder) or -1).children()
    except (psutil.Error, ValueError, EngineError):
        return False  # nobody keeps it up (any more)
    for child in children:
        try:
            if seat.folder in child.cmdline():
                return True
        except psutil.Error:
            continue  # it has just ended
    return False


def keep(keeper: Keeper, ready: Callable[[Keeper], None]) -> None:
    """Keep it up until SIGINT or SIGTERM; `ready` is called once somebody leads."""
    bell, ring = os.pipe()
    for end in (bell, ring):
        os.set_blocking(end, False)
    said: list[int] = []

    def heard(number: int, _: object) -> None:
        said.append(number)
        os.write(ring, b"!")

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, heard) for number in signals}
    deadline, told = monotonic() + READY_SECONDS, False
    try:
        while True:
            _silence(bell)  # first: whoever rings from now on wakes us again
            if {signal.SIGINT, signal.SIGTERM} & set(said):
                return
            if said:
                while signal.SIGHUP in said:
                    said.remove(signal.SIGHUP)
                keeper.reread()
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


def _silence(bell: int) -> None:
    try:
        os.read(bell, 64)
    except BlockingIOError:
        pass  # nobody has rung


def end(folder: str) -> int:
    """End whoever keeps the cluster of a folder up, and wait for it; its pid. NotFoundError."""
    pid = keeper_of(folder)
    if not pid:
        raise NotFoundError(f"Nothing is up in {folder}.")
    _signal(pid, signal.SIGTERM)
    deadline, poll = monotonic() + 2 * END_SECONDS, select.poll()
    while keeper_of(folder) == pid:
        if monotonic() > deadline:
            raise RefusedError(f"Process {pid} keeps {folder} up and does not end.")
        poll.poll(20)
    return pid


def reread(folder: str) -> None:
    """Have whoever keeps it up look at `cluster.json` again, if anybody does."""
    if pid := keeper_of(folder):
        _signal(pid, signal.SIGHUP)


def keeper_of(folder: str) -> int:
    """The process that keeps it up; 0 if none does. NotFoundError, RefusedError."""
    if not os.path.isdir(folder):
        raise NotFoundError(f"There is no folder {folder}.")
    try:
        DirectoryLock(folder).close()
    except RefusedError:
        pass
    else:
        return 0
    with open(os.path.join(folder, "lock"), encoding="ascii", errors="replace") as file:
        text = file.read(32).strip()
    if not text.isdecimal():
        raise RefusedError(f"{folder}/lock does not say who holds it: try again.")
    return int(text)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has just ended
