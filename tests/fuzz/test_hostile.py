"""Bytes that have brought others down, by name, at every decoder that a stranger's bytes reach."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable

import pytest
from mutation import corpus
from test_decoders import CLIENT, _front

from engine.contract import Received
from engine.kv.commands import pack_entry
from engine.kv.machine import Machine
from engine.mapreduce.messages import Scanned
from engine.wire import codec, envelope
from engine.wire.codec import WireError
from engine.wire.endpoint import Dialer, Listener
from engine.wire.handshake import Hello, frame_of

MANY = 1 << 18
AMPLIFIED = 48
"""Times as much memory as bytes, for a moment, at most: an empty tuple of a byte costs a pointer,
and a nested one a whole object."""


def pairs(depth: int) -> bytes:
    return b"\x90" if not depth else b"\x92" + 2 * pairs(depth - 1)


PICKLE = (
    b"\x80\x04\x95\x12\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x05abort\x94\x93\x94)R\x94."
)
"""Whoever unpickles it is gone: it calls `os.abort`."""

HOSTILE = {
    "very many arrays in each other": b"\x91" * MANY,
    "very many maps in each other": b"\x81\x01" * MANY,
    "an array of 2^32 - 1": b"\xdd" + b"\xff" * 4 + b"\x01" * 100,
    "a map of 2^32 - 1": b"\xdf" + b"\xff" * 4 + b"\x01" * 100,
    "a string of 2^32 - 1": b"\xdb" + b"\xff" * 4 + b"x" * 100,
    "bytes of 2^32 - 1": b"\xc6" + b"\xff" * 4 + b"x" * 100,
    "an extension of 2^32 - 1": b"\xc9" + b"\xff" * 4 + b"\x01" + b"x" * 100,
    "much memory for few bytes": b"\x92\x01" + pairs(15),
    "very many of nothing": b"\xdd" + struct.pack(">I", MANY) + b"\x90" * MANY,
    "an extension type": b"\x92\x01\xd4\x05\x00",
    "a time of msgpack's own": b"\x92\x01\xd6\xff\x00\x00\x00\x00",
    "a key twice": b"\x82\xa1a\x01\xa1a\x02",
    "not a number": b"\x92\x01\xcb\x7f\xf8" + bytes(6),
    "infinity": b"\x92\x01\xcb\x7f\xf0" + bytes(6),
    "a pickle": PICKLE,
    "a pickle as bytes": b"\x92\x01\xc4" + bytes([len(PICKLE)]) + PICKLE,
    "text that is no UTF-8": b"\x92\x01\xa2\xff\xfe",
    "an integer below all": b"\x92\x01\xd3\x80" + bytes(7),
    "an integer above all": b"\x92\x01\xcf" + b"\xff" * 8,
    "true for one": b"\x92\xc3\xc3",
    "the byte that means nothing": b"\xc1",
    "nothing": b"",
    "more than one": b"\x01\x02",
}


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> bytes:
    return HOSTILE[request.param]


def frugally(call: Callable[[], object], size: int) -> None:
    tracemalloc.start()
    try:
        call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (1 << 20) + AMPLIFIED * size


def test_messages_are_refused(hostile: bytes) -> None:
    """As every kind that there is; most may hold none of it, and none of them all of it."""
    for kind in codec.registered():
        try:
            value = codec.decode(kind, hostile)
        except WireError:
            continue
        assert codec.decode(*codec.encode(value)) is not None
        assert len(hostile) < 100

    def decoded() -> None:
        with pytest.raises(WireError):
            codec.decode(1, hostile)

    frugally(decoded, len(hostile))


def test_the_store_is_not_impressed(hostile: bytes) -> None:
    """Neither by a frame nor by what is in it, as a write or a read."""
    machine, front = Machine(1), _front()
    good = corpus("requests")
    machine.apply(pack_entry(1, 1, [(0, good["put"])]))
    before = machine.revision, machine.size, len(machine.sessions.rows)

    def asked() -> None:
        front.take([(CLIENT, hostile)])
        assert machine.apply(pack_entry(1, 2, [(0, hostile)])) == [b""]
        assert machine.read(hostile) == b""

    frugally(asked, len(hostile))
    assert (machine.revision, machine.size, len(machine.sessions.rows)) == before
    assert machine.read(good["get"])


ENVELOPES = {
    "wrong magic": lambda f: b"ENGX" + f[4:],
    "the version before": lambda f: f[:4] + b"\0" + f[5:],
    "a version to come": lambda f: f[:4] + b"\x02" + f[5:],
    "another cluster": lambda f: f[:8] + b"\x99" * 8 + f[16:],
    "a link of its own making": lambda f: f[:16] + b"\x99" * 8 + f[24:],
    "a length that is too great": lambda f: f[:24] + b"\xff" * 4 + f[28:],
    "a length that is too small": lambda f: f[:24] + bytes(4) + f[28:],
    "something where there is nothing": lambda f: f[:6] + b"\x01" + f[7:],
    "half a header": lambda f: f[:20],
    "an unknown kind": lambda f: f[:5] + b"\xff" + f[6:],
}  # fmt: skip


@pytest.mark.parametrize("name", ENVELOPES)
def test_an_envelope_that_is_wrong(name: str) -> None:
    """Counted, and whoever else is there does not notice."""
    with Listener("ipc://*", cluster=7, roles=("server",)) as listener:
        listener._take(b"route", ENVELOPES[name](frame_of(Hello("server", 1, 0, bytes(16)), 7, 0)))
        assert listener.drain(10, 1000) == []
        counts = listener.counts
        assert counts["malformed"] + counts["refused"] == 1
        assert listener.links == []
        with Dialer(listener.address, role="server") as dialer:
            dialer._dial()
            events: list[object] = []
            while not any(isinstance(event, Received) for event in events):
                dialer._take_news()
                if dialer._receive_now() is None and dialer.link is not None:
                    dialer.send(Scanned(1))
                events += listener.drain(10, 1000)


def test_a_frame_of_the_greatest_length_and_one_more() -> None:
    assert envelope.unpack(envelope.pack(1, 0, 0, bytes(envelope.BODY_MAX))).kind == 1
    with pytest.raises(WireError):
        envelope.pack(1, 0, 0, bytes(envelope.BODY_MAX + 1))
    head = envelope.HEADER.pack(envelope.MAGIC, 1, 1, 0, 0, 0, envelope.BODY_MAX + 1)
    with pytest.raises(WireError):
        envelope.unpack(head + bytes(envelope.BODY_MAX + 1))
