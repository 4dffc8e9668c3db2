"""The Raft labs' tests, as what happens in them: for any lab that has what `Tester` has.

They are those of MIT's lab 2 of 2021 and of its later years (3A to 3D there), with their numbers:
servers, rounds, times, counts and bytes of calls, sizes of state. `test_raft` plays them in the
simulator, over many seeds; `test_raft_processes` with real processes. Each docstring says what is
asked for beyond the lab. A leader of ours begins its term with an entry of its own, so numbers are
those of commands, not indexes.

`rounds` is how often a scene does what it does; the lab's number is the default.
"""

from __future__ import annotations

from collections.abc import Callable

from raft_common import ELECTION, LOG_BYTES_MAX, SNAPSHOT_EVERY, Steps, Tester

from engine.contract import Nanos
from engine.sim.timeline import MILLISECOND

Make = Callable[..., Tester]
"""`make(servers, unreliable=…, snapshots=…, …)`: a group that has just been started."""

HEARTBEATS = 10
"""Of a leader to each follower, in a second."""


# --- 2A: elections -------------------------------------------------------------------------------


def initial_election(make: Make) -> None:
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


def re_election(make: Make) -> None:
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


def many_elections(make: Make, rounds: int = 9) -> None:
    """Nine times, up to three of seven are cut off. At the end of each round, and of the test, all
    must have come to one term: the lab only counts leaders."""
    lab = make(7)
    lab.check_one_leader()
    for _ in range(rounds):
        off = [lab.rng.randrange(7) for _ in range(3)]
        lab.disconnect(*off)
        lab.check_one_leader()
        lab.connect(*off)
        lab.run_for(ELECTION)
        lab.check_terms()
    leader = lab.check_one_leader()
    assert [at for at in range(7) if lab.state(at)[1]] == [leader]


# --- 2B: agreement -------------------------------------------------------------------------------


def basic_agree(make: Make) -> None:
    """Three commands are 1, 2 and 3, and nothing is decided before it is asked for. Here each is
    agreed on at the first try."""
    lab = make(3)
    for number in range(1, 4):
        assert lab.n_committed(number) == (0, None)
        body = lab.command()
        lab.check_one_leader()
        assert lab.one(3, retry=False, body=body) == number
        assert lab.n_committed(number) == (3, body)


def rpc_bytes(make: Make) -> None:
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


def follower_failure(make: Make) -> None:
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


def leader_failure(make: Make) -> None:
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


def fail_agree(make: Make) -> None:
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


def fail_no_agree(make: Make) -> None:
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


def concurrent_starts(make: Make) -> None:
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


def rejoin(make: Make) -> None:
    """What a leader took while it was alone vanishes when it comes back."""
    lab = make(3)
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


def backup(make: Make) -> None:
    """Two minorities come back with 50 entries each that the others never heard of. Backing up
    takes a call or two for each term; the lab only notices if that takes ten seconds, which it
    never does on a fast network, so here rejections are counted, or the new leader's calls."""
    lab = make(5)
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
    rejected, requests, since = lab.rejected(), lab.rpc_count(away), lab.now()
    lab.one(3)
    idle = 4 * HEARTBEATS * (lab.now() - since)
    used = lab.rpc_count(away) - requests - int(idle)
    for _ in range(49):
        lab.one(3)
    lab.connect_all()
    lab.one(5)
    terms = max(lab.state(at)[0] for at in range(5))
    if rejected is not None:
        rejected = lab.rejected() - rejected
        assert rejected <= 2 * terms, f"{rejected} rejections in {terms} terms"
    else:
        assert used <= 60, f"{used} calls, beside heartbeats, to be elected and back two logs up"
    assert all(len(lab.log(at)) == 102 for at in range(5))


def count(make: Make) -> None:
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
    for _ in range(5):
        leader = lab.check_one_leader()
        term, before = lab.state(leader)[0], [lab.rpc_count(at) for at in range(3)]
        lab.run_for(ELECTION)
        sent = [lab.rpc_count(at) - before[at] for at in range(3)]
        if lab.state(leader) == (term, True):  # else an election was in that second
            break
    else:
        raise AssertionError("five leaders in five idle seconds")
    assert sum(sent) <= 3 * 20, f"{sent} calls in an idle second"
    assert sent[leader] == max(sent), f"{sent}: server {leader} leads, and sends most"


def paused_leader(make: Make) -> None:
    """Beyond the labs, which cannot stop a process: a leader sleeps while another is elected, and
    wakes to commands that it was given meanwhile. It must not believe that it still leads."""
    lab = make(3)
    lab.one(3)
    leader = lab.check_one_leader()
    lab.pause(leader, lab.patience(3.0))
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


def persist1(make: Make) -> None:
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


def persist2(make: Make, rounds: int = 5) -> None:
    """Five rounds, in which those that go on are never those that went on before."""
    lab = make(5)
    for _ in range(rounds):
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


def persist3(make: Make) -> None:
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


