"""What programs call: `run(Request(...))` carries a job from its inputs to its outputs.

`inline` runs it in this process, `local` on processes of this machine; without a choice, small
inputs run inline, since starting two processes takes longer than counting 16 MB.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from engine.errors import JobFailed, RefusedError, UsageError
from engine.mapreduce import messages, splits
from engine.mapreduce.load import absolute, load
from engine.mapreduce.publish import SCRATCH_PREFIX, OutputDirectory, read_manifest
from engine.record import Record

if TYPE_CHECKING:
    from engine.mapreduce.job import Job

INLINE_BYTES = 16 << 20
MEMORY_BYTES = 512 << 20
"""Table and sort buffers of a worker: five million distinct words fit."""
MEMORY_BYTES_MIN = 1 << 20
MEMORY_SHARE = 0.6
"""Of the memory available now, all workers together take no more by default."""
LEASE_SECONDS = 10.0
"""The labs' figure: a worker whose page stands still for so long is given up."""


class Request(Record):
    """A job to run. Sizes in bytes, times in seconds."""

    app: str
    inputs: tuple[str, ...]
    out: str
    workers: int | None = None
    reducers: int = 10
    on: str = ""
    """"inline", "local", or "" to choose by size."""
    scratch: str | None = None
    memory: int | None = None
    record_timeout: float | None = None
    skip_bad: int = 0
    resume: bool = False
    force: bool = False
    options: tuple[tuple[str, str], ...] = ()
    isa: str = ""
    listen: str | None = None
    """Where workers that were started by hand may join; None: nowhere."""
    advertise: str = ""
    """What they are told of it instead."""
    keys: str | None = None
    """Path of the keys that guard it, which are needed beyond this machine."""
    progress: bool = False
    """Draw a progress line on stderr."""


class Summary(Record):
    """What a finished job did. `words` are records for jobs that are not native."""

    seconds: float
    bytes: int
    words: int
    distinct: int
    workers: int
    attempts: dict[str, int]
    rss_max_bytes: int
    output: str
    skipped: int
    samples: tuple[str, ...]
    deaths: int
    notes: dict[str, Any]


class Plan(Record):
    """A request, checked, with everything decided that does not depend on who runs it."""

    request: Request
    app: str
    job: Job
    inputs: list[splits.Input]
    planned: messages.Planned
    records: tuple[Any, ...]
    """The journal so far, without `planned`."""
    resumed: bool
    """The journal is there already."""
    memory: int
    fold_letters: str


def run(request: Request) -> Summary:
    """Run a job to its end.

    Raises `EngineError` with one sentence: UsageError, NotFoundError, RefusedError before anything
    was started, JobFailed when the job cannot finish (then nothing of it is left but the output
    directory as it was). A process that is killed leaves a journal for `resume`.
    """
    began = monotonic()
    _check(request)
    output = OutputDirectory(request.out)
    try:
        with termination():
            return _run(request, output, began)
    except OSError as error:
        where = error.filename or output.path
        raise JobFailed(f"{where}: {error.strerror or error}.") from error


def _run(request: Request, output: OutputDirectory, began: float) -> Summary:
    state = output.occupy(force=request.force, resume=request.resume)
    if state == "complete":
        return _already_complete(request, output)
    keep = state == "resume"  # unless this job itself fails: the right command may go on
    try:
        summary = _runner(request)(request, output, state == "resume", began)
        keep = False
        return summary
    except (JobFailed, KeyboardInterrupt):
        keep = False
        raise
    finally:
        output.release(keep=keep or output.torn)


class Terminated(KeyboardInterrupt):
    """SIGTERM: leave as on ctrl-C, with everything cleaned up."""

    exit_code = 128 + signal.SIGTERM


