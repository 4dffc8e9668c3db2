"""Listeners and dialers with keys: who gets in, who does not, and what is said of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq
from keyrings import LOOPBACK, People, Raw, Service, pair_of
from support import dose, patience
from waiting import eventually

from engine.errors import ConnectionFailed, EngineError, RefusedError, UsageError
from engine.mapreduce.messages import Scanned, Stop
from engine.raft.messages import TimeoutNow
from engine.wire import codec, curve, envelope, keys, listener, zap
from engine.wire.endpoint import Dialer, Listener, Outgoing
from engine.wire.handshake import Again, Hello, Refused, frame_of
from engine.wire.zap import Guard

Serve = Callable[..., Service]


def everybody(folder: Path) -> People:
    """n1 is a server that knows n2, a client, a worker and an operator, who know it."""
    found = People(folder)
    found.make("n1", "n2", "client", "worker", "admin", "stranger", "revoked")
    found.allow(
        "n1", n1="replica", n2="replica", client="client", worker="worker", admin="admin",
        revoked="revoked",
    )  # fmt: skip
    for name in ("n2", "client", "admin", "stranger", "revoked"):
        found.allow(name, n1="replica")
    found.allow("worker", n1="coordinator")
    return found


@pytest.fixture
def people(tmp_path: Path) -> People:
    return everybody(tmp_path)


def served(people: People) -> Iterator[Serve]:
    """Starts n1 as often as one likes."""
    services: list[Service] = []

    def start(**options: Any) -> Service:
        services.append(Service(people.path("n1"), **options))
        return services[-1]

    try:
        yield start
    finally:
        for service in services:
            service.close()


@pytest.fixture
def serve(people: People) -> Iterator[Serve]:
    yield from served(people)


def asked(dialer: Dialer, number: int) -> Any:
    dialer.send(Scanned(number))
    return dialer.receive(patience(10))


def well(people: People, service: Service, role: str = "client", name: str = "client") -> None:
    """It serves those who are allowed."""
    with Dialer(service.address, role=role, token=people.path(name)) as dialer:
        dialer.connect(patience(10))
        assert asked(dialer, 5) == Stop("5")


def until(outgoing: Outgoing, true: Callable[[], Any]) -> list[Any]:
    """What has happened by then."""
    events: list[Any] = []

    def turned() -> Any:
        events.extend(outgoing.drain())
        return true()

    eventually(turned)
    return events


# --- who gets in ---------------------------------------------------------------------------------


def test_whoever_is_allowed_is_known_by_the_name_of_the_key(people: People, serve: Serve) -> None:
    service = serve(roles=("client", "replica"))
    with Dialer(service.address, role="client", token=people.path("client")) as dialer:
        dialer.connect(patience(10))
        assert asked(dialer, 7) == Stop("7")
        assert service.links() == [("client", "client", True)]
    well(people, service, "client", "admin")
    assert ("client", "admin", True) in service.links()
    well(people, service, "replica", "n2")
    assert service.counts["refused"] == service.counts["malformed"] == 0


STRANGERS = {
    "without a key": (lambda p: {}, "unproven"),
    "with a password": (
        lambda p: {"PLAIN_USERNAME": b"n2", "PLAIN_PASSWORD": b"n2"}, "unproven",
    ),
    "with another server's key": (
        lambda p: pair_of(p.ring("n2"), p.public["stranger"]), "unproven",
    ),
    "with an unknown key": (lambda p: pair_of(p.ring("stranger"), p.public["n1"]), "stranger"),
    "with a revoked key": (lambda p: pair_of(p.ring("revoked"), p.public["n1"]), "revoked"),
    "with a client's key": (lambda p: pair_of(p.ring("client"), p.public["n1"]), "elsewhere"),
    "with a worker's key": (lambda p: pair_of(p.ring("worker"), p.public["n1"]), "elsewhere"),
    "with an operator's key": (lambda p: pair_of(p.ring("admin"), p.public["n1"]), "elsewhere"),
}  # fmt: skip


@pytest.mark.parametrize("who", STRANGERS)
def test_strangers_are_kept_out_and_counted(people: People, serve: Serve, who: str) -> None:
    """Nothing that they say is decoded."""
    options, reason = STRANGERS[who]
    service = serve(roles=("replica",))
    with Raw(service.address, **options(people)) as raw:
        for frame in (frame_of(Hello("replica", -1, 0, bytes(16)), 0, 0), b"nonsense"):
            with suppress(zmq.Again):  # it was hung up on already
                raw.socket.send(frame, zmq.NOBLOCK)
        assert raw.gets_in() is False
        eventually(lambda: service.counts.get(f"refused_{reason}"))
    well(people, service, "replica", "n2")
    assert service.counts["malformed"] == 0
    assert service.counts["received"] == 1
    assert service.links()[0] == ("replica", "n2", True)


@pytest.mark.parametrize("who", ["stranger", "revoked", "client"])
def test_who_is_kept_out_is_told_so(people: People, serve: Serve, who: str) -> None:
    service = serve(roles=("replica",))
    with (
        Dialer(service.address, role="replica", token=people.path(who)) as dialer,
        pytest.raises(RefusedError, match=f"does not let our key {who} in as replica"),
    ):
        dialer.connect(patience(10))


def test_a_role_is_the_keys_and_not_the_hellos(people: People, serve: Serve) -> None:
    """A worker's key, at a door where workers may come in, does not write to the store."""
    service = serve(roles=("client", "worker", "admin"))
    for claimed in ("client", "admin"):
        # It says what it likes, since whether it may is the listener's to know.
        people.allow("worker", n1="replica")
        with (
            Dialer(service.address, role=claimed, token=people.path("worker")) as dialer,
            pytest.raises(RefusedError, match=f"key worker is not allowed to speak as {claimed}"),
        ):
            dialer.connect(patience(10))
    assert service.counts["refused_claim"] == 2
    assert service.links() == []
    well(people, service)