def offered(lab: Tester, among: Callable[[int], bool]) -> int:
    """A new command for every live server; the last of these that took it, or -1."""
    body = lab.command()
    contexts = {at: lab.offer(at, body) for at in range(lab.servers) if lab.is_up(at)}
    lab.carry_out(lab.settled(contexts.values()))
    took = [at for at, context in contexts.items() if among(at) and lab.placed(context).leads]
    return max(took, default=-1)


def pause(lab: Tester) -> None:
    """Mostly so short that a leader has told nobody, sometimes half an election."""
    long = lab.rng.randrange(1000) < 100
    lab.run_for(lab.rng.randrange(500 if long else 13) / 1000)


def figure8(make: Make, rounds: int = 1000) -> None:
    """A thousand times, whoever leads dies as soon as it has taken a command, as in the paper's
    figure 8. Half of the crashes also lose what no fsync covers; messages and disks are slow, so
    that there is more that a crash can come between."""
    lab = make(5, delay=8 * MILLISECOND, disk=2 * MILLISECOND)
    lab.one(1)
    for _ in range(rounds):
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


def figure8_itself(lab: Tester) -> bool:
    """The paper's figure 8. False if something was so late that it did not come about."""
    before = len(lab.log(0))
    one = lab.check_one_leader()
    two, three, four, five = [(one + ahead) % 5 for ahead in (1, 2, 3, 4)]
    # (a) 1 leads, and 2 alone is given the entry.
    lab.disconnect(three, four, five)
    vain = lab.command()
    assert lab.start_command(one, vain).leads
    index = lab.last(one)
    assert lab.until(lambda: lab.durable(two) == index, 1.0)
    # (b) 1 and 2 are away. Another, here called 5, is elected, and alone knows its first entry.
    lab.crash(one)
    lab.disconnect(two)
    lab.connect(three, four, five)
    assert lab.until(lambda: any(lab.state(at)[1] for at in (three, four, five)), 10.0)
    five = next(at for at in (three, four, five) if lab.state(at)[1])
    three, four = [at for at in range(5) if at not in (one, two, five)]
    lab.disconnect(five)
    assert lab.until(lambda: lab.durable(five) == index, 1.0)
    lab.crash(five)
    # (c) 1 or 2 is elected, by each other and 3, and gives 3 the old entry, but not yet its own.
    lab.disconnect(four)
    lab.restart(one)
    lab.connect(two)
    if not lab.until(lambda: lab.gave(three, index), 10.0) or lab.last(three) != index:
        return False
    # (d) 5 replaces it.
    lab.disconnect(one, two)
    lab.restart(five)
    lab.connect(four)
    lab.one(3)
    lab.connect_all()
    lab.one(5)
    for at in range(5):
        assert len(lab.log(at)) == before + 2
        assert vain not in lab.log(at)
    return True


def figure8_step_by_step(make: Make, delay: Nanos = 5 * MILLISECOND, tries: int = 1) -> None:
    """The paper's figure 8 itself, beyond the lab, which hopes that it comes about. An entry of an
    earlier term gets to a majority, and nothing of the present term does: it is not decided, for
    another leader replaces it."""
    lab = make(5, entries_max=1, delay=delay)
    lab.one(5)
    for _ in range(tries):
        if figure8_itself(lab):
            return
        lab.restart(*[at for at in range(5) if not lab.is_up(at)])
        lab.connect_all()
        lab.one(5)
    raise AssertionError("it did not come about")


def unreliable_agree(make: Make, rounds: int = 49) -> None:
    """Five commands at once, 49 times, on a network that loses a fifth of the calls."""
    lab = make(5, unreliable=True)
    going: list[Callable[[], bool]] = []
    for _ in range(rounds):
        bodies = [lab.command() for _ in range(5)]
        going += [lab.together(lab.agreeing(body, 1, True)) for body in bodies[1:]]
        lab.one(1, body=bodies[0])
    lab.set_unreliable(False)
    assert lab.until(lambda: all(ended() for ended in going), 20.0)
    lab.one(5)
    assert all(len(set(lab.log(at))) == 5 * rounds + 1 for at in range(5))


def figure8_unreliable(make: Make, rounds: int = 1000) -> None:
    """Leaders are cut off instead, half of the time, and from the 200th time on replies come so
    late that they belong to another time."""
    lab = make(5, unreliable=True)
    lab.one(1)
    for turn in range(rounds):
        if turn == rounds // 5:
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

    def __init__(self, lab: Tester) -> None:
        self.lab = lab
        self.over = False
        self.seen: list[bytes] = []

    def client(self, me: int) -> Steps:
        lab = self.lab
        while not self.over:
            body = lab.command()
            contexts = [lab.offer(at, body) for at in range(lab.servers) if lab.is_up(at)]
            yield from lab.settled(contexts)
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


