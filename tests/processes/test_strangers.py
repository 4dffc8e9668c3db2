"""A store on three hosts that only those with keys can speak to, and none but they can read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import PROGRAM, SNIFFER, Hosts, need_namespaces
from support import Ran, engine, patience
from waiting import eventually

from engine.errors import EngineError
from engine.raft.client import Operator
from engine.raft.requests import Status
from engine.storage.home import make

pytestmark = pytest.mark.processes

SERVERS = (1, 2, 3)
OUTSIDE = 4
WORDS = b"a value that nobody else may read"
KNOCK = """
import struct, sys, zmq
context = zmq.Context()
dealer = context.socket(zmq.DEALER)
dealer.linger = 0
if sys.argv[2:]:
    dealer.curve_publickey, dealer.curve_secretkey = zmq.curve_keypair()
    dealer.curve_serverkey = bytes.fromhex(sys.argv[2])
monitor = dealer.get_monitor_socket(0x1000 | 0x0800 | 0x2000 | 0x4000)
dealer.connect(sys.argv[1])
dealer.send(b"let me in")
if not monitor.poll(20_000):
    raise SystemExit("no answer")
event = struct.unpack_from("=H", monitor.recv_multipart()[0])[0]
print("in" if event == 0x1000 else "out")
dealer.disable_monitor()
"""


class Cluster:
    """Replicas on hosts 1 to 3, an operator and clients on host 4, and somebody who listens in."""

    def __init__(self, folder: Path, hosts: Hosts) -> None:
        self.folder, self.hosts = folder, hosts
        self.members = {host: make(str(folder / f"m{host}")) for host in SERVERS}
        self.serving: dict[int, subprocess.Popen[bytes]] = {}
        for name in (*(f"n{host}" for host in SERVERS), "alice", "bob", "stranger"):
            self.keys("new", name, "--dir", self.of(name))
        for host in SERVERS:
            for other in SERVERS:
                self.allow(
                    f"n{host}", f"n{other}", "replica", "--member", self.members[other],
                    "--at", hosts.address(other),
                )  # fmt: skip
            for name in ("alice", "bob"):
                self.allow(f"n{host}", name, "client")
            for name in ("alice", "bob", "stranger"):
                self.allow(name, f"n{host}", "replica")

    def of(self, name: str) -> Path:
        return self.folder / "keys" / name

    def keys(self, *arguments: object) -> None:
        from engine_cmd.main import main

        assert main(["keys", *map(str, arguments)]) == 0

    def allow(self, where: str, who: str, role: str, *more: object) -> None:
        self.keys("allow", self.of(where), self.of(who) / f"{who}.public", "--role", role, *more)

    def start(self, host: int) -> None:
        initial = ",".join(
            f"{member}=tcp://{self.hosts.address(other)}:7000"
            for other, member in self.members.items()
        )
        own = self.hosts.address(host)
        ends = {"--listen": f"tcp://{own}:7000", "--clients": f"tcp://{own}:7001"}
        if host == 1:
            ends = {
                "--listen": "tcp://0.0.0.0:7000", "--advertise": f"tcp://{own}:7000",
                "--clients": "tcp://0.0.0.0:7001", "--advertise-clients": f"tcp://{own}:7001",
            }  # fmt: skip
        words = [word for pair in ends.items() for word in pair]
        self.serving[host] = self.hosts.start(
            host,
            [*PROGRAM, "kv", "serve", "--dir", self.folder / f"m{host}", "--initial", initial,
             "--keys", self.of(f"n{host}"), "--segment-bytes", 1 << 16, *words],
            f"serve{host}",
        )  # fmt: skip

    @property
    def clients(self) -> str:
        return ",".join(f"tcp://{self.hosts.address(host)}:7001" for host in SERVERS)

    def kv(self, name: str, *arguments: object) -> Ran:
        return self.hosts.engine(
            OUTSIDE, "kv", *arguments, "--cluster", self.clients, "--keys", self.of(name)
        )

    def status(self, host: int) -> Status | None:
        """Operators of a host ask it by a socket in its folder."""
        try:
            with Operator(f"ipc://{self.folder}/m{host}/admin", timeout=patience(2)) as operator:
                return operator.status()
        except EngineError:
            return None

    def leader(self, among: tuple[int, ...] = SERVERS) -> int:
        def found() -> int:
            told = {host: self.status(host) for host in among}
            leads = [(s.term, host) for host, s in told.items() if s and s.role == "leader"]
            return max(leads)[1] if leads else 0

        return eventually(found, 20, "a leader")

    def counted(self, what: str) -> int:
        told = [self.status(host) for host in SERVERS]
        return sum(dict(one.counters).get(what, 0) for one in told if one is not None)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    need_namespaces()
    folder = tmp_path_factory.mktemp("h")
    out = folder / "out"
    out.mkdir()
    with Hosts(out, 4) as hosts:
        hosts.start(0, [sys.executable, "-c", SNIFFER, out / "wire"], "sniffer")
        eventually(lambda: b"sniffing" in (out / "sniffer.out").read_bytes())
        made = Cluster(folder, hosts)
        for host in SERVERS:
            made.start(host)
        try:
            made.leader()
        finally:
            print(hosts.told().decode())  # for whoever wonders why there is none
        assert made.kv("alice", "put", "greeting", WORDS.decode()).code == 0
        yield made
        codes = {host: hosts.stop(process) for host, process in made.serving.items()}
        assert codes == dict.fromkeys(SERVERS, 0), hosts.told().decode()


def test_three_hosts_serve_what_nobody_can_read(cluster: Cluster) -> None:
    """Neither on the way from a client nor between replicas."""
    ran = cluster.kv("bob", "get", "greeting")
    assert (ran.code, ran.out) == (0, WORDS.decode() + "\n")
    path = cluster.hosts.folder / "wire"
    wire = eventually(lambda: found if b"CURVE" in (found := path.read_bytes()) else b"")
    assert len(wire) > 100 * len(WORDS)
    assert WORDS not in wire
    assert b"greeting" not in wire


def test_strangers_get_nothing(cluster: Cluster) -> None:
    """Whoever has no key, none that is known, or one for another door."""
    hosts = cluster.hosts
    peers, clients = (f"tcp://{hosts.address(2)}:{port}" for port in (7000, 7001))
    key = (cluster.of("n2") / "n2.public").read_text().split()[3]
    for door, which in ((peers, "peers"), (clients, "clients")):
        for given, reason in (((), "unproven"), ((key,), "stranger")):
            before = cluster.counted(f"{which}_refused_{reason}")
            ran = hosts.run(OUTSIDE, sys.executable, "-c", KNOCK, door, *given)
            assert ran.out == "out\n", ran.err
            eventually(lambda: cluster.counted(f"{which}_refused_{reason}") > before)  # noqa: B023
    ran = cluster.kv("stranger", "get", "greeting")
    assert (ran.code, ran.out) == (6, "")
    assert "does not let our key stranger in as client" in ran.err
    ran = hosts.engine(OUTSIDE, "kv", "get", "greeting", "--cluster", clients)
    assert (ran.code, ran.out) == (6, "")
    assert "with a folder of keys" in ran.err
    before = cluster.counted("peers_refused_elsewhere")
    ran = hosts.engine(
        OUTSIDE, "raft", "submit", "x", "--cluster", peers, "--keys", cluster.of("alice")
    )
    assert ran.code == 6
    assert cluster.counted("peers_refused_elsewhere") > before
    assert cluster.kv("bob", "get", "greeting").code == 0


def test_a_host_that_is_cut_off_catches_up(cluster: Cluster) -> None:
    hosts, lost = cluster.hosts, cluster.leader()
    rest = tuple(host for host in SERVERS if host != lost)
    hosts.plug(lost, into=False)
    try:
        cluster.leader(rest)
        ran = cluster.kv("alice", "put", "cut", "off")
        assert (ran.code, ran.err) == (0, "")
    finally:
        hosts.plug(lost, into=True)

    def caught_up() -> bool:
        told = [cluster.status(host) for host in SERVERS]
        return len({(s.applied, s.digest) for s in told if s is not None}) == 1 and None not in told

    eventually(caught_up, 30, "the host that was cut off has all again")
    ran = cluster.kv("bob", "get", "cut")
    assert (ran.code, ran.out) == (0, "off\n")


def test_a_revoked_key_gets_nothing_more(cluster: Cluster) -> None:
    """Not even over the connection that it has."""
    hosts = cluster.hosts
    watching = hosts.start(
        OUTSIDE,
        [*PROGRAM, "kv", "watch", "news", "--cluster", cluster.clients,
         "--keys", cluster.of("alice")],
        "watch",
    )  # fmt: skip

    def seen() -> bool:
        assert cluster.kv("bob", "put", "news", "first").code == 0
        return b"first" in (hosts.folder / "watch.out").read_bytes()

    eventually(seen, 20, "the watcher watches")
    assert connections(watching.pid, 7001)
    for host in SERVERS:
        cluster.keys("revoke", cluster.of(f"n{host}"), "alice")
    eventually(lambda: connections(watching.pid, 7001) == 0, 3.0, "it was cut off everywhere")
    assert cluster.counted("clients_dismissed") >= 1
    assert cluster.kv("bob", "put", "news", "second").code == 0
    ran = cluster.kv("alice", "get", "greeting")
    assert (ran.code, ran.out) == (6, "")
    assert b"second" not in (hosts.folder / "watch.out").read_bytes()
    watching.terminate()
    watching.wait(patience(20))


def connections(pid: int, port: int) -> int:
    """How many are established to this port, on the host of a process."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def secrets(cluster: Cluster) -> list[bytes]:
    """Each in the forms in which it could be printed."""
    from zmq.utils import z85

    found = []
    for path in cluster.folder.glob("keys/*/*.secret"):
        digits = path.read_text().split()[3]
        raw = bytes.fromhex(digits)
        found += [digits.encode(), digits.upper().encode(), raw, z85.encode(raw)]
    return found


