"""A store server's process: the machine, a listener, connections to the views and to a backup."""

from __future__ import annotations

import random
from collections.abc import Mapping

from engine.backup.machine import Settings, StoreServer
from engine.contract import Server
from engine.runtime.service import new_incarnation, run
from engine.runtime.world import SocketWorld
from engine.wire.endpoint import Listener

ROLES = ("client", "server")


def serve(
    listen: str,
    views: str,
    *,
    token: str | None = None,
    via: Mapping[str, str] | None = None,
    as_json: bool = False,
) -> None:
    """Serve until a signal ends it, as what the view service at `views` says; memory only.

    The address at which it listens is its name. `token` is the path of the token file for TCP,
    `via` other ways to addresses. RefusedError, UsageError.
    """
    life = new_incarnation()
    listener = Listener(listen, token=token, roles=ROLES)
    world = SocketWorld(listener, role="server", incarnation=life, token=token, via=via)
    try:
        settings = Settings(listener.address, views, life)
        server = Server(StoreServer(settings, random.Random(life)), world)
        run(server, world, "a store server waits for its part", listener.address, as_json)
    finally:
        world.close()
