"""The ten tests of the labs' primary/backup service, by name, on real processes; and stricter ones.

    pytest -m pbservice                             our servers
    pytest -m pbservice --impl module:factory       anybody's

`factory(folder, seed)` returns a context manager that gives `Servers`: a view service that runs
already, and up to three servers, `s1` to `s3`, that a test starts, kills and attacks. A lab's test
that runs for a while under random load runs here for a number of operations or of crashes.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Any, Protocol

import pytest
from support import dose, patience
from waiting import eventually

pytestmark = [pytest.mark.pbservice, pytest.mark.processes]

DEAD_PINGS = 5
"""So many intervals of silence, and the view service takes a server for dead."""
LONG = DEAD_PINGS + 2
"""Intervals after which everybody has noticed whatever will be noticed."""


class Clerk(Protocol):
    """A client. Every operation is asked again until it is answered, and takes effect once.

    TimeoutError when the clerk's patience is over: then nobody knows whether it took effect, and
    the tests do not use this clerk again. One thread uses it at a time.
    """

    def get(self, key: str) -> str:
        """The value; "" if there is none."""

    def put(self, key: str, value: str) -> None: ...
    def append(self, key: str, value: str) -> None: ...


class Servers(Protocol):
    """What the tests need of an implementation.

    Servers are named `s1`, `s2`, `s3`, the view service `views`, clerks as the test likes. Between
    any two of them is a link, which can be attacked; what the tests themselves ask (`view`) is
    never attacked. `clerk` and `requests` are called by any thread, the others by one.
    """

    interval: float
    """Seconds from ping to ping (0.1 in the labs). Five without any make a server dead."""

    def start(self, name: str) -> None:
        """Start a server, with nothing in its memory; returns when it can be spoken to."""

    def kill(self, name: str) -> None:
        """SIGKILL: it is gone when this returns."""

    def pause(self, name: str) -> None:
        """SIGSTOP: what is sent to it waits in its sockets."""

    def resume(self, name: str) -> None:
        """SIGCONT."""

    def view(self) -> tuple[int, str, str]:
        """(number, primary, backup) of the present view, as the view service says; "" is nobody."""

    def clerk(self, name: str, patience_seconds: float = 30.0) -> AbstractContextManager[Clerk]:
        """A new client. It finds the servers through the view service, and remembers the primary
        that it found; the name says which links it uses, and comes back for another client."""

    def unreliable(self, name: str, on: bool = True) -> None:
        """From now on a server loses one request of ten before it looks at it, whoever sends it;
        and of the others that it carries out, it loses the answers to two of ten."""

    def cut(self, source: str, destination: str) -> None:
        """What the source says to the destination is lost, be it a request or an answer; one way
        only, and neither end notices. Either may be `*`, which is everybody."""

    def heal(self) -> None:
        """End all cuts. What was said meanwhile stays lost."""

    def delay(self, name: str, seconds: float) -> None:
        """Hold every request to a server for so long, then deliver it; 0: no more."""

    def requests(self, source: str, destination: str) -> int:
        """How many requests have been delivered; either name may be `*`."""


# --- what the tests wait for ---------------------------------------------------------------------


def view_is(lab: Servers, primary: str, backup: str) -> None:
    """Wait for these members; the labs allow 1 to 1.5 s."""
    eventually(lambda: lab.view()[1:] == (primary, backup), 10, f"view ({primary}, {backup})")


def pings(lab: Servers, name: str, count: int) -> None:
    """Wait until the view service has heard this server so many times more.

    Where a lab says that time passes, this is how it does here: by its own clock, the interval.
    """
    enough = lab.requests(name, "views") + count
    eventually(lambda: lab.requests(name, "views") >= enough, 10, f"{count} pings of {name}")


def settled(lab: Servers, primary: str = "", backup: str = "") -> tuple[str, str]:
    """Wait until the view has two members (these, if named) and the backup holds all data.

    A server that dies before that may rightly take all data with it. That the primary pinged since
    proves that it knows the view, and a write acknowledged after that, that its backup is ready.
    """
    view, heard = (0, "", ""), 0

    def knows() -> bool:
        nonlocal view, heard
        before, view = view, lab.view()
        if view != before:
            heard = lab.requests(view[1], "views")
        wanted = (view[0], primary or view[1], backup or view[2])
        return view == wanted and view[2] != "" and lab.requests(view[1], "views") >= heard + 3

    def ready() -> bool:
        eventually(knows, 20, f"a primary and a backup ({primary}, {backup})")
        with lab.clerk("settler") as clerk:
            clerk.put("settled", str(view[0]))
        return lab.view() == view

    eventually(ready, 20, "a backup that holds all data")
    return view[1], view[2]


@contextmanager
def part(name: str) -> Iterator[None]:
    """A part of a lab's test: named if it fails."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the part: {name}")
        raise


