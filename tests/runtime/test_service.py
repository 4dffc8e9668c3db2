"""A server's life: it says that it serves, and ends when it is told to."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from support import patience

from engine.contract import Event, Nanos, Ready, Server
from engine.runtime.service import (
    GROWN,
    LONG,
    LOOK_NANOS,
    Collections,
    new_incarnation,
    run,
)
from engine.runtime.world import WAIT_MS_MAX
from engine.wire.endpoint import Dialer

PROGRAM = """
import os, signal, sys
from engine.contract import Ready, Server
from engine.runtime.service import run
from engine.runtime.world import SocketWorld
from engine.wire.endpoint import Listener

class Nothing:
    def step(self, now, events):
        if "die" in sys.argv:
            raise ValueError("a bug")
    def ready(self):
        return Ready()
    def check(self):
        pass

listener = Listener("ipc://*", roles=("client",))
world = SocketWorld(listener)
try:
    run(Server(Nothing(), world), world, "nothing is served", listener.address, "json" in sys.argv)
finally:
    world.close()
directory = os.path.dirname(listener.address.removeprefix("ipc://"))
assert not os.path.exists(directory)
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
print("and then the end")
"""


class Program:
    """The program above, in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={n: v for n, v in os.environ.items() if n != "PYTHONUNBUFFERED"},
        )

    def said(self, where: str) -> str:
        """The next line."""
        stream: Any = getattr(self.process, where)
        assert select.select([stream], [], [], patience(20))[0], "it says nothing"
        line: str = stream.readline()
        return line

    def ends(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=patience(20))
        return self.process.returncode, out, err


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    programs: list[Program] = []

    def begin(*words: str) -> Program:
        programs.append(Program(*words))
        return programs[-1]

    yield begin
    for program in programs:
        program.process.kill()
        program.process.communicate()


def test_it_is_announced_as_a_sentence(start: Callable[..., Program]) -> None:
    program = start()
    sentence = program.said("stderr")
    assert sentence.startswith("engine: nothing is served at ipc://")
    address = sentence.split(" at ")[1].strip()
    with Dialer(address, role="client") as dialer:
        dialer.connect(patience(10))  # what is announced is there
    program.process.terminate()
    assert program.ends() == (0, "and then the end\n", "")