def test_a_member_speaks_in_its_own_name(people: People, serve: Serve) -> None:
    people.allow("n1", n2="replica member=2")
    service = serve(roles=("replica",))
    with Dialer(service.address, role="replica", token=people.path("n2")) as dialer:
        dialer.connect(patience(10))
        dialer.send(TimeoutNow(7, 2, 1))
        eventually(service.messages)
        dialer.send(TimeoutNow(8, 3, 1))
        with pytest.raises(RefusedError, match="belongs to another member"):
            dialer.receive(patience(10))
    assert service.counts["refused_sender"] == 1
    assert service.messages() == [TimeoutNow(7, 2, 1)]
    well(people, service, "replica", "n2")


def test_a_link_is_of_the_key_that_it_was_given_to(people: People, serve: Serve) -> None:
    """Neither its number nor its hello are of use to others."""
    people.make("other")
    people.allow("n1", other="client")
    service = serve()
    with Dialer(service.address, role="worker", node=3, token=people.path("worker")) as dialer:
        people.allow("n1", other="worker")
        dialer.connect(patience(10))
        number, hello = dialer._number, dialer._hello
        with Raw(service.address, **pair_of(people.ring("other"), people.public["n1"])) as raw:
            for frame, why in (
                (frame_of(Scanned(9), dialer.cluster, number), "key"),
                (frame_of(Again(), dialer.cluster, number), "key"),
                (frame_of(hello, 0, 0), "key"),
                (frame_of(Hello("worker", 3, 99, bytes(16)), 0, 0), "stale"),
            ):
                raw.socket.send(frame)
                answer = envelope.unpack(raw.socket.recv())
                said = codec.decode(answer.kind, answer.body)
                assert isinstance(said, Refused)
                assert said.why == why
        assert asked(dialer, 1) == Stop("1")
    assert service.messages() == [Scanned(1)]
    assert service.counts["refused_key"] == 3


# --- what changes while it serves ----------------------------------------------------------------


def test_a_revoked_key_is_cut_off_at_once(people: People, serve: Serve) -> None:
    service = serve(roles=("client", "replica"))
    with (
        Dialer(service.address, role="client", token=people.path("client")) as dialer,
        Dialer(service.address, role="replica", token=people.path("n2")) as other,
    ):
        dialer.connect(patience(10))
        other.connect(patience(10))
        assert asked(dialer, 1) == Stop("1")
        people.allow("n1", client="revoked")
        eventually(lambda: ("client", "client", False) in service.links(), 2.0)
        assert service.counts["dismissed"] == 1
        with pytest.raises(RefusedError, match="does not let our key client in"):
            dialer.receive(patience(10))
        assert asked(other, 2) == Stop("2")
    assert [m for m in service.messages() if m == Scanned(1)] == [Scanned(1)]
    with Raw(service.address, **pair_of(people.ring("client"), people.public["n1"])) as raw:
        assert raw.gets_in() is False


