"""Who has said who they are, and what they may do: for a gateway with users.

Whoever has not is a guest: the kernel hands over each of their commands and takes only short ones,
and they have some seconds. What a connection may do is a function that finds its commands, so that
where there are no users nothing is asked of anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from engine.redis.replies import Problem
from engine.redis.table import Command, find
from engine.redis.users import WRITE, User, UserList

if TYPE_CHECKING:
    from engine.redis.door import Client, Door

AUTH_SECONDS = 10.0
"""That a guest has to say who they are."""
GUESTS_MAX = 1024
"""With so many, whoever has been one for longest has to go."""
WRONG_MAX = 3
"""Wrong secrets of one connection."""
DEFAULT = "default"
"""Whose secret it is if no name comes with it."""

WRONG = "WRONGPASS invalid username-password pair or user is disabled."
NO_AUTH = "NOAUTH Authentication required."
NO_HELLO = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH "
    "<user> <pass> option can be used to authenticate the client and select the RESP protocol "
    "version at the same time"
)


def for_guests(args: Sequence[bytes]) -> Command:
    """As `find`. Problem."""
    command = find(args, scripts=False)
    if "no_auth" not in command.flags:
        raise Problem(NO_AUTH)
    return command


def for_readers(args: Sequence[bytes]) -> Command:
    """As `find`. Whatever touches keys and is not known to read only is refused. Problem."""
    command = find(args, scripts=False)
    touches = command.run is not None or command.first or "movablekeys" in command.flags
    if touches and command.name != "watch" and "readonly" not in command.flags:
        raise Problem(f"NOPERM this user has no permissions to run the '{command.name}' command")
    return command


def who(client: Client) -> str:
    """The name of its user, "" for a guest."""
    if client.user is not None:
        return client.user.name
    return "" if client.find is for_guests else DEFAULT


class Access:
    """Of one door, whose `counts` it counts in."""

    def __init__(self, users: UserList, door: Door) -> None:
        self.users, self._door = users, door
        self.guests: dict[Client, float] = {}
        """Until when each may be one; longest first."""
        self._looked = users.version
        door.counts |= {"wrong_secrets": 0, "dismissed": 0}

    def come(self, client: Client) -> None:
        """Somebody new, or somebody who does not want to be anybody any more."""
        client.user, client.find = None, for_guests
        client.stream.restrict(guest=True, reads_only=True)
        if client in self.guests:
            return  # and has no more time than before
        if len(self.guests) >= GUESTS_MAX:
            self._refuse(next(iter(self.guests)), "crowd")
        self.guests[client] = monotonic() + AUTH_SECONDS

    def gone(self, client: Client) -> None:
        self.guests.pop(client, None)

    def prove(self, client: Client, name: bytes, secret: bytes) -> None:
        """It says that it is this user. Problem; with too many of them it is closed."""
        self.users.fresh()
        if self.users.broken:
            raise Problem("ERR nobody is let in now, for the list of users cannot be read")
        user = self.users.proven(name.decode("latin-1"), secret)
        if user is None:
            client.wrongs += 1
            self._door.counts["wrong_secrets"] += 1
            if client.wrongs >= WRONG_MAX and not client.over:
                client.ending = client.over = True
                self._door.refused("secret")
            raise Problem(WRONG)
        self._let_in(client, user)

    def _let_in(self, client: Client, user: User) -> None:
        self.guests.pop(client, None)
        writes = user.role == WRITE
        client.user, client.find = user, find if writes else for_readers
        client.stream.restrict(guest=False, reads_only=not writes)

    def look(self) -> None:
        """Who has to go: guests who take too long, and whoever is not in the list as they were
        when they came."""
        now = monotonic()
        for client, until in list(self.guests.items()):
            if until > now:
                break
            self._refuse(client, "late")
        self.users.fresh()
        if self._looked == self.users.version or self.users.broken:
            return
        self._looked = self.users.version
        for client in list(self._door.clients.values()):
            user = client.user
            if user is not None and self.users.find(user.name) != user:
                self._door.counts["dismissed"] += 1
                self._door.drop(client)

    def _refuse(self, client: Client, why: str) -> None:
        self._door.refused(why)
        self._door.drop(client)
