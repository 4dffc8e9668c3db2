"""A request until its outcome is known: whom to ask, when to ask again, when to give up.

A `Call` is a machine like any other (`engine.contract`), so a client can be run on real connections
(`engine.runtime.caller`) and in the simulator alike. A service's `client.py` says, in a subclass,
whom to ask and what an answer means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.contract import SECOND, Event, Link, Linked, Nanos, Ready, Received, Send, peer
from engine.errors import ConnectionFailed, EngineError, OutcomeUnknown, UsageError
from engine.record import Record


class Outcome(Record):
    """How a call ended: with an answer, or with the error that its caller gets."""

    answer: Any = None
    error: EngineError | None = None


class Call:
    """Asks until it is answered or `patience` is over, which begins with the first turn.

    Subclasses say whom to ask (`ask`), what an answer means (`take`), what a coming or going peer
    means (`linked`), and how a failure reads (`silence`). `up` is the client's own set of the peers
    that it is linked to, from one call to the next.

    Without an answer in time, a request that was handed to somebody ends as `OutcomeUnknown`, and
    one that never was as `ConnectionFailed`: then it was certainly not carried out.
    """

    retry: Nanos = 100_000_000
    """From one `ask` to the next, if nothing is heard."""

    def __init__(self, patience: Nanos | None, up: set[str]) -> None:
        self.outcome: Outcome | None = None
        self.up = up
        self.spoken_to: set[str] = set()
        """Whom it has said anything to."""
        self._patience, self._deadline = patience, patience
        self.handed_over = False
        """Somebody may have done it, or may yet."""
        self._began = False
        self._ask_at: Nanos = 0
        self._sends: list[Send] = []

    # --- for subclasses --------------------------------------------------------------------------

    def ask(self, now: Nanos) -> None:
        """Say it, for the first time or again."""
        raise NotImplementedError

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        """Somebody said something; `finish` if it is the answer."""
        raise NotImplementedError

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        """A peer came or went."""

    def silence(self) -> str:
        """Who did not answer, as the beginning of a sentence."""
        raise NotImplementedError

    def say(self, address: str, message: Any, *, harmless: bool = False) -> None:
        """`harmless`: that it arrives changes nothing."""
        self.spoken_to.add(address)
        self.handed_over |= address in self.up and not harmless
        self._sends.append(Send(peer(address), message))

    def ask_at(self, when: Nanos) -> None:
        """The next `ask`, instead of after `retry`."""
        self._ask_at = when

    def finish(self, answer: Any) -> None:
        self.outcome = Outcome(answer)

    def fail(self, error: EngineError) -> None:
        self.outcome = Outcome(error=error)

    # --- the machine -----------------------------------------------------------------------------

    def step(self, now: Nanos, events: Sequence[Event]) -> None:
        """Take in what arrived, then ask if it is time. Does nothing once there is an outcome."""
        if not self._began:
            self._began = True
            self._ask_at = now
            self._deadline = None if self._patience is None else now + self._patience
        for event in events:
            if isinstance(event, Linked):
                self._follow(event)
            if self.outcome is not None:
                continue
            if isinstance(event, Received):
                self.take(now, event.link, event.message)
            elif isinstance(event, Linked):
                self.linked(now, event.link, event.up)
        if self.outcome is not None:
            return
        if self._deadline is not None and now >= self._deadline:
            self._give_up()
        elif now >= self._ask_at:
            self._ask_at = now + self.retry
            self.ask(now)

    def _follow(self, event: Linked) -> None:
        if event.up:
            self.up.add(event.link.principal)
        else:
            self.up.discard(event.link.principal)

    def _give_up(self) -> None:
        waited = f"{self.silence()} (waited {(self._patience or 0) / SECOND:g} s)"
        if self.handed_over:
            self.fail(OutcomeUnknown(f"{waited}: it may have been done, or may yet be."))
        else:
            self.fail(ConnectionFailed(f"{waited}: nothing was done."))

    def ready(self) -> Ready:
        sends, self._sends = tuple(self._sends), []
        deadlines = (self._ask_at, self._ask_at if self._deadline is None else self._deadline)
        return Ready(now=sends, wake_at=None if self.outcome is not None else min(deadlines))

    def check(self) -> None:
        """Nothing that could break by itself."""


def check_text(what: str, text: str, characters_max: int) -> None:
    """UsageError for a name or value that is too long, or that no message can hold."""
    if len(text) > characters_max:
        raise UsageError(f"{what} has at most {characters_max:,} characters, not {len(text):,}.")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"{what} is text; {text[:40]!a} cannot be written as UTF-8.") from None
