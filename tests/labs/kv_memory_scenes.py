"""The memory tests of the KV labs (kvsrv of 2024, kvsrv1 of 2025): what a server's process keeps.

What is measured is the process, not its allocator: bytes of resident memory, before and after. Two
things differ from the labs' server, which has neither: ours keeps the end of its log in memory,
so this is filled before the first look, and a history for watchers, which is turned off. A hundred
thousand clients are as many sessions over one connection; the server cannot tell the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from kv_scenes import Make, without_history
from support import patience

from engine.contract import SECOND, Received, Send, peer
from engine.errors import RefusedError
from engine.kv import commands
from engine.kv.requests import READ, WRITE, Answered, Ask, AskTime, Time
from engine.raft.requests import Rejected
from engine.runtime.world import SocketWorld

MEGABYTE = 1 << 20
LARGE = 10 * MEGABYTE
HALF = LARGE // 2
EXACT = {
    "program": str(Path(__file__).with_name("kv_planted.py")),
    "flags": ("--gives-back",),
}
CACHE_BYTES = 16 * MEGABYTE
"""Of the log's end, in memory."""
FRAME = 256
WINDOW = 4
"""Frames under way."""
ANSWER_SECONDS = 20.0
SETTLE_SECONDS = 10.0
SETTLED = 20
"""Looks in a row that find the same."""


