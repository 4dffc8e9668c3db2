"""Sockets and a clock: what a server without a disk lives in."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Any

import pytest
import zmq
from support import patience
from waiting import eventually

from engine.contract import SECOND, Event, Job, Link, Linked, Received, Send, Write, peer
from engine.errors import RefusedError, UsageError
from engine.mapreduce.messages import Scanned, Stop
from engine.runtime import world as module
from engine.runtime.world import SocketWorld
from engine.wire import keys
from engine.wire.endpoint import Listener

LIMITS = (100, 1 << 20)
LONG = 60_000
"""Milliseconds that no test waits: whoever waits so long is woken, or hangs."""


class Scene:
    """Worlds of one test, turned together until something holds."""

    def __init__(self) -> None:
        self.worlds: list[SocketWorld] = []
        self.events: dict[SocketWorld, list[Event]] = {}

    def listen(self, address: str = "ipc://*", **options: Any) -> Listener:
        return Listener(address, **({"roles": ("client", "server")} | options))

    def world(self, listener: Listener | None = None, **options: Any) -> SocketWorld:
        made = SocketWorld(*([] if listener is None else [listener]), **options)
        self.worlds.append(made)
        self.events[made] = []
        return made

    def server(self, address: str = "ipc://*", **options: Any) -> SocketWorld:
        token = options.get("token")
        return self.world(self.listen(address, **options), role="server", token=token)

    def turn(self) -> None:
        for world in self.worlds:
            self.events[world] += world.drain(*LIMITS)

    def until(self, true: Callable[[], Any], what: str = "") -> None:
        def turned() -> Any:
            self.turn()
            return true()

        eventually(turned, what=what)

    def said(self, world: SocketWorld) -> list[Any]:
        return [e.message for e in self.events[world] if isinstance(e, Received)]

    def links(self, world: SocketWorld) -> list[tuple[str, bool]]:
        linked = [e for e in self.events[world] if isinstance(e, Linked)]
        return [(e.link.principal or e.link.role, e.up) for e in linked]

    def meet(self, world: SocketWorld, address: str) -> None:
        """Speak to it until it is linked."""
        world.send([Send(peer(address), Scanned(0))])
        self.until(lambda: Linked(peer(address), True) in self.events[world], address)

    def close(self, world: SocketWorld) -> None:
        self.worlds.remove(world)
        world.close()


def address_of(world: SocketWorld) -> str:
    return world.listeners[0].address


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    for world in list(made.worlds):
        made.close(world)


@pytest.fixture
def token(tmp_path: Any) -> str:
    path = str(tmp_path / "token")
    keys.make_token(path)
    return path


# --- peers and those who dial in -----------------------------------------------------------------


def test_a_peer_is_dialed_when_it_is_first_spoken_to(scene: Scene) -> None:
    server, client = scene.server(), scene.world()
    address = address_of(server)
    assert client.drain(*LIMITS) == []
    client.send([Send(peer(address), Scanned(1))])  # lost: nobody is linked yet
    scene.until(lambda: scene.events[client])
    assert scene.events[client] == [Linked(peer(address), True)]
    client.send([Send(peer(address), Scanned(2)), Send(peer(address), Scanned(3))])
    scene.until(lambda: len(scene.said(server)) == 2)
    assert scene.said(server) == [Scanned(2), Scanned(3)]
    link = next(e.link for e in scene.events[server] if isinstance(e, Received))
    assert link.role == "client"
    server.send([Send(link, Stop("a")), Send(link, Stop("b"))])
    scene.until(lambda: len(scene.said(client)) == 2)
    assert scene.events[client][1:] == [
        Received(peer(address), Stop("a")),
        Received(peer(address), Stop("b")),
    ]


def test_two_servers_are_each_others_peers(scene: Scene) -> None:
    one, other = scene.server(), scene.server()
    scene.meet(one, address_of(other))
    scene.meet(other, address_of(one))
    one.send([Send(peer(address_of(other)), Scanned(1))])
    other.send([Send(peer(address_of(one)), Scanned(2))])
    scene.until(lambda: scene.said(one) and scene.said(other))
    assert (scene.said(one), scene.said(other)) == ([Scanned(2)], [Scanned(1)])
    # Each hears the other as whom it is by its handshake, not by an address.
    assert ("server", True) in scene.links(one)
    assert ("server", True) in scene.links(other)


def test_who_it_is_crosses(scene: Scene) -> None:
    server, client = scene.server(), scene.world(role="server", incarnation=9)
    scene.meet(client, address_of(server))
    scene.until(lambda: scene.events[server])
    link = scene.events[server][0].link  # type: ignore[union-attr]
    assert (link.role, link.incarnation) == ("server", 9)


def test_a_link_that_is_gone_loses_what_it_is_sent(scene: Scene) -> None:
    server, client = scene.server(), scene.world()
    scene.meet(client, address_of(server))
    scene.until(lambda: scene.events[server])
    scene.close(client)
    scene.until(lambda: ("client", False) in scene.links(server))
    server.send([Send(scene.events[server][0].link, Stop(""))])  # type: ignore[union-attr]
    server.send([Send(Link("client", 999), Stop(""))])
    assert server.listeners[0].counts["lost"] == 2


def test_without_a_listener_nobody_has_dialed_in(scene: Scene) -> None:
    with pytest.raises(AssertionError):
        scene.world().send([Send(Link("client", 1), Stop(""))])


def test_a_peer_has_another_way(scene: Scene) -> None:
    """It is called by the name that others know, wherever it is dialed."""
    server = scene.server()
    client = scene.world(via={"ipc:///its/name": address_of(server)})
    scene.meet(client, "ipc:///its/name")
    client.send([Send(peer("ipc:///its/name"), Scanned(1))])
    scene.until(lambda: scene.said(server))
    assert scene.links(client) == [("ipc:///its/name", True)]
    assert client.refusals == {}


def test_a_peer_that_restarts_is_linked_again(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    address = f"ipc://{tmp_path_factory.mktemp('w')}/s"
    server, client = scene.server(address), scene.world()
    scene.meet(client, address)
    scene.close(server)
    scene.until(lambda: scene.links(client)[-1] == (address, False))
    again = scene.server(address)
    scene.until(lambda: scene.links(client)[-1] == (address, True), "the link to come back")
    client.send([Send(peer(address), Scanned(7))])
    scene.until(lambda: scene.said(again) == [Scanned(7)])


def test_over_tcp_with_a_token(scene: Scene, token: str) -> None:
    server, client = scene.server("tcp://127.0.0.1:*", token=token), scene.world(token=token)
    scene.meet(client, address_of(server))
    assert client.refusals == {}


# --- refusals ------------------------------------------------------------------------------------


def test_a_refusal_is_kept_by_address_and_cleared(scene: Scene) -> None:
    listener = scene.listen(cluster=5, roles=("worker",))
    address = listener.address
    scene.world(listener)
    other, client = scene.server(), scene.world()
    scene.meet(client, address_of(other))
    client.send([Send(peer(address), Scanned(1))])
    scene.until(lambda: client.refusals)
    assert list(client.refusals) == [address]
    assert isinstance(client.refusals[address], RefusedError)
    listener.roles = frozenset(("client",))
    scene.until(lambda: (address, True) in scene.links(client))
    assert client.refusals == {}


IMPOSSIBLE = [
    ("", RefusedError),
    ("nonsense", RefusedError),
    ("tcp://192.0.2.1:80", RefusedError),
    ("tcp://127.0.0.1:" + "80", RefusedError),
    ("ipc://", UsageError),
    ("ipc://" + "x" * 200, UsageError),
    ("ipc:///\ud800", RefusedError),
]


def test_strangers_may_name_whom_they_like(scene: Scene) -> None:
    """A peer whose address cannot be dialed is a refusal, and nobody else notices."""
    server, client = scene.server(), scene.world()
    scene.meet(client, address_of(server))
    sends = [Send(peer(address), Stop("?")) for address, _ in IMPOSSIBLE]
    client.send([*sends, Send(peer(address_of(server)), Scanned(1)), *sends])
    scene.until(lambda: scene.said(server) == [Scanned(1)])
    assert {a: type(error) for a, error in client.refusals.items()} == dict(IMPOSSIBLE)
    assert [a for a, _ in scene.links(client)] == [address_of(server)]


@pytest.mark.parametrize("address", ["ipc://@", "ipc://\0"])
def test_what_only_zeromq_knows_to_be_impossible(scene: Scene, address: str) -> None:
    client = scene.world()
    client.send([Send(peer(address), Stop("?"))])
    assert isinstance(client.refusals[address], UsageError | RefusedError)


def test_a_place_where_nobody_is_harms_nobody(scene: Scene) -> None:
    server, client = scene.server(), scene.world()
    client.send([Send(peer(f"ipc:///nowhere/{n}"), Stop("?")) for n in range(20)])
    scene.meet(client, address_of(server))
    assert client.refusals == {}


# --- letting go ----------------------------------------------------------------------------------


def test_who_is_not_spoken_to_is_let_go(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    idle, busy, client = scene.server(), scene.server(), scene.world()
    scene.meet(client, address_of(busy))
    before = len(os.listdir("/proc/self/fd"))
    scene.meet(client, address_of(idle))
    client.send([Send(peer("nonsense"), Stop("?"))])
    now = monotonic_ns() + module.IDLE - SECOND
    monkeypatch.setattr(module, "monotonic_ns", lambda: now)
    client.send([Send(peer(address_of(busy)), Scanned(1))])
    client.wait(client.now())
    assert "nonsense" in client.refusals, "not long enough yet"
    now += 2 * SECOND
    client.wait(client.now())
    scene.until(lambda: scene.links(idle) == [("client", True), ("client", False)], "the end")
    assert client.refusals == {}
    assert scene.links(client)[-1] == (address_of(idle), False), "it hears of its own decision"
    assert scene.links(busy) == [("client", True)]
    assert len(client._poller) == 2, "it polls what it has let go"
    scene.until(lambda: len(os.listdir("/proc/self/fd")) <= before, "its sockets to be closed")
    # The next word dials again, and waiting still works for who is left.
    scene.events[client].clear()
    scene.meet(client, address_of(idle))
    client.send([Send(peer(address_of(idle)), Scanned(5))])
    scene.until(lambda: Scanned(5) in scene.said(idle))
    client.wait(client.now())


@pytest.mark.parametrize("asked", ["wait", "look"])
def test_news_are_heard_however_long_ago_it_looked(scene: Scene, asked: str) -> None:
    """Whoever was idle while a server was started again hears of that before it says anything: to
    the new one its words would be another's."""
    server, client = scene.server(), scene.world()
    address = address_of(server)
    scene.meet(client, address)
    (news,) = [one for one in client._peers[address].pollables() if one.socket.type == zmq.PAIR]

    def nothing_is_new() -> bool:
        client.wait(client.now()) if asked == "wait" else client.look()
        return client._ready is None

    scene.until(nothing_is_new)  # and its last question is what it goes by
    scene.close(server)
    before = news.socket.getsockopt(zmq.FD)
    eventually(lambda: select.select([before], [], [], 0)[0], what="the news to be there")
    scene.events[client].clear()
    scene.events[client] += client.drain(*LIMITS)
    assert scene.links(client) == [(address, False)]


