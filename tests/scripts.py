"""Playing machines by hand: golden scripts, a network that obeys a script, single turns.

A script is a story: a comment that tells it, then blocks of commands, `----`, the exact output, an
empty line. One story a file in `scenarios/` beside its test, named situation_outcome.
`ENGINE_REWRITE=1 pytest tests/AREA/test_scenarios.py` rewrites the outputs: read the diff, and
commit only what you can explain.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from engine.calls import Call
from engine.contract import (
    OVERSLEPT_MIN,
    PEER,
    SECOND,
    Event,
    Link,
    Linked,
    Machine,
    Nanos,
    Overslept,
    Ready,
    Received,
    Send,
    peer,
)
from engine.errors import EngineError
from engine.record import Record
from engine.wire.codec import encode

# --- scripts -------------------------------------------------------------------------------------


class Runner(Protocol):
    """Carries out the commands of one script."""

    def run(self, line: str) -> list[str]:
        """What one command prints."""


def scenarios(test: str) -> list[Path]:
    """The scripts beside this test's file."""
    return sorted((Path(test).parent / "scenarios").glob("*.txt"))


def play(text: str, runner: Runner) -> str:
    """The script with its outputs as they are now."""
    out = []
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        commands = lines[: lines.index("----")] if "----" in lines else lines
        results = [r for c in commands if not c.startswith("#") for r in runner.run(c)]
        asked = any(not c.startswith("#") for c in commands)
        out.append("\n".join([*commands, *(["----", *results] if asked else [])]))
    return "\n\n".join(out) + "\n"


def hold(path: Path, runner: Runner) -> None:
    """The script's outputs are what they were; or, to rewrite them, will be what they are."""
    text = path.read_text()
    played = play(text, runner)
    if os.environ.get("ENGINE_REWRITE"):
        path.write_text(played)
    else:
        assert played == text


def command(runner: Runner, name: str) -> Callable[..., Any]:
    """The method that carries out a command of this name."""
    found: Callable[..., Any] = getattr(runner, "do_" + name.replace("-", "_"))
    return found


def overslept(now: Nanos, wake_at: Nanos | None) -> list[Event]:
    """What a turn begins with, as `engine.contract.Server` has it."""
    if wake_at is None or now - wake_at <= OVERSLEPT_MIN:
        return []
    return [Overslept(now - wake_at)]


# --- a network that obeys ------------------------------------------------------------------------

TURNS_MAX = 1000
"""More turns for one command are a livelock."""


class Letter(Record):
    """Something that one machine said to another, in this life of its."""

    sender: str
    life: int
    receiver: str
    message: Any


