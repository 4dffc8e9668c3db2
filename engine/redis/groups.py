"""Commands that look before they write, many at a time, each as if alone.

Their keys are read at one moment; what the commands make of them is worked out here; and it is
written in one transaction, if what was read is still so. If not, all is done again. So the store
knows nothing of INCR, and does it exactly once. Commands that touch the same keys wait for each
other and then share a transaction, as many INCRs of one key do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.contract import SECOND, Nanos
from engine.kv import commands
from engine.kv.commands import EQUAL, MOD, NOT_FOUND, OK, TOO_LARGE, TXN_MOST
from engine.kv.requests import READ, WRITE
from engine.redis.leases import Leases
from engine.redis.replies import CONTENDED, REPLY_MAX, TOO_LONG, Encoded, Problem, refusal, size
from engine.redis.table import Command
from engine.redis.view import ABSENT, NEVER, Seen, View

PATIENCE: Nanos = 5 * SECOND
KEYS_MAX = TXN_MOST
"""Of a transaction: it can compare, and write, so many."""
TASKS_MAX = 512
VALUES_MAX = 1 << 20
"""Bytes that commands which share a transaction bring along."""

Packed = list[bytes]


class Task:
    """What one client asks: some commands, done together. `watched`: the revisions of keys, which
    must be so still. `then` gets the replies, None if they are not, or a Problem or an
    encoded reply if there are none."""

    __slots__ = ("alone", "commands", "deadline", "keys", "size", "then", "timed", "watched")

    def __init__(
        self,
        asked: Sequence[tuple[Command, Sequence[bytes]]],
        watched: dict[bytes, int] | None,
        then: Callable[[Any], None],
        now: Nanos,
    ) -> None:
        self.commands, self.watched, self.then = asked, watched, then
        self.deadline = now + PATIENCE
        keys = [key for command, args in asked for key in command.keys(args)]
        self.keys = frozenset([*keys, *(watched or ())])
        self.timed = any(command.timed for command, _ in asked)
        self.size = sum([len(arg) for _, args in asked for arg in args])
        self.alone = False
        """It shares no transaction: one that it shared was too much for the store."""


class Group:
    """Tasks on their way together."""

    def __init__(self, groups: Groups) -> None:
        self.tasks: list[Task] = []
        self.keys: set[bytes] = set()
        self.size = 0
        self._groups = groups
        self._seen: dict[bytes, Seen] = {}
        self._asked: list[Any] = []
        """What is waited for, in order: keys, leases, or None for what only has to be over."""
        self._answers: list[Any] = []
        self._then: Callable[[list[Any]], None] = self._read
        self._at_once = True
        """All was read in one frame, which is one moment."""
        self._replies: list[Any] = []

    @property
    def timed(self) -> bool:
        return any(task.timed for task in self.tasks)

    def takes(self, task: Task) -> bool:
        """Whether there is room for this one too."""
        if not self.tasks:
            return True
        if task.alone or self.tasks[0].alone or len(self.tasks) >= TASKS_MAX:
            return False
        size = self.size + task.size <= VALUES_MAX
        return size and len(self.keys | task.keys) <= KEYS_MAX

    def add(self, task: Task) -> None:
        self.tasks.append(task)
        self.keys |= task.keys
        self.size += task.size

    # --- reading ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Where times matter the clock of the store, which only runs with entries, comes first."""
        self._seen, self._at_once = {}, True
        if self.timed:
            self._ask(WRITE, [None], [commands.txn((), ())], lambda _: self._read_all())
        else:
            self._read_all()

    def _read_all(self) -> None:
        keys = sorted(self.keys)
        if keys:
            self._ask(READ, keys, [commands.get(key) for key in keys], self._read)
        else:
            self._work()

    def _read(self, answers: list[Any]) -> None:
        cut: list[bytes] = []
        for key, answer in zip(self._asked, answers, strict=True):
            if answer[0] == OK:
                _, _, value, _, mod, _, lease = answer
                self._seen[key] = Seen(value, mod, lease)
            elif answer[0] == TOO_LARGE:  # the answers of a frame share what an answer may have
                cut.append(key)
            else:
                self._seen[key] = ABSENT
        if cut:
            self._at_once = False
            self._ask(READ, cut, [commands.get(key) for key in cut], self._read)
            return
        leases = sorted({seen.lease for seen in self._seen.values() if seen.lease})
        if leases and self.timed:
            self._ask(READ, leases, [commands.lease_get(one) for one in leases], self._times)
        else:
            self._work()

    def _times(self, answers: list[Any]) -> None:
        if any(answer[0] == NOT_FOUND for answer in answers):
            self._once_more()  # it ended since, and so its keys are gone
            return
        left = dict(zip(self._asked, [answer[3] for answer in answers], strict=True))
        for key, seen in self._seen.items():
            if seen.lease:
                self._seen[key] = seen._replace(remaining=left[seen.lease])
        self._work()

    # --- working, and writing --------------------------------------------------------------------

    def _work(self) -> None:
        view = View(self._seen, self._groups.wall())
        self._replies = [done(task, view) for task in self.tasks]
        if any(size(said) > REPLY_MAX for said in self._replies):
            self._without_long()
            return
        compared = {key for task in self.tasks for key in task.watched or ()} | view.read
        if not view.made and self._at_once:
            self._over()
            return
        grants, ops = [], []
        for key, made in view.made.items():
            if made.value is None:
                ops.append(commands.delete(key))
                continue
            lease = made.ttl
            if made.ttl > NEVER:
                lease = self._groups.leases.new()
                grants.append(commands.lease_grant(made.ttl, lease))
            ops.append(commands.put(key, made.value, lease))
        compares = [commands.compare(key, MOD, EQUAL, self._seen[key].mod) for key in compared]
        asked = [*grants, commands.txn(compares, ops)]
        self._ask(WRITE, [None] * len(asked), asked, self._written)

    def _without_long(self) -> None:
        """Those whose replies nobody could put together are not done, and the others are."""
        told = list(zip(self.tasks, self._replies, strict=True))
        self.tasks = [task for task, said in told if size(said) <= REPLY_MAX]
        for task, said in told:
            if size(said) > REPLY_MAX:
                task.then(Problem(TOO_LONG))
        if self.tasks:
            self._work()
        else:
            self._groups.over(self)

    def _written(self, answers: list[Any]) -> None:
        refused = next((answer for answer in answers if answer[0] != OK), None)
        if refused is not None and len(self.tasks) > 1:
            for task in self.tasks:
                task.alone = True
            self._groups.over(self, self.tasks)
        elif refused is not None:
            self._replies = [Problem(refusal(refused))]
            self._over()
        elif answers[-1][2]:
            self._over()
        else:
            self._once_more()

    def _once_more(self) -> None:
        """Others were faster."""
        now = self._groups.now()
        late = [task for task in self.tasks if now >= task.deadline]
        if late:
            self.tasks = [task for task in self.tasks if now < task.deadline]
            for task in late:
                task.then(Problem(CONTENDED))
        if self.tasks:
            self.begin()
        else:
            self._groups.over(self)

    def _over(self) -> None:
        tasks, replies = self.tasks, self._replies
        self._groups.over(self)
        for task, said in zip(tasks, replies, strict=True):
            task.then(said)

    # --- asking ----------------------------------------------------------------------------------

    def _ask(
        self,
        how: int,
        asked: list[Any],
        requests: Sequence[commands.Command],
        then: Callable[[list[Any]], None],
    ) -> None:
        self._asked, self._answers, self._then = asked, [], then
        packed = [msgpack.packb(request) for request in requests]
        self._groups.call(how, self, packed)

    def hear(self, raw: bytes) -> None:
        """The next answer."""
        self._answers.append(msgpack.unpackb(raw, use_list=False))
        if len(self._answers) == len(self._asked):
            self._then(self._answers)

    def fail(self, reply: Encoded) -> None:
        """There is none."""
        if self.tasks:
            tasks, self.tasks = self.tasks, []
            self._groups.over(self)
            for task in tasks:
                task.then(reply)