def test_another_role_ends_what_was_of_the_old_one(people: People, serve: Serve) -> None:
    service = serve(roles=("client", "worker"))
    with Dialer(service.address, role="client", token=people.path("client")) as dialer:
        dialer.connect(patience(10))
        people.allow("n1", client="worker")
        eventually(lambda: ("client", "client", False) in service.links(), 2.0)
        with pytest.raises(EngineError, match="does not know this link"):
            dialer.receive(patience(10))
    with (
        Dialer(service.address, role="client", token=people.path("client")) as dialer,
        pytest.raises(RefusedError, match="not allowed to speak as client"),
    ):
        dialer.connect(patience(10))


def test_a_revoked_connection_says_nothing_more(people: People, serve: Serve) -> None:
    """Not even if it could not be cut."""
    service = serve()
    guard = service.listener._guard
    assert guard is not None
    guard.cut = lambda way: None  # type: ignore[method-assign]
    with Dialer(service.address, role="worker", token=people.path("worker")) as dialer:
        dialer.connect(patience(10))
        people.allow("n1", worker="revoked")
        eventually(lambda: ("worker", "worker", False) in service.links(), 2.0)
        dialer.send(Scanned(1))
        with pytest.raises(EngineError, match="does not know this link"):
            dialer.receive(patience(10))
    assert service.messages() == []


def test_whoever_is_allowed_later_gets_in_later(people: People, serve: Serve) -> None:
    service = serve(roles=("client",))
    outgoing = Outgoing(service.address, role="client", token=people.path("stranger"))
    try:
        until(outgoing, lambda: outgoing.refusal)
        assert "does not let our key stranger in" in str(outgoing.refusal)
        people.allow("n1", stranger="client")
        until(outgoing, lambda: outgoing.link)
        assert outgoing.refusal is None
    finally:
        outgoing.close()


@pytest.mark.parametrize("how", ["nonsense\n", None])
def test_a_list_that_is_broken_lets_nobody_new_in(
    people: People, serve: Serve, how: str | None
) -> None:
    service = serve(roles=("client",))
    path = Path(people.path("n1")) / "allowed"
    with Dialer(service.address, role="client", token=people.path("client")) as dialer:
        dialer.connect(patience(10))
        good = path.read_text()
        if how is None:
            path.unlink()
        else:
            people.write("n1", how)
        with Raw(service.address, **pair_of(people.ring("client"), people.public["n1"])) as raw:
            assert raw.gets_in() is False
        assert service.counts["refused_list"] == 1
        assert asked(dialer, 1) == Stop("1")
        people.write("n1", good)
        well(people, service)


# --- the guard itself ----------------------------------------------------------------------------


def test_nobody_gets_in_while_nobody_guards(people: People) -> None:
    """The loop that serves is the loop that asks: no thread of its own could have died."""
    way = pair_of(people.ring("n2"), people.public["n1"])
    door = Listener(LOOPBACK, token=people.path("n1"), roles=("replica",))
    with door, Raw(door.address, **way) as raw:
        assert raw.gets_in(0.3) is None

        def admitted() -> bool | None:
            door.drain(10, 1000)
            return raw.gets_in(0.01)

        assert eventually(admitted)


def test_a_guard_that_is_gone_keeps_everybody_out(people: People) -> None:
    with Listener(LOOPBACK, token=people.path("n1"), roles=("replica",)) as door:
        guard = door._guard
        assert guard is not None
        guard.zap.close()
        with Raw(door.address, **pair_of(people.ring("n2"), people.public["n1"])) as raw:
            assert not raw.gets_in(2.0)
        with pytest.raises(zmq.ZMQError):
            door.drain(10, 1000)


def _no_handler(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Guard, "answer", lambda self: None)


def _nowhere(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(zap, "HANDLER", "inproc://elsewhere")


def _not_enforced(patch: pytest.MonkeyPatch) -> None:
    """As libzmq has it by default: whom it cannot ask about, it lets in."""
    _nowhere(patch)
    patch.setattr(zmq, "ZAP_ENFORCE_DOMAIN", zmq.IMMEDIATE)


def _lets_all_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Guard, "_judged", lambda self, frames: (frames[6].hex(), ""))