class Network:
    """Machines that hear only what the script delivers; subclasses add their service.

    What a machine says to another is a letter with a number, printed when it is said. It waits
    until it is delivered: once or never, late or again. What is said to a client is printed only.

        CLIENT@SERVER VERB WORD…    a new request; `again`: its last one, `again N`: its N-th
        deliver N…                  these letters
        lose N…|all                 these never come
        flow                        all that wait, in order, and what is said because of them
        tick SECONDS                time passes
        sleeps NAME SECONDS         it passes for all but this one, which is stopped, and then wakes
        link NAME PEER up|down      what NAME sees of its connection to PEER
        dies NAME                   letters to it vanish
        quietly COMMAND             prints nothing
        unheard COMMAND             what is said to other machines never comes
    """

    def __init__(self) -> None:
        self.now = 0
        self.machines: dict[str, Machine] = {}
        self.lives: dict[str, int] = {}
        self.wakes: dict[str, int | None] = {}
        self.letters: list[Letter] = []
        self.waiting: list[int] = []
        self.clients: list[str] = []
        self.requests: dict[str, list[Any]] = {}
        self.nodes: list[str] = []
        self.deaf = False

    # --- for subclasses ---

    def request(self, client: int, sequence: int, words: Sequence[str]) -> Any:
        """The message that a client's command stands for."""
        raise NotImplementedError

    def show(self, message: Any) -> str:
        """A message in a few words."""
        raise NotImplementedError

    def intercept(self, name: str, send: Send) -> list[str] | None:
        """What is printed of something said to nobody who is played here."""
        return None

    def add(self, name: str, life: int, machine: Machine) -> list[str]:
        """A machine begins."""
        self.machines[name], self.lives[name] = machine, life
        if name not in self.nodes:
            self.nodes.append(name)
        return self.turn(name)

    def client(self, number: int) -> str:
        """The name of the client with this number, which counts from 1."""
        return self.clients[number - 1]

    # --- turns ---

    def turn(self, name: str, *events: Event) -> list[str]:
        """One turn of a machine, a nanosecond after the last; what it says, as letters."""
        self.now += 1
        machine = self.machines[name]
        machine.step(self.now, [*overslept(self.now, self.wakes.get(name)), *events])
        machine.check()
        ready = machine.ready()
        self.wakes[name] = ready.wake_at
        return [line for send in ready.now for line in self.post(name, send)]

    def post(self, name: str, send: Send) -> list[str]:
        """A machine says something."""
        link, message = send
        intercepted = self.intercept(name, send)
        if intercepted is not None:
            return intercepted
        if link.role == "client":
            return [f"{self.client(link.node)} ← {name}: {self.show(message)}"]
        if self.deaf:
            return []
        receiver = link.principal if link.role == PEER else self.nodes[link.node]
        self.letters.append(Letter(name, self.lives[name], receiver, message))
        self.waiting.append(len(self.letters))
        return [f"{len(self.letters)} {name} → {receiver}: {self.show(message)}"]

    def hand_over(self, number: int) -> list[str]:
        """A letter arrives: at whoever has the name now."""
        letter = self.letters[number - 1]
        if number in self.waiting:
            self.waiting.remove(number)
        if letter.receiver not in self.machines:
            return []
        link = peer(letter.sender)
        if self.is_question(letter.message):
            link = Link("server", self.nodes.index(letter.sender), letter.life)
        return self.turn(letter.receiver, Received(link, letter.message))

    def is_question(self, message: Any) -> bool:
        """Whether this is said by whoever dialed; if not, it goes back to them."""
        raise NotImplementedError

    # --- commands ---

    def run(self, line: str) -> list[str]:
        words = line.split()
        if "@" in words[0]:
            return self.ask(*words[0].split("@"), words[1:])
        printed: list[str] = command(self, words[0])(*words[1:])
        return printed

    def ask(self, client: str, server: str, words: Sequence[str]) -> list[str]:
        if client not in self.clients:
            self.clients.append(client)
        number = self.clients.index(client) + 1
        asked = self.requests.setdefault(client, [])
        if words[0] == "again":
            request = asked[int(words[1]) - 1 if words[1:] else -1]
        else:
            request = self.request(number, len(asked) + 1, words)
            asked.append(request)
        return self.turn(server, Received(Link("client", number), request))

    def do_deliver(self, *numbers: str) -> list[str]:
        return [line for number in numbers for line in self.hand_over(int(number))]

    def do_lose(self, *numbers: str) -> list[str]:
        for number in list(self.waiting) if numbers == ("all",) else map(int, numbers):
            self.waiting.remove(number)
        return []

    def do_flow(self) -> list[str]:
        lines = []
        for _ in range(TURNS_MAX):
            if not self.waiting:
                return lines
            lines += self.hand_over(self.waiting[0])
        raise AssertionError("it never ends")

    def do_tick(self, seconds: str) -> list[str]:
        """Whoever wanted to wake meanwhile does, in order."""
        lines, end = [], self.now + int(float(seconds) * SECOND)
        for _ in range(TURNS_MAX):
            due = [(when, name) for name, when in self.wakes.items() if when is not None]
            when, name = min(due, default=(end + 1, ""))
            if when > end:
                self.now = end
                return lines
            self.now = max(self.now, when)
            lines += self.turn(name)
        raise AssertionError("it never ends")

    def do_sleeps(self, name: str, seconds: str) -> list[str]:
        wake_at, self.wakes[name] = self.wakes[name], None
        lines = self.do_tick(seconds)
        self.wakes[name] = wake_at
        return lines + self.turn(name)

    def do_link(self, name: str, other: str, state: str) -> list[str]:
        return self.turn(name, Linked(peer(other), state == "up"))

    def do_dies(self, name: str) -> list[str]:
        del self.machines[name], self.wakes[name]
        return []

    def do_quietly(self, *words: str) -> list[str]:
        self.run(" ".join(words))
        return []

    def do_unheard(self, *words: str) -> list[str]:
        self.deaf = True
        try:
            return self.run(" ".join(words))
        finally:
            self.deaf = False


# --- single turns --------------------------------------------------------------------------------

Turn = tuple[Nanos, Sequence[Event]]
"""How much later, and what has arrived."""
UNTIL_IT_WAKES: Nanos = -1


def drive(machine: Machine, turns: Iterable[Turn], now: Nanos = 0) -> list[Ready]:
    """What a machine wants after each turn. It keeps its invariants, says only what can be encoded,
    and never wants to wake at once, which would be a loop without a pause."""
    wake_at: Nanos | None = None
    wanted = []
    for later, events in turns:
        if later == UNTIL_IT_WAKES:
            now = now if wake_at is None else wake_at
        else:
            now += later
        machine.step(now, [*overslept(now, wake_at), *events])
        machine.check()
        ready = machine.ready()
        assert ready == Ready(now=ready.now, wake_at=ready.wake_at), "these services only talk"
        for send in ready.now:
            encode(send.message)
        wake_at = ready.wake_at
        assert wake_at is None or wake_at > now, (wake_at, now)
        wanted.append(ready)
    return wanted


class Talk:
    """One call of a client, turn by turn."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.now = 0

    def turn(self, *events: Event, seconds: float = 0) -> list[tuple[str, Any]]:
        """Later, these have arrived: what is said now, and to which address."""
        self.now += int(seconds * SECOND)
        self.call.step(self.now, events)
        self.call.check()
        return [(send.link.principal, send.message) for send in self.call.ready().now]

    def hears(self, address: str, message: Any) -> list[tuple[str, Any]]:
        return self.turn(Received(peer(address), message))

    def sees(self, address: str, *, up: bool) -> list[tuple[str, Any]]:
        return self.turn(Linked(peer(address), up))

    def silence(self, seconds: float) -> list[tuple[str, Any]]:
        """Time passes, and it wakes whenever it wants to; what it says meanwhile."""
        said, end = [], self.now + int(seconds * SECOND)
        for _ in range(TURNS_MAX):
            wake_at = self.call.ready().wake_at
            if wake_at is None or wake_at > end:
                self.now = end
                return said
            self.now = max(self.now, wake_at)
            said += self.turn()
        raise AssertionError("it never ends")

    @property
    def answer(self) -> Any:
        outcome = self.call.outcome
        assert outcome is not None
        assert outcome.error is None, outcome.error
        return outcome.answer

    @property
    def error(self) -> EngineError | None:
        assert self.call.outcome is not None
        return self.call.outcome.error
