"""Redis clients in a replica: to its loop a listener like those of peers, clients and operators.

Plain commands go through `engine.kernels.resp` and are never seen here. Of the others some write
without looking (`direct`), some look first (`groups`), some look at many keys (`scans`), and most
are about the connection (`talk`). The commands of a connection are done one after the other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]

from engine.contract import SECOND, Event, Link, Nanos, Requests
from engine.kernels.resp import Batch, Intake, ProtocolError
from engine.kv.commands import OK, RANGE, TOO_LARGE
from engine.kv.requests import READ, Answered
from engine.raft.machine import NOBODY
from engine.redis import replies, talk, transactions
from engine.redis.access import Access
from engine.redis.courier import Courier
from engine.redis.direct import SHARED, direct
from engine.redis.door import Client, Door
from engine.redis.groups import KEYS_MAX, Groups, Task
from engine.redis.leases import Leases
from engine.redis.lines import words
from engine.redis.replies import REPLY_MAX, TOO_LONG, Encoded, Problem, size
from engine.redis.scans import Scans
from engine.redis.table import Command
from engine.redis.users import UserList

if TYPE_CHECKING:
    from engine.kv.front import StoreFront
    from engine.raft.replica import Replica

ROLE = "redis"
LINK = Link(ROLE)
REQUESTS_MAX = 1000
"""In a frame."""
REQUEST_BYTES = 1 << 19
IDLE_SECONDS = 600.0
"""A session that was not used for so long is not used any more: the store forgets them."""
COMMAND_MAX = 8 << 20
"""Bytes of all arguments: a frame that no replica takes would be in everybody's way. As in
`engine.kernels.resp`."""
LOOK_AGAIN: Nanos = SECOND // 4
"""From one look for those who have to go to the next, where somebody may have to."""
HTTP = (b"GET /", b"POST ", b"PUT /", b"HEAD /", b"DELETE /", b"OPTIONS ", b"CONNECT ", b"PATCH /")
"""What a browser that was led here begins with: it must not be talked into commands."""


class Asked:
    """Some requests of one command, and what is done with all answers, or with a reply instead."""

    __slots__ = ("answers", "many", "then")

    def __init__(self, many: int, then: Callable[[list[Any] | Encoded], None]) -> None:
        self.many, self.then = many, then
        self.answers: list[Any] = []

    def hear(self, raw: bytes) -> None:
        self.answers.append(msgpack.unpackb(raw, use_list=False))
        if len(self.answers) == self.many:
            self.then(self.answers)

    def fail(self, reply: Encoded) -> None:
        if len(self.answers) < self.many:
            self.many = 0
            self.then(reply)


class Gateway:
    """`others` says at which endpoints clients find the members of the group; `token` is the path
    of the token file for those on TCP. `door` makes the door, `users` are those who may come in,
    None for everybody who can reach it. EngineError if it cannot listen."""

    roles = frozenset({ROLE})

    def __init__(
        self,
        address: tuple[str, int],
        others: Callable[[], Mapping[int, str]],
        *,
        token: str | None = None,
        shared: bool = False,
        clients_max: int = 0,
        users: UserList | None = None,
        door: Callable[..., Door] = Door,
    ) -> None:
        self.intake = Intake(replies.explain, os.urandom, REQUESTS_MAX, REQUEST_BYTES, IDLE_SECONDS)
        self.courier = Courier(self.intake, others, token)
        self.leases = Leases(self.intake.call, os.urandom, time.monotonic_ns)
        self.groups = Groups(self.intake.call, self.leases, time.monotonic_ns, wall)
        self.scans = Scans(self)
        self.door = door(
            address, self._come, self.pump, self._gone, shared=shared, clients_max=clients_max
        )
        host, port = self.door.address
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.access = None if users is None else Access(users, self.door)
        self._look_at: Nanos | None = None if self.access is None and door is Door else 0
        self.commands = 0
        """That were not plain."""
        self.replica: Replica | None = None

    def attach(self, replica: Replica) -> None:
        """This is the replica that it serves for."""
        self.replica = self.courier.replica = replica

    @property
    def front(self) -> StoreFront:
        assert self.replica is not None
        front: Any = self.replica.front
        return front  # type: ignore[no-any-return]

    @property
    def member(self) -> int:
        """The number of its replica in the group."""
        return 0 if self.replica is None else self.replica.raft.me

    @property
    def applied(self) -> int:
        return 0 if self.replica is None else self.replica.applied

    @property
    def led(self) -> bool:
        """Somebody leads, as far as this replica knows."""
        return self.replica is not None and self.replica.raft.leader != NOBODY

    # --- as listeners are ------------------------------------------------------------------------

    def pollables(self) -> tuple[Any, ...]:
        return (self.door.fileno(), *self.courier.pollables())

    @property
    def counts(self) -> dict[str, int]:
        return {
            "port": self.door.address[1],
            "clients": len(self.door.clients),
            "commands": self.commands,
            "leases": len(self.leases),
            "revoked": self.leases.revoked,
            **self.door.counts,
            **self.courier.counts,
        }

    @property
    def restless(self) -> bool:
        """Something is due although nothing has arrived."""
        now = time.monotonic_ns()
        for due in (self.leases.until, self._due):
            if due is not None and due <= now:
                return True
        return self.groups.waiting or not self.courier.idle(now)

    @property
    def _due(self) -> Nanos | None:
        """When to look for those who have to go, if there is anybody."""
        return self._look_at if self._look_at is not None and self.door.crowd else None

    @property
    def until(self) -> Nanos | None:
        """When to turn again if nothing arrives."""
        if self.restless:
            return 0
        times = (self.courier.until, self.leases.until, self._due)
        return min([one for one in times if one is not None], default=None)

    @property
    def complaint(self) -> str:
        """What whoever runs it should know."""
        broken = "" if self.access is None else self.access.users.broken
        return f"No Redis client is let in any more: {broken}" if broken else self.door.complaint

    def drain(self, frames: int, size: int) -> list[Event]:
        """What has arrived, as frames of requests if this replica is to answer them."""
        now = time.monotonic_ns()
        self.intake.now, self.intake.birth = now / SECOND, max(self._time(), self.courier.time)
        self.intake.forget = min(IDLE_SECONDS, self.front.machine.limits.horizon / SECOND / 4)
        self.courier.hear(now, self._over)
        self.courier.expire(now, self._over)
        if self._look_at is not None and now >= self._look_at:
            self._look(now)
        self.door.drain(now / SECOND)
        self.leases.look(self.front.machine)
        self.groups.begin()
        local = self.courier.go(now)
        self.door.flush()
        return [Requests(tuple([(LINK, body) for body in local]))] if local else []

    def _time(self) -> Nanos:
        return int(self.front.machine.time)

    def send(self, link: Link, value: Any) -> bool:
        """What our own front says to us."""
        self.courier.take(value, time.monotonic_ns(), self._over)
        self.door.flush()
        return True

    def answers(self, kind: int, messages: list[tuple[Link, bytes]]) -> None:
        """And what it says most: all of one turn."""
        now = time.monotonic_ns()
        for _, body in messages:
            sender, frames = msgpack.unpackb(body, use_list=False)
            self.courier.take(Answered(sender, frames), now, self._over)
        self.door.flush()

    def close(self, linger_ms: int = 0) -> None:
        self.door.close()
        self.courier.close()

    def _over(
        self,
        clients: list[Any],
        calls: list[tuple[Any, Any]],
        left: list[tuple[Any, Batch]],
        reply: bytes,
    ) -> None:
        """A frame was answered, or failed with a reply: calls first, for they hold others up."""
        for who, raw in calls:
            if raw is None:
                who.fail(Encoded(reply))
            else:
                who.hear(raw)
        for client, batch in left:
            client.left = batch
        for client in (*clients, *[client for client, _ in left]):
            self.pump(client)
            self.door.touched(client)

    # --- connections -----------------------------------------------------------------------------

    def _come(self, client: Client) -> None:
        self.courier.dial(time.monotonic_ns())
        if self.access is not None:
            self.access.come(client)

    def _look(self, now: Nanos) -> None:
        """For those who have to go."""
        self._look_at = now + LOOK_AGAIN
        self.door.look(now / SECOND)
        if self.access is not None:
            self.access.look()

    def _gone(self, client: Client) -> None:
        if self.access is not None:
            self.access.gone(client)
        client.queue, client.watched, client.left = None, {}, None

    def pump(self, client: Client) -> None:
        """Do what a connection asks, until something has to be waited for."""
        stream = client.stream
        if client.left is not None and not client.stuffed and not stream.closed:
            self.courier.again(client.left, time.monotonic_ns())
            client.left = None
        while not (client.busy or client.over or stream.closed or client.stuffed):
            try:
                said = stream.next(self.intake)
            except ProtocolError as error:
                self.refuse(client, f"ERR Protocol error: {error}")
                return
            if said is None:
                return
            self._said(client, said)

    def refuse(self, client: Client, why: str) -> None:
        """Nothing that follows makes sense."""
        client.stream.reply(replies.error(why))
        client.ending = client.over = True
        self.door.touched(client)

    def _said(self, client: Client, said: list[bytes] | bytes) -> None:
        if isinstance(said, bytes):
            if client.fresh and said.startswith(HTTP):
                self.door.drop(client)
                return
            line = words(said)
            if line is None:
                self.refuse(client, "ERR Protocol error: unbalanced quotes in request")
                return
            said = line
        client.fresh = False
        if said:
            self.commands += 1
            self._command(client, said)

    def _command(self, client: Client, args: list[bytes]) -> None:
        if args[0].lower() in (b"post", b"host:"):
            self.door.drop(client)
            return
        try:
            if sum(map(len, args)) > COMMAND_MAX:
                raise Problem("ERR the command is longer than the store allows")
            command = client.find(args)
            if client.queue is not None and command.name not in transactions.AT_ONCE:
                transactions.queue(client, command, args)
            elif command.run is not None:
                self._of_keys(client, command, args)
            elif command.name in self.scans.commands:
                client.busy = True
                self.scans.run(client, command.name, args)
            elif command.name in transactions.COMMANDS:
                transactions.COMMANDS[command.name](self, client, args)
            else:
                self.say(client, talk.talk(self, client, command.name, args))
        except Problem as problem:
            if client.queue is not None:
                client.broken = True
            self.say(client, problem)
        client.stream.slow = client.queue is not None

    def _of_keys(self, client: Client, command: Command, args: Sequence[bytes]) -> None:
        found = direct(command.name, args, self.leases, wall())
        if found is not None:
            self.ask(client, found.how, found.requests, found.reply)
            return

        def then(said: Any) -> None:
            self.finish(client, said[0] if type(said) is list else said)

        task = Task([(command, args)], None, then, time.monotonic_ns())
        if len(task.keys) > KEYS_MAX:
            raise Problem(f"ERR '{command.name}' has at most {KEYS_MAX} keys here")
        client.busy = True
        self.groups.add(task)

    # --- for what commands do --------------------------------------------------------------------

    def say(self, client: Client, value: Any) -> None:
        """A reply."""
        client.stream.reply(replies.reply(value, client.stream.resp3))
        self.door.touched(client)

    def ask(
        self,
        client: Client,
        how: int,
        requests: Sequence[Any],
        then: Callable[[list[Any]], Any],
    ) -> None:
        """Ask the store, and reply with what `then` makes of the answers; Problem."""

        def over(answers: list[Any] | Encoded) -> None:
            if isinstance(answers, Encoded):
                self.finish(client, answers)
                return
            try:
                said = then(answers)
            except Problem as problem:
                said = problem
            self.finish(client, said)

        client.busy = True
        self.call(how, requests, over)

    def call(
        self, how: int, requests: Sequence[Any], then: Callable[[list[Any] | Encoded], None]
    ) -> None:
        """Ask the store, as often as it takes: for those that are too many, and, of reads, for
        those whose answers were too long together."""
        found: list[Any] = [None] * len(requests)
        left = list(range(len(requests)))
        room = REPLY_MAX

        def over(answers: list[Any] | Encoded) -> None:
            if isinstance(answers, Encoded):
                then(answers)
                return
            nonlocal room
            room -= sum([size(list(answer)) for answer in answers])
            if room < 0:
                then(Encoded(replies.error(TOO_LONG)))
                return
            cut = []
            for at, answer in zip(left[:SHARED], answers, strict=True):
                found[at] = answer
                if how == READ and cut_short(requests[at], answer):
                    cut.append(at)
            left[:SHARED] = cut
            if left:
                ask()
            else:
                then(found)

        def ask() -> None:
            packed = [msgpack.packb(requests[at]) for at in left[:SHARED]]
            self.intake.call(how, Asked(len(packed), over), packed)

        ask()

    def finish(self, client: Client, said: Any) -> None:
        """Its command is over, with this reply."""
        client.stream.reply(replies.reply(said, client.stream.resp3))
        client.busy = False
        self.pump(client)
        self.door.touched(client)


def cut_short(request: Sequence[Any], answer: Sequence[Any]) -> bool:
    """Those that shared its frame have left no room for its answer."""
    if answer[0] != OK:
        return bool(answer[0] == TOO_LARGE)
    return request[0] == RANGE and answer[2] and not answer[4]


def wall() -> int:
    """Milliseconds, as clients count time."""
    return time.time_ns() // 1_000_000
