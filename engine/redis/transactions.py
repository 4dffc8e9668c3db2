"""MULTI, EXEC and WATCH: what is queued is done in one transaction of the store, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.kv import commands
from engine.kv.commands import KEYS_ONLY
from engine.kv.requests import READ
from engine.redis import replies, talk
from engine.redis.groups import KEYS_MAX, Task
from engine.redis.replies import Encoded, Problem, Simple
from engine.redis.table import Command

if TYPE_CHECKING:
    from engine.redis.door import Client
    from engine.redis.gateway import Gateway

AT_ONCE = {"multi", "exec", "discard", "watch", "reset", "quit"}
"""Done even while others are queued."""
NOT_QUEUED = {"scan", "keys", "dbsize", "hello", "auth", "script"}
QUEUED_MAX = 4096
QUEUED_BYTES_MAX = 1 << 20
"""Of all arguments: what it writes must fit in one request."""


def queue(client: Client, command: Command, args: Sequence[bytes]) -> None:
    """Problem: then EXEC refuses all of it."""
    assert client.queue is not None
    if command.name in NOT_QUEUED:
        raise Problem(f"ERR '{command.name}' is not done between MULTI and EXEC here")
    client.queue.append((command, args))
    client.queued_bytes += sum(map(len, args))
    client.queued_keys.update(command.keys(args))
    if len(client.queue) > QUEUED_MAX or client.queued_bytes > QUEUED_BYTES_MAX:
        raise Problem("ERR a transaction is not so long here")
    if len(client.queued_keys | client.watched.keys()) > KEYS_MAX:
        raise Problem(f"ERR a transaction has at most {KEYS_MAX} keys here")
    client.stream.reply(replies.QUEUED)


def multi(gateway: Gateway, client: Client, args: Sequence[bytes]) -> None:
    if client.queue is not None:
        gateway.say(client, Problem("ERR MULTI calls can not be nested"))
        return
    _clear(client)
    client.queue = []
    gateway.say(client, Simple("OK"))


def _clear(client: Client) -> None:
    client.queue, client.broken = None, False
    client.queued_bytes, client.queued_keys = 0, set()


def discard(gateway: Gateway, client: Client, args: Sequence[bytes]) -> None:
    if client.queue is None:
        raise Problem("ERR DISCARD without MULTI")
    _clear(client)
    client.watched = {}
    gateway.say(client, Simple("OK"))


def exec_(gateway: Gateway, client: Client, args: Sequence[bytes]) -> None:
    queued, broken, watched = client.queue, client.broken, client.watched
    if queued is None:
        raise Problem("ERR EXEC without MULTI")
    _clear(client)
    client.watched = {}
    if broken:
        raise Problem("EXECABORT Transaction discarded because of previous errors.")
    of_keys = [(command, args) for command, args in queued if command.run is not None]

    def then(said: Any) -> None:
        if type(said) is list:
            gateway.finish(client, _merged(gateway, client, queued, said))
        elif said is None:
            gateway.finish(client, Encoded(replies.no_array(client.stream.resp3)))
        else:
            gateway.finish(client, said)

    client.busy = True
    if of_keys or watched:
        gateway.groups.add(Task(of_keys, watched, then, time.monotonic_ns()))
    else:
        client.busy = False
        gateway.say(client, _merged(gateway, client, queued, []))


def _merged(
    gateway: Gateway, client: Client, queued: Sequence[tuple[Command, Any]], said: list[Any]
) -> list[Any]:
    """Replies of commands without keys between the others."""
    left = iter(said)
    merged: list[Any] = []
    for command, args in queued:
        if command.run is not None:
            merged.append(next(left))
            continue
        try:
            merged.append(talk.talk(gateway, client, command.name, args))
        except Problem as problem:
            merged.append(problem)
    return merged


def watch(gateway: Gateway, client: Client, args: Sequence[bytes]) -> None:
    if client.queue is not None:
        gateway.say(client, Problem("ERR WATCH inside MULTI is not allowed"))
        return
    keys = [key for key in dict.fromkeys(args[1:]) if key not in client.watched]
    if len(client.watched) + len(keys) > KEYS_MAX:
        raise Problem(f"ERR at most {KEYS_MAX} keys are watched here")
    if not keys:
        gateway.say(client, Simple("OK"))
        return

    def seen(answers: list[Any]) -> Any:
        for key, (code, _, _, _, rows) in zip(keys, answers, strict=True):
            assert code == commands.OK
            client.watched[key] = rows[0][3] if rows else 0
        return Simple("OK")

    ranges = [commands.key_range(key, None, 1, KEYS_ONLY) for key in keys]
    gateway.ask(client, READ, ranges, seen)


def unwatch(gateway: Gateway, client: Client, args: Sequence[bytes]) -> None:
    client.watched = {}
    gateway.say(client, Simple("OK"))


COMMANDS: dict[str, Callable[[Gateway, Client, Sequence[bytes]], None]] = {
    "multi": multi,
    "exec": exec_,
    "discard": discard,
    "watch": watch,
    "unwatch": unwatch,
}
