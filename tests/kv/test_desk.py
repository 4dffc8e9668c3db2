"""A client's desk, driven by hand: what it says, to whom, how often, and how each request ends."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest

from engine.contract import SECOND, Event, Linked, Nanos, Received, peer
from engine.errors import ConnectionFailed, EngineError, OutcomeUnknown, RefusedError
from engine.kv import commands as c
from engine.kv import desk as desk_module
from engine.kv.desk import FORGET, LOOK_AGAIN, REPEAT, SHUN, Desk, Ticket
from engine.kv.requests import LOCAL, READ, WRITE, Answered, Ask, AskTime, Time, Watch
from engine.kv.tellers import SILENCE
from engine.raft.requests import Rejected

SERVERS = ("ipc:///a", "ipc:///b", "ipc:///c")
MEMBERS = {address: 11 + at for at, address in enumerate(SERVERS)}
MS = SECOND // 1000
TIME = 7_000
OK = (c.OK, 1, 1)


class Talk:
    """A desk among three replicas, whose answers the test makes up."""

    def __init__(self, *, linked: bool = True, time: bool = True) -> None:
        self.desk = Desk(SERVERS, random.Random(1))
        self.now: Nanos = SECOND
        self.said: list[tuple[str, Any]] = []
        """By the last turn: (address, message)."""
        if linked:
            self.turn(*[Linked(peer(address), True) for address in SERVERS])
        if time:
            self.hears("ipc:///a", Time(11, 0, TIME))

    def turn(self, *events: Event, later: Nanos = 0) -> list[tuple[str, Any]]:
        self.now += later
        self.desk.step(self.now, events)
        self.desk.check()
        self.said = [(send.link.principal, send.message) for send in self.desk.ready().now]
        return self.said

    def hears(self, address: str, message: Any) -> list[tuple[str, Any]]:
        return self.turn(Received(peer(address), message))

    def ask(self, *commands: c.Command, how: int = WRITE, patience: Nanos = SECOND) -> list[Ticket]:
        return [
            self.desk.ask(how, command, patience, self.now, once=how == WRITE)
            for command in commands
        ]

    def frames(self) -> list[tuple[str, int, tuple[Any, ...]]]:
        """What was said by the last turn in frames: (address, how, the frame as it is read)."""
        return [
            (address, message.how, msgpack.unpackb(message.frame, use_list=False))
            for address, message in self.said
            if type(message) is Ask
        ]

    def frame(self) -> tuple[str, int, tuple[Any, ...]]:
        (one,) = self.frames()
        return one

    def answers(self, address: str, number: int, *answers: Any) -> None:
        body = msgpack.packb((number, *answers))
        self.hears(address, Answered(MEMBERS[address], (body,)))

    def rejects(self, address: str, number: int, leader: int = 0, *, unknown: bool = False) -> None:
        self.hears(address, Rejected(MEMBERS[address], (number,), "not I", leader, unknown))

    def knows(self) -> None:
        """Who is who, which it learns from whoever says anything."""
        for address, member in MEMBERS.items():
            self.hears(address, Answered(member, ()))


def put(key: bytes = b"k") -> c.Command:
    return c.put(key, b"v")


def ended(ticket: Ticket, error: type[EngineError]) -> str:
    assert ticket.over
    assert type(ticket.error) is error, ticket.error
    return str(ticket.error)


# --- frames --------------------------------------------------------------------------------------


def test_what_is_asked_in_one_turn_shares_a_frame() -> None:
    talk = Talk()
    tickets = talk.ask(put(b"a"), put(b"b"))
    reads = talk.ask(c.get(b"a"), c.get(b"b"), how=READ)
    local = talk.ask(c.get(b"c"), how=LOCAL)
    talk.turn()
    writes, asks, here = talk.frames()
    assert [one[1] for one in (writes, asks, here)] == [WRITE, READ, LOCAL]
    assert {one[0] for one in talk.frames()} == {SERVERS[0]}
    assert [request[2:] for request in writes[2][1:]] == [put(b"a"), put(b"b")]
    assert asks[2][1:] == (c.get(b"a"), c.get(b"b"))
    talk.answers(SERVERS[0], writes[2][0], (c.OK, 1, 1), (c.OK, 2, 1))
    talk.answers(SERVERS[0], here[2][0], (c.NOT_FOUND, 2))
    assert [ticket.answer for ticket in tickets] == [(c.OK, 1, 1), (c.OK, 2, 1)]
    assert local[0].answer == (c.NOT_FOUND, 2)
    assert not any(ticket.over for ticket in reads)


def test_a_frame_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of requests, and of bytes: one that is longer has a frame of its own."""
    monkeypatch.setattr(desk_module, "FRAME_REQUESTS", 3)
    monkeypatch.setattr(desk_module, "FRAME_BYTES", 1000)
    talk = Talk()
    talk.ask(*[put(b"%d" % number) for number in range(7)])
    talk.turn()
    assert [len(frame) - 1 for _, _, frame in talk.frames()] == [3, 3, 1]
    numbers = [frame[0] for _, _, frame in talk.frames()]
    assert len(set(numbers)) == 3
    talk.ask(put(b"a"), c.put(b"b", bytes(2000)), put(b"c"))
    talk.turn()
    assert [len(frame) - 1 for _, _, frame in talk.frames()] == [1, 1, 1]


