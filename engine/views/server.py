"""The view service's process: the machine and a listener."""

from __future__ import annotations

import random

from engine.contract import Server
from engine.runtime.service import new_incarnation, run
from engine.runtime.world import SocketWorld
from engine.views.machine import Settings, ViewService
from engine.wire.endpoint import Listener

ROLES = ("client", "server")


def serve(listen: str, *, token: str | None = None, as_json: bool = False) -> None:
    """Serve until a signal ends it; views are in memory only. RefusedError, UsageError.

    `token` is the path of the token file, for TCP.
    """
    listener = Listener(listen, token=token, roles=ROLES)
    world = SocketWorld(listener, role="server")
    try:
        machine = ViewService(Settings(), random.Random(new_incarnation()))
        run(Server(machine, world), world, "views are told", listener.address, as_json)
    finally:
        world.close()
