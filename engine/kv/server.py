"""A replica of the store as a process: `engine.raft.replica` with the store behind it."""

from __future__ import annotations

import os
from collections.abc import Callable

from engine.errors import RefusedError
from engine.kv.front import StoreFront
from engine.kv.machine import Machine
from engine.raft.replica import GROUP, Gateway, Plan
from engine.raft.replica import serve as serve_member
from engine.storage.files import write_atomically

QUARANTINE = "quarantine"
"""A file in the folder of a replica that is broken: why."""


def serve(plan: Plan, gate: Callable[[], Gateway] | None = None) -> None:
    """Be a replica until a signal ends it, with the gateway that `gate` makes, if there is one.
    NotFoundError, RefusedError, UsageError, EngineError."""
    name = os.path.join(plan.folder, QUARANTINE)
    if os.path.lexists(name):
        with open(name, encoding="utf-8", errors="replace") as file:
            raise _broken(plan.folder, file.read(1000).strip())

    def quarantine(why: str) -> None:
        write_atomically(name, why.encode() + b"\n", mode=0o600)
        raise _broken(plan.folder, why)

    serve_member(plan, StoreFront(Machine(GROUP), quarantine), gate)


def _broken(folder: str, why: str) -> RefusedError:
    return RefusedError(
        f"{folder} is in quarantine: {why}. Replace it (`engine kv member replace`), and keep the "
        "folder if you want to know more."
    )