def test_no_secret_is_shown(cluster: Cluster) -> None:
    """Not in logs, arguments, environments, statuses, on the wire, or in the replicas' folders."""
    shown = cluster.hosts.told() + (cluster.hosts.folder / "wire").read_bytes()
    for process in cluster.serving.values():
        for name in ("cmdline", "environ"):
            shown += Path(f"/proc/{process.pid}/{name}").read_bytes()
    for host in SERVERS:
        status: Any = cluster.status(host)
        shown += json.dumps(status._asdict(), default=repr).encode()
        for path in (cluster.folder / f"m{host}").rglob("*"):
            if path.is_file():
                shown += path.read_bytes()
    assert b"kv serve" in shown.replace(b"\0", b" ")
    for secret in secrets(cluster):
        assert secret not in shown


def test_a_server_without_good_keys_does_not_listen(tmp_path: Path) -> None:
    make(str(tmp_path / "m"))
    assert engine("keys", "new", "n1", "--dir", str(tmp_path / "keys")).code == 0
    serve = ["kv", "serve", "--dir", str(tmp_path / "m"), "--clients", "tcp://0.0.0.0:*"]
    ran = engine(*serve)
    assert (ran.code, "not on this machine's loopback" in ran.err) == (6, True), ran.err
    ran = engine(*serve, "--keys", str(tmp_path / "none"))
    assert (ran.code, "is no folder of keys" in ran.err) == (2, True)
    ran = engine(*serve, "--keys", str(tmp_path / "keys"))
    assert (ran.code, "does not have our own key n1" in ran.err) == (6, True)
    os.chmod(tmp_path / "keys" / "n1.secret", 0o644)
    environment = {**os.environ, "ENGINE_KEYS": str(tmp_path / "keys")}
    ran = engine(*serve, env=environment)
    assert (ran.code, "run chmod 600" in ran.err) == (6, True)


