"""The folder of one member of a replicated service, held by one process at a time.

    DIR/            mode 0700, locked (`lock`, see `engine.storage.files.DirectoryLock`)
      member        who this is
      log/          segments and snapshots

Grammar of `member`, version 1: one JSON object, `{"version": 1, "member": NUMBER}`, and a newline.
Worked example: `{"version": 1, "member": 2871983405}`.

The number is random and drawn when the folder is made. Whoever lost the folder gets another one, so
that nobody takes part in decisions whose earlier part in them is forgotten.
"""

from __future__ import annotations

import json
import os

from engine.errors import NotFoundError, RefusedError, UsageError
from engine.storage.directory import Folder
from engine.storage.files import DirectoryLock, sync_directory, write_atomically

VERSION = 1
MEMBER_BITS = 53
"""So that every reader of JSON can hold the number."""


class Home:
    """An opened folder: `member`, and `log`, a `Folder`. RefusedError if another process has it."""

    def __init__(self, path: str) -> None:
        """NotFoundError if it was never made, RefusedError, UsageError."""
        self.path = os.path.abspath(path)
        self.member = member_of(path)
        self._lock = DirectoryLock(self.path)
        self.log = Folder(os.path.join(self.path, "log"))

    def close(self) -> None:
        """Let go of it."""
        self._lock.close()


def make(path: str) -> int:
    """Make the folder, durably: its member's number. One that was made before stays as it is.

    RefusedError if there is something else in it.
    """
    path = os.path.abspath(path)
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        if os.path.lexists(os.path.join(path, "member")):
            return member_of(path)
        names = set(os.listdir(path)) - {"lock", "log"}
        begun = {name for name in names if name.startswith(".member.")}
        if names - begun:
            raise RefusedError(f"{path} is not empty: name a new folder.")
        for name in begun:  # whoever wrote it died before the number was said
            os.unlink(os.path.join(path, name))
        os.chmod(path, 0o700)
        os.makedirs(os.path.join(path, "log"), 0o700, exist_ok=True)
        member = 0
        while not member:
            member = int.from_bytes(os.urandom(8), "little") >> (64 - MEMBER_BITS)
        found = json.dumps({"version": VERSION, "member": member})
        write_atomically(os.path.join(path, "member"), found.encode() + b"\n", mode=0o600)
        sync_directory(os.path.dirname(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be made: {error.strerror}.") from None
    return member


def member_of(path: str) -> int:
    """Whose folder this is. NotFoundError if nobody's."""
    name = os.path.join(path, "member")
    try:
        with open(name, "rb") as file:
            found = json.loads(file.read(4096))
        version, member = found["version"], found["member"]
    except FileNotFoundError:
        raise NotFoundError(f"{path} is no member's folder: make one with `init`.") from None
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        raise RefusedError(
            f"{name} does not say whose folder this is: it is damaged. Remove the member from its "
            "group and add a new one."
        ) from None
    if version != VERSION or type(member) is not int or member <= 0:
        raise RefusedError(f"{name} is of version {version!r}, and this engine reads {VERSION}.")
    return member
