"""Files that survive power loss, and folders that belong to one process.

A rename is atomic, but not durable until its folder was synced, and what it names is not either
until the file was. `write_atomically` does all three; nothing else in the engine may call fsync but
the functions here, so that "durable" means one thing.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable
from types import TracebackType

from engine.errors import RefusedError

_PRIVATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_PIECE_BYTES = 1 << 20
_FREED_BYTES = 8 << 20
"""How much of a file is freed at a time."""


def sync_file(fd: int) -> None:
    """Return when the bytes and the size of an open file survive power loss. OSError."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there only reaches the drive's own cache
    else:
        os.fdatasync(fd)


def sync_directory(path: str) -> None:
    """Return when the names in a folder survive power loss. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_tree(path: str) -> None:
    """Remove a directory of ours and all in it; what is gone already is fine. OSError.

    `shutil.rmtree` is for trees that strangers may change; importing it takes 3 ms.
    """
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(entry.path)
                else:
                    unlink_if_there(entry.path)
        os.rmdir(path)
    except FileNotFoundError:
        pass


def unlink_if_there(path: str) -> None:
    """Unlink a file; one that is gone already is fine. OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_gently(path: str) -> None:
    """Unlink a file without holding up those who sync others; a large one is gone for good then.

    What a disk has to do to free hundreds of megabytes at once, others wait for: 40 ms for 320 MB
    where a sync takes 0.1. So they are freed in steps, with a sync after each. The name goes
    before, durably: no power loss brings it back with a part of its bytes.

    FileNotFoundError, OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        os.unlink(path)
        if size > _FREED_BYTES:
            sync_directory(os.path.dirname(path) or ".")
        while size > _FREED_BYTES:
            size -= _FREED_BYTES
            os.ftruncate(fd, size)
            sync_file(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`, however little the system takes at a time. OSError."""
    with memoryview(data).cast("B") as left:
        while left:
            left = left[os.write(fd, left) :]


def write_at(fd: int, data: bytes | bytearray, offset: int) -> None:
    """Write all of `data` at this place of a file. OSError."""
    with memoryview(data) as left:
        done = 0
        while done < len(data):
            done += os.pwrite(fd, left[done:], offset + done)


def read_at(
    fd: int, size: int, offset: int, after_piece: Callable[[int], None] | None = None
) -> bytes:
    """`size` bytes from this place of a file, fewer only where it ends. OSError.

    `after_piece` is called after every megabyte with the place reached, so that long reading shows.
    """
    pieces = []
    end = offset + size
    while offset < end and (piece := os.pread(fd, min(end - offset, _PIECE_BYTES), offset)):
        pieces.append(piece)
        offset += len(piece)
        if after_piece is not None:
            after_piece(offset)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def write_atomically(
    path: str, data: bytes | bytearray | memoryview, *, sync: bool = True, mode: int = 0o666
) -> None:
    """Make `path` hold `data`: whoever looks, at any moment, sees all of it or what was before.

    With `sync` it is durable on return. `mode` is cut by the umask. On OSError nothing has changed
    under `path`; only if the very last step, syncing the folder, failed, `path` is new but may be
    lost.
    """
    folder, name = os.path.split(path)
    private = os.path.join(folder, f".{name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(private, _PRIVATE, mode)
    try:
        try:
            write_all(fd, data)
            if sync:
                sync_file(fd)
        finally:
            os.close(fd)
        os.rename(private, path)
    except BaseException:
        try:
            os.unlink(private)
        except FileNotFoundError:
            pass  # renamed before an interrupt arrived
        raise
    if sync:
        sync_directory(folder or ".")


class DirectoryLock:
    """A folder held by this process until `close`, or until it dies, however it dies.

    flock on the file `lock` in it, which also holds the holder's pid, for people. The file stays
    behind: to unlink it would let two processes lock two files of the same name. A forked child
    shares its parent's lock and would keep it alive, so it closes its copy at once.
    """

    def __init__(self, path: str) -> None:
        """RefusedError if another process holds it; OSError."""
        self.path = path
        self._fd = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise RefusedError(
                f"{path} is in use by process {holder or '(not yet known)'}: "
                "wait until it has ended, or name another directory."
            ) from None
        except BaseException:
            os.close(self._fd)
            raise
        _held.add(self)

    def current(self) -> bool:
        """Whether the locked file still has its name: its last holder may have removed it."""
        try:
            return os.fstat(self._fd).st_ino == os.stat(os.path.join(self.path, "lock")).st_ino
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let go; a second call does nothing."""
        if self in _held:
            _held.remove(self)
            # Never LOCK_UN: that would also unlock it for a parent that shares the descriptor.
            os.close(self._fd)

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_held: set[DirectoryLock] = set()


def _forget_locks() -> None:
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_forget_locks)
