"""The protocol of a worker over any executor: orders in, reports out.

The worker process drives it from a socket, the inline world from a queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.errors import ConnectionFailed, EngineError
from engine.mapreduce import messages
from engine.mapreduce.executor import AttemptFailed, Executor, trace_of


class Worker:
    """The protocol of one worker over any executor: messages in, reports out through `send`."""

    def __init__(self, executor: Executor, send: Callable[[Any], None]) -> None:
        self.executor, self.send = executor, send

    def run(self, receive: Callable[[], Any]) -> None:
        """Until `Stop`."""
        while not isinstance(order := receive(), messages.Stop):
            self.handle(order)

    def handle(self, order: Any) -> None:
        """Carry out one order and report."""
        try:
            self.carry_out(order)
        except AttemptFailed as error:
            self.fail(order, error)
        except EngineError as error:
            self.fail(order, AttemptFailed("user", str(error)))
        except (Exception, SystemExit) as error:
            # A bug of ours, or of a job's class outside map and reduce: it would strike again.
            text = f"a worker failed with {type(error).__name__}: {error}"
            self.fail(order, AttemptFailed("user", text, 0, trace_of(error)))

    def fail(self, order: Any, error: AttemptFailed) -> None:
        """Drop what is not committed and report why."""
        self.executor.abandon()
        attempt = getattr(order, "attempt", 0)
        self.send(messages.Failed(attempt, error.reason, error.text, error.where, error.detail))

    def carry_out(self, order: Any) -> None:
        """Carry out one order and report; `AttemptFailed` when it cannot end well."""
        executor = self.executor
        if isinstance(order, messages.Map):
            executor.scan(order)
            self.send(messages.Scanned(order.attempt))
            if executor.wants_commit():
                self._commit()
        elif isinstance(order, messages.Flush):
            self._commit()
        elif isinstance(order, messages.Reduce):
            self.send(executor.reduce(order))
        else:
            raise ConnectionFailed(f"The coordinator sent {type(order).__name__}: other version?")

    def _commit(self) -> None:
        committed = self.executor.commit()
        if committed is not None:
            self.send(committed)
