"""The Raft labs' tests (2A to 2D), by name, in the simulator.

They are those of MIT's lab 2 of 2021 and of its later years (3A to 3D there), with their numbers:
servers, rounds, times, counts and bytes of calls, sizes of state. Time is virtual, so a test of a
minute takes a second, and a seed says all that happens. Each docstring says what is asked for
beyond the lab. A leader of ours begins its term with an entry of its own, so numbers are those of
commands, not indexes; see `raft_lab`.

`PLANTED` holds, for every test, a bug that it is there to catch, and shows that it does.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from raft_lab import (
    ANSWERED,
    CRASHED_BYTES_MAX,
    DISK_BYTES_MAX,
    ELECTION,
    LOG_BYTES_MAX,
    SNAPSHOT_EVERY,
    RaftLab,
    Steps,
)
from support import dose

from engine.contract import SECOND
from engine.raft.leader import Leader
from engine.raft.machine import Raft
from engine.raft.membership import Membership
from engine.raft.messages import AppendEntries
from engine.raft.progress import Progress
from engine.raft.snapshots import Snapshots
from engine.raft.trial_bugs import BUGS
from engine.record import Record
from engine.sim.planting import Patch, planted
from engine.sim.timeline import MILLISECOND
from engine.storage.log import Log
from engine.storage.snapshots import Snapshots as SnapshotFiles

Make = Callable[..., RaftLab]
"""`make(servers, unreliable=…, snapshots=…)`: a group that has just been started."""

lab_2a: pytest.MarkDecorator = getattr(pytest.mark, "2A")
lab_2b: pytest.MarkDecorator = getattr(pytest.mark, "2B")
lab_2c: pytest.MarkDecorator = getattr(pytest.mark, "2C")
lab_2d: pytest.MarkDecorator = getattr(pytest.mark, "2D")


def seeds(ci: int, full: int) -> pytest.MarkDecorator:
    """So many seeds of the test's own."""
    return pytest.mark.parametrize("number", range(dose(ci, full)))


batches = pytest.mark.parametrize("entries_max", [1, 1024], ids=["single", "batched"])
"""Entries in one message: alone, so that more can come between, and as they are shipped."""


def seed_of(name: str, number: int) -> int:
    return zlib.crc32(f"{name} {number}".encode())


@pytest.fixture
def make(request: pytest.FixtureRequest, number: int) -> Iterator[Make]:
    """Makes the group of this test and seed; what must hold in the end is looked at afterwards."""
    if request.config.getoption("--impl"):
        raise pytest.UsageError("the tests 2A to 2D run in our simulator, and take no --impl")
    made: list[RaftLab] = []

    def build(servers: int, **how: Any) -> RaftLab:
        made.append(RaftLab(seed_of(request.function.__name__, number), servers, **how))
        return made[-1]

    yield build
    for lab in made:
        lab.finish()


# --- 2A: elections -------------------------------------------------------------------------------


@lab_2a
@seeds(3, 300)
def test_initial_election(make: Make) -> None:
    """A leader, and then nothing happens for two seconds. The lab only warns if the term changes;
    here leader and term must stay."""
    lab = make(3)
    leader = lab.check_one_leader()
    lab.run_for(0.05)
    term = lab.check_terms()
    assert term >= 1
    lab.run_for(2 * ELECTION)
    assert lab.check_terms() == term
    assert lab.check_one_leader() == leader


@lab_2a
@seeds(3, 300)
def test_re_election(make: Make) -> None:
    """Leaders go and come back, and a minority has none. Also whoever is cut off must have noticed
    that it leads nobody, and whoever comes back must not disturb the term."""
    lab = make(3)
    first = lab.check_one_leader()
    lab.disconnect(first)
    lab.check_one_leader()
    lab.connect(first)
    second = lab.check_one_leader()
    lab.run_for(ELECTION)
    term = lab.check_terms()
    other = (second + 1) % 3
    lab.disconnect(second, other)
    lab.run_for(2 * ELECTION)
    lab.check_no_leader()
    assert not any(lab.state(at)[1] for at in range(3)), "who is cut off believes to lead"
    lab.connect(other)
    lab.check_one_leader()
    lab.connect(second)
    last = lab.check_one_leader()
    assert lab.check_terms() > term
    assert not lab.state((last + 1) % 3)[1]
    assert not lab.state((last + 2) % 3)[1]


@lab_2a
@seeds(2, 200)
def test_many_elections(make: Make) -> None:
    """Nine times, up to three of seven are cut off. At the end of each round, and of the test, all
    must have come to one term: the lab only counts leaders."""
    lab = make(7)
    lab.check_one_leader()
    for _ in range(9):
        off = [lab.rng.randrange(7) for _ in range(3)]
        lab.disconnect(*off)
        lab.check_one_leader()
        lab.connect(*off)
        lab.run_for(ELECTION)
        lab.check_terms()
    leader = lab.check_one_leader()
    assert [at for at in range(7) if lab.state(at)[1]] == [leader]


