"""One call at a time on real connections, and how each may end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zmq
from support import patience
from waiting import eventually

from engine.calls import Call
from engine.contract import SECOND, Event, Link, Linked, Nanos, Received
from engine.errors import ConnectionFailed, NotFoundError, OutcomeUnknown, RefusedError, UsageError
from engine.mapreduce.messages import Scanned, Stop
from engine.runtime import world
from engine.runtime.caller import Caller, Client
from engine.wire import keys
from engine.wire.endpoint import Listener


class Service:
    """Answers `Scanned(n)` with `Stop("n")` in a thread, but for negative numbers."""

    def __init__(self, address: str = "ipc://*", **options: Any) -> None:
        self.listener = Listener(address, **({"roles": ("client",)} | options))
        self.address = self.listener.address
        self.events: list[Event] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        polled = [(source.socket, zmq.POLLIN) for source in self.listener.pollables()]
        while not self._ended.is_set():
            zmq.zmq_poll(polled, 10)
            for event in self.listener.drain(100, 1 << 20):
                self.events.append(event)
                if isinstance(event, Received) and event.message.attempt >= 0:
                    self.listener.send(event.link, Stop(str(event.message.attempt)))

    def heard(self) -> list[int]:
        return [e.message.attempt for e in self.events if isinstance(e, Received)]

    def close(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            self.listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def start(*arguments: Any, **options: Any) -> Service:
        services.append(Service(*arguments, **options))
        return services[-1]

    yield start
    for service in services:
        service.close()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c")


class Question(Call):
    """Says a number to addresses until somebody says it back."""

    def __init__(
        self, number: int, *addresses: str, caller: Caller, up: set[str] | None = None
    ) -> None:
        super().__init__(caller.patience, set() if up is None else up)
        self.number, self.addresses = number, addresses

    def ask(self, now: Nanos) -> None:
        for address in self.addresses:
            self.say(address, Scanned(self.number))

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        if up:
            self.ask_at(now)

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        if message == Stop("7"):
            self.fail(UsageError("Seven is no question."))
        elif message == Stop(str(self.number)):
            self.finish((link.principal, message))

    def silence(self) -> str:
        return f"No answer from {' or '.join(self.addresses)}"


class Asker(Client):
    """A client, as every service has one."""

    def __init__(self, *addresses: str, timeout: float | None = 20.0, **how: Any) -> None:
        timeout = None if timeout is None else patience(timeout)
        super().__init__(Caller(timeout=timeout, **how))
        self.addresses = addresses
        self.up: set[str] = set()

    def ask(self, number: int, *addresses: str) -> Any:
        addresses = addresses or self.addresses
        return self._caller.run(Question(number, *addresses, caller=self._caller, up=self.up))


# --- answers -------------------------------------------------------------------------------------


def test_it_returns_the_answer_and_keeps_the_connection(serve: Callable[..., Service]) -> None:
    service = serve()
    with Asker(service.address) as asker:
        for number in range(1, 5):
            assert asker.ask(number) == (service.address, Stop(str(number)))
    eventually(lambda: isinstance(service.events[-1], Linked), what="the end of the connection")
    assert [e.up for e in service.events if isinstance(e, Linked)] == [True, False]


def test_it_waits_for_whoever_comes_later(serve: Callable[..., Service], folder: Path) -> None:
    address = f"ipc://{folder}/s"
    with Asker(address, timeout=None) as asker:
        starter = threading.Timer(0.1, serve, (address,))
        starter.start()
        assert asker.ask(1) == (address, Stop("1"))
        starter.join()


def test_a_server_that_restarts_is_asked_again(serve: Callable[..., Service], folder: Path) -> None:
    address = f"ipc://{folder}/s"
    first = serve(address)
    with Asker(address) as asker:
        assert asker.ask(1) == (address, Stop("1"))
        first.close()
        second = serve(address)
        assert asker.ask(2) == (address, Stop("2"))
    assert set(second.heard()) == {2}


def test_the_first_of_several_counts(serve: Callable[..., Service]) -> None:
    service = serve()
    with Asker("ipc:///nowhere/at/all", service.address) as asker:
        assert asker.ask(3) == (service.address, Stop("3"))


def test_via_and_token(serve: Callable[..., Service], tmp_path: Path) -> None:
    token = str(tmp_path / "token")
    keys.make_token(token)
    service = serve("tcp://127.0.0.1:*", token=token)
    with Asker("ipc:///its/name", token=token, via={"ipc:///its/name": service.address}) as asker:
        assert asker.ask(1) == ("ipc:///its/name", Stop("1"))


def test_the_role_is_said(serve: Callable[..., Service]) -> None:
    service = serve(roles=("server",))
    with Asker(service.address, role="server") as asker:
        asker.ask(1)
    assert service.events[0].link.role == "server"  # type: ignore[union-attr]


# --- errors --------------------------------------------------------------------------------------


def test_nobody_there_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "WAIT_MS_MAX", 60_000)  # it is the call that says when to wake
    began = monotonic()
    with Asker("ipc:///nowhere/at/all", timeout=0.2) as asker:
        with pytest.raises(ConnectionFailed, match="No answer from ipc:///nowhere/at/all"):
            asker.ask(1)
        assert 0.2 <= monotonic() - began < patience(20)
        with pytest.raises(ConnectionFailed, match="nothing was done"):
            asker.ask(2)


def test_one_that_hears_and_does_not_answer_leaves_it_unknown(
    serve: Callable[..., Service],
) -> None:
    service = serve()
    with Asker(service.address, timeout=1) as asker:
        asker.ask(1)
        with pytest.raises(OutcomeUnknown, match="may have been done"):
            asker.ask(-5)
        assert asker.ask(2) == (service.address, Stop("2")), "the next call is a new one"
    assert len([n for n in service.heard() if n == -5]) > 1, "it was asked again meanwhile"


def test_one_that_went_before_it_was_asked_did_nothing(serve: Callable[..., Service]) -> None:
    service = serve()
    with Asker(service.address, timeout=1) as asker:
        asker.ask(1)
        service.close()
        # Nobody has looked at the connection since, so the first may be said into it.
        with pytest.raises((OutcomeUnknown, ConnectionFailed)):
            asker.ask(2)
        with pytest.raises(ConnectionFailed):
            asker.ask(3)


def test_what_the_call_fails_with_is_raised(serve: Callable[..., Service]) -> None:
    service = serve()
    with Asker(service.address) as asker:
        with pytest.raises(UsageError, match="Seven"):
            asker.ask(7)
        assert asker.ask(8) == (service.address, Stop("8"))


def test_a_refusal_is_raised_and_not_waited_out(serve: Callable[..., Service]) -> None:
    service = serve(roles=("worker",))
    with (
        Asker(service.address, timeout=None) as asker,
        pytest.raises(RefusedError, match="No 'client' numbered -1 belongs here"),
    ):
        asker.ask(1)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("nonsense", RefusedError),
        ("tcp://192.0.2.1:80", RefusedError),
        ("tcp://127.0.0.1:" + "80", RefusedError),
        ("ipc://", UsageError),
    ],
)
def test_an_address_that_cannot_be_dialed_is_raised(address: str, error: type) -> None:
    with Asker(address, timeout=None) as asker:
        for _ in range(2):
            with pytest.raises(error):
                asker.ask(1)


def test_a_missing_token_is_raised(tmp_path: Path) -> None:
    missing = str(tmp_path / "no")
    with Asker("tcp://127.0.0.1:1", token=missing) as asker, pytest.raises(NotFoundError):
        asker.ask(1)


def test_one_that_refused_earlier_does_not_speak_for_others(serve: Callable[..., Service]) -> None:
    service = serve()
    with Asker(service.address) as asker:
        with pytest.raises(RefusedError):
            asker.ask(1, "nonsense")
        assert asker.ask(2) == (service.address, Stop("2"))


def test_one_that_refuses_does_not_speak_for_all(serve: Callable[..., Service]) -> None:
    service = serve()
    with Asker("nonsense", service.address) as asker:
        assert asker.ask(1) == (service.address, Stop("1"))


def test_one_that_refused_may_think_otherwise_later(serve: Callable[..., Service]) -> None:
    service = serve(roles=("worker",))
    with Asker(service.address) as asker:
        with pytest.raises(RefusedError):
            asker.ask(1)
        service.listener.roles = frozenset(("client",))

        def answered() -> bool:
            try:
                return bool(asker.ask(2) == (service.address, Stop("2")))
            except RefusedError:
                return False  # its last word, until it was asked anew

        eventually(answered)


# --- the rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("timeout", "nanos"), [(None, None), (0, 0), (0.5, SECOND // 2)])
def test_patience_is_the_timeout(timeout: float | None, nanos: Nanos | None) -> None:
    caller = Caller(timeout=timeout)
    assert caller.patience == nanos
    caller.close()


def test_a_client_closes_its_connections_whatever_happens(serve: Callable[..., Service]) -> None:
    service = serve()
    asker = Asker(service.address)
    with pytest.raises(UsageError), asker:
        asker.ask(7)
    eventually(lambda: service.listener.links == [], what="the end of the connection")
    with Asker(service.address) as again:
        assert again.ask(2) == (service.address, Stop("2"))