@contextmanager
def termination() -> Iterator[None]:
    """SIGTERM unwinds the stack instead of ending the process where it stands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(signum: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(request: Request) -> None:
    if request.reducers < 1 or request.reducers > 10_000:
        raise UsageError(f"--reducers {request.reducers}: give a number from 1 to 10000.")
    if request.workers is not None and not 0 <= request.workers <= 512:
        raise UsageError(f"--workers {request.workers}: give a number from 1 to 512.")
    if request.workers == 0 and request.listen is None:
        raise UsageError("--workers 0 without --listen: nobody could do the work.")
    if request.memory is not None and request.memory < MEMORY_BYTES_MIN:
        raise UsageError("--memory: at least 1 MB.")
    if request.on not in ("", "inline", "local"):
        raise UsageError(f"--on {request.on}: runs on inline or local.")
    if request.on == "inline" and request.listen is not None:
        raise UsageError("--on inline runs in one process; nobody can join it.")
    if request.scratch is not None and not os.path.isdir(request.scratch):
        raise UsageError(f"--scratch {request.scratch}: no such directory; make it first.")


def _runner(request: Request) -> Callable[[Request, OutputDirectory, bool, float], Summary]:
    inline = request.on == "inline"
    if not request.on and request.workers is None and request.listen is None:
        inline = sum(entry.size for entry in splits.scan(request.inputs)) < INLINE_BYTES
    if inline:
        from engine.mapreduce.runners import run_inline

        return run_inline
    from engine.mapreduce.runners import run_local

    return run_local


def _already_complete(request: Request, output: OutputDirectory) -> Summary:
    """`--resume` of a job that is done: say so, from its manifest."""
    manifest = read_manifest(output.path)
    assert manifest is not None
    _check_finished(request, output, manifest)
    return Summary(
        0.0,
        manifest["bytes"],
        manifest["records"],
        sum(file["keys"] for file in manifest["files"]),
        0,
        {},
        0,
        output.path,
        manifest["skipped"],
        (),
        0,
        {"complete": True},
    )


def _check_finished(request: Request, output: OutputDirectory, manifest: dict[str, Any]) -> None:
    asked = {
        "app": absolute(request.app),
        "options": dict(request.options),
        "partitions": request.reducers,
        "inputs": _listed(splits.scan(request.inputs)),
    }
    for name, value in asked.items():
        if manifest[name] != value:
            raise RefusedError(
                f"{output.path} holds the finished output of a job with other {name}; "
                "name another --out, or replace it with --force."
            )


def _listed(inputs: list[splits.Input]) -> list[dict[str, Any]]:
    """Inputs as the manifest lists them."""
    return [{"path": entry.path, "bytes": entry.size} for entry in inputs]


# --- planning ------------------------------------------------------------------------------------


def make_plan(request: Request, output: OutputDirectory, resume: bool, workers: int) -> Plan:
    """Load the job, pin the inputs, cut the splits; or take all that from the journal."""
    app = absolute(request.app)
    job = load(app, request.options)
    inputs = splits.scan(request.inputs)
    _check_apart(inputs, output)
    records = _recovered(output) if resume else ()
    if resume and not records:
        output.restart()  # killed before its first word: there is nothing to go on from
    if records:
        planned = records[0]
        _check_same(request, app, inputs, planned, output)
    else:
        number = int.from_bytes(os.urandom(8), "little")
        planned = messages.Planned(
            number,
            app,
            request.options,
            request.reducers,
            _scratch(request, output, number),
            splits.plan(inputs, job, workers),
            _extra(job),
        )
    if records and dict(planned.extra) != dict(_extra(job)):
        raise RefusedError(f"{app} is not what it was when the job began; start over with --force.")
    memory = request.memory or default_memory(workers)
    return Plan(
        request,
        app,
        job,
        inputs,
        planned,
        records[1:],
        bool(records),
        memory,
        _letters(job),
    )


def _check_apart(inputs: list[splits.Input], output: OutputDirectory) -> None:
    inside = os.path.realpath(output.path) + os.sep
    for entry in inputs:
        if os.path.realpath(entry.path).startswith(inside):
            raise UsageError(
                f"{entry.path} is inside --out {output.path}: the job would read its own output; "
                "name an --out outside the inputs."
            )


def _recovered(output: OutputDirectory) -> tuple[Any, ...]:
    from engine.storage.journal import Journal

    journal, records = Journal.open(output.journal_path)
    journal.close()
    return tuple(records)


def _check_same(
    request: Request,
    app: str,
    inputs: list[splits.Input],
    planned: messages.Planned,
    output: OutputDirectory,
) -> None:
    """A resumed job must be the job that was killed; otherwise the answer would be a mixture."""
    what = ""
    if planned.app != app:
        what = f"it ran {planned.app}"
    elif sorted(planned.options) != sorted(request.options):
        what = f"its options were {dict(planned.options)}"
    elif planned.partitions != request.reducers:
        what = f"it had --reducers {planned.partitions}"
    elif {(path, identity) for path, _, _, identity in planned.splits} != {
        (entry.path, entry.identity) for entry in inputs if entry.size or planned_empty(planned)
    }:
        what = "its inputs were others, or have changed since"
    if what:
        raise RefusedError(
            f"{output.path} cannot be resumed by this command: {what}. "
            "Give the same command, or start over with --force."
        )


def planned_empty(planned: messages.Planned) -> bool:
    """Whether empty files have splits in this plan (they do for jobs of whole files)."""
    return any(start == end for _, start, end, _ in planned.splits)


def _scratch(request: Request, output: OutputDirectory, number: int) -> str:
    if request.scratch is None:
        return os.path.join(output.job_path, "scratch")
    return os.path.join(os.path.abspath(request.scratch), f"{SCRATCH_PREFIX}{number:016x}")


def _extra(job: Job) -> tuple[tuple[str, str], ...]:
    """What else must be equal for a resume: our version, the letters table, the job's source."""
    import sys

    from engine import __version__
    from engine.kernels.checksum import crc32c

    source = getattr(sys.modules[type(job).__module__], "__file__", None) or ""
    digest = 0
    if source.endswith(".py"):
        with open(source, "rb") as file:
            digest = crc32c(file.read())
    return (("engine", __version__), ("letters", _letters(job)), ("source", f"{digest:08x}"))