def test_what_may_be_long_shares_no_frame() -> None:
    """Or others would take from what its answer may have."""
    talk = Talk()
    talk.ask(c.get(b"a"), c.key_range(b"a", b""), c.key_range(b"b", b""), c.get(b"b"), how=READ)
    talk.turn()
    assert [len(frame) - 1 for _, _, frame in talk.frames()] == [1, 1, 1, 1]


def test_what_had_no_room_beside_others_is_asked_for_alone() -> None:
    talk = Talk()
    first, second, third = talk.ask(c.get(b"a"), c.get(b"b"), c.get(b"c"), how=READ)
    talk.turn()
    (frame,) = talk.frames()
    found, cut = (c.OK, 1, b"v", 1, 1, 1, 0), (c.TOO_LARGE, "answer")
    talk.answers(SERVERS[0], frame[2][0], found, cut, cut)
    assert first.answer == found
    one, other = talk.frames()
    assert [one[2][1:], other[2][1:]] == [(c.get(b"b"),), (c.get(b"c"),)]
    talk.answers(SERVERS[0], one[2][0], found)
    talk.answers(SERVERS[0], other[2][0], cut)
    assert second.answer == found
    assert third.answer == cut


def test_what_no_message_can_carry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "REQUEST_BYTES_MAX", 1000)
    talk = Talk()
    long, other = talk.ask(c.put(b"k", bytes(1000)), put())
    talk.turn()
    assert "may not be so long" in ended(long, RefusedError)
    assert len(talk.frame()[2]) == 2
    assert not other.over
    (alone,) = talk.ask(c.put(b"k", bytes(1000)))
    assert not talk.turn()
    assert alone.over


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x01", b"\x90", msgpack.packb((None, OK))])
def test_answers_that_are_none(body: bytes) -> None:
    talk = Talk()
    (ticket,) = talk.ask(put())
    talk.turn()
    talk.hears(SERVERS[0], Answered(11, (body,)))
    assert not ticket.over


def test_a_frame_with_too_few_answers_is_none() -> None:
    talk = Talk()
    tickets = talk.ask(put(b"a"), put(b"b"))
    talk.turn()
    talk.answers(SERVERS[0], talk.frame()[2][0], OK)
    assert not any(ticket.over for ticket in tickets)


# --- sessions ------------------------------------------------------------------------------------


def test_a_session_begins_with_replicated_time() -> None:
    talk = Talk(time=False)
    talk.ask(put())
    assert talk.turn() == [(SERVERS[0], AskTime(0))]
    assert talk.turn(later=MS) == []
    assert talk.turn(later=REPEAT) == [(SERVERS[0], AskTime(0))]
    talk.hears(SERVERS[0], Time(11, 0, TIME))
    session = talk.frame()[2][1][0]
    assert (session[:8], len(session)) == (TIME.to_bytes(8, "big"), 16)


def test_reads_need_no_session() -> None:
    talk = Talk(time=False)
    talk.ask(c.get(b"k"), how=READ)
    talk.turn()
    assert talk.frame()[2][1:] == (c.get(b"k"),)


def test_sessions_are_used_again_and_their_sequence_grows() -> None:
    talk = Talk()
    seen: dict[bytes, list[int]] = {}
    for many in (3, 1, 2, 3):
        tickets = talk.ask(*[put()] * many)
        talk.turn()
        number, *requests = talk.frame()[2]
        assert len({request[0] for request in requests}) == many, "one for each under way"
        for session, sequence, *_ in requests:
            seen.setdefault(session, []).append(sequence)
        talk.answers(SERVERS[0], number, *[OK] * many)
        assert all(ticket.over for ticket in tickets)
    assert len(seen) == 3, "no more than were under way at a time"
    assert all(used == list(range(1, len(used) + 1)) for used in seen.values())


