"""Keys and the list of those who are allowed in: what guards an address beyond this machine.

A folder of keys, which only its owner can enter, holds a pair of files for each key that was made
there, and one list of the keys that others have::

    KEYS/               0700
      n1.public         one line: what is given to others
      n1.secret         one line, 0600: what never leaves this folder
      allowed           one line for each key that is allowed here, and as what

Grammar, version 1::

    public  = "engine-public 1 " name " " key LF
    secret  = "engine-secret 1 " name " " key LF
    allowed = *( *1( "#" text | entry ) LF )
    entry   = role " " key " " name *( " member=" number | " at=" host *1( ":" port ) )
    role    = "replica" | "coordinator" | "worker" | "client" | "admin" | "revoked"
    key     = 64 hexadecimal digits, of 32 bytes of Curve25519
    name    = 1*64( letter | digit | "." | "_" | "-" )

Worked example, an `allowed` of two replicas and one client (keys shortened)::

    replica 3b1f…09 n1 member=7214 at=10.0.0.1
    replica 90cc…4e n2 member=9921 at=10.0.0.2:7000
    client 5d20…aa alice
    revoked e1f2…77 mallory

`member` binds a replica's key to the number of its folder (`engine raft init`): what it sends in
the name of another member is refused. `at` says where a server may be; without it, it may be
anywhere. Revoked keys stay listed, so that nobody allows them again by mistake.
"""

from __future__ import annotations

import os
import re
import stat

from engine.errors import NotFoundError, RefusedError, UsageError
from engine.record import Record

ALLOWED = "allowed"
SECRET, PUBLIC = ".secret", ".public"
KEY_BYTES = 32
FILE_MAX = 1 << 20
REVOKED = "revoked"
SPEAKS = {
    "replica": frozenset({"replica", "server"}),
    "coordinator": frozenset({"coordinator", "worker"}),
    "worker": frozenset({"worker"}),
    "client": frozenset({"client"}),
    "admin": frozenset({"admin", "client"}),
    REVOKED: frozenset[str](),
}
"""As what a key of each role may say hello. A coordinator's own workers have its key."""
ROLES = tuple(role for role in SPEAKS if role != REVOKED)

_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_MEMBER_MAX = 1 << 64


class Allowed(Record):
    """A line of the list. `member` 0: any; `at` (): anywhere."""

    role: str
    key: str
    name: str
    member: int = 0
    at: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [self.role, self.key, self.name]
        words += [f"member={self.member}"] if self.member else []
        return " ".join([*words, *(f"at={place}" for place in self.at)])


class Malformed(ValueError):
    """A line that is none of the grammar's; its text says why."""


def check_name(name: str) -> str:
    """UsageError unless it can be the name of a key."""
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise UsageError(f"{name!a} is no name for a key: 1 to 64 letters, digits, ., _ and -.")
    return name


def parse_allowed(text: str) -> dict[str, Allowed]:
    """The list by key. `Malformed`."""
    found: dict[str, Allowed] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        entry = _parse_entry(line, number)
        if entry.key in found:
            raise Malformed(f"line {number}: its key is in the list already")
        found[entry.key] = entry
    return found


def _parse_entry(line: str, number: int) -> Allowed:
    role, key, name, *options = [*line.split(" "), "", ""]
    if role not in SPEAKS or not _KEY.fullmatch(key) or not _NAME.fullmatch(name):
        raise Malformed(f"line {number} is not ROLE KEY NAME")
    member, at = 0, []
    for option in options[:-2]:
        what, _, value = option.partition("=")
        if what == "member" and value.isascii() and value.isdigit() and int(value) < _MEMBER_MAX:
            member = int(value)
        elif what == "at" and value:
            at.append(value)
        else:
            raise Malformed(f"line {number}: {option[:40]!a} is neither member=NUMBER nor at=HOST")
    return Allowed(role, key, name, member, tuple(at))


def parse_key(text: str, what: str) -> tuple[str, str]:
    """(name, key) of a key file's line; `what` is "public" or "secret". `Malformed`."""
    words = text.removesuffix("\n").split(" ")
    if len(words) != 4 or words[:2] != [f"engine-{what}", "1"]:
        raise Malformed(f"it is not one line that begins with engine-{what} 1")
    if not _NAME.fullmatch(words[2]) or not _KEY.fullmatch(words[3]):
        raise Malformed(f"it does not hold a name and {2 * KEY_BYTES} hex digits")
    return words[2], words[3]


def key_line(what: str, name: str, key: str) -> bytes:
    """What `parse_key` takes."""
    return f"engine-{what} 1 {name} {key}\n".encode()


