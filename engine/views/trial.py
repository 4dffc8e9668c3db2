"""The view service's proof: the service among servers that come and go, in the simulator.

The servers here hold no data, but say truly whether they would: a primary that has it fills its
backup after a while, if both are alive and in the view then. Judged is every step from view to
view, by what was really pinged and who really held the data, and that the service does not stand
still while somebody could serve.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from engine.contract import SECOND, Event, Linked, Nanos, Ready, Received, Send, peer
from engine.sim.cluster import PlannedCluster, Process
from engine.sim.experiment import Experiment, Violation
from engine.sim.planting import Patch
from engine.sim.timeline import MILLISECOND
from engine.views.machine import Settings, ViewService
from engine.views.messages import NOBODY, PING_INTERVAL, Ping, View

VIEWS = "views"
CALM: Nanos = 6 * SECOND
"""Accidents end here."""
END: Nanos = 12 * SECOND
"""By then whoever could serve does."""
EVENTS_MAX = 20_000
"""More turns in one run are a livelock."""

SHAPE: dict[str, Sequence[Any]] = {
    "servers": (1, 2, 3, 5),
    "fill": (MILLISECOND, 100 * MILLISECOND, 800 * MILLISECOND),
}
FAULTS: dict[str, Sequence[Any]] = {
    "loss": (0.0, 0.02, 0.2),
    "duplicate": (0.0, 0.05, 0.3),
    "reorder": (0.0, 0.05, 0.5),
    "delay": (MILLISECOND // 10, MILLISECOND, 60 * MILLISECOND),
    "kill": (0, 2, 6),
    "leave": (0, 1, 2),
    "pause": (0, 1, 4),
    "cut": (0, 1, 4),
}
STAGED = {"servers": 2}


class Pinger:
    """A server as the view service knows it. `holds` is the view whose data it has, 0 if none;
    `noted` is the last view that the service is known to know that this acts on."""

    def __init__(self, name: str, life: int) -> None:
        self.name, self.life = name, life
        self.view = View(0, 0, NOBODY, 0, NOBODY, 0)
        self.holds = self.acts = self.noted = 0
        self._pinged: dict[int, int] = {}
        self._ping_at: Nanos = 0
        self._sends: list[Send] = []

    def step(self, now: Nanos, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Linked) and event.up:
                self._ping_at = 0
            elif isinstance(event, Received):
                self._viewed(event.message)
        if now >= self._ping_at:
            self._ping_at = now + PING_INTERVAL
            self._pinged[now] = self.acts
            self._sends.append(Send(peer(VIEWS), Ping(now, self.name, self.life, self.acts)))

    def ready(self) -> Ready:
        sends, self._sends = tuple(self._sends), []
        return Ready(now=sends, wake_at=self._ping_at)

    def check(self) -> None:
        assert self.acts <= self.view.number, (self.acts, self.view)

    @property
    def leads(self) -> bool:
        """Whether it serves as primary."""
        ours = (self.view.primary, self.view.primary_life) == (self.name, self.life)
        return ours and self.holds == self.noted == self.view.number

    def fill(self) -> None:
        """The backup has been sent everything."""
        self.holds = self.acts = self.view.number

    def _viewed(self, view: View) -> None:
        if view.number > self.view.number:
            self._change(view)
        if self._pinged.pop(view.asked, 0) == view.number == self.view.number:
            self.noted = view.number

    def _change(self, view: View) -> None:
        self.view = view
        self._ping_at = 0
        first = view.number == 1
        if (view.primary, view.primary_life) == (self.name, self.life) and (self.holds or first):
            self.fill()
            return
        self.holds = 0
        if (view.backup, view.backup_life) != (self.name, self.life):
            self.acts = view.number


class ViewCluster(PlannedCluster):
    """The service, and servers that ping it."""

    def __init__(self, seed: int, **how: Any) -> None:
        super().__init__(seed, SHAPE, FAULTS, STAGED, **how)
        rng, plan = self.timeline.rng, self.plan
        self.names = [f"server {number}" for number in range(1, plan["servers"] + 1)]
        self.before = View(0, 0, NOBODY, 0, NOBODY, 0)
        self.pinged: set[tuple[str, int, int]] = set()
        """(server, life, number) that was said to the service at any time."""
        self.gone: set[str] = set()
        self.acting: dict[int, set[str]] = {}
        self._begin_service()
        for name in self.names:
            self.timeline.after(rng.randrange(100 * MILLISECOND), self._begin, name)
        self._plan_accidents()

    def _begin_service(self) -> None:
        self.service = ViewService(Settings(), self.timeline.rng)
        self.start(VIEWS, "server", self.service).after_turn = self._look

    def _begin(self, name: str) -> None:
        if self.alive(name) is None and name not in self.gone:
            pinger = Pinger(name, self.timeline.now + 1)
            self.start(name, "server", pinger).after_turn = lambda: self._follow(pinger)

    def kill(self, process: Process) -> None:
        """Its name comes back as another life."""
        super().kill(process)
        if process.name in self.names and process.name not in self.gone:
            self.timeline.after(self.timeline.spread(300 * MILLISECOND), self._begin, process.name)

    # --- servers ---------------------------------------------------------------------------------

    def _follow(self, pinger: Pinger) -> None:
        """Note what it will have pinged, and have it fill its backup."""
        self.pinged.add((pinger.name, pinger.life, pinger.acts))
        view = pinger.view
        if not pinger.leads:
            return
        acting = self.acting.setdefault(view.number, set())
        acting.add(f"{pinger.name} of life {pinger.life}")
        if self.beyond:
            self._check_alone()
        if len(acting) > 1:
            raise Violation(f"primaries of view {view.number}: {' and '.join(sorted(acting))}")
        if view.backup != NOBODY:
            self.timeline.after(self.plan["fill"], self._fill, pinger)

    def _check_alone(self) -> None:
        """When nobody is cut off or stopped, only one leads."""
        machines = [p.machine for p in self.processes.values() if p.alive]
        leading = [m for m in machines if isinstance(m, Pinger) and m.leads]
        if len(leading) > 1:
            told = " and ".join(f"{m.name} leads view {m.view.number}" for m in leading)
            raise Violation(f"at the same time {told}")

    def _fill(self, primary: Pinger) -> None:
        process = self.alive(primary.view.backup)
        here = self.processes[primary.name].machine is primary and primary.leads
        if process is None or not here:
            return
        backup = process.machine
        assert isinstance(backup, Pinger)
        same = (backup.view.number, backup.life) == (primary.view.number, primary.view.backup_life)
        if same and backup.holds != backup.view.number:
            self.timeline.note(backup.name, "is filled")
            self.seen["filled"] += 1
            backup.fill()
            process.wake()

    # --- accidents -------------------------------------------------------------------------------

    def _plan_accidents(self) -> None:
        rng, later = self.timeline.rng, self.timeline.after
        accidents = {
            "kill": self._kill_one,
            "leave": self._leave,
            "pause": self._pause,
            "cut": self._cut_off,
        }
        for name, accident in accidents.items():
            for _ in range(self.plan[name]):
                later(rng.randrange(rng.choice((CALM, CALM // 10))), accident)
        if self.beyond == "amnesia":
            later(500 * MILLISECOND, self._forget)
        later(CALM, self._calm)

    def _some(self) -> str:
        return self.timeline.rng.choice(
            [*self.names, self.service.primary or self.names[0], self.service.backup or VIEWS]
        )

    def _kill_one(self) -> None:
        process = self.alive(self._some())
        if process is not None and process.name != VIEWS:
            self.kill(process)

    def _leave(self) -> None:
        """For good."""
        process = self.alive(self._some())
        if process is not None and process.name != VIEWS:
            self.gone.add(process.name)
            self.kill(process)

    def _pause(self) -> None:
        if (process := self.alive(self._some())) is not None:
            self.seen["paused"] += 1
            process.pause(self.timeline.rng.randrange(2 * SECOND))

    def _cut_off(self) -> None:
        rng = self.timeline.rng
        name = self._some()
        if name == VIEWS:
            return
        direction = rng.randrange(3)
        if direction != 1:
            self.cut([name], [VIEWS])
        if direction != 2:
            self.cut([VIEWS], [name])
        self.timeline.after(rng.randrange(2 * SECOND), self.heal)

    def _forget(self) -> None:
        self.kill(self.processes[VIEWS])
        self.before = View(0, 0, NOBODY, 0, NOBODY, 0)
        self._begin_service()
        self._begin("newcomer")

    def _calm(self) -> None:
        self.heal()
        self.network.heal()

    # --- judging ---------------------------------------------------------------------------------

    def run(self) -> None:
        while self.timeline.now < END and self.timeline.step():
            if self.events > EVENTS_MAX:
                raise Violation(f"busy for ever at {self.timeline.now // MILLISECOND} ms")
        self._check_progress()
        self.seen["views"] += self.service.number

    def _look(self) -> None:
        """After every turn of the service: was the step to this view right?"""
        service, old = self.service, self.before
        lives = service._lives
        if service.number == old.number:
            # Only the primary of view 1 may start again in it, before it has served.
            life = lives.get(old.primary, 0)
            if life != old.primary_life and old.number > 1:
                raise Violation(f"{old.primary} has started again, and still leads {old.number}")
            self.before = old._replace(primary_life=life)
            return
        new = self.before = View(
            0,
            service.number,
            service.primary,
            lives.get(service.primary, 0),
            service.backup,
            lives.get(service.backup, 0),
        )
        self.timeline.note(VIEWS, "goes on to", new)
        if new.number != old.number + 1:
            raise Violation(f"from view {old.number} to {new.number}")
        if old.number == 0:
            return
        if (old.primary, old.primary_life, old.number) not in self.pinged:
            raise Violation(f"view {old.number} was left before its primary knew it")
        if (new.primary, new.primary_life) == (old.primary, old.primary_life):
            self.seen["backup changed"] += 1
        elif (new.primary, new.primary_life) != (old.backup, old.backup_life):
            raise Violation(f"{new.primary} leads view {new.number} out of nowhere")
        elif (old.backup, old.backup_life, old.number) not in self.pinged:
            raise Violation(f"{new.primary} leads view {new.number} without its data")
        else:
            self.seen["promoted"] += 1

    def _check_progress(self) -> None:
        """If a member that holds the data lives, it leads, and has a backup if there is one."""
        view = self.before
        members = ((view.primary, view.primary_life), (view.backup, view.backup_life))
        holders = []
        for name, life in members:
            process = self.alive(name)
            pinger = None if process is None else process.machine
            if isinstance(pinger, Pinger) and pinger.life == life and pinger.holds == view.number:
                holders.append(name)
        if not holders:
            self.seen["lost"] += 1
        elif view.primary not in holders:
            raise Violation(f"{view.primary} leads view {view.number}, but {holders} could")
        elif sum(self.alive(name) is not None for name in self.names) > 1 and len(holders) < 2:
            raise Violation(f"{view.primary} has no backup in view {view.number}, but could")


# --- planted bugs --------------------------------------------------------------------------------


def _not_acknowledged(original: Any) -> Any:
    """It goes on from a view that its primary does not know."""

    def advance(self: Any) -> None:
        self.acknowledged = True
        original(self)

    return advance


def _not_ready(original: Any) -> Any:
    """It promotes a backup that has not said that it holds the data."""

    def advance(self: Any) -> None:
        self.ready_backup = True
        original(self)

    return advance


def _restart_unnoticed(original: Any) -> Any:
    """A server that pings again is the one that it was."""

    def ping(self: ViewService, now: Nanos, ping: Ping) -> None:
        if ping.server in self._lives:
            self._lives[ping.server] = ping.life
        before = self._servers.get(ping.server)
        original(self, now, ping if before is None else ping._replace(number=before.number))
        self._crashed.clear()

    return ping


def _idle_promoted(original: Any) -> Any:
    """If nobody in the view is left, anybody will do."""

    def advance(self: Any) -> None:
        original(self)
        members = (self._alive(self.primary), self._alive(self.backup))
        if self.number and self.acknowledged and not any(members) and self._idle() != NOBODY:
            self._go_on(self._idle(), NOBODY)

    return advance


def _never_dead(original: Any) -> Any:
    """Silence means nothing."""

    def init(self: Any, settings: Settings, rng: random.Random) -> None:
        original(self, settings._replace(dead=1 << 62), rng)

    return init


BUGS: dict[str, tuple[Patch, ...]] = {
    "advanced_without_acknowledgement": (Patch(ViewService, "_advance", _not_acknowledged),),
    "uninitialised_promoted": (Patch(ViewService, "_advance", _not_ready),),
    "restart_unnoticed": (Patch(ViewService, "_ping", _restart_unnoticed),),
    "idle_promoted": (Patch(ViewService, "_advance", _idle_promoted),),
    "silence_unnoticed": (Patch(ViewService, "__init__", _never_dead),),
}

BEYOND = {"amnesia": "the service starts again and remembers nothing"}

TRIAL = Experiment("views", ViewCluster, BUGS, BEYOND)

if __name__ == "__main__":
    raise SystemExit(TRIAL.main())
