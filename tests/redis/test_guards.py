"""What has to be between Redis clients and the store, by where they are served: or nothing is."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
from redis_inside import Papers, Users

from engine.errors import EngineError, NotFoundError, RefusedError, UsageError
from engine_cmd import kv_redis
from engine_cmd.flags import connection_flags


class Flags:
    """The command line of `engine kv serve`, as far as it is about this; and good files for it."""

    def __init__(self, folder: Path) -> None:
        self.papers, self.people = Papers(folder), Users(folder / "keys")
        certificate, key = self.papers.paths
        self.tls = ["--redis-tls", certificate, "--redis-tls-key", key]
        self.keys = ["--keys", self.people.folder]
        self.token = str(folder / "token")

    def parsed(self, *words: str) -> Namespace:
        parser = ArgumentParser()
        kv_redis.serve_flags(parser)
        connection_flags(parser, "")
        parser.set_defaults(dir="store", parent=0)
        return parser.parse_args(words)

    def refused(self, error: type[EngineError], why: str, *words: str) -> None:
        for verb in (kv_redis.guarded, kv_redis.gate):
            with pytest.raises(error, match=why) as found:
                verb(self.parsed(*words))
            assert type(found.value) is error


@pytest.fixture
def flags(tmp_path: Path) -> Flags:
    return Flags(tmp_path)


def test_beyond_this_machine_there_have_to_be_tls_and_users(flags: Flags) -> None:
    for address in ("0.0.0.0:0", "[::]:0", "10.1.2.3:1", "[::ffff:10.0.0.1]:1", "192.168.0.1:6379"):
        for given in ([], flags.tls, flags.keys, ["--token", flags.token]):
            flags.refused(RefusedError, "with TLS and users only", "--redis", address, *given)
        found = kv_redis.guarded(flags.parsed("--redis", address, *flags.tls, *flags.keys))
        assert found is not None
        assert found.certificate
        assert found.users
        assert kv_redis.gate(flags.parsed("--redis", address, *flags.tls, *flags.keys))
    flags.people.path.unlink()
    words = ("--redis", "0.0.0.0:0", *flags.tls, *flags.keys)
    flags.refused(RefusedError, "with TLS and users only", *words)


def test_on_this_machine_there_is_what_was_asked_for(flags: Flags) -> None:
    for words, tls, users in (
        ([], False, False),
        (["--token", flags.token], False, False),
        (flags.tls, True, False),
        (flags.keys, False, True),
        ([*flags.tls, *flags.keys], True, True),
    ):
        for address in ("0", "127.0.0.1:0", "[::1]:0", "localhost:0", "127.8.8.8:0"):
            found = kv_redis.guarded(flags.parsed("--redis", address, *words))
            assert found is not None
            assert (found.certificate is not None, found.users is not None) == (tls, users)
    flags.people.path.unlink()
    found = kv_redis.guarded(flags.parsed("--redis", "0", *flags.keys))
    assert found is not None
    assert found.users is None
    assert kv_redis.guarded(flags.parsed(*flags.keys)) is None


def test_what_is_broken_does_not_start(flags: Flags) -> None:
    certificate, key = flags.papers.paths
    both = ["--redis", "0", *flags.tls]
    for error, why, given in (
        (UsageError, "go together", ["--redis", "0", "--redis-tls", certificate]),
        (UsageError, "go together", ["--redis", "0", "--redis-tls-key", key]),
        (UsageError, "go together", ["--redis", "0", "--redis-tls-ca", certificate]),
        (UsageError, "give --redis as well", flags.tls),
        (UsageError, "give --redis as well", ["--redis-tls-ca", certificate]),
        (NotFoundError, "no certificate or key", [*both, "--redis-tls", f"{certificate}x"]),
        (NotFoundError, "no certificate or key", [*both, "--redis-tls-ca", f"{certificate}x"]),
        (RefusedError, "certificate and its key", [*both, "--redis-tls", flags.papers.ca_path]),
        (UsageError, "is no address", ["--redis", "example.org:1"]),
        (UsageError, "is no PORT", ["--redis", "70000"]),
    ):
        flags.refused(error, why, *given)
    os.chmod(key, 0o644)
    flags.refused(RefusedError, "run chmod 600", *both)
    users = ["--redis", "0", *flags.keys]
    flags.people.write("# nobody\n")
    flags.refused(RefusedError, "has no users", *users)
    flags.people.write("nonsense\n")
    flags.refused(RefusedError, "line 1 is not", *users)
    flags.people.write()
    os.chmod(flags.people.path, 0o644)
    flags.refused(RefusedError, "run chmod 600", *users)
    os.chmod(flags.people.path, 0o600)
    os.chmod(flags.people.folder, 0o755)
    flags.refused(RefusedError, "run chmod 700", *users)
