"""Groups of real replicas: `engine kv serve` or `engine raft serve`, each link through the proxy.

    with Replicas(folder, 5, seed=7, more=1, power=True) as group:
        group.kill("n0", power=True)
        group.start("n0")
        group.replace("n1")

Members are called `n0`, `n1`, …; their folders are on the disk that `folder` is on. Operators reach
them directly, and what members say to each other passes the proxy, as does what clients say that
use `via`. Founders know each other from the start; `more` folders are there for those who are to be
added. Whoever was removed begins anew, with another number and an empty folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, Self

from engine.errors import ConnectionFailed, EngineError, OutcomeUnknown
from engine.faults.cluster import Cluster
from engine.faults.points import Control
from engine.faults.power import Loss, Power
from engine.faults.subject import LIVE_SECONDS
from engine.kv.backup import StoreOperator
from engine.raft.client import Operator
from engine.raft.membership import LEARNER
from engine.raft.requests import Status
from engine.storage.home import make

ASK_SECONDS = 5.0
PROGRAM = "engine_cmd.main"
SETTLE_SECONDS = 60.0
"""A change of members that has not come about by then never will."""
LOOK_SECONDS = 0.02
Seats = dict[int, tuple[str, bool]]
"""By number of a member: where its peers reach it, and whether it votes."""


class Replicas:
    """`members` voters found the group; `more` folders are there for those who are to be added.

    `verb` is `kv` or `raft`, and `flags` are for every `engine VERB serve`; `program` runs in the
    place of `engine`, with the words `before` in front. With `power` members are on disks that lose
    what was not synced when they are killed with `power=True` (`powers`); with `points` they can be
    armed while they run (`controls`); with `trace` all that they do is noted in `traces`. Nothing
    runs before `start`. A context manager, which ends all; at home in one thread.
    """

    def __init__(
        self,
        folder: Path,
        members: int,
        *,
        verb: str = "kv",
        seed: int = 0,
        more: int = 0,
        flags: Sequence[str] = (),
        factor: float = 1,
        power: bool = False,
        points: bool = False,
        trace: bool = False,
        ask_seconds: float = ASK_SECONDS,
        program: str = PROGRAM,
        before: Sequence[str] = (),
        live: int = LIVE_SECONDS,
    ) -> None:
        self.folder, self.verb, self.flags = folder, verb, tuple(flags)
        self.program, self.before, self.factor = program, tuple(before), factor
        self.ask_seconds = ask_seconds
        """How long an operator waits for an answer: whoever dies of a question never gives one."""
        self.powers: dict[str, Power] = {}
        self.controls: dict[str, Control] = {}
        self.traces: dict[str, str] = {}
        self.lost_bytes = 0
        """Of all that were written and not synced, and lost with the power."""
        self._operators: dict[str, Operator] = {}
        self.cluster = Cluster(folder, seed=seed, factor=factor, live=live)
        self.proxy = self.cluster.proxy
        self.names = [f"n{number}" for number in range(members + more)]
        self.founders = self.names[:members]
        try:
            self.ids = {name: make(str(self.home(name))) for name in self.names}
            self._founding = {name: self.ids[name] for name in self.founders}
            for number, name in enumerate(self.names):
                self.cluster.address(name)
                if power:
                    self.powers[name] = Power(self.home(name), seed * 1000 + number)
                if points:
                    self.controls[name] = Control(str(folder / f"{name}.points"), create=True)
                if trace:
                    self.traces[name] = str(folder / f"{name}.trace")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        self.cluster.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.forget()
        try:
            self.cluster.__exit__(*error)
        finally:
            self.close()

    def close(self) -> None:
        """Kill and reap everything; a second call does nothing."""
        self.forget()
        self.cluster.close()
        for power in self.powers.values():
            power.close()
        for control in self.controls.values():
            control.close()
        self.powers, self.controls = {}, {}

    # --- processes -------------------------------------------------------------------------------

    def home(self, name: str) -> Path:
        return self.folder / name

    def start(self, name: str, **how: Any) -> None:
        """For the first time or again; `flags` are more of those, `how` is for `Cluster.start`."""
        founding = self._founding.items()
        initial = ",".join(f"{number}={self.cluster.address(n)}" for n, number in founding)
        self.forget(name)
        sockets = self.cluster.address(name).removeprefix("ipc://")
        how.setdefault("power", self.powers.get(name))
        how.setdefault("program", self.program)
        if name in self.controls:
            how["kill_at"] = [*how.get("kill_at", ()), f"@{self.controls[name].path}"]
        more = how.pop("flags", ())
        if name in self.traces:
            more = (*more, "--trace", self.traces[name])
        self.cluster.start(
            name,
            *self.before,
            self.verb,
            "serve",
            "--dir",
            str(self.home(name)),
            "--initial",
            initial if self._founding.get(name) == self.ids[name] else "",
            "--clients",
            f"ipc://{sockets}.c",
            "--admin",
            f"ipc://{sockets}.a",
            *self.flags,
            *more,
            reaches=self.names,
            **how,
        )

    def start_all(self, names: Sequence[str]) -> dict[str, str]:
        """All at once; returns when each serves. By name, why one does not."""
        for name in names:
            self.start(name, wait=False)
        failed = {}
        for name in names:
            try:
                self.cluster.await_start(name)
            except ConnectionFailed as error:
                failed[name] = str(error)
        return failed

    def kill(self, *names: str, power: bool = False) -> list[Loss]:
        """SIGKILL, with `power` together with all that was not synced; what that was.

        Those that have ended by themselves are dealt with in the same way.
        """
        for name in names:
            self.forget(name)
            self.cluster.node(name).process.kill()  # all at once
        for name in names:
            self.cluster.kill(name)
        losses = [self._lose(self.powers[name]) for name in names] if power else []
        self.lost_bytes += sum(loss.bytes_lost for loss in losses if loss is not None)
        return [loss for loss in losses if loss is not None]

    def _lose(self, power: Power) -> Loss | None:
        """None if the process was killed before its first instruction."""
        return power.lose() if power.processes else None

    def running(self) -> list[str]:
        return [n for n in self.names if self.cluster.started(n) and self.cluster.node(n).running]

    # --- what they say ---------------------------------------------------------------------------

    def clients(self, name: str) -> str:
        """The clients' endpoint of a member."""
        return f"{self.cluster.address(name)}.c"

    def via(self, client: str) -> dict[str, str]:
        """How a client of this name reaches all members: through the proxy."""
        ends = [(name, self.clients(name)) for name in self.names]
        return {address: self.proxy.link(client, name, address) for name, address in ends}

    def operator(self, name: str) -> Operator:
        """For this thread, and until the member is killed."""
        if name not in self._operators:
            kind = StoreOperator if self.verb == "kv" else Operator
            self._operators[name] = kind(
                f"{self.cluster.address(name)}.a", timeout=self.ask_seconds
            )
        return self._operators[name]

    def forget(self, *names: str) -> None:
        """The connections of operators to these, or to all."""
        for name in names or list(self._operators):
            operator = self._operators.pop(name, None)
            if operator is not None:
                operator.close()

    def status(self, name: str) -> Status | None:
        """None if it does not answer."""
        try:
            return self.operator(name).status()
        except (ConnectionFailed, OutcomeUnknown):
            self.forget(name)
            return None

    def statuses(self, names: Sequence[str] = ()) -> dict[str, Status]:
        """Of those that run, or of these."""
        found = {name: self.status(name) for name in names or self.running()}
        return {name: status for name, status in found.items() if status is not None}

    def leads(self, among: Sequence[str] = ()) -> str:
        """Who says that it leads the latest term; "" if nobody does."""
        told = [(s.term, name) for name, s in self.statuses(among).items() if s.role == "leader"]
        return max(told, default=(0, ""))[1]

    # --- members ---------------------------------------------------------------------------------

    def add(self, name: str) -> None:
        """One that is none yet; returns when it votes. EngineError."""
        self.start(name)
        place = self.cluster.address(name)
        self.change(lambda seats: seats.update({self.ids[name]: (place, True)}))
        self._await_seat(self.ids[name], votes=True)

    def remove(self, name: str) -> None:
        """Let a member go; its folder goes with it, and its name may come again. EngineError."""
        number = self.ids[name]
        self.change(lambda seats: seats.pop(number, None))
        self._await_seat(number, votes=False)
        self.wipe(name)

    def replace(self, name: str, other: str) -> None:
        """`other` in the place of `name`, which may be dead. EngineError."""
        self.add(other)
        self.remove(name)

    def wipe(self, name: str) -> None:
        """End it, remove its folder, and make a new one for whoever bears the name next."""
        if self.cluster.started(name):
            self.kill(name)
        if name in self.powers:
            self.powers[name].forget()
        shutil.rmtree(self.home(name))
        self.ids[name] = make(str(self.home(name)))

    def change(self, change: Callable[[Seats], Any]) -> None:
        """Order other members, again while another change is under way or the leader goes."""
        deadline = monotonic() + SETTLE_SECONDS * self.factor
        while True:
            leader = self.leads()
            status = self.status(leader) if leader else None
            try:
                if status is None:
                    raise ConnectionFailed("nobody leads")
                seats = {seat.id: (seat.address, seat.role != LEARNER) for seat in status.seats}
                change(seats)
                wanted = [(number, *seat) for number, seat in seats.items()]
                self.operator(leader).change(wanted)
                return
            except EngineError as error:
                self.forget(leader)
                self._patience(deadline, f"the members cannot be changed: {error}")

    def _await_seat(self, number: int, *, votes: bool) -> None:
        deadline = monotonic() + SETTLE_SECONDS * self.factor
        while True:
            leader = self.leads()
            status = self.status(leader) if leader else None
            if status is not None and not status.joint:
                roles = {seat.id: seat.role for seat in status.seats}
                if roles.get(number) == "voter" if votes else number not in roles:
                    return
            what = "does not vote" if votes else "is still a member"
            self._patience(deadline, f"member {number} {what}")

    def _patience(self, deadline: float, why: str) -> None:
        if monotonic() > deadline:
            raise EngineError(f"After {SETTLE_SECONDS * self.factor:.0f} s {why.rstrip('.')}.")
        Event().wait(LOOK_SECONDS)
