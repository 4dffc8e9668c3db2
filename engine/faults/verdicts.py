"""What is judged of a store besides the order of its operations: books that a run keeps.

Every write has a token of its own, `<c3.17>`, which is the value, or the end of the value, that it
makes. So whoever follows all changes sees what became of each write, and a text that is only
appended to is a list of the writes that were done to it.

Nothing here knows sockets, threads or time; all raise `Violation` with what is wrong.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping

from engine.errors import EngineError

UNMATCHED_MAX = 100_000
"""Changes of which nobody was told that they are his: of more the oldest are forgotten."""


class Violation(EngineError):
    """Something that the store promises does not hold."""


def token_of(value: str) -> str:
    """Which write made it."""
    return value[value.rfind("<") :]


def judge_text(
    name: str,
    text: str,
    acknowledged: Collection[str],
    unknown: Collection[str],
    refused: Collection[str],
) -> None:
    """Of a text that was only appended to: each token that was acknowledged is there exactly once,
    each of unknown outcome at most once, and no other. Violation."""
    there = Counter(f"<{part}" for part in text.split("<")[1:])
    twice = [token for token, many in there.items() if many > 1]
    if twice:
        raise Violation(f"{name}: {twice[0]} is there {there[twice[0]]} times.")
    lost = [token for token in acknowledged if token not in there]
    if lost:
        raise Violation(f"{name}: {lost[0]} was acknowledged and is lost.")
    strange = there.keys() - set(acknowledged) - set(unknown)
    if strange:
        token = min(strange)
        why = "was said not to be done" if token in refused else "was never written"
        raise Violation(f"{name}: {token} {why}, and is there.")


class Changes:
    """What a watcher of all keys must see: every change once, in the order of revisions, and among
    them each that was acknowledged. `told` for each event, `acknowledged` in any order with it.

    `forget` when nothing more is said of some tokens.
    """

    def __init__(self, name: str = "a watcher") -> None:
        self.name = name
        self.revision = 0
        """Of the last event."""
        self.events = 0
        self._keys: set[str] = set()
        """That have changed at this revision."""
        self._early: dict[tuple[int, str], str] = {}
        self._awaited: dict[tuple[int, str], str] = {}
        self._order: list[tuple[int, str]] = []
        self._made: dict[str, int] = {}
        self._refused: set[str] = set()

    def told(self, revision: int, key: str, value: str | None) -> None:
        """An event; the value is None for a key that is no more. Violation."""
        self.events += 1
        if revision < self.revision or (revision == self.revision and key in self._keys):
            raise Violation(
                f"{self.name} is told of {key} at revision {revision} after revision "
                f"{self.revision}: twice, or out of order."
            )
        if revision > self.revision:
            self._see_skipped(revision)
            self.revision, self._keys = revision, set()
        self._keys.add(key)
        if value is not None:
            self._written(token_of(value), revision)
        wanted = self._awaited.pop((revision, key), None)
        if wanted is not None:
            self._compare(revision, key, value, wanted)
            return
        self._early[revision, key] = value or ""
        if len(self._early) > UNMATCHED_MAX:
            del self._early[next(iter(self._early))]

    def acknowledged(self, revision: int, key: str, token: str) -> None:
        """A write of this token, "" for a deletion, was said to be done at this revision. Violation
        if the watcher has seen something else."""
        if (revision, key) in self._early:
            self._compare(revision, key, self._early.pop((revision, key)), token)
        elif revision < self.revision:
            raise self._skipped(revision, key)
        else:
            self._awaited[revision, key] = token
            heapq.heappush(self._order, (revision, key))

    def refused(self, token: str) -> None:
        """A write was said not to be done. Violation."""
        if token in self._made:
            raise self._done(token)
        self._refused.add(token)

    def compacted(self, revision: int) -> None:
        """It was away for too long: what happened up to this revision it is not told."""
        self._awaited = {at: token for at, token in self._awaited.items() if at[0] > revision}
        self.revision, self._keys = max(self.revision, revision), set()

    def finish(self) -> None:
        """The watcher has seen all there is. Violation."""
        self._see_skipped(1 << 63)

    def forget(self, tokens: Collection[str]) -> None:
        """Nothing more will be said of these."""
        self._refused.difference_update(tokens)
        for token in tokens:
            self._made.pop(token, None)

    def _written(self, token: str, revision: int) -> None:
        if token in self._refused:
            raise self._done(token)
        before = self._made.setdefault(token, revision)
        if before != revision:
            raise Violation(f"{token} is done at revision {before}, and again at {revision}.")

    def _done(self, token: str) -> Violation:
        return Violation(f"{token} was said not to be done, and is done.")

    def _see_skipped(self, revision: int) -> None:
        while self._order and self._order[0][0] < revision:
            one = heapq.heappop(self._order)
            if one in self._awaited:
                raise self._skipped(*one)

    def _skipped(self, revision: int, key: str) -> Violation:
        return Violation(
            f"{self.name} was not told of {key} at revision {revision}, which was acknowledged."
        )

    def _compare(self, revision: int, key: str, value: str | None, token: str) -> None:
        if not (value or "").endswith(token) or (not token and value):
            raise Violation(
                f"{self.name} is told that {key} is {value!a:.80} at revision {revision}, at which "
                f"{token or 'its deletion'} was acknowledged."
            )


class Traffic:
    """How much has to happen for a run to mean anything: numbers grow with its seconds."""

    PER_SECOND = 20
    """Operations acknowledged, whatever is going on: a tenth of what idle machines do."""
    KIND_SECONDS = 4.0
    """A kind of accident for so many seconds, until all that there are have happened."""

    def __init__(self, seconds: float, kinds: int) -> None:
        self.seconds, self.kinds = seconds, kinds

    def missing(
        self,
        acknowledged: Mapping[str, int],
        asked: Collection[str],
        happened: Mapping[str, int],
        cut_reads: int | None,
    ) -> list[str]:
        """What there was too little of. `asked` are the operations that clients know; `cut_reads`
        were answered while replicas did not reach each other, None if that never was the case."""
        found = []
        done, least = sum(acknowledged.values()), int(self.PER_SECOND * self.seconds)
        if done < least:
            found.append(f"only {done} operations were acknowledged, of {least} at least")
        never = [kind for kind in asked if not acknowledged.get(kind)]
        if never and self.seconds >= 10:
            found.append(f"never acknowledged: {', '.join(never)}")
        wanted = min(self.kinds, max(1, int(self.seconds / self.KIND_SECONDS)))
        if len(happened) < wanted:
            found.append(f"only {len(happened)} kinds of accidents happened, of {wanted} at least")
        if cut_reads == 0:
            found.append("no read was answered while replicas did not reach each other")
        return found
