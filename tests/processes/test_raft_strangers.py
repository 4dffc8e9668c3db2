"""Whom a replica does not serve: a second process, strangers, nonsense, and peers gone mad."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from raft_cuts import LABS_TIMING, loaded, term
from raft_group import RaftGroup
from scenes import scene, scenes
from support import dose, engine, patience
from waiting import eventually

from engine.errors import EngineError, RefusedError
from engine.kernels.checksum import crc32c
from engine.raft import told
from engine.raft.membership import founders, pack
from engine.raft.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from engine.raft.requests import AskStatus, HandOver, Reconfigure, Submit
from engine.storage.entries import COMMAND, CONFIG, NOOP, Entry
from engine.storage.home import make
from engine.views.messages import Ping
from engine.wire.endpoint import Dialer

__all__ = ["scenes"]
pytestmark = pytest.mark.processes

MAD = dose(5_000, 200_000)
"""Messages with hostile values."""
TRIES = 4


# --- one folder, one socket, one process ---------------------------------------------------------


@scene
def test_second_process_on_a_folder(folder: Path) -> None:
    """It is told who has it, and the first one does not notice."""
    with RaftGroup(folder, 1) as group, loaded(group) as load:
        ran = engine("raft", "serve", "--dir", str(group.home("n0")))
        assert ran.code == 6
        pid = group.cluster.node("n0").process.pid
        assert f"is in use by process {pid}" in ran.err
        load.more(20)


@scene
def test_taken_socket(folder: Path) -> None:
    """Whoever listens there already is named, and is not disturbed."""
    with RaftGroup(folder, 1) as group, loaded(group) as load:
        make(str(folder / "other"))
        taken = group.cluster.address("n0")
        ran = engine("raft", "serve", "--dir", str(folder / "other"), "--listen", taken)
        assert ran.code == 6
        assert f"rocess {group.cluster.node('n0').process.pid} " in ran.err
        assert "stop it or name another address" in ran.err
        load.more(20)


@scene
def test_taken_port(folder: Path) -> None:
    make(str(folder / "m"))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        at = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        ran = engine("raft", "serve", "--dir", str(folder / "m"), "--admin", at,
                     "--token", str(folder / "token"))  # fmt: skip
    assert ran.code == 6
    assert f"process {os.getpid()}" in ran.err
    assert sorted(os.listdir(folder / "m")) == ["lock", "log", "member"]


@scene
def test_ended_in_good_order(folder: Path) -> None:
    """By SIGTERM and SIGINT: no sockets, no files of its own, exit code 0; and it leaves nothing to
    recover that was not there."""
    home = folder / "m"
    number = make(str(home))
    for ends in (signal.SIGTERM, signal.SIGINT):
        command = [sys.executable, "-m", "engine_cmd.main", "raft", "serve", "--dir", str(home),
                   "--initial", f"{number}=ipc://{home}/peers", "--json"]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert b"address" in process.stdout.readline()
        assert sorted(os.listdir(home)) == ["admin", "clients", "lock", "log", "member", "peers"]
        assert engine("raft", "submit", "x", "--cluster", str(home)).code == 0
        process.send_signal(ends)
        out, err = process.communicate(timeout=patience(20))
        assert (process.returncode, out) == (0, b"")
        assert b"Traceback" not in err
        assert sorted(os.listdir(home)) == ["lock", "log", "member"]
        names = os.listdir(home / "log")
        assert not [name for name in names if "." in name or name == "opening"]


# --- strangers -----------------------------------------------------------------------------------


@contextmanager
def dialed(address: str, role: str, **who: Any) -> Iterator[Dialer]:
    with Dialer(address, role=role, incarnation=time.monotonic_ns(), **who) as dialer:
        dialer.connect(patience(5))
        yield dialer


def greet(address: str, role: str, **who: Any) -> None:
    """Be let in, and go."""
    with dialed(address, role, **who):
        pass


def undisturbed(group: RaftGroup, strangers: Callable[[], None]) -> None:
    """Whatever they do: the same processes, leader and term.

    A machine that has no time for a leader deposes it without any stranger, so whoever is said to
    have done that must do it again, each time.
    """
    pids = {name: status.pid for name, status in group.statuses().items()}
    changes = []
    for _ in range(TRIES):
        before = (group.leader(), term(group))
        strangers()
        after = (group.leader(), term(group))
        assert {name: status.pid for name, status in group.statuses().items()} == pids
        if after == before:
            return
        changes.append((before, after))
    raise AssertionError(f"strangers depose leaders: {changes}")


@scene
def test_wrong_roles(folder: Path) -> None:
    """A client has no business with peers, nor a peer with operators."""

    def strangers() -> None:
        for name in group.names:
            peers = group.cluster.address(name)
            for address, roles in (
                (peers, ("client", "admin", "worker")),
                (f"{peers}.c", ("replica", "admin")),
                (f"{peers}.a", ("replica", "client")),
            ):
                for role in roles:
                    with pytest.raises(RefusedError, match="belongs here"):
                        greet(address, role)

    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        undisturbed(group, strangers)
        load.more(20)


def heard(group: RaftGroup, name: str) -> int:
    """Messages of peers, those with no sense as well."""
    return dict(group.operator(name).status().counters)["peers_received"]


def unheard(group: RaftGroup, name: str) -> int:
    """Messages that it did not hear: of kinds that it does not know, or has no use for."""
    counters = dict(group.operator(name).status().counters)
    return counters["malformed"] + counters["peers_malformed"]


@scene
def test_wrong_kinds(folder: Path) -> None:
    """What belongs to somebody else's service, or to another of our endpoints, changes nothing."""
    kinds = [
        Ping(1, "x", 1, 1),
        AskStatus(1), Submit(1, b"stranger"), HandOver(1, 0), Reconfigure(1, ()),
    ]  # fmt: skip

    def strangers() -> None:
        for name in group.names:
            wanted = unheard(group, name) + len(kinds)
            with dialed(group.cluster.address(name), "replica") as peer:
                for kind in kinds:
                    peer.send(kind)
                eventually(
                    lambda name=name, wanted=wanted: unheard(group, name) >= wanted,
                    20,
                    "them to be counted",
                )
        with dialed(f"{group.cluster.address('n0')}.c", "client") as client:
            client.send(Reconfigure(1, ()))
            client.send(HandOver(1, 0))
            client.send(AskStatus(1))
            assert client.receive(0.2) is None

    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        undisturbed(group, strangers)
        load.more(20)