def done(task: Task, view: View) -> Any:
    """Its replies, with what it does done to the view; None if what it watched has changed."""
    for key, mod in (task.watched or {}).items():
        if view.seen[key].mod != mod or key in view.made:
            return None
    replies: list[Any] = []
    for command, args in task.commands:
        assert command.run is not None
        try:
            replies.append(command.run(view, args))
        except Problem as problem:
            replies.append(problem)
    return replies


class Groups:
    """All of a gateway. `call` asks the store; `now` is monotonic, `wall` is in ms."""

    def __init__(
        self,
        call: Callable[[int, Any, Packed], None],
        leases: Leases,
        now: Callable[[], Nanos],
        wall: Callable[[], int],
    ) -> None:
        self.call, self.leases, self.now, self.wall = call, leases, now, wall
        self._open: list[Group] = []
        self._held: set[bytes] = set()
        """Keys of groups that are under way."""
        self._later: deque[Task] = deque()

    def add(self, task: Task) -> None:
        """It is begun by the next `begin`, or when its keys are free."""
        if not self._held.isdisjoint(task.keys):
            self._later.append(task)
            return
        group = self._open[-1] if self._open else None
        wanted = next((g for g in self._open if not g.keys.isdisjoint(task.keys)), group)
        apart = sum([not g.keys.isdisjoint(task.keys) for g in self._open]) > 1
        if wanted is not None and not apart and wanted.takes(task):
            wanted.add(task)
        elif wanted is not None and not wanted.keys.isdisjoint(task.keys):
            self._later.append(task)
        else:
            group = Group(self)
            group.add(task)
            self._open.append(group)

    def begin(self) -> None:
        """Whoever was added goes."""
        opened, self._open = self._open, []
        for group in opened:
            self._held |= group.keys
        for group in opened:
            group.begin()

    @property
    def waiting(self) -> bool:
        return bool(self._open)

    def over(self, group: Group, again: Sequence[Task] = ()) -> None:
        """Its keys are free, and those who waited come first."""
        self._held -= group.keys
        later, self._later = self._later, deque()
        for task in (*again, *later):
            self.add(task)