@contextmanager
def running(*clients: Callable[[threading.Event], Any]) -> Iterator[list[Future[Any]]]:
    """Clients, each in a thread of its own; at the end of the block they are told to stop, and
    waited for. What a client fails with, the test fails with."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(clients)) as pool:
        futures = [pool.submit(client, stop) for client in clients]
        try:
            yield futures
        finally:
            stop.set()
            for future in futures:
                future.result()


def two_servers(lab: Servers) -> None:
    """`s1` is primary, `s2` backup, and both hold the data."""
    lab.start("s1")
    view_is(lab, "s1", "")
    lab.start("s2")
    settled(lab, "s1", "s2")


def three_servers(lab: Servers) -> None:
    """`s3` is idle."""
    two_servers(lab)
    lab.start("s3")
    pings(lab, "s3", 1)


def cut_both(lab: Servers, one: str, other: str) -> None:
    lab.cut(one, other)
    lab.cut(other, one)


def check_appends(value: str, counts: list[int]) -> None:
    """The value is made of `<client.number>`: of each client all numbers, once and in order."""
    found = [(int(client), int(number)) for client, number in re.findall(r"<(\d+)\.(\d+)>", value)]
    assert "".join(f"<{client}.{number}>" for client, number in found) == value
    for client, count in enumerate(counts):
        own = [number for found_client, number in found if found_client == client]
        assert own == list(range(count)), f"client {client}"
    assert len(found) == sum(counts)


# --- the lab's tests -----------------------------------------------------------------------------


def test_basic_fail(lab: Servers) -> None:
    """One server, a second, the first dies, the second dies."""
    with lab.clerk("c1") as clerk:
        with part("single primary, no backup"):
            lab.start("s1")
            view_is(lab, "s1", "")
            for key, value in (("111", "v1"), ("2", "v2"), ("1", "v1a"), ("1", "v1b")):
                clerk.put(key, value)
                assert clerk.get(key) == value
            clerk.append("ak", "hello")
            assert clerk.get("ak") == "hello"
            clerk.put("ak", "xx")
            clerk.append("ak", "yy")
            assert clerk.get("ak") == "xxyy"
            assert clerk.get("nothing") == ""
        with part("add a backup"):
            lab.start("s2")
            view_is(lab, "s1", "s2")
            clerk.put("3", "33")
            assert clerk.get("3") == "33"
            settled(lab, "s1", "s2")
            clerk.put("4", "44")
            assert clerk.get("4") == "44"
        with part("count RPCs to the view service"):
            before, began = lab.requests("*", "views"), monotonic()
            for number in range(100):
                clerk.put(f"xk{number}", str(number))
            intervals = (monotonic() - began) / lab.interval
            assert lab.requests("*", "views") - before <= 2 * intervals + 20
        with part("primary failure"):
            lab.kill("s1")
            view_is(lab, "s2", "")
            assert [clerk.get(key) for key in ("1", "3", "4")] == ["v1b", "33", "44"]
    with part("last server is killed: an empty one must not serve"):
        lab.kill("s2")
        lab.start("s3")
        pings(lab, "s3", LONG)
        with lab.clerk("c2", dose(1.0, 2.0)) as clerk, pytest.raises(TimeoutError):
            clerk.get("1")


def test_at_most_once(lab: Servers) -> None:
    """One unreliable server; 100 appends, each once."""
    lab.start("s1")
    lab.unreliable("s1")
    view_is(lab, "s1", "")
    with lab.clerk("c1") as clerk:
        for number in range(100):
            clerk.append("counter", str(number))
        asked = lab.requests("c1", "s1")
        assert clerk.get("counter") == "".join(map(str, range(100)))
    assert asked > 100, "nothing was ever repeated: the test proved nothing"


def test_fail_put(lab: Servers) -> None:
    """The backup dies, and then the primary; puts that follow at once succeed."""
    three_servers(lab)
    with lab.clerk("c1") as clerk:
        for key, value in (("a", "aa"), ("b", "bb"), ("c", "cc")):
            clerk.put(key, value)
            assert clerk.get(key) == value
        settled(lab, "s1", "s2")
        with part("backup"):
            lab.kill("s2")
            clerk.put("a", "aaa")
            assert clerk.get("a") == "aaa"
            settled(lab, "s1", "s3")
            assert clerk.get("a") == "aaa"
        with part("primary"):
            lab.kill("s1")
            clerk.put("b", "bbb")
            assert clerk.get("b") == "bbb"
            view_is(lab, "s3", "")
            assert [clerk.get(key) for key in "abc"] == ["aaa", "bbb", "cc"]


def concurrent_puts(lab: Servers, count: int) -> None:
    """Three clients put to two keys; then primary and backup, asked in turn, say the same."""
    values: set[str] = {""}

    def client(number: int) -> None:
        rng = random.Random(number)
        with lab.clerk(f"c{number}") as clerk:
            for step in range(count):
                value = f"{number}.{step}"
                values.add(value)
                clerk.put(str(rng.randrange(2)), value)

    settled(lab, "s1", "s2")
    with running(*(lambda stop, number=number: client(number) for number in range(3))):
        pass
    with lab.clerk("reader") as clerk:
        before = [clerk.get(key) for key in "01"]
        assert set(before) <= values - {""}
        lab.kill("s1")
        view_is(lab, "s2", "")
        assert [clerk.get(key) for key in "01"] == before


def test_concurrent_same(lab: Servers) -> None:
    """Concurrent puts to the same keys: primary and backup end with the same values."""
    two_servers(lab)
    concurrent_puts(lab, dose(300, 3000))


def test_concurrent_same_unreliable(lab: Servers) -> None:
    """The same with servers that lose requests and answers."""
    two_servers(lab)
    for name in ("s1", "s2"):
        lab.unreliable(name)
    concurrent_puts(lab, dose(20, 300))


def test_concurrent_same_append(lab: Servers) -> None:
    """Three clients append 50 times each to one key; nothing is lost, doubled or out of order."""
    two_servers(lab)

    def client(number: int) -> None:
        with lab.clerk(f"c{number}") as clerk:
            for step in range(50):
                clerk.append("k", f"<{number}.{step}>")

    with running(*(lambda stop, number=number: client(number) for number in range(3))):
        pass
    with lab.clerk("reader") as clerk:
        before = clerk.get("k")
        check_appends(before, [50] * 3)
        lab.kill("s1")
        view_is(lab, "s2", "")
        assert clerk.get("k") == before


def crash_again_and_again(
    lab: Servers, rounds: int, seed: int, progress: Callable[[], int]
) -> None:
    """Kill a server and start it again; the labs wait 1 s after each, this until all is well."""
    rng = random.Random(seed)
    for _ in range(rounds):
        members = settled(lab)
        # Mostly one that has a part; but in the labs it may be the idle one.
        name = rng.choice([*members, *members, "s1", "s2", "s3"])
        before = progress()
        lab.kill(name)
        settled(lab)
        lab.start(name)
        pings(lab, name, 1)
        eventually(lambda before=before: progress() >= before + 10, 20, "clients to go on")


def test_repeated_crash(lab: Servers) -> None:
    """Servers die and come back with nothing, while each client reads what it last put."""
    three_servers(lab)
    done = [0, 0]

    def client(number: int, stop: threading.Event) -> None:
        rng = random.Random(number)
        last: dict[str, str] = {}
        with lab.clerk(f"c{number}") as clerk:
            while not stop.is_set():
                key = f"{number}-{rng.randrange(10)}"
                if key in last:
                    assert clerk.get(key) == last[key]
                last[key] = str(rng.random())
                clerk.put(key, last[key])
                assert clerk.get(key) == last[key]
                done[number] += 1
                stop.wait(0.01)

    with running(lambda stop: client(0, stop), lambda stop: client(1, stop)):
        crash_again_and_again(lab, dose(4, 20), 1, lambda: min(done))
    with lab.clerk("last") as clerk:
        clerk.put("aaa", "bbb")
        assert clerk.get("aaa") == "bbb"


def test_repeated_crash_unreliable(lab: Servers) -> None:
    """The same with servers that lose requests and answers, and appends to one key."""
    three_servers(lab)
    for name in ("s1", "s2", "s3"):
        lab.unreliable(name)
    done = [0, 0]

    def client(number: int, stop: threading.Event) -> None:
        with lab.clerk(f"c{number}") as clerk:
            while not stop.is_set():
                clerk.append("0", f"<{number}.{done[number]}>")
                done[number] += 1

    with running(lambda stop: client(0, stop), lambda stop: client(1, stop)):
        crash_again_and_again(lab, dose(3, 20), 2, lambda: min(done))
    with lab.clerk("last") as clerk:
        check_appends(clerk.get("0"), done)
        clerk.put("aaa", "bbb")
        assert clerk.get("aaa") == "bbb"


def test_partition1(lab: Servers) -> None:
    """A primary cut off from the view service is replaced; a get that it is asked then is not
    answered with what it has."""
    two_servers(lab)
    with lab.clerk("c1") as old, lab.clerk("c2") as new:
        old.put("a", "1")
        assert old.get("a") == "1"
        cut_both(lab, "s1", "views")
        cut_both(lab, "c1", "views")  # it asks s1 and nobody else, as the labs' clerk does
        lab.delay("s1", patience(dose(2.0, 4.0)))
        before = lab.requests("c1", "s1")
        with running(lambda stop: old.get("a")) as (stale,):
            view_is(lab, "s2", "")
            pings(lab, "s2", 2)
            assert lab.requests("c1", "s1") == before, "it was not delayed long enough"
            new.put("a", "111")
            assert new.get("a") == "111"
            eventually(lambda: lab.requests("c1", "s1") > before, 10, "the get to reach s1")
            pings(lab, "s2", LONG)
            assert not stale.done(), f"a server that is no longer primary says {stale.result()}"
            assert new.get("a") == "111"
            lab.delay("s1", 0)
            lab.heal()
        assert stale.result() == "111"


def test_partition2(lab: Servers) -> None:
    """The same, when the backup that it had became primary, passed everything on, and died."""
    two_servers(lab)
    with lab.clerk("c1") as old, lab.clerk("c2") as new:
        old.put("a", "1")
        assert old.get("a") == "1"
        cut_both(lab, "s1", "views")
        cut_both(lab, "c1", "views")
        lab.delay("s1", patience(dose(3.0, 5.0)))
        before = lab.requests("c1", "s1")
        with running(lambda stop: old.get("a")) as (stale,):
            view_is(lab, "s2", "")
            lab.start("s3")
            settled(lab, "s2", "s3")
            new.put("a", "2")
            assert new.get("a") == "2"
            lab.kill("s2")
            assert lab.requests("c1", "s1") == before, "it was not delayed long enough"
            view_is(lab, "s3", "")
            eventually(lambda: lab.requests("c1", "s1") > before, 10, "the get to reach s1")
            pings(lab, "s3", LONG)
            assert not stale.done(), f"a server that is no longer primary says {stale.result()}"
            assert new.get("a") == "2"
            lab.delay("s1", 0)
            lab.heal()
        assert stale.result() == "2"


# --- stricter: once ------------------------------------------------------------------------------


@pytest.mark.parametrize("backup", ["forwarded", "copied"])
def test_at_most_once_when_the_primary_dies_before_it_answers(lab: Servers, backup: str) -> None:
    """An append is carried out, its answer lost, its primary killed: asked again, the backup knows.

    `forwarded`: the backup was told of the append; `copied`: it came later, and got everything.
    """
    lab.start("s1")
    view_is(lab, "s1", "")
    if backup == "forwarded":
        lab.start("s2")
        settled(lab, "s1", "s2")
    with lab.clerk("c1") as clerk, lab.clerk("c2") as other:
        clerk.append("k", "<0.0>")
        lab.cut("s1", "c1")
        with running(lambda stop: clerk.append("k", "<0.1>")) as (append,):
            eventually(lambda: other.get("k") == "<0.0><0.1>", 10, "the append")
            if backup == "copied":
                lab.start("s2")
                settled(lab, "s1", "s2")
            assert not append.done()
            lab.kill("s1")
        clerk.append("k", "<0.2>")
        check_appends(other.get("k"), [3])


def test_at_most_once_while_primaries_die(lab: Servers) -> None:
    """Unreliable servers, of which the primary is killed while requests are on their way."""
    two_servers(lab)
    for name in ("s1", "s2"):
        lab.unreliable(name)
    done = [0, 0]

    def client(number: int, stop: threading.Event) -> None:
        with lab.clerk(f"c{number}") as clerk:
            while not stop.is_set():
                clerk.append("k", f"<{number}.{done[number]}>")
                done[number] += 1

    with running(lambda stop: client(0, stop), lambda stop: client(1, stop)):
        for _ in range(dose(2, 20)):
            primary, backup = settled(lab)
            lab.kill(primary)
            view_is(lab, backup, "")
            before = min(done)
            eventually(lambda before=before: min(done) > before, 20, "clients to go on")
            lab.start(primary)
    with lab.clerk("last") as clerk:
        check_appends(clerk.get("k"), done)


# --- stricter: nobody serves from nothing --------------------------------------------------------


def serves_nothing(lab: Servers, server: str) -> None:
    """All data is gone, or out of reach: no request may be answered."""
    pings(lab, server, LONG)
    with lab.clerk("asker", dose(1.0, 2.0)) as clerk, pytest.raises(TimeoutError):
        clerk.get("a")


def test_backup_without_data_is_not_promoted(lab: Servers) -> None:
    """The primary dies before it could send its new backup anything."""
    lab.start("s1")
    with lab.clerk("c1") as clerk:
        clerk.put("a", "1")
    lab.cut("s1", "s2")
    lab.start("s2")
    view_is(lab, "s1", "s2")
    pings(lab, "s1", 3)
    lab.kill("s1")
    serves_nothing(lab, "s2")


@pytest.mark.parametrize("who", ["primary", "backup", "last"])
def test_restart_that_nobody_could_miss(lab: Servers, who: str) -> None:
    """A server is back before five pings are missing, and has nothing: it must be noticed."""
    lab.start("s1")
    with lab.clerk("c1") as clerk:
        clerk.put("a", "1")
        if who == "last":
            lab.kill("s1")
            lab.start("s1")
            serves_nothing(lab, "s1")
            return
        lab.start("s2")
        first, second = settled(lab, "s1", "s2")
        if who == "primary":
            first, second = second, first
        lab.kill(second)
        lab.start(second)
        settled(lab, first, second)
        lab.kill(first)
        view_is(lab, second, "")
        assert clerk.get("a") == "1"


# --- stricter: never stale -----------------------------------------------------------------------


class Watch:
    """One client appends 0, 1, 2 … to a key, and another reads it: every read has all that was
    acknowledged before it began, in order, and nothing that was never said."""

    def __init__(self, lab: Servers) -> None:
        self.lab = lab
        self.said = self.acknowledged = self.reads = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with running(self._write, self._read):
            yield
        with self.lab.clerk("last") as clerk:
            self._check(clerk.get("watched"), self.acknowledged)

    def goes_on(self) -> None:
        """Wait until both clients were answered several times more."""
        enough = self.acknowledged + 10, self.reads + 10
        eventually(lambda: (self.acknowledged, self.reads) > enough, 20, "clients to go on")

    def _write(self, stop: threading.Event) -> None:
        with self.lab.clerk("writer") as clerk:
            while not stop.is_set():
                self.said += 1
                clerk.append("watched", f"{self.said},")
                self.acknowledged = self.said
                stop.wait(0.003)

    def _read(self, stop: threading.Event) -> None:
        with self.lab.clerk("reader") as clerk:
            while not stop.is_set():
                least = self.acknowledged
                self._check(clerk.get("watched"), least)
                self.reads += 1
                stop.wait(0.003)

    def _check(self, value: str, least: int) -> None:
        count = value.count(",")
        assert value == "".join(f"{number}," for number in range(1, count + 1))
        assert least <= count <= self.said, f"{count} appends, of {least} to {self.said}"


def test_paused_primary_has_requests_waiting(lab: Servers) -> None:
    """A primary sleeps until it is replaced; when it wakes, requests lie in its sockets."""
    three_servers(lab)
    with lab.clerk("c1") as asker, lab.clerk("c2") as new, lab.clerk("c3") as writer:
        asker.put("a", "1")
        writer.append("b", "x")
        for name in ("c1", "c3"):
            cut_both(lab, name, "views")  # so that they ask nobody else
        lab.pause("s1")
        before = [lab.requests(name, "s1") for name in ("c1", "c3")]
        with running(lambda s: asker.get("a"), lambda s: writer.append("b", "y")) as (got, wrote):
            settled(lab, "s2", "s3")
            new.put("a", "2")
            new.append("b", "z")
            for name, count in zip(("c1", "c3"), before, strict=True):
                assert lab.requests(name, "s1") > count, "nothing waits for it"
            lab.resume("s1")
            pings(lab, "s1", LONG)
            assert not got.done(), f"a server that is no longer primary says {got.result()}"
            assert not wrote.done(), "a server that is no longer primary took a write"
            lab.heal()
        assert got.result() == "2"
        assert new.get("b") == "xzy"


def test_primaries_are_paused_again_and_again(lab: Servers) -> None:
    """Each sleeps until another is primary, and wakes to find itself out of office."""
    three_servers(lab)
    watch = Watch(lab)
    with watch():
        for _ in range(dose(2, 20)):
            primary, backup = settled(lab)
            lab.pause(primary)
            eventually(lambda backup=backup: lab.view()[1] == backup, 10, "the backup to take over")
            lab.resume(primary)
            watch.goes_on()


@pytest.mark.parametrize("who", ["primary", "backup"])
def test_mute_server(lab: Servers, who: str) -> None:
    """A member hears everybody and is heard by nobody: it is replaced, and no harm is done."""
    three_servers(lab)
    watch = Watch(lab)
    with watch():
        watch.goes_on()
        lab.cut("s1" if who == "primary" else "s2", "*")
        settled(lab, "s2" if who == "primary" else "s1", "s3")
        watch.goes_on()
        lab.heal()
        settled(lab)
        watch.goes_on()


@pytest.mark.parametrize("who", ["primary", "backup"])
def test_deaf_server(lab: Servers, who: str) -> None:
    """A member is heard and hears nobody: it looks alive, so all may stand still till it hears."""
    three_servers(lab)
    watch = Watch(lab)
    name = "s1" if who == "primary" else "s2"
    with watch():
        watch.goes_on()
        lab.cut("*", name)
        pings(lab, name, LONG)
        lab.heal()
        settled(lab)
        watch.goes_on()


CUT_OFF = [
    ("forwards", "kill"),
    ("acknowledgements", "heal"),
    ("forwards", "heal"),
    ("acknowledgements", "kill"),
]


@pytest.mark.parametrize(("lost", "end"), CUT_OFF[: dose(2, 4)])
def test_primary_cut_off_from_its_backup(lab: Servers, lost: str, end: str) -> None:
    """Both reach the view service, but not each other: stuck perhaps, and never wrong.

    `kill`: the primary dies like that, so whatever it answered its backup has to know.
    """
    three_servers(lab)
    watch = Watch(lab)
    with watch():
        watch.goes_on()
        lab.cut(*(("s1", "s2") if lost == "forwards" else ("s2", "s1")))
        pings(lab, "s1", LONG)
        if end == "kill":
            lab.kill("s1")
        lab.heal()
        settled(lab)
        watch.goes_on()
