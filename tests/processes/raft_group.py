"""Groups of real members for tests: `engine raft serve`, each link through the fault proxy.

    with RaftGroup(tmp_path, 3, seed=7) as group:
        leader = group.leader()
        with group.load() as load:
            group.kill(leader)
            group.start(leader)
        group.judge(load)

What a group is stands in `engine.faults.replicas`. Operators and clients reach members directly,
and only what members say to each other passes the proxy.

With snapshots a member's log does not go back to the beginning, so whoever wants to `judge` all of
it has a `Witness` look on from there.
"""

from __future__ import annotations

import contextlib
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from support import patience
from waiting import eventually

from engine.errors import ConnectionFailed, EngineError, OutcomeUnknown
from engine.faults.replicas import ASK_SECONDS, PROGRAM, Replicas
from engine.raft import told
from engine.raft.client import Group, Operator
from engine.raft.requests import Status
from engine.storage.entries import COMMAND

__all__ = ["PROGRAM", "Load", "RaftGroup", "Reader", "Witness"]


class RaftGroup(Replicas):
    """`Replicas` of the labs' log, with patience for this machine, load, and judges. The founders
    run when the block begins."""

    def __init__(
        self,
        folder: Path,
        members: int,
        *,
        ask_seconds: float = ASK_SECONDS,
        verb: str = "raft",
        **how: Any,
    ) -> None:
        super().__init__(folder, members, verb=verb, ask_seconds=patience(ask_seconds), **how)

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            for name in self.founders:
                self.start(name)
        except BaseException:
            self.close()
            raise
        return self

    # --- what they say ---------------------------------------------------------------------------

    def leader(self, among: Sequence[str] = (), *, seconds: float = 10) -> str:
        """Who leads the latest term among these, once somebody leads and others follow."""

        def found() -> str:
            told_by = self.statuses(among)
            leads = [(s.term, name) for name, s in told_by.items() if s.role == "leader"]
            term, name = max(leads, default=(0, ""))
            settled = all(s.term <= term for s in told_by.values())
            return name if name and settled else ""

        return eventually(found, seconds, "a leader")

    def followers(self) -> list[str]:
        leader = self.leader()
        return [name for name in self.running() if name != leader]

    def commands(self, name: str, upto: int = 0) -> list[bytes]:
        """All that a member has applied, in order; AssertionError if its log begins later."""
        status = eventually(lambda: self.status(name), 10, f"{name} answers")
        found: list[bytes] = []
        after, last = 0, max(upto, status.applied)
        while after < last:
            applied = self.operator(name).follow(after)
            assert applied.entries, f"{name} has a snapshot in place of its first entries"
            for _, kind, body in applied.entries:
                if kind == COMMAND:
                    found += told.unpack(body)
            after = applied.first + len(applied.entries) - 1
        return found

    def agreed(
        self, names: Sequence[str] = (), *, seconds: float = 30, witness: Witness | None = None
    ) -> dict[str, Status]:
        """Wait until these, or all that run, have applied the same and more than nothing; not if
        the witness knows already that they never will."""

        def found() -> dict[str, Status]:
            if witness is not None:
                witness.check()
            told_by = self.statuses(names)
            states = {(s.applied, s.commands, s.digest) for s in told_by.values()}
            whole = len(told_by) == len(names or self.running())
            return told_by if whole and len(states) == 1 else {}

        return eventually(found, seconds, "all members have applied the same")

    # --- load ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def load(self, clients: int = 3, **how: Any) -> Iterator[Load]:
        """Clients that submit commands while the block runs."""
        load = Load([self.clients(name) for name in self.names], clients, **how)
        try:
            yield load
        finally:
            load.stop()

    @contextlib.contextmanager
    def reads(self, load: Load, names: Sequence[str] = (), **how: Any) -> Iterator[Reader]:
        """Somebody who asks all, or these, and must see all that was acknowledged before."""
        reader = Reader([self.clients(name) for name in names or self.names], load, **how)
        try:
            yield reader
        finally:
            reader.stop()

    @contextlib.contextmanager
    def witness(self) -> Iterator[Witness]:
        """Somebody who sees what all members apply while the block runs."""
        witness = Witness([f"{self.cluster.address(name)}.a" for name in self.names])
        try:
            yield witness
        finally:
            witness.stop()

    def judge_witnessed(self, load: Load, witness: Witness, names: Sequence[str] = ()) -> Status:
        """The same as `judge`, with snapshots: all members agree, each acknowledged command is
        there once and where it was said to be, and none that was refused. Of the few that nobody
        saw being applied, because all members had them in a snapshot when they were asked, it is
        known how many they are."""
        status = next(iter(self.agreed(names, witness=witness).values()))
        witness.reach(status.commands)
        assert load.acknowledged, "nothing was acknowledged: this tests nothing"
        seen, last = witness.commands, status.commands
        assert max(load.acknowledged.values()) <= last, "what was acknowledged is lost"
        places = {place: command for command, place in load.acknowledged.items()}
        assert len(places) == len(load.acknowledged), "two commands have one place"
        for command, place in load.acknowledged.items():
            assert seen.get(place, command) == command, (command, place, seen[place])
        once = set(seen.values())
        assert len(seen) == len(once), "a command is there twice"
        known = load.acknowledged.keys() | load.unknown
        strange = {command for command in once if command.startswith(load.name)} - known
        assert not strange, f"commands are there that were refused: {strange}"
        unknown = [p for p in range(1, last + 1) if p not in places and p not in seen]
        assert len(unknown) <= len(load.unknown - once), "more commands than anybody submitted"
        assert 2 * len(seen) >= last, f"only {len(seen)} of {last} commands were witnessed"
        return status

    def judge(self, load: Load, names: Sequence[str] = ()) -> list[bytes]:
        """All members agree, and have each acknowledged command once, where it was said to be; the
        commands."""
        self.agreed(names)
        logs = {name: self.commands(name) for name in names or self.running()}
        first = next(iter(logs.values()))
        assert all(log == first for log in logs.values()), {n: len(x) for n, x in logs.items()}
        assert load.acknowledged, "nothing was acknowledged: this tests nothing"
        for command, place in load.acknowledged.items():
            assert place <= len(first), f"{command!r} was acknowledged as {place} and is lost"
            assert first[place - 1] == command, (command, place, first[place - 1])
        known = load.acknowledged.keys() | load.unknown
        assert len(first) == len(set(first)), "a command is there twice"
        mine = [command for command in first if command.startswith(load.name)]
        assert set(mine) <= known, "a command is there that was refused"
        return first


