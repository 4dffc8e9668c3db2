"""Simulated processes that talk: the shipped machines and turn, on pipes that have accidents.

A `Process` is a server or a client: a machine with its turn, whose world is this one. Whom it
speaks to by address (`engine.contract.peer`) it is connected to a moment later, if there is such a
process; until then what it says is lost. Connections end with either process, and usually both
sides hear of it. What is said crosses as the codec's bytes. `Cluster` keeps the processes and does
to them what a seed has planned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from engine.contract import (
    PEER,
    Event,
    Job,
    Link,
    Linked,
    Machine,
    Nanos,
    Received,
    Send,
    Server,
    Write,
    peer,
)
from engine.sim.network import Network, NetworkFaults, faults_of
from engine.sim.swarm import PRESENT, draw, is_quiet, silence
from engine.sim.timeline import MILLISECOND, Clock, Crashed, Timeline
from engine.wire.codec import decode, encode

TURN: Nanos = 10_000
"""From an arrival to the turn that takes it."""
RECONNECT: Nanos = 20 * MILLISECOND


class Process(Server):
    """A process; satisfies `engine.contract.World` for its own turn.

    `after_turn` is called behind every turn, for whoever looks at the machine's outcome.
    """

    def __init__(self, cluster: Cluster, name: str, role: str, machine: Machine) -> None:
        cluster.incarnations += 1
        self.cluster, self.name = cluster, name
        self.link = Link(role, cluster.incarnations, cluster.incarnations)
        self.as_peer = peer(name)
        self.alive = True
        self.paused = False
        self.after_turn: Callable[[], None] | None = None
        self._inbox: list[Event] = []
        self._due = False
        self._timer: Nanos | None = None
        """The earliest alarm that is set, by the process's own clock."""
        self._clock = cluster.clocks.get(name)
        super().__init__(machine, self)

    def now(self) -> Nanos:
        clock = self._clock
        return self.cluster.timeline.now if clock is None else clock.now()

    def live_by(self, clock: Clock) -> None:
        """The clock's pace is another one: what was to happen by it happens at another time."""
        self._clock = clock
        if self._timer is not None:
            self._set_alarm(self._timer)

    def drain(self, frames: int, size: int) -> list[Event]:
        events, self._inbox = self._inbox, []
        return events

    def send(self, sends: Iterable[Send]) -> None:
        for link, message in sends:
            self.cluster.send(self, link, message)

    def write(self, group: Sequence[Write]) -> int:
        raise AssertionError(f"{self.name} has no disk, and writes {group}")

    def start(self, job: Job) -> None:
        raise AssertionError(f"{self.name} has no long work, and starts {job}")

    def point(self, name: str) -> None:
        cluster = self.cluster
        if cluster.crash_point and self.alive and cluster.dies_at(self, name):
            raise Crashed(name)

    def hear(self, event: Event | Any) -> None:
        """Something arrived; a turn follows."""
        if self.alive:
            if self.cluster.timeline.traced:
                self.cluster.timeline.note(self.name, "hears", event)
            self.cluster.events += 1
            self._inbox.append(event)
            self.wake()

    def wake(self) -> None:
        if self.alive and not self._due and not self.paused:
            self._due = True
            self.cluster.timeline.after(TURN, self._turn)

    def pause(self, duration: Nanos) -> None:
        """SIGSTOP, and SIGCONT after so long."""
        if self.alive and not self.paused:
            self.paused = True
            self.cluster.timeline.after(duration, self._go_on)

    def _go_on(self) -> None:
        self.paused = False
        self.wake()

    def _turn(self) -> None:
        self._due = False
        if not self.alive or self.paused:
            return
        try:
            wake_at = self.turn()
        except Crashed:
            self.cluster.kill(self)
            return
        if self.cluster.checked:
            self.machine.check()
        if self.after_turn is not None:
            self.after_turn()
        if wake_at is not None and (self._timer is None or wake_at < self._timer):
            self._timer = wake_at
            self._set_alarm(wake_at)

    def _set_alarm(self, when: Nanos) -> None:
        timeline, clock = self.cluster.timeline, self._clock
        wait = max(0, when - timeline.now) if clock is None else clock.until(when)
        timeline.after(wait, self._alarm, when)

    def _alarm(self, when: Nanos) -> None:
        if self._timer == when:
            self._timer = None
            self.cluster.events += 1
        self.wake()


class _Line:
    """A connection: `dialer` dialed `listener`."""

    def __init__(self, dialer: Process, listener: Process) -> None:
        self.dialer, self.listener = dialer, listener
        self.open = True