# --- 2B: agreement -------------------------------------------------------------------------------


@lab_2b
@seeds(3, 300)
def test_basic_agree(make: Make) -> None:
    """Three commands are 1, 2 and 3, and nothing is decided before it is asked for. Here each is
    agreed on at the first try."""
    lab = make(3)
    for number in range(1, 4):
        assert lab.n_committed(number) == (0, None)
        body = lab.command()
        lab.check_one_leader()
        assert lab.one(3, retry=False, body=body) == number
        assert lab.n_committed(number) == (3, body)


@lab_2b
@seeds(3, 100)
def test_rpc_bytes(make: Make) -> None:
    """Ten commands of 5000 bytes go to each peer once."""
    lab = make(3)
    lab.check_one_leader()
    lab.one(3, retry=False)
    before, sent = lab.bytes, 0
    for number in range(2, 12):
        assert lab.one(3, retry=False, body=lab.command(5000)) == number
        sent += 5000
    used = lab.bytes - before
    assert used <= 3 * sent + 50_000, f"{used} bytes for {sent}"
    assert used >= 2 * sent, "the bytes are not counted"


@lab_2b
@seeds(3, 200)
def test_follower_failure(make: Make) -> None:
    """One follower of three may be missing, and two may not. Here also nobody applies it later
    than the lab looks, and the leader itself knows of no agreement."""
    lab = make(3)
    lab.one(3)
    first = lab.check_one_leader()
    lab.disconnect((first + 1) % 3)
    lab.one(2)
    lab.run_for(ELECTION)
    lab.one(2)
    leader = lab.check_one_leader()
    lab.disconnect((leader + 1) % 3, (leader + 2) % 3)
    start = lab.start_command(leader, lab.command())
    assert start.leads
    assert start.number == 4
    lab.run_for(2 * ELECTION)
    assert lab.n_committed(4) == (0, None)
    assert not lab.state(leader)[1]


@lab_2b
@seeds(3, 200)
def test_leader_failure(make: Make) -> None:
    """The leader may be missing, and its successor as well may not."""
    lab = make(3)
    lab.one(3)
    first = lab.check_one_leader()
    lab.disconnect(first)
    lab.one(2)
    lab.run_for(ELECTION)
    lab.one(2)
    second = lab.check_one_leader()
    lab.disconnect(second)
    for at in range(3):
        lab.start_command(at, lab.command())
    lab.run_for(2 * ELECTION)
    assert lab.n_committed(4) == (0, None)


@lab_2b
@seeds(3, 200)
def test_fail_agree(make: Make) -> None:
    """A follower that was away gets all that it missed. The lab does not ask that it does not
    disturb the leader when it comes back."""
    lab = make(3)
    lab.one(3)
    leader = lab.check_one_leader()
    term = lab.check_terms()
    away = (leader + 1) % 3
    lab.disconnect(away)
    lab.one(2)
    lab.one(2)
    lab.run_for(ELECTION)
    lab.one(2)
    lab.one(2)
    lab.connect(away)
    lab.one(3)
    lab.run_for(ELECTION)
    lab.one(3)
    assert lab.check_terms() == term
    assert len(lab.log(away)) == 7


@lab_2b
@seeds(3, 200)
def test_fail_no_agree(make: Make) -> None:
    """Three followers of five are missing: nothing is decided, and later either that command or
    another has its number."""
    lab = make(5)
    lab.one(5)
    leader = lab.check_one_leader()
    away = [(leader + ahead) % 5 for ahead in (1, 2, 3)]
    lab.disconnect(*away)
    start = lab.start_command(leader, lab.command())
    assert start.leads
    assert start.number == 2
    lab.run_for(2 * ELECTION)
    assert lab.n_committed(2)[0] == 0
    lab.connect(*away)
    second = lab.check_one_leader()
    again = lab.start_command(second, lab.command())
    assert again.leads
    assert again.number in (2, 3)
    lab.one(5)


@lab_2b
@seeds(3, 200)
def test_concurrent_starts(make: Make) -> None:
    """Five commands that come at once get five numbers, and all are decided."""
    lab = make(3)
    for attempt in range(5):
        if attempt:
            lab.run_for(3.0)
        leader = lab.check_one_leader()
        first = lab.start_command(leader, lab.command())
        bodies = [lab.command() for _ in range(5)]
        starts = lab.start_commands(leader, bodies)
        if not first.leads or any(start.term != first.term for start in starts):
            continue
        assert len({start.number for start in starts}) == 5
        found = [lab.wait(start.number, 3, first.term) for start in starts]
        if None in found:
            continue
        assert found == bodies
        return
    raise AssertionError("the term changed five times on a reliable network")


