"""Backups: a snapshot of a running store in a file, and new clusters from it.

The file is a snapshot as `engine.storage.snapshots` has it, complete and verified, with everything
in it: keys, leases, sessions, limits and history. A cluster that is restored from it is another one
with members of its own; it begins where the snapshot ends, with the same revisions.
"""

from __future__ import annotations

import os
import secrets
import select
from collections.abc import Sequence
from time import monotonic

from engine.errors import (
    ConnectionFailed,
    DamagedData,
    EngineError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from engine.kv.client import Store
from engine.kv.reach import Place, Reach
from engine.kv.requests import AskHash, FetchSnapshot, Hash, SnapshotPiece, Taken, TakeSnapshot
from engine.kv.up import Seat, drawn, listens, remove_sockets, starting, write
from engine.raft.client import Operator
from engine.raft.membership import founders, pack
from engine.raft.replica import GROUP
from engine.storage.directory import Folder, FolderFile
from engine.storage.entries import Base, State
from engine.storage.files import sync_directory, sync_file
from engine.storage.log import Log, LogSettings
from engine.storage.snapshots import Snapshot, Snapshots, read_header, read_pieces

TRIES = 5
LOOK_MS = 20


class StoreOperator(Operator):
    """What can be asked of one replica besides."""

    def take_snapshot(self) -> Taken:
        """Of all that it has applied."""
        taken: Taken = self._ask(TakeSnapshot(self._next()))
        return taken

    def fetch(self, last: int, offset: int) -> bytes:
        """A piece of a snapshot; nothing at its end."""
        piece: SnapshotPiece = self._ask(FetchSnapshot(self._next(), last, offset))
        return piece.data

    def hash(self) -> Hash:
        """A sum over all its keys."""
        told: Hash = self._ask(AskHash(self._next()))
        return told


def save(reach: Reach, path: str, *, timeout: float | None = 60.0) -> Taken:
    """Write a backup of a running cluster into a new file: all that was acknowledged before this
    call is in it. EngineError."""
    if os.path.lexists(path):
        raise RefusedError(f"{path} is there already: name a new file.")
    clients = reach.folder or [one.clients for one in reach.statuses().values()]
    if not clients:
        raise ConnectionFailed(f"0 of {len(reach.seats)} replicas reachable: nothing was done.")
    with Store(clients, timeout=timeout, **reach.way) as store:
        revision = store.info().revision
    for _ in range(TRIES):
        seat, _ = reach.leader()
        with StoreOperator(seat.admin, timeout=timeout, **reach.way) as operator:
            taken = operator.take_snapshot()
            if taken.revision >= revision and _fetched(operator, taken, path):
                return taken
    raise EngineError(f"No snapshot could be read to its end in {TRIES} tries: try again.")


def _fetched(operator: StoreOperator, taken: Taken, path: str) -> bool:
    private = f"{path}.{secrets.token_hex(4)}"
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"{path} cannot be made: {error.strerror}.") from None
    try:
        with open(descriptor, "wb") as file:
            while file.tell() < taken.size:
                piece = operator.fetch(taken.last, file.tell())
                if not piece:
                    return False  # later ones have taken its place
                file.write(piece)
            file.flush()
            sync_file(descriptor)
        os.link(private, path)  # which fails if somebody else was faster
        sync_directory(os.path.dirname(os.path.abspath(path)))
        return True
    except FileExistsError:
        raise RefusedError(f"{path} is there already: name a new file.") from None
    except OSError as error:
        raise EngineError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        os.unlink(private)


def restore(path: str, folder: str, replicas: int) -> Sequence[Seat]:
    """Make a new cluster in a folder from a backup; `engine kv up` starts it. EngineError."""
    if os.path.isdir(folder) and os.listdir(folder):
        raise RefusedError(f"{folder} is not empty: name a new folder.")
    try:
        file = FolderFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        raise NotFoundError(f"There is no backup {path}.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        backup = read_header(file, path, GROUP)
        if backup is None:
            raise DamagedData(path, 0, "it is no backup of ours")
        for _ in read_pieces(file, backup):
            pass  # before anything is made of it
        seats = drawn(folder, replicas)
        try:
            config = pack(founders({seat.member: seat.peers for seat in seats}))
            for seat in seats:
                _fill(os.path.join(seat.folder, "log"), file, backup, config)
            write(folder, seats)  # last, so that nobody starts what is not all there
        finally:
            remove_sockets(seats)  # until it is up
        return seats
    except OSError as error:
        raise UsageError(f"{path} cannot be restored in {folder}: {error.strerror}.") from None
    finally:
        file.close()


def _fill(folder: str, file: FolderFile, backup: Snapshot, config: bytes) -> None:
    """The log of a member that has nothing but the snapshot, and its group."""
    directory = Folder(folder)
    try:
        writer = Snapshots(directory, GROUP).writer(backup.last, backup.term, config)
        for piece in read_pieces(file, backup):
            writer.write(piece)
        writer.finish()
        log = Log.open(directory, LogSettings(), lambda: secrets.randbits(64))
        log.append((Base(GROUP, backup.last, backup.term, config), State(GROUP, backup.term, 0)))
        log.settle(log.sync())
        log.close()
    finally:
        directory.close()


def hashes(reach: Reach, *, timeout: float | None = 60.0) -> dict[int, Hash | None]:
    """What each replica says, by id; None for those that do not answer. One that has been started
    and does not listen yet is waited for."""
    told: dict[int, Hash | None] = {}
    deadline = None if timeout is None else monotonic() + timeout
    for seat in reach.seats:
        told[seat.id] = None
        if not _comes(reach, seat, deadline):
            continue
        try:
            with StoreOperator(seat.admin, timeout=timeout, **reach.way) as operator:
                told[seat.id] = operator.hash()
        except UsageError:
            raise
        except RefusedError as error:
            raise reach.not_for_us(seat, error) from None
        except EngineError:
            pass  # nobody answers
    return told


def _comes(reach: Reach, seat: Seat | Place, deadline: float | None) -> bool:
    """Whether anybody listens there, now or soon."""
    if isinstance(seat, Place):
        return not seat.silent
    while not listens(seat):
        if not starting(reach.folder, seat) or (deadline is not None and monotonic() > deadline):
            return listens(seat)
        select.poll().poll(LOOK_MS)
    return True
