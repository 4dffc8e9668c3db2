"""Those of `benchmarks/crowds.py`, each in a process of its own: a probe, leases, watchers.

They are told what to do as lines of JSON on stdin, and answer each with a line. Times are seconds
of CLOCK_MONOTONIC, which all processes of a machine share. Frames are packed here and not by the
client library, so that a crowd takes little from the servers on the same cores; the probe is the
shipped client.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic, sleep
from typing import Any

import zmq

from engine.contract import Linked, Received
from engine.kernels.frames import Poller
from engine.kv import calls
from engine.kv.commands import (
    OK,
    lease_alive,
    lease_grant,
    lease_revoke,
    pack_frame,
    prefix_end,
    put,
    request,
    unpack_answers,
)
from engine.kv.desk import Desk, Ticket
from engine.kv.requests import WRITE, Answered, Ask, AskHeld, Held, Watch, Watched
from engine.runtime.caller import Caller
from engine.wire.outgoing import Outgoing

FRAME = 50
"""Requests of one frame."""
WINDOW = 4
"""Frames under way at a time."""
BEAT = 1.0
CREDIT = 16
VALUE = bytes(64)


class Line:
    """A connection to one replica, as nobody's library has it."""

    def __init__(self, address: str, context: zmq.Context[Any], poller: Poller) -> None:
        self.end = Outgoing(address, role="client", context=context)
        self.poller = poller
        for source in self.end.pollables():
            poller.add(source)
        self.up = False

    def news(self) -> list[Any]:
        found = []
        for event in self.end.drain():
            if isinstance(event, Linked):
                self.up = event.up
            elif isinstance(event, Received):
                found.append(event.message)
        return found

    def say(self, message: Any) -> None:
        """However full the pipe is."""
        while not self.end.send(message):
            assert self.up, "the leader is gone"
            sleep(0.0005)


class Crowd:
    """What is common: connections, and the orders of `main`."""

    def __init__(self, address: str, lines: int = 1) -> None:
        self.poller, context = Poller(), zmq.Context()
        self.lines = [Line(address, context, self.poller) for _ in range(lines)]
        while not all(line.up for line in self.lines):
            self.poller.poll(10)
            for line in self.lines:
                line.news()

    def run(self, orders: SimpleQueue[Any]) -> None:
        while True:
            try:
                order = orders.get_nowait()
            except Empty:
                self.idle()
                continue
            if order is None:
                return
            tell(getattr(self, order.pop("do"))(**order))

    def idle(self) -> None:
        self.poller.poll(5)
        for line in self.lines:
            line.news()

    def ask(self, requests: Iterator[tuple[Any, ...]], pace: float) -> list[tuple[Any, ...]]:
        """All of them, so many a second (0: as fast as they are answered); answers in order."""
        line, begin, sent = self.lines[0], monotonic(), 0
        answers: dict[int, list[tuple[Any, ...]]] = {}
        number, waiting, more = 0, 0, True
        while more or waiting:
            while more and waiting < WINDOW and (not pace or sent <= (monotonic() - begin) * pace):
                part = [one for _, one in zip(range(FRAME), requests, strict=False)]
                more = bool(part)
                if part:
                    number, waiting, sent = number + 1, waiting + 1, sent + len(part)
                    asked = [request(b"", 1, one) for one in part]
                    line.say(Ask(WRITE, pack_frame(number, *asked)))
            self.poller.poll(1)
            for message in line.news():
                assert type(message) is Answered, message
                for frame in message.frames:
                    which, answers[which] = unpack_answers(frame)
                    waiting -= 1
        return [one for which in sorted(answers) for one in answers[which]]


class Leases(Crowd):
    """Many leases, each with one key."""

    ids: list[int]

    def grant(self, many: int, ttl: float, pace: float) -> dict[str, Any]:
        """Two requests for each, of which one is its key."""
        ask = lease_grant(round(ttl * 1000))
        begin = alive = monotonic()
        self.ids = []
        for first in range(0, many, 500):
            if monotonic() > alive + ttl / 3:  # those that were first do not wait for the last
                alive = monotonic()
                self.alive(0, len(self.ids), 0, pace)
            some = range(first, min(first + 500, many))
            granted = self.ask((ask for _ in some), pace)
            ids = [one[2] for one in granted]
            keys = [b"leased-%08d" % number for number in some]
            puts = (put(key, VALUE, lease) for key, lease in zip(keys, ids, strict=True))
            assert all(one[0] == OK for one in self.ask(puts, pace))
            self.ids += ids
        return {"a_second": many / (monotonic() - begin)}

    def alive(self, first: int, last: int, seconds: float, pace: float) -> dict[str, Any]:
        """These, again and again, for so long (0: once)."""
        begin = monotonic()

        def asked() -> Iterator[tuple[Any, ...]]:
            while True:
                for number in self.ids[first:last]:
                    if seconds and monotonic() - begin > seconds:
                        return
                    yield lease_alive(number)
                if not seconds:
                    return

        answers = self.ask(asked(), pace)
        ended = sum(one[0] != OK for one in answers)
        assert not ended, f"{ended} leases ended though they were kept alive"
        return {"a_second": len(answers) / (monotonic() - begin)}

    def revoke(self, first: int, last: int, pace: float) -> dict[str, Any]:
        begin = monotonic()
        answers = self.ask((lease_revoke(number) for number in self.ids[first:last]), pace)
        assert all(one[0] == OK for one in answers)
        return {"a_second": len(answers) / (monotonic() - begin)}

    def write(self, many: int, prefix: str, pace: float) -> dict[str, Any]:
        """Plain keys, each once, without a lease."""
        begin = monotonic()
        puts = (put(b"%s%08d" % (prefix.encode(), n), VALUE) for n in range(many))
        answers = self.ask(puts, pace)
        assert all(one[0] == OK for one in answers)
        return {"a_second": many / (monotonic() - begin), "began": begin}


