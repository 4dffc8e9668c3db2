"""Runs one call at a time on real connections, which stay from one call to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from types import TracebackType
from typing import Any, Protocol, Self

from engine.contract import SECOND, Machine, Nanos, Server
from engine.errors import EngineError, OutcomeUnknown
from engine.runtime.world import SocketWorld


class Runnable(Machine, Protocol):
    """What `Caller.run` runs, until it has an outcome; a `Call`, for one."""

    spoken_to: set[str]

    @property
    def outcome(self) -> Any: ...
    @property
    def handed_over(self) -> bool: ...


class Pending(Machine, Protocol):
    """What `Caller.run_until` runs."""

    @property
    def pending(self) -> bool: ...


class Caller:
    """What the synchronous face of every client stands on; for one thread.

    `timeout` is in seconds, None to wait for ever. `via` and `token` are `SocketWorld`'s.
    """

    def __init__(
        self,
        *,
        timeout: float | None,
        token: str | None = None,
        via: Mapping[str, str] | None = None,
        role: str = "client",
    ) -> None:
        self._timeout = timeout
        self._world = SocketWorld(role=role, token=token, via=via)

    @property
    def patience(self) -> Nanos | None:
        """`timeout` in nanoseconds, as a `Call` takes it."""
        return None if self._timeout is None else int(self._timeout * SECOND)

    def now(self) -> Nanos:
        """The time by which what runs here goes."""
        return self._world.now()

    def run(self, call: Runnable) -> Any:
        """The answer. Raises what the call failed with, or why all whom it asks refuse to talk."""
        server = Server(call, self._world)
        while True:
            wake_at = server.turn()
            if call.outcome is not None:
                break
            error = refused(self._world, call.spoken_to, handed_over=call.handed_over)
            if error is not None:
                raise error
            self._world.wait(wake_at)
        if call.outcome.error is not None:
            raise call.outcome.error
        return call.outcome.answer

    def run_until(
        self, machine: Pending, enough: Callable[[], bool], seconds: float | None = None
    ) -> bool:
        """Turn after turn, `enough` being asked before and after each; False: it is not, after so
        many seconds."""
        server, world = Server(machine, self._world), self._world
        until = None if seconds is None else world.now() + int(seconds * SECOND)
        while not enough():
            wake_at = server.turn()
            if enough():
                break
            if until is not None:
                if world.now() >= until:
                    return False
                wake_at = until if wake_at is None else min(until, wake_at)
            if not machine.pending:
                world.wait(wake_at)
        return True

    def close(self) -> None:
        """Close the connections."""
        self._world.close()


def refused(world: SocketWorld, spoken_to: Set[str], *, handed_over: bool) -> EngineError | None:
    """Why all whom somebody has spoken to refuse to talk to us, if they do."""
    if not spoken_to or not spoken_to <= world.refusals.keys():
        return None
    error = world.refusals[min(spoken_to)]
    if handed_over:
        return OutcomeUnknown(f"{error} An earlier try may have been done.")
    return error


class Client:
    """What the clients of all services are besides: a context manager that owns a `Caller`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