@lab_2b
@batches
@seeds(3, 150)
def test_rejoin(make: Make, entries_max: int) -> None:
    """What a leader took while it was alone vanishes when it comes back."""
    lab = make(3, entries_max=entries_max)
    lab.one(3)
    first = lab.check_one_leader()
    lab.disconnect(first)
    vain = [lab.command() for _ in range(3)]
    assert all(start.leads for start in lab.start_commands(first, vain))
    lab.one(2)
    second = lab.check_one_leader()
    lab.disconnect(second)
    lab.connect(first)
    lab.one(2)
    lab.connect(second)
    lab.one(3)
    for at in range(3):
        assert len(lab.log(at)) == 4
        assert not set(vain) & set(lab.log(at))


@lab_2b
@batches
@seeds(2, 50)
def test_backup(make: Make, entries_max: int) -> None:
    """Two minorities come back with 50 entries each that the others never heard of. Backing up
    takes a call or two for each term; the lab only notices if that takes ten seconds, which it
    never does on a fast network, so here rejections are counted."""
    lab = make(5, entries_max=entries_max)
    lab.one(5)
    first = lab.check_one_leader()
    pair, others = [first, (first + 1) % 5], [(first + ahead) % 5 for ahead in (2, 3, 4)]
    lab.disconnect(*others)
    assert all(s.leads for s in lab.start_commands(first, [lab.command() for _ in range(50)]))
    lab.run_for(ELECTION / 2)
    lab.disconnect(*pair)
    lab.connect(*others)
    for _ in range(50):
        lab.one(3)
    second = lab.check_one_leader()
    away = others[1] if second == others[0] else others[0]
    lab.disconnect(away)
    assert all(s.leads for s in lab.start_commands(second, [lab.command() for _ in range(50)]))
    lab.run_for(ELECTION / 2)
    lab.disconnect(*range(5))
    lab.connect(*pair, away)
    before = lab.rejections
    for _ in range(50):
        lab.one(3)
    lab.connect_all()
    lab.one(5)
    rejected, terms = lab.rejections - before, max(lab.state(at)[0] for at in range(5))
    assert rejected <= 2 * terms, f"{rejected} rejections in {terms} terms"
    assert all(len(lab.log(at)) == 102 for at in range(5))


@lab_2b
@seeds(3, 200)
def test_count(make: Make) -> None:
    """Calls are few: in an election, for eleven commands, and when nothing happens."""
    lab = make(3)
    lab.check_one_leader()
    assert 1 <= lab.rpcs() <= 30, f"{lab.rpcs()} calls for an election"
    for attempt in range(5):
        if attempt:
            lab.run_for(3.0)
        leader = lab.check_one_leader()
        before = lab.rpcs()
        first = lab.start_command(leader, lab.command())
        bodies = [lab.command() for _ in range(11)]
        starts = [lab.start_command(leader, body) for body in bodies]
        if not first.leads or any(start.term != first.term for start in starts):
            continue
        assert [s.number - first.number for s in starts] == list(range(1, 12))
        found = [lab.wait(start.number, 3, first.term) for start in starts]
        if None in found:
            continue
        assert found == bodies
        used = lab.rpcs() - before
        assert used <= (10 + 1 + 3) * 3, f"{used} calls for twelve commands"
        break
    else:
        raise AssertionError("the term changed five times on a reliable network")
    before = lab.rpcs()
    lab.run_for(ELECTION)
    idle = lab.rpcs() - before
    assert idle <= 3 * 20, f"{idle} calls in an idle second"
    assert lab.rpc_count(leader) == max(lab.rpc_count(at) for at in range(3))


@lab_2b
@seeds(3, 200)
def test_paused_leader(make: Make) -> None:
    """Beyond the labs, which cannot stop a process: a leader sleeps while another is elected, and
    wakes to commands that it was given meanwhile. It must not believe that it still leads."""
    lab = make(3)
    lab.one(3)
    leader = lab.check_one_leader()
    lab.server(leader).pause(3 * SECOND)
    vain = lab.command()
    lab.offer(leader, vain)
    assert lab.until(lambda: sum(lab.state(at)[1] for at in range(3)) == 2, 2.0)
    for _ in range(3):
        lab.one(2)
    assert lab.until(lambda: not lab.state(leader)[1], 4.0)
    lab.one(3)
    for at in range(3):
        assert len(lab.log(at)) == 5
        assert vain not in lab.log(at)


# --- 2C: persistence, and a network that is not reliable -----------------------------------------


