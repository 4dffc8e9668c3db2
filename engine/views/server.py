"""The view service's process: the machine and a listener."""

from __future__ import annotations

import random

from engine.contract import Server
from engine.runtime.service import new_incarnation, run
from engine.runtime.world import SocketWorld
from engine.views.machine import Settings, ViewService
from engine.wire.endpoint import Listener

ROLES = ("client", "server")


def serve(listen: str, *, token: str | None = None) -> None:
    """Serve until a signal ends it; views are in memory only. RefusedError, UsageError.

    `token` is the path of the token file, for TCP.
    """
    world = SocketWorld(Listener(listen, token=token, roles=ROLES), role="server")
    try:
        machine = ViewService(Settings(), random.Random(new_incarnation()))
        assert world.listener is not None
        run(Server(machine, world), world, f"views are told at {world.listener.address}")
    finally:
        world.close()
