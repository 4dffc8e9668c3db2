"""Mistakes that are easily made with ZeroMQ and keys, each of which some test must notice.

The tests of `test_guard.py` are called as they are, on a guard with the mistake; one of them fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support
import test_guard as tests

from engine.errors import EngineError
from engine.wire import curve, zap
from engine.wire.curve import AllowList
from engine.wire.zap import Guard

Plant = Callable[[pytest.MonkeyPatch], None]


def _domain_is_not_enforced(patch: pytest.MonkeyPatch) -> None:
    tests._not_enforced(patch)
    patch.setattr(zap, "HANDLER", "inproc://zeromq.zap.01")


def _role_is_the_hellos(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Guard, "claim", lambda self, role: ("somebody", ""))


def _list_is_read_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AllowList, "fresh", lambda self: False)


def _nothing_is_tried_before(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Guard, "_test", lambda self, socket: None)


def _links_are_anybodys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Guard, "has", lambda self, number: True)


def _senders_are_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Guard, "forged", lambda self, value: False)


def _the_revoked_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Guard, "dismissed", lambda self: [])


def _forgives(patch: pytest.MonkeyPatch, why: str) -> None:
    refusal = Guard.refusal
    patch.setattr(Guard, "refusal", lambda self, key: "" if (r := refusal(self, key)) == why else r)


def _every_door_is_the_same(patch: pytest.MonkeyPatch) -> None:
    _forgives(patch, "elsewhere")


def _revoked_is_a_role(patch: pytest.MonkeyPatch) -> None:
    _forgives(patch, "revoked")


def _a_broken_list_is_the_old_one(patch: pytest.MonkeyPatch) -> None:
    _forgives(patch, "list")


def _servers_are_anywhere(patch: pytest.MonkeyPatch) -> None:
    servers = AllowList.servers

    def found(self: AllowList, address: str, role: str) -> Any:
        return servers(self, address, role) or self.entries()

    patch.setattr(AllowList, "servers", found)


def _any_server_will_do(patch: pytest.MonkeyPatch) -> None:
    """As if whoever dials asked the listener for its key."""

    def found(self: AllowList, address: str, role: str) -> list[curve.Allowed]:
        public = Path(self.path).parent.parent / "stranger" / "stranger.public"
        return [curve.Allowed("replica", public.read_text().split()[3], "stranger")]

    patch.setattr(AllowList, "servers", found)


PLANTED: list[tuple[Plant, str, tuple[Any, ...]]] = [
    (_domain_is_not_enforced, "test_a_guard_that_is_gone_keeps_everybody_out", ()),
    (_role_is_the_hellos, "test_a_role_is_the_keys_and_not_the_hellos", ()),
    (_list_is_read_once, "test_a_revoked_key_is_cut_off_at_once", ()),
    (_nothing_is_tried_before, "test_what_would_let_strangers_in_does_not_listen",
     (tests._not_enforced, "a stranger's key is let in")),
    (_nothing_is_tried_before, "test_what_would_let_strangers_in_does_not_listen",
     (tests._nowhere, "our own key is not let in")),
    (_links_are_anybodys, "test_a_link_is_of_the_key_that_it_was_given_to", ()),
    (_senders_are_believed, "test_a_member_speaks_in_its_own_name", ()),
    (_the_revoked_stay, "test_a_revoked_connection_says_nothing_more", ()),
    (_every_door_is_the_same, "test_strangers_are_kept_out_and_counted", ("with a client's key",)),
    (_revoked_is_a_role, "test_strangers_are_kept_out_and_counted", ("with a revoked key",)),
    (_a_broken_list_is_the_old_one, "test_a_list_that_is_broken_lets_nobody_new_in", (None,)),
    (_servers_are_anywhere, "test_a_server_is_only_where_it_may_be", ()),
    (_any_server_will_do, "test_an_impostor_does_not_even_hear_the_hello", ()),
]  # fmt: skip


NOTICED = (AssertionError, pytest.fail.Exception, EngineError)


def play(body: Callable[..., None], folder: Path, arguments: tuple[Any, ...]) -> None:
    """A test as pytest would call it, with people of its own."""
    folder.mkdir()
    people = tests.everybody(folder)
    code = body.__code__
    given = iter(arguments)
    with (
        contextlib.contextmanager(tests.served)(people) as serve,
        pytest.MonkeyPatch.context() as p,
    ):
        known = {"people": people, "serve": serve, "monkeypatch": p}
        names = code.co_varnames[: code.co_argcount]
        body(**{name: known[name] if name in known else next(given) for name in names})


@pytest.mark.parametrize(
    ("plant", "test", "arguments"), PLANTED, ids=[plant.__name__[1:] for plant, _, _ in PLANTED]
)
def test_it_is_noticed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Plant,
    test: str,
    arguments: tuple[Any, ...],
) -> None:
    """And nothing is while nothing is planted."""
    body = getattr(tests, test)
    play(body, tmp_path / "well", arguments)
    plant(monkeypatch)
    if plant is not _domain_is_not_enforced:  # somebody gets in, which may take its time
        monkeypatch.setattr(support, "TIME_FACTOR", 0.2)  # what does not happen is not waited for
    with pytest.raises(NOTICED):
        play(body, tmp_path / "planted", arguments)
