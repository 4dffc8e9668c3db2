"""Operating errors, sorted by who must act.

An error that a user can cause carries one sentence: what, where, and what to do. The command line
prints it and ends with `exit_code`; anything that is not an `EngineError` is a bug and is shown
with its traceback.
"""

from __future__ import annotations


class EngineError(Exception):
    """A definite failure that is nobody's bug: the request was not carried out."""

    exit_code = 1


class UsageError(EngineError):
    """The caller asked for something that makes no sense; nothing was started."""

    exit_code = 2


class NotFoundError(EngineError):
    """What was named does not exist."""

    exit_code = 3


class ConnectionFailed(EngineError):
    """Nobody answered, or nobody who can prove who they are."""

    exit_code = 4


class OutcomeUnknown(EngineError):
    """Time ran out before an answer came: the request may have been carried out, or may yet be."""

    exit_code = 5


class RefusedError(EngineError):
    """Doing it would destroy something or break a promise, so it was not done."""

    exit_code = 6


class JobFailed(EngineError):
    """A job cannot finish: bad record, lost input, no space. Nothing was published."""


class DamagedData(EngineError):
    """Bytes on disk or on the wire do not verify; they were not used.

    `path` and `offset` (bytes) say where.
    """

    def __init__(self, path: str, offset: int, why: str) -> None:
        super().__init__(f"{path}: damaged at byte {offset}: {why}")
        self.path, self.offset, self.why = path, offset, why
