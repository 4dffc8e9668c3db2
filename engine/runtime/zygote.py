"""A small process that forks workers: cheap starts without forking a process that has threads.

The main process forks it while it has one thread and no ZeroMQ socket, with everything that workers
need already imported. From then on it has one thread, no sockets but the channel, and does nothing
but fork and reap on request, so a fork from it is always safe, replacements included.

The channel is a pair of SOCK_SEQPACKET sockets, one msgpack array a packet::

    to the zygote    ["start", node, address, arguments] | ["reap", node]
    from the zygote  ["born", node, pid] with the worker's pidfd | ["ended", node, code, peak]

The zygote opens the pidfd itself: it is the parent, and until it reaps nobody else gets that pid.
The end of the channel tells the zygote to kill and reap all its workers and to leave.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import struct
import sys
from multiprocessing.context import ForkProcess
from typing import Any, NoReturn

import msgpack  # type: ignore[import-untyped]

from engine.runtime import child
from engine.runtime.child import Target
from engine.runtime.starters import Born, Ended, has_pidfd, report_failure

PACKET_MAX = 1 << 16
JOIN_MS = 5_000


def threads() -> int:
    """Threads of this process, those of C libraries included; 2 where that cannot be known."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 2


def can_fork() -> bool:
    """True if forking this process now is clean: Linux with pidfds, and this is its only thread."""
    return sys.platform == "linux" and threads() == 1 and has_pidfd()


class ZygoteStarter:
    """The main process's side. Make it before any thread or socket; `can_fork` says so."""

    def __init__(self, target: Target, title: str) -> None:
        assert can_fork(), "a zygote is forked from a process with one thread"
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pipe, self._lifeline = os.pipe()
        serve = _Zygote(self._channel, theirs, pipe, self._lifeline, target, title, os.getpid())
        self._process = ForkProcess(target=serve.run, name="engine-zygote")
        # A Ctrl-C between the fork and the child's own SIG_IGN would run our handler in there.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
            os.close(pipe)
        self._dead = False

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def start(self, node: int, address: str, arguments: tuple[Any, ...]) -> None:
        self._ask("start", node, address, arguments)

    def reap(self, node: int) -> None:
        self._ask("reap", node)

    def _ask(self, *request: Any) -> None:
        packet = msgpack.packb(request, unicode_errors="surrogateescape")
        assert len(packet) <= PACKET_MAX, "arguments are few and small: pass a path"
        try:
            self._channel.send(packet)
        except (BrokenPipeError, ConnectionResetError):
            self._dead = True

    def news(self) -> list[Born | Ended] | None:
        if self._dead:
            return None
        found: list[Born | Ended] = []
        while True:
            try:
                packet, fd = _receive(self._channel)
            except BlockingIOError:
                return found
            if not packet:
                self._dead = True
                return found or None
            what, node, number, *peak = msgpack.unpackb(packet)
            found.append(Born(node, number, fd) if what == "born" else Ended(node, number, *peak))

    def filenos(self) -> tuple[int, ...]:
        return () if self._dead else (self._channel.fileno(),)

    def close(self) -> None:
        self._channel.close()
        os.close(self._lifeline)
        # Not join(timeout): that imports 15 ms of modules.
        ended = select.poll()
        ended.register(self._process.sentinel)
        if not ended.poll(JOIN_MS):
            self._process.kill()
        self._process.join()
        self._process.close()


def _receive(channel: socket.socket) -> tuple[bytes, int]:
    """A packet and the descriptor that came with it, or -1. BlockingIOError; b"" at the end."""
    # Not socket.recv_fds: before 3.12 it ignores its flags, and the descriptor has no CLOEXEC.
    room = socket.CMSG_SPACE(struct.calcsize("i"))
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    try:
        packet, extras, _, _ = channel.recvmsg(PACKET_MAX, room, flags)
    except ConnectionResetError:
        return b"", -1
    return packet, struct.unpack("i", extras[0][2])[0] if extras else -1


class _Zygote:
    """The zygote's side; made before the fork, used after it."""

    def __init__(
        self,
        theirs: socket.socket,
        channel: socket.socket,
        pipe: int,
        lifeline: int,
        target: Target,
        title: str,
        parent: int,
    ) -> None:
        self._theirs, self._channel = theirs, channel
        self._pipe, self._lifeline = pipe, lifeline
        self._target, self._title, self._parent = target, title, parent
        self._workers: dict[int, ForkProcess] = {}

    def run(self) -> NoReturn:
        self._theirs.close()
        os.close(self._lifeline)  # whoever still held it would keep the pipe from ending
        child.settle("engine: zygote", self._parent, self._pipe)
        gc.freeze()  # or a collection in a worker would touch, and so copy, every shared page
        while packet := self._next():
            what, node, *fields = msgpack.unpackb(
                packet, use_list=False, unicode_errors="surrogateescape"
            )
            if what == "start":
                self._start(node, *fields)
            else:
                self._reap(node)
        for worker in self._workers.values():
            worker.kill()
        for worker in self._workers.values():
            worker.join()
        os._exit(0)

    def _next(self) -> bytes:
        try:
            return self._channel.recv(PACKET_MAX)
        except ConnectionResetError:
            return b""

    def _start(self, node: int, address: str, arguments: tuple[Any, ...]) -> None:
        worker = ForkProcess(
            target=self._work, args=(os.getpid(), node, address, arguments), name=f"worker-{node}"
        )
        try:
            worker.start()
        except OSError as error:
            report_failure(node, error)
            self._say("ended", node, os.EX_OSERR, 0)
            return
        self._workers[node] = worker
        assert worker.pid is not None
        pidfd = os.pidfd_open(worker.pid)
        try:
            self._say("born", node, worker.pid, fd=pidfd)
        finally:
            os.close(pidfd)

    def _work(self, parent: int, node: int, address: str, arguments: tuple[Any, ...]) -> None:
        self._channel.close()
        child.settle(self._title.format(node=node), parent, self._pipe)
        child.run(self._target, node, address, arguments)

    def _reap(self, node: int) -> None:
        worker = self._workers.pop(node)
        worker.join()
        code = worker.exitcode
        worker.close()
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        self._say("ended", node, code, peak)

    def _say(self, *answer: Any, fd: int | None = None) -> None:
        packet = msgpack.packb(answer)
        try:
            if fd is None:
                self._channel.send(packet)
            else:
                socket.send_fds(self._channel, [packet], [fd])
        except (BrokenPipeError, ConnectionResetError):
            pass  # the parent went; the next read says so