def _letters(job: Job) -> str:
    if not job.native:
        return ""
    from engine.kernels.words import LETTERS

    return LETTERS


def default_memory(workers: int) -> int:
    """512 MB a worker where there is room, else an equal share of what is available."""
    try:
        with open("/proc/meminfo", "rb") as file:
            lines = dict(line.split(b":", 1) for line in file)
        available = int(lines[b"MemAvailable"].split()[0]) << 10
    except (FileNotFoundError, KeyError):  # macOS
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    available = min(available, _cgroup_room())
    share = int(available * MEMORY_SHARE) // max(workers, 1)
    return max(MEMORY_BYTES_MIN, min(MEMORY_BYTES, share))


def _cgroup_room() -> int:
    """Bytes that this container may still take; very many where there is no limit."""
    try:
        with (
            open("/sys/fs/cgroup/memory.max") as limit,
            open("/sys/fs/cgroup/memory.current") as now,
        ):
            return max(0, int(limit.read()) - int(now.read()))
    except (OSError, ValueError):  # no cgroup v2 here, or "max"
        return 1 << 62


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def manifest_of(plan: Plan, publish: messages.Publish) -> dict[str, Any]:
    """The manifest but for its files: nothing in it depends on who did what, or when."""
    from engine import __version__

    return {
        "engine": __version__,
        "app": plan.app,
        "options": dict(plan.request.options),
        "partitions": plan.planned.partitions,
        "letters": plan.fold_letters,
        **{name: value for name, value in publish.summary if name != "tasks"},
        "inputs": _listed(plan.inputs),
    }
