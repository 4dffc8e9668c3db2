"""The lab's JunkServer as a real process, and what it and its callers say to each other.

A pure machine (`Handlers`) in the world of every service, started by `engine.faults.cluster`.
Handlers do not wait for each other: one that takes 20 s keeps nobody else from an answer.
"""

# Annotations stay types here, not text: the codec reads them, and text would have to be compiled.
import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.contract import SECOND, Event, Link, Nanos, Ready, Received, Send, Server
from engine.record import Record
from engine.runtime.service import run
from engine.runtime.world import SocketWorld
from engine.wire.codec import Tagged, message
from engine.wire.endpoint import Listener

SLEEP: Nanos = 20 * SECOND


@message(230)
class Request(Record):
    """`number` is the caller's, and comes back with the answer."""

    number: int
    handler: str
    argument: Tagged


@message(231)
class Answer(Record):
    number: int
    result: Tagged


@message(232)
class Number(Record):
    value: int


@message(233)
class Text(Record):
    value: str


@message(234)
class Junk(Record):
    """An argument with a field."""

    x: int


@message(235)
class Pointer(Record):
    """What a pointer to Junk is here: there may be none."""

    to: Junk | None


@message(236)
class JunkReply(Record):
    x: str


@message(237)
class Wrong(Record):
    """There is no such handler, or it takes something else."""

    text: str


@message(238)
class Log(Record):
    """What was handled: the numbers and the texts that came as arguments, and how many requests."""

    numbers: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    handled: int = 0


class Handler(NamedTuple):
    """Takes an argument of this class; answers after so long."""

    takes: type
    work: Callable[[Any], Any]
    takes_time: Nanos = 0


def _number(text: str) -> int:
    """As Go's Atoi with its error ignored: 0 for what is no number."""
    return int(text) if text.isdecimal() and len(text) < 19 else 0


HANDLERS = {
    "number": Handler(Text, lambda text: Number(_number(text.value))),
    "text": Handler(Number, lambda number: Text(f"handler2-{number.value}")),
    "sleep": Handler(Number, lambda number: Number(-number.value), SLEEP),
    "pointer": Handler(
        Pointer, lambda pointer: JunkReply(f"pointer {pointer.to and pointer.to.x}")
    ),
    "value": Handler(Junk, lambda junk: JunkReply(f"no pointer {junk.x}")),
    "length": Handler(Text, lambda text: Number(len(text.value))),
    "letters": Handler(Number, lambda number: Text("y" * number.value)),
}


class Handlers:
    """The machine (`engine.contract.Machine`). A `Log` as a message asks for the log."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._texts: list[str] = []
        self._handled = 0
        self._working: list[tuple[Nanos, Send]] = []
        self._sends: list[Send] = []

    def step(self, now: Nanos, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Received) and isinstance(event.message, Request):
                self._handle(now, event.link, event.message)
            elif isinstance(event, Received) and isinstance(event.message, Log):
                log = Log(tuple(self._numbers), tuple(self._texts), self._handled)
                self._sends.append(Send(event.link, log))
        self._sends += [send for due, send in self._working if due <= now]
        self._working = [(due, send) for due, send in self._working if due > now]

    def ready(self) -> Ready:
        sends, self._sends = tuple(self._sends), []
        return Ready(now=sends, wake_at=min((due for due, _ in self._working), default=None))

    def check(self) -> None:
        """Nothing that could break by itself."""

    def _handle(self, now: Nanos, link: Link, request: Request) -> None:
        handler, argument = HANDLERS.get(request.handler), request.argument
        if handler is None or type(argument) is not handler.takes:
            wrong = Wrong(f"No handler {request.handler!r} takes a {type(argument).__name__}.")
            self._sends.append(Send(link, Answer(request.number, wrong)))
            return
        self._handled += 1
        if isinstance(argument, Number):
            self._numbers.append(argument.value)
        elif isinstance(argument, Text):
            self._texts.append(argument.value)
        answer = Answer(request.number, handler.work(argument))
        self._working.append((now + handler.takes_time, Send(link, answer)))


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--via", action="append", help="not needed: it dials nobody")
    options = parser.parse_args()
    world = SocketWorld(Listener(options.listen, roles=("client",)))
    try:
        run(Server(Handlers(), world), world, "the lab serves", options.listen, options.json)
    finally:
        world.close()


if __name__ == "__main__":
    main()
