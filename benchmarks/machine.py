"""What the figures were measured on: without it a table says nothing."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
from harness import ROOT, environment

LIBRARIES = ("duckdb", "polars", "dask", "pyspark", "mrjob")
OURS = ("engine", "pyzmq", "msgpack", "psutil", "cython")
PROGRAMS = {
    "cc": ["cc", "--version"],
    "rustc": ["rustc", "--version"],
    "go": ["go", "version"],
    "mawk": ["mawk", "-W", "version"],
    "sort": ["sort", "--version"],
    "java": ["java", "-version"],
}


def describe(work: Path, peers_python: str, path: str) -> dict[str, object]:
    """Machine, software and commit, as plain JSON values."""
    memory = psutil.virtual_memory()
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": psutil.cpu_count() or 1,
        "memory_bytes": memory.total,
        "load": list(os.getloadavg()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "filesystem": filesystem(work),
        "huge_pages": first_line(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "isa": list(isa_levels()),
        "commit": commit(),
        "versions": versions(peers_python, path),
    }


def cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def filesystem(folder: Path) -> str:
    """Type of the file system that holds `folder`."""
    best = max(
        (part for part in psutil.disk_partitions(all=True) if inside(folder, part.mountpoint)),
        key=lambda part: len(part.mountpoint),
        default=None,
    )
    return best.fstype if best else "unknown"


def inside(folder: Path, mount: str) -> bool:
    return folder.resolve().is_relative_to(mount)


def first_line(path: Path) -> str:
    try:
        return path.read_text().splitlines()[0]
    except OSError:
        return ""


def isa_levels() -> tuple[str, ...]:
    """Instruction sets of our kernel on this machine, slowest first; () if it is not built."""
    try:
        from engine.kernels.words import isa_levels as levels
    except ImportError:
        return ()
    return tuple(levels())


def commit() -> str:
    """The commit of the working tree, with "+" if there are changes; "" outside a clone."""
    if not shutil.which("git"):
        return ""
    head = output(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"])
    changed = output(["git", "-C", str(ROOT), "status", "--porcelain"])
    return head + ("+" if head and changed else "")


def versions(peers_python: str, path: str) -> dict[str, str]:
    """Versions of all that is installed or on PATH; what is missing is not in it."""
    found = library_versions(sys.executable, OURS) | library_versions(peers_python, LIBRARIES)
    for name, command in PROGRAMS.items():
        if program := shutil.which(command[0], path=path):
            found[name] = output([program, *command[1:]]).splitlines()[0].strip()
    return found


def library_versions(python: str, names: tuple[str, ...]) -> dict[str, str]:
    program = (
        "import importlib.metadata as m, json, sys\n"
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
    )
    installed = json.loads(output([python, "-c", program]) or "{}")
    return {name: installed[name] for name in names if name in installed}


def output(command: list[str]) -> str:
    """What a command says, on either stream; "" if it fails."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""