@lab_2c
@seeds(3, 300)
def test_persist1(make: Make) -> None:
    """All start again, then the leader, then one while others go on."""
    lab = make(3)
    lab.one(3)
    lab.crash(0, 1, 2)
    lab.restart(0, 1, 2)
    lab.one(3)
    lab.restart(lab.check_one_leader())
    lab.one(3)
    leader = lab.check_one_leader()
    lab.crash(leader)
    lab.one(2)
    lab.restart(leader)
    assert lab.until(lambda: lab.n_committed(4)[0] == 3, 31.0)
    away = (lab.check_one_leader() + 1) % 3
    lab.crash(away)
    lab.one(2)
    lab.restart(away)
    lab.one(3)
    assert all(len(lab.log(at)) == 6 for at in range(3))


@lab_2c
@seeds(2, 200)
def test_persist2(make: Make) -> None:
    """Five rounds, in which those that go on are never those that went on before."""
    lab = make(5)
    for _ in range(5):
        lab.one(5)
        first = lab.check_one_leader()
        zero, one, two, three, four = [(first + ahead) % 5 for ahead in range(5)]
        lab.disconnect(one, two)
        lab.one(3)
        lab.disconnect(zero, three, four)
        lab.restart(one, two)
        lab.run_for(ELECTION)
        lab.restart(three)
        lab.one(3)
        lab.connect(four, zero)
    lab.one(5)
    assert len({tuple(lab.log(at)) for at in range(5)}) == 1


@lab_2c
@seeds(3, 300)
def test_persist3(make: Make) -> None:
    """Of those that know the last command one is gone, and the other one starts again."""
    lab = make(3)
    lab.one(3)
    leader = lab.check_one_leader()
    lab.disconnect((leader + 2) % 3)
    lab.one(2)
    lab.crash(leader, (leader + 1) % 3)
    lab.connect((leader + 2) % 3)
    lab.restart(leader)
    lab.one(2)
    lab.restart((leader + 1) % 3)
    lab.one(3)
    assert all(len(lab.log(at)) == 4 for at in range(3))


def offered(lab: RaftLab, among: Callable[[int], bool]) -> int:
    """A new command for every live server; the last of these that took it, or -1."""
    body = lab.command()
    contexts = {at: lab.offer(at, body) for at in range(lab.servers) if lab.is_up(at)}
    lab.run_for(ANSWERED)
    took = [at for at, context in contexts.items() if among(at) and lab.placed(context).leads]
    return max(took, default=-1)


def pause(lab: RaftLab) -> None:
    """Mostly so short that a leader has told nobody, sometimes half an election."""
    long = lab.rng.randrange(1000) < 100
    lab.run_for(lab.rng.randrange(500 if long else 13) / 1000)


@lab_2c
@batches
@seeds(1, 30)
def test_figure8(make: Make, entries_max: int) -> None:
    """A thousand times, whoever leads dies as soon as it has taken a command, as in the paper's
    figure 8. Half of the crashes also lose what no fsync covers; messages and disks are slow, so
    that there is more that a crash can come between."""
    lab = make(5, entries_max=entries_max, delay=8 * MILLISECOND, disk=2 * MILLISECOND)
    lab.one(1)
    for _ in range(1000):
        leader = offered(lab, lambda at: True)
        pause(lab)
        if leader >= 0:
            lab.crash(leader)
        if sum(map(lab.is_up, range(5))) < 3:
            at = lab.rng.randrange(5)
            if not lab.is_up(at):
                lab.restart(at)
    lab.restart(*[at for at in range(5) if not lab.is_up(at)])
    lab.one(5)
    assert len({tuple(lab.log(at)) for at in range(5)}) == 1


@lab_2c
@seeds(5, 500)
def test_figure8_step_by_step(make: Make) -> None:
    """The paper's figure 8 itself, beyond the lab, which hopes that it comes about. An entry of an
    earlier term gets to a majority, and nothing of the present term does: it is not decided, for
    another leader replaces it."""
    lab = make(5, entries_max=1, delay=5 * MILLISECOND)
    lab.one(5)
    one = lab.check_one_leader()
    two, three, four, five = [(one + ahead) % 5 for ahead in (1, 2, 3, 4)]
    # (a) 1 leads, and 2 alone is given the entry.
    lab.disconnect(three, four, five)
    assert lab.start_command(one, lab.command()).leads
    index = lab.server(one).raft.log.last
    assert lab.until(lambda: lab.server(two).raft.stable == index, 1.0)
    # (b) 1 and 2 are away. Another, here called 5, is elected, and alone knows its first entry.
    lab.crash(one)
    lab.disconnect(two)
    lab.connect(three, four, five)
    assert lab.until(lambda: any(lab.state(at)[1] for at in (three, four, five)), 10.0)
    five = next(at for at in (three, four, five) if lab.state(at)[1])
    three, four = [at for at in range(5) if at not in (one, two, five)]
    lab.disconnect(five)
    assert lab.until(lambda: lab.server(five).raft.stable == index, 1.0)
    lab.crash(five)
    # (c) 1 or 2 is elected, by each other and 3, and gives 3 the old entry, but not yet its own.
    lab.disconnect(four)
    lab.restart(one)
    lab.connect(two)
    assert lab.until(lambda: lab.gave(three, index), 10.0)
    assert lab.server(three).raft.log.last == index
    # (d) 5 replaces it.
    lab.disconnect(one, two)
    lab.restart(five)
    lab.connect(four)
    lab.one(3)
    lab.connect_all()
    lab.one(5)
    assert all(len(lab.log(at)) == 3 for at in range(5))


