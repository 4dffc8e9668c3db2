"""Run one command and print what it cost: the stop watch, kept apart from the harness.

A process of its own, because Linux hands a parent's peak memory on to what it starts: the peak of a
child started by a harness that holds five million words would be the harness's. Run with `-I -S`
(11 MB), it is the floor under every peak we report. It adopts orphans of the command, so
that a JVM or a helper that outlives its parent is counted, and none is left behind.

usage: python -I -S launch.py TIMEOUT_SECONDS STDOUT STDERR COMMAND [ARGUMENT …]
"""

import json
import os
import resource
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
ORPHANS_SECONDS = 5.0


def adopt_orphans() -> None:
    """And follow the harness should it be killed. Linux only: elsewhere orphans do not count."""
    if sys.platform == "linux":
        import ctypes

        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def start(stdout: str, stderr: str, command: list[str]) -> int:
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return os.posix_spawnp(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, stdout, write, 0o644),
            (os.POSIX_SPAWN_OPEN, 2, stderr, write, 0o644),
        ],
        setpgroup=0,
        setsigmask=[],
    )


def reap_orphans(group: int) -> int:
    """Wait a little for what the command left running, then kill it: how many had to be."""
    deadline = time.monotonic() + ORPHANS_SECONDS
    killed = 0
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return killed
        if pid:
            continue
        if time.monotonic() > deadline:
            killed += kill_children(group)
        signal.sigtimedwait([signal.SIGCHLD], 0.2)


def kill_children(group: int) -> int:
    """SIGKILL the command's group and all our children; their own become ours and follow."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            children = [int(pid) for pid in file.read().split()]
    except OSError:
        return 1
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    return len(children)


def main(timeout: str, stdout: str, stderr: str, *command: str) -> None:
    adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    begin = time.monotonic()
    pid = start(stdout, stderr, list(command))
    timed_out = False

    def expire(number: int, _frame: object) -> None:
        nonlocal timed_out
        timed_out = True
        kill_children(pid)
        if number != signal.SIGALRM:
            sys.exit(1)

    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, expire)
    signal.setitimer(signal.ITIMER_REAL, float(timeout))
    _, status = os.waitpid(pid, 0)
    wall = time.monotonic() - begin
    signal.setitimer(signal.ITIMER_REAL, 0)
    left_behind = reap_orphans(pid)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    json.dump(
        {
            "wall": wall,
            "user": used.ru_utime,
            "system": used.ru_stime,
            "largest": used.ru_maxrss * unit,
            "code": os.waitstatus_to_exitcode(status),
            "timed_out": timed_out,
            "left_behind": left_behind,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