def churn(lab: Tester, rounds: int, *, unreliable: bool) -> None:
    """What was seen decided stays, though servers are cut off, die and start again. Beyond the lab,
    the logs of all must be equal, and no client may have seen nothing."""
    load = Churn(lab)
    ended = lab.together(*[load.client(me) for me in range(3)])
    rng = lab.rng
    for _ in range(rounds):
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
    assert len(load.seen) > rounds * (1 if unreliable else 5)


def reliable_churn(make: Make, rounds: int = 20) -> None:
    """Three clients, while servers come and go; see `churn`."""
    churn(make(5), rounds, unreliable=False)


def unreliable_churn(make: Make, rounds: int = 20) -> None:
    """The same on a network that loses calls."""
    churn(make(5, unreliable=True), rounds, unreliable=True)


def asked_twice(lab: Tester, apart: int) -> bool:
    """One of the other two votes for its fellow, dies, and is asked by this one for its vote in the
    same term. False if that did not come about."""
    near = [at for at in range(3) if at != apart]
    lab.disconnect(0, 1, 2)
    assert lab.until(lambda: all(lab.role(at)[0] == "candidate" for at in range(3)), 10.0)
    lab.connect(*near)
    assert lab.until(lambda: led(lab, *near) >= 0, 10.0)
    lab.disconnect(*near)  # before the voter hears what it says as a leader: links are slow
    leader = led(lab, *near)
    voter, term = sum(near) - leader, lab.role(leader)[1]
    lab.restart(voter)
    if lab.role(apart) != ("candidate", term - 1) or lab.last(voter) != lab.last(apart):
        return False
    lab.connect(apart)
    assert lab.until(lambda: led(lab, voter, apart) >= 0, 10.0)
    after = lab.role(led(lab, voter, apart))
    assert after != ("leader", term), f"{leader} and {apart} both were given term {term}"
    return True


def led(lab: Tester, *servers: int) -> int:
    """Which of these leads; -1 if none does."""
    return next((at for at in servers if lab.role(at)[0] == "leader"), -1)


def vote_outlives_crash(make: Make, rounds: int = 3, delay: Nanos = 50 * MILLISECOND) -> None:
    """Beyond the lab, which hopes that it comes about: whoever voted, and starts again, does not
    vote for another candidate of the same term."""
    lab = make(3, delay=delay)
    lab.one(3)
    happened = 0
    for turn in range(10 * rounds + 15):
        happened += asked_twice(lab, turn % 3)
        lab.connect_all()
        lab.check_one_leader()
        if happened == rounds:
            break
    assert happened == rounds, f"{happened} of {rounds} came about"
    lab.one(3)


# --- 2D: snapshots -------------------------------------------------------------------------------


def snapshots(lab: Tester, rounds: int, *, off: str = "") -> None:
    """Thirty rounds of some ten commands, of which every tenth makes a snapshot; live logs stay
    under 2000 bytes. `off`: what happens to a server meanwhile, "cut" or "crash". Beyond the lab,
    disks stay small as well. Our logs go
    back to the snapshot before the newest, so in the last round 30 commands more are given: whoever
    was off needs a snapshot then."""
    everybody, present = lab.servers, lab.servers - bool(off)
    lab.one(everybody)
    leader = lab.check_one_leader()
    for turn in range(rounds):
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
        for _ in range(3 * SNAPSHOT_EVERY if off and turn == rounds - 1 else 0):
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
        disk, most = lab.disk_bytes(), lab.disk_max if off != "crash" else lab.crashed_disk_max
        assert disk < most, f"{disk} bytes on a disk in round {turn}"
    logs = {tuple(lab.log(at)) for at in range(3)}
    assert len(logs) == 1
    assert len(logs.pop()) > rounds * SNAPSHOT_EVERY // 2


def snapshot_basic(make: Make, rounds: int = 30) -> None:
    """Nobody is off, so nobody needs to be sent a snapshot."""
    lab = make(3, snapshots=True)
    snapshots(lab, rounds)
    assert not lab.installs()


def snapshot_install(make: Make, rounds: int = 30) -> None:
    """One is cut off in every round; in every third it was the leader."""
    lab = make(3, snapshots=True)
    snapshots(lab, rounds, off="cut")
    assert lab.loads()


def snapshot_install_unreliable(make: Make, rounds: int = 30) -> None:
    """The same on a network that loses calls."""
    lab = make(3, snapshots=True, unreliable=True)
    snapshots(lab, rounds, off="cut")
    assert lab.loads()


def snapshot_install_crash(make: Make, rounds: int = 30) -> None:
    """One dies in every round, and begins from its own snapshot."""
    lab = make(3, snapshots=True)
    snapshots(lab, rounds, off="crash")
    assert lab.loads()


def snapshot_install_un_crash(make: Make, rounds: int = 30) -> None:
    """The same on a network that loses calls."""
    lab = make(3, snapshots=True, unreliable=True)
    snapshots(lab, rounds, off="crash")
    assert lab.loads()


def snapshot_all_crash(make: Make, *, unreliable: bool) -> None:
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


def snapshot_init(make: Make, *, unreliable: bool, before: int) -> None:
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