class Load:
    """Threads that submit numbered commands, one after another, and remember what became of them.

    `name` tells commands apart from those of other loads; `pause` seconds after each, which may be
    changed at any time; `size` is how many bytes they have at least.
    """

    def __init__(
        self,
        servers: Sequence[str],
        clients: int,
        *,
        name: bytes = b"load",
        pause: float = 0.0,
        size: int = 0,
    ) -> None:
        self.name, self.pause, self.size = name, pause, size
        self.acknowledged: dict[bytes, int] = {}
        """Where each of them is."""
        self.unknown: set[bytes] = set()
        self.refused = 0
        self.at: list[tuple[float, bytes]] = []
        """When each was acknowledged (CLOCK_MONOTONIC seconds)."""
        self._servers = list(servers)
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        turn = 0
        try:
            while not self._over.is_set():
                with Group(self._servers, timeout=patience(2)) as group:
                    while not self._over.is_set():
                        turn += 1
                        command = b"%s %d %d" % (self.name, number, turn)
                        command = command.ljust(self.size, b".")
                        if not self._submit(group, command):
                            break
                        if self.pause:
                            self._over.wait(self.pause)
        except BaseException as error:
            self._failed.append(error)

    def _submit(self, group: Group, command: bytes) -> bool:
        try:
            self.acknowledged[command] = group.submit(command)
            self.at.append((time.monotonic(), command))
        except OutcomeUnknown:
            self.unknown.add(command)
            return False
        except EngineError:
            self.refused += 1
            return False
        return True

    def more(self, count: int, seconds: float = 20) -> None:
        """Wait until so many more were acknowledged."""
        wanted = len(self.acknowledged) + count
        eventually(lambda: len(self.acknowledged) >= wanted, seconds, "progress")

    def stop(self) -> None:
        """End the threads; raises what went wrong in them."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]


class Reader:
    """A thread that looks again and again, and fails `stop` if it is ever told too little."""

    def __init__(self, servers: Sequence[str], load: Load, *, pause: float = 0.01) -> None:
        self.seen = 0
        """Answers."""
        self._servers, self._load, self._pause = list(servers), load, pause
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        least = 0
        try:
            with Group(self._servers, timeout=patience(2)) as group:
                while not self._over.is_set():
                    # Commands are acknowledged with their places, one of which is the greatest.
                    places = list(self._load.acknowledged.values())[-8:]
                    least = max(least, *places, 0)
                    try:
                        commands = group.look().commands
                    except (ConnectionFailed, OutcomeUnknown):
                        continue
                    assert commands >= least, f"{least} were there, and {commands} were seen"
                    least = commands
                    self.seen += 1
                    self._over.wait(self._pause)
        except BaseException as error:
            self._failed.append(error)

    def stop(self) -> None:
        """End it; raises what went wrong in it."""
        self._over.set()
        self._thread.join()
        self.check()

    def check(self) -> None:
        """Raises what went wrong so far."""
        if self._failed:
            raise self._failed[0]


class Witness:
    """Threads that follow what each member applies, one a member, through all its lives.

    `commands` has all that were seen, by their places. A member that applies something else than
    another one fails `stop`.
    """

    def __init__(self, operators: Sequence[str]) -> None:
        self.commands: dict[int, bytes] = {}
        self._entries: dict[int, tuple[int, int]] = {}
        """By index: the term, and a sum of what is in it."""
        self._reached = [0] * len(operators)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._failed: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number, address))
            for number, address in enumerate(operators)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, address: str) -> None:
        after = 0
        try:
            while not self._over.is_set():
                with Operator(address, timeout=0.5) as operator:
                    try:
                        while not self._over.is_set():
                            after = self._take(number, after, operator.follow(after))
                    except (ConnectionFailed, OutcomeUnknown):
                        self._over.wait(0.02)
        except BaseException as error:
            self._failed.append(error)

    def _take(self, number: int, after: int, applied: Any) -> int:
        if not applied.entries:
            self._reached[number] = applied.commands
            return int(applied.first - 1)
        place = self._reached[number]
        with self._lock:
            for index, (term, kind, body) in enumerate(applied.entries, applied.first):
                mine = (term, zlib.crc32(body))
                other = self._entries.setdefault(index, mine)
                assert other == mine, f"entry {index} is {mine} here and {other} elsewhere"
                for command in told.unpack(body) if kind == COMMAND else ():
                    place += 1
                    known = self.commands.setdefault(place, command)
                    assert known == command, f"command {place}: {command!r}, and was {known!r}"
        self._reached[number] = place
        return int(applied.first + len(applied.entries) - 1)

    def reach(self, commands: int, seconds: float = 10) -> None:
        """Wait until some member's commands were seen as far as this."""
        eventually(lambda: max(self._reached) >= commands or self._failed, seconds, "the witness")

    def stop(self) -> None:
        """End the threads; raises what went wrong in them."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.check()

    def check(self) -> None:
        """Raises what went wrong so far."""
        if self._failed:
            raise self._failed[0]
