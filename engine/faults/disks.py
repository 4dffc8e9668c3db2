"""Disks that are really small: a file system in a file, which can be seen by everybody.

    with SmallDisk(folder / "disk", 16) as disk:
        ...                      # disk.path is an ext4 of 16 MiB

Linux, and root, with `mkfs.ext4` and `mount` (Debian: e2fsprogs, mount). A loss of power
(`engine.faults.power`) on such a disk watches a folder in it, not the disk itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType

from engine.errors import EngineError, UsageError

LEAST_MEGABYTES = 2
TOOLS_SECONDS = 60.0


class SmallDisk:
    """An ext4 of so many MiB, mounted at `path`, a folder that is made and removed.

    Its image is beside it for as long. EngineError where it cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], megabytes: int) -> None:
        self.path = os.path.abspath(os.fspath(path))
        if megabytes < LEAST_MEGABYTES:
            raise UsageError(
                f"A disk of {megabytes} MiB is too small: use {LEAST_MEGABYTES} or more."
            )
        if os.path.lexists(self.path):
            raise UsageError(f"{self.path} exists: a small disk makes its own folder.")
        self._image = f"{self.path}.image"
        self._bytes = megabytes << 20

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def open(self) -> None:
        """Make and mount it."""
        if os.geteuid() != 0:
            raise EngineError("A small disk is mounted, which only root may do.")
        for tool in ("mkfs.ext4", "mount", "umount"):
            if _find(tool) is None:
                raise EngineError(f"A small disk needs {tool}: install e2fsprogs and mount.")
        try:
            with open(self._image, "xb") as image:
                image.truncate(self._bytes)
            # Nothing is kept for root, and a sync is a sync, whatever the size of the journal.
            _run("mkfs.ext4", "-q", "-F", "-m", "0", self._image)
            os.mkdir(self.path)
            _run("mount", "-o", "loop", self._image, self.path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unmount and remove it, whoever still uses it; a second call does nothing."""
        if os.path.ismount(self.path):
            try:
                _run("umount", self.path)
            except EngineError:  # busy: it goes away when the last user does
                _run("umount", "--lazy", self.path)
        if os.path.isdir(self.path):
            os.rmdir(self.path)
        if os.path.exists(self._image):
            os.unlink(self._image)

    def __enter__(self) -> SmallDisk:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _find(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _run(tool: str, *arguments: str) -> None:
    found = _find(tool)
    assert found is not None, "it was looked for"
    ended = subprocess.run(
        [found, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TOOLS_SECONDS,
        check=False,
    )
    if ended.returncode != 0:
        said = ended.stdout.decode(errors="replace").strip()
        raise EngineError(f"A small disk cannot be made here, {tool} failed: {said}")