def test_it_is_announced_as_json(start: Callable[..., Program]) -> None:
    program = start("json")
    told = json.loads(program.said("stdout"))
    assert told.keys() == {"address", "pid"}
    assert told["pid"] == program.process.pid
    with Dialer(told["address"], role="client") as dialer:
        dialer.connect(patience(10))
    program.process.terminate()
    assert program.ends() == (0, "and then the end\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_with_0_and_soon(start: Callable[..., Program], number: int) -> None:
    program = start("json")
    program.said("stdout")
    began = monotonic()
    program.process.send_signal(number)
    code, out, err = program.ends()
    assert (code, out, err) == (0, "and then the end\n", "")
    assert monotonic() - began < patience(WAIT_MS_MAX / 1000 + 3)


def test_more_signals_change_nothing(start: Callable[..., Program]) -> None:
    program = start("json")
    program.said("stdout")
    os.kill(program.process.pid, signal.SIGSTOP)
    for number in (signal.SIGINT, signal.SIGTERM):
        program.process.send_signal(number)
    os.kill(program.process.pid, signal.SIGCONT)
    assert program.ends() == (0, "and then the end\n", "")


def test_a_bug_ends_it_with_its_traceback(start: Callable[..., Program]) -> None:
    program = start("json", "die")
    code, _, err = program.ends()
    assert code == 1
    assert "ValueError: a bug" in err


def test_its_folder_goes_with_it(start: Callable[..., Program]) -> None:
    program = start("json")
    address = json.loads(program.said("stdout"))["address"]
    folder = Path(address.removeprefix("ipc://")).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    program.process.terminate()
    program.ends()
    assert not folder.exists()


# --- in this process -----------------------------------------------------------------------------


class Counter:
    """A machine that counts its turns, and wants the next one at a certain time."""

    def __init__(self) -> None:
        self.turns = 0

    def step(self, now: Nanos, events: Any) -> None:
        self.turns += 1

    def ready(self) -> Ready:
        return Ready(wake_at=100 + self.turns)

    def check(self) -> None:
        pass


class Loop:
    """A world whose third wait does something."""

    def __init__(self, third: Callable[[], Any]) -> None:
        self.waits: list[Nanos | None] = []
        self._third = third

    def now(self) -> Nanos:
        return 0

    def drain(self, frames: int, size: int) -> list[Event]:
        return []

    def send(self, sends: Any) -> None:
        pass

    def write(self, group: Any) -> int:
        raise AssertionError

    def start(self, job: Any) -> None:
        raise AssertionError

    def point(self, name: str) -> None:
        pass

    def wait(self, until: Nanos | None) -> None:
        self.waits.append(until)
        if len(self.waits) == 3:
            self._third()


@pytest.fixture
def frozen() -> Iterator[None]:
    """`run` freezes what is there; these tests go on."""
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_turns_until_a_signal_and_gives_the_handlers_back(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    machine, world = Counter(), Loop(lambda: os.kill(os.getpid(), number))
    run(Server(machine, world), world, "this is served", "ipc:///here", as_json=False)
    assert machine.turns == 3
    assert world.waits == [101, 102, 103]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert tuple(capsys.readouterr()) == ("", "engine: this is served at ipc:///here\n")


@pytest.mark.usefixtures("frozen")
def test_an_exception_gives_the_handlers_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    world = Loop(lambda: {}["no"])  # type: ignore[index]
    with pytest.raises(KeyError):
        run(Server(Counter(), world), world, "", "ipc:///here", as_json=True)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert json.loads(capsys.readouterr().out) == {"address": "ipc:///here", "pid": os.getpid()}


def test_incarnations_grow() -> None:
    first = new_incarnation()
    command = "from engine.runtime.service import new_incarnation as n; print(n())"
    later = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
    assert first < int(later.stdout) < new_incarnation()


class Cycle:
    """Not let go of by itself."""

    def __init__(self) -> None:
        self.me = self


def _full() -> int:
    return int(gc.get_stats()[2]["collections"])


def _kept_for_long(many: int, collections: Collections) -> None:
    """Cycles that are old when nobody wants them any more."""
    for _ in range(0, many, 5000):
        kept = [Cycle() for _ in range(5000)]
        gc.collect(1)
        gc.collect(1)
        del kept
        if collections.due:
            collections.look()


def _cycles() -> int:
    return sum(type(one) is Cycle for one in gc.get_objects())


def test_cycles_of_old_objects_do_not_pile_up() -> None:
    with Collections(lambda: 0) as collections:  # as if each took no time, whatever else is here
        full = _full()
        _kept_for_long(400_000, collections)
        assert _cycles() < 100_000
        assert _full() > full


def test_a_collection_that_takes_long_is_put_off() -> None:
    """Until what it may let go of is a multiple of what it had to go through."""
    times = count(0, 2 * LONG)
    with Collections(lambda: next(times)) as collections:
        full = _full()
        collections.look()
        looks = 2 * GROWN * LONG // LOOK_NANOS
        for _ in range(looks - 1):
            collections.look()
        assert _full() == full + 1
        collections.look()
        assert _full() == full + 2


def test_afterwards_python_does_as_before() -> None:
    before, callbacks = gc.get_threshold(), list(gc.callbacks)
    with Collections():
        assert gc.get_threshold() != before
    assert gc.get_threshold() == before
    assert gc.callbacks == callbacks


@pytest.fixture(autouse=True)
def _nothing_stays_frozen() -> Iterator[None]:
    yield
    gc.unfreeze()
