"""Redis clients of a real cluster over TLS and with secrets; and what does not start without."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import programs
from kv.live import Cluster, cluster
from redis_inside import Papers, TlsWire, Users
from redis_wire import Wire, packed, tool
from support import engine, need, patience
from waiting import eventually

pytestmark = pytest.mark.processes

HOST = "127.0.0.1"


class Place:
    """A cluster that serves beyond this machine, with what its clients need."""

    def __init__(self, made: Cluster, papers: Papers, people: Users) -> None:
        self.cluster, self.papers, self.people = made, papers, people
        replicas = made.keeper.json()["replicas"]
        assert {one["redis"].split(":")[0] for one in replicas} == {"0.0.0.0"}
        self.ports = [int(one["redis"].split(":")[1]) for one in replicas]

    def wire(self, at: int = 0, who: str = "") -> TlsWire:
        made = TlsWire((HOST, self.ports[at]), self.papers.context())
        if who:
            assert made.say("auth", who, self.people.secrets[who]) == b"+OK\r\n"
        return made

    def options(self, at: int = 0, who: str = "alice") -> dict[str, Any]:
        """As redis-py has them."""
        return {
            "host": HOST, "port": self.ports[at], "username": who, "ssl": True,
            "password": self.people.secrets[who], "ssl_ca_certs": self.papers.ca_path,
        }  # fmt: skip

    def counter(self, name: str) -> int:
        told = self.cluster.statuses().values()
        return sum(dict(one.counters).get(f"redis_{name}", 0) for one in told)


def guards(papers: Papers, people: Users) -> list[str]:
    certificate, key = papers.paths
    return ["--redis-tls", certificate, "--redis-tls-key", key, "--keys", people.folder]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("t")
    papers, people = Papers(folder), Users(folder / "keys")
    with cluster(folder, "--redis", "0.0.0.0:0", *guards(papers, people)) as made:
        yield Place(made, papers, people)


def cli(place: Place, *words: str, who: str = "", said: bytes = b"") -> str:
    command = [tool("redis-cli"), "-h", HOST, "-p", str(place.ports[1])]
    command += ["--tls", "--cacert", place.papers.ca_path]
    command += ["--user", who, "--no-auth-warning"] if who else []
    env = {**os.environ, "REDISCLI_AUTH": place.people.secrets[who]} if who else None
    seconds = patience(30)
    ran = subprocess.run([*command, *words], input=said, env=env, capture_output=True,
                         timeout=seconds, check=False)  # fmt: skip
    return (ran.stdout + ran.stderr).decode()


def test_redis_cli(place: Place) -> None:
    assert cli(place, "ping") == "NOAUTH Authentication required.\n\n"
    assert cli(place, "set", "cli", "1", who="alice") == "OK\n"
    assert cli(place, "-3", "get", "cli", who="bob") == "1\n"
    assert "NOPERM" in cli(place, "set", "cli", "2", who="bob")
    assert cli(place, who="alice", said=b"incr cli\nmulti\nget cli\nexec\nacl whoami\n") == (
        "2\nOK\nQUEUED\n2\nalice\n"
    )
    many = b"".join([packed("set", f"pipe{n}", "x" * 500) for n in range(1000)])
    assert "errors: 0, replies: 1000" in cli(place, "--pipe", who="alice", said=many)


def test_redis_py(place: Place) -> None:
    redis = need("redis", "test")
    value = os.urandom(5 << 20)
    with redis.Redis(**place.options()) as alice:
        assert alice.echo(value) == value
        assert alice.set("py", value[: 1 << 20])
        assert alice.get("py") == value[: 1 << 20]
        with alice.pipeline() as pipe:
            assert pipe.set("n", 1).incr("n").execute() == [True, 2]
        lock = alice.lock("lock", timeout=30)
        assert lock.acquire(blocking=False)
        lock.release()
        assert alice.acl_whoami() == "alice"
    with redis.Redis(**place.options(2, "bob"), protocol=3) as bob:
        assert bob.get("n") == b"2"
        with pytest.raises(redis.exceptions.NoPermissionError):
            bob.incr("n")
    once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    for changed, error in (
        ({"password": "wrong"}, redis.exceptions.AuthenticationError),
        ({"ssl_ca_certs": None}, redis.exceptions.ConnectionError),
    ):
        made = redis.Redis(**{**place.options(), **changed}, retry=once)
        with made as stranger, pytest.raises(error):
            stranger.ping()


def test_redis_py_with_asyncio_and_as_a_cluster(place: Place) -> None:
    need("redis", "test")
    import asyncio

    from redis.asyncio import Redis
    from redis.cluster import RedisCluster

    async def adds() -> list[int]:
        async with Redis(**place.options(1)) as made:
            return sorted(await asyncio.gather(*[made.incr("async") for _ in range(20)]))

    assert asyncio.run(adds()) == list(range(1, 21))
    with RedisCluster(**place.options()) as made:  # which asks where we are, at 0.0.0.0
        assert made.set("of{cluster}", 1)
        assert made.get_nodes()[0].host == HOST


def test_a_replica_that_comes_again_has_the_same_guards(place: Place) -> None:
    before = place.cluster.kill(3)
    place.cluster.back(3, before)
    eventually(lambda: listens(place.ports[2]), 20, "its gateway")
    with place.wire(2) as guest:
        assert guest.say("get", "a").startswith(b"-NOAUTH")


def listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port)).close()
    except OSError:
        return False
    return True


def test_users_come_and_go_by_the_command_line(place: Place) -> None:
    folder = place.people.folder
    ran = engine("keys", "user", "add", "dora", "--role", "write", "--dir", folder)
    place.people.secrets["dora"] = ran.out.strip()
    with place.wire(0, "dora") as one, place.wire(1, "dora") as other, place.wire(0, "bob") as bob:
        assert one.say("set", "d", "1") == other.say("set", "d", "2") == b"+OK\r\n"
        assert engine("keys", "user", "remove", "dora", "--dir", folder).code == 0
        one.socket.settimeout(patience(2))  # within about a second
        assert one.rest() == other.rest() == b""
        assert bob.say("get", "d") == b"$1\r\n2\r\n"
        with place.wire() as again:
            told = again.say("auth", "dora", place.people.secrets["dora"])
            assert told.startswith(b"-WRONGPASS")
    assert place.counter("dismissed") == 2


def test_what_is_refused_is_counted(place: Place) -> None:
    with Wire((HOST, place.ports[0])) as plain:
        plain.send(packed("set", "a", "1"))
        assert plain.rest() == b""
    with place.wire(1) as guest:
        guest.send(packed("auth", "alice", "guessed-wrongly") * 3)
        assert guest.rest().count(b"WRONGPASS") == 3
    assert place.counter("refused_plaintext") == 1
    assert place.counter("refused_secret") == 1
    text = engine("kv", "metrics", "--cluster", place.cluster.dir).out
    assert 'refused_by_reason_total{replica="1",endpoint="redis",reason="plaintext"} 1' in text
    assert "redis_wrong_secrets_total" in text


def test_secrets_are_nowhere(place: Place) -> None:
    """Neither in what runs nor in what was written, whatever came before."""
    with place.wire(0, "alice") as alice, place.wire() as guest:
        guest.say("auth", "alice", "guessed-wrongly")
        guest.say("auht", "alice", place.people.secrets["alice"])
        told = b"".join(
            [alice.say(*words.split()) for words in ("info", "client list", "config get *")]
        )
    status = engine("kv", "status", "--cluster", place.cluster.dir, "--json").out
    keeper = psutil.Process(place.cluster.keeper.pid)
    for process in (keeper, *keeper.children(recursive=True)):
        told += "\0".join([*process.cmdline(), *process.environ().values()]).encode()
    told += status.encode() + place.cluster.keeper.stdout().encode()
    told += place.cluster.keeper.stderr().encode() + place.people.path.read_bytes()
    folder = Path(place.cluster.dir)
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                told += file.read(1 << 20)  # what follows in a log is room for more
    assert b"member" in told
    assert not [one for one in place.people.secrets.values() if one.encode() in told]
    assert b"guessed-wrongly" not in told


# --- with less, or more --------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["serve", "up"])
def test_nothing_is_open_to_others_without_guards(tmp_path: Path, verb: str) -> None:
    """`tests/redis/test_guards.py` has all that may be wrong."""
    papers, people = Papers(tmp_path), Users(tmp_path / "keys")
    tls = guards(papers, people)[:4]
    flags = ("--dir", str(tmp_path / "a"), "--redis", "0.0.0.0:0", *tls, "--json")
    ran = engine("kv", verb, *flags, seconds=20)
    said = json.loads(ran.out)["error"]
    assert (ran.code, "with TLS and users only" in said) == (6, True)
    assert not os.path.lexists(tmp_path / "a")


def test_where_there_are_users_they_are_needed_on_this_machine_too(tmp_path: Path) -> None:
    people = Users(tmp_path / "keys")
    made = json.loads(engine("raft", "init", str(tmp_path / "a"), "--json").out)["members"]
    (member,) = made.values()
    founders = f"{member}=ipc://{tmp_path}/a/peers"
    with programs(tmp_path) as start:
        flags = ("--initial", founders, "--redis", "0", "--json", "--keys", people.folder)
        one = start("kv", "serve", "--dir", tmp_path / "a", *flags)
        eventually(lambda: one.stdout().endswith("\n") or not one.running, 20)
        with Wire((HOST, int(one.json()["redis"].split(":")[1]))) as wire:
            assert wire.say("get", "k").startswith(b"-NOAUTH")
            assert wire.say("auth", "alice", people.secrets["alice"]) == b"+OK\r\n"
            assert wire.say("incr", "k") == b":1\r\n"
