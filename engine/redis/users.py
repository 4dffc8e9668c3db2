"""Who may use the gateway, and how they prove it: the file `users` in a folder of keys.

It lies beside the list of those who have keys (`engine.wire.curve`), mode 0600, and `engine keys
user` writes it. Grammar, version 1::

    users  = *( *1( "#" text | entry ) LF )
    entry  = role " " name " sha256:" salt ":" digest
    role   = "read" | "write"
    name   = 1*64( letter | digit | "." | "_" | "-" )       not beginning with "."
    salt   = 32 hexadecimal digits
    digest = 64 hexadecimal digits: SHA-256 of the 16 bytes of the salt and the secret behind them

Worked example, the user alice with the secret `correct horse battery staple`::

    write alice sha256:000102030405060708090a0b0c0d0e0f:
      3d3ecd0750760383a5cd6a31d4d8294add1829ac0d7be0647083f73847dd325e

on one line, without the spaces between the colon and the digest.

There is no slow hash here: it would hold up the replica's only loop at each wrong secret, which
strangers choose, and slowness is for secrets that can be guessed. Ours are drawn with 192 bits, and
whoever brings their own is asked for a long one. A salt makes equal secrets look different.
"""

from __future__ import annotations

import hashlib
import os
import re
from secrets import compare_digest

from engine.errors import NotFoundError, RefusedError, UsageError
from engine.record import Record
from engine.wire.curve import Malformed, check_folder, check_name, file_state, read_private
from engine.wire.keys import is_keys

FILE = "users"
READ, WRITE = "read", "write"
ROLES = (READ, WRITE)
SALT_BYTES = 16
SECRET_MIN = 16
"""Characters of a secret that somebody brings."""
SECRET_MAX = 4096

_ENTRY = re.compile(
    r"(read|write) ([A-Za-z0-9_-][A-Za-z0-9._-]{0,63}) sha256:([0-9a-f]{32}):([0-9a-f]{64})",
    re.ASCII,
)


class User(Record):
    """A line of the file. `salt` and `digest` are hexadecimal."""

    role: str
    name: str
    salt: str
    digest: str

    def __str__(self) -> str:
        return f"{self.role} {self.name} sha256:{self.salt}:{self.digest}"


NOBODY = User(READ, "", "00" * SALT_BYTES, "00" * 32)
"""Whom a secret is compared with if there is no such user: that takes as long."""


def made(role: str, name: str, secret: bytes) -> User:
    """A user who has this secret. UsageError."""
    check_name(name)
    if role not in ROLES:
        raise UsageError(f"There is no role {role!a} for users; there is {' and '.join(ROLES)}.")
    salt = os.urandom(SALT_BYTES)
    return User(role, name, salt.hex(), digest(salt, secret))


def digest(salt: bytes, secret: bytes) -> str:
    return hashlib.sha256(salt + secret).hexdigest()


def proven(user: User, secret: bytes) -> bool:
    """Whether it is this user's; how long that takes tells nothing of where they differ."""
    return compare_digest(digest(bytes.fromhex(user.salt), secret), user.digest)


def parse_users(text: str) -> dict[str, User]:
    """The users by name. `Malformed`, which says nothing of what is in the file."""
    found: dict[str, User] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            raise Malformed(f"line {number} is not ROLE NAME sha256:SALT:DIGEST")
        user = User(*entry.groups())
        if user.name in found:
            raise Malformed(f"line {number}: there is a user {user.name} already")
        found[user.name] = user
    return found


class UserList:
    """The users of a folder, read again whenever their file has changed.

    If it can no longer be read or understood nobody is let in who is not in already, and `broken`
    says why. If there is nobody left in it, nobody is let in.
    """

    def __init__(self, folder: str) -> None:
        """NotFoundError or RefusedError if there is no good one with users to begin with."""
        check_folder(folder)
        self.path = os.path.join(folder, FILE)
        self.broken = ""
        self.version = 0
        """Grows when it has changed."""
        self._seen = file_state(self.path)
        try:
            self._of = parse_users(read_private(self.path))
        except Malformed as error:
            raise RefusedError(f"{self.path}: {error}.") from None
        if not self._of:
            raise RefusedError(
                f"{self.path} has no users, so nobody could come in: `engine keys user add` one."
            )

    def fresh(self) -> None:
        """Look again."""
        seen = file_state(self.path)
        if seen == self._seen:
            return
        self._seen = seen
        self.version += 1
        try:
            self._of, self.broken = parse_users(read_private(self.path)), ""
        except (Malformed, NotFoundError, RefusedError) as error:
            self.broken = str(error)

    def find(self, name: str) -> User | None:
        return self._of.get(name)

    def proven(self, name: str, secret: bytes) -> User | None:
        """Who it is, if that is their secret."""
        user = self._of.get(name, NOBODY)
        return user if proven(user, secret) and user is not NOBODY else None


def folder_of(keys: str) -> str:
    """The folder of `--keys`, which may name one of several keys in it."""
    return keys if os.path.isdir(keys) else os.path.dirname(keys) or "."


def users_of(keys: str | None) -> UserList | None:
    """The users that are in this folder of keys, if there is a file of them. RefusedError."""
    if keys is None or not is_keys(keys):
        return None
    folder = folder_of(keys)
    return UserList(folder) if os.path.lexists(os.path.join(folder, FILE)) else None
