"""MapReduce on the cores of one machine: any map and reduce, on processes that may be killed.

A *job* (`job`) is a class with `map` and `reduce`. The *inputs* are cut into *splits* (`splits`).
The *coordinator* (`server`) owns the *scheduler* (`machine`), a pure object that hands splits to
*workers* (`worker`), one process a core. A worker folds splits into a table and *commits* them in
groups as *runs* (`executor`, `engine.storage.runs`); when all splits are committed, the partitions
of all runs are *reduced* to outputs, which the coordinator alone puts in place (`publish`). What
was accepted is in the *journal*, so a killed coordinator is followed by one that goes on
(`client.run` with `resume`).

How it differs from the paper (Dean and Ghemawat, "MapReduce", OSDI 2004)

* Section 3.1 has a worker write R files per map task; here a commit is one file, however many
  splits are in it, so M x R files never exist.
* Section 3.3 renames outputs atomically from workers and lets the file system pick a winner; here
  the first *report* of a task wins and is journalled, and nobody but the coordinator renames.
* Section 3.6, backup tasks, is left out: on one machine a straggler is a worker that shares its
  core, and a second copy of its work would slow it further.

Guarantees and their limits: `docs/guarantees.md`.
"""

from __future__ import annotations

import sys

from engine.mapreduce.job import Job

__all__ = ["Job", "main"]


def main(job: type[Job], argv: list[str] | None = None) -> int:
    """Let a job file run by itself: `python my_job.py INPUT… --out DIR`, flags of `engine mr run`.

    The processes that run it import the file under another name, so what stands under
    `if __name__ == "__main__"` runs once.
    """
    import importlib

    file = sys.modules[job.__module__].__file__
    arguments = ["mr", "run", f"{file}:{job.__name__}", *(sys.argv[1:] if argv is None else argv)]
    # The command line is layers above; a job file is a user of it, and only gets its name here.
    program = importlib.import_module("engine_cmd.main")
    code: int = program.main(arguments)
    return code
