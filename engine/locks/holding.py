"""Holding a lock for a command, or for as long as somebody keeps our stdin open."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Sequence

from engine.errors import EngineError, UsageError
from engine.locks.fenced import ALIVE_SHARE, FencedLock


def hold(lock: FencedLock, command: Sequence[str]) -> int:
    """Keep the lock until the command ends, or stdin does, and release it: the exit code.

    LockLost if it was lost before; the command is killed then.
    """
    import subprocess

    every = lock.ttl / ALIVE_SHARE
    if not command:
        poll = select.poll()
        poll.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
        try:
            while not (poll.poll(every * 1000) and not os.read(sys.stdin.fileno(), 4096)):
                lock.keep_alive()
        except KeyboardInterrupt:
            lock.release()
            raise
        lock.release()
        return 0
    try:
        process = subprocess.Popen(
            command, env={**os.environ, "ENGINE_LOCK_TOKEN": str(lock.token)}
        )
    except OSError as error:
        lock.release()
        raise UsageError(f"{command[0]!a} cannot be run: {error.strerror}.") from None
    try:
        while True:
            try:
                code = process.wait(every)
                break
            except subprocess.TimeoutExpired:
                lock.keep_alive()
    except EngineError:
        process.kill()
        process.wait()
        raise
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        lock.release()
        raise
    lock.release()
    return code if code >= 0 else 128 - code
