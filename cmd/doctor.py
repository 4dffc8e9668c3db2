"""`engine doctor`: can this installation, on this machine, do what the engine promises?

Every check is one function that returns what it found; it never repairs. A line says OK, WARN (it
works, but slower or with less promised) or FAIL (it does not work), and what to do. Nothing is left
behind: files are made in the current directory, where jobs would write, and removed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from engine_cmd.flags import Parser

OK, WARN, FAIL = "OK", "WARN", "FAIL"

OLDEST_PYTHON = (3, 11)

MEMORY_PER_WORKER = 512 << 20
"""What a worker takes by default, where there is room."""
FREE_DISK_MIN = 1 << 30
OPEN_FILES_MIN = 1024
SYNC_SLOW_SECONDS = 0.020
SYNCS = 21
VOLATILE = ("tmpfs", "ramfs", "devtmpfs")
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")
EXTRAS = {"peers": ("duckdb", "polars", "dask", "pyspark", "mrjob"), "bench": ("matplotlib",)}


class Finding(NamedTuple):
    """What a check found; `hint` says what to do unless all is well."""

    state: str
    found: str
    hint: str = ""


def main(argv: list[str]) -> int:
    """Run all checks and print them; 1 if one of them fails."""
    parser = Parser(prog="engine doctor", description="Check this installation and machine.")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    as_json = parser.parse_args(argv).json
    findings = {name: examine(check) for name, check in CHECKS.items()}
    if as_json:
        import json

        print(json.dumps(_as_object(findings), ensure_ascii=False))
    else:
        for name, finding in findings.items():
            hint = f" -> {finding.hint}" if finding.hint else ""
            print(f"{finding.state:<4}  {name:<12}  {finding.found}{hint}")
    return int(any(finding.state == FAIL for finding in findings.values()))


def examine(check: Callable[[], Finding]) -> Finding:
    """What `check` finds; a check that cannot be carried out is a failure of that check."""
    try:
        return check()
    except Exception as error:  # whatever is wrong with this machine is the answer
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Finding(FAIL, f"{type(error).__name__}: {why}", "repair this and run it again")


def _as_object(findings: dict[str, Finding]) -> dict[str, object]:
    from engine import __version__

    return {
        "version": __version__,
        "ok": not any(finding.state == FAIL for finding in findings.values()),
        "checks": {name: finding._asdict() for name, finding in findings.items()},
        "error": None,
    }


# --- the installation ----------------------------------------------------------------------------


def python_version() -> Finding:
    import platform

    found = f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}"
    if platform.python_implementation() != "CPython":
        return Finding(FAIL, found, "use CPython: the kernels are built for it")
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding(FAIL, found, "use Python 3.11 or later")
    return Finding(OK, found)


def kernels() -> Finding:
    import importlib
    from pathlib import Path

    import engine

    folder = Path(engine.__file__).parent / "kernels"
    names = sorted(path.stem for path in folder.glob("*.pyi"))
    try:
        for name in names:
            importlib.import_module(f"engine.kernels.{name}")
    except ImportError as error:
        return Finding(FAIL, str(error), "`make kernels` in a clone, else install engine again")
    return Finding(OK, f"{', '.join(names)} load from {folder}")


def instructions() -> Finding:
    """What the kernels choose among; the widest that this machine has."""
    try:
        from engine.kernels.words import isa_levels
    except ImportError:
        return Finding(FAIL, "unknown, for the kernels do not load")
    levels = isa_levels()
    return Finding(OK, f"the kernels use {levels[-1]} (of {', '.join(levels)})")


def letters() -> Finding:
    """The table that says what a letter is: the kernels' own, so no Python changes a count."""
    import unicodedata

    try:
        from engine.kernels.words import LETTERS
    except ImportError:
        return Finding(FAIL, "unknown, for the kernels do not load")
    return Finding(OK, f"{LETTERS}, on every Python (this one has {unicodedata.unidata_version})")


def zeromq() -> Finding:
    import zmq

    found = f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}"
    if not zmq.has("ipc"):
        return Finding(FAIL, found, "this libzmq has no ipc: install pyzmq's own wheel")
    return Finding(OK, found)


def extras() -> Finding:
    from importlib.util import find_spec

    missing = [
        f"pip install 'engine[{extra}]' for {', '.join(lacking)}"
        for extra, modules in EXTRAS.items()
        if (lacking := [name for name in modules if find_spec(name) is None])
    ]
    if missing:
        return Finding(OK, f"only benchmarks need them: {'; '.join(missing)}")
    return Finding(OK, "all optional packages are there")


# --- processes -----------------------------------------------------------------------------------


def fork() -> Finding:
    """A child is forked, and forks one of its own: how workers and their replacements start."""
    import time

    begun = time.perf_counter()
    child = os.fork()
    if child == 0:  # nothing but system calls from here to `_exit`
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(7)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    milliseconds = (time.perf_counter() - begun) * 1000
    if code != 7:
        return Finding(FAIL, f"a forked child ended with {code}", "see `ulimit -u` and seccomp")
    return Finding(OK, f"a child and its child were started and reaped in {milliseconds:.1f} ms")


