"""Judges sets of keys that are not used any more, while others are; and keeps their histories.

Memory stays bounded however long a run lasts: a set is judged, written to the history file, removed
from the store, and forgotten. A history file that is full is put aside, and the one that was put
aside before it goes: nothing in it was wrong, or the run would have ended.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic_ns

from engine.errors import EngineError
from engine.faults.operations import Set, whole
from engine.faults.verdicts import Violation, judge_text
from engine.faults.witnesses import Board
from engine.kv import commands
from engine.kv.client import Store
from engine.verify.files import lines
from engine.verify.history import Operation
from engine.verify.linearizable import CONFIGURATIONS_MAX, RIGHT, UNDECIDED, Limits, check
from engine.verify.sets import Sets

HISTORY = "history.jsonl"
FILE_BYTES = 1 << 28
LOOK_SECONDS = 0.05
KEPT = 32
"""Sets whose tokens watchers still know after they were judged, to see what comes late or twice."""


class Court:
    """A thread that judges what the board has retired, until it is told to `finish`."""

    def __init__(
        self, board: Board, folder: Path, servers: Sequence[str], via: Mapping[str, str]
    ) -> None:
        self.board, self.path = board, folder / HISTORY
        self.sets = self.operations = 0
        """That were judged."""
        self._kept: deque[Set] = deque()
        self._alone = False
        """The store is not asked any more."""
        self._servers, self._via = list(servers), via
        self._last = threading.Event()
        self._thread = threading.Thread(target=board.guard, args=(self._run,), daemon=True)
        self._thread.start()

    def finish(self, seconds: float, *, alone: bool = False) -> bool:
        """Judge all that is retired by now; whether that is done. `alone`: by what clients saw,
        without asking the store what is there at the end."""
        self._alone = alone
        self._last.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with (
            Store(self._servers, timeout=2.0, via=self._via) as store,
            open(self.path, "a", encoding="utf-8") as self._file,
        ):
            while True:
                last = self._last.is_set()
                if self.board.retired:
                    self._take(store, self.board.retired.popleft())
                elif last:
                    return
                else:
                    self._last.wait(LOOK_SECONDS)

    def _take(self, store: Store, one: Set) -> None:
        now = None if self._lost else self._look(store, one)
        self._file_away(one)
        self.board.guard(lambda: judge_set(one, one.notes, now))
        self.sets += 1
        self.operations += len(one.notes)
        if now is not None:
            try:
                store.delete_range(one.prefix, commands.prefix_end(one.prefix))
            except EngineError:
                pass  # it stays, and nobody minds
        one.notes = []
        self._kept.append(one)
        if len(self._kept) > KEPT:
            tokens = self._kept.popleft().tokens()
            with self.board.lock:
                for watch in self.board.watches:
                    watch.forget(tokens)

    @property
    def _lost(self) -> bool:
        """Whether nobody may answer any more: the run has failed, or ended before its time."""
        return bool(self._alone or self.board.wrong or self.board.failed)

    def _look(self, store: Store, one: Set) -> dict[str, str] | None:
        """What it has at the end, which is noted as the last operation; as soon as somebody
        answers. None if nobody may any more."""
        asked = whole(one)
        while True:
            note = Operation("court", asked.kind, one.name, asked.argument, monotonic_ns())
            try:
                page = store.run(asked.plan)
                break
            except EngineError:
                if self._lost:
                    return None
        rows = [(f.key[len(one.prefix) :].decode(), f) for f in page.found]
        flat: list[str | int] = []
        for name, found in rows:
            flat += (name, found.value.decode(), found.modified, found.version)
        one.notes.append(note._replace(returned=monotonic_ns(), result=tuple(flat)))
        return {name: found.value.decode() for name, found in rows}

    def _file_away(self, one: Set) -> None:
        if self._file.tell() > FILE_BYTES:
            self._file.close()
            os.replace(self.path, self.path.with_suffix(".old.jsonl"))
            self._file = open(self.path, "a", encoding="utf-8")
        self._file.writelines(lines(one.notes))
        self._file.flush()


def judge_set(one: Set, notes: Sequence[Operation], now: Mapping[str, str] | None) -> None:
    """Whether one copy explains all that was seen of a set; and of texts, whether each write is
    there once. Violation. `now` is what it has, None if nobody knows."""
    if one.flavour == "text" and now is not None:
        text = now.get("a", "")
        judge_text(one.name, text, one.acknowledged, one.unknown, one.refused)
    for judged in check(notes, Sets(), Limits(None, CONFIGURATIONS_MAX, None)):
        many = f"{len(judged.operations)} operations on {judged.key}"
        if judged.verdict == UNDECIDED:
            raise Violation(f"{many} are undecided after {judged.tries:,} tries: no verdict.")
        if judged.verdict != RIGHT:
            raise Violation(f"{many} are not linearizable: no single copy explains them.")
