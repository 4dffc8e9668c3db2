"""`engine keys user`: who may use the gateway for Redis clients, and who may write."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import EngineError, NotFoundError, RefusedError, UsageError
from engine_cmd.flags import Family, Parser, shown

if TYPE_CHECKING:
    from engine.redis.users import User

EXAMPLES = """\
examples:
  engine keys user add alice --role write --dir keys     says her secret, this once
  engine keys user add bob --role read --password - --dir keys < secret
  engine keys user remove bob --dir keys                 at once, and ends their connections
  engine keys user list --dir keys
  redis-cli --tls --cacert ca.pem --user alice --askpass

A user `default` is who comes with a secret and no name. To change a secret, remove and add.
"""

HEAD = """\
# Who may use the gateway for Redis clients: ROLE NAME sha256:SALT:DIGEST
# Servers notice changes by themselves. `engine keys user` writes this file.
"""
DRAWN_BYTES = 24
"""Of a secret that is drawn: 192 bits."""


def add(argv: list[str]) -> int:
    """let somebody in who has a secret"""
    parser = _parser("add", "Let a user in. The secret is drawn, and said on stdout, this once.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--role", metavar="ROLE", required=True, help="read, or write, which is all"
    )
    parser.add_argument(
        "--password", metavar="-", help="read the secret from stdin instead: a line of 16 or more"
    )
    flags = parser.parse_args(argv)
    from engine.redis import users

    users.made(flags.role, flags.name, b"")  # or it is nonsense, and nobody needs to type
    secret = _drawn() if flags.password is None else _brought(flags.password)
    user = users.made(flags.role, flags.name, secret)

    def change(found: dict[str, User]) -> None:
        if user.name in found:
            raise RefusedError(f"There is a user {user.name} already: remove them first.")
        found[user.name] = user

    _changed(flags.dir, change)
    drawn = secret.decode() if flags.password is None else None
    if flags.json:
        told = {"name": user.name, "role": user.role, "secret": drawn, "error": None}
        shown({what: value for what, value in told.items() if what != "secret" or value})
    elif drawn:
        print(drawn, flush=True)
    return 0


def remove(argv: list[str]) -> int:
    """let somebody in no more"""
    parser = _parser("remove", "Let a user in no more, and end their connections.")
    parser.add_argument("name", metavar="NAME")
    flags = parser.parse_args(argv)

    def change(found: dict[str, User]) -> None:
        if flags.name not in found:
            raise NotFoundError(f"There is no user {flags.name!a} in {flags.dir}.")
        del found[flags.name]

    _changed(flags.dir, change)
    if flags.json:
        shown({"name": flags.name, "error": None})
    return 0


def list_(argv: list[str]) -> int:
    """say who is let in"""
    flags = _parser("list", "Say who the users are, and what they may do.").parse_args(argv)
    from engine.redis import users

    path = os.path.join(flags.dir, users.FILE)
    _check(flags)
    found = _read(path) if os.path.lexists(path) else {}
    if flags.json:
        told = [{"name": user.name, "role": user.role} for user in found.values()]
        shown({"users": told, "error": None})
    else:
        for user in found.values():
            print(f"{user.role} {user.name}")
    return 0


def _parser(verb: str, description: str) -> Parser:
    parser = USER.parser(verb, description)
    parser.add_argument("--dir", metavar="KEYS", required=True, help="a folder of keys")
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    return parser


def _check(flags: Namespace) -> None:
    from engine.wire.curve import check_folder

    check_folder(flags.dir)


def _drawn() -> bytes:
    import secrets

    return secrets.token_urlsafe(DRAWN_BYTES).encode()


def _brought(password: str) -> bytes:
    """A line of stdin. UsageError, which does not repeat it."""
    from engine.redis.users import SECRET_MAX, SECRET_MIN

    if password != "-":
        raise UsageError(
            "A secret is never an argument, which others can see: give --password - and the "
            "secret on stdin."
        )
    said = sys.stdin.buffer.read(SECRET_MAX + 3).removesuffix(b"\n").removesuffix(b"\r")
    try:
        text = said.decode()
    except UnicodeDecodeError:
        raise UsageError("The secret on stdin is no text in UTF-8.") from None
    if not text.isprintable():
        raise UsageError("The secret on stdin is not one line of printable characters.")
    if len(text) < SECRET_MIN or len(said) > SECRET_MAX:
        raise UsageError(
            f"A secret has {SECRET_MIN} characters or more, and at most {SECRET_MAX} bytes; "
            "without --password one is drawn."
        )
    return said


def _read(path: str) -> dict[str, User]:
    from engine.redis.users import parse_users
    from engine.wire.curve import Malformed, read_private

    try:
        return parse_users(read_private(path))
    except Malformed as error:
        raise RefusedError(f"{path}: {error}.") from None


def _changed(folder: str, change: Callable[[dict[str, User]], None]) -> None:
    """Write the file anew; remarks that people wrote into it stay."""
    from engine.redis.users import FILE, parse_users
    from engine.storage.files import DirectoryLock, write_atomically
    from engine.wire.curve import check_folder, read_private

    check_folder(folder)
    path = os.path.join(folder, FILE)
    with DirectoryLock(folder):
        found = _read(path) if os.path.lexists(path) else {}
        text = read_private(path) if os.path.lexists(path) else HEAD
        before = dict(found)
        change(found)
        kept = []
        for line in text.removesuffix("\n").split("\n"):
            names = [] if line.startswith("#") else list(parse_users(line))
            if all(before[name] == found.get(name) for name in names):
                kept.append(line)
        kept += [str(user) for name, user in found.items() if name not in before]
        try:
            write_atomically(path, "".join(f"{one}\n" for one in kept).encode(), mode=0o600)
        except OSError as error:
            raise EngineError(f"{path} cannot be written: {error.strerror}.") from None


USER = Family("keys user", EXAMPLES, {"add": add, "remove": remove, "list": list_})
main = USER.main
