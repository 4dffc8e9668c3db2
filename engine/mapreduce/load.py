"""From the name of a job to the job: a built-in, `module:Class`, or a file with a Job in it.

A job is loaded by name in every process that runs it and never travels as code. A file is imported
under a name of its own, so its `if __name__ == "__main__"` part does not run again.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from engine.errors import NotFoundError, UsageError
from engine.mapreduce.job import Job

if TYPE_CHECKING:
    from types import ModuleType


def load(app: str, options: tuple[tuple[str, str], ...] = ()) -> Job:
    """The job called `app`, with these options; `NotFoundError` or `UsageError` in one sentence."""
    cls = _job_class(app)
    unknown = [name for name, _ in options if name not in cls.options]
    if unknown:
        known = ", ".join(sorted(cls.options)) or "none"
        raise UsageError(f"{app} has no option {unknown[0]!r}; its options: {known}.")
    if cls.records not in ("lines", "files"):
        raise UsageError(f'{app}: records must be "lines" or "files", not {cls.records!r}.')
    return cls(**dict(options))


def preload(app: str) -> None:
    """Import a built-in job, so that processes forked from this one have it already."""
    from engine.mapreduce.apps import BUILT_IN

    if app in BUILT_IN:
        _job_class(app)


def absolute(app: str) -> str:
    """The same name for a process with another working directory."""
    path, _, name = _split_file(app)
    if not path:
        return app
    return os.path.abspath(path) + (f":{name}" if name else "")


def _job_class(app: str) -> type[Job]:
    from engine.mapreduce.apps import BUILT_IN

    app = BUILT_IN.get(app, app)
    path, is_file, name = _split_file(app)
    if is_file:
        return _pick(_import_file(path), name, app)
    module, _, name = app.partition(":")
    if not name:
        known = ", ".join(sorted(BUILT_IN))
        raise NotFoundError(
            f"No job is called {app!r}: give a built-in ({known}), module:Class, or a .py file."
        )
    return _pick(_import_module(module, app), name, app)


def _split_file(app: str) -> tuple[str, bool, str]:
    """(path, True, class) if `app` names a Python file, else ("", False, "")."""
    path, _, name = app.partition(":")
    return (path, True, name) if path.endswith(".py") else ("", False, "")


def _import_module(module: str, app: str) -> ModuleType:
    import importlib

    if module == "__main__":
        raise UsageError(f"{app}: __main__ is not imported again; name the job by its file.")
    if os.getcwd() not in sys.path:  # a module beside the user, as `python -m` would find it
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise NotFoundError(f"{app}: cannot import {error.name!r}; is it installed?") from error


def _import_file(path: str) -> ModuleType:
    import importlib.util

    if not os.path.isfile(path):
        raise NotFoundError(f"{path}: no such file; name a job by the path of its Python file.")
    name = "engine_job_" + os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = os.path.dirname(os.path.abspath(path))
    if folder not in sys.path:  # what the file imports from its own folder
        sys.path.append(folder)
    spec.loader.exec_module(module)
    return module


def _pick(module: ModuleType, name: str, app: str) -> type[Job]:
    if name:
        found: Any = getattr(module, name, None)
        if not (isinstance(found, type) and issubclass(found, Job)):
            raise NotFoundError(f"{app}: {module.__name__} has no Job class called {name}.")
        return found
    jobs = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Job)
        and value.__module__ == module.__name__
    ]
    if len(jobs) != 1:
        names = ", ".join(job.__name__ for job in jobs) or "none"
        raise UsageError(f"{app} must hold one Job, or name it as FILE.py:Class; found: {names}.")
    return jobs[0]