@scene
def test_garbage(folder: Path) -> None:
    """Bytes that are no frames, frames that are no messages, and half connections."""
    rng = random.Random(11)
    context: zmq.Context[Any] = zmq.Context()

    def strangers() -> None:
        for name in group.names:
            for suffix in ("", ".c", ".a"):
                address = f"{group.cluster.address(name)}{suffix}"
                dealer = context.socket(zmq.DEALER)
                dealer.setsockopt(zmq.LINGER, 1000)
                dealer.connect(address)
                for _ in range(200):
                    size = rng.choice((0, 1, 7, 24, 28, 100, 5000))
                    dealer.send_multipart([rng.randbytes(size)] * rng.choice((1, 1, 1, 3)))
                dealer.close()
                with socket.socket(socket.AF_UNIX) as raw:
                    raw.connect(address.removeprefix("ipc://"))
                    raw.send(rng.randbytes(rng.choice((1, 10, 64, 3000))))

    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        undisturbed(group, strangers)
        load.more(20)
    context.term()


@scene
def test_wrong_token(folder: Path) -> None:
    """Over TCP: without the token nobody is anybody, and whoever has it is."""
    home, token = folder / "m", folder / "token"
    number = make(str(home))
    command = [sys.executable, "-m", "engine_cmd.main", "raft", "serve", "--dir", str(home),
               "--initial", f"{number}=ipc://{home}/peers", "--json", "--token", str(token),
               "--clients", "tcp://127.0.0.1:*", "--admin", "tcp://127.0.0.1:*"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            import json

            where = json.loads(process.stdout.readline())
            wrong = folder / "wrong"
            wrong.write_bytes(bytes(reversed(token.read_bytes().strip())) + b"\n")
            wrong.chmod(0o600)
            for name, role in (("clients", "client"), ("admin", "admin")):
                with pytest.raises(EngineError):
                    greet(where[name], role, token=str(wrong))
            look = ["raft", "look", "--cluster", where["clients"], "--timeout", "3"]
            assert engine(*look, "--token", str(wrong)).code in (4, 6)
            assert engine(*look, "--token", str(token)).out == "0\n"
        finally:
            process.terminate()


# --- peers gone mad ------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 3, 5, 17, 1 << 20, (1 << 31) - 1, 1 << 32, 1 << 53, (1 << 61), 1 << 62,
           (1 << 63) - 1)  # fmt: skip