def test_what_may_be_done_twice_has_no_session() -> None:
    talk = Talk(time=False)
    talk.desk.ask(WRITE, c.put_version(b"k", b"v", 0), SECOND, talk.now, once=False)
    talk.turn()
    assert talk.frame()[2][1] == (b"", 1, *c.put_version(b"k", b"v", 0))


# --- again ---------------------------------------------------------------------------------------


def test_silence_repeats_under_the_same_number_elsewhere() -> None:
    talk = Talk()
    (ticket,) = talk.ask(put())
    talk.turn()
    address, _, (number, request) = talk.frame()
    assert talk.turn(later=REPEAT - 1) == []
    talk.turn(later=1)
    other, _, (again, repeated) = talk.frame()
    assert address != other
    assert number != again
    assert request == repeated
    talk.answers(other, again, OK)
    assert (ticket.answer, ticket.handed) == (OK, 2)


def test_an_answer_to_an_old_frame_counts() -> None:
    """Or a store that always takes longer than a repeat would never answer anybody."""
    talk = Talk()
    (ticket,) = talk.ask(put())
    talk.turn()
    first = talk.frame()[2][0]
    talk.turn(later=REPEAT)
    second = talk.frame()[2]
    talk.answers(SERVERS[0], first, OK)
    assert ticket.answer == OK
    (after,) = talk.ask(put())
    talk.turn()
    third = talk.frame()[2]
    assert third[1][:2] == (second[1][0], second[1][1] + 1)
    talk.answers(SERVERS[1], second[0], (c.LATE,))
    assert (ticket.answer, after.over) == (OK, False)


def test_a_late_refusal_of_an_old_frame_turns_nobody_away() -> None:
    """It only says that this time it was not done."""
    talk = Talk()
    (ticket,) = talk.ask(put())
    talk.turn()
    first = talk.frame()[2][0]
    talk.turn(later=REPEAT)
    asked = talk.frame()[0]
    talk.rejects(SERVERS[0], first)
    assert (talk.said, ticket.handed) == ([], 1)
    talk.ask(put())
    talk.turn()
    assert talk.frame()[0] == asked


def test_old_frames_are_forgotten() -> None:
    talk = Talk()
    talk.ask(put(), patience=4 * FORGET)
    for _ in range(3000):
        talk.turn(later=REPEAT)
    assert len(talk.desk._frames) <= FORGET // REPEAT + 2


def test_a_redirect_is_followed_at_once() -> None:
    talk = Talk()
    talk.knows()
    (ticket,) = talk.ask(put())
    talk.turn()
    number, request = talk.frame()[2]
    talk.rejects(SERVERS[0], number, MEMBERS[SERVERS[2]])
    address, _, (again, repeated) = talk.frame()
    assert (address, repeated) == (SERVERS[2], request)
    assert ticket.handed == 1, "the first was certainly not done"
    talk.answers(SERVERS[2], again, OK)
    assert ticket.answer == OK
    talk.ask(put())
    talk.turn()
    assert talk.frame()[0] == SERVERS[2], "whoever leads is asked first from now on"


@pytest.mark.parametrize("leader", [0, 99])
def test_if_nobody_is_known_the_next_is_asked_after_a_pause(leader: int) -> None:
    talk = Talk()
    talk.ask(put())
    talk.turn()
    talk.rejects(SERVERS[0], talk.frame()[2][0], leader)
    assert talk.said == []
    assert talk.turn(later=LOOK_AGAIN - 1) == []
    talk.turn(later=1)
    assert talk.frame()[0] == SERVERS[1]


def test_it_turns_away_once_from_whoever_refuses_two_frames() -> None:
    """Of four servers every other one was never asked: writes and reads are two frames."""
    talk = Talk()
    talk.ask(put())
    talk.ask(c.get(b"a"), how=READ)
    talk.turn()
    for _, _, (number, _) in talk.frames():
        talk.rejects(SERVERS[0], number)
    talk.turn(later=LOOK_AGAIN)
    assert [address for address, _, _ in talk.frames()] == [SERVERS[1]] * 2


def test_whoever_was_silent_is_shunned_for_a_while() -> None:
    """The others may not know yet that it is gone."""
    talk = Talk()
    talk.knows()
    talk.ask(put(), patience=10 * SECOND)
    talk.turn()
    talk.turn(later=REPEAT)
    address, _, (number, _) = talk.frame()
    talk.rejects(address, number, MEMBERS[SERVERS[0]])
    talk.turn(later=LOOK_AGAIN)
    address, _, (number, _) = talk.frame()
    assert address == SERVERS[2]
    talk.turn(later=SHUN)
    address, _, (number, _) = talk.frame()
    talk.rejects(address, number, MEMBERS[SERVERS[0]])
    assert talk.frame()[0] == SERVERS[0]


