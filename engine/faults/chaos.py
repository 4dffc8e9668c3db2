"""A store on real processes under accidents, and the verdict on it: what `engine chaos` runs.

    DIR/               new or empty, on a disk
      plan.json        what happened, which can be played again (`engine.faults.accidents`)
      history.jsonl    what clients saw (`engine verify DIR/history.jsonl --model store`)
      replicas/        the replicas' folders, and what each of their lives said on stderr

Replicas, proxy and clients belong to this process and end with it, and talk through sockets that it
made. After each accident all is healed, and a write and a read have to be acknowledged in time. The
first thing that is wrong ends the run.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

from engine.errors import EngineError, RefusedError, UsageError
from engine.faults.accidents import KINDS, Accident, written
from engine.faults.court import Court
from engine.faults.nemesis import Nemesis
from engine.faults.operations import KINDS as OPERATIONS
from engine.faults.operations import READS
from engine.faults.power import check_folder
from engine.faults.replicas import PROGRAM, Replicas
from engine.faults.verdicts import Traffic, Violation
from engine.faults.witnesses import (
    FREE_SECONDS,
    TIED_READS,
    TIED_SECONDS,
    Board,
    Client,
    Watcher,
    crews_of,
)
from engine.kv.backup import StoreOperator
from engine.kv.client import Store
from engine.raft.requests import Status
from engine.record import Record

FREE = 5
"""Clients that may ask every replica."""
SEGMENT_BYTES, SNAPSHOT_BYTES = 1 << 14, 30_000
"""Small, so that logs are cut and snapshots sent all the time."""
ALIVE_SECONDS = 10.0
AGREE_SECONDS = 20.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.05
WARM = 100
"""Operations that are acknowledged before the first accident."""
CUT_SECONDS = 2.0
"""So long replicas did not reach each other before it is strange that nobody read anything."""
LOGS_KEPT = 500
"""Of lives that are over; a run of a day has a hundred thousand."""
SPARE = 1
TIED_WATCHERS = 2
"""Replicas that have a watcher of their own; another one may ask all."""
BROKEN = ("Traceback (most recent call last)", "Fatal Python error", "is in quarantine")
"""What no replica ever says, whatever happens to it."""
CUTS = [name for name, kind in KINDS.items() if kind.cuts]
Tell = Callable[[str], None]


class Settings(Record):
    """Of a run. `accidents` may be endless; they end after `seconds`, or when there are no more if
    that is 0. `kinds`: how many there are in them. `unsafe`: a switch of `engine.faults.unsafe`.
    `factor` stretches all patience, for slow machines."""

    folder: str
    seconds: float
    seed: int
    replicas: int
    accidents: Iterable[Accident]
    kinds: int
    unsafe: str = ""
    factor: float = 1.0


class Chaos:
    """One run. `run` once, then `report`."""

    def __init__(self, settings: Settings, tell: Tell) -> None:
        self.settings, self.tell = settings, tell
        self.folder = Path(settings.folder).absolute()
        self.happened: list[Accident] = []
        self.seconds = 0.0
        """How long there were accidents."""
        self.ended = False
        self.over = Event()
        """Set when the run is to end, for whatever reason."""
        self._kept_logs: deque[Path] = deque()
        self._read_logs: set[str] = set()
        """Of lives that are over, which have nothing in them that should not be there."""
        self._ready()

    def _ready(self) -> None:
        """RefusedError for a folder with something in it, UsageError for one in memory."""
        there = self.folder.exists()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                raise RefusedError(f"{self.folder} is not empty: name a new folder.")
            try:
                check_folder(str(self.folder), str(self.folder))
            except UsageError:
                if not there:
                    self.folder.rmdir()
                raise
            (self.folder / "replicas").mkdir(mode=0o700)
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be made: {error.strerror}.") from None

    def end(self) -> None:
        """Come to an end as soon as nothing is left half done; for a signal's handler."""
        self.ended = True
        self.over.set()

    def run(self) -> bool:
        """Whether all went well, until it was told to `end`. EngineError where nothing can be
        run."""
        settings = self.settings
        before = (settings.unsafe, "--i-am-testing") if settings.unsafe else ()
        with Replicas(
            self.folder / "replicas",
            settings.replicas,
            seed=settings.seed,
            more=SPARE,
            flags=("--segment-bytes", str(SEGMENT_BYTES), "--snapshot-bytes", str(SNAPSHOT_BYTES)),
            factor=settings.factor,
            power=True,
            program="engine.faults.unsafe" if before else PROGRAM,
            before=before,
            live=int(settings.seconds + 3600),
        ) as self.group:
            failed = self.group.start_all(self.group.founders)
            if failed:
                raise EngineError("; ".join(failed.values()))
            try:
                self._attack()
            finally:
                self._keep_plan()
            self._last_words()
        return not self.board.wrong

    # --- the run ---------------------------------------------------------------------------------

    def _attack(self) -> None:
        group = self.group
        tied = [(f"at-{name}", [name]) for name in group.founders]
        free = [(f"c{number}", list(group.names)) for number in range(FREE)]
        crews = crews_of(len(tied) + len(free))
        names = [name for name, _ in (*tied, *free)]
        watched = [(f"watcher-at-{name}", name) for name in group.founders[:TIED_WATCHERS]]
        outside = [*names, "watcher", *(name for name, _ in watched), "court"]
        self.nemesis = Nemesis(group, self._alive, clients=outside, over=self.over)
        self.board = Board(crews, self.over, self.nemesis)
        everywhere = [group.clients(name) for name in group.names]
        self._probe = Store(everywhere, timeout=self._patience(), via=group.via("probe"))
        self.watchers = [Watcher(self.board, "watcher", everywhere, group.via("watcher"))]
        for name, at in watched:
            where = [group.clients(at)]
            self.watchers.append(Watcher(self.board, name, where, group.via(name), tied=at))
        self.court = Court(self.board, self.folder, everywhere, group.via("court"))
        clients: list[Client] = []
        try:
            self.board.guard(self._alive)
            for number, (name, servers) in enumerate((*free, *tied)):
                clients.append(self._client(name, number % crews, servers))
            self.board.guard(self._warm_up)
            self.board.guard(self._accidents)
        finally:
            self._end(clients)
        for last in (self._agree, self._enough):
            if not self.board.wrong and not self.ended:
                self.board.guard(last)
        if self.board.failed:
            raise self.board.failed[0]

    def _client(self, name: str, crew: int, servers: list[str]) -> Client:
        group, tied = self.group, len(servers) == 1
        return Client(
            self.board,
            name,
            crew,
            [group.clients(server) for server in servers],
            group.via(name),
            seconds=TIED_SECONDS if tied else FREE_SECONDS * self.settings.factor,
            seed=self.settings.seed,
            reads=TIED_READS if tied else 0.0,
        )

    def _warm_up(self) -> None:
        """Accidents that meet nobody prove nothing. Violation if too little is going on."""
        deadline = monotonic() + self._patience()
        while sum(self.board.acknowledged.values()) < WARM and not self.board.over.is_set():
            if monotonic() > deadline:
                done = sum(self.board.acknowledged.values())
                raise Violation(f"Only {done} operations are acknowledged before any accident.")
            Event().wait(LOOK_SECONDS)

    def _accidents(self) -> None:
        begin = monotonic()
        try:
            for accident in self._due(begin):
                self.happened.append(accident)
                try:
                    self.nemesis.happen(accident)
                except Violation:
                    raise
                except EngineError as error:
                    raise Violation(str(error)) from error
                finally:
                    self._tell(begin, accident)
                if self.ended:
                    return  # in the midst of an accident: nothing is healed
                self._see_crashes()
                self._compared()
                self._told_all()
        finally:
            self.seconds = monotonic() - begin

    def _due(self, begin: float) -> Iterator[Accident]:
        seconds = self.settings.seconds
        for accident in self.settings.accidents:
            if self.board.over.is_set() or (seconds and monotonic() - begin > seconds):
                return
            yield accident

    def _tell(self, begin: float, accident: Accident) -> None:
        back = f"back after {self.nemesis.recoveries[-1]:.2f} s" if self.nemesis.recoveries else ""
        done = sum(self.board.acknowledged.values())
        notes = "".join(f"; {note}" for note in self.nemesis.notes)
        what = f"{accident.kind} for {accident.seconds:g} s"
        self.tell(f"{monotonic() - begin:7.1f} s  {what:32} {back}, {done} operations{notes}")

    def _patience(self) -> float:
        return ALIVE_SECONDS * self.settings.factor

    def _alive(self) -> None:
        """A write and a read are acknowledged in time. Violation."""
        value = str(monotonic())
        try:
            self._probe.put("probe", value)
            found = self._probe.get("probe")
        except EngineError as error:
            after = self.happened[-1].kind if self.happened else "the start"
            raise Violation(
                f"No write and read were acknowledged within {self._patience():.0f} s after "
                f"{after}: {error} ({self._picture()})"
            ) from error
        if found is None or found.value.decode() != value:
            raise Violation(f"The key `probe` was set to {value}, and is {found}.")

    def _see_crashes(self) -> None:
        crashes = self.group.cluster.crashes()
        if crashes:
            raise Violation("; ".join(crashes))
        for log in sorted((self.folder / "replicas").glob("*.log")):
            if log.name not in self._read_logs and self._ended(log):
                self._read(log)
                self._read_logs.add(log.name)
                self._kept_logs.append(log)
                if len(self._kept_logs) > LOGS_KEPT:
                    self._kept_logs.popleft().unlink()

    def _ended(self, log: Path) -> bool:
        """Whether nobody writes to it any more."""
        return all(self.group.cluster.node(n).log != str(log) for n in self.group.running())

    def _read(self, log: Path) -> None:
        said = log.read_text(encoding="utf-8", errors="replace")
        for words in BROKEN:
            if words in said:
                raise Violation(f"{log} says {words!r}.")

    # --- the end ---------------------------------------------------------------------------------

    def _end(self, clients: list[Client]) -> None:
        """All threads, in this order: whoever makes work for others first."""
        board, factor = self.board, self.settings.factor
        wrong = bool(board.wrong or board.failed or self.ended)
        self.over.set()
        for client in clients:
            if not client.join(STOP_SECONDS * factor):
                board.wrong.append(Violation(f"{client.name} has no answer after all is healed."))
        board.retire()
        if not self.court.finish(STOP_SECONDS * factor, alone=self.ended):
            board.wrong.append(Violation("What clients saw last cannot be read from the store."))
        if not wrong and not board.wrong:
            board.guard(self._told_all)
        for watcher in self.watchers:
            watcher.ended.set()
        for watcher in self.watchers:
            watcher.join(STOP_SECONDS * factor)
        self._probe.close()

    def _told_all(self) -> None:
        """Watchers have been told all that was acknowledged by now, but those of a replica that is
        no member at the moment. Violation."""
        written = self.board.written
        deadline = monotonic() + self._patience()
        for watcher in self.watchers:
            changes = watcher.changes
            if watcher.tied and watcher.tied not in self.nemesis.members:
                continue
            while changes.revision < written and not (self.board.wrong or self.ended):
                if monotonic() > deadline:
                    raise Violation(
                        f"{changes.name} was told nothing after revision {changes.revision} for "
                        f"{self._patience():.0f} s, and {written} was acknowledged; "
                        f"{self._picture()}."
                    )
                Event().wait(LOOK_SECONDS / 10)

    def _agree(self) -> None:
        """All members have applied the same, and have the same. Violation."""
        members, seen = self.nemesis.members, ""
        deadline = monotonic() + AGREE_SECONDS * self.settings.factor
        while monotonic() < deadline:
            statuses = self._compared()
            states = {(s.applied, s.commands, s.digest) for s in statuses.values()}
            if len(states) == 1 and len(statuses) == len(members):
                sums = {self._hash(name) for name in members}
                if len(sums) == 1:
                    return
                seen = f"sums over their keys are {sorted(sums)}"
            Event().wait(LOOK_SECONDS)
        raise Violation(f"Replicas do not agree: {seen or self._picture()}.")

    def _compared(self) -> dict[str, Status]:
        """What the members say of themselves. Violation if two have made different things of the
        same entries, which no time mends."""
        statuses = self.group.statuses(self.nemesis.members)
        made: dict[int, tuple[str, int, int]] = {}
        for name, status in statuses.items():
            mine = (name, status.commands, status.digest)
            other = made.setdefault(status.applied, mine)
            if mine[1:] != other[1:]:
                raise Violation(f"Replicas do not agree: {self._picture()}.")
        return statuses

    def _hash(self, name: str) -> tuple[int, int]:
        operator = self.group.operator(name)
        if not isinstance(operator, StoreOperator):
            raise EngineError(f"{name} is no replica of a store.")
        told = operator.hash()
        return told.revision, told.crc

    def _enough(self) -> None:
        cut = sum(one.seconds for one in self.happened if one.name in CUTS) >= CUT_SECONDS
        missing = Traffic(self.seconds / self.settings.factor, self.settings.kinds).missing(
            self.board.acknowledged,
            OPERATIONS,
            self.nemesis.happened,
            self.board.cut_reads if cut else None,
        )
        if missing:
            raise Violation(f"Too little happened to mean anything: {'; '.join(missing)}.")

    def _last_words(self) -> None:
        if not self.board.wrong and not self.ended:
            self.board.guard(self._see_crashes)
        self.group.cluster.crashes()  # they were told, or others were more important

    def _picture(self) -> str:
        told = self.group.statuses(self.nemesis.members)
        return "; ".join(
            f"{name}: {s.role} of term {s.term}, applied {s.applied} of {s.last}, "
            f"revision {s.commands}, digest {s.digest:08x}, {dict(s.figures)['watchers']} watchers"
            for name, s in told.items()
        )

    def _keep_plan(self) -> None:
        plan = written(self.settings.seed, self.settings.replicas, self.happened)
        (self.folder / "plan.json").write_text(plan, encoding="utf-8")

    # --- what became of it -----------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """All figures, as `--json` prints them."""
        board, nemesis, times = self.board, self.nemesis, sorted(self.nemesis.recoveries)
        return {
            "verdict": "failed" if board.wrong else "ok",
            "violations": [str(one) for one in board.wrong],
            "dir": str(self.folder),
            "seed": self.settings.seed,
            "replicas": self.settings.replicas,
            "unsafe": self.settings.unsafe or None,
            "seconds": round(self.seconds, 1),
            "accidents": dict(sorted(nemesis.happened.items())),
            "operations": {
                "acknowledged": dict(sorted(board.acknowledged.items())),
                "unknown": board.unknown.total(),
                "refused": board.refused.total(),
            },
            "reads": sum(board.acknowledged[kind] for kind in READS),
            "reads_while_cut": board.cut_reads,
            "judged": {"sets": self.court.sets, "operations": self.court.operations},
            "watched": sum(watcher.changes.events for watcher in self.watchers),
            "recovery_seconds": {
                "median": _part(times, 0.5),
                "p99": _part(times, 0.99),
                "max": _part(times, 1.0),
            },
            "unsynced_bytes_lost": self.group.lost_bytes,
            "versions": versions(),
        }


def _part(times: list[float], share: float) -> float | None:
    if not times:
        return None
    return round(times[min(len(times) - 1, int(share * len(times)))], 3)


def versions() -> dict[str, str]:
    """Of all that was running."""
    import platform

    import zmq

    from engine import __version__

    return {
        "engine": __version__,
        "python": sys.version.split()[0],
        "libzmq": zmq.zmq_version(),
        "pyzmq": zmq.__version__,
        "system": f"{platform.system()} {platform.release()}",
        "cores": str(os.cpu_count()),
    }