class Flood:
    """Frames of requests to one server, past the proxy, as fast as it answers. A context manager.

    AssertionError if anything is answered but `OK`."""

    def __init__(self, address: str) -> None:
        self._link = peer(address)
        self._world = SocketWorld()
        self._number = 0
        self.birth = 0
        self.window, self.frame = WINDOW, FRAME

    def __enter__(self) -> Flood:
        self._world.keep([self._link.principal])
        self._until(lambda: self.birth, lambda: self._say(AskTime(0)))
        return self

    def __exit__(self, *error: object) -> None:
        self._world.close()

    def session(self, number: int) -> bytes:
        """Of the client with this number."""
        return commands.new_session(self.birth, number.to_bytes(8, "big"))

    def run(self, how: int, asked: Iterable[tuple[Any, ...]]) -> int:
        """Ask all these, in frames; how many there were. What is refused is asked again, so frames
        may be done in another order."""
        frames, going, total = _frames(asked, self.frame), {}, 0
        more = True
        deadline = monotonic() + patience(ANSWER_SECONDS)
        while more or going:
            while more and len(going) < self.window:
                part = next(frames, None)
                if part is None:
                    more = False
                    break
                self._number += 1
                going[self._number] = part
                self._say(Ask(how, commands.pack_frame(self._number, *part)))
            for number, many, good in self._heard():
                if number in going and good:
                    assert many == len(going.pop(number))
                    total += many
                    deadline = monotonic() + patience(ANSWER_SECONDS)
                elif number in going:
                    self._say(Ask(how, commands.pack_frame(number, *going[number])))
            assert monotonic() < deadline, "no answer"
        return total

    def _heard(self) -> Iterator[tuple[int, int, bool]]:
        """(frame, how many answers, whether it was done)."""
        self._world.wait(self._world.now() + SECOND // 50)
        for event in self._world.drain(4096, 1 << 26):
            message = event.message if type(event) is Received else None
            if type(message) is Time:
                self.birth = max(1, message.time)
            elif type(message) is Rejected:
                assert not message.unknown, message.why
                yield from ((number, 0, False) for number in message.numbers)
            for frame in message.frames if type(message) is Answered else ():
                number, answers = commands.unpack_answers(frame)
                codes = {answer[0] for answer in answers}
                assert codes == {commands.OK}, answers[:3]
                yield number, len(answers), True

    def _until(self, there: Callable[[], Any], again: Callable[[], None]) -> None:
        deadline = monotonic() + patience(ANSWER_SECONDS)
        while not there():
            assert monotonic() < deadline, "no answer"
            again()
            for _ in self._heard():
                raise AssertionError("an answer to nothing")

    def _say(self, message: Any) -> None:
        self._world.send([Send(self._link, message)])


def _frames(asked: Iterable[tuple[Any, ...]], most: int) -> Iterator[list[tuple[Any, ...]]]:
    part: list[tuple[Any, ...]] = []
    for one in asked:
        part.append(one)
        if len(part) == most:
            yield part
            part = []
    if part:
        yield part


def flood_of(lab: Any) -> Flood:
    """To the only server there is, which leads, has taken large values to be right, and has a full
    cache."""
    lab.leader()
    without_history(lab)
    lab.configure(value_bytes=11 * MEGABYTE, request_bytes=12 * MEGABYTE)
    flood = Flood(lab.endpoints()[0]).__enter__()
    return flood


def fill(flood: Flood) -> None:
    """The log's end, as far as it is kept in memory, and whatever is allocated only once."""
    text = b"." * MEGABYTE
    for _ in range(2 * CACHE_BYTES // MEGABYTE):
        flood.run(WRITE, [(b"", 1, *commands.put(b"fill", text))])


def grown(lab: Any, before: int, most: int, what: str) -> None:
    """Once it stays as it is: what a slow server was asked again is on its way for a moment."""
    seen: list[int] = []

    def settled() -> bool:
        seen.append(lab.rss(0) - before)
        last = seen[-SETTLED:]
        still = len(last) == SETTLED and max(last) - min(last) <= most // 100
        return still and seen[-1] <= most

    lab.until(settled, SETTLE_SECONDS)
    assert seen[-1] <= most, f"{seen[-1]:,} bytes more for {what}; the limit is {most:,}"
    lab.scores.append(f"{what}: {seen[-1]:,} bytes more, of {most:,}")


def mem_get(make: Make) -> None:
    """Who reads a large value leaves nothing behind."""
    lab = make(1, unreliable=True, **EXACT)
    with flood_of(lab) as flood:
        fill(flood)
        before = lab.rss(0)
        first, second = lab.clerk(), lab.clerk()
        first.store.put("k", b"x" * LARGE)
        for clerk in (first, second):
            found = clerk.store.get("k")
            assert found is not None
            assert len(found.value) == LARGE
        second.store.put("k", b"0")
        grown(lab, before, LARGE, "two reads of 10 MiB")


def many_large_answers(make: Make, reads: int = 40) -> None:
    """Beyond the lab: a client asks for a megabyte in each of many frames, all at once. What is one
    turn's is more than a message can carry. And no value grows longer than can be told."""
    lab = make(1)
    with flood_of(lab) as flood:
        flood.run(WRITE, [(b"", 1, *commands.put(b"k", b"x" * MEGABYTE))])
        flood.window, flood.frame = reads, 1
        assert flood.run(READ, [commands.get(b"k")] * reads) == reads
        store = lab.clerk().store
        store.append("long", b"x" * LARGE)
        with pytest.raises(RefusedError, match="a value may not be so long"):
            store.append("long", b"x" * LARGE)
        found = store.get("long")
        assert found is not None
        assert len(found.value) == LARGE


def mem_put(make: Make) -> None:
    """A large value that was replaced has gone."""
    lab = make(1, **EXACT)
    with flood_of(lab) as flood:
        fill(flood)
        before = lab.rss(0)
        lab.clerk().store.put("k", b"x" * LARGE)
        lab.clerk().store.put("k", b"")
        grown(lab, before, LARGE, "a value of 10 MiB that was replaced")


def mem_append(make: Make) -> None:
    """Two large appends take little more than what they make. The lab's are of 10 MiB; what they
    make could not be read here, and would be refused."""
    lab = make(1, **EXACT)
    with flood_of(lab) as flood:
        fill(flood)
        before = lab.rss(0)
        for _ in range(2):
            lab.clerk().store.append("k", b"x" * HALF)
        grown(lab, before, 3 * HALF, "two appends of 5 MiB")


def mem_put_many(make: Make, clients: int = 100_000) -> None:
    """A client that has put once is remembered in 200 bytes."""
    lab = make(1, **EXACT)
    with flood_of(lab) as flood:
        fill(flood)
        flood.window = 1  # entries of one size: the log's end is as long before as after
        text = b"." * 1000
        flood.run(WRITE, ((b"", 1, *commands.put(b"k", text)) for _ in range(clients)))
        before = lab.rss(0)
        puts = ((flood.session(n), 1, *commands.put(b"k", text)) for n in range(clients))
        assert flood.run(WRITE, puts) == clients
        with lab.clerk().store as store:
            assert store.info().sessions >= clients
        grown(lab, before, 200 * clients, f"{clients:,} clients that put")


def mem_get_many(make: Make, clients: int = 100_000) -> None:
    """A client that only reads is not remembered: ten bytes."""
    lab = make(1, **EXACT)
    with flood_of(lab) as flood:
        lab.clerk().store.put("k", b"." * 10)
        fill(flood)
        gets = [commands.get(b"k")] * clients
        flood.run(READ, gets)
        before = lab.rss(0)
        assert flood.run(READ, gets) == clients
        grown(lab, before, 10 * clients, f"{clients:,} clients that get")


def mem_appends(make: Make, appends: int = 1000, size: int = 1000) -> None:
    """A value that grew to a megabyte takes less than three."""
    lab = make(1, **EXACT)
    with flood_of(lab) as flood:
        fill(flood)
        before = lab.rss(0)
        text, session = b"." * size, flood.session(1)
        requests = ((session, n, *commands.append(b"k", text)) for n in range(1, appends + 1))
        assert flood.run(WRITE, requests) == appends
        grown(lab, before, 3_000_000, f"{appends} appends")


def mem_versions_many(make: Make, clients: int = 100_000) -> None:
    """A versioned put needs no session: ten bytes for each client (the limit of 2026; that of 2025
    is 200)."""
    lab = make(1, **EXACT)
    with flood_of(lab) as flood:
        fill(flood)
        flood.window = 1  # each version needs the one before
        text = b"." * 1000
        warm = CACHE_BYTES // len(text) + 2000  # the cache has these frames alone

        def puts(first: int, last: int) -> Iterator[tuple[Any, ...]]:
            return ((b"", 1, *commands.put_version(b"k", text, n)) for n in range(first, last))

        flood.run(WRITE, puts(0, warm))
        before = lab.rss(0)
        assert flood.run(WRITE, puts(warm, warm + clients)) == clients
        grown(lab, before, 10 * clients, f"{clients:,} clients that put versions")
