"""The worker process: one connection, one executor, one message at a time.

It blocks on purpose: inside user code it answers nobody, and need not, since its progress page
tells the coordinator where it is, and to cancel it is to kill it. It leaves when told to stop, when
its coordinator is gone, and never before.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

from engine.errors import EngineError
from engine.kernels.process import beat, set_title
from engine.mapreduce import messages, progress
from engine.mapreduce.executor import make_executor
from engine.mapreduce.gather import raise_descriptor_limit
from engine.mapreduce.orders import Worker
from engine.runtime.pages import Pages
from engine.runtime.processes import parent_pipe
from engine.wire.endpoint import Dialer

BEAT_MS = 200
BEATING = 1 << progress.MAPPING | 1 << progress.COMMITTING | 1 << progress.REDUCING
"""Phases in which a worker may be silent for long and be well. Not while it reads: there its page
moves by itself, and if it does not, the disk hangs."""
CONNECT_SECONDS = 30.0
"""A worker that joins before its coordinator listens waits so long."""


def main(node: int, address: str, arguments: tuple[Any, ...]) -> None:
    """Entry of a supervised worker (`engine.runtime.processes`); returns when the job is over."""
    token = arguments[0] if arguments else None
    pipe = parent_pipe()
    watch = () if pipe is None else (pipe,)
    with Dialer(address, role="worker", node=node, token=token, watch=watch) as dialer:
        # Its coordinator may plan for long before it listens; should it die, the pipe tells.
        _serve(dialer, None if watch else CONNECT_SECONDS)


def join(address: str, token: str | None = None) -> None:
    """Work for the coordinator at `address` until it says stop (`engine mr worker --join`).

    `token` is the path of its token file, for TCP.

    Raises ConnectionFailed when there is none, or when it goes away before the job's end.
    """
    set_title("engine: worker (joined)")
    with Dialer(address, role="worker", node=-1, token=token) as dialer:
        _serve(dialer, CONNECT_SECONDS)


def _serve(dialer: Dialer, patience: float | None) -> None:
    raise_descriptor_limit()
    gc.disable()
    dialer.connect(patience)
    dialer.send(messages.Join(os.getpid()))
    first = dialer.receive()
    if isinstance(first, messages.Stop):
        return
    assert isinstance(first, messages.Configure), first
    page = Pages.attach(first.page).slot(first.slot)
    beat(page, progress.ALIVE, progress.PHASE, BEATING, BEAT_MS)
    # A job's module is its own code and may take long to import: let the heart beat, at no record.
    page[progress.RECORD] = 0
    page[progress.PHASE] = progress.MAPPING
    try:
        executor = make_executor(first, page)
    except EngineError as error:
        dialer.send(messages.Failed(0, "user", str(error), 0, ""))
        return
    page[progress.PHASE] = progress.IDLE
    if not executor.job.native:
        _collect_rarely()
    Worker(executor, dialer.send).run(dialer.receive)


def _collect_rarely() -> None:
    """Of what we hold nothing is in cycles, and there are millions; but a job's code may make some.

    What is there by now stays for good and is never looked at again.
    """
    gc.freeze()
    gc.set_threshold(50_000, 10, 50)
    gc.enable()


if sys.platform == "win32":  # pragma: no cover
    raise ImportError("engine needs POSIX processes and signals: use Linux, macOS or WSL 2.")
