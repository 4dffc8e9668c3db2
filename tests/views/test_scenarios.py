"""Golden scripts for the view service; their form is in `scripts`.

A view is printed whenever the service goes on to it: number, primary, backup. Commands:

    NAME pings NUMBER           once; prints what it is told. `known`: the number it was last told
    rounds N NAME=NUMBER…       each pings every interval, N times; what they are told is not shown
    NAME starts                 again: as another life, which knows no view
    NAME copy N                 its N-th ping arrives again
    get                         somebody asks for the view
    tick SECONDS                time passes              sleeps SECONDS    the service does nothing
    state                       whether the view is acknowledged, and its backup ready
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from scripts import TURNS_MAX, command, hold, overslept, scenarios

from engine.contract import SECOND, Event, Link, Received
from engine.views.machine import Settings, ViewService
from engine.views.messages import PING_INTERVAL, Get, Ping, View

SCENARIOS = scenarios(__file__)


class Views:
    """The view service, and whoever pings it."""

    def __init__(self) -> None:
        self.now = 0
        self.service = ViewService(Settings(), random.Random(1))
        self.wake_at: int | None = None
        self.shown = 0
        self.lives: dict[str, int] = {}
        self.known: dict[str, int] = {}
        self.pings: dict[str, list[Ping]] = {}
        self.told: View | None = None

    def run(self, line: str) -> list[str]:
        words = line.split()
        if len(words) > 1 and words[1] in ("pings", "starts", "copy"):
            words[:2] = words[1], words[0]
        printed: list[str] = command(self, words[0])(*words[1:])
        return printed

    def turn(self, *events: Event) -> list[str]:
        """What changed."""
        self.service.step(self.now, [*overslept(self.now, self.wake_at), *events])
        self.service.check()
        ready = self.service.ready()
        self.wake_at = ready.wake_at
        for send in ready.now:
            assert isinstance(send.message, View)
            self.told = send.message
        if self.service.number == self.shown:
            return []
        assert self.service.number == self.shown + 1
        self.shown += 1
        return [f"view {self.shown}: {self.members(self.service.primary, self.service.backup)}"]

    def members(self, *names: str) -> str:
        return " ".join(name or "-" for name in names)

    def heard(self, ping: Ping) -> list[str]:
        lines = self.turn(Received(Link("server", 1), ping))
        assert self.told is not None
        assert self.told.asked == ping.asked
        self.known[ping.server] = self.told.number
        return lines

    def ping(self, name: str, number: str) -> list[str]:
        self.now += 1
        acts = self.known.get(name, 0) if number == "known" else int(number)
        ping = Ping(self.now, name, self.lives.setdefault(name, 1), acts)
        self.pings.setdefault(name, []).append(ping)
        return self.heard(ping)

    # --- commands ---

    def do_pings(self, name: str, number: str) -> list[str]:
        lines = self.ping(name, number)
        assert self.told is not None
        members = self.members(self.told.primary, self.told.backup)
        return [*lines, f"{name} is told {self.told.number}: {members}"]

    def do_rounds(self, count: str, *pings: str) -> list[str]:
        lines = []
        for _ in range(int(count)):
            lines += self.do_tick(str(PING_INTERVAL / SECOND))
            for ping in pings:
                lines += self.ping(*ping.split("="))
        return lines

    def do_starts(self, name: str) -> list[str]:
        self.lives[name] += 1
        self.known[name] = 0
        return []

    def do_copy(self, name: str, number: str) -> list[str]:
        return self.heard(self.pings[name][int(number) - 1])

    def do_get(self) -> list[str]:
        lines = self.turn(Received(Link("client", 2), Get(7)))
        assert self.told is not None
        members = self.members(self.told.primary, self.told.backup)
        return [*lines, f"told {self.told.number}: {members}"]

    def do_tick(self, seconds: str) -> list[str]:
        lines, end = [], self.now + round(float(seconds) * SECOND)
        for _ in range(TURNS_MAX):
            if self.wake_at is None or self.wake_at > end:
                self.now = max(self.now, end)
                return lines
            self.now = max(self.now + 1, self.wake_at)
            lines += self.turn()
        raise AssertionError("it never ends")

    def do_sleeps(self, seconds: str) -> list[str]:
        self.now += int(float(seconds) * SECOND)
        return []

    def do_state(self) -> list[str]:
        service = self.service
        acknowledged = "acknowledged" if service.acknowledged else "not acknowledged"
        ready = "ready" if service.ready_backup else "not ready"
        return [f"view {service.number} is {acknowledged}, its backup is {ready}"]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    hold(path, Views())


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 15