@lab_2c
@batches
@seeds(1, 30)
def test_unreliable_agree(make: Make, entries_max: int) -> None:
    """Five commands at once, 49 times, on a network that loses a fifth of the calls."""
    lab = make(5, unreliable=True, entries_max=entries_max)
    going: list[Callable[[], bool]] = []
    for _ in range(1, 50):
        bodies = [lab.command() for _ in range(5)]
        going += [lab.together(lab.agreeing(body, 1, True)) for body in bodies[1:]]
        lab.one(1, body=bodies[0])
    lab.set_unreliable(False)
    assert lab.until(lambda: all(ended() for ended in going), 20.0)
    lab.one(5)
    assert all(len(set(lab.log(at))) == 5 * 49 + 1 for at in range(5))


@lab_2c
@seeds(2, 60)
def test_figure8_unreliable(make: Make) -> None:
    """Leaders are cut off instead, half of the time, and from the 200th time on replies come so
    late that they belong to another time."""
    lab = make(5, unreliable=True)
    lab.one(1)
    for turn in range(1000):
        if turn == 200:
            lab.set_unreliable(True, reordering=True)
        leader = offered(lab, lambda at: lab.connected[at])
        pause(lab)
        if leader >= 0 and lab.rng.random() < 0.5:
            lab.disconnect(leader)
        if sum(lab.connected) < 3:
            lab.connect(lab.rng.randrange(5))
    lab.connect_all()
    lab.one(5)


class Churn:
    """Clients that remember what they saw decided, while servers come and go."""

    def __init__(self, lab: RaftLab) -> None:
        self.lab = lab
        self.over = False
        self.seen: list[bytes] = []

    def client(self, me: int) -> Steps:
        lab = self.lab
        while not self.over:
            body = lab.command()
            contexts = [lab.offer(at, body) for at in range(lab.servers) if lab.is_up(at)]
            yield ANSWERED
            starts = [lab.placed(context) for context in contexts]
            number = next((start.number for start in reversed(starts) if start.leads), 0)
            if not number:
                yield (79 + 17 * me) / 1000
                continue
            for wait in (0.01, 0.02, 0.05, 0.1, 0.2):
                _, found = lab.n_committed(number)
                if found is not None:
                    if found == body:
                        self.seen.append(body)
                    break
                yield wait


def churn(lab: RaftLab, *, unreliable: bool) -> None:
    """What was seen decided stays, though servers are cut off, die and start again. Beyond the lab,
    the logs of all must be equal, and no client may have seen nothing."""
    load = Churn(lab)
    ended = lab.together(*[load.client(me) for me in range(3)])
    rng = lab.rng
    for _ in range(20):
        if rng.random() < 0.2:
            lab.disconnect(rng.randrange(5))
        if rng.random() < 0.5:
            at = rng.randrange(5)
            if not lab.is_up(at):
                lab.restart(at)
            lab.connect(at)
        if rng.random() < 0.2:
            at = rng.randrange(5)
            if lab.is_up(at):
                lab.crash(at)
        lab.run_for(ELECTION * 7 / 10)
    lab.run_for(ELECTION)
    lab.set_unreliable(False)
    for at in range(5):
        if not lab.is_up(at):
            lab.restart(at)
    lab.connect_all()
    load.over = True
    assert lab.until(ended, 2.0)
    lab.run_for(ELECTION)
    last = lab.one(5)
    assert all(len(lab.log(at)) >= last for at in range(5))
    lost = set(load.seen) - set(lab.log(0))
    assert not lost, f"decided, and gone: {lost}"
    assert len(load.seen) > (20 if unreliable else 100)


@lab_2c
@seeds(1, 60)
def test_reliable_churn(make: Make) -> None:
    """Three clients, while servers come and go; see `churn`."""
    churn(make(5), unreliable=False)


@lab_2c
@batches
@seeds(1, 30)
def test_unreliable_churn(make: Make, entries_max: int) -> None:
    """The same on a network that loses calls."""
    churn(make(5, unreliable=True, entries_max=entries_max), unreliable=True)


# --- 2D: snapshots -------------------------------------------------------------------------------


