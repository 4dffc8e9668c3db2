"""Planted bugs: the classic mistakes of primary/backup stores, each as a small patch."""

from __future__ import annotations

from typing import Any

from engine.backup.client import StoreCall
from engine.backup.machine import StoreServer
from engine.backup.messages import GET, Applied, Forward, Operation, Part
from engine.backup.table import Table
from engine.contract import Nanos, Send
from engine.sessions import NEW, Sessions
from engine.sim.planting import Patch
from engine.views.machine import ViewService
from engine.views.messages import NOBODY, Ping, View


def _gets_are_local(original: Any) -> Any:
    """The primary answers a get from what it has, without asking its backup."""

    def ask(self: Any, link: Any, operation: Operation) -> None:
        new = self.table.sessions.judge(operation.client, operation.sequence) == NEW
        if self.primary and operation.verb == GET and new:
            self._sends.append(Send(link, self.table.apply(operation)))
            self.table.number -= 1
        else:
            original(self, link, operation)

    return ask


def _alone_if_silent(original: Any) -> Any:
    """The primary decides for itself that a backup that does not answer is dead."""

    def serve(self: Any, now: Nanos) -> None:
        due = self._relay.wake_at is not None and now >= self._relay.wake_at
        if due and self._part is None and self.view.backup != NOBODY:
            self._take_effect(len(self._relay))
        original(self, now)

    return serve


def _not_waiting(original: Any) -> Any:
    """The primary answers when it has forwarded."""

    def serve(self: Any, now: Nanos) -> None:
        original(self, now)
        if self._part is None and self.noted == self.view.number:
            self._take_effect(len(self._relay))

    return serve


def _promote_anybody(original: Any) -> Any:
    """The view service does not ask whether the backup holds the data, nor does the backup."""

    def advance(self: Any) -> None:
        self.ready_backup = True
        original(self)

    return advance


def _believe(original: Any) -> Any:
    def change(self: Any, view: View) -> None:
        self.holds = self.holds or 1
        original(self, view)

    return change


def _copy_races(original: Any) -> Any:
    """Operations take effect while the copy is under way, and are not in it."""

    def serve(self: Any, now: Nanos) -> None:
        if self._part is not None and self.noted == self.view.number:
            self._take_effect(len(self._relay))
            self._part = self._part._replace(number=self.table.number)
        original(self, now)

    return serve


def _no_sessions(original: Any) -> Any:
    """The copy has the data, but not what was answered to whom."""

    def take(self: Table, part: Part) -> None:
        original(self, part._replace(sessions=()))

    return take


def _acknowledged_always(original: Any) -> Any:
    """The view service goes on whether or not the primary knows the view."""

    def advance(self: Any) -> None:
        self.acknowledged = self.ready_backup = True
        original(self)

    return advance


def _restart_unnoticed(original: Any) -> Any:
    """A server that pings again is the one that it was."""

    def ping(self: ViewService, now: Nanos, ping: Ping) -> None:
        self._lives[ping.server] = ping.life
        original(self, now, ping)
        self._crashed.clear()

    return ping


def _serve_at_once(_: Any) -> Any:
    """The primary serves before the view service has noted that it does."""
    return property(lambda self: self.primary)


def _any_view(original: Any) -> Any:
    """Whoever forwards is obeyed, whatever view it is in and whatever we are."""

    def follow(self: Any, link: Any, forward: Forward) -> None:
        if self.holds:
            for operation in forward.operations:
                if self.table.sessions.judge(operation.client, operation.sequence) == NEW:
                    self.table.apply(operation)
            last = forward.first + len(forward.operations) - 1
            self._sends.append(Send(link, Applied(forward.view, last)))

    return follow


def _always_new(_: Any) -> Any:
    """Whatever is asked again is done again."""
    return lambda self, client, sequence: NEW


def _new_number(original: Any) -> Any:
    """Asking again is asking something new."""

    def ask(self: StoreCall, now: Nanos) -> None:
        if self._asked:
            client, sequence = self.clerk.numbers.next()
            self.operation = self.operation._replace(client=client, sequence=sequence)
        original(self, now)

    return ask


BUGS: dict[str, tuple[Patch, ...]] = {
    "split_brain_gets": (Patch(StoreServer, "_ask", _gets_are_local),),
    "split_brain_alone": (Patch(StoreServer, "_serve", _alone_if_silent),),
    "answered_before_forwarded": (Patch(StoreServer, "_serve", _not_waiting),),
    "uninitialised_promoted": (
        Patch(ViewService, "_advance", _promote_anybody),
        Patch(StoreServer, "_change", _believe),
    ),
    "transfer_races_with_forward": (Patch(StoreServer, "_serve", _copy_races),),
    "sessions_not_transferred": (Patch(Table, "take", _no_sessions),),
    "view_without_acknowledgement": (
        Patch(ViewService, "_advance", _acknowledged_always),
        Patch(StoreServer, "_change", _believe),
    ),
    "restart_unnoticed": (
        Patch(ViewService, "_ping", _restart_unnoticed),
        Patch(StoreServer, "_change", _believe),
    ),
    "forward_of_any_view": (Patch(StoreServer, "_follow", _any_view),),
    "serves_before_it_is_noted": (Patch(StoreServer, "_serves", _serve_at_once),),
    "repeated_is_done_again": (Patch(Sessions, "judge", _always_new),),
    "new_number_when_asked_again": (Patch(StoreCall, "ask", _new_number),),
}
