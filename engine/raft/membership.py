"""Who belongs to a group, and whether some of them are enough.

A `Configuration` is the content of an entry; a member goes by the last one in its log, committed or
not (Raft, 6). A change of one voter is made in one step: any majority before it and any after it
have a member in common. A greater one goes through a joint configuration, in which every decision
needs a majority of the old voters and one of the new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.contract import PEER, Link, peer
from engine.record import Record
from engine.wire.codec import decode, encode, message

VOTER = "voter"
LEARNER = "learner"
"""Has the log, and no vote."""
JOINING = "joining"
"""A learner that becomes a voter when it has caught up."""
LEAVING = "leaving"
"""A voter of the old half of a joint configuration alone."""

_KIND = 140


class Member(Record):
    """A member and where it is reached. `id` is never used again for another one."""

    id: int
    address: str
    role: str


@message(_KIND)
class Configuration(Record):
    """All members by their ids. `outgoing` are the voters before, while a joint one is in force."""

    members: tuple[Member, ...] = ()
    outgoing: tuple[int, ...] = ()

    @property
    def voters(self) -> tuple[int, ...]:
        return tuple([member.id for member in self.members if member.role == VOTER])

    @property
    def joint(self) -> bool:
        return bool(self.outgoing)

    def member(self, number: int) -> Member | None:
        return next((member for member in self.members if member.id == number), None)


def pack(configuration: Configuration) -> bytes:
    """As the body of an entry."""
    return encode(configuration)[1]


def unpack(body: bytes) -> Configuration:
    """`engine.wire.codec.WireError` if it is none; no bytes are the one without members."""
    configuration: Configuration = decode(_KIND, body) if body else Configuration()
    return configuration


def founders(addresses: dict[int, str]) -> Configuration:
    """The first configuration of a group: all of these vote."""
    members = [Member(number, address, VOTER) for number, address in sorted(addresses.items())]
    return Configuration(tuple(members))


def target(now: Configuration, wanted: Iterable[tuple[int, str, bool]]) -> Configuration:
    """The configuration to propose so that these (id, address, votes) become the members.

    Voters that are no members yet begin by learning.
    """
    members = []
    for number, address, votes in sorted(wanted):
        known = now.member(number)
        learns = known is None or known.role == JOINING
        role = (JOINING if learns else VOTER) if votes else LEARNER
        members.append(Member(number, address, role))
    return between(now, Configuration(tuple(members)))


def between(now: Configuration, then: Configuration) -> Configuration:
    """`then`, or the joint configuration on the way to it if more than one voter changes."""
    before, after = set(now.voters), set(then.voters)
    if len(before ^ after) <= 1:
        return then
    stay = {member.id for member in then.members}
    leave = [
        member._replace(role=LEAVING)
        for member in now.members
        if member.role == VOTER and member.id not in stay
    ]
    members = sorted([*then.members, *leave])
    return Configuration(tuple(members), now.voters)


def settled(joint: Configuration) -> Configuration:
    """What follows a joint configuration: its new half alone."""
    return Configuration(tuple([m for m in joint.members if m.role != LEAVING]))


def promoted(now: Configuration, number: int) -> Configuration:
    """With this learner as a voter."""
    return Configuration(
        tuple([m._replace(role=VOTER) if m.id == number else m for m in now.members])
    )


class Membership:
    """The configurations of a log: the one at its base, and those in its entries.

    `me` is this member, which need not be in any of them.
    """

    def __init__(self, me: int, base: Configuration) -> None:
        self.me = me
        self._history: list[tuple[int, Configuration]] = [(0, base)]
        self._adopt()

    @property
    def index(self) -> int:
        """Of the entry with the configuration in force; 0 if it came with the base."""
        return self._history[-1][0]

    def index_before(self, index: int) -> int:
        """Of the entry with the configuration in force just before this one."""
        return next(i for i, _ in reversed(self._history) if i < index)

    def append(self, index: int, configuration: Configuration) -> None:
        self._history.append((index, configuration))
        self._adopt()

    def truncate(self, first: int) -> None:
        """Entries from this index on are gone, and what they said."""
        while self._history[-1][0] >= first and len(self._history) > 1:
            self._history.pop()
        self._adopt()

    def compact(self, index: int) -> None:
        """Entries up to this index are in a snapshot."""
        self._history = [(0, self.at(index)), *(h for h in self._history if h[0] > index)]
        self._adopt()

    def reset(self, base: Configuration) -> None:
        self._history = [(0, base)]
        self._adopt()

    def at(self, index: int) -> Configuration:
        """The one in force at this index."""
        return next(c for i, c in reversed(self._history) if i <= index)

    def at_address(self, link: Link) -> int:
        """The member at the other end of a connection that we dialed; 0 if it is none."""
        if link.role != PEER:
            return 0
        return next((m.id for m in self.now.members if m.address == link.principal), 0)

    @property
    def stranger(self) -> bool:
        """No group is known yet."""
        return not self.now.members

    def may_lead(self, commit: int) -> bool:
        """Whether this member votes by a configuration that may be the one decided on. One that is
        removed has to lead until that is decided, if nobody else has all (thesis, 4.2.2)."""
        return self.votes or any(
            self.me in (*old.voters, *old.outgoing)
            for old in (self.at(commit), *(c for i, c in self._history if i > commit))
        )

    def _adopt(self) -> None:
        self.now = now = self._history[-1][1]
        self.voters = now.voters
        self.outgoing = now.outgoing
        self.electors = tuple(sorted({*self.voters, *self.outgoing}))
        """All who vote, each once."""
        self.votes = self.me in self.electors
        self.links = {member.id: peer(member.address) for member in now.members}
        self.others = tuple([member.id for member in now.members if member.id != self.me])

    def enough(self, agreeing: Callable[[int], bool]) -> bool:
        """Whether those who agree decide: a majority, in each half of a joint configuration."""
        return all(
            2 * sum(map(agreeing, half)) > len(half)
            for half in (self.voters, self.outgoing)
            if half
        ) and bool(self.voters)

    def reached(self, value: Callable[[int], int]) -> int:
        """The greatest number that a deciding part of the voters has reached; 0 without voters."""
        if not self.voters:
            return 0
        lows = [
            sorted(map(value, half), reverse=True)[len(half) // 2]
            for half in (self.voters, self.outgoing)
            if half
        ]
        return min(lows)