# --- waiting -------------------------------------------------------------------------------------


@pytest.fixture
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual upper bound would hide that nothing woke it."""
    monkeypatch.setattr(module, "WAIT_MS_MAX", LONG)


def waited(world: SocketWorld, until: int | None) -> float:
    """For how many seconds it waited."""
    began = monotonic_ns()
    world.wait(until)
    return (monotonic_ns() - began) / SECOND


@pytest.mark.usefixtures("long_waits")
def test_a_message_wakes(scene: Scene) -> None:
    server, client = scene.server(), scene.world()
    scene.meet(client, address_of(server))
    scene.until(lambda: scene.events[server])
    link = scene.events[server][0].link  # type: ignore[union-attr]
    for number in range(3):
        client.send([Send(peer(address_of(server)), Scanned(number + 1))])
        while Scanned(number + 1) not in scene.said(server):  # monitors may wake it, too
            assert waited(server, None) < patience(20)
            scene.events[server] += server.drain(*LIMITS)
        server.send([Send(link, Stop(str(number)))])
        while Stop(str(number)) not in scene.said(client):
            assert waited(client, None) < patience(20)
            scene.events[client] += client.drain(*LIMITS)


@pytest.mark.usefixtures("long_waits")
def test_a_dialer_wakes_a_server(scene: Scene) -> None:
    server, client = scene.server(), scene.world()
    client.send([Send(peer(address_of(server)), Scanned(1))])
    while not scene.events[client]:
        assert waited(client, None) < patience(20)
        scene.events[client] += client.drain(*LIMITS)
        assert waited(server, server.now() + SECOND // 100) < patience(20)
        scene.events[server] += server.drain(*LIMITS)


@pytest.mark.usefixtures("long_waits")
def test_a_time_wakes(scene: Scene) -> None:
    world = scene.server()
    for nanos in (30_000_000, 1_500_000, 1):
        until = world.now() + nanos
        took = waited(world, until)
        assert world.now() >= until, "too early: it would turn again and again"
        assert took < patience(20)
    assert waited(world, world.now()) < patience(20)
    assert waited(world, 0) < patience(20), "a time that is past"


@pytest.mark.usefixtures("long_waits")
def test_a_hello_that_must_be_repeated_wakes(scene: Scene) -> None:
    """Nothing arrives: the connection itself knows when it must speak again."""
    listener = scene.listen()
    scene.world(listener)
    client = scene.world()
    client.send([Send(peer(listener.address), Scanned(1))])
    while client._peers[listener.address].wake_at is None:  # connected, and hello is said
        client.wait(client.now() + SECOND // 100)
        client.drain(*LIMITS)
    said_at = client._peers[listener.address]._said_at
    while client._peers[listener.address]._said_at == said_at:
        assert waited(client, None) < patience(20)
        client.drain(*LIMITS)
    scene.until(lambda: scene.events[client])


def test_it_never_waits_for_long(scene: Scene) -> None:
    """Or a signal to end would go unnoticed."""
    world = scene.server()
    for until in (None, world.now() + 3600 * SECOND):
        assert waited(world, until) < patience(20)
    assert module.WAIT_MS_MAX <= 500


# --- the rest ------------------------------------------------------------------------------------


def test_there_is_no_disk_and_no_long_work(scene: Scene) -> None:
    world = scene.world()
    with pytest.raises(AssertionError, match="without a log"):
        world.write([Write("x")])
    with pytest.raises(AssertionError, match="without jobs"):
        world.start(Job(1, "x"))
    world.point("drained")
    before = world.now()
    assert before <= monotonic_ns() <= world.now() + 1


def test_a_drain_keeps_to_its_limit(scene: Scene) -> None:
    server, client = scene.server(), scene.world()
    scene.meet(client, address_of(server))
    scene.until(lambda: scene.events[server])
    client.send([Send(peer(address_of(server)), Scanned(n)) for n in range(1, 50)])
    taken: list[Event] = []

    def all_taken() -> bool:
        some = server.drain(7, 1 << 20)
        assert len(some) <= 7
        taken.extend(some)
        return len(taken) == 49

    eventually(all_taken)
    assert [e.message for e in taken] == [Scanned(n) for n in range(1, 50)]  # type: ignore[union-attr]


def test_a_close_leaves_nothing() -> None:
    # What the first use of a context keeps is not counted.
    for count in range(2):
        before = len(os.listdir("/proc/self/fd"))
        scene = Scene()
        servers = [scene.server() for _ in range(3)]
        client = scene.world()
        for server in servers:
            scene.meet(client, address_of(server))
        client.send([Send(peer("ipc:///nowhere"), Stop("?")), Send(peer("x"), Stop("?"))])
        scene.turn()
        paths = [address_of(server).removeprefix("ipc://") for server in servers]
        for world in list(scene.worlds):
            scene.close(world)
        assert not any(os.path.exists(os.path.dirname(path)) for path in paths)
        if count:
            eventually(lambda n=before: len(os.listdir("/proc/self/fd")) <= n, what="descriptors")


def test_last_words_leave_if_they_may_linger(scene: Scene) -> None:
    server, client = scene.server(), scene.world()
    scene.meet(client, address_of(server))
    client.send([Send(peer(address_of(server)), Scanned(8))])
    scene.worlds.remove(client)
    client.close(linger_ms=10_000)
    scene.until(lambda: scene.said(server) == [Scanned(8)])
