"""Redis clients while replicas die, and clients that are no good."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic_ns

import psutil
import pytest
from harness import programs
from kv.live import Cluster, cluster
from redis_wire import Wire, addresses, packed
from support import dose, engine, patience
from waiting import eventually

from engine.verify.history import History
from engine.verify.linearizable import unlinearizable
from engine.verify.models import MODELS

pytestmark = pytest.mark.processes
CORPUS = Path(__file__).parent.parent / "redis" / "corpus"
Addresses = dict[int, tuple[str, int]]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("f"), "--redis", "0") as made:
        yield made


@pytest.fixture(scope="module")
def gates(three: Cluster) -> Addresses:
    return addresses(three.keeper.json())


# --- what is acknowledged is done once -----------------------------------------------------------


class Crowd:
    """Clients that count, append, write and read until they are told to stop."""

    def __init__(self, places: list[tuple[str, int]], many: int, name: str) -> None:
        self.name, self.lock = name, threading.Lock()
        self.history = History()
        self.counts: list[int] = []
        self.tokens: list[str] = []
        self.doubtful = 0
        self.errors: list[str] = []
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self._guarded, args=(n, places[n % len(places)]))
            for n in range(many)
        ]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(patience(30))
        assert not self.errors, self.errors

    def _guarded(self, number: int, place: tuple[str, int]) -> None:
        try:
            with Wire(place) as wire:
                self._live(number, wire, random.Random(number))
        except Exception as error:  # told by `end`: a thread has nobody to raise it to
            self.errors.append(f"client {number}: {error!r}")

    def _live(self, number: int, wire: Wire, rng: random.Random) -> None:
        count = 0
        while not self.stop.is_set():
            count += 1
            token = f"{number}.{count}"
            self._count(wire, token)
            self._register(number, wire, rng, token)
            mine = f"{self.name}:own:{number}"
            wire.send(packed("set", mine, token) + packed("get", mine) + packed("incr", "other"))
            written, read, counted = wire.reply(), wire.reply(), wire.reply()
            if b"-" not in (written[:1], read[:1]):
                assert read == b"$%d\r\n%b\r\n" % (len(token), token.encode())
            assert counted[:1] in b":-"

    def _count(self, wire: Wire, token: str) -> None:
        wire.send(packed("append", f"{self.name}:text", f"{token} "))
        wire.send(packed("incr", f"{self.name}:count"))
        appended, counted = wire.reply(), wire.reply()
        with self.lock:
            self.doubtful += (appended[:1] != b":") + (counted[:1] != b":")
            if appended[:1] == b":":
                self.tokens.append(token)
            if counted[:1] == b":":
                self.counts.append(int(counted[1:-2]))

    def _register(self, number: int, wire: Wire, rng: random.Random, token: str) -> None:
        key = f"{self.name}:{rng.randrange(3)}"
        kind, words = rng.choice([("write", ["set", key, token]), ("read", ["get", key])])
        with self.lock:
            self.history.call(monotonic_ns(), number, kind, key, token if kind == "write" else "")
        said = wire.say(*words)
        with self.lock:
            if said[:1] == b"-":
                self.history.abandon(number)
            else:
                value = None if said == b"$-1\r\n" else said.split(b"\r\n")[1].decode()
                self.history.finish(monotonic_ns(), number, value if kind == "read" else None)


def replaced(cluster: Cluster, leader: int) -> None:
    """Killed; another one leads, and later it is back."""
    cluster.kill(leader)


def paused(cluster: Cluster, leader: int) -> None:
    """Stopped until another one leads; what it was told before it may do later."""
    pid = cluster.pids()[leader]
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: leads(cluster, leader), 10, "another leader")
    finally:
        os.kill(pid, signal.SIGCONT)


def leads(cluster: Cluster, but: int) -> int:
    """Who leads that is not this one; 0 if nobody does. It is not asked, for it may be stopped."""
    from engine.kv.up import found, statuses

    told = statuses([seat for seat in found(cluster.dir) if seat.id != but], 0.3)
    return next((number for number, one in told.items() if one.role == "leader"), 0)


@pytest.mark.parametrize("blow", [replaced, paused] * dose(2, 20))
def test_what_is_acknowledged_is_done_once_whoever_dies(
    three: Cluster, gates: Addresses, blow: Callable[[Cluster, int], None]
) -> None:
    leader = three.leader()
    before = three.pids()
    name = f"n{time.monotonic_ns()}"
    crowd = Crowd([where for n, where in gates.items() if n != leader], 10, name)
    try:
        eventually(lambda: len(crowd.counts) > 60 or crowd.errors, 20, "some counts")
        blow(three, leader)
        eventually(lambda: leads(three, leader), 20, "another leader")
        enough = len(crowd.counts) + 60
        eventually(lambda: len(crowd.counts) > enough or crowd.errors, 20, "more counts")
    finally:
        crowd.end()
    if blow is replaced:
        three.back(leader, before[leader])
        with Wire(gates[leader]) as wire:  # where it was
            assert wire.say("ping") == b"+PONG\r\n"
    assert len(set(crowd.counts)) == len(crowd.counts)
    assert max(crowd.counts) <= len(crowd.counts) + crowd.doubtful
    with Wire(next(where for n, where in gates.items() if n != leader)) as wire:
        text = wire.say("get", f"{name}:text").split(b"\r\n", 1)[1].decode().split()
    assert len(set(text)) == len(text)
    assert set(crowd.tokens) <= set(text)
    assert len(text) <= len(crowd.tokens) + crowd.doubtful
    assert unlinearizable(crowd.history.operations(), MODELS["register"]) is None


def test_without_a_majority_clients_are_told_what_is_known(tmp_path: Path) -> None:
    with cluster(tmp_path, "--redis", "0", "--no-restart") as made:
        gates = addresses(made.keeper.json())
        leader = made.leader()
        with Wire(gates[leader]) as wire, Wire(gates[leader]) as other:
            assert wire.say("set", "k", "v") == b"+OK\r\n"
            for number in gates:
                if number != leader:
                    made.kill(number)
            wire.send(packed("set", "k", "w") + packed("ping"))
            other.send(packed("incr", "c") + packed("ping"))
            assert wire.reply()[:9] == b"-UNKNOWN "
            assert other.reply()[:13] == b"-CLUSTERDOWN "
            assert wire.reply() == other.reply() == b"+PONG\r\n"


# --- clients that are no good --------------------------------------------------------------------


def test_bad_clients_are_closed_with_the_words_of_redis(gates: Addresses) -> None:
    place = next(iter(gates.values()))
    for said, told in {
        b"*1\r\n+x\r\n": b"-ERR Protocol error: expected '$', got '+'\r\n",
        b"*x\r\n": b"-ERR Protocol error: invalid multibulk length\r\n",
        b"*1\r\n$-1\r\n": b"-ERR Protocol error: invalid bulk length\r\n",
        b"*1\r\n$999999999\r\n": b"-ERR Protocol error: invalid bulk length\r\n",
        b'get "a\r\n': b"-ERR Protocol error: unbalanced quotes in request\r\n",
        b"set bad 1\r\n*1\r\n+x\r\n": b"+OK\r\n-ERR Protocol error: expected '$', got '+'\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": b"",
        b"POST / HTTP/1.1\r\n\r\nset k v\r\n": b"",
        b"Host: x\r\nset k v\r\n": b"",
        packed("quit") + packed("ping"): b"+OK\r\n",
    }.items():
        with Wire(place) as wire:
            wire.send(said)
            assert wire.rest() == told, said


def test_one_who_only_listens_any_more_hears_all_replies(gates: Addresses) -> None:
    for place in gates.values():
        with Wire(place) as wire:
            wire.send(packed("set", "half", "1") + packed("get", "half") + packed("incr", "half"))
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.rest() == b"+OK\r\n$1\r\n1\r\n:2\r\n"


def test_what_is_too_long_is_refused_and_in_nobodys_way(gates: Addresses) -> None:
    place = next(iter(gates.values()))
    with Wire(place) as wire, Wire(place) as other:
        for key, size, why in (
            ("k", 9 << 20, b"-ERR the command is longer"),
            ("k", 2 << 20, b"-ERR the command is longer"),
            ("k", (1 << 20) + 1, b"-ERR the value is longer"),
            ("k" * 4097, 1, b"-ERR the key is longer"),
        ):
            for words in (["set"], ["set", "keepttl"], ["getset"], ["append"]):
                said = wire.say(words[0], key, bytes(size), *words[1:])
                assert said.startswith(why), (words, size, said)
                assert other.say("set", "short", "v") == b"+OK\r\n"
        assert wire.say("set", "k", bytes(1 << 20)) == b"+OK\r\n"
        for words in (["mget"] + ["k"] * 70, ["exists"] + ["k"] * 20_001, ["keys", "x" * 4097]):
            assert wire.say(*words).startswith(b"-ERR "), words[0]
        assert len(wire.say("mget", *["k"] * 30)) > 30 << 20
        assert wire.say("exists", *["k"] * 2000) == b":2000\r\n"
        assert wire.say("del", "k") == b":1\r\n"


def test_one_who_does_not_read_takes_no_memory_and_gets_all_later(
    three: Cluster, gates: Addresses
) -> None:
    number, place = next(iter(gates.items()))
    process = psutil.Process(three.pids()[number])
    value = bytes(range(256)) * 400
    many = 1000
    with Wire(place) as wire, Wire(place) as other:
        assert wire.say("set", "large", value) == b"+OK\r\n"
        before = process.memory_info().rss
        sender = threading.Thread(target=wire.send, args=(packed("get", "large") * many,))
        sender.start()
        for _ in range(50):
            assert other.say("get", "half")[:1] == b"$"
        assert process.memory_info().rss - before < 40 << 20
        expected = b"$%d\r\n%b\r\n" % (len(value), value)
        for _ in range(many):
            assert wire.reply() == expected
        sender.join(patience(10))
        assert other.say("del", "large") == b":1\r\n"


def test_garbage_ends_connections_and_nothing_else(three: Cluster, gates: Addresses) -> None:
    number, place = next(iter(gates.items()))
    pid = three.pids()[number]
    process = psutil.Process(pid)
    before = process.memory_info().rss
    rng = random.Random(7)
    corpus = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    for _ in range(dose(400, 20_000)):
        data = bytearray(rng.choice(corpus) + rng.choice([b"", rng.choice(corpus)]))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        if rng.random() < 0.1:
            data = bytearray(rng.randbytes(rng.randrange(1, 3000)))
        with Wire(place) as wire:
            try:
                for at in range(0, len(data), size := rng.choice((7, 100_000))):
                    wire.send(data[at : at + size])
                if rng.random() < 0.5:
                    wire.socket.shutdown(socket.SHUT_WR)
                    wire.rest()
            except OSError:
                continue  # it has closed us
    with Wire(place) as wire:
        assert wire.say("ping") == b"+PONG\r\n"
    assert three.pids()[number] == pid
    assert process.memory_info().rss - before < 100 << 20


# --- who serves them -----------------------------------------------------------------------------


def test_replicas_that_were_started_by_hand(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    ran = engine("raft", "init", *map(str, folders), "--json")
    where = {member: folder for folder, member in json.loads(ran.out)["members"].items()}
    initial = ",".join([f"{member}=ipc://{folder}/peers" for member, folder in where.items()])
    others = ",".join([f"{member}=ipc://{folder}/clients" for member, folder in where.items()])
    with programs(tmp_path) as start:
        started = [
            start(
                *("kv", "serve", "--dir", folder, "--initial", initial, "--json"),
                *("--redis", "0", "--redis-others", others),
            )
            for folder in folders
        ]
        for one in started:
            eventually(lambda one=one: one.stdout().endswith("\n") or not one.running, 20)
        places = [one.json()["redis"].split(":") for one in started]
        for number, (host, port) in enumerate(places):
            with Wire((host, int(port))) as wire:
                assert wire.say("incr", "k") == b":%d\r\n" % (number + 1)
        again = start(*("kv", "serve", "--dir", folders[0], "--redis", f"0.0.0.0:{places[0][1]}"))
        assert again.wait(20) == 6
        assert "served beyond this machine" in again.stderr()


def test_a_member_that_was_added_is_found(tmp_path: Path) -> None:
    """Its number is none that anybody knew when they were started."""
    with cluster(tmp_path, "--redis", "0", "--replicas", "1") as made:
        place = next(iter(addresses(made.keeper.json()).values()))
        with Wire(place) as wire:
            assert wire.say("incr", "k") == b":1\r\n"
            assert engine("kv", "member", "add", "--cluster", made.dir).code == 0
            assert engine("kv", "member", "lead", "2", "--cluster", made.dir).code == 0
            assert wire.say("incr", "k") == b":2\r\n"
            assert b"raft_role:follower" in wire.say("info", "raft")
        status = json.loads(engine("kv", "status", "--cluster", made.dir, "--json").out)
        assert [one["redis"].split(":")[0] for one in status["replicas"]] == ["127.0.0.1"] * 2
        host, port = status["replicas"][1]["redis"].split(":")
        with Wire((host, int(port))) as wire:
            assert wire.say("get", "k") == b"$1\r\n2\r\n"


def test_many_connections_share_frames(gates: Addresses) -> None:
    place = next(iter(gates.values()))
    wires = [Wire(place) for _ in range(300)]
    try:
        for number, wire in enumerate(wires):
            wire.send(packed("set", f"c{number}", "v") + packed("get", f"c{number}"))
        for wire in wires:
            assert (wire.reply(), wire.reply()) == (b"+OK\r\n", b"$1\r\nv\r\n")
    finally:
        for wire in wires:
            wire.close()
