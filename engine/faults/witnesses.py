"""Clients that use a store and note down what they see, and watchers, all through the proxy.

Some clients may talk to every replica, and one is tied to each, so that what a replica tells while
others do not reach it is seen too. A few clients share each set of keys: what a history costs to
judge grows with how many of its operations overlap.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, NotFoundError, OutcomeUnknown
from engine.faults.operations import FLAVOURS, PREFIX, READS, Asked, Set, choose, raw, whole
from engine.faults.verdicts import Changes, Violation
from engine.kv.client import Compacted, CompareFailed, Maybe, Store, Watching
from engine.verify.history import Operation

if TYPE_CHECKING:
    from engine.faults.nemesis import Nemesis

CREW_MOST = 5
"""Clients that share sets of keys."""
SETS = ("registers", "registers", "text", "text", "versions")
"""That a crew uses at a time, by flavour."""
FREE_SECONDS, TIED_SECONDS = 4.0, 0.3
"""Patience of clients: those that may ask anybody soon find somebody who answers."""
TIED_READS = 0.5
"""What is stale is seen by reads, of those who ask a replica that the others have left behind."""
PAUSE_SECONDS = 0.008
LOOK_SECONDS = 0.1


class Board:
    """What clients, watchers and judges share; for any thread. The first thing that is wrong stays
    in `wrong`."""

    def __init__(self, crews: int, over: threading.Event, nemesis: Nemesis) -> None:
        """`over` ends all work; `nemesis` says whether replicas reach each other now."""
        self.lock = threading.RLock()
        self.over = over
        self.wrong: list[Violation] = []
        self.failed: list[BaseException] = []
        """What went wrong in our own threads."""
        self.acknowledged: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """By kind of operation; refused ones are certainly not done."""
        self.cut_reads = 0
        """Answered while replicas did not reach each other."""
        self.revision = 0
        """The latest that anybody was told of."""
        self.written = 0
        """The latest of a write that was acknowledged."""
        self.watches: list[Changes] = []
        self.retired: deque[Set] = deque()
        self.nemesis = nemesis
        self._number = 0
        self._crews = [[self._new(flavour) for flavour in SETS] for _ in range(crews)]

    def _new(self, flavour: str) -> Set:
        self._number += 1
        return Set(f"{flavour[0]}{self._number}", flavour)

    # --- clients ---------------------------------------------------------------------------------

    def take(self, crew: int, rng: random.Random) -> Set:
        """A set for the next operation, which is open from now on."""
        with self.lock:
            sets = self._crews[crew]
            place = rng.randrange(len(sets))
            one = sets[place]
            one.open += 1
            one.left -= 1
            if one.left <= 0:
                sets[place] = self._new(one.flavour)
            return one

    def ended(self, one: Set) -> None:
        """The operation is open no more."""
        with self.lock:
            one.open -= 1
            if one.open == 0 and one.left <= 0:
                self.retired.append(one)

    def retire(self) -> None:
        """No set is to be used any more: when all clients have stopped."""
        with self.lock:
            for sets in self._crews:
                for one in sets:
                    if one.notes:
                        self.retired.append(one)
                sets.clear()

    def done(self, one: Set, note: Operation, asked: Asked, answer: tuple[Any, ...]) -> None:
        """An operation has an answer."""
        with self.lock:
            one.notes.append(note)
            self.acknowledged[note.kind] += 1
            self.cut_reads += note.kind in READS and self.nemesis.cuts
            self.revision = max(self.revision, answer[1])
            if changed(note):
                one.acknowledged += [token for token in asked.writes.values() if token]
                self.written = max(self.written, answer[1])
                for name, token in asked.writes.items():
                    for watch in self.watches:
                        watch.acknowledged(answer[1], one.key(name).decode(), token)
            else:
                self._not_done(one, asked)
            learn(one, note, asked)

    def as_it_was(self, one: Set, note: Operation, asked: Asked, *, sure: bool) -> None:
        """An operation has an answer that says that it changed nothing, or (not `sure`) that it may
        have done."""
        with self.lock:
            one.notes.append(note)
            self.acknowledged[note.kind] += 1
            if sure:
                self._not_done(one, asked)
            else:
                one.unknown += [token for token in asked.writes.values() if token]
            learn(one, note, asked)

    def never_known(self, one: Set, note: Operation, asked: Asked) -> None:
        """An operation may have been done, or may yet be."""
        with self.lock:
            self.unknown[note.kind] += 1
            if asked.writes:  # a read that failed says nothing
                one.notes.append(note)
                one.unknown += [token for token in asked.writes.values() if token]

    def refuse(self, one: Set, note: Operation, asked: Asked) -> None:
        """An operation was certainly not done."""
        with self.lock:
            self.refused[note.kind] += 1
            self._not_done(one, asked)

    def _not_done(self, one: Set, asked: Asked) -> None:
        for token in filter(None, asked.writes.values()):
            one.refused.append(token)
            for watch in self.watches:
                watch.refused(token)

    # --- what is wrong ---------------------------------------------------------------------------

    def guard(self, work: Callable[[], None]) -> None:
        """Do some work of a thread; what is wrong ends all work."""
        try:
            work()
        except Violation as error:
            self.wrong.append(error)
            self.over.set()
        except BaseException as error:
            self.failed.append(error)
            self.over.set()


def changed(note: Operation) -> bool:
    """Whether an answer says that something is written, or was removed."""
    if note.kind in READS:
        return False
    if note.kind in ("put", "append"):
        return True
    return bool(note.result if note.kind == "delete" else note.result[0])


def learn(one: Set, note: Operation, asked: Asked) -> None:
    """What an answer says of keys, so that later operations can name what is there."""
    result = note.result
    if note.kind == "get":
        one.seen[note.argument] = result or (None, 0, 0)
    elif note.kind == "range":
        one.seen = {result[at]: result[at + 1 : at + 4] for at in range(0, len(result), 4)}
    elif note.kind == "delete":
        one.seen[note.argument] = (None, 0, 0)
    elif note.kind == "put":
        one.seen[note.argument[0]] = (note.argument[1], *result)
    elif note.kind == "txn" and result[0]:
        for name, token in asked.writes.items():
            one.seen[name] = (token, result[1], 0)
    elif note.kind in ("cas", "cas_revision", "put_version") and result != "maybe":
        name, _, value = note.argument
        if result[0]:
            one.seen[name] = (value, *result[1:])
        else:
            one.seen[name] = (one.seen.get(name, (None, 0, 0))[0], *result[1:])


class Client:
    """A thread with a `Store`; `stop` after the board is over."""

    def __init__(
        self,
        board: Board,
        name: str,
        crew: int,
        servers: Sequence[str],
        via: Mapping[str, str],
        *,
        seconds: float,
        seed: int,
        reads: float = 0.0,
    ) -> None:
        """`seconds` of patience for each operation; `reads`: how many there are on top of those
        that a set's flavour has, as a share of all."""
        self.board, self.name, self.crew, self._reads = board, name, crew, reads
        self._servers, self._via, self._seconds = list(servers), via, seconds
        self._rng = random.Random(f"{seed} {name}")
        self._writes = 0
        self._thread = threading.Thread(target=board.guard, args=(self._run,), daemon=True)
        self._thread.start()

    def _run(self) -> None:
        board, rng = self.board, self._rng
        with Store(self._servers, timeout=self._seconds, via=self._via) as store:
            while not board.over.is_set():
                one = board.take(self.crew, rng)
                try:
                    self._do(store, one, self._choose(one))
                finally:
                    board.ended(one)
                board.over.wait(rng.expovariate(1 / PAUSE_SECONDS))

    def _choose(self, one: Set) -> Asked:
        if self._reads and self._rng.random() < self._reads:
            return whole(one)
        return choose(one, self._rng, self._token)

    def _token(self) -> str:
        self._writes += 1
        return f"<{self.name}.{self._writes}>"

    def _do(self, store: Store, one: Set, asked: Asked) -> None:
        board, floor = self.board, self.board.revision
        storms, stormy = board.nemesis.storms, board.nemesis.stormy
        note = Operation(self.name, asked.kind, one.name, asked.argument, monotonic_ns())
        try:
            _, answer, said = store.run(raw(asked.plan))
        except Maybe:
            board.as_it_was(one, _at(note, "maybe"), asked, sure=False)
        except CompareFailed as error:
            # It has no session: of what a network says twice, as no TCP does, its client knows
            # nothing.
            twice = asked.kind == "put_version" and (stormy or storms != board.nemesis.storms)
            found = "maybe" if twice else (False, error.modified, error.version)
            board.as_it_was(one, _at(note, found), asked, sure=not twice)
        except NotFoundError:
            board.as_it_was(one, _at(note, (False, 0, 0)), asked, sure=True)
        except OutcomeUnknown:
            board.never_known(one, note, asked)
        except EngineError:
            board.refuse(one, note, asked)
        else:
            note = _at(note, asked.result(answer, said))
            board.done(one, note, asked, answer)
            if answer[1] < floor:
                raise Violation(
                    f"{self.name} asked {asked.kind} of {one.name} when revision {floor} was "
                    f"acknowledged, and was answered as of revision {answer[1]}."
                )

    def join(self, seconds: float) -> bool:
        """Whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


def _at(note: Operation, result: Any) -> Operation:
    return note._replace(returned=monotonic_ns(), result=result)


class Watcher:
    """A thread that follows all keys of a run through everything. One that is `tied` to a replica
    may be away for so long that nobody knows any more what it missed; no other may."""

    def __init__(
        self,
        board: Board,
        name: str,
        servers: Sequence[str],
        via: Mapping[str, str],
        *,
        tied: str = "",
    ) -> None:
        self.board, self.changes, self.tied = board, Changes(name), tied
        self.ended = threading.Event()
        """Set to end it: it goes on while clients do not any more."""
        self._servers, self._via = list(servers), via
        board.watches.append(self.changes)
        self._thread = threading.Thread(target=board.guard, args=(self._run,), daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with Store(self._servers, timeout=FREE_SECONDS, via=self._via) as store:
            after = 0
            while not self.ended.is_set():
                try:
                    with store.watch(PREFIX, prefix=True, after=after) as watching:
                        self._follow(watching)
                except Compacted as error:
                    if not self.tied:
                        raise Violation(f"{self.changes.name} is told: {error}") from error
                    after = error.revision
                    with self.board.lock:
                        self.changes.compacted(after)

    def _follow(self, watching: Watching) -> None:
        lock, changes = self.board.lock, self.changes
        while not self.ended.is_set():
            event = watching.wait(LOOK_SECONDS)
            if event is not None:
                value = None if event.deleted else event.value.decode()
                with lock:
                    changes.told(event.revision, event.key.decode(), value)

    def join(self, seconds: float) -> bool:
        """Whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


def crews_of(clients: int) -> int:
    """How many crews so many clients make."""
    return -(-clients // CREW_MOST)


assert set(SETS) <= FLAVOURS.keys()
