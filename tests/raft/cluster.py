"""Members of one group, whose network, clocks and disks obey a script.

Members have numbers. What one says to another is a letter, printed with its number when it leaves;
it waits until it is delivered: once or never, late or again. Each member has a clock of its own,
which moves only when the script says so. A disk is done at once unless it is slow.

After every turn the runner compares all members: one leader a term, the same command applied at
the same index, equal logs up to equal entries, and what a leader commits on the disks of a quorum.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from raft import saying
from raft.drives import Disk
from scripts import TURNS_MAX, command

from engine.contract import (
    Durable,
    Finished,
    Linked,
    Overslept,
    Ready,
    Received,
    Send,
    peer,
)
from engine.kernels.checksum import crc32c
from engine.raft.candidate import Candidate
from engine.raft.leader import Leader
from engine.raft.machine import Raft
from engine.raft.membership import founders, pack
from engine.raft.messages import (
    AppendEntries,
    Change,
    FinishSnapshot,
    Installed,
    Placed,
    Propose,
    Read,
    Room,
    Snapshotted,
    StoreChunk,
    Transfer,
    VoteReply,
    WithEntries,
    WithPiece,
)
from engine.raft.settings import LAN, MILLISECOND, Settings
from engine.raft.snapshots import Kept
from engine.storage.entries import COMMAND
from engine.wire.codec import decode, encode

START = 1000 * MILLISECOND
"""What a clock says in the beginning: it counts from somebody else's."""


class Played:
    """A member: its machine while it is up, its disk, and what it applied."""

    def __init__(self, number: int, config: bytes) -> None:
        self.number = number
        self.address = f"m{number}"
        self.disk = Disk(config)
        self.now = START
        self.life = 0
        self.raft: Raft | None = None
        self.wake_at: int | None = None
        self.held: deque[tuple[int, tuple[Send, ...]]] = deque()
        self.slow = self.lazy = self.spoilt = False
        self.jobs: deque[Any] = deque()
        self.done: deque[Finished] = deque()
        self.receiving: tuple[int, bytearray] = (0, bytearray())
        self.state: list[tuple[int, str]] = []
        """Commands applied, with their indexes."""
        self.applied = 0
        self.shown = ""

    def data(self, last: int) -> bytes:
        """A snapshot's bytes."""
        return " ".join(f"{i}={c}" for i, c in self.state if i <= last).encode()

    def load(self, data: bytes) -> None:
        pairs = [word.split("=") for word in data.decode().split()]
        self.state = [(int(index), what) for index, what in pairs]


