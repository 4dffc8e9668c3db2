"""Where a job runs: `run_inline` in this process, `run_local` on processes of this machine."""

from __future__ import annotations

import os
import random
import resource
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from engine.contract import SECOND, Server
from engine.errors import JobFailed
from engine.mapreduce import messages
from engine.mapreduce.client import (
    LEASE_SECONDS,
    Plan,
    Request,
    Summary,
    cores,
    make_plan,
    manifest_of,
)
from engine.mapreduce.display import Display
from engine.mapreduce.publish import OutputDirectory
from engine.storage.files import remove_tree, unlink_if_there
from engine.storage.journal import Journal

if TYPE_CHECKING:
    from engine.mapreduce.machine import Outcome

NO_LEASE = 1 << 62
"""Inline, the worker's silence is the caller's own."""
World = Any
"""`LocalWorld` or `InlineWorld`: `engine.contract.World` with `wait`, `position` and `close`."""


def run_inline(request: Request, output: OutputDirectory, resume: bool, began: float) -> Summary:
    """One worker in this process; a job's own exception is the cause of the `JobFailed`."""
    from engine.mapreduce.inline import InlineWorld

    plan = make_plan(request, output, resume, workers=1)
    with _prepared(plan, output) as journal:
        world = InlineWorld(
            journal, output, plan.planned.scratch, lambda publish: manifest_of(plan, publish)
        )
        outcome = _loop(plan, world, output, workers=1, lease=NO_LEASE)
        world.close()
        if not outcome.ok:
            raise _failure(outcome) from world.error
    return _summary(plan, outcome, output, began, 1, _peak())


def run_local(request: Request, output: OutputDirectory, resume: bool, began: float) -> Summary:
    """Worker processes of this machine, started before the inputs are looked at."""
    # Everything that workers need is imported before the first fork and shared by all of them;
    # the job's own module is not, since it may start threads.
    from engine.mapreduce import native, python, worker  # noqa: F401
    from engine.mapreduce.load import preload
    from engine.runtime.processes import Supervisor

    workers = cores() if request.workers is None else request.workers
    address = request.listen or output.address()
    token = _token(output, request)
    preload(request.app)
    with ExitStack() as stack:
        supervisor = None
        if workers:
            name = os.path.basename(request.app)
            supervisor = Supervisor(worker.main, address, (token,), name=name)
            stack.enter_context(supervisor)
            if request.listen is None:
                supervisor.start(range(workers))  # they connect as soon as somebody listens
        # What only the coordinator needs is imported while its workers start.
        from engine.mapreduce.server import LocalWorld
        from engine.wire.endpoint import Listener

        listener = stack.enter_context(Listener(address, token=token))
        if supervisor is not None and request.listen is not None:
            # With the port that it was given.
            supervisor.address = request.advertise or listener.address
            supervisor.start(range(workers))
        plan = make_plan(request, output, resume, workers)
        journal = stack.enter_context(_prepared(plan, output))
        world = LocalWorld(
            listener,
            supervisor,
            journal,
            output,
            plan.planned.scratch,
            lambda publish: manifest_of(plan, publish),
        )
        stack.callback(world.close)
        if request.listen is not None:
            _announce(request, listener, token)
        outcome = _loop(plan, world, output, workers, int(LEASE_SECONDS * SECOND))
        peak = max(_peak(), world.memory_peak)
    if not outcome.ok:
        raise _failure(outcome)
    return _summary(plan, outcome, output, began, workers, peak)


def _token(output: OutputDirectory, request: Request) -> str | None:
    """Path of the file that proves who may join over TCP; None for ipc, guarded by permissions."""
    if request.listen is None or not request.listen.startswith("tcp://"):
        return None
    if request.keys:
        return request.keys
    from engine.wire.keys import make_token

    path = os.path.join(output.job_path, "token")
    unlink_if_there(path)  # of the coordinator that was killed here
    make_token(path)
    return path


def _announce(request: Request, listener: Any, token: str | None) -> None:
    proof = " --keys KEYS" if request.keys else f" --token {token}" if token else ""
    address = request.advertise or listener.address
    print(f"engine: join with --join {address}{proof}", file=sys.stderr, flush=True)


@contextmanager
def _prepared(plan: Plan, output: OutputDirectory) -> Iterator[Journal]:
    """The journal, opened or begun, and the scratch folder, which is gone afterwards."""
    scratch = plan.planned.scratch
    if plan.resumed:
        journal, _ = Journal.open(output.journal_path)
    else:
        journal = Journal.create(output.journal_path)
        journal.append([plan.planned])
        journal.sync()
    try:
        os.makedirs(scratch, mode=0o700, exist_ok=True)
        os.makedirs(output.parts_path, mode=0o700, exist_ok=True)
        yield journal
    finally:
        if not output.torn:
            remove_tree(scratch)


def _loop(plan: Plan, world: World, output: OutputDirectory, workers: int, lease: int) -> Outcome:
    from engine.mapreduce.machine import Recovered, Scheduler, Settings

    request, planned = plan.request, plan.planned
    configure = messages.Configure(
        planned.job,
        plan.app,
        planned.options,
        planned.partitions,
        plan.memory,
        planned.scratch,
        output.parts_path,
        output.pages_path,
        0,
        request.skip_bad,
        request.isa,
    )
    settings = Settings(
        planned.splits,
        planned.partitions,
        configure,
        workers,
        lease=lease,
        record_timeout=(
            None if request.record_timeout is None else int(request.record_timeout * SECOND)
        ),
        skip_bad=request.skip_bad,
    )
    scheduler = Scheduler(
        Recovered(plan.records, plan.resumed), settings, random.Random(planned.job)
    )
    server = Server(scheduler, world)
    display = Display(request.progress, sum(entry.size for entry in plan.inputs))
    with display:
        while scheduler.outcome is None:
            wake_at = server.turn()
            display.show(scheduler, world)
            if scheduler.outcome is None:
                world.wait(wake_at)
    return scheduler.outcome


def _failure(outcome: Outcome) -> JobFailed:
    error = JobFailed(outcome.text)
    if outcome.detail:
        error.add_note(outcome.detail)
    return error


def _peak() -> int:
    """Peak resident bytes of this process. Linux's ru_maxrss also holds those of who started it."""
    from engine.runtime.samples import peak_of

    return peak_of(os.getpid()) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _summary(
    plan: Plan, outcome: Outcome, output: OutputDirectory, began: float, workers: int, peak: int
) -> Summary:
    counters = dict(outcome.counters)
    outcomes = ("committed", "failed", "lost", "stale")
    attempts = {name: counters[name] for name in outcomes if name in counters}
    return Summary(
        monotonic() - began,
        counters["bytes"],
        counters["records"],
        counters["keys"],
        workers,
        attempts,
        peak,
        output.path,
        counters["skipped"],
        outcome.samples,
        counters["deaths"],
        {
            "native": bool(plan.job.native),
            "runs": counters["runs"],
            "splits": counters["tasks"],
            "memory_bytes": plan.memory,
        },
    )