def keyed(folder: Path, **roles: dict[str, str]) -> None:
    """Folders of keys by name, each with what it allows: names and roles."""
    for name in roles:
        assert engine("keys", "new", name, "--dir", str(folder / name)).code == 0
    for name, allowed in roles.items():
        for other, role in allowed.items():
            public = str(folder / other / f"{other}.public")
            assert engine("keys", "allow", str(folder / name), public, "--role", role).code == 0


def test_only_workers_with_keys_join_a_job(tmp_path: Path) -> None:
    """A client's key may not, and what the job makes is what it always makes."""
    known = {"boss": "coordinator", "hand": "worker", "bob": "client"}
    keyed(tmp_path, boss=known, hand=known, bob=known)
    (tmp_path / "text").write_text("a b a\n")
    with open(tmp_path / "err", "wb") as err:
        job = subprocess.Popen(
            [*PROGRAM, "mr", "coordinator", "wordcount", str(tmp_path / "text"), "--out",
             str(tmp_path / "out"), "--listen", "tcp://127.0.0.1:*", "--keys",
             str(tmp_path / "boss"), "--reducers", "1"],
            stdout=subprocess.DEVNULL, stderr=err,
        )  # fmt: skip
    try:
        found = eventually(
            lambda: re.search(r"--join (\S+) --keys", (tmp_path / "err").read_text())
        )
        join = ["mr", "worker", "--join", found[1], "--keys"]
        ran = engine(*join, str(tmp_path / "bob"))
        assert (ran.code, "does not let our key bob in as worker" in ran.err) == (6, True)
        assert engine(*join, str(tmp_path / "hand")).code == 0
        assert job.wait(patience(20)) == 0
    finally:
        job.kill()
        job.wait()
    assert (tmp_path / "out" / "mr-out-0").read_text() == "a 2\nb 1\n"


