"""Who says who they are, what they may do then, and what guests may: at a gateway with users."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_inside import Inside, Users
from redis_wire import Wire, packed
from support import dose
from waiting import eventually

from engine.redis import access
from engine.redis.access import WRONG, for_guests, for_readers
from engine.redis.replies import Problem
from engine.redis.table import COMMANDS, SCRIPTS

NO_AUTH = b"-NOAUTH Authentication required.\r\n"
WRONGPASS = f"-{WRONG}\r\n".encode()
RELEASE = "c3f8721cbb97f72bc19e972846bd7aaf91901658"


@pytest.fixture
def people(tmp_path: Path) -> Users:
    return Users(tmp_path / "keys")


@pytest.fixture
def inside(people: Users) -> Iterator[Inside]:
    with Inside(users=people.list()) as made:
        yield made


def wire(inside: Inside, who: str = "") -> Wire:
    made = Wire(inside.address)
    if who:
        assert made.say("auth", who, f"the-secret-of-{who}") == b"+OK\r\n"
    return made


# --- guests --------------------------------------------------------------------------------------

AS_REDIS = """
nope a|-ERR unknown command 'nope', with args beginning with: 'a' \r
get|-ERR wrong number of arguments for 'get' command\r
get a|-NOAUTH Authentication required.\r
multi|-NOAUTH Authentication required.\r
exec|-NOAUTH Authentication required.\r
ping|-NOAUTH Authentication required.\r
acl whoami|-NOAUTH Authentication required.\r
client list|-NOAUTH Authentication required.\r
info|-NOAUTH Authentication required.\r
config get *|-NOAUTH Authentication required.\r
command|-NOAUTH Authentication required.\r
keys *|-NOAUTH Authentication required.\r
watch a|-NOAUTH Authentication required.\r
evalsha c3f8721cbb97f72bc19e972846bd7aaf91901658 1 a b|-NOAUTH Authentication required.\r
evalsha aaa 1 a b|-NOAUTH Authentication required.\r
hello 9|-NOPROTO unsupported protocol version\r
hello 3 auth x y|-WRONGPASS invalid username-password pair or user is disabled.\r
hello 3 auth alice|-ERR Syntax error in HELLO option 'auth'\r
hello 3 foo|-ERR Syntax error in HELLO option 'foo'\r
auth|-ERR wrong number of arguments for 'auth' command\r
auth x y z|-ERR syntax error\r
reset|+RESET\r
"""


def test_guests_are_told_what_redis_tells_them(inside: Inside) -> None:
    """Taken down from a redis-server 7.0.15 with a password."""
    for line in AS_REDIS.strip("\n").split("\n"):
        said, _, expected = line.partition("|")
        with wire(inside) as guest:
            assert guest.say(*said.split()) == f"{expected}\n".encode(), said
            guest.send(said.encode() + b"\r\n")  # without an array
            assert guest.reply() == f"{expected}\n".encode(), said
    with wire(inside) as guest:
        for said in ("hello", "hello 2", "hello 3", "hello 3 setname x"):
            told = guest.say(*said.split())
            assert told.startswith(b"-NOAUTH HELLO must be called with the client already")
        assert guest.say("quit") == b"+OK\r\n"
    assert inside.machine.revision == 0


def test_only_what_says_who_one_is_is_for_guests() -> None:
    refused = set()
    for name, command in COMMANDS.items():
        try:
            for_guests([name.encode(), *[b"x"] * (abs(command.arity) - 1)])
        except Problem:
            refused.add(name)
    assert COMMANDS.keys() - refused == {"auth", "hello", "reset", "quit"}


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_a_pipeline_is_a_guests_up_to_where_it_says_who_it_is(inside: Inside, size: int) -> None:
    said = [
        packed("set", "a", "guest"), b"set a inline\r\n", packed("multi"),
        packed("set", "a", "queued"), packed("exec"), packed("get", "a"),
        packed("auth", "alice", "nothing"), packed("set", "a", "wrong"),
        packed("auth", "alice", "the-secret-of-alice"), packed("get", "a"),
        packed("set", "a", "1"), packed("get", "a"), packed("reset"), packed("set", "a", "2"),
        packed("get", "a"), packed("hello", "2", "auth", "bob", "the-secret-of-bob"),
        packed("set", "a", "3"), packed("get", "a"),
    ]  # fmt: skip
    with wire(inside) as one:
        data = b"".join(said)
        for at in range(0, len(data), size):
            one.send(data[at : at + size])
        told = [one.reply() for _ in said]
    assert told[:6] == [NO_AUTH] * 6
    assert told[6:9] == [WRONGPASS, NO_AUTH, b"+OK\r\n"]
    assert told[9:13] == [b"$-1\r\n", b"+OK\r\n", b"$1\r\n1\r\n", b"+RESET\r\n"]
    assert told[13:15] == [NO_AUTH, NO_AUTH]
    assert told[15].startswith(b"*14\r\n")
    assert told[16].startswith(b"-NOPERM")
    assert told[17] == b"$1\r\n1\r\n"


def test_guests_say_little(inside: Inside) -> None:
    for said, why in (
        (packed("auth", "alice", "x" * 16385), b"unauthenticated bulk length"),
        (b"*3\r\n$4\r\nauth\r\n$5\r\nalice\r\n$16385\r\n", b"unauthenticated bulk length"),
        (packed("auth", *["x"] * 10), b"unauthenticated multibulk length"),
        (b"*11\r\n", b"unauthenticated multibulk length"),
    ):
        with wire(inside) as guest:
            guest.send(said)
            assert guest.rest() == b"-ERR Protocol error: " + why + b"\r\n"
    with wire(inside) as guest:
        assert guest.say("auth", "alice", "x" * 16384) == WRONGPASS
        assert guest.say("auth", *["x"] * 9) == b"-ERR syntax error\r\n"
    with wire(inside, "alice") as one:
        assert one.say("set", "k", "x" * 100_000) == b"+OK\r\n"
        assert one.say("mset", *["k", "v"] * 50) == b"+OK\r\n"
        one.say("reset")
        one.send(b"*11\r\n")
        assert one.rest() == b"-ERR Protocol error: unauthenticated multibulk length\r\n"


def test_guests_who_take_long_are_closed(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    with wire(inside, "alice") as alice:
        monkeypatch.setattr(access, "AUTH_SECONDS", 0.1)
        silent, slow = wire(inside), wire(inside)
        slow.send(b"*2\r\n$4\r\nauth\r\n$20\r\nthe-")
        assert silent.rest() == slow.rest() == b""
        assert alice.say("ping") == b"+PONG\r\n"
        assert alice.say("reset") == b"+RESET\r\n"  # and is a guest again
        assert alice.rest() == b""
        for one in (silent, slow):
            one.close()
    assert inside.counts()["refused_late"] == 3
    monkeypatch.setattr(access, "AUTH_SECONDS", 0.6)
    with wire(inside) as lively:  # nobody gets more time by asking for it
        eventually(lambda: _closed(lively), 10, "it to be closed")


def _closed(lively: Wire) -> bool:
    try:
        lively.send(packed("reset"))
        return not lively.socket.recv(100)
    except ConnectionError:
        return True


def test_there_are_not_many_guests(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "GUESTS_MAX", 4)
    with wire(inside, "alice") as alice:
        guests = [wire(inside) for _ in range(6)]
        for guest in guests[:2]:
            assert guest.rest() == b""
        for guest in guests[2:]:
            assert guest.say("ping") == NO_AUTH
        assert alice.say("ping") == b"+PONG\r\n"
        for guest in guests:
            guest.close()
    assert inside.counts()["refused_crowd"] == 2


# --- secrets -------------------------------------------------------------------------------------


def test_the_third_wrong_secret_closes(inside: Inside) -> None:
    with wire(inside) as guest:
        guest.send(
            packed("auth", "alice", "x") * 4 + packed("auth", "alice", "the-secret-of-alice")
        )
        assert guest.rest() == WRONGPASS * 3
    assert inside.counts()["wrong_secrets"] == 3
    assert inside.counts()["refused_secret"] == 1
    with wire(inside, "bob") as bob:  # nor does one who is in try those of others for ever
        assert bob.say("auth", "alice", "x") == WRONGPASS
        assert bob.say("acl", "whoami") == b"$3\r\nbob\r\n"
        assert bob.say("hello", "3", "auth", "alice", "x") == WRONGPASS
        assert bob.say("get", "a") == b"$-1\r\n"
        bob.send(packed("auth", "y"))
        assert bob.rest() == WRONGPASS


@pytest.mark.parametrize(
    "secret",
    ["", "the", "the-secret-of-alic", "the-secret-of-alice\0", "the-secret-of-alicex",
     "THE-SECRET-OF-ALICE", "the-secret-of-bob", " the-secret-of-alice", "alice"],
)  # fmt: skip
def test_secrets_that_are_others(inside: Inside, people: Users, secret: str) -> None:
    stored = people.lines["alice"].rpartition(":")[2]
    with wire(inside) as guest:
        assert guest.say("auth", "alice", secret) == WRONGPASS
        assert guest.say("auth", "alice", stored) == WRONGPASS
        assert guest.say("get", "a") == NO_AUTH


def test_without_a_name_it_is_the_default_users(inside: Inside, people: Users) -> None:
    with wire(inside) as guest:
        assert guest.say("auth", people.secrets["default"]) == WRONGPASS
        people.add("default", "write")
        assert guest.say("auth", people.secrets["default"]) == b"+OK\r\n"
        assert guest.say("acl", "whoami") == b"$7\r\ndefault\r\n"
        assert guest.say("auth", "bob", people.secrets["bob"]) == b"+OK\r\n"
        assert guest.say("acl", "whoami") == b"$3\r\nbob\r\n"
        assert b"user=bob" in guest.say("client", "list")
        assert b"user=bob" in guest.say("client", "info")
        told = guest.say("info") + guest.say("client", "list") + guest.say("config", "get", "*")
        assert not [one for one in people.secrets.values() if one.encode() in told]


# --- what they may do ----------------------------------------------------------------------------


def test_readers_may_read(inside: Inside) -> None:
    """Every command there is, so that a new one is thought about."""
    writes = set()
    for name, command in COMMANDS.items():
        args = [name.encode(), *[b"1"] * (max(2, abs(command.arity)) - 1)]
        try:
            for_readers(args)
        except Problem as problem:
            if str(problem).startswith("NOPERM"):
                writes.add(name)
    assert writes == {
        "set", "setnx", "setex", "psetex", "getset", "getdel", "getex", "del", "unlink", "mset",
        "msetnx", "incr", "decr", "incrby", "decrby", "append", "expire", "pexpire", "expireat",
        "pexpireat", "persist", "evalsha", "eval",
    }  # fmt: skip
    assert {one.name for one in COMMANDS.values() if "write" in one.flags} < writes


def test_readers_may_not_write(inside: Inside) -> None:
    with wire(inside, "alice") as alice, wire(inside, "bob") as bob:
        alice.say("set", "a", "1")
        revision = inside.machine.revision
        for line in (
            "set a 2", "SET a 2", "setnx b 2", "append a 2", "del a", "unlink a", "incr a",
            "mset a 2", "getset a 2", "getdel a", "getex a ex 9", "expire a 1", "persist a",
            f"evalsha {RELEASE} 1 a 1", f"EVALSHA {RELEASE} 1 a 1", "evalsha aaa 1 a 1",
            "eval x 1 a",
        ):  # fmt: skip
            name = line.split()[0].lower()
            refused = f"-NOPERM this user has no permissions to run the '{name}' command\r\n"
            assert bob.say(*line.split()) == refused.encode()
            bob.send(line.encode() + b"\r\n")
            assert bob.reply() == refused.encode()
            assert bob.say("multi") == b"+OK\r\n"
            assert bob.say("get", "a") == b"+QUEUED\r\n"
            assert bob.say(*line.split()) == refused.encode()
            assert bob.say("exec").startswith(b"-EXECABORT")
        for line, told in (
            ("get a", b"$1\r\n1\r\n"), ("exists a", b":1\r\n"), ("strlen a", b":1\r\n"),
            ("mget a b", b"*2\r\n$1\r\n1\r\n$-1\r\n"), ("ttl a", b":-1\r\n"), ("dbsize", b":1\r\n"),
            ("scan 0", b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n"), ("watch a", b"+OK\r\n"),
            ("multi", b"+OK\r\n"), ("get a", b"+QUEUED\r\n"), ("exec", b"*1\r\n$1\r\n1\r\n"),
        ):  # fmt: skip
            assert bob.say(*line.split()) == told
        assert inside.machine.revision == revision
        assert alice.say("auth", "bob", "the-secret-of-bob") == b"+OK\r\n"  # less than before
        assert alice.say("set", "a", "3").startswith(b"-NOPERM")
        assert alice.say("auth", "alice", "the-secret-of-alice") == b"+OK\r\n"
        assert alice.say("evalsha", RELEASE, "1", "a", "1") == b":1\r\n"
    assert RELEASE in SCRIPTS


def drawn(rng: random.Random) -> list[str]:
    who, key = rng.choice(("alice", "bob")), rng.choice("ab")
    return rng.choice(
        [
            ["auth", who, f"the-secret-of-{who}"], ["auth", who, "x"], ["reset"], ["multi"],
            ["exec"], ["discard"], ["set", key, "W"], ["append", key, "W"], ["del", key],
            ["get", key], ["exists", key], ["incr", "n"], ["getex", key, "ex", "99"],
            ["mset", key, "W"], ["evalsha", RELEASE, "1", key, "W"], ["watch", key],
            ["hello", "2", "auth", who, f"the-secret-of-{who}"], ["ping"], ["set", key, "W"],
        ]
    )  # fmt: skip


def roles(commands: list[list[str]], told: list[bytes]) -> list[str]:
    """As whom each was said, by what was replied to those that say it."""
    who, found = "guest", []
    for command, reply in zip(commands, told, strict=False):
        found.append(who)
        said = [word for word in command if word in ("alice", "bob")]
        if command[0] in ("auth", "hello") and not reply.startswith(b"-"):
            who = said[0]
        elif command[0] == "reset":
            who = "guest"
    return found


@pytest.mark.parametrize("seed", range(dose(30, 2000)))
def test_whatever_is_said_guests_do_nothing_and_readers_write_nothing(
    inside: Inside, seed: int
) -> None:
    rng = random.Random(seed)
    commands = [drawn(rng) for _ in range(60)]
    data = b"".join([packed(*words) for words in commands])
    with wire(inside) as one:
        for at in range(0, len(data), size := rng.choice((3, 50, 9999))):
            try:
                one.send(data[at : at + size])
            except ConnectionError:
                break
        told: list[bytes] = []
        try:
            while len(told) < len(commands):
                told.append(one.reply())
        except AssertionError:
            pass  # three secrets were wrong
    written = False
    for command, reply, who in zip(commands, told, roles(commands, told), strict=False):
        name = command[0]
        if who == "guest" and name not in ("auth", "hello", "reset"):
            assert reply == NO_AUTH, (command, reply)
        if who == "bob" and COMMANDS[name].first and "readonly" not in COMMANDS[name].flags:
            assert name == "watch" or reply.startswith(b"-NOPERM"), (command, reply)
        written = written or (who == "alice" and not reply.startswith(b"-"))
    assert written or inside.machine.revision == 0


# --- those who are removed -----------------------------------------------------------------------


def test_users_who_are_removed_are_closed(inside: Inside, people: Users) -> None:
    with wire(inside, "alice") as alice, wire(inside, "bob") as bob, wire(inside) as guest:
        alice.say("multi")
        people.remove("alice")
        assert guest.say("auth", "alice", people.secrets["alice"]) == WRONGPASS  # at once
        assert alice.rest() == b""
        assert bob.say("ping") == b"+PONG\r\n"
        people.write("nonsense\n")
        refused = b"-ERR nobody is let in now, for the list of users cannot be read\r\n"
        assert guest.say("auth", "bob", people.secrets["bob"]) == refused
        assert bob.say("ping") == b"+PONG\r\n"
        assert "No Redis client is let in any more" in inside.gateway.complaint
        people.add("carol", "read")
        assert guest.say("auth", "carol", people.secrets["carol"]) == b"+OK\r\n"
        assert inside.gateway.complaint == ""
        people.add("bob", "read")  # the same secret, salted anew: somebody else for all we know
        assert bob.rest() == b""
        people.write("")
        assert guest.rest() == b""
    assert inside.counts()["dismissed"] == 3


def test_where_there_are_no_users_nothing_has_changed() -> None:
    with Inside() as inside, Wire(inside.address) as one:
        assert one.say("set", "a", "x" * 100_000) == b"+OK\r\n"
        assert one.say("auth", "default", "whatever") == b"+OK\r\n"
        assert one.say("auth", "alice", "x") == WRONGPASS
        assert one.say("auth", "x").startswith(b"-ERR AUTH <password> called without any")
        assert one.say("acl", "whoami") == b"$7\r\ndefault\r\n"
        assert one.say("acl", "list") == b"-ERR unknown subcommand 'list'. Try ACL HELP.\r\n"
        assert b"user=default" in one.say("client", "info")
        assert "wrong_secrets" not in inside.counts()
        assert inside.gateway._look_at is None  # and nobody is looked for


def test_it_is_looked_for_nobody_where_nobody_is(people: Users) -> None:
    with Inside(users=people.list()) as inside:
        assert inside.gateway.until is None
        with socket.create_connection(inside.address):
            eventually(lambda: inside.gateway.until is not None, 10)
        eventually(lambda: inside.gateway.until is None, 10)