def check_folder(path: str) -> None:
    """NotFoundError or RefusedError unless only we can enter it."""
    try:
        status = os.stat(path)
    except OSError:
        raise NotFoundError(
            f"There is no folder of keys {path}: make one with `engine keys new NAME --dir {path}`."
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise RefusedError(f"{path} is no folder of keys.")
    if status.st_uid != os.geteuid():
        raise RefusedError(f"The keys in {path} belong to another user, so they are not trusted.")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RefusedError(f"The keys in {path} are open to other users: run chmod 700 {path}.")


def read_private(path: str) -> str:
    """A file that nobody else can have read. NotFoundError, RefusedError."""
    return _read(path, stat.S_IRWXG | stat.S_IRWXO, 600)


def read_public(path: str) -> str:
    """A file that nobody else can have written. NotFoundError, RefusedError."""
    return _read(path, stat.S_IWGRP | stat.S_IWOTH, 644)


def _read(path: str, forbidden: int, mode: int) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise NotFoundError(f"There is no {path}: see `engine keys --help`.") from None
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}.") from None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        data = file.read(FILE_MAX + 1)
    if status.st_uid not in (os.geteuid(), 0):
        raise RefusedError(f"{path} belongs to another user, so it is not trusted.")
    if status.st_mode & forbidden:
        raise RefusedError(f"{path} is open to other users: run chmod {mode} {path}.")
    if len(data) > FILE_MAX:
        raise RefusedError(f"{path} has more than {FILE_MAX} bytes.")
    return data.decode("utf-8", "replace")


def file_state(path: str) -> tuple[int, ...]:
    """Equal as long as a file has not changed: whoever reads it again only then looks at this."""
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or -1,)
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode


class AllowList:
    """The list of a folder, read again whenever it has changed.

    A list that can no longer be read or understood lets nobody in who is not in already: `broken`
    says why, and those who are in stay until there is a good one.
    """

    def __init__(self, folder: str) -> None:
        """NotFoundError or RefusedError if there is no good one to begin with."""
        self.path = os.path.join(folder, ALLOWED)
        self.broken = ""
        self._of: dict[str, Allowed] = {}
        self._seen: tuple[int, ...] = file_state(self.path)
        try:
            self._of = parse_allowed(read_public(self.path))
        except Malformed as error:
            raise RefusedError(f"{self.path}: {error}.") from None

    def fresh(self) -> bool:
        """Look again; whether it has changed."""
        seen = file_state(self.path)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self._of, self.broken = parse_allowed(read_public(self.path)), ""
        except (Malformed, NotFoundError, RefusedError) as error:
            self.broken = str(error)
        return True

    def find(self, key: str) -> Allowed | None:
        """Whose key it is, if it is listed, revoked or not."""
        return self._of.get(key)

    def entries(self) -> list[Allowed]:
        return list(self._of.values())

    def servers(self, address: str, role: str) -> list[Allowed]:
        """Who may be at an address, for one that would speak to it as `role`."""
        wanted = "coordinator" if role == "worker" else "replica"
        whole = address.removeprefix("tcp://")
        host = whole.rpartition(":")[0]
        return [
            entry
            for entry in self._of.values()
            if entry.role == wanted and (not entry.at or host in entry.at or whole in entry.at)
        ]


class Keyring:
    """Our own key, and whom we allow. Nothing that prints it shows the secret."""

    def __init__(self, path: str) -> None:
        """`path` is a folder with one secret key, or FOLDER/NAME. NotFoundError, RefusedError."""
        folder, name = (path, "") if os.path.isdir(path) else os.path.split(path)
        self.folder = folder or "."
        check_folder(self.folder)
        self.name = name or self._only()
        secret, public = (os.path.join(self.folder, self.name + end) for end in (SECRET, PUBLIC))
        try:
            _, self._secret = parse_key(read_private(secret), "secret")
        except Malformed:
            raise RefusedError(f"{secret} is no secret key: make another pair.") from None
        try:
            _, self.public = parse_key(read_public(public), "public")
        except Malformed:
            raise RefusedError(f"{public} is no public key: make another pair.") from None
        self.allowed = AllowList(self.folder)

    def _only(self) -> str:
        names = [n.removesuffix(SECRET) for n in os.listdir(self.folder) if n.endswith(SECRET)]
        if len(names) == 1:
            return names[0]
        if not names:
            raise NotFoundError(
                f"There is no secret key in {self.folder}: `engine keys new NAME --dir "
                f"{self.folder}` makes one."
            )
        raise UsageError(
            f"There are several keys in {self.folder}: say which, as {self.folder}/{min(names)}."
        )

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """(public, secret), for the socket and nobody else."""
        return bytes.fromhex(self.public), bytes.fromhex(self._secret)


def new_pair() -> tuple[str, str]:
    """(public, secret) of a new key, as hex. RefusedError."""
    check_curve()
    import zmq
    from zmq.utils import z85

    public, secret = (z85.decode(half).hex() for half in zmq.curve_keypair())
    return public, secret


def check_curve() -> None:
    """RefusedError where ZeroMQ cannot encrypt, or is too old to be trusted with strangers."""
    import zmq

    if not zmq.has("curve"):
        raise RefusedError(
            "The libzmq of this pyzmq was built without CURVE, so nothing can leave this machine: "
            "install pyzmq from its wheel."
        )
    if zmq.zmq_version_info() < (4, 3, 5):
        raise RefusedError(
            f"libzmq {zmq.zmq_version()} has known holes that strangers can use: install pyzmq "
            "with 4.3.5 or later."
        )
