"""Golden scripts for the lock servers; their form, and most commands, are in `scripts`.

Clients say `acquire NAME` or `release NAME`. Besides:

    servers             a primary and its backup begin, which remember three clients each
    starts primary      the primary begins again, with nothing, as a new incarnation
    state NAME          what it is, and what it holds
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scripts import Network, hold, scenarios

from engine.contract import Machine
from engine.locks import machine
from engine.locks.machine import BACKUP, PRIMARY, LockServer, Settings
from engine.locks.messages import DONE, Alone, Answer, Applied, Forward, Operation
from engine.sessions import Sessions

SCENARIOS = scenarios(__file__)
CLIENTS_MAX = 3


class Locks(Network):
    """A primary and a backup."""

    def __init__(self) -> None:
        super().__init__()
        self.life = 0

    def do_servers(self) -> list[str]:
        return self.do_starts("backup") + self.do_starts("primary")

    def do_starts(self, name: str) -> list[str]:
        self.life += 1
        settings = Settings(PRIMARY, "backup") if name == "primary" else Settings(BACKUP)
        return self.add(name, self.life, LockServer(settings, random.Random(self.life)))

    def do_state(self, name: str) -> list[str]:
        server: Machine = self.machines[name]
        assert isinstance(server, LockServer)
        held = " ".join(sorted(server.held)) or "nothing"
        return [f"{name} is {server.role}, {server.applied} applied, holds {held}"]

    def request(self, client: int, sequence: int, words: Sequence[str]) -> Any:
        verb, name = words
        return Operation(client, sequence, verb, name)

    def is_question(self, message: Any) -> bool:
        return isinstance(message, Forward | Alone)

    def show(self, message: Any) -> str:
        if isinstance(message, Answer):
            return str(message.changed) if message.status == DONE else message.status
        if isinstance(message, Forward):
            told = (f"{self.client(o.client)} {o.verb} {o.name}" for o in message.operations)
            return f"Forward {message.first}: {', '.join(told)}"
        if isinstance(message, Applied):
            return f"Applied {message.number}"
        return type(message).__name__


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "Sessions", lambda: Sessions(CLIENTS_MAX))
    hold(path, Locks())


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 10