@pytest.mark.parametrize(
    ("breakage", "finding"),
    [
        (_no_handler, "our own key is not let in"),
        (_nowhere, "our own key is not let in"),
        (_not_enforced, "a stranger's key is let in"),
        (_lets_all_in, "a stranger's key is let in"),
    ],
)
def test_what_would_let_strangers_in_does_not_listen(
    people: People, monkeypatch: pytest.MonkeyPatch, breakage: Callable[..., None], finding: str
) -> None:
    breakage(monkeypatch)
    monkeypatch.setattr(zap, "TEST_SECONDS", 0.5)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with pytest.raises(RefusedError, match=finding):
        Listener(f"tcp://127.0.0.1:{port}", token=people.path("n1"))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_libzmq_without_curve_is_told_in_a_sentence(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, "has", lambda what: False)
    with pytest.raises(RefusedError, match="built without CURVE"):
        Listener(LOOPBACK, token=people.path("n1"))
    with pytest.raises(RefusedError, match="built without CURVE"):
        Dialer("tcp://127.0.0.1:9", role="worker", token=people.path("worker"))
    monkeypatch.undo()
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 3, 4))
    with pytest.raises(RefusedError, match="known holes"):
        Listener(LOOPBACK, token=people.path("n1"))


def test_a_server_has_to_be_in_its_own_list(people: People) -> None:
    people.allow("n1", n1="client")
    with pytest.raises(RefusedError, match="does not have our own key n1"):
        Listener(LOOPBACK, token=people.path("n1"))


# --- whom one dials ------------------------------------------------------------------------------


def test_an_impostor_does_not_even_hear_the_hello(people: People) -> None:
    """It has a key, and it is not one that the dialer allows."""
    people.allow("stranger", stranger="replica", client="client")
    people.allow("client", n1="replica", n2="replica")
    service = Service(people.path("stranger"), roles=("client",))
    try:
        with (
            Dialer(service.address, role="client", token=people.path("client")) as dialer,
            pytest.raises(ConnectionFailed, match="the key of no server that"),
        ):
            dialer.connect(patience(10))
        assert service.events == []
        assert service.counts["received"] == 0
    finally:
        service.close()


def test_a_server_without_keys_does_not_hear_it_either(people: People, tmp_path: Path) -> None:
    token = str(tmp_path / "token")
    keys.make_token(token)
    service = Service(token, roles=("client",))
    try:
        with (
            Dialer(service.address, role="client", token=people.path("client")) as dialer,
            pytest.raises(ConnectionFailed, match=r"does not prove itself by|the key of no server"),
        ):
            dialer.connect(patience(10))
        assert service.counts["received"] == 0
    finally:
        service.close()


def test_the_right_server_is_found_among_several(people: People, serve: Serve) -> None:
    people.make("n3", "n4")
    people.write("client", "")
    people.lists["client"] = {}
    people.allow("client", n4="replica", n3="replica", n2="replica", n1="replica")
    well(people, serve(roles=("client",)))


def test_a_server_is_only_where_it_may_be(people: People, serve: Serve) -> None:
    service = serve(roles=("client",))
    port = service.address.rpartition(":")[2]
    for place, there in ((f"127.0.0.1:{port}", True), ("127.0.0.1", True), ("10.0.0.1", False)):
        people.allow("client", n1=f"replica at={place}")
        if there:
            well(people, service)
            continue
        with pytest.raises(RefusedError, match="knows no server that may be at"):
            Dialer(service.address, role="client", token=people.path("client"))


def test_a_revoked_server_is_left(people: People, serve: Serve) -> None:
    service = serve(roles=("client",))
    outgoing = Outgoing(service.address, role="client", token=people.path("client"))
    try:
        until(outgoing, lambda: outgoing.link)
        people.allow("client", n1="revoked")
        until(outgoing, lambda: outgoing.link is None)
        assert not outgoing.send(Scanned(1))
        until(outgoing, lambda: outgoing.refusal)
        until(outgoing, lambda: ("client", "client", False) in service.links())
    finally:
        outgoing.close()


def test_a_worker_leaves_a_revoked_server(people: People) -> None:
    """Also one that waits for its next message, and for nothing else."""
    people.allow("n1", n1="coordinator")
    service = Service(people.path("n1"))
    try:
        with Dialer(service.address, role="worker", token=people.path("worker")) as dialer:
            dialer.connect(patience(10))
            people.allow("worker", n1="revoked")
            with pytest.raises(ConnectionFailed, match="the key of no server that"):
                dialer.receive(patience(10))
    finally:
        service.close()


