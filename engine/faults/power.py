"""Loss of power for real processes: what they wrote and did not sync vanishes at their kill.

    with Power(folder, seed=7) as power:
        program = Popen(command, env={**os.environ, **power.environment()})
        ...
        program.kill()
        program.wait()
        loss = power.lose()      # the folder is now what a disk might have had

SIGKILL leaves the system's cache as it is, and so hides every sync that was forgotten. Here a
library (`ext/power.c`) is preloaded into the process and whatever it starts. It notes what each
change below the folder replaces, in a journal that outlives the process, and `lose` takes changes
back (`engine.faults.undo` says which). The same library makes the disk bad, at any moment and for
all processes at once: `slow`, `fail_sync`, `fail_writes`, `shorten_writes`, until `heal`.

Linux on 64 bits only: elsewhere, and in a program that is linked statically, nothing is preloaded.
What a program cannot be allowed (shared writable mappings, O_DIRECT, symbolic links, renames out of
the folder …) ends it with a sentence, which `lose` repeats.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import importlib.util
import mmap
import os
import shutil
import struct
import sys
import tempfile
import time
from random import Random
from types import TracebackType

from engine.errors import EngineError, RefusedError, UsageError
from engine.faults.undo import HEADER_BYTES, WAYS, Loss, Undo
from engine.record import Record

__all__ = ["Loss", "Power"]

MAGIC = 0x31524557504E45
WORDS = [
    "magic",
    "capacity",
    "tail",
    "last",
    "attached",
    "ready",
    "device",
    "folder_spoiled",
    "refused",
    "delay_ns",
    "sync_skip",
    "sync_fail",
    "sync_only",
    "sync_errno",
    "write_left",
    "write_errno",
    "write_growth",
    "shorten",
    "mappings",
    "slow_syncs",
    "failed_syncs",
    "failed_writes",
    "short_writes",
]
"""The words of 64 bits that the header begins with, as `ext/power.h` has them."""
GRAVEYARD, FOLDERS, REFUSAL = 512, 1536, 5632
"""Where the texts are; each ends with a 0."""
ONLY = {"": 0, "files": 1, "folders": 2}
IN_MEMORY = {0x01021994: "tmpfs", 0x858458F6: "ramfs"}
LIMIT: int = 1 << 30
GONE_SECONDS = 20.0
"""How long children of a killed process may take to follow it."""


class Injected(Record):
    """How often each fault has struck, since the beginning."""

    slow_syncs: int
    failed_syncs: int
    failed_writes: int
    short_writes: int


class Power:
    """What is watched: a folder on a disk, and with `also` more of the same file system.

    `limit` bytes is how much may be noted between two losses; it is taken as it is used. With
    `mappings` programs may map files to write to them: a mapping counts as a write of all of it,
    which no sync keeps. One `seed`, and equal journals, have equal losses. At home in one thread.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        seed: int = 0,
        *,
        also: tuple[str, ...] = (),
        limit: int = LIMIT,
        mappings: bool = False,
    ) -> None:
        """UsageError for what is no folder on a disk; EngineError where it cannot work."""
        self._library = _library()
        self.folders = tuple(os.path.realpath(one) for one in (os.fspath(folder), *also))
        for one in self.folders:
            check_folder(one, self.folders[0])
        self._limit = max(limit, 2 * HEADER_BYTES)
        self._rng = Random(f"power {seed}")
        self._graveyard = tempfile.mkdtemp(prefix=".power-", dir=os.path.dirname(self.folders[0]))
        self._memory: mmap.mmap | None = None
        self.journal = ""
        try:
            self._check_graveyard()
            self._fd, self.journal = tempfile.mkstemp(".power", dir=_journal_folder(self._limit))
            os.ftruncate(self._fd, self._limit)
            self._memory = mmap.mmap(self._fd, HEADER_BYTES)
            self._write_header()
            self._set("mappings", mappings)
            self.heal()
        except BaseException:
            self.close()
            raise

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment, besides what it has."""
        before = os.environ.get("LD_PRELOAD", "")
        return {
            "LD_PRELOAD": f"{self._library} {before}".rstrip(),
            "ENGINE_POWER": self.journal,
        }

    # --- losses ----------------------------------------------------------------------------------

    def lose(self, way: str = "") -> Loss:
        """Take back what the dead processes did not sync; what is left is durable.

        `way` is `all`, `prefix` or `torn`, or one of them by the seed; `engine.faults.undo.Loss`
        says what they are. RefusedError if a process still runs. EngineError if none ran with the
        library, or one did what cannot be taken back.
        """
        if way and way not in WAYS:
            raise UsageError(f"There is no way {way!r} of losing power: use {', '.join(WAYS)}.")
        way = way or self._rng.choice(WAYS)
        self._await_end()
        if self._get("refused"):
            raise EngineError(f"A process was ended for what it did: {self._text(REFUSAL)}")
        if not self._get("attached"):
            raise EngineError(
                "No process has loaded the library since the last loss: start it with "
                "`environment()`, and not a program that is linked statically."
            )
        end = self._get("tail")
        with (
            mmap.mmap(self._fd, end, access=mmap.ACCESS_READ) as memory,
            memoryview(memory) as all_,
        ):
            undo = Undo(all_, end, self.folders, self._graveyard, Random(self._rng.getrandbits(64)))
            try:
                loss = undo.lose(way)
            finally:
                undo.close()
        self.forget()
        return loss

    def forget(self) -> None:
        """Take all that was done so far for durable, as after an orderly end. RefusedError."""
        self._await_end()
        for name in os.listdir(self._graveyard):
            os.unlink(os.path.join(self._graveyard, name))
        os.ftruncate(self._fd, HEADER_BYTES)  # gives the memory back
        os.ftruncate(self._fd, self._limit)
        for word in ("last", "attached", "ready", "folder_spoiled", "refused"):
            self._set(word, 0)
        self._set("tail", HEADER_BYTES)

    @property
    def processes(self) -> int:
        """How many have begun to be watched since the last loss."""
        return self._get("attached")

    @property
    def noted(self) -> int:
        """Bytes of the journal."""
        return self._get("tail") - HEADER_BYTES

    def _await_end(self) -> None:
        """Every process under test holds a lock on the journal for as long as it lives."""
        deadline = time.monotonic() + GONE_SECONDS
        fd = os.open(self.journal, os.O_RDWR | os.O_CLOEXEC)
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise RefusedError(
                            f"A process that writes to {self.folders[0]} still runs: "
                            "power can only be lost when all are dead."
                        ) from None
                    time.sleep(0.002)
        finally:
            os.close(fd)

    # --- bad disks -------------------------------------------------------------------------------

    def slow(self, milliseconds: float) -> None:
        """Every sync takes so much longer; 0: no more."""
        self._set("delay_ns", round(milliseconds * 1e6))

    def fail_sync(
        self, *, skip: int = 0, times: int = -1, only: str = "", error: int = errno.EIO
    ) -> None:
        """After `skip` more syncs, `times` of them fail (-1: all); `only` of `files` or `folders`.

        What they should have kept is then not kept by later ones either, though these succeed.
        """
        if only not in ONLY:
            raise UsageError(f"There are no syncs of only {only!r}: use files or folders.")
        self._set("sync_fail", 0)
        self._set("sync_only", ONLY[only])
        self._set("sync_errno", error)
        self._set("sync_skip", skip)
        self._set("sync_fail", times)

    def fail_writes(self, after: int = 0, error: int = errno.ENOSPC) -> None:
        """Writes fail when `after` more bytes were written, the last one before is cut short.

        With ENOSPC only those bytes count that make a file longer, as on a disk that is full.
        """
        self._set("write_left", -1)
        self._set("write_errno", error)
        self._set("write_growth", error in (errno.ENOSPC, errno.EDQUOT))
        self._set("write_left", after)

    def shorten_writes(self) -> None:
        """Every write of two bytes or more takes only some of them."""
        self._set("shorten", self._rng.getrandbits(62) | 1)

    def heal(self) -> None:
        """End all of this. What was not kept because a sync failed stays so."""
        for word in ("delay_ns", "sync_fail", "shorten"):
            self._set(word, 0)
        self._set("write_left", -1)

    @property
    def injected(self) -> Injected:
        return Injected(*(self._get(word) for word in WORDS[-4:]))

    # --- the header ------------------------------------------------------------------------------

    def _get(self, word: str) -> int:
        assert self._memory is not None, "it is open"
        value: int = struct.unpack_from("<q", self._memory, 8 * WORDS.index(word))[0]
        return value

    def _set(self, word: str, value: int) -> None:
        assert self._memory is not None, "it is open"
        struct.pack_into("<q", self._memory, 8 * WORDS.index(word), value)

    def _text(self, at: int) -> str:
        assert self._memory is not None, "it is open"
        return os.fsdecode(self._memory[at:].partition(b"\0")[0]).strip()

    def _write_header(self) -> None:
        assert self._memory is not None, "it is open"
        graveyard = os.fsencode(self._graveyard)
        folders = b"\0".join(map(os.fsencode, self.folders))
        if len(graveyard) > FOLDERS - GRAVEYARD - 2 or len(folders) > REFUSAL - FOLDERS - 2:
            raise UsageError("The names of the watched folders are too long.")
        self._memory[GRAVEYARD : GRAVEYARD + len(graveyard)] = graveyard
        self._memory[FOLDERS : FOLDERS + len(folders)] = folders
        self._set("capacity", self._limit)
        self._set("tail", HEADER_BYTES)
        self._set("device", os.stat(self.folders[0]).st_dev)
        self._set("magic", MAGIC)

    def _check_graveyard(self) -> None:
        if os.stat(self._graveyard).st_dev != os.stat(self.folders[0]).st_dev:
            raise UsageError(
                f"{self.folders[0]} is where its disk is mounted: watch a folder in it."
            )

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Remove the journal and what it kept of removed files; a second call does nothing."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if self.journal:
            os.close(self._fd)
            os.unlink(self.journal)
            self.journal = ""
        shutil.rmtree(self._graveyard, ignore_errors=True)

    def __enter__(self) -> Power:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _library() -> str:
    """Where the library is; it is found, and never imported."""
    if sys.platform != "linux" or struct.calcsize("P") != 8:
        raise EngineError("Loss of power needs Linux on 64 bits: only there can it be preloaded.")
    spec = importlib.util.find_spec("engine.kernels.power")
    if spec is None or spec.origin is None or " " in spec.origin or ":" in spec.origin:
        raise EngineError(
            "engine.kernels.power is missing, or its path has a space or colon: `make kernels`, "
            "in a folder of another name."
        )
    return spec.origin


def check_folder(path: str, first: str) -> None:
    """UsageError for what is no folder on the same disk as the first."""
    if not os.path.isdir(path):
        raise UsageError(f"{path} is not a folder.")
    kind = IN_MEMORY.get(_kind_of(path))
    if kind is not None:
        raise UsageError(f"{path} is on a {kind}, in memory: use a folder on a disk.")
    if os.stat(path).st_dev != os.stat(first).st_dev:
        raise UsageError(f"{path} and {first} are on different file systems: watch them apart.")


def _kind_of(path: str) -> int:
    """The magic number of a file system, as statfs has it first."""
    found = (ctypes.c_long * 64)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), ctypes.byref(found)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return int(found[0]) & 0xFFFFFFFF


def _journal_folder(limit: int) -> str:
    """Memory, if there is enough of it: what is noted there costs the disk nothing."""
    try:
        found = os.statvfs("/dev/shm")
        if found.f_bavail * found.f_frsize >= limit and os.access("/dev/shm", os.W_OK):
            return "/dev/shm"
    except FileNotFoundError:
        pass  # not every container has it
    return tempfile.gettempdir()
