"""A replica of the store as a process: `engine.raft.replica` with the store behind it."""

from __future__ import annotations

from engine.kv.front import StoreFront
from engine.kv.machine import Machine
from engine.raft.replica import GROUP, Plan
from engine.raft.replica import serve as serve_member


def serve(plan: Plan) -> None:
    """Be a replica until a signal ends it. NotFoundError, RefusedError, UsageError, EngineError."""
    serve_member(plan, StoreFront(Machine(GROUP)))