def test_a_server_that_comes_back_is_found_again(people: People, serve: Serve) -> None:
    service = serve(roles=("client",))
    outgoing = Outgoing(service.address, role="client", token=people.path("client"))
    try:
        until(outgoing, lambda: outgoing.link)
        service.close()
        until(outgoing, lambda: outgoing.link is None)
        again = serve(roles=("client",), address=service.address)
        until(outgoing, lambda: outgoing.link)
        outgoing.send(Scanned(4))
        until(outgoing, again.messages)
        assert again.messages() == [Scanned(4)]
    finally:
        outgoing.close()


# --- those who only want to be a nuisance --------------------------------------------------------


def test_the_idle_and_the_slow_are_let_go(
    people: People, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    """They hold a descriptor each for as long as a handshake may take, and keep nobody out."""
    monkeypatch.setattr(listener, "HANDSHAKE_MS", 1000)
    service = serve(roles=("client",))
    host, _, port = service.address.removeprefix("tcp://").rpartition(":")
    sockets = [socket.create_connection((host, int(port))) for _ in range(dose(200, 1000))]
    try:
        for number, one in enumerate(sockets):
            one.send((b"", b"\xff", b"\xff" + bytes(8), b"GET / HTTP/1.1\r\n")[number % 4])
        well(people, service)
        for one in sockets:
            one.settimeout(patience(10))
            try:
                while one.recv(4096):
                    pass
            except ConnectionResetError:
                continue  # as good an end as any
    finally:
        for one in sockets:
            one.close()
    eventually(lambda: service.counts["refused_unproven"] >= len(sockets))
    well(people, service)
    assert service.counts["malformed"] == 0


def test_a_crowd_is_turned_away(people: People, serve: Serve) -> None:
    service = serve(roles=("client",))
    guard = service.listener._guard
    assert guard is not None
    guard._connections_max = 8
    host, _, port = service.address.removeprefix("tcp://").rpartition(":")
    sockets = [socket.create_connection((host, int(port))) for _ in range(20)]
    eventually(lambda: service.counts.get("refused_crowd", 0) >= 12)
    for one in sockets:
        one.close()
    well(people, service)


def test_too_large_a_message_costs_its_sender_the_connection(people: People, serve: Serve) -> None:
    service = serve(roles=("client",))
    way = pair_of(people.ring("client"), people.public["n1"])
    with Raw(service.address, **way) as raw:
        assert raw.gets_in()
        raw.socket.send(bytes(envelope.FRAME_MAX + 1))
        assert raw.gets_in(), "it was not disconnected, and so did not dial again"
    well(people, service)
    assert service.counts["malformed"] == 0


def test_only_the_loopback_does_without_keys(people: People, tmp_path: Path) -> None:
    token = str(tmp_path / "token")
    keys.make_token(token)
    for proof in (None, token, str(tmp_path / "nothing")):
        with pytest.raises(RefusedError, match="not on this machine's loopback"):
            Listener("tcp://0.0.0.0:*", token=proof)
        with pytest.raises(RefusedError, match="not on this machine's loopback"):
            Dialer("tcp://10.0.0.1:80", role="worker", token=proof)
    for host in ("localhost", "eth0", "*", "::1", "[10.0.0.1]", ""):
        with pytest.raises(UsageError, match=r"interface|brackets"):
            Listener(f"tcp://{host}:*", token=people.path("n1"))
    for host in ("0.0.0.0", "[::]", "a b", "", "::1", "-" * 254):
        with pytest.raises(UsageError, match=r"nobody's address|does not name a host|brackets"):
            Dialer(f"tcp://{host}:9", role="client", token=people.path("client"))
    for host in ("n1.example", "10.0.0.1", "[fe80::1]"):
        Dialer(f"tcp://{host}:9", role="client", token=people.path("client")).close()


def test_secrets_are_in_no_representation(people: People) -> None:
    ring = people.ring("n1")
    _, secret = ring.pair
    guard = Guard(people.path("n1"), frozenset(), {})
    for one in (ring, guard, vars(guard), curve.Keyring):
        assert secret.hex() not in repr(one)
