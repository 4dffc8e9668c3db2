"""Planted bugs for the KV labs' tests: those of the store's trial and the Raft labs, and more.

`SERVER_BUGS` are of replicas (`kv_planted`), `CLERK_BUGS` of clients: these are planted in the desk
of each clerk of one lab, since others are at work in the same process.
"""

from __future__ import annotations

from typing import Any

from raft_bugs import CORE_BUGS, PROCESS_BUGS

from engine.kernels.bulk import told
from engine.kv.desk import Desk, Ticket
from engine.kv.front import StoreFront
from engine.kv.machine import Machine
from engine.kv.requests import ANSWERED, LOCAL, READ
from engine.kv.sessions import Sessions
from engine.kv.trial_bugs import BUGS
from engine.sim.planting import Patch

M_MMAP_THRESHOLD = -3


def give_back() -> None:
    """What is large is mapped, and goes back to the system when it is freed: glibc does so at first
    and then keeps more and more, which is good for speed and hides what a process needs."""
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 128 << 10)


def _remembers_answers(original: Any) -> Any:
    """Answers to reads are kept, in case they are asked for again."""
    kept: list[Any] = []

    def answer(self: StoreFront, what: str, part: Any, answers: list[bytes]) -> None:
        kept.extend(answers)
        original(self, what, part, answers)

    return answer


def _nothing_loaded(_: Any) -> Any:
    """A snapshot is read, and the state stays as it was."""
    return lambda self, found: list(found) and None


def _sessions_are_large(original: Any) -> Any:
    """A session is remembered with what nobody needs."""

    def keep(
        self: Sessions, session: bytes, sequence: int, time: int, answer: bytes, *of: Any
    ) -> None:
        original(self, session, sequence, time, answer + b"." * 200, *of)

    return keep


def _all_in_one(_: Any) -> Any:
    """All answers for a link are one message, however long it gets."""

    def answer(self: StoreFront, what: str, part: Any, answers: list[bytes]) -> None:
        messages, _, _ = told(self._before or self._begin(), part, answers, 1 << 40)
        self.replica.answers(ANSWERED, messages)

    return answer


def _watches_once(original: Any) -> Any:
    """Who watches says so once, and waits."""
    said: set[int] = set()

    def say(self: Desk, ask: Any) -> str:
        if ask.number in said and self.known.server in self.known.up:
            return self.known.server
        server: str = original(self, ask)
        if server:
            said.add(ask.number)
        return server

    return say


def _reads_locally(original: Any) -> Any:
    """A client asks whoever it is for what it happens to have."""

    def ask(self: Desk, how: int, *of: Any, **more: Any) -> Ticket:
        return original(self, LOCAL if how == READ else how, *of, **more)

    return ask


def _said_once(original: Any) -> Any:
    """A client forgets that it asked before."""

    def end(self: Desk, ticket: Ticket) -> None:
        original(self, ticket)
        ticket.handed = min(ticket.handed, 1)

    return end


_CLERKS = ("new_sequence_when_asked_again", "session_of_a_connection", "too_late_is_not_done")
CLERK_BUGS: dict[str, tuple[Patch, ...]] = {name: BUGS[name] for name in _CLERKS} | {
    "reads_locally": (Patch(Desk, "ask", _reads_locally),),
    "watches_once": (Patch(Desk, "say_watch", _watches_once),),
    "repeats_are_forgotten": (Patch(Desk, "_end", _said_once),),
}
SERVER_BUGS: dict[str, tuple[Patch, ...]] = {
    **CORE_BUGS,
    "waiters_not_woken": PROCESS_BUGS["waiters_not_woken"],
    "any_entry_will_do": PROCESS_BUGS["any_entry_will_do"],
    **{name: bug for name, bug in BUGS.items() if name not in CLERK_BUGS},
    "unknown_is_no": BUGS["deposed_says_not_done"],
    "answers_are_kept": (Patch(StoreFront, "_answer", _remembers_answers),),
    "state_not_loaded": (Patch(Machine, "load", _nothing_loaded),),
    "answers_in_one_message": (Patch(StoreFront, "_answer", _all_in_one),),
    "sessions_are_large": (Patch(Sessions, "keep", _sessions_are_large),),
}
