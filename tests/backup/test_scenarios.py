"""Golden scripts for the store's servers; their form, and most commands, are in `scripts`.

The view service is played by the script. Every row of a table, and every session, is a part of its
own here (`PART_BYTES` is 1), and a server remembers three clients. Clients say `get KEY`, `put KEY
VALUE` or `append KEY VALUE`; what they are told of an operation is its value or its status.

    servers NAME…               servers begin, again or for the first time, with nothing
    view N PRIMARY [BACKUP]     the view from now on, with those in it as they are now alive
    learns NAME…                they are told of it, but in answer to no ping that they remember
    notes NAME…                 they are told of it in answer to their last ping
    settle                      all that is said arrives, pings and their answers as well, until
                                there is nothing more to say; prints what clients are told
    state NAME                  its view, what it acts on and holds, and its data

Pings are not shown, only the number of the view that they say, when it changes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scripts import TURNS_MAX, Network, hold, scenarios

from engine.backup import table
from engine.backup.machine import Settings, StoreServer
from engine.backup.messages import OK, Answer, Applied, Forward, Operation, Part, Taken
from engine.contract import Received, Send, peer
from engine.sessions import Sessions
from engine.views.messages import NOBODY, Ping, View

SCENARIOS = scenarios(__file__)
CLIENTS_MAX = 3
VIEWS = "views"
UNKNOWN = -1
"""A question that nobody asked."""


class Store(Network):
    """Servers, and what a view service says to them."""

    def __init__(self) -> None:
        super().__init__()
        self.life = 0
        self.view = View(0, 0, NOBODY, 0, NOBODY, 0)
        self.pings: dict[str, Ping] = {}

    def do_servers(self, *names: str) -> list[str]:
        lines = []
        for name in names:
            self.life += 1
            self.pings.pop(name, None)
            server = StoreServer(Settings(name, VIEWS, self.life), random.Random(1))
            lines += self.add(name, self.life, server)
        return lines

    def intercept(self, name: str, send: Send) -> list[str] | None:
        ping = send.message
        if not isinstance(ping, Ping):
            return None
        assert send.link == peer(VIEWS)
        before = self.pings.get(name)
        self.pings[name] = ping
        acted = 0 if before is None else before.number
        return [] if ping.number == acted else [f"{name} acts on {ping.number}"]

    def do_view(self, number: str, primary: str, backup: str = NOBODY) -> list[str]:
        lives = self.lives[primary], self.lives.get(backup, 0)
        self.view = View(UNKNOWN, int(number), primary, lives[0], backup, lives[1])
        return []

    def do_learns(self, *names: str) -> list[str]:
        told = Received(peer(VIEWS), self.view)
        return [line for name in names for line in self.turn(name, told)]

    def do_notes(self, *names: str) -> list[str]:
        lines = []
        for name in names:
            view = self.view._replace(asked=self.pings[name].asked)
            lines += self.turn(name, Received(peer(VIEWS), view))
        return lines

    def do_settle(self) -> list[str]:
        lines: list[str] = []
        answered: dict[str, Ping] = {}
        for _ in range(TURNS_MAX):
            if not self.waiting and answered == self.pings:
                return [line for line in lines if "←" in line]
            lines += self.do_flow()
            for name in [n for n in self.machines if answered.get(n) != self.pings[n]]:
                answered[name] = self.pings[name]
                lines += self.do_notes(name)
            answered = {name: ping for name, ping in answered.items() if name in self.machines}
            self.pings = {name: ping for name, ping in self.pings.items() if name in self.machines}
        raise AssertionError("it never ends")

    def do_state(self, name: str) -> list[str]:
        server = self.machines[name]
        assert isinstance(server, StoreServer)
        number, role = server.view.number, "in no part"
        if server.primary:
            role = "primary"
        elif server.backup:
            role = "backup"
        values = " ".join(f"{k}={v}" for k, v in server.table.values.items()) or "nothing"
        acts = f"acts on {server.acts}, holds {server.holds}"
        return [f"{name} is {role} of view {number}, {acts}: {values}"]

    def request(self, client: int, sequence: int, words: Sequence[str]) -> Any:
        verb, key, value = (*words, "")[:3]
        return Operation(client, sequence, verb, key, value)

    def is_question(self, message: Any) -> bool:
        return isinstance(message, Forward | Part)

    def show(self, message: Any) -> str:
        if isinstance(message, Answer):
            return (message.value if message.status == OK else "") or message.status
        if isinstance(message, Forward):
            told = (f"{self.client(o.client)} {' '.join(o[2:])}" for o in message.operations)
            text = f"{message.first}: {', '.join(told).rstrip()}"
        elif isinstance(message, Applied):
            text = f"{message.number}"
        elif isinstance(message, Taken):
            text = f"{message.part}"
        else:
            assert isinstance(message, Part)
            rows = [f"{key}={value}" for key, value in message.rows]
            rows += [f"{self.client(s.client)} was told {s.sequence}" for s in message.sessions]
            last = f", the last: as of {message.number}" if message.last else ""
            text = f"{message.part}: {' '.join(rows) or 'nothing'}{last}"
        return f"view {message.view} {type(message).__name__} {text}"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "PART_BYTES", 1)
    monkeypatch.setattr(table, "Sessions", lambda: Sessions(CLIENTS_MAX))
    hold(path, Store())


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 12