def snapshots(lab: RaftLab, *, off: str = "") -> None:
    """Thirty rounds of some ten commands, of which every tenth makes a snapshot; live logs stay
    under 2000 bytes. `off`: what happens to a server meanwhile, "cut" or "crash". Beyond the lab,
    disks stay small as well. Our logs go
    back to the snapshot before the newest, so in the last round 30 commands more are given: whoever
    was off needs a snapshot then."""
    everybody, present = lab.servers, lab.servers - bool(off)
    lab.one(everybody)
    leader = lab.check_one_leader()
    for turn in range(30):
        victim, sender = (leader + 1) % 3, leader
        if turn % 3 == 1:
            victim, sender = sender, victim
        if off == "cut":
            lab.disconnect(victim)
        elif off == "crash":
            lab.crash(victim)
        if off:
            lab.one(present)
        for _ in range(SNAPSHOT_EVERY // 2 + lab.rng.randrange(SNAPSHOT_EVERY)):
            lab.start_command(sender, lab.command())
        for _ in range(3 * SNAPSHOT_EVERY if off and turn == 29 else 0):
            lab.one(present)
        lab.one(present)
        size = lab.log_bytes()
        assert size < LOG_BYTES_MAX, f"{size} bytes of log in round {turn}"
        if off == "cut":
            lab.connect(victim)
        elif off == "crash":
            lab.restart(victim)
        if off:
            lab.one(everybody)
            leader = lab.check_one_leader()
        disk, most = lab.disk_bytes(), DISK_BYTES_MAX if off != "crash" else CRASHED_BYTES_MAX
        assert disk < most, f"{disk} bytes on a disk in round {turn}"
    logs = {tuple(lab.log(at)) for at in range(3)}
    assert len(logs) == 1
    assert len(logs.pop()) > 30 * SNAPSHOT_EVERY // 2


@lab_2d
@seeds(1, 60)
def test_snapshot_basic(make: Make) -> None:
    """Nobody is off, so nobody needs to be sent a snapshot."""
    lab = make(3, snapshots=True)
    snapshots(lab)
    assert not lab.seen["InstallSnapshot"]


@lab_2d
@batches
@seeds(1, 30)
def test_snapshot_install(make: Make, entries_max: int) -> None:
    """One is cut off in every round; in every third it was the leader."""
    lab = make(3, snapshots=True, entries_max=entries_max)
    snapshots(lab, off="cut")
    assert lab.seen["loaded"]


@lab_2d
@batches
@seeds(1, 30)
def test_snapshot_install_unreliable(make: Make, entries_max: int) -> None:
    """The same on a network that loses calls."""
    lab = make(3, snapshots=True, unreliable=True, entries_max=entries_max)
    snapshots(lab, off="cut")
    assert lab.seen["loaded"]


@lab_2d
@batches
@seeds(1, 30)
def test_snapshot_install_crash(make: Make, entries_max: int) -> None:
    """One dies in every round, and begins from its own snapshot."""
    lab = make(3, snapshots=True, entries_max=entries_max)
    snapshots(lab, off="crash")
    assert lab.seen["loaded"]


@lab_2d
@batches
@seeds(1, 30)
def test_snapshot_install_un_crash(make: Make, entries_max: int) -> None:
    """The same on a network that loses calls."""
    lab = make(3, snapshots=True, unreliable=True, entries_max=entries_max)
    snapshots(lab, off="crash")
    assert lab.seen["loaded"]


@lab_2d
@pytest.mark.parametrize("unreliable", [False, True], ids=["reliable", "unreliable"])
@seeds(1, 60)
def test_snapshot_all_crash(make: Make, unreliable: bool) -> None:
    """All die at once, and go on where they were; in the lab of 2025 on an unreliable network."""
    lab = make(3, snapshots=True, unreliable=unreliable)
    lab.one(3)
    for _ in range(5):
        for _ in range(SNAPSHOT_EVERY // 2 + lab.rng.randrange(SNAPSHOT_EVERY)):
            lab.one(3)
        before = lab.one(3)
        lab.crash(0, 1, 2)
        lab.restart(0, 1, 2)
        after = lab.one(3)
        assert after > before
        if not unreliable:
            assert after == before + 1
    assert len({tuple(lab.log(at)) for at in range(3)}) == 1


@lab_2d
@pytest.mark.parametrize("unreliable", [False, True], ids=["reliable", "unreliable"])
@pytest.mark.parametrize("before", [12, 32])
@seeds(1, 100)
def test_snapshot_init(make: Make, unreliable: bool, before: int) -> None:
    """A snapshot outlives a start after which one command alone is written, and another start. The
    lab has 12 commands before it; here also 32, with which no log begins at the beginning. Nor does
    it ask that the old commands are still there."""
    lab = make(3, snapshots=True, unreliable=unreliable)
    given = [lab.command() for _ in range(before + 2)]
    for body in given[:before]:
        lab.one(3, body=body)
    for body in given[before:]:
        lab.crash(0, 1, 2)
        lab.restart(0, 1, 2)
        lab.one(3, body=body)
    for at in range(3):
        assert list(dict.fromkeys(lab.log(at))) == given


# --- the bugs that these tests are there to catch ------------------------------------------------


class Planted(Record):
    """A bug that a test is there to catch, within its first `TRIED` seeds."""

    bug: str
    test: Callable[..., None]
    how: tuple[tuple[str, Any], ...] = ()
    """What the test is called with, beside `make`."""
    judging: bool = False
    """Whether it takes the trial's judge: the labs' checks do not look at disks."""

    def __str__(self) -> str:
        return f"{self.bug}-{self.test.__name__.removeprefix('test_')}"


def _says_nothing(_: Any) -> Any:
    """Heartbeats are not sent."""

    def heartbeat(self: Leader, member: int) -> None:
        self.progress[member].sent = self.raft.now

    return heartbeat


def _deaf(original: Any) -> Any:
    """A leader does not believe in later terms."""

    def receive(self: Raft, link: Any, message: Any) -> None:
        if type(self.role) is not Leader or message.term <= self.term:
            original(self, link, message)

    return receive


def _tells_no_commit(original: Any) -> Any:
    """Followers are not told what is committed."""

    def say_now(self: Raft, link: Any, message: Any) -> None:
        if type(message) is AppendEntries:
            message = message._replace(commit=0)
        elif hasattr(message, "last") and type(message[0]) is AppendEntries:
            message = message._replace(message=message.message._replace(commit=0))
        original(self, link, message)

    return say_now


def _says_thrice(original: Any) -> Any:
    """Every message with entries is sent three times."""

    def say(self: Leader, *about: Any) -> None:
        for _ in range(3):
            original(self, *about)

    return say


def _so_many_are_enough(count: int) -> Any:
    """An entry is decided when so many have it."""

    def make(_: Any) -> Any:
        def reached(self: Membership, value: Any) -> int:
            return int(sorted(map(value, self.voters), reverse=True)[count - 1])

        return reached

    return make


def _never_backs_up(_: Any) -> Any:
    """A rejection changes nothing."""
    return lambda self, progress, reply: None


def _backs_up_by_one(_: Any) -> Any:
    """A rejection moves the next entry back by one."""

    def rejected(self: Leader, progress: Progress, reply: Any) -> None:
        progress.probe(reply.previous)

    return rejected


def _same_index(original: Any) -> Any:
    """All commands of a turn are told the index of the first."""

    def propose(self: Leader, ask: Any) -> None:
        original(self, ask)
        answers = self.raft._answers
        answers[-1] = answers[-1]._replace(first=answers[0].first)

    return propose


def _talks_all_the_time(original: Any) -> Any:
    """A heartbeat every 5 ms."""

    def begin(self: Raft, settings: Any, recovered: Any, kept: Any, rng: Any) -> None:
        timing = settings.timing._replace(heartbeat=5 * MILLISECOND)
        original(self, settings._replace(timing=timing), recovered, kept, rng)

    return begin


def _forgets_the_last(original: Any) -> Any:
    """Recovery drops the last entry, as if it were torn."""

    def begin(self: Raft, settings: Any, recovered: Any, kept: Any, rng: Any) -> None:
        shorter = recovered._replace(terms=recovered.terms[:-1], sizes=recovered.sizes[:-1])
        original(self, settings, shorter, kept, rng)

    return begin


def _nothing(_: Any) -> Any:
    return lambda self, *about: None


def _without_snapshot(original: Any) -> Any:
    """A member starts without loading its snapshot."""
    return lambda self, raft, kept: original(self, raft, ())


def _keeps_none(original: Any) -> Any:
    """Snapshots are removed once they are complete."""
    return lambda self, count: original(self, 0)


def _true(_: Any) -> Any:
    return lambda self: True


OWN_BUGS: dict[str, tuple[Patch, ...]] = {
    "no_heartbeats": (Patch(Leader, "_heartbeat", _says_nothing),),
    "no_check_quorum": (Patch(Leader, "holds", _true),),
    "zombie_leader": (Patch(Leader, "holds", _true), Patch(Raft, "_receive", _deaf)),
    "commits_not_told": (Patch(Raft, "say_now", _tells_no_commit),),
    "said_three_times": (Patch(Leader, "_say", _says_thrice),),
    "one_is_enough": (Patch(Membership, "reached", _so_many_are_enough(1)),),
    "two_are_enough": (Patch(Membership, "reached", _so_many_are_enough(2)),),
    "never_backs_up": (Patch(Leader, "_rejected", _never_backs_up),),
    "backs_up_by_one": (Patch(Leader, "_rejected", _backs_up_by_one),),
    "same_index_for_all": (Patch(Leader, "propose", _same_index),),
    "talks_all_the_time": (Patch(Raft, "__init__", _talks_all_the_time),),
    "last_entry_forgotten": (Patch(Raft, "__init__", _forgets_the_last),),
    "log_never_compacted": (Patch(Snapshots, "_compact", _nothing),),
    "segments_never_retired": (Patch(Log, "_retire", _nothing),),
    "snapshot_not_loaded": (Patch(Snapshots, "__init__", _without_snapshot),),
    "snapshots_removed": (Patch(SnapshotFiles, "keep", _keeps_none),),
}

TRIED = 16
SINGLE, BATCHED = (("entries_max", 1),), (("entries_max", 1024),)

PLANTED = [
    Planted("no_heartbeats", test_initial_election),
    Planted("term_persisted_after_reply", test_initial_election, judging=True),
    Planted("no_check_quorum", test_re_election),
    Planted("heartbeat_of_the_past", test_re_election),
    Planted("zombie_leader", test_many_elections),
    Planted("commits_not_told", test_basic_agree),
    Planted("acknowledged_before_fsync", test_basic_agree, judging=True),
    Planted("said_three_times", test_rpc_bytes),
    Planted("one_is_enough", test_follower_failure),
    Planted("one_is_enough", test_leader_failure),
    Planted("never_backs_up", test_fail_agree),
    Planted("two_are_enough", test_fail_no_agree),
    Planted("same_index_for_all", test_concurrent_starts),
    Planted("no_previous_term_check", test_rejoin, BATCHED),
    Planted("length_before_term", test_rejoin, BATCHED),
    Planted("backs_up_by_one", test_backup, BATCHED),
    Planted("talks_all_the_time", test_count),
    Planted("zombie_leader", test_paused_leader),
    Planted("last_entry_forgotten", test_persist1),
    Planted("no_up_to_date_check", test_persist2),
    Planted("no_up_to_date_check", test_persist3),
    Planted("no_up_to_date_check", test_figure8, BATCHED),
    Planted("length_before_term", test_figure8, SINGLE),
    Planted("no_previous_term_check", test_figure8, BATCHED),
    Planted("vote_not_persisted", test_figure8, BATCHED, judging=True),
    Planted("commit_old_term_by_counting", test_figure8_step_by_step),
    Planted("truncates_matching_tail", test_unreliable_agree, BATCHED),
    Planted("truncates_matching_tail", test_figure8_unreliable),
    Planted("never_backs_up", test_reliable_churn),
    *dose((), (Planted("applied_before_commit", test_reliable_churn),)),
    Planted("applied_before_commit", test_unreliable_churn, BATCHED),
    Planted("truncates_matching_tail", test_unreliable_churn, SINGLE),
    Planted("log_never_compacted", test_snapshot_basic),
    Planted("segments_never_retired", test_snapshot_basic),
    Planted("snapshot_off_by_one", test_snapshot_install, BATCHED),
    Planted("log_kept_after_install", test_snapshot_install, BATCHED),
    Planted("log_kept_after_install", test_snapshot_install_unreliable, BATCHED),
    Planted("snapshot_not_loaded", test_snapshot_install_crash, BATCHED),
    Planted("suffix_discarded_at_install", test_snapshot_install_crash, BATCHED),
    Planted("snapshot_without_members", test_snapshot_install_un_crash, BATCHED),
    Planted("segments_never_retired", test_snapshot_install_un_crash, BATCHED),
    Planted("last_entry_forgotten", test_snapshot_all_crash, (("unreliable", True),)),
    Planted("snapshots_removed", test_snapshot_init, (("unreliable", True), ("before", 32))),
]


def attempt(case: Planted, number: int, **how: Any) -> str:
    """One seed of a test; what it finds, or ""."""
    made: list[RaftLab] = []

    def build(servers: int, **more: Any) -> RaftLab:
        made.append(RaftLab(seed_of(case.test.__name__, number), servers, **how, **more))
        return made[-1]

    try:
        case.test(build, **dict(case.how))
        made[0].finish()
    except Exception as error:  # whatever a bug breaks
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("case", PLANTED, ids=str)
def test_planted_bug_is_caught(case: Planted) -> None:
    """By the named test, with the members' own invariants off, and by the labs' own checks unless
    it says otherwise. Without the bug the same seed is fine."""
    patches = (BUGS | OWN_BUGS)[case.bug]
    for number in range(TRIED):
        with planted(patches):
            found = attempt(case, number, checked=False, judging=case.judging)
        if found:
            assert attempt(case, number) == ""
            return
    pytest.fail(f"{case} is not caught in {TRIED} seeds")


def test_every_lab_test_has_a_planted_bug() -> None:
    marks = ("2A", "2B", "2C", "2D")
    tests = {
        name
        for name, value in globals().items()
        if any(mark.name in marks for mark in getattr(value, "pytestmark", []))
    }
    assert len(tests) == 30
    assert tests == {case.test.__name__ for case in PLANTED}