class Judge:
    """What must hold between members, whatever happens."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        self.applied: dict[int, str] = {}
        self.followed: dict[tuple[int, int], tuple[int, str]] = {}

    def leads(self, number: int, term: int) -> None:
        first = self.leaders.setdefault(term, number)
        assert first == number, f"{first} and {number} both lead in term {term}"

    def applies(self, index: int, what: str) -> None:
        first = self.applied.setdefault(index, what)
        assert first == what, f"{first} and {what} both applied at {index}"

    def commits(self, raft: Raft, members: Iterable[Played]) -> None:
        """A leader's commit index is on the disks of a quorum; a disk remembers what it lost. What
        was decided before its term may have been by members that it does not know yet."""
        term = raft.log.term(raft.commit)
        if term != raft.term:
            return
        has = {
            m.number
            for m in members
            for disk in [m.disk.durable]
            if disk.base.last >= raft.commit
            or (disk.last >= raft.commit and disk.entry(raft.commit).term == term)
            or disk.lost is not None
        }
        now = raft.members.enough(lambda member: member in has)
        before = raft.members.at(raft.commit)
        half = 2 * len(has & set(before.voters)) > len(before.voters)
        assert now or half, f"{raft} has committed what only {sorted(has)} have"

    def matches(self, members: Iterable[Played]) -> None:
        """Log matching: whoever has an entry of this index and term has it with what precedes."""
        for member in members:
            disk, before = member.disk.written, 0
            for index, entry in enumerate(disk.entries, disk.base.last + 1):
                before = before or disk.base.term
                said = (before, saying.content(entry))
                first = self.followed.setdefault((index, entry.term), said)
                assert first == said, f"{member.number} has {said} at {index}, others {first}"
                before = entry.term


class Cluster:
    """Carries out the commands of one script.

    cluster N | members 2 5 …     members that vote; `set NAME=VALUE…` before changes settings
    join N [ADDRESS]              an empty member, that knows nobody
    campaign N                    its patience ends: only its clock moves
    forget N…                     they have heard no leader for the least time of an election
    elect N                       both, and all is delivered; N must lead; not shown
    win N                         as `elect`, but what it says as a leader never comes
    beat N                        its next heartbeat is due
    tick MS [N…]                  time passes (for these alone)
    live MS                       time passes for all, and all is delivered
    sleeps N MS                   it is stopped so long, then wakes
    deliver K… | lose K…|all      letters, by number; `again K` another copy
    deliver A>B… | lose A>B…      the oldest from A to B; all from A to B
    flow                          all that wait, in order, and what comes of them
    settle                        `flow` and heartbeats of leaders until nobody has news
    cut A B | cut A>B | heal      what is said there vanishes; `isolate N`, `rejoin N`
    slow N | durable N [GROUPS]   its disk waits; so many groups are done (all)
    fast N                        its disk is done at once again
    crash N | restart N           what is not durable is lost
    damage N FROM                 a crashed member's entries from FROM on are lost
    unreadable N LAST             so is its snapshot
    room N yes|no                 space on its disk
    lazy N | work N [untold]      its jobs wait; the next is done (but it is not told)
    spoil N                       the snapshot that it receives will not verify
    agree N X…                    each is proposed, and then all settle; not shown
    propose N X… | read N NAME | change N ID… | transfer N [TO]    in `change`, 4~ is a learner
    snapshot N [LAST]             of what it applied
    link N M up|down              what N sees of its connection to M
    show [N…] | log [N…]          members, and their logs
    count                         messages since the last count, by kind
    quietly COMMAND | briefly COMMAND     prints nothing; only what is done, not what is said
    """

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"timing": LAN}
        self.members: dict[int, Played] = {}
        self.places: dict[str, int] = {}
        self.letters: list[tuple[int, str, Any]] = []
        self.waiting: list[int] = []
        self.cuts: set[tuple[int, int]] = set()
        self.contexts: list[str] = []
        self.configs: dict[tuple[int, int], bytes] = {}
        self.counts: Counter[str] = Counter()
        self.judge = Judge()
        self.brief = False

    # --- turns ---

    def raft(self, number: int | str) -> Raft:
        raft = self.members[int(number)].raft
        assert raft is not None, f"{number} is down"
        return raft

    def up(self, numbers: Iterable[str] = ()) -> list[Played]:
        chosen = [int(n) for n in numbers] or list(self.members)
        return [self.members[n] for n in chosen if self.members[n].raft is not None]

    def turn(self, member: Played, *events: Any) -> list[str]:
        """One turn, as `engine.contract.Server` has it; then whatever its disk and its jobs do."""
        raft = member.raft
        assert raft is not None, f"{member.number} is down"
        member.now += 1
        raft.step(member.now, events)
        raft.check()
        ready = raft.ready()
        raft.check()
        lines = self.carry(member, raft, ready, events)
        if member.disk.pending and not member.slow:
            lines += self.turn(member, Durable(member.disk.settle()))
        while (member.jobs or member.done) and not member.lazy:
            lines += self.work(member)
        return lines

    def carry(self, member: Played, raft: Raft, ready: Ready, events: Any) -> list[str]:
        if ready.writes:
            member.disk.write(ready.writes)
        lines = self.news(member, raft)
        for send in ready.now:
            lines += self.post(member, send)
        if ready.after:
            member.held.append((member.disk.tickets, ready.after))
        durable = max([e.ticket for e in events if isinstance(e, Durable)], default=0)
        if not member.disk.pending:
            durable = max(durable, member.disk.tickets)
        while member.held and member.held[0][0] <= durable:
            for send in member.held.popleft()[1]:
                lines += self.post(member, send)
        member.jobs += ready.jobs
        member.wake_at = ready.wake_at
        lines += self.outcomes(member, ready)
        self.judge.matches(self.members.values())
        if isinstance(raft.role, Leader):
            self.judge.leads(member.number, raft.term)
            self.judge.commits(raft, self.members.values())
        return lines

    def news(self, member: Played, raft: Raft) -> list[str]:
        now = saying.role(raft)
        if now == member.shown:
            return []
        before, member.shown = member.shown, now
        if now.startswith("follows") and before[:7] in ("", "follows"):
            return []
        return [f"{member.number} {now}"]

    def outcomes(self, member: Played, ready: Ready) -> list[str]:
        lines, who = [], member.number
        for span in ready.applies:
            if span.load:
                member.load(member.disk.snapshot(span.after))
                member.applied = span.after
                lines.append(f"{who} loads snapshot {span.after}")
            for index in range(member.applied + 1, span.last + 1):
                entry = member.disk.written.entry(index)
                self.judge.applies(index, saying.content(entry))
                if entry.kind == COMMAND:
                    member.state.append((index, saying.content(entry)))
            if span.last > member.applied:
                first, member.applied = member.applied + 1, span.last
                what = [member.disk.written.entry(i) for i in range(first, span.last + 1)]
                text = " ".join(map(saying.content, what))
                lines.append(f"{who} applies {first}: {text}")
        for answer in ready.answers:
            name = self.contexts[answer.context - 1]
            if isinstance(answer, Placed):
                lines.append(f"{who} places {name} at {answer.first}@{answer.term}")
            else:
                ask = f", ask {answer.leader}" if answer.leader else ""
                lines.append(f"{who} refuses {name}: {answer.why}{ask}")
        for read in ready.reads:
            lines.append(f"{who} reads {self.contexts[read.context - 1]} at {read.last}")
        return lines

    # --- letters ---

    def post(self, member: Played, send: Send) -> list[str]:
        said = send.message
        if isinstance(said, WithEntries):
            ask, disk = said.message, member.disk.written
            span = range(ask.previous + 1, said.last + 1)
            said = ask._replace(entries=tuple([disk.entry(index) for index in span]))
        elif isinstance(said, WithPiece):
            piece = said.message
            data = member.disk.snapshot(piece.last)[piece.offset : piece.offset + said.size]
            said = piece._replace(data=data)
        kind, body = encode(said)
        assert decode(kind, body) == said, "it does not survive the wire"
        self.promise(member, said)
        name = type(said).__name__
        self.counts["beats" if isinstance(said, AppendEntries) and not said.entries else name] += 1
        receiver = self.places.get(send.link.principal, 0)
        if (member.number, receiver) in self.cuts:
            return []
        self.letters.append((member.number, send.link.principal, said))
        self.waiting.append(len(self.letters))
        if self.brief:
            return []
        return [f"{len(self.letters)} {member.number}→{receiver}: {saying.message(said)}"]

    def promise(self, member: Played, said: Any) -> None:
        """No vote, and no term of one's own, is said before it is on the disk."""
        disk = member.disk.durable
        if isinstance(said, VoteReply) and said.granted and not said.pre:
            kept = (disk.term, disk.vote) == (said.term, said.to) or disk.term > said.term
            assert kept, f"{member.number} says it voted, and its disk does not know"

    def arrives(self, number: int) -> list[str]:
        sender, address, said = self.letters[number - 1]
        if number in self.waiting:
            self.waiting.remove(number)
        receiver = self.members.get(self.places.get(address, 0))
        if receiver is None or receiver.raft is None:
            return []
        return self.turn(receiver, Received(peer(self.members[sender].address), said))

    # --- commands: the members ---

    def run(self, line: str) -> list[str]:
        words = line.split()
        printed: list[str] = command(self, words[0])(*words[1:])
        return printed

    def do_set(self, *words: str) -> list[str]:
        self.settings |= {name: int(value) for name, value in (w.split("=") for w in words)}
        return []

    def do_cluster(self, count: str) -> list[str]:
        return self.do_members(*map(str, range(1, int(count) + 1)))

    def do_members(self, *numbers: str) -> list[str]:
        config = pack(founders({int(n): f"m{n}" for n in numbers}))
        for number in numbers:
            self.begin(Played(int(number), config))
        return []

    def do_join(self, number: str, address: str = "") -> list[str]:
        member = Played(int(number), b"")
        member.address = address or member.address
        self.begin(member)
        return []

    def begin(self, member: Played) -> None:
        self.members[member.number] = member
        self.places[member.address] = member.number
        self.do_restart(str(member.number))

    def do_restart(self, number: str) -> list[str]:
        member = self.members[int(number)]
        member.life += 1
        kept = [one for one, _ in member.disk.snapshots]
        settings = Settings(me=member.number, **self.settings)
        seed = random.Random(100 * member.number + member.life)
        member.raft = Raft(settings, member.disk.durable.recovered(), kept, seed)
        member.state, member.applied = [], 0
        member.shown = ""
        return self.turn(member)

    def do_crash(self, *numbers: str) -> list[str]:
        for member in self.up(numbers):
            member.raft = member.wake_at = None
            member.disk.lose_power()
            member.held.clear()
            member.jobs.clear()
            member.done.clear()
            member.receiving = (0, bytearray())
        return []

    def do_damage(self, number: str, first: str) -> list[str]:
        member = self.members[int(number)]
        assert member.raft is None, "it is up"
        member.disk.durable.damage(int(first))
        member.disk.lose_power()
        return []

    def do_unreadable(self, number: str, last: str) -> list[str]:
        disk = self.members[int(number)].disk
        disk.snapshots = [one for one in disk.snapshots if one[0].last != int(last)]
        return []

    # --- commands: time ---

    def do_campaign(self, number: str) -> list[str]:
        member, lines = self.members[int(number)], []
        for _ in range(TURNS_MAX):
            assert member.wake_at is not None
            member.now = max(member.now, member.wake_at)
            lines += self.turn(member)
            if isinstance(self.raft(number).role, Candidate | Leader):
                return lines
            if not self.raft(number).electable():
                return lines
        raise AssertionError("it never asks")

    def do_forget(self, *numbers: str) -> list[str]:
        for member in self.up(numbers):
            raft = self.raft(member.number)
            member.now = max(member.now, raft.heard + raft.settings.timing.election_min)
        return []

    def do_elect(self, number: str) -> list[str]:
        self.do_forget(
            *[str(m.number) for m in self.up() if not isinstance(self.raft(m.number).role, Leader)]
        )
        self.brief = True
        try:
            self.do_campaign(number)
            self.do_flow()
        finally:
            self.brief = False
        assert isinstance(self.raft(number).role, Leader), f"{number} does not lead"
        return [f"{number} {saying.role(self.raft(number))}"]

    def do_win(self, number: str) -> list[str]:
        self.do_forget(
            *[str(m.number) for m in self.up() if not isinstance(self.raft(m.number).role, Leader)]
        )
        self.do_campaign(number)
        while self.waiting and not isinstance(self.raft(number).role, Leader):
            self.arrives(self.waiting[0])
        assert isinstance(self.raft(number).role, Leader), f"{number} does not lead"
        self.do_lose("all")
        return [f"{number} {saying.role(self.raft(number))}"]

    def do_live(self, milliseconds: str) -> list[str]:
        lines: list[str] = []
        for _ in range(0, int(milliseconds), 5):
            lines += self.do_tick("5") + self.do_flow()
        return lines

    def do_beat(self, *numbers: str) -> list[str]:
        lines = []
        for member in self.up(numbers):
            assert isinstance(member.raft, Raft)
            member.now += member.raft.settings.timing.heartbeat
            lines += self.turn(member)
        return lines

    def do_tick(self, milliseconds: str, *numbers: str) -> list[str]:
        """Whoever wants to wake meanwhile does, in order of what is left."""
        lines: list[str] = []
        members = self.up(numbers)
        ends = {m.number: m.now + int(float(milliseconds) * MILLISECOND) for m in members}
        for _ in range(TURNS_MAX):
            due = [
                (m.wake_at - ends[m.number], m.number)
                for m in members
                if m.wake_at is not None and m.wake_at <= ends[m.number]
            ]
            if not due:
                break
            member = self.members[min(due)[1]]
            assert member.wake_at is not None
            member.now = max(member.now, member.wake_at)
            lines += self.turn(member)
        else:
            raise AssertionError("it never ends")
        for member in members:
            member.now = max(member.now, ends[member.number])
        return lines

    def do_sleeps(self, number: str, milliseconds: str) -> list[str]:
        member = self.members[int(number)]
        wake_at = member.wake_at
        member.now += int(milliseconds) * MILLISECOND
        if wake_at is None or member.now <= wake_at:
            return self.turn(member)
        return self.turn(member, Overslept(member.now - wake_at))

    # --- commands: the network ---

    def do_deliver(self, *numbers: str) -> list[str]:
        lines: list[str] = []
        for word in numbers:
            chosen = self.between(word)[0] if ">" in word else int(word)
            lines += self.arrives(chosen)
        return lines

    do_again = do_deliver

    def do_lose(self, *numbers: str) -> list[str]:
        for word in numbers:
            chosen = self.between(word) if ">" in word else [*self.waiting]
            for number in [int(word)] if word.isdigit() else chosen:
                self.waiting.remove(number)
        return []

    def between(self, word: str) -> list[int]:
        """Letters that wait, from one to another."""
        sender, receiver = map(int, word.split(">"))
        address = self.members[receiver].address
        return [k for k in self.waiting if self.letters[k - 1][:2] == (sender, address)]

    def do_flow(self) -> list[str]:
        lines = []
        for _ in range(TURNS_MAX):
            if not self.waiting:
                return lines
            lines += self.arrives(self.waiting[0])
        raise AssertionError("it never ends")

    def do_settle(self) -> list[str]:
        lines = self.do_flow()
        for _ in range(TURNS_MAX):
            leaders = [m for m in self.up() if isinstance(self.raft(m.number).role, Leader)]
            before = [(m.state[:], self.told(m)) for m in self.up()]
            for leader in leaders:
                leader.now += LAN.heartbeat
                lines += self.turn(leader)
            lines += self.do_flow()
            if before == [(m.state, self.told(m)) for m in self.up()]:
                return lines
        raise AssertionError("it never ends")

    def told(self, member: Played) -> Any:
        raft = self.raft(member.number)
        known = getattr(raft.role, "progress", {})
        return raft.commit, raft.log.last, [(p.match, p.state, p.next) for p in known.values()]

    def do_cut(self, *pairs: str) -> list[str]:
        if ">" in pairs[0]:
            self.cuts |= {(int(a), int(b)) for a, b in (pair.split(">") for pair in pairs)}
        else:
            a, b = map(int, pairs)
            self.cuts |= {(a, b), (b, a)}
        return []

    def do_isolate(self, *numbers: str) -> list[str]:
        for number in map(int, numbers):
            others = set(self.members) - {int(n) for n in numbers}
            self.cuts |= {(number, other) for other in others}
            self.cuts |= {(other, number) for other in others}
        return []

    def do_rejoin(self, *numbers: str) -> list[str]:
        self.cuts = {pair for pair in self.cuts if not {*pair} & {*map(int, numbers)}}
        return []

    def do_heal(self) -> list[str]:
        self.cuts.clear()
        return []

    def do_link(self, number: str, other: str, state: str) -> list[str]:
        link = peer(self.members[int(other)].address)
        return self.turn(self.members[int(number)], Linked(link, state == "up"))

    # --- commands: disks and jobs ---

    def do_slow(self, *numbers: str) -> list[str]:
        for number in numbers:
            self.members[int(number)].slow = True
        return []

    def do_fast(self, number: str) -> list[str]:
        self.members[int(number)].slow = False
        return self.do_durable(number)

    def do_durable(self, number: str, groups: str = "") -> list[str]:
        member, lines = self.members[int(number)], []
        for _ in range(int(groups or len(member.disk.pending))):
            if member.disk.pending:  # a turn of a fast disk settles all that is there
                lines += self.turn(member, Durable(member.disk.settle()))
        return lines

    def do_room(self, number: str, enough: str) -> list[str]:
        return self.turn(self.members[int(number)], Room(enough == "yes"))

    def do_lazy(self, number: str) -> list[str]:
        self.members[int(number)].lazy = True
        return []

    def do_spoil(self, number: str) -> list[str]:
        self.members[int(number)].spoilt = True
        return []

    def do_work(self, number: str, untold: str = "") -> list[str]:
        return self.work(self.members[int(number)], told=not untold)

    def work(self, member: Played, *, told: bool = True) -> list[str]:
        """The next job is done, and the member hears of it."""
        if member.jobs:
            job = member.jobs.popleft()
            member.done.append(self.finish(member, job.number, job.work))
        return self.turn(member, member.done.popleft()) if told else []

    def finish(self, member: Played, number: int, work: Any) -> Finished:
        last, received = member.receiving
        if isinstance(work, StoreChunk):
            if last != work.last:
                last, received = member.receiving = (work.last, bytearray())
            if work.offset == len(received):
                received += work.data
            return Finished(number, len(received))
        assert isinstance(work, FinishSnapshot), work
        member.receiving = (0, bytearray())
        if member.spoilt:
            member.spoilt = False
            return Finished(number, error="it does not verify")
        config = self.configs[work.last, work.term]
        kept = Kept(work.last, work.term, config, len(received))
        member.disk.keep(kept, bytes(received))
        return Finished(number, Installed(*kept))

    # --- commands: what a server asks ---

    def context(self, name: str) -> int:
        self.contexts.append(name)
        return len(self.contexts)

    def do_propose(self, number: str, *words: str) -> list[str]:
        commands = tuple([(crc32c(word.encode()), word.encode()) for word in words])
        ask = Propose(self.context(words[0]), commands)
        return self.turn(self.members[int(number)], ask)

    def do_agree(self, number: str, *words: str) -> list[str]:
        for word in words:
            self.do_propose(number, word)
        self.do_settle()
        return []

    def do_read(self, number: str, name: str) -> list[str]:
        return self.turn(self.members[int(number)], Read(self.context(name)))

    def do_change(self, number: str, *wanted: str) -> list[str]:
        ids = [(int(word.rstrip("~")), word[-1] != "~") for word in wanted]
        places = {m.number: m.address for m in self.members.values()}
        members = tuple([(n, places.get(n, f"m{n}"), votes) for n, votes in ids])
        return self.turn(self.members[int(number)], Change(self.context("members"), members))

    def do_transfer(self, number: str, target: str = "0") -> list[str]:
        ask = Transfer(self.context("to hand over"), int(target))
        return self.turn(self.members[int(number)], ask)

    def do_snapshot(self, number: str, last: str = "") -> list[str]:
        member, raft = self.members[int(number)], self.raft(number)
        index = int(last or member.applied)
        data, term = member.data(index), raft.log.term(index)
        config = self.configs[index, term] = pack(raft.members.at(index))
        member.disk.keep(Kept(index, term, config, len(data)), data)
        return self.turn(member, Snapshotted(index, len(data)))

    # --- commands: looking ---

    def do_show(self, *numbers: str) -> list[str]:
        lines = []
        for number in [int(n) for n in numbers] or sorted(self.members):
            member = self.members[number]
            if member.raft is None:
                disk = member.disk.durable
                terms = " ".join(str(e.term) for e in disk.entries) or "empty"
                base = f"{disk.base.last}@{disk.base.term}| " if disk.base.last else ""
                vote = disk.vote or "-"
                lines.append(f"{number} is down, term {disk.term}, vote {vote}, log {base}{terms}")
                continue
            state = " ".join(what for _, what in member.state)
            lines.append(f"{number} {saying.state(member.raft)}" + (f": {state}" if state else ""))
        return lines

    def do_log(self, *numbers: str) -> list[str]:
        chosen = [int(n) for n in numbers] or sorted(self.members)
        disks = [(n, self.members[n].disk.written) for n in chosen]
        return [
            f"{n} {f'{disk.base.last}| ' if disk.base.last else ''}"
            f"{saying.entries(tuple(disk.entries)) or 'empty'}"
            for n, disk in disks
        ]

    def do_count(self) -> list[str]:
        counts, self.counts = self.counts, Counter()
        return [", ".join(f"{name} {n}" for name, n in sorted(counts.items())) or "nothing"]

    def do_quietly(self, *words: str) -> list[str]:
        self.run(" ".join(words))
        return []

    def do_briefly(self, *words: str) -> list[str]:
        self.brief = True
        try:
            return self.run(" ".join(words))
        finally:
            self.brief = False
