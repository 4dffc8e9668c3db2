"""TLS in front of the gateway: handshakes of all kinds, certificates, and what is no TLS."""

from __future__ import annotations

import os
import random
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis_inside import LOCALHOST, Inside, Papers, TlsWire, Users
from redis_wire import Wire, packed
from support import dose, patience
from waiting import eventually

from engine.errors import NotFoundError, RefusedError
from engine.kv.commands import configure, pack_entry, pack_frame, request
from engine.kv.limits import Limits
from engine.redis import tls
from engine.redis.tls import RECORD, Certificate, TlsDoor


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def inside(papers: Papers) -> Iterator[Inside]:
    door = partial(TlsDoor, certificate=Certificate(*papers.paths))
    with Inside(door=door) as made:
        yield made


def answers(inside: Inside, papers: Papers) -> None:
    """It serves, whatever was before."""
    with TlsWire(inside.address, papers.context()) as wire:
        assert wire.say("ping") == b"+PONG\r\n"


class ByHand:
    """A client whose records go over the wire as one likes."""

    def __init__(self, inside: Inside, context: ssl.SSLContext) -> None:
        self.out, self.into = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.into, self.out, server_hostname=LOCALHOST)
        self.wire = Wire(inside.address)

    def shake(self, size: int = 1 << 16) -> None:
        """Hands, in pieces of so many bytes."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush(size)
                self.into.write(self.wire.socket.recv(1 << 16))
            else:
                self.flush(size)
                return

    def flush(self, size: int = 1 << 16) -> None:
        data = self.out.read()
        for at in range(0, len(data), size):
            self.wire.send(data[at : at + size])

    def record(self, data: bytes) -> bytes:
        """These bytes as they go over the wire."""
        self.tls.write(data)
        return self.out.read()

    def hear(self) -> bytes:
        while True:
            try:
                return self.tls.read(1 << 16)
            except ssl.SSLZeroReturnError:
                return b""  # which was said, and not only done
            except ssl.SSLWantReadError:
                data = self.wire.socket.recv(1 << 16)
                if not data:
                    return b""
                self.into.write(data)

    def __enter__(self) -> ByHand:
        return self

    def __exit__(self, *error: object) -> None:
        self.wire.close()


def twelve(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


# --- those who speak it --------------------------------------------------------------------------


@pytest.mark.parametrize("change", [None, twelve], ids=["1.3", "1.2"])
def test_pipelines_and_long_values(inside: Inside, papers: Papers, change: Any) -> None:
    longer = Limits(value_bytes=6 << 20, request_bytes=8 << 20)
    (told_of,) = inside.machine.apply(
        pack_entry(1, 0, [(0, pack_frame(1, request(b"", 1, configure(longer))))])
    )
    assert inside.machine.limits == longer, told_of
    value = random.Random(1).randbytes(5 << 20)
    with TlsWire(inside.address, papers.context(change)) as wire:
        many = [packed("set", f"k{n}", f"v{n}") + packed("get", f"k{n}") for n in range(60)]
        wire.send(b"".join(many))
        told = [wire.reply() for _ in range(120)]
        assert told[::2] == [b"+OK\r\n"] * 60
        assert told[119] == b"$3\r\nv59\r\n"
        assert wire.say("echo", value) == b"$%d\r\n%b\r\n" % (len(value), value)
        assert wire.say("set", "long", value) == b"+OK\r\n"
        wire.send(packed("get", "long") * 3)  # and is slow to read what comes
        eventually(lambda: any(c.stuffed for c in list(inside.door.clients.values())), 10)
        for _ in range(3):
            assert wire.reply() == b"$%d\r\n%b\r\n" % (len(value), value)
        assert wire.say("quit") == b"+OK\r\n"
        assert wire.rest() == b""  # and was told that nothing is missing, or it would raise
    assert inside.value(b"long") == value
    assert inside.counts()["handshakes"] == 1


@pytest.mark.parametrize("change", [None, twelve], ids=["1.3", "1.2"])
def test_a_byte_at_a_time(inside: Inside, papers: Papers, change: Any) -> None:
    with ByHand(inside, papers.context(change)) as slow:
        slow.shake(1)
        data = slow.record(packed("set", "a", "1") + packed("get", "a"))
        for at in range(len(data)):
            slow.wire.send(data[at : at + 1])
        told = b""
        while len(told) < 12:
            told += slow.hear()
        assert told == b"+OK\r\n$1\r\n1\r\n"


@pytest.mark.parametrize("size", [50_000, 51_000, 65_000, 65_536, 66_000, 98_304, 99_000])
def test_nothing_waits_where_epoll_does_not_see_it(
    inside: Inside, papers: Papers, size: int
) -> None:
    """Commands that end where what is read at once does, or just behind."""
    with ByHand(inside, papers.context()) as one:
        one.shake()
        said = packed("echo", "x" * (size - len(packed("echo", "x" * size)) + size))
        assert len(said) == size
        one.wire.send(one.record(said))
        told = b""
        while len(told) < size - 14:
            told += one.hear()
        assert told == said[14:]


def test_many_records_in_one_piece_and_an_end(inside: Inside, papers: Papers) -> None:
    """All in one segment: nothing is to wait in a buffer that nobody looks into."""
    with ByHand(inside, papers.context()) as one:
        one.shake()
        said = packed("append", "a", "x" * (RECORD - 33))
        assert len(said) == RECORD
        data = b"".join([one.record(said) for _ in range(31)])  # of which four are read at once
        with pytest.raises(ssl.SSLWantReadError):
            one.tls.unwrap()
        one.wire.send(data + one.out.read())  # it has said that it ends, and listens on
        told = b""
        while heard := one.hear():
            told += heard
        assert told.endswith(b":%d\r\n" % (31 * (RECORD - 33)))
        assert told.count(b"\r\n") == 31
    eventually(lambda: not inside.door.clients, 10)


# --- those who do not ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [packed("set", "a", "1"), b"GET / HTTP/1.1\r\n\r\n", b"ping\r\n", b"\x80\x2e\x01", b"\0"],
)
def test_plain_text_is_closed(inside: Inside, papers: Papers, said: bytes) -> None:
    with Wire(inside.address) as plain:
        plain.send(said)
        assert plain.rest() == b""
    assert inside.counts()["refused_plaintext"] == 1
    assert inside.counts()["commands"] == inside.machine.revision == 0
    answers(inside, papers)


@pytest.mark.parametrize(
    "said",
    [b"\x16" + b"x" * 99, b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff" + b"\0" * 99],
)
def test_handshakes_that_are_none(inside: Inside, papers: Papers, said: bytes) -> None:
    with Wire(inside.address) as stranger:
        stranger.send(said)
        try:
            stranger.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has closed us
        stranger.rest()
    eventually(lambda: inside.counts().get("refused_tls") == 1, 10)
    answers(inside, papers)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_versions_that_are_too_old(inside: Inside, papers: Papers) -> None:
    context = papers.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        TlsWire(inside.address, context)
    answers(inside, papers)


def test_handshakes_that_take_long(
    inside: Inside, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tls.SECONDS
    monkeypatch.setattr(tls, "SECONDS", 0.2)
    with Wire(inside.address) as silent, ByHand(inside, papers.context()) as slow:
        with pytest.raises(ssl.SSLWantReadError):
            slow.tls.do_handshake()
        slow.wire.send(slow.out.read()[:20])
        assert silent.rest() == slow.wire.rest() == b""
    assert inside.counts()["refused_late"] == 2
    assert inside.gateway.until is None
    monkeypatch.setattr(tls, "SECONDS", usual)
    answers(inside, papers)


def test_there_are_not_many_handshakes(
    inside: Inside, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKES_MAX", 3)
    with TlsWire(inside.address, papers.context()) as there:
        strangers = [Wire(inside.address) for _ in range(6)]
        for stranger in strangers[:3]:
            assert stranger.rest() == b""
        answers(inside, papers)
        assert there.say("ping") == b"+PONG\r\n"
        for stranger in strangers:
            stranger.close()
    eventually(lambda: inside.counts()["refused_crowd"] == 4, 10)


def test_many_hands_are_shaken_in_several_turns(
    inside: Inside, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "STEPS", 1)
    context = papers.context()
    plain = [socket.create_connection(inside.address) for _ in range(10)]
    wires = [context.wrap_socket(one, server_hostname=LOCALHOST) for one in plain]
    for wire in wires:
        wire.settimeout(patience(10))
        wire.sendall(packed("incr", "n"))
    assert sorted(wire.recv(99) for wire in wires)[-1] == b":9\r\n"
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("change", [None, twelve], ids=["1.3", "1.2"])
@pytest.mark.parametrize("what", ["cut", "flipped", "hello", "plain", "alert", "long"])
def test_records_that_are_damaged(inside: Inside, papers: Papers, what: str, change: Any) -> None:
    """What is in them is not done, and they do not do anything to others."""
    with (
        TlsWire(inside.address, papers.context()) as there,
        ByHand(inside, papers.context(change)) as one,
    ):
        one.shake()
        good = one.record(packed("set", "good", "1"))
        bad = one.record(packed("set", "bad", "1"))
        with ByHand(inside, papers.context(change)) as other:
            with pytest.raises(ssl.SSLWantReadError):
                other.tls.do_handshake()
            hello = other.out.read()
        damaged = {
            "cut": bad[:-1],
            "flipped": bad[:-1] + bytes([bad[-1] ^ 1]),
            "hello": hello,  # as one that wants to shake hands anew
            "plain": packed("set", "bad", "1"),
            "alert": b"\x15\x03\x03\x00\x02\x02\x28",
            "long": b"\x17\x03\x03\xff\xff" + bytes(65535),
        }[what]
        one.wire.send(good + damaged)
        if what == "cut":
            one.wire.socket.shutdown(socket.SHUT_WR)
        try:
            assert one.hear() == b"+OK\r\n"
        except (ssl.SSLError, ConnectionError):
            pass  # it was closed before we could hear
        eventually(lambda: len(inside.door.clients) == 1, 10)
        assert there.say("ping") == b"+PONG\r\n"
    assert inside.value(b"bad") is None


@pytest.mark.parametrize("seed", range(dose(4, 200)))
def test_whatever_arrives_it_serves_on(inside: Inside, papers: Papers, seed: int) -> None:
    rng = random.Random(seed)
    with ByHand(inside, papers.context()) as some:
        with pytest.raises(ssl.SSLWantReadError):
            some.tls.do_handshake()
        hello = some.out.read()
    for _ in range(12):
        data = bytearray(hello if rng.random() < 0.7 else b"\x16" + rng.randbytes(200))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        with Wire(inside.address) as stranger:
            try:
                for at in range(0, len(data), size := rng.choice((50, 999))):
                    stranger.send(bytes(data[at : at + size]))
                stranger.socket.shutdown(socket.SHUT_WR)
                stranger.rest()
            except OSError:
                continue  # it has closed us
    answers(inside, papers)
    assert inside.machine.revision == 0


# --- certificates --------------------------------------------------------------------------------


def serial(inside: Inside, papers: Papers) -> str:
    with TlsWire(inside.address, papers.context()) as wire:
        made: Any = wire.socket
        return str(made.getpeercert()["serialNumber"])


def test_new_certificates_are_taken_and_bad_ones_are_not(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    with Inside(door=partial(TlsDoor, certificate=Certificate(*papers.paths))) as inside:
        first = serial(inside, papers)
        with TlsWire(inside.address, papers.context()) as there:
            papers.issue()
            eventually(lambda: serial(inside, papers) != first, 10)
            second = serial(inside, papers)
            with open(papers.paths[0], "w") as file:
                file.write("nonsense")
            eventually(lambda: "are not a certificate" in inside.gateway.complaint, 10)
            assert serial(inside, papers) == second
            os.unlink(papers.paths[1])
            eventually(lambda: "There is no certificate or key" in inside.gateway.complaint, 10)
            assert serial(inside, papers) == second
            papers.issue()
            eventually(lambda: inside.gateway.complaint == "", 10)
            assert serial(inside, papers) not in (first, second)
            assert there.say("ping") == b"+PONG\r\n"


def gets_in(inside: Inside, context: ssl.SSLContext) -> bool:
    try:
        with TlsWire(inside.address, context) as wire:
            wire.send(packed("ping"))
            return bool(wire.socket.recv(99))  # with 1.3 it is only told here that it is not
    except (ssl.SSLError, ConnectionError):
        return False


def test_clients_may_need_certificates_too(tmp_path: Path, papers: Papers) -> None:
    others = Papers(tmp_path)
    certificate = Certificate(*papers.paths, papers.ca_path)
    people = Users(tmp_path / "keys")
    door = partial(TlsDoor, certificate=certificate)
    with Inside(door=door, users=people.list()) as inside:
        for own in (None, others.issue("theirs")):
            context = papers.context()
            if own is not None:
                context.load_cert_chain(*own)
            assert not gets_in(inside, context)
        assert inside.counts()["connections"] == 0
        context = papers.context()
        context.load_cert_chain(*papers.issue("ours"))
        with TlsWire(inside.address, context) as wire:
            assert wire.say("ping").startswith(b"-NOAUTH")  # and is nobody yet
            assert wire.say("auth", "bob", people.secrets["bob"]) == b"+OK\r\n"
            people.remove("bob")
            assert wire.rest() == b""


def test_files_with_which_nothing_begins(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    certificate, key = papers.paths
    other, other_key = papers.issue("other")
    with pytest.raises(NotFoundError, match="There is no certificate or key"):
        Certificate(certificate, str(tmp_path / "none"))
    with pytest.raises(NotFoundError, match="There is no certificate or key"):
        Certificate(str(tmp_path / "none"), key)
    for pair in ((certificate, other_key), (key, certificate), (papers.ca_path, key)):
        os.chmod(pair[1], 0o600)
        with pytest.raises(RefusedError, match="are not a certificate and its key in PEM"):
            Certificate(*pair)
    with pytest.raises(RefusedError, match="has no certificates in PEM"):
        Certificate(certificate, key, other_key)
    for mode in (0o640, 0o604, 0o660):
        os.chmod(key, mode)
        with pytest.raises(RefusedError, match=f"run chmod 600 {key}"):
            Certificate(certificate, key)
    os.chmod(key, 0o600)
    link = tmp_path / "link"
    link.symlink_to(key)  # as those who renew certificates lay them out
    Certificate(certificate, str(link))
    from cryptography.hazmat.primitives import serialization as how

    loaded = how.load_pem_private_key(Path(other_key).read_bytes(), None)
    locked = loaded.private_bytes(
        how.Encoding.PEM, how.PrivateFormat.PKCS8, how.BestAvailableEncryption(b"x")
    )
    Path(other_key).write_bytes(locked)
    with pytest.raises(RefusedError, match="it asks for a passphrase"):
        Certificate(other, other_key)