class Watches(Crowd):
    """Many watches over some connections."""

    def __init__(self, address: str, lines: int) -> None:
        super().__init__(address, lines)
        self.told = 0
        self.last = self._beat = 0.0
        self.watches: list[tuple[int, Watch]] = []

    def watch(self, many: int, hot: int, prefixes: int, after: int, pace: float) -> dict[str, Any]:
        """The last `hot` of them are on one key, and before these are some prefixes."""
        single = many - hot - prefixes
        for number in range(many):
            start, end = b"watched-%08d" % number, None
            if number >= single + prefixes:
                start = b"hot-00000000"
            elif number >= single:
                start = b"watched-%06d" % (number - single)
                end = prefix_end(start)
            self.watches.append(
                (number % len(self.lines), Watch(number + 1, start, end, after, CREDIT))
            )
        self._say(self.watches, pace)
        return {}

    def _say(self, watches: list[tuple[int, Watch]], pace: float) -> None:
        begin = monotonic()
        for at, (line, watch) in enumerate(watches):
            while pace and at > (monotonic() - begin) * pace:
                self.look(1)
            self.lines[line].say(watch)
            if at % 1000 == 0:
                self.look(0)

    def reset(self) -> dict[str, Any]:
        self.told = 0
        return {}

    def count(self, want: int, seconds: float) -> dict[str, Any]:
        """Wait until so many were told."""
        deadline = monotonic() + seconds
        while self.told < want and monotonic() < deadline:
            self.look(5)
        return {"told": self.told, "last": self.last}

    def cancel(self, many: int, pace: float) -> dict[str, Any]:
        ended = [(line, watch._replace(credit=0)) for line, watch in self.watches[:many]]
        self._say(ended, pace)
        return {}

    def look(self, milliseconds: int) -> None:
        self.poller.poll(milliseconds)
        for line in self.lines:
            for message in line.news():
                if type(message) is Watched:
                    assert not message.compacted, message
                    self.told += len(message.events)
                    self.last = monotonic()
                else:
                    assert type(message) is Held, message
        if monotonic() > self._beat + BEAT:
            self._beat = monotonic()
            for line in self.lines:  # as the client library does for all watches of a connection
                line.say(AskHeld(1))

    def idle(self) -> None:
        self.look(5)


class Probe:
    """Writes all the time: so many at once, each as soon as the one before it is acknowledged."""

    def __init__(self, endpoints: Sequence[str], lanes: int) -> None:
        self.desk = Desk(endpoints, random.Random(os.urandom(8)))
        self.caller = Caller(timeout=10.0)
        self.lanes: list[tuple[Ticket, float]] = []
        self.acks: deque[tuple[float, float]] = deque()
        """(when, how long it took)."""
        for lane in range(lanes):
            self.lanes.append(self.ask(lane))

    def ask(self, lane: int) -> tuple[Ticket, float]:
        plan = calls.put(b"probe-%d" % lane, VALUE)
        now, patience = self.caller.now(), self.caller.patience
        return self.desk.ask(plan.how, plan.command, patience, now, once=plan.once), monotonic()

    def run(self, orders: SimpleQueue[Any]) -> None:
        lanes = self.lanes
        while True:
            self.caller.run_until(self.desk, lambda: any(one.over for one, _ in lanes), 0.05)
            now = monotonic()
            for lane, (ticket, asked) in enumerate(lanes):
                if ticket.over:
                    assert ticket.error is None, ticket.error
                    self.acks.append((now, now - asked))
                    lanes[lane] = self.ask(lane)
            if not orders.empty():
                order = orders.get()
                if order is None:
                    return
                tell(self.report(**order))

    def report(self, begin: float, end: float) -> dict[str, Any]:
        """Of what was acknowledged in this time, or was due then."""
        while self.acks and self.acks[0][0] < begin - 5:
            self.acks.popleft()
        within = [one for one in self.acks if begin <= one[0] <= end]
        took = sorted(one[1] for one in within)
        times = [begin, *(one[0] for one in within), end]
        gap = max(later - one for one, later in pairwise(times))
        if not took:
            return {"writes": 0, "gap_ms": gap * 1e3}
        return {
            "writes": len(took),
            "a_second": len(took) / (end - begin),
            "p50_ms": took[len(took) // 2] * 1e3,
            "p99_ms": took[min(len(took) - 1, len(took) * 99 // 100)] * 1e3,
            "max_ms": took[-1] * 1e3,
            "gap_ms": gap * 1e3,
        }


def tell(what: Any) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    kind, number, *addresses = sys.argv[1:]
    made: dict[str, Callable[[], Any]] = {
        "probe": lambda: Probe(addresses, int(number)),
        "leases": lambda: Leases(addresses[0]),
        "watches": lambda: Watches(addresses[0], int(number)),
    }
    one = made[kind]()
    gc.freeze()
    gc.disable()  # what it takes would be seen as the server's
    orders: SimpleQueue[Any] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))
        orders.put(None)

    Thread(target=read, daemon=True).start()
    tell({})
    one.run(orders)


if __name__ == "__main__":
    main()
