"""`engine keys`: who may speak to servers beyond this machine, and as what."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, NotFoundError, RefusedError, UsageError
from engine_cmd.flags import Family, natural, shown

if TYPE_CHECKING:
    from engine.wire.curve import Allowed

EXAMPLES = """\
examples, on each of the hosts n1, n2 and n3:
  engine keys new n1 --dir keys              keys/n1.secret stays; keys/n1.public is given to others
  engine keys allow keys n2.public --role replica --member 9921 --at 10.0.0.2
  engine keys allow keys alice.public --role client
  engine keys revoke keys alice              at once, also for connections that are there
  engine keys list keys
  engine keys user add carol --role write --dir keys     for Redis clients, with a secret
  engine kv serve --dir n1 --keys keys --listen tcp://10.0.0.1:7000 …

Roles: replica and coordinator serve; worker joins a coordinator; client reads and writes; admin
also looks at replicas and changes members. A server needs its own key in its list.
"""

HEAD = """\
# Who may speak to servers with these keys, and as what: ROLE KEY NAME [member=N] [at=HOST[:PORT]]
# Servers notice changes by themselves. `engine keys` writes this file, and so may you.
"""


def new(argv: list[str]) -> int:
    """make a pair of keys"""
    parser = KEYS.parser("new", "Make a pair of keys in a folder, which is made if need be.")
    parser.add_argument("name", metavar="NAME", help="of this host or user, as others will see it")
    parser.add_argument("--dir", metavar="KEYS", required=True)
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    flags = parser.parse_args(argv)
    from engine.wire import curve

    curve.check_name(flags.name)
    folder = flags.dir
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise RefusedError(f"{folder} cannot be made: {error.strerror}.") from None
    curve.check_folder(folder)
    paths = [os.path.join(folder, flags.name + end) for end in (curve.SECRET, curve.PUBLIC)]
    for path in paths:
        if os.path.lexists(path):
            raise RefusedError(f"{path} exists: a key is never overwritten; name another one.")
    public, secret = curve.new_pair()
    _write(paths[0], curve.key_line("secret", flags.name, secret), 0o600)
    _write(paths[1], curve.key_line("public", flags.name, public), 0o644)
    if not os.path.lexists(os.path.join(folder, curve.ALLOWED)):
        _write(os.path.join(folder, curve.ALLOWED), HEAD.encode(), 0o600)
    if flags.json:
        shown({"name": flags.name, "public": public, "file": paths[1], "error": None})
    else:
        print(paths[1])
    return 0


def allow(argv: list[str]) -> int:
    """let a key in, as a replica, client, …"""
    parser = KEYS.parser("allow", "Let a key in; one that is allowed already gets another role.")
    parser.add_argument("folder", metavar="KEYS")
    parser.add_argument("public", metavar="PUBLIC", help="a public file, or the 64 digits in it")
    parser.add_argument("--role", metavar="ROLE", required=True, help=", ".join(_roles()))
    parser.add_argument("--name", metavar="NAME", default="", help="default: the file's")
    parser.add_argument(
        "--member",
        metavar="N",
        type=natural,
        default=0,
        help="of a replica: the number of its folder, in whose name alone it may speak",
    )
    parser.add_argument(
        "--at",
        metavar="HOST[:PORT]",
        action="append",
        default=[],
        help="of a server: where it may be (default: anywhere); repeatable",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    flags = parser.parse_args(argv)
    from engine.wire.curve import Allowed, check_name

    if flags.role not in _roles():
        raise UsageError(f"There is no role {flags.role!a}; there is {', '.join(_roles())}.")
    if flags.member and flags.role != "replica":
        raise UsageError("Only replicas have --member.")
    for place in flags.at:
        if not place or not place.isprintable() or " " in place:
            raise UsageError(f"{place!a} is not HOST or HOST:PORT.")
    told, key = _named(flags.public)
    name = check_name(flags.name or told)
    entry = Allowed(flags.role, key, name, flags.member, tuple(flags.at))

    def change(entries: dict[str, Allowed]) -> None:
        if key in entries and entries[key].role == "revoked":
            raise RefusedError(f"This key of {entries[key].name} was revoked: make another one.")
        for other in entries.values():
            if other.name == name and other.key != key and other.role != "revoked":
                raise RefusedError(f"Another key has the name {name}: revoke it, or give --name.")
        entries[key] = entry

    _changed(flags.folder, change)
    _said(flags, entry)
    return 0


def revoke(argv: list[str]) -> int:
    """let a key in no more"""
    parser = KEYS.parser("revoke", "Let a key in no more, and end its connections.")
    parser.add_argument("folder", metavar="KEYS")
    parser.add_argument("who", metavar="WHO", help="its name, its public file, or the 64 digits")
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    flags = parser.parse_args(argv)
    found: list[Allowed] = []

    def change(entries: dict[str, Allowed]) -> None:
        live = [one for one in entries.values() if one.role != "revoked"]
        found.extend(one for one in live if flags.who in (one.name, one.key))
        if not found and os.path.isfile(flags.who):
            key = _named(flags.who)[1]
            found.extend(one for one in live if one.key == key)
        if not found:
            raise NotFoundError(f"No key that is allowed in {flags.folder} is {flags.who!a}.")
        for one in found:
            entries[one.key] = one._replace(role="revoked", member=0, at=())

    _changed(flags.folder, change)
    _said(flags, found[0]._replace(role="revoked", member=0, at=()))
    return 0


def list_(argv: list[str]) -> int:
    """say who is allowed in"""
    parser = KEYS.parser("list", "Say whose keys are allowed, and as what.")
    parser.add_argument("folder", metavar="KEYS")
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    flags = parser.parse_args(argv)
    from engine.wire.curve import AllowList, check_folder

    check_folder(flags.folder)
    entries = AllowList(flags.folder).entries()
    if flags.json:
        shown({"allowed": [_plain(one) for one in entries], "error": None})
    else:
        for entry in entries:
            print(entry)
    return 0


def _roles() -> tuple[str, ...]:
    from engine.wire.curve import ROLES

    return ROLES


def _named(public: str) -> tuple[str, str]:
    """(name, key) of a public file, or of the digits themselves."""
    from engine.wire import curve

    if len(public) == 2 * curve.KEY_BYTES and not os.path.lexists(public):
        try:
            return curve.parse_key(f"engine-public 1 x {public.lower()}", "public")
        except curve.Malformed:
            raise UsageError(f"{public} is neither a file nor a public key.") from None
    try:
        return curve.parse_key(curve.read_public(public), "public")
    except curve.Malformed as error:
        raise UsageError(f"{public} is no public key: {error}.") from None


def _changed(folder: str, change: Callable[[dict[str, Allowed]], None]) -> None:
    """Write the list anew; what people wrote into it stays, but for the lines that change."""
    from engine.storage.files import DirectoryLock
    from engine.wire import curve

    curve.check_folder(folder)
    path = os.path.join(folder, curve.ALLOWED)
    with DirectoryLock(folder):
        text = curve.read_public(path) if os.path.lexists(path) else HEAD
        try:
            before = curve.parse_allowed(text)
        except curve.Malformed as error:
            raise RefusedError(f"{path}: {error}.") from None
        after = dict(before)
        change(after)
        lines = []
        for line in text.removesuffix("\n").split("\n"):
            words = line.split(" ")
            known = not line.startswith("#") and len(words) > 1 and words[1] in before
            lines.append(str(after[words[1]]) if known else line)
        lines += [str(entry) for key, entry in after.items() if key not in before]
        _write(path, "".join(f"{line}\n" for line in lines).encode(), 0o600)


def _write(path: str, data: bytes, mode: int) -> None:
    from engine.storage.files import write_atomically

    try:
        write_atomically(path, data, mode=mode)
    except OSError as error:
        raise EngineError(f"{path} cannot be written: {error.strerror}.") from None


def _plain(entry: Allowed) -> dict[str, Any]:
    return {**entry._asdict(), "at": list(entry.at)}


def _said(flags: Namespace, entry: Allowed) -> None:
    if flags.json:
        shown({**_plain(entry), "error": None})
    else:
        print(entry)


def user(argv: list[str]) -> int:
    """who may use the gateway for Redis clients: add, remove, list"""
    from engine_cmd import keys_user

    code: int = keys_user.main(argv)
    return code


VERBS = {"new": new, "allow": allow, "revoke": revoke, "list": list_, "user": user}
KEYS = Family("keys", EXAMPLES, VERBS)
main = KEYS.main
