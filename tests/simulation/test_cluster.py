"""Simulated processes that talk: what is lost, what is heard and in which order, who dies when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from engine.contract import (
    Event,
    Job,
    Link,
    Linked,
    Nanos,
    Ready,
    Received,
    Send,
    Write,
    peer,
)
from engine.mapreduce.messages import Scanned, Stop
from engine.sim.cluster import RECONNECT, TURN, Cluster, PlannedCluster, Process
from engine.sim.network import NetworkFaults
from engine.sim.timeline import MILLISECOND, Timeline

MANY = 300
"""Milliseconds of virtual time in which everything here settles."""


class Recorder:
    """A machine that notes what it hears, and says what a test has put into `mouth`.

    `answers` says, for a message that was heard, what goes back over its link.
    """

    def __init__(self, answers: Callable[[Any], Any] = lambda message: None) -> None:
        self.heard: list[Event] = []
        self.turns: list[Nanos] = []
        self.mouth: list[Send] = []
        self.wake_at: Nanos | None = None
        self.checks = 0
        self._answers = answers

    def step(self, now: Nanos, events: Sequence[Event]) -> None:
        self.turns.append(now)
        self.heard += events
        for event in events:
            if isinstance(event, Received) and (answer := self._answers(event.message)):
                self.mouth.append(Send(event.link, answer))

    def ready(self) -> Ready:
        sends, self.mouth = tuple(self.mouth), []
        return Ready(now=sends, wake_at=self.wake_at)

    def check(self) -> None:
        self.checks += 1

    def messages(self) -> list[Any]:
        return [event.message for event in self.heard if isinstance(event, Received)]

    def links(self) -> list[tuple[str, bool]]:
        linked = [event for event in self.heard if isinstance(event, Linked)]
        return [(event.link.principal or event.link.role, event.up) for event in linked]


class Scene:
    """A cluster of recorders."""

    def __init__(self, seed: int = 1, **how: bool) -> None:
        how = {"keep": False, "trace": False, "checked": True} | how
        self.cluster = Cluster(seed, **how)
        self.machines: dict[str, Recorder] = {}

    def start(self, name: str, role: str = "server", **how: Any) -> Process:
        machine = self.machines[name] = Recorder(**how)
        return self.cluster.start(name, role, machine)

    def run(self, milliseconds: float = MANY) -> None:
        """Let time pass: what is due happens, then it is so much later."""
        timeline = self.cluster.timeline
        until = timeline.now + int(milliseconds * MILLISECOND)
        timeline.after(until - timeline.now, lambda: None)
        while timeline.now < until:
            assert timeline.step()

    def say(self, name: str, to: str | Link, message: Any) -> None:
        """In this process's next turn, which is soon."""
        link = peer(to) if isinstance(to, str) else to
        self.machines[name].mouth.append(Send(link, message))
        self.cluster.processes[name].wake()

    def meet(self, name: str, other: str) -> Link:
        """Have the first dial the second; the link by which the second knows it."""
        self.say(name, other, Scanned(0))
        self.run()
        assert (other, True) in self.machines[name].links()
        return self.cluster.processes[name].link

    def heard(self, name: str) -> list[Any]:
        return self.machines[name].messages()


@pytest.fixture
def scene() -> Scene:
    """`client` and `server`, who have not met."""
    made = Scene()
    made.start("server")
    made.start("client", "client")
    made.run(1)
    return made


def numbers(found: list[Any]) -> list[int]:
    return [message.attempt for message in found]


# --- links ---------------------------------------------------------------------------------------


def test_what_is_said_before_a_link_is_lost_and_dials(scene: Scene) -> None:
    scene.say("client", "server", Scanned(1))
    scene.run()
    assert scene.heard("server") == []
    assert scene.machines["client"].heard == [Linked(peer("server"), True)]
    link = scene.cluster.processes["client"].link
    assert scene.machines["server"].heard == [Linked(link, True)]
    assert link == Link("client", 2, 2)
    scene.say("client", "server", Scanned(2))
    scene.run()
    assert scene.machines["server"].heard[1:] == [Received(link, Scanned(2))]


