"""Redis clients of all kinds on a cluster of three: real ones, and a real Redis beside it."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from kv.live import Cluster, cluster
from redis_plays import PLAYS
from redis_wire import Wire, addresses, packed, redis_server, tool
from support import dose, need, patience
from waiting import eventually

from engine.kv.client import Store
from engine.redis.lines import words

pytestmark = pytest.mark.processes

Addresses = dict[int, tuple[str, int]]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("r"), "--redis", "0") as made:
        yield made


@pytest.fixture(scope="module")
def gates(three: Cluster) -> Addresses:
    """Where each replica's is, the leader's first."""
    found = addresses(three.keeper.json())
    leader = three.leader()
    return {number: found[number] for number in sorted(found, key=lambda n: n != leader)}


@pytest.fixture(scope="module")
def redis_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("s")) as path:
        yield path


def emptied(wire: Wire) -> None:
    keys = wire.say("keys", "*").split(b"\r\n")[2::2]
    if keys:
        wire.say("del", *keys)


@pytest.mark.parametrize("version", ["2", "3"])
@pytest.mark.parametrize("play", PLAYS)
def test_replies_are_those_of_redis(
    gates: Addresses, redis_path: str, play: str, version: str
) -> None:
    """At the gateway of a replica that leads, or of one that does not."""
    address = list(gates.values())[int(version) - 2]
    with Wire(redis_path) as theirs, Wire(address) as ours:
        for wire in (theirs, ours):
            wire.say("hello", version)
            emptied(wire)
        different = []
        for line in PLAYS[play].strip().splitlines():
            said = words(line.encode())
            assert said, line
            expected, got = theirs.say(*said), ours.say(*said)
            if got != expected:
                different.append((line.strip(), expected, got))
        assert not different, "\n".join(map(str, different))


# --- tools of Redis ------------------------------------------------------------------------------


def cli(address: tuple[str, int], *words: str, said: bytes = b"") -> str:
    ran = subprocess.run(
        [tool("redis-cli"), "-p", str(address[1]), *words],
        input=said,
        capture_output=True,
        timeout=patience(30),
        check=True,
    )
    return ran.stdout.decode()


def test_redis_cli(gates: Addresses) -> None:
    leader, follower = list(gates.values())[:2]
    assert cli(leader, "set", "cli", "1") == "OK\n"
    assert cli(follower, "-3", "get", "cli") == "1\n"
    assert cli(follower, said=b"incr cli\nget cli\nmulti\nset cli x\nexec\n") == (
        "2\n2\nOK\nQUEUED\nOK\n"
    )
    many = b"".join([packed("set", f"pipe{n}", "x" * 100) for n in range(3000)])
    told = cli(follower, "--pipe", said=many)
    assert "errors: 0, replies: 3000" in told
    assert len(cli(leader, "--scan", "--pattern", "pipe*").split()) == 3000
    assert "raft_role:leader" in cli(leader, "info", "raft")
    assert "raft_role:follower" in cli(follower, "info", "raft")


def test_redis_benchmark(gates: Addresses) -> None:
    for address in list(gates.values())[:2]:
        ran = subprocess.run(
            [
                *(tool("redis-benchmark"), "-p", str(address[1]), "-q", "-n", "600"),
                *("-c", "20", "-P", "3", "-t", "ping,set,get,incr,mset"),
            ],
            capture_output=True,
            timeout=patience(60),
            check=True,
        )
        told = (ran.stdout + ran.stderr).decode()
        assert "rror" not in told, told
        assert told.count("requests per second") >= 6, told


# --- redis-py ------------------------------------------------------------------------------------


@pytest.fixture(params=[2, 3])
def client(gates: Addresses, request: pytest.FixtureRequest) -> Iterator[Any]:
    redis = need("redis", "test")
    host, port = list(gates.values())[request.param - 2]
    with redis.Redis(host, port, protocol=request.param, decode_responses=True) as made:
        yield made


def test_redis_py(client: Any) -> None:
    assert client.ping()
    assert client.set("py", "1") is True
    assert client.get("py") == "1"
    assert client.incr("py", 41) == 42
    assert client.mset({"py1": "a", "py2": "b"})
    assert client.mget("py1", "py2", "py3") == ["a", "b", None]
    assert client.set("py", "x", nx=True) is None
    assert client.set("py", "x", ex=100, get=True) == "42"
    assert 98 <= client.ttl("py") <= 100
    assert client.persist("py") is True
    assert client.type("py") == "string"
    assert sorted(client.scan_iter("py*", count=1)) == ["py", "py1", "py2"]
    assert client.delete("py", "py1", "py2") == 3
    assert client.info("raft")["raft_role"] in ("leader", "follower")
    assert client.config_get("save") == {"save": ""}
    assert client.client_getname() in (None, "")
    assert len(client.time()) == 2
    with pytest.raises(Exception, match="unknown command 'LPUSH'"):
        client.lpush("list", 1)


def test_redis_py_transactions(client: Any) -> None:
    redis = need("redis", "test")
    with client.pipeline(transaction=False) as pipe:
        pipe.set("p", 1).get("p").set("p", 2).get("p").incr("p").get("p").delete("p")
        assert pipe.execute() == [True, "1", True, "2", 3, "3", 1]
    with client.pipeline() as pipe:
        pipe.set("p", 5).incr("p").get("p")
        assert pipe.execute() == [True, 6, "6"]
    with client.pipeline() as pipe:
        pipe.watch("p")
        client.set("p", 7)
        pipe.multi()
        pipe.set("p", 8)
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert client.get("p") == "7"

    def twice(pipe: Any) -> None:
        value = int(pipe.get("p"))
        pipe.multi()
        pipe.set("p", value * 2)

    assert client.transaction(twice, "p") == [True]
    assert client.get("p") == "14"


def test_redis_py_locks(client: Any) -> None:
    redis = need("redis", "test")
    lock = client.lock("lock", timeout=30)
    assert lock.acquire(blocking=False)
    assert not client.lock("lock", timeout=30).acquire(blocking=False)
    assert lock.extend(10)
    assert 38_000 < client.pttl("lock") <= 40_000
    assert lock.reacquire()
    assert client.pttl("lock") <= 30_000
    lock.release()
    assert client.get("lock") is None
    with pytest.raises(redis.exceptions.LockError):
        lock.release()


def test_redis_py_with_asyncio_and_as_a_cluster(gates: Addresses) -> None:
    need("redis", "test")
    import asyncio

    from redis.asyncio import Redis
    from redis.cluster import RedisCluster

    host, port = next(iter(gates.values()))

    async def adds() -> list[int]:
        async with Redis(host=host, port=port) as made:
            return sorted(await asyncio.gather(*[made.incr("async") for _ in range(50)]))

    assert asyncio.run(adds()) == list(range(1, 51))
    with RedisCluster(host, port) as made:
        assert made.set("of{cluster}", 1)
        assert made.get("of{cluster}") == b"1"


# --- times ---------------------------------------------------------------------------------------


def test_keys_expire_and_old_times_do_not_end_new_keys(gates: Addresses) -> None:
    anew = [
        "set K new",
        "getset K new",
        "mset K new",
        "persist K",
        "getex K persist",
        "set K n ex 9",
    ]
    with Wire(list(gates.values())[1]) as wire:
        for number, command in enumerate(anew):
            key = f"kept{number}"
            assert wire.say("set", key, "v", "px", "250") == b"+OK\r\n"
            wire.say(*command.replace("K", key).split())
        assert wire.say("set", "inline", "v", "px", "250") == b"+OK\r\n"
        wire.send(b"set inline new\r\n")  # which goes another way than what the kernel reads
        assert wire.reply() == b"+OK\r\n"
        for key in ("last", "plain"):
            wire.say("set", key, "v")
        assert wire.say("set", "last", "v", "px", "250") == b"+OK\r\n"
        assert wire.say("pexpire", "plain", "250") == b":1\r\n"
        for key in ("last", "plain"):
            eventually(lambda key=key: wire.say("get", key) == b"$-1\r\n", 5)
            assert wire.say("ttl", key) == b":-2\r\n"
        for number, command in enumerate(anew):
            assert wire.say("exists", f"kept{number}") == b":1\r\n", command
        assert wire.say("get", "inline") == b"$3\r\nnew\r\n"
        first = int(wire.say("pttl", "kept5")[1:-2])
        eventually(lambda: int(wire.say("pttl", "kept5")[1:-2]) < first - 50, 5)


def test_leases_of_keys_that_are_gone_do_not_pile_up(gates: Addresses, three: Cluster) -> None:
    with Store(three.dir) as store, Wire(list(gates.values())[1]) as wire:
        before = store.info().leases
        commands = [packed("set", f"day{n % 5}", "v", "ex", "86400") for n in range(400)]
        wire.send(b"".join(commands))
        assert {wire.reply() for _ in commands} == {b"+OK\r\n"}
        for n in range(4):
            wire.say(*[["set", f"day{n}", "x"], ["del", f"day{n}"]][n % 2])
        eventually(lambda: store.info().leases <= before + 1, 20, "leases to be revoked")
        assert wire.say("ttl", "day4") == b":86400\r\n"


# --- commands drawn at random --------------------------------------------------------------------


def drawn(rng: random.Random) -> list[str]:
    """A command that replies the same whenever it is asked: no short times. What is watched is
    always there, for we do not notice that a key was there meanwhile."""
    one, two = rng.choice("abc"), rng.choice("abc")
    value = rng.choice(["", "1", "-7", "abc", "9223372036854775807", "x" * 300, "\x00\xff"])
    whole = str(rng.choice([0, 1, -1, 5, 1 << 62, "x", ""]))
    options = rng.choice(["", "nx", "xx", "get", "nx get", "xx get", "keepttl", "ex 1000", "px 0"])
    flag = rng.choice(["", "nx", "xx", "gt", "lt", "nx gt"])
    return rng.choice(
        [
            ["get", one], ["set", one, value], ["set", one, value, *options.split()],
            ["setnx", one, value], ["getset", one, value], ["getdel", one], ["del", one, two],
            ["exists", one, two], ["append", one, value], ["strlen", one], ["mget", one, two],
            ["mset", one, value, two, "2"], ["msetnx", one, value, two, "2"], ["incr", one],
            ["decr", one], ["incrby", one, whole], ["decrby", one, whole], ["type", one],
            ["setex", one, "1000", value], ["ttl", one], ["persist", one],
            ["expire", one, str(rng.choice([rng.randrange(2000, 9000), 0, -5])), *flag.split()],
            ["getex", one, *rng.choice(["", "persist", "ex 3000", "px x"]).split()],
            ["multi"], ["multi"], ["exec"], ["exec"], ["exec"], ["discard"], ["watch", "w"],
            ["unwatch"], ["set", "w", value], ["incr", "w"], ["get", "w"], ["append", "w", "1"],
            ["get"], ["set", one], ["nope", one], ["ping"],
        ]
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(dose(4, 400)))
def test_pipelines_drawn_at_random_are_replied_to_as_by_redis(
    gates: Addresses, redis_path: str, seed: int
) -> None:
    """Two connections each, one after the other, at gateways of different replicas."""
    rng = random.Random(seed)
    places = list(gates.values())
    with (
        Wire(redis_path) as theirs, Wire(redis_path) as theirs2,
        Wire(places[seed % 3]) as ours, Wire(places[(seed + 1) % 3]) as ours2,
    ):  # fmt: skip
        pairs = [(theirs, ours), (theirs2, ours2)]
        for wire in (theirs, ours):
            emptied(wire)
            wire.say("set", "w", "0")
        for wire in (*pairs[0], *pairs[1]):
            wire.say("hello", str(2 + seed % 2))
        told: list[str] = []
        for _ in range(60):
            pair = rng.choice(pairs)
            commands = [drawn(rng) for _ in range(rng.choice((1, 1, 8)))]
            for wire in pair:
                wire.send(b"".join([packed(*[w.encode("latin-1") for w in c]) for c in commands]))
            for command in commands:
                expected, got = pair[0].reply(), pair[1].reply()
                told.append(f"{pairs.index(pair)} {command}: {got!r}")
                assert got == expected, "\n".join(told[-30:])