def pidfd() -> Finding:
    """Exits are noticed within milliseconds by a pidfd (Linux), or else by polling."""
    if not hasattr(os, "pidfd_open"):
        return Finding(WARN, "no pidfd on this system", "exits of workers are noticed by polling")
    try:
        descriptor = os.pidfd_open(os.getpid())
    except OSError as error:
        hint = "exits of workers are noticed by polling; Linux 5.3 or later has it"
        return Finding(WARN, f"pidfd_open: {error.strerror}", hint)
    os.close(descriptor)
    return Finding(OK, "exits of workers are noticed at once")


def open_files() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES_MIN:
        return Finding(WARN, f"{soft} open files", f"`ulimit -n {min(hard, 4096)}` before a job")
    return Finding(OK, f"{soft} open files")


# --- memory --------------------------------------------------------------------------------------


def memory() -> Finding:
    import psutil

    cores = len(psutil.Process().cpu_affinity()) if sys.platform == "linux" else os.cpu_count() or 1
    free = psutil.virtual_memory().available
    found = f"{_size(free)} free for {cores} workers"
    if free < cores * MEMORY_PER_WORKER:
        hint = f"give --memory {max(free // cores // 2 >> 20, 16)}, or fewer --workers"
        return Finding(WARN, found, hint)
    return Finding(OK, found)


def page_size() -> Finding:
    return Finding(OK, f"{os.sysconf('SC_PAGE_SIZE')} bytes")


# --- folders and disk ----------------------------------------------------------------------------


def sockets() -> Finding:
    """The temporary folder, where local endpoints live: writable, and short enough for a path."""
    import socket
    import tempfile

    from engine.wire.addresses import IPC_PATH_MAX

    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        path = os.path.join(folder, "coordinator")
        length = len(os.fsencode(path))
        if length > IPC_PATH_MAX:
            hint = "set TMPDIR to a shorter folder"
            return Finding(FAIL, f"{path}: {length} bytes, over {IPC_PATH_MAX}", hint)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
    return Finding(OK, f"sockets can be made in {tempfile.gettempdir()}")


def filesystem() -> Finding:
    """What holds the current folder, where outputs and scratch go unless told otherwise."""
    kind = _filesystem_of(os.getcwd())
    found = f"{os.getcwd()} is on {kind or 'an unnamed filesystem'}"
    if kind in VOLATILE:
        return Finding(WARN, found, "outputs there take memory and end with the machine")
    if kind in REMOTE:
        return Finding(WARN, found, "give --scratch DIR on a local disk")
    if kind == "overlay":
        return Finding(WARN, found, "it ends with its container: give --out on a volume")
    return Finding(OK, found)


def disk() -> Finding:
    status = os.statvfs(os.getcwd())
    free = status.f_bavail * status.f_frsize
    if free < FREE_DISK_MIN:
        return Finding(WARN, f"{_size(free)} free here", "runs may take as much as the text")
    return Finding(OK, f"{_size(free)} free here")


def sync() -> Finding:
    """How long a small append takes to be safe; the journal pays it, outputs once each."""
    import statistics
    import tempfile

    with tempfile.NamedTemporaryFile(prefix=".engine-doctor-", dir=os.getcwd()) as file:
        seconds = statistics.median(_sync_seconds(file.fileno()) for _ in range(SYNCS))
    found = f"a small append is safe after {seconds * 1000:.2f} ms (median of {SYNCS})"
    if seconds > SYNC_SLOW_SECONDS:
        return Finding(WARN, found, "a slow disk: give --out on a faster one")
    return Finding(OK, found)


def _sync_seconds(descriptor: int) -> float:
    import time

    begun = time.perf_counter()
    os.write(descriptor, b"\0" * 512)
    os.fsync(descriptor)
    return time.perf_counter() - begun


def _filesystem_of(path: str) -> str:
    """Type of the filesystem with the longest mount point that holds `path`."""
    import psutil

    real = os.path.realpath(path)
    holders = [
        (len(mount.mountpoint), mount.fstype)
        for mount in psutil.disk_partitions(all=True)
        if os.path.commonpath([real, mount.mountpoint]) == mount.mountpoint
    ]
    return max(holders, default=(0, ""))[1]


def _size(number: int) -> str:
    return f"{number / (1 << 30):.1f} GiB" if number >= 1 << 30 else f"{number >> 20} MiB"


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": python_version,
    "kernels": kernels,
    "instructions": instructions,
    "letters": letters,
    "zeromq": zeromq,
    "fork": fork,
    "pidfd": pidfd,
    "open files": open_files,
    "memory": memory,
    "page size": page_size,
    "sockets": sockets,
    "filesystem": filesystem,
    "disk": disk,
    "fsync": sync,
    "extras": extras,
}