def test_a_server_answers_over_the_link_of_the_message() -> None:
    scene = Scene()
    scene.start("server", answers=lambda message: Stop(str(message.attempt)))
    scene.start("a", "client")
    scene.start("b", "client")
    for name in ("a", "b"):
        scene.meet(name, "server")
    for number in range(1, 4):
        scene.say("a", "server", Scanned(number))
        scene.say("b", "server", Scanned(10 * number))
    scene.run()
    assert scene.heard("a") == [Stop("1"), Stop("2"), Stop("3")]
    assert scene.heard("b") == [Stop("10"), Stop("20"), Stop("30")]
    assert {e.link for e in scene.machines["a"].heard} == {peer("server")}  # type: ignore[union-attr]


def test_both_may_dial_each_other() -> None:
    """Then there are two connections, and each knows the other twice."""
    scene = Scene()
    one, other = scene.start("one"), scene.start("other")
    scene.meet("one", "other")
    scene.meet("other", "one")
    scene.say("one", "other", Scanned(1))
    scene.say("other", "one", Scanned(2))
    scene.say("one", other.link, Scanned(3))
    scene.run()
    assert scene.machines["other"].heard[-2:] == [
        Received(one.link, Scanned(1)),
        Received(peer("one"), Scanned(3)),
    ]
    assert scene.heard("one") == [Scanned(2)]


def test_a_link_is_no_way_for_anybody_else(scene: Scene) -> None:
    link = scene.meet("client", "server")
    scene.start("thief")
    scene.say("thief", link, Stop("x"))
    scene.say("server", Link("client", 99, 99), Stop("x"))
    scene.run()
    assert scene.heard("client") == []


def test_who_comes_later_is_found(scene: Scene) -> None:
    scene.say("client", "later", Scanned(1))
    scene.run()
    assert scene.machines["client"].heard == []
    scene.start("later")
    scene.run()
    assert scene.machines["client"].links() == [("later", True)]
    assert scene.heard("later") == []


def test_messages_are_heard_after_the_link_and_in_order(scene: Scene) -> None:
    scene.meet("client", "server")
    for number in range(1, 100):
        scene.say("client", "server", Scanned(number))
    scene.run()
    assert numbers(scene.heard("server")) == list(range(1, 100))
    assert isinstance(scene.machines["server"].heard[0], Linked)


def test_everything_crosses_as_bytes(scene: Scene) -> None:
    scene.meet("client", "server")
    message = Stop("text")
    scene.say("client", "server", message)
    scene.run()
    (arrived,) = scene.heard("server")
    assert arrived == message
    assert arrived is not message
    scene.say("client", "server", {"no": "message"})
    with pytest.raises(TypeError):
        scene.run()


