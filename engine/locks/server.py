"""A lock server's process: the machine, a listener, and a connection to the backup."""

from __future__ import annotations

import random
from collections.abc import Mapping

from engine.contract import Server
from engine.locks.machine import BACKUP, PRIMARY, LockServer, Settings
from engine.runtime.service import new_incarnation, run
from engine.runtime.world import SocketWorld
from engine.wire.endpoint import Listener

__all__ = ["BACKUP", "PRIMARY", "serve"]

ROLES = ("client", "server")


def serve(
    role: str,
    listen: str,
    backup: str = "",
    *,
    token: str | None = None,
    via: Mapping[str, str] | None = None,
    as_json: bool = False,
) -> None:
    """Serve as `role` (`PRIMARY` or `BACKUP`) until a signal ends it; state is in memory only.

    `backup` is the backup's address, for the primary: without one it is alone from the start.
    `token` is the path of the token file for TCP, `via` other ways to addresses. RefusedError,
    UsageError.
    """
    incarnation = new_incarnation()
    listener = Listener(listen, token=token, roles=ROLES)
    world = SocketWorld(listener, role="server", incarnation=incarnation, token=token, via=via)
    try:
        machine = LockServer(Settings(role, backup), random.Random(incarnation))
        run(Server(machine, world), world, f"lock {role} serves", listener.address, as_json)
    finally:
        world.close()
