"""What every process that we start does first, and how it knows that its parent is gone.

Two things tell a worker that the coordinator died, however it died. The kernel kills it when the
thread that started it ends (Linux; the chain is coordinator, zygote, worker). And it holds the read
end of a pipe whose write end only the coordinator has, so reading it returns once nobody does.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from engine.errors import EngineError
from engine.kernels.process import parent_death_signal, set_title

Target = Callable[[int, str, tuple[Any, ...]], None]
"""A worker's entry: (node, address, arguments), all plain values."""

_parent_pipe: int | None = None


def parent_pipe() -> int | None:
    """In a worker: the descriptor that becomes readable when the coordinator is gone."""
    return _parent_pipe


def settle(title: str, parent: int | None, pipe: int | None) -> None:
    """Make this process a child of ours: title, signals, and an end when `parent` ends.

    `parent` None: the parent's thread may end before its process does, so only the pipe counts.
    """
    global _parent_pipe
    _parent_pipe = pipe
    # Ctrl-C reaches the whole terminal group; what to do about it is for the coordinator to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # If inherited as ignored, nobody could learn how our own children ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGINT}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if parent is not None:
        parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the line above
            os.kill(os.getpid(), signal.SIGKILL)
    set_title(title)


def run(target: Target, node: int, address: str, arguments: tuple[Any, ...]) -> None:
    """Call the entry; an operating error ends the process with its sentence and exit code."""
    try:
        target(node, address, arguments)
    except EngineError as error:
        # With its end of line in one write: others may be saying something at the same moment.
        sys.stderr.write(f"engine: worker {node}: {error}\n")
        sys.exit(error.exit_code)