def test_what_the_codec_does_not_take_cannot_be_said(scene: Scene) -> None:
    """A bug in a machine, which the real wire would show as well."""
    scene.meet("client", "server")
    scene.say("client", "server", Scanned("not a number"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        scene.run()


# --- broken connections --------------------------------------------------------------------------


def test_a_broken_connection_is_noticed_by_both_and_comes_back(scene: Scene) -> None:
    link = scene.meet("client", "server")
    scene.cluster.break_lines("server", "client")
    assert scene.cluster.seen["broken"] == 1
    scene.run()
    assert scene.machines["client"].links() == [("server", up) for up in (True, False, True)]
    assert scene.machines["server"].heard == [Linked(link, up) for up in (True, False, True)]
    scene.say("client", "server", Scanned(5))
    scene.run()
    assert scene.heard("server") == [Scanned(5)]


def test_what_is_under_way_goes_with_the_connection(scene: Scene) -> None:
    scene.meet("client", "server")
    scene.cluster.network.faults = NetworkFaults(delay=50 * MILLISECOND)
    scene.say("client", "server", Scanned(1))
    scene.run(0.1)
    scene.cluster.break_lines("client", "server")
    scene.run(2000)
    assert scene.heard("server") == []
    scene.say("client", "server", Scanned(2))
    scene.run(2000)
    assert scene.heard("server") == [Scanned(2)]


def test_only_the_named_connections_break() -> None:
    scene = Scene()
    for name in ("a", "b", "c"):
        scene.start(name)
    for name, other in (("a", "b"), ("b", "a"), ("a", "c"), ("c", "b")):
        scene.meet(name, other)
    scene.cluster.break_lines("a", "b")
    assert scene.cluster.seen["broken"] == 2, "there are two, one each way"
    scene.run()
    assert scene.machines["c"].links().count(("b", True)) == 1
    assert ("c", False) not in scene.machines["a"].links()
    assert scene.machines["a"].links().count(("b", False)) == 1
    scene.cluster.break_lines("b", "nobody")
    assert scene.cluster.seen["broken"] == 2


def test_an_end_is_heard_before_the_next_beginning() -> None:
    """Whatever breaks and however late things are, ups and downs alternate at both ends."""
    confused = []
    for seed in range(30):
        scene = Scene(seed)
        scene.start("server")
        scene.start("client", "client")
        scene.cluster.network.faults = NetworkFaults(0.0, 0.3, 0.3, 5 * MILLISECOND)
        rng = scene.cluster.timeline.rng
        for number in range(40):
            scene.say("client", "server", Scanned(number))
            if rng.random() < 0.4:
                scene.cluster.break_lines("client", "server")
            scene.run(rng.choice((0.1, 1, 5, 30)))
        scene.run()
        for name in ("client", "server"):
            ups = [up for _, up in scene.machines[name].links()]
            assert len(ups) > 4
            if ups != [number % 2 == 0 for number in range(len(ups))]:
                confused.append((seed, name, ups))
    assert not confused, f"{len(confused)} of 60, for one {confused[0]}"


# --- deaths --------------------------------------------------------------------------------------


def test_a_death_is_noticed_and_the_name_may_be_taken_again(scene: Scene) -> None:
    scene.meet("client", "server")
    first = scene.cluster.processes["server"]
    scene.cluster.kill(first)
    assert scene.cluster.alive("server") is None
    scene.run()
    old = scene.machines["server"]
    assert scene.machines["client"].links() == [("server", True), ("server", False)]
    scene.say("client", "server", Scanned(1))
    scene.run()
    second = scene.start("server")
    assert scene.cluster.alive("server") is second
    assert second.link.incarnation > first.link.incarnation
    assert second.link.node != first.link.node
    scene.run()
    assert scene.machines["client"].links()[2:] == [("server", True)], "it is dialed again"
    scene.say("client", "server", Scanned(2))
    scene.run()
    assert scene.heard("server") == [Scanned(2)]
    assert old.messages() == [], "the dead hear nothing"
    assert scene.cluster.seen["killed"] == 1


def test_the_death_of_a_dialer_is_noticed(scene: Scene) -> None:
    link = scene.meet("client", "server")
    scene.cluster.kill(scene.cluster.processes["client"])
    scene.run()
    assert scene.machines["server"].heard == [Linked(link, True), Linked(link, False)]
    scene.start("client", "client")
    scene.run()
    assert len(scene.machines["server"].heard) == 2, "the new one has not dialed"
    scene.say("server", link, Stop("for the dead"))
    scene.run()
    assert scene.heard("client") == [], "it is not the one that was"


def test_what_the_dead_have_said_goes_with_them(scene: Scene) -> None:
    scene.meet("client", "server")
    scene.say("client", "server", Scanned(1))
    scene.run(2 * TURN / MILLISECOND)
    scene.cluster.kill(scene.cluster.processes["client"])
    scene.run()
    assert scene.heard("server") == []


def test_the_dead_are_not_killed_again_and_the_living_not_replaced(scene: Scene) -> None:
    process = scene.cluster.processes["server"]
    with pytest.raises(AssertionError):
        scene.start("server")
    scene.cluster.kill(process)
    scene.cluster.kill(process)
    assert scene.cluster.seen["killed"] == 1
    turns = len(scene.machines["server"].turns)
    process.wake()
    process.hear(Linked(peer("x"), True))
    process.pause(1)
    scene.run()
    assert len(scene.machines["server"].turns) == turns
    assert not process.paused
    assert scene.cluster.alive("nobody") is None


def test_a_timer_of_the_dead_wakes_nobody() -> None:
    scene = Scene()
    scene.start("server")
    old = scene.machines["server"]
    old.wake_at = 50 * MILLISECOND
    scene.run(1)
    scene.cluster.kill(scene.cluster.processes["server"])
    scene.start("server")
    scene.run()
    assert len(old.turns) == 1
    assert len(scene.machines["server"].turns) == 1


# --- crash points --------------------------------------------------------------------------------

POINTS = ("drained", "stepped", "written", "sent", "turned")


def test_only_the_mortal_die_at_points() -> None:
    scene = Scene()
    scene.start("mortal")
    scene.start("immortal")
    scene.cluster.crash_point = 1.0
    scene.cluster.mortal = lambda process: process.name == "mortal"
    scene.run()
    assert scene.cluster.alive("mortal") is None
    assert scene.cluster.alive("immortal") is not None
    assert dict(scene.cluster.seen) == {"died drained": 1, "killed": 1}
    assert scene.machines["mortal"].turns == [], "it died before it took anything in"


def test_without_a_rate_nobody_dies_and_nothing_is_drawn(scene: Scene) -> None:
    scene.cluster.mortal = lambda process: True
    before = scene.cluster.timeline.rng.getstate()
    scene.cluster.processes["server"].wake()
    scene.run()
    assert scene.cluster.alive("server") is not None
    assert scene.cluster.timeline.rng.getstate() == before


def test_nobody_is_mortal_unless_somebody_says_so() -> None:
    scene = Scene()
    scene.start("server")
    scene.cluster.crash_point = 1.0
    scene.run()
    assert scene.cluster.alive("server") is not None


@pytest.mark.parametrize("point", [p for p in POINTS if p != "written"])
def test_what_is_done_before_a_point_is_done(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    scene.start("server")
    scene.start("client", "client")
    scene.meet("client", "server")
    client = scene.cluster.processes["client"]
    deaths: list[str] = []

    def dies_at(process: Process, name: str) -> bool:
        if process is client and name == point:
            deaths.append(name)
            return True
        return False

    said: list[Any] = []
    send = Cluster.send

    def noted(self: Cluster, source: Process, link: Link, message: Any) -> None:
        said.append(message)
        send(self, source, link, message)

    scene.cluster.crash_point = 1.0
    monkeypatch.setattr(scene.cluster, "dies_at", dies_at)
    monkeypatch.setattr(Cluster, "send", noted)
    turns = len(scene.machines["client"].turns)
    scene.say("client", "server", Scanned(1))
    scene.run()
    assert deaths == [point]
    assert not client.alive
    stepped = len(scene.machines["client"].turns) - turns
    assert stepped == (point != "drained")
    assert said == ([Scanned(1)] if point in ("sent", "turned") else [])
    assert scene.machines["server"].links()[-1] == ("client", False)


# --- pauses --------------------------------------------------------------------------------------


def test_a_paused_process_hears_everything_afterwards(scene: Scene) -> None:
    scene.meet("client", "server")
    server = scene.cluster.processes["server"]
    server.pause(100 * MILLISECOND)
    server.pause(999 * MILLISECOND)  # it is paused already
    turns = len(scene.machines["server"].turns)
    for number in range(1, 4):
        scene.say("client", "server", Scanned(number))
        scene.run(10)
    assert server.paused
    assert scene.heard("server") == []
    assert len(scene.machines["server"].turns) == turns
    assert scene.machines["client"].links() == [("server", True)], "it is only slow"
    scene.run(100)
    assert not server.paused
    assert numbers(scene.heard("server")) == [1, 2, 3]
    assert len(scene.machines["server"].turns) == turns + 1, "in one turn"


def test_a_pause_in_which_it_dies_is_over(scene: Scene) -> None:
    server = scene.cluster.processes["server"]
    server.pause(100 * MILLISECOND)
    scene.cluster.kill(server)
    scene.run()
    turns = len(scene.machines["server"].turns)
    scene.start("server")
    scene.run()
    assert turns == 1
    assert len(scene.machines["server"].turns) == 1


def test_a_turn_that_was_due_waits_for_the_end_of_the_pause(scene: Scene) -> None:
    turns = len(scene.machines["client"].turns)
    scene.say("client", "server", Scanned(1))
    scene.cluster.processes["client"].pause(50 * MILLISECOND)
    began = scene.cluster.timeline.now
    scene.run()
    times = scene.machines["client"].turns[turns:]
    assert times[0] >= began + 50 * MILLISECOND
    assert scene.machines["client"].links() == [("server", True)]


# --- cuts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "asked", "answered"),
    [
        ((["client"], ["server"]), False, False),
        ((["server"], ["client"]), True, False),
        ((["client"], ["other"]), True, True),
        ((["client", "server"], ["client", "server"]), False, False),
    ],
)
def test_a_cut_has_a_direction(cut: Any, asked: bool, answered: bool) -> None:
    scene = Scene()
    scene.start("server", answers=lambda message: Stop(str(message.attempt)))
    scene.start("client", "client")
    scene.meet("client", "server")
    scene.cluster.cut(*cut)
    scene.say("client", "server", Scanned(1))
    scene.run()
    assert scene.heard("server") == ([Scanned(1)] if asked else [])
    assert scene.heard("client") == ([Stop("1")] if answered else [])
    lost = (not asked) + (asked and not answered)
    assert scene.cluster.seen["cut off"] == lost
    assert scene.machines["client"].links() == [("server", True)], "nobody sees a cut"
    scene.cluster.heal()
    assert scene.cluster.cuts == set()
    scene.say("client", "server", Scanned(2))
    scene.run()
    assert scene.heard("client")[-1] == Stop("2")
    assert scene.heard("server")[-1] == Scanned(2)
    assert len(scene.heard("server")) == 1 + asked, "what was cut off is lost, not late"


@pytest.mark.parametrize("pair", [("client", "server"), ("server", "client")])
def test_nobody_connects_across_a_cut(scene: Scene, pair: tuple[str, str]) -> None:
    """Not in either direction: a connection takes words of both."""
    scene.cluster.cut([pair[0]], [pair[1]])
    scene.say("client", "server", Scanned(1))
    scene.run()
    assert scene.machines["client"].heard == []
    scene.cluster.heal()
    scene.run(3 * RECONNECT / MILLISECOND)
    assert scene.machines["client"].links() == [("server", True)]


def test_cuts_add_up_and_spare_oneself(scene: Scene) -> None:
    cluster = scene.cluster
    cluster.cut(["a", "b"], ["b", "c"])
    cluster.cut(["c"], ["a"])
    assert cluster.cuts == {("a", "b"), ("a", "c"), ("b", "c"), ("c", "a")}
    cluster.heal()
    cluster.heal()
    assert cluster.cuts == set()


def test_a_connection_that_breaks_in_a_cut_comes_back_after_it(scene: Scene) -> None:
    scene.meet("client", "server")
    scene.cluster.cut(["server"], ["client"])
    scene.cluster.break_lines("client", "server")
    scene.run()
    assert scene.machines["client"].links() == [("server", True), ("server", False)]
    scene.cluster.heal()
    scene.run()
    assert scene.machines["client"].links()[2:] == [("server", True)]


# --- turns ---------------------------------------------------------------------------------------


def test_a_machine_is_woken_when_it_says() -> None:
    scene = Scene()
    scene.start("server")
    machine = scene.machines["server"]
    machine.wake_at = 30 * MILLISECOND
    scene.run(29)
    assert len(machine.turns) == 1
    machine.wake_at = 20 * MILLISECOND  # in the past by then: at once
    scene.run(1.015)
    assert machine.turns[1] == 30 * MILLISECOND + TURN
    machine.wake_at = None
    scene.run()
    turns = len(machine.turns)
    scene.run()
    assert len(machine.turns) == turns, "it wanted nothing more"


def test_an_earlier_wish_counts_and_a_later_one_does_not_cancel_it() -> None:
    scene = Scene()
    scene.start("server")
    machine = scene.machines["server"]
    machine.wake_at = 100 * MILLISECOND
    scene.run(10)
    machine.wake_at = 40 * MILLISECOND
    scene.cluster.processes["server"].wake()
    scene.run(10)
    machine.wake_at = None
    scene.run(200)
    at = [turn // MILLISECOND for turn in machine.turns]
    assert at[2] == 40


def test_after_every_turn_it_is_checked_and_looked_at() -> None:
    for checked in (True, False):
        scene = Scene(checked=checked)
        process = scene.start("server")
        looks: list[int] = []
        process.after_turn = lambda found=looks, it=scene: found.append(
            len(it.machines["server"].turns)
        )
        for _ in range(3):
            process.wake()
            process.wake()  # one turn takes both
            scene.run()
        assert looks == [1, 2, 3]
        assert scene.machines["server"].checks == (3 if checked else 0)
        assert scene.cluster.events == 0  # nothing arrived, and no timer went off


def test_events_are_what_arrives_and_timers_that_go_off(scene: Scene) -> None:
    server = scene.cluster.processes["server"]
    server.hear(Linked(server.link, True))
    scene.run()
    assert scene.cluster.events == 1
    server._timer = scene.cluster.timeline.now
    server._alarm(scene.cluster.timeline.now)
    server._alarm(scene.cluster.timeline.now)  # it was set again, and is not wanted
    assert scene.cluster.events == 2


def test_a_process_has_no_disk_and_no_long_work(scene: Scene) -> None:
    server = scene.cluster.processes["server"]
    with pytest.raises(AssertionError, match="no disk"):
        server.write([Write("x")])
    with pytest.raises(AssertionError, match="no long work"):
        server.start(Job(1, "x"))
    assert server.now() == scene.cluster.timeline.now


def test_the_trace_tells_it_all() -> None:
    scene = Scene(keep=True)
    scene.start("server")
    scene.start("client", "client")
    scene.meet("client", "server")
    scene.say("client", "server", Scanned(7))
    scene.cluster.cut(["a"], ["b"])
    scene.cluster.heal()
    scene.run()
    scene.cluster.kill(scene.cluster.processes["server"])
    told = "\n".join(" ".join(line.split()[1:]) for line in scene.cluster.timeline.lines)
    for piece in (
        "server starts Link(role='server'",
        "client says to server: Scanned(attempt=7",
        "server hears Received(",
        "network cuts [('a', 'b')]",
        "network heals",
        "server dies",
    ):
        assert piece in told, told


# --- planned clusters ----------------------------------------------------------------------------

SHAPE = {"size": (1, 2, 3)}
FAULTS: dict[str, Sequence[Any]] = {
    "loss": (0.0, 0.5),
    "duplicate": (0.0, 0.5),
    "reorder": (0.0, 0.5),
    "delay": (MILLISECOND, 9 * MILLISECOND),
    "quake": (0, 1),
}


def planned(seed: int, beyond: str = "") -> PlannedCluster:
    staged = {"size": 9}
    how = {"keep": False, "trace": False, "checked": True}
    return PlannedCluster(seed, SHAPE, FAULTS, staged, beyond=beyond, **how)


def test_a_plan_is_drawn_from_the_seed() -> None:
    plans = [planned(seed).plan for seed in range(50)]
    assert plans == [planned(seed).plan for seed in range(50)]
    assert {plan["size"] for plan in plans} == {1, 2, 3}
    assert {plan["quake"] for plan in plans} == {0, 1}
    for seed in range(50):
        made = planned(seed)
        planned_for = {n: made.plan[n] for n in NetworkFaults._fields if n in made.plan}
        assert made.network.faults == NetworkFaults(**planned_for)
        quiet = all(made.plan[name] == values[0] for name, values in FAULTS.items())
        assert made.seen["quiet"] == quiet


def test_an_accident_beyond_stands_alone_on_its_stage() -> None:
    for seed in range(20):
        made = planned(seed, "flood")
        assert made.plan == {"size": 9, **{name: values[0] for name, values in FAULTS.items()}}
        assert made.beyond == "flood"


def test_time_is_the_timelines(scene: Scene) -> None:
    assert isinstance(scene.cluster.timeline, Timeline)
    before = scene.cluster.timeline.now
    scene.run(7)
    assert scene.cluster.timeline.now == before + 7 * MILLISECOND
