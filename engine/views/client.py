"""Asking for the view, and pinging by hand: `Clerk` decides, `Views` is what programs call."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic_ns
from typing import Any

from engine.calls import Call
from engine.contract import Link, Nanos
from engine.runtime.caller import Caller, Client
from engine.views.messages import Get, Ping, View

__all__ = ["View", "ViewCall", "Views"]


class ViewCall(Call):
    """A question to the view service at `address`, asked again until it is answered."""

    def __init__(
        self, address: str, question: Get | Ping, patience: Nanos | None, up: set[str]
    ) -> None:
        super().__init__(patience, up)
        self._address, self._question = address, question

    def ask(self, now: Nanos) -> None:
        self.say(self._address, self._question, harmless=isinstance(self._question, Get))

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        if isinstance(message, View) and message.asked == self._question.asked:
            self.finish(message)

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        if up:
            self.ask_at(now)

    def silence(self) -> str:
        return f"No answer from the view service at {self._address}"


class Views(Client):
    """A connection to a view service; for one thread, and a context manager.

    `timeout` in seconds, None to wait for ever. Methods raise ConnectionFailed (nobody there),
    OutcomeUnknown (a ping without an answer) or RefusedError. `role` "server" is needed to ping.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = 10.0,
        token: str | None = None,
        via: Mapping[str, str] | None = None,
        role: str = "client",
    ) -> None:
        self._address = address
        self._life = monotonic_ns()
        self._up: set[str] = set()
        super().__init__(Caller(timeout=timeout, token=token, via=via, role=role))

    def get(self) -> View:
        """The present view; its number is 0 before there is any."""
        return self._run(Get(monotonic_ns()))

    def ping(self, server: str, number: int) -> View:
        """One ping of the server that is known by this address, which acts on view `number`."""
        return self._run(Ping(monotonic_ns(), server, self._life, number))

    def _run(self, question: Get | Ping) -> View:
        call = ViewCall(self._address, question, self._caller.patience, self._up)
        view: View = self._caller.run(call)
        return view
