"""The output directory: whose it is, how a job occupies it, and how results appear in it.

::

    OUT/mr-out-0 … mr-out-(R-1)   sorted lines; there only when complete
    OUT/manifest.json             written last: its presence says that the outputs are one whole
    OUT/.job/                     while a job runs, or after it was killed:
        lock                        held by the coordinator
        journal                     what has been accepted (engine.storage.journal)
        parts/                      outputs of reduce attempts
        scratch/                    runs, unless --scratch names another disk
        pages                       progress of the workers

Only the coordinator renames. Publishing is repeatable: a coordinator that dies half way is followed
by one that finds each part either still in `.job/parts` or already in its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from engine.contract import Finished, Job
from engine.errors import EngineError, RefusedError
from engine.kernels.checksum import crc32c
from engine.mapreduce.messages import OutputAccepted, Publish
from engine.storage.files import (
    DirectoryLock,
    remove_tree,
    sync_directory,
    sync_file,
    unlink_if_there,
    write_atomically,
)
from engine.storage.journal import Journal
from engine.wire.addresses import fits_socket, private_address

MANIFEST = "manifest.json"
FORMAT = "engine.mapreduce/1"
SCRATCH_PREFIX = ".engine-mr-"
"""Begins with a dot, so that no job reads it when it is inside an input."""
_CHUNK = 1 << 20


class OutputDirectory:
    """One job's hold on `path`. Open it with `occupy`, leave with `release`."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.job_path = os.path.join(self.path, ".job")
        self.journal_path = os.path.join(self.job_path, "journal")
        self.parts_path = os.path.join(self.job_path, "parts")
        self.pages_path = os.path.join(self.job_path, "pages")
        self.created = False
        self.torn = False
        """Publishing began and did not end: the journal must stay, for only it tells the rest."""
        self._lock: DirectoryLock | None = None

    # --- taking and leaving it ---

    def occupy(self, *, force: bool, resume: bool) -> str:
        """Take the directory: "fresh", "resume" (a journal is there) or "complete".

        Refuses, touching nothing, what is not empty and not ours, and what is ours unless `force`
        (replace) or `resume` (finish) was asked for.
        """
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            raise RefusedError(f"{self.path} exists and is not a directory; name another --out.")
        self._look(force, resume)
        self._make()
        while self._lock is None:
            self._lock = self._take_lock()
        try:
            # Look again: while nobody held the lock, somebody else's job may have ended here.
            manifest, journal = self._look(force, resume)
            if journal and resume:
                return "resume"
            if manifest and resume:
                self.release()
                return "complete"
            self._start_over(torn=journal and not manifest)
        except BaseException:
            self._unlock()
            raise
        return "fresh"

    def _look(self, force: bool, resume: bool) -> tuple[bool, bool]:
        """(our manifest is there, a journal is there); RefusedError."""
        manifest = read_manifest(self.path) is not None
        journal = os.path.exists(self.journal_path)
        names = set(os.listdir(self.path)) if os.path.isdir(self.path) else set()
        self._refuse(names, manifest, journal, force, resume)
        return manifest, journal

    def _make(self) -> None:
        self.created = not os.path.isdir(self.path)
        os.makedirs(self.path, exist_ok=True)
        if self.created:
            sync_directory(os.path.dirname(self.path))
        try:
            os.mkdir(self.job_path, 0o700)
        except FileExistsError:
            pass

    def _take_lock(self) -> DirectoryLock | None:
        """None if the job that held it has just removed the file that we locked."""
        try:
            lock = DirectoryLock(self.job_path)
        except FileNotFoundError:
            self._make()
            return None
        if lock.current():
            return lock
        lock.close()
        return None

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _refuse(
        self, names: set[str], manifest: bool, journal: bool, force: bool, resume: bool
    ) -> None:
        if not names - {".job"} and not journal:
            return  # empty, or a job died before its first word
        if not manifest and not journal:
            raise RefusedError(
                f"{self.path} is not empty and holds no manifest of ours, so it is not touched; "
                "name another --out."
            )
        if force or resume:
            return
        if journal and not manifest:
            raise RefusedError(
                f"{self.path} holds a job that was killed: finish it with --resume, "
                "or start over with --force."
            )
        raise RefusedError(
            f"{self.path} holds the output of a job: name another --out, "
            "or replace it with --force."
        )

    def restart(self) -> None:
        """Drop a journal that holds no plan yet."""
        os.unlink(self.journal_path)

    def _start_over(self, *, torn: bool) -> None:
        """Empty `.job`. `torn`: a job was killed here, perhaps while it published."""
        self._remove_socket_directory()
        if torn:
            # Outputs without a manifest are halves of what was being published. They go while
            # the journal still says whose they are.
            self._remove_stale(0)
            self._remove_old_scratch()
        unlink_if_there(self.journal_path)
        with os.scandir(self.job_path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(entry.path)
                elif entry.name != "lock":
                    unlink_if_there(entry.path)
        os.mkdir(self.parts_path, 0o700)

    def _remove_old_scratch(self) -> None:
        """The scratch folder of a killed job may be on another disk; its journal knows."""
        try:
            journal, records = Journal.open(self.journal_path)
        except (EngineError, OSError):
            return  # nothing to be learnt from it, and it is about to be dropped
        journal.close()
        if records and os.path.basename(records[0].scratch).startswith(SCRATCH_PREFIX):
            remove_tree(records[0].scratch)

    def address(self) -> str:
        """Where workers of this job find their coordinator: a socket inside `.job`.

        A path too long for a socket (107 bytes with its end) is replaced by a private temporary
        directory, whose name is written down so that whoever cleans up `.job` finds it.
        """
        path = os.path.join(self.job_path, "socket")
        if fits_socket(path):
            return f"ipc://{path}"
        self._remove_socket_directory()
        address = private_address()
        with open(os.path.join(self.job_path, "socket-directory"), "w") as file:
            file.write(os.path.dirname(address.removeprefix("ipc://")))
        return address

    def _remove_socket_directory(self) -> None:
        try:
            with open(os.path.join(self.job_path, "socket-directory")) as file:
                remove_tree(file.read())
        except FileNotFoundError:
            pass

    def release(self, *, keep: bool = False) -> None:
        """Remove `.job`, and a directory that this job made and left empty; unlock.

        `keep` leaves everything for a later `--resume`.
        """
        if not keep and os.path.isdir(self.job_path):
            self._remove_socket_directory()
            unlink_if_there(self.journal_path)
            remove_tree(self.job_path)
            if self.created and not os.listdir(self.path):
                os.rmdir(self.path)
        self._unlock()

    # --- publishing ---

    def publish(
        self, work: Publish, manifest: dict[str, Any], point: Callable[[str], None]
    ) -> tuple[int, ...]:
        """Put all parts in place, the manifest last; () or the partitions whose part is lost."""
        lost = tuple(part.partition for part in work.parts if not self._verify(part))
        if lost:
            return lost
        point("publish verified")
        for part in work.parts:
            if os.path.exists(part.path):
                with open(part.path, "rb", buffering=0) as file:
                    sync_file(file.fileno())
        point("publish synced")
        self.torn = True
        self._withdraw()
        for part in work.parts:
            self._place(part)
            point("publish renamed")
        self._remove_stale(len(work.parts))
        sync_directory(self.path)
        point("publish placed")
        self._write_manifest(work.parts, manifest)
        self.torn = False
        point("publish complete")
        return ()

    def _place(self, part: OutputAccepted) -> None:
        try:
            os.rename(part.path, self._final(part.partition))
        except FileNotFoundError:  # placed by a coordinator that was killed afterwards
            if self._digest(self._final(part.partition)) != part.digest:
                raise

    def _final(self, partition: int) -> str:
        return os.path.join(self.path, f"mr-out-{partition}")

    def _verify(self, part: OutputAccepted) -> bool:
        """Whether the part's bytes are there: still private, or already in place."""
        try:
            # Read again, since parts are not fsynced before now: after a crash any byte may differ.
            return (
                os.stat(part.path).st_size == part.size and self._digest(part.path) == part.digest
            )
        except FileNotFoundError:
            pass
        try:
            return self._digest(self._final(part.partition)) == part.digest
        except FileNotFoundError:
            return False

    @staticmethod
    def _digest(path: str) -> int:
        digest = 0
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                digest = crc32c(chunk, digest)
        return digest

    def _withdraw(self) -> None:
        """From here until the new manifest stands, the outputs are not one whole."""
        path = os.path.join(self.path, MANIFEST)
        if os.path.exists(path):
            os.unlink(path)
            sync_directory(self.path)

    def _remove_stale(self, partitions: int) -> None:
        for name in os.listdir(self.path):
            number = name.removeprefix("mr-out-")
            if number != name and number.isdecimal() and int(number) >= partitions:
                os.unlink(os.path.join(self.path, name))

    def _write_manifest(self, parts: tuple[OutputAccepted, ...], manifest: dict[str, Any]) -> None:
        import json

        files = [
            {
                "name": f"mr-out-{part.partition}",
                "bytes": part.size,
                "keys": part.keys,
                "total": part.total,
                "crc32c": f"{part.digest:08x}",
            }
            for part in sorted(parts)
        ]
        text = json.dumps({"format": FORMAT, **manifest, "files": files}, indent=1) + "\n"
        write_atomically(os.path.join(self.path, MANIFEST), text.encode())


def publish_job(
    output: OutputDirectory, manifest: dict[str, Any], job: Job, point: Callable[[str], None]
) -> Finished:
    """Carry out a `Publish` job; what the disk refuses is the job's error."""
    try:
        return Finished(job.number, output.publish(job.work, manifest, point))
    except OSError as error:
        where = error.filename or output.path
        text = f"{where}: the output cannot be put in place ({error.strerror})."
        return Finished(job.number, error=f"{text} When that is mended, --resume goes on.")


def read_manifest(out: str) -> dict[str, Any] | None:
    """The manifest of a complete output directory, or None if there is none of ours."""
    import json

    try:
        with open(os.path.join(out, MANIFEST), "rb") as file:
            manifest = json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if isinstance(manifest, dict) and manifest.get("format") == FORMAT:
        return manifest
    return None