class Mad:
    """Draws messages with the right types, for a replica whose status is known."""

    def __init__(self, rng: random.Random, group: RaftGroup) -> None:
        self.rng, self.group = rng, group
        self.ids = list(group.ids.values())

    def number(self, *near: int) -> int:
        pick = self.rng.random()
        if near and pick < 0.5:
            return max(0, self.rng.choice(near) + self.rng.randint(-2, 2))
        return self.rng.choice(NUMBERS) if pick < 0.9 else self.rng.getrandbits(62)

    def entry(self, term: int) -> Entry:
        rng = self.rng
        kind = rng.choice((NOOP, COMMAND, COMMAND, CONFIG, rng.randrange(9)))
        body = rng.choice((
            b"", rng.randbytes(rng.randrange(50)), told.pack([rng.randbytes(9)] * 3),
            pack(founders({rng.choice(self.ids): "ipc://*"})), b"\\xff" * 8,
        ))  # fmt: skip
        crc = crc32c(body) if rng.random() < 0.8 else rng.getrandbits(32)
        return Entry(self.number(term), kind, crc, body)

    def message(self, status: Any) -> Any:
        """Of a term that is long gone, or of another member: what a mad peer says in the present
        term is true for whoever trusts it, and leads to what it says."""
        rng, term = self.rng, status.term
        old = self.number(0, max(0, term - 3)) % max(1, term)
        me = rng.choice((status.member, self.number(), *self.ids))
        sender = rng.choice((*self.ids, status.member, self.number()))
        index = self.number(status.last, status.commit, status.base)
        flag, other = rng.random() < 0.5, rng.random() < 0.5
        entries = tuple(self.entry(old) for _ in range(rng.randrange(4)))
        data = rng.randbytes(rng.randrange(100))
        return rng.choice((
            VoteRequest(old, sender, me, self.number(term), index, flag, other),
            VoteRequest(self.number(term + 1), sender, me, self.number(term), index, True, False),
            VoteReply(self.number(term), sender, me, flag, other),
            AppendEntries(old, sender, me, index, self.number(old), self.number(status.commit),
                          self.number(), entries),
            AppendReply(old, sender, me, index, self.number(), flag, index, index,
                        self.number(old), other, flag),
            InstallSnapshot(old, sender, me, index, self.number(old), self.number(100),
                            self.number(0), data),
            SnapshotReply(old, sender, me, index, self.number()),
            TimeoutNow(old, sender, me),
        ))  # fmt: skip


@scene
def test_peers_with_hostile_values(folder: Path) -> None:
    """Thousands of messages that are well formed and of no sense, from one who may speak as a
    member: no process ends, and no acknowledged command is lost."""
    rng = random.Random(12)
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        mad = Mad(rng, group)
        pids = {name: status.pid for name, status in group.statuses().items()}
        for number in range(MAD // 250):
            name = group.names[number % 3]
            wanted = heard(group, name) + 250
            with dialed(group.cluster.address(name), "replica", node=number) as peer:
                for at in range(250):
                    if at % 50 == 0:
                        status = group.operator(name).status()
                    peer.send(mad.message(status))
                # Whoever leaves at once takes along what a busy member has not read yet.
                eventually(
                    lambda name=name, wanted=wanted: heard(group, name) >= wanted, 20, "a hearing"
                )
        load.more(20)
        assert {name: status.pid for name, status in group.statuses().items()} == pids
        counters = [dict(status.counters) for status in group.statuses().values()]
        assert sum(counter["malformed"] for counter in counters) > MAD // 20
        assert sum(counter["peers_received"] for counter in counters) >= MAD