def test_a_connection_that_goes_is_like_silence() -> None:
    talk = Talk()
    talk.ask(put())
    talk.turn()
    request = talk.frame()[2][1]
    talk.turn(Linked(peer(SERVERS[0]), False))
    address, _, (_, repeated) = talk.frame()
    assert address in SERVERS[1:]
    assert repeated == request


def test_a_new_link_is_used() -> None:
    talk = Talk(linked=False)
    (ticket,) = talk.ask(put())
    dialed = talk.turn()
    assert dialed == [(address, AskTime(0)) for address in SERVERS]
    assert ticket.handed == 0
    talk.turn(Linked(peer(SERVERS[1]), True))
    assert talk.frame()[0] == SERVERS[1]


# --- the end -------------------------------------------------------------------------------------


def test_nobody_was_there_nothing_was_done() -> None:
    talk = Talk(linked=False)
    (ticket,) = talk.ask(put())
    talk.turn(later=SECOND)
    said = ended(ticket, ConnectionFailed)
    assert said == "0 of 3 replicas reachable: nothing was done."


def test_somebody_was_handed_it_the_outcome_is_unknown() -> None:
    talk = Talk()
    (ticket,) = talk.ask(put())
    talk.turn()
    talk.turn(Linked(peer(SERVERS[0]), False), Linked(peer(SERVERS[2]), False), later=SECOND)
    said = ended(ticket, OutcomeUnknown)
    assert said == "1 of 3 replicas reachable: it may have been done, or may yet be."


def test_all_who_were_handed_it_refused_nothing_was_done() -> None:
    talk = Talk()
    (ticket,) = talk.ask(put())
    talk.turn()
    talk.rejects(SERVERS[0], talk.frame()[2][0])
    talk.turn(later=LOOK_AGAIN)
    talk.rejects(SERVERS[1], talk.frame()[2][0])
    assert ticket.handed == 0
    talk.desk._hold = talk.now + 2 * SECOND
    talk.turn(later=SECOND)
    assert ended(ticket, ConnectionFailed) == "3 of 3 replicas reachable; not I: nothing was done."


def test_a_refusal_that_says_unknown_leaves_it_unknown() -> None:
    talk = Talk()
    (ticket,) = talk.ask(put())
    talk.turn()
    talk.rejects(SERVERS[0], talk.frame()[2][0], unknown=True)
    talk.turn(later=LOOK_AGAIN)
    talk.rejects(SERVERS[1], talk.frame()[2][0])
    talk.turn(later=SECOND)
    ended(ticket, OutcomeUnknown)


def test_a_read_that_was_not_answered_did_nothing() -> None:
    talk = Talk()
    (ticket,) = talk.ask(c.get(b"k"), how=READ)
    talk.turn()
    talk.turn(later=SECOND)
    ended(ticket, ConnectionFailed)


def test_the_session_of_what_is_unknown_goes_on() -> None:
    """With the next number, so that what is still on its way comes too late."""
    talk = Talk()
    (ticket,) = talk.ask(put(), patience=REPEAT)
    talk.turn()
    session, sequence, *_ = talk.frame()[2][1]
    talk.turn(later=REPEAT)
    ended(ticket, OutcomeUnknown)
    talk.ask(put())
    talk.turn()
    assert talk.frame()[2][1][:2] == (session, sequence + 1)


def test_what_is_over_is_not_kept() -> None:
    talk = Talk(linked=False)
    talk.ask(*[put()] * 100)
    talk.turn(later=SECOND)
    assert not talk.desk._new


# --- watches -------------------------------------------------------------------------------------


def test_a_watch_while_nobody_is_there_does_not_spin() -> None:
    """It asks again now and then, and is woken for it."""
    talk = Talk(linked=False)
    ask = Watch(1, b"k", None, 0, 16)
    assert talk.desk.say_watch(ask) == ""
    assert len(talk.turn()) == len(SERVERS)
    assert talk.desk.say_watch(ask) == ""
    assert not talk.desk.pending
    wake_at = talk.desk.ready().wake_at
    assert wake_at is not None
    assert talk.now < wake_at <= talk.now + LOOK_AGAIN
    talk.turn(later=wake_at - talk.now)
    assert talk.desk.say_watch(ask) == ""
    assert talk.desk.pending
    talk.turn(Linked(peer(SERVERS[2]), True))
    assert talk.desk.say_watch(ask) == SERVERS[2]
    assert talk.turn() == [(SERVERS[2], ask)]
    assert talk.desk.ready().wake_at == talk.now + SILENCE, "to ask whether it is known"
