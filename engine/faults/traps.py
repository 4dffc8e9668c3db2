"""What ends a process at a named point (`engine.faults.points`): wrappers, put on from outside."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from engine.faults.points import STATE, WORK, Control, Passing, kind_of


class Trap:
    """Counts passings, on any thread, and ends the process at one that is wanted."""

    def __init__(self, wanted: Iterable[Passing], control: Control | None = None) -> None:
        self.wanted, self.control = frozenset(wanted), control
        self.server: Any = None
        self._passed: Counter[str] = Counter()
        self._armed: frozenset[Passing] = frozenset()
        self._since: Counter[str] = Counter()
        self._lock = threading.Lock()

    def passes(self, name: str) -> None:
        if self.due(name):
            self.end(name)

    def due(self, name: str) -> bool:
        """Count this passing; whether it is the last."""
        with self._lock:
            self._passed[name] += 1
            if self.control is not None:
                armed = self.control.news()
                if armed is not None:
                    self._armed = armed
                    self._since.clear()
                self._since[name] += 1
                if (name, self._since[name]) in self._armed:
                    return True
            return (name, self._passed[name]) in self.wanted

    def end(self, name: str) -> None:
        if self.control is not None:
            role = getattr(getattr(self.server, "machine", None), "role", None)
            self.control.tell(name, type(role).__name__.lower() if role is not None else "")
        os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
        """The same function, passing these on its way, if they have names."""

        def wrapped(*arguments: Any) -> Any:
            if before:
                self.passes(before)
            result = function(*arguments)
            if after:
                self.passes(after)
            return result

        return wrapped


def arm(wanted: Iterable[Passing], control: Control | None = None) -> None:
    """Put the points into all servers and storage of this process."""
    trap = Trap(wanted, control)
    _arm_servers(trap)
    _arm_files(trap)
    _arm_syncs(trap)
    _arm_homes(trap)


# --- servers -------------------------------------------------------------------------------------


def _arm_servers(trap: Trap) -> None:
    from engine.contract import Machine, Server, World

    init = Server.__init__

    def armed(self: Server, machine: Machine, world: World) -> None:
        init(self, machine, world)
        _arm_world(trap, self, world)

    Server.__init__ = armed  # type: ignore[method-assign]


def _arm_world(trap: Trap, server: Any, world: Any) -> None:
    from engine.contract import Received, Requests

    own, drain, send = world.point, world.drain, world.send

    def point(name: str) -> None:
        own(name)
        if trap.server is not server:
            trap.server = server  # all of it is there by its first turn
            _arm_state(trap, server)
        trap.passes(name)

    def drained(frames: int, size: int) -> Any:
        events = drain(frames, size)
        for event in events:
            if type(event) is Received:
                trap.passes(f"heard {type(event.message).__name__}")
            elif type(event) is Requests:
                trap.passes("heard Submit")
        return events

    def sent(sends: Iterable[Any]) -> None:
        for one in sends:
            send((one,))
            trap.passes(f"said {type(one.message).__name__}")

    world.point, world.drain, world.send = point, drained, sent
    _arm_answers(trap, world)


def _arm_answers(trap: Trap, world: Any) -> None:
    """A world may have a short way for answers that come by the thousand."""
    from engine.wire.fields import classes

    if (answer := getattr(world, "answer", None)) is None:
        return

    def answered(link: Any, kind: int, body: bytes) -> None:
        answer(link, kind, body)
        trap.passes(f"said {classes[kind].__name__}")

    world.answer = answered


def _arm_state(trap: Trap, server: Any) -> None:
    state = getattr(server, "state", None)
    for name, (before, after) in STATE.items():
        if (function := getattr(state, name, None)) is not None:
            setattr(state, name, trap.around(function, before, after))
    work = getattr(server, "work", None)
    if work is None:
        return

    def worked(what: Any) -> Any:
        result = work(what)
        if name := WORK.get(type(what).__name__):
            trap.passes(name)
        return result

    server.work = worked


# --- files ---------------------------------------------------------------------------------------


def _kind(fd: int) -> str:
    """Of an open file; what it is called now."""
    return kind_of(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))


def _arm_files(trap: Trap) -> None:
    from engine.storage.directory import Folder, FolderFile

    create, rename, remove = Folder.create, Folder.rename, Folder.remove

    def created(self: Folder, name: str) -> FolderFile:
        kind = kind_of(name)
        with_points = trap.around(create, f"before {kind} create", f"after {kind} create")
        file: FolderFile = with_points(self, name)
        return file

    def renamed(self: Folder, old: str, new: str) -> None:
        kind = kind_of(old)
        trap.around(rename, f"before {kind} rename", f"after {kind} rename")(self, old, new)

    def removed(self: Folder, name: str) -> None:
        kind = kind_of(name)
        trap.around(remove, f"before {kind} remove", f"after {kind} remove")(self, name)

    Folder.create = created  # type: ignore[method-assign]
    Folder.rename = renamed  # type: ignore[method-assign]
    Folder.remove = removed  # type: ignore[method-assign]
    folder_sync = trap.around(Folder.sync, "before folder sync", "after folder sync")
    Folder.sync = folder_sync  # type: ignore[method-assign]
    _arm_open_files(trap, FolderFile)


def _arm_open_files(trap: Trap, kind_of_file: Any) -> None:
    write, sync = kind_of_file.write, kind_of_file.sync

    def written(self: Any, offset: int, pieces: Sequence[Any]) -> None:
        kind = _kind(self._fd)
        trap.passes(f"before {kind} write")
        if trap.due(f"amid {kind} write"):
            whole = b"".join(map(bytes, pieces))
            write(self, offset, [whole[: len(whole) // 2]])
            trap.end(f"amid {kind} write")
        write(self, offset, pieces)
        trap.passes(f"after {kind} write")

    def synced(self: Any) -> None:
        kind = _kind(self._fd)
        trap.around(sync, f"before {kind} sync", f"after {kind} sync")(self)

    kind_of_file.write, kind_of_file.sync = written, synced


def _arm_syncs(trap: Trap) -> None:
    """The log is synced by a thread that is not Python's: it is asked to, and tells when it did."""
    from engine.kernels.syncer import Syncer
    from engine.runtime import durable

    class Armed:
        """A `Syncer` that passes points."""

        def __init__(self) -> None:
            self._own = Syncer()
            self._done = 0
            self._folders: list[int] = []
            """Tickets that the folder was to be synced for."""

        def pollables(self) -> tuple[int]:
            return self._own.pollables()

        def submit(self, ticket: int, files: tuple[int, ...], folder: int = -1) -> None:
            trap.passes("before segment sync")
            if folder >= 0:
                self._folders.append(ticket)
                trap.passes("before folder sync")
            self._own.submit(ticket, files, folder)
            trap.passes("amid segment sync")

        def durable(self) -> int:
            ticket = self._own.durable()
            if ticket > self._done:
                self._done = ticket
                trap.passes("after segment sync")
            if self._folders and self._folders[0] <= ticket:
                self._folders = [one for one in self._folders if one > ticket]
                trap.passes("after folder sync")
            return ticket

        def close(self) -> None:
            self._own.close()

    durable.Syncer = Armed  # type: ignore[assignment, attr-defined]