def test_programs_and_operators_have_keys_as_well(tmp_path: Path) -> None:
    """Each its own door; and whoever spoils the list of a server is told so by it."""
    import asyncio

    from engine.kv.aio import AsyncStore

    known = {"n1": "replica", "bob": "client", "ann": "admin"}
    keyed(tmp_path, n1=known, bob=known, ann=known)
    member = make(str(tmp_path / "m"))
    with open(tmp_path / "said", "wb") as said, open(tmp_path / "err", "wb") as err:
        process = subprocess.Popen(
            [*PROGRAM, "kv", "serve", "--dir", str(tmp_path / "m"), "--initial",
             f"{member}=ipc://{tmp_path}/m/peers", "--clients", "tcp://127.0.0.1:*", "--admin",
             "tcp://127.0.0.1:*", "--keys", str(tmp_path / "n1"), "--json"],
            stdout=said, stderr=err,
        )  # fmt: skip
    try:
        eventually(lambda: (tmp_path / "said").read_text().endswith("\n"))
        ends = json.loads((tmp_path / "said").read_text())
        address = ends["clients"]
        status = ["raft", "status", "--cluster", ends["admin"], "--json", "--keys"]
        ran = engine(*status, str(tmp_path / "ann"))
        assert json.loads(ran.out)["replicas"][0]["member"] == member
        ran = engine(*status, str(tmp_path / "bob"))
        assert (ran.code, "does not let our key bob in as admin" in ran.out) == (6, True)

        async def used() -> list[bytes]:
            async with AsyncStore([address], token=str(tmp_path / "bob")) as store:
                await asyncio.gather(*(store.put(f"k{n}", str(n)) for n in range(100)))
                found = [await store.get(f"k{n}") for n in range(100)]
                return [one.value for one in found if one is not None]

        assert asyncio.run(used()) == [b"%d" % n for n in range(100)]
        with open(tmp_path / "n1" / "allowed", "a") as allowed:
            allowed.write("nonsense\n")
        said_so = f"Nobody new is let in by {tmp_path}/n1/allowed: line"
        eventually(lambda: said_so in (tmp_path / "err").read_text())
    finally:
        process.terminate()
        assert process.wait(patience(20)) == 0