class Cluster:
    """All processes of a seed. A service's trial subclasses it and fills it.

    `cuts` holds (source, destination) names: what the first says does not reach the second, and the
    first cannot connect to it.
    """

    def __init__(self, seed: int, *, keep: bool, trace: bool, checked: bool) -> None:
        self.timeline = Timeline(seed, trace=trace, keep=keep)
        self.checked = checked
        self.network = Network(self.timeline, NetworkFaults())
        self.processes: dict[str, Process] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.clocks: dict[str, Clock] = {}
        """Of the machines, by name, whose clock does not simply show the time."""
        self.seen: Counter[str] = Counter()
        """What happened how often, so that a test can tell that accidents do happen."""
        self.events = 0
        """What arrived, and timers that were still wanted when they went off."""
        self.incarnations = 0
        self.crash_point = 0.0
        """How likely a process dies at a named point, if `mortal` says that it may."""
        self.mortal: Callable[[Process], bool] = lambda process: False
        self._lines: dict[tuple[int, str], _Line] = {}
        self._dialing: set[tuple[int, str]] = set()

    # --- processes -------------------------------------------------------------------------------

    def start(self, name: str, role: str, machine: Machine) -> Process:
        """A process of this name, which replaces a dead one."""
        assert name not in self.processes or not self.processes[name].alive, name
        process = self.processes[name] = Process(self, name, role, machine)
        self.timeline.note(name, "starts", process.link)
        process.wake()
        return process

    def kill(self, process: Process) -> None:
        """SIGKILL: all that it held is gone, and its connections break."""
        if not process.alive:
            return
        process.alive = False
        self.seen["killed"] += 1
        self.timeline.note(process.name, "dies")
        for line in list(self._lines.values()):
            if process in (line.dialer, line.listener):
                self._break(line)

    def alive(self, name: str) -> Process | None:
        process = self.processes.get(name)
        return process if process is not None and process.alive else None

    def drift(self, name: str, numerator: int, denominator: int) -> None:
        """From now on the clock of this machine shows `numerator` nanoseconds for `denominator`;
        it goes on when the process ends."""
        self.timeline.note(name, "drifts", f"{numerator}/{denominator}")
        clock = self.clocks.setdefault(name, Clock(self.timeline))
        clock.run_at(numerator, denominator)
        process = self.alive(name)
        if process is not None:
            process.live_by(clock)

    def dies_at(self, process: Process, point: str) -> bool:
        if not self.mortal(process):
            return False
        dies = self.timeline.chance(self.crash_point)
        self.seen[f"died {point}"] += dies
        return dies

    # --- connections -----------------------------------------------------------------------------

    def send(self, source: Process, link: Link, message: Any) -> None:
        """From a process, to a peer or along a link over which it was dialed."""
        if link.role == PEER:
            line = self._lines.get((source.link.node, link.principal))
            if line is None:
                self._dial(source, link.principal)
                return
            destination, via = line.listener, source.link
        else:
            line = self._lines.get((link.node, source.name))
            if line is None or line.listener is not source:
                return
            destination, via = line.dialer, source.as_peer
        if self.timeline.traced:
            self.timeline.note(source.name, "says", f"to {destination.name}:", message)
        if (source.name, destination.name) in self.cuts:
            self.seen["cut off"] += 1
            return
        pipe = (source.link.node, destination.link.node)
        # As bytes: what does not survive the codec must not survive here.
        deliver = partial(self._deliver, line, destination, via)
        self.network.send(pipe, deliver, encode(message))

    def _deliver(self, line: _Line, to: Process, via: Link, sent: tuple[int, bytes]) -> None:
        if line.open:
            to.hear(Received(via, decode(*sent)))

    def _dial(self, source: Process, name: str) -> None:
        key = (source.link.node, name)
        if key not in self._dialing:
            self._dialing.add(key)
            self.timeline.after(self.timeline.spread(MILLISECOND), self._connect, source, name)

    def _connect(self, source: Process, name: str) -> None:
        key = (source.link.node, name)
        self._dialing.discard(key)
        listener = self.alive(name)
        if not source.alive or key in self._lines:
            return
        if listener is None or {(source.name, name), (name, source.name)} & self.cuts:
            self._dialing.add(key)
            self.timeline.after(RECONNECT, self._connect, source, name)
            return
        self._lines[key] = _Line(source, listener)
        listener.hear(Linked(source.link, True))
        source.hear(Linked(listener.as_peer, True))

    def _break(self, line: _Line) -> None:
        line.open = False
        key = line.dialer.link.node, line.listener.name
        del self._lines[key]
        self._dialing.add(key)  # nobody dials again before having heard of the end
        self.timeline.after(self.timeline.spread(MILLISECOND), self._broken, line)

    def _broken(self, line: _Line) -> None:
        """Each side hears of it before it hears of the next connection."""
        line.listener.hear(Linked(line.dialer.link, False))
        line.dialer.hear(Linked(line.listener.as_peer, False))
        self._dialing.discard((line.dialer.link.node, line.listener.name))
        self._dial(line.dialer, line.listener.name)

    def break_lines(self, one: str, other: str) -> None:
        """The connections between two processes break; both go on."""
        for line in list(self._lines.values()):
            if {line.dialer.name, line.listener.name} == {one, other}:
                self.seen["broken"] += 1
                self._break(line)

    # --- partitions ------------------------------------------------------------------------------

    def cut(self, sources: Iterable[str], destinations: Iterable[str]) -> None:
        """Nothing that the first say reaches the others, until `heal`."""
        pairs = {(s, d) for s in sources for d in destinations if s != d}
        self.timeline.note("network", "cuts", sorted(pairs))
        self.cuts |= pairs

    def heal(self) -> None:
        if self.cuts:
            self.timeline.note("network", "heals")
        self.cuts = set()


class PlannedCluster(Cluster):
    """A cluster whose shape and accidents are drawn from its seed: see `engine.sim.swarm`.

    With `beyond`, an accident that is not survived, there is no other, and the shape is `staged`.
    """

    present = PRESENT

    def __init__(
        self,
        seed: int,
        shape: Mapping[str, Sequence[Any]],
        faults: Mapping[str, Sequence[Any]],
        staged: Mapping[str, Any],
        *,
        keep: bool,
        trace: bool,
        checked: bool,
        beyond: str,
    ) -> None:
        super().__init__(seed, keep=keep, trace=trace, checked=checked)
        self.beyond = beyond
        self.plan = draw(self.timeline.rng, shape, faults, self.present)
        if beyond:
            silence(self.plan, faults)
            self.plan.update(staged)
        self.timeline.note("seed", str(seed), self.plan)
        self.seen["quiet"] += is_quiet(self.plan, faults)
        self.network.faults = faults_of(self.plan)