# --- members' folders ----------------------------------------------------------------------------


class _System:
    """`os`, as the storage's functions for whole files see it."""

    def __init__(self, trap: Trap) -> None:
        self._trap = trap

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT and kind_of(os.path.basename(path)) == "member":
            done = self._trap.around(os.open, "before member create", "after member create")
            fd: int = done(path, flags, *mode)
            return fd
        return os.open(path, flags, *mode)

    def rename(self, old: str, new: str) -> None:
        names = ("", "")
        if kind_of(os.path.basename(old)) == "member":
            names = ("before member rename", "after member rename")
        self._trap.around(os.rename, *names)(old, new)


def _arm_homes(trap: Trap) -> None:
    from engine.storage import files

    write_all, sync_file = files.write_all, files.sync_file
    sync_folder = trap.around(files.sync_directory, "before folder sync", "after folder sync")

    def written(fd: int, data: Any) -> None:
        if _kind(fd) != "member":
            write_all(fd, data)
            return
        trap.passes("before member write")
        if trap.due("amid member write"):
            write_all(fd, data[: len(data) // 2])
            trap.end("amid member write")
        write_all(fd, data)
        trap.passes("after member write")

    def synced(fd: int) -> None:
        member = _kind(fd) == "member"
        names = ("before member sync", "after member sync") if member else ("", "")
        trap.around(sync_file, *names)(fd)

    files.os = _System(trap)  # type: ignore[assignment, attr-defined]
    files.write_all, files.sync_file, files.sync_directory = written, synced, sync_folder
