"""The Raft labs' harness on the simulator: a quiet group, in virtual time, that tests attack.

The labs' tester is `raft_common.Tester`. Here are its servers in virtual time, counts and bytes of
calls, and the network of labrpc with its loss, its delays and its long reordering. A call that
would fail after up to seven seconds is silence here.
The members run the shipped machine, turn, codec, log and snapshots, and the trial's judge looks at
every event, unless a test wants to know what the lab's own checks find.

Servers have numbers from 0. A command's *number* counts commands from 1, as the labs' indexes do
where a leader adds no entry of its own; its index in the log is larger by the leaders' no-ops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any

from raft_common import NOT_TAKEN, SNAPSHOT_EVERY, Start, Steps, Tester

from engine.contract import SECOND, Nanos
from engine.kernels.checksum import crc32c
from engine.raft.leader import Leader
from engine.raft.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    Placed,
    TimeoutNow,
    VoteRequest,
)
from engine.raft.settings import LABS
from engine.raft.trial import RaftCluster
from engine.raft.trial_judge import Judge
from engine.raft.trial_node import GROUP, Node
from engine.sim.cluster import Process
from engine.sim.network import Network, NetworkFaults
from engine.sim.timeline import MILLISECOND, Timeline
from engine.sim.weather import LABRPC_REORDERING, LABRPC_UNRELIABLE, Weather
from engine.storage.entries import COMMAND, Append, Entry, GroupLog
from engine.wire.codec import encode, registered

if TYPE_CHECKING:
    from engine.contract import Link
    from engine.raft.messages import Refused

ANSWERED = 0.0001
"""Until a server that was asked has had its turn."""
REQUESTS = (VoteRequest, AppendEntries, InstallSnapshot, TimeoutNow)
REQUEST_KINDS = {kind for kind, message in registered().items() if message in REQUESTS}


class LabNetwork(Network):
    """The simulator's, or with a weather labrpc's: calls that are lost, late and out of order."""

    def __init__(self, timeline: Timeline, faults: NetworkFaults) -> None:
        super().__init__(timeline, faults)
        self.weather: Weather | None = None

    def send(
        self, pipe: Hashable, deliver: Callable[[Any], None], message: Any, *, once: bool = False
    ) -> None:
        if self.weather is None:
            super().send(pipe, deliver, message, once=once)
            return
        rng = self.timeline.rng
        request = message[0] in REQUEST_KINDS
        fates = self.weather.request_fates(rng) if request else self.weather.reply_fates(rng)
        for delay in fates:
            self.timeline.after(delay + self.timeline.spread(MILLISECOND // 10), deliver, message)


class LabJudge(Judge):
    """The trial's judge, and the labs' books: what each server applied, by number."""

    def __init__(self, cluster: RaftLab, judging: bool) -> None:
        super().__init__(cluster)
        self.judging = judging
        self.logs: dict[str, list[bytes]] = {}
        """Of each server in its present life: the commands that it applied, or loaded."""
        self.reached: Counter[str] = Counter()
        """The last index that each has applied."""
        self.entries: list[tuple[int, bytes]] = [(0, b"")]
        """By index: kind and body, as the first server applied it."""
        self.commands: list[bytes] = []
        self.counts, self.digests = [0], [0]
        """By index: commands up to there, and a sum over them."""
        self.numbers: dict[tuple[int, int], int] = {(0, 0): 0}
        """Commands up to an entry, by the entry's index and term, decided or not."""

    def begins(self, name: str) -> None:
        """A life: what was applied before was lost with the memory."""
        self.logs[name] = []
        self.reached[name] = 0

    # --- the trial's judge -----------------------------------------------------------------------

    def recovered(self, node: Node, found: GroupLog) -> None:
        if self.judging:
            super().recovered(node, found)

    def written(self, node: Node, records: list[Any]) -> None:
        if self.judging:
            super().written(node, records)
        for record in records:
            if type(record) is Append:
                self._number(node, record)

    def durable(self, node: Node, ticket: int) -> None:
        if self.judging:
            super().durable(node, ticket)

    def said(self, node: Node, message: Any) -> None:
        if self.judging:
            super().said(node, message)

    def look(self, node: Node) -> None:
        if self.judging:
            super().look(node)

    # --- the labs' books -------------------------------------------------------------------------

    def _number(self, node: Node, record: Append) -> None:
        """Whoever leads places an entry first, behind entries that were placed before."""
        before = record.first - 1
        count = self.numbers.get((before, node.raft.log.term(before)))
        if count is None:
            return
        for index, entry in enumerate(record.entries, record.first):
            count += entry.kind == COMMAND
            self.numbers.setdefault((index, entry.term), count)

    def applied(self, node: Node, index: int, entry: Entry) -> None:
        """Every server applies the same, in order, and leaves none out."""
        if self.judging:
            super().applied(node, index, entry)
        name, last = node.name, self.reached[node.name]
        assert index == last + 1, f"{name} applies {index} after {last}"
        self.reached[name] = index
        if index == len(self.entries):
            self._decide(entry)
        what = (entry.kind, entry.body)
        known = self.entries[index]
        assert known == what, f"{name} applies {what} at {index}, and another applied {known}"
        if entry.kind == COMMAND:
            self.logs[name].append(entry.body)

    def _decide(self, entry: Entry) -> None:
        self.entries.append((entry.kind, entry.body))
        command = entry.kind == COMMAND
        self.counts.append(self.counts[-1] + command)
        digest = self.digests[-1]
        self.digests.append(crc32c(entry.body, digest) if command else digest)
        if command:
            self.commands.append(entry.body)

    def loaded(self, node: Node, before: int, index: int, digest: int) -> None:
        """A snapshot is what a replay gives, and never takes a server back."""
        if self.judging:
            super().loaded(node, before, index, digest)
        name, last = node.name, self.reached[node.name]
        assert index >= last, f"{name} loads a snapshot of {index}, and has applied {last}"
        fine = index < len(self.digests) and self.digests[index] == digest
        assert fine, f"{name} loads a snapshot of {index} that no replay gives"
        self.reached[name] = index
        self.logs[name] = self.commands[: self.counts[index]]
        self.cluster.seen["loaded"] += 1


class RaftLab(Tester, RaftCluster):
    """A group of so many servers; AssertionError for whatever does not hold."""

    judge: LabJudge
    network: LabNetwork
    disk_max, crashed_disk_max = 32 << 10, 40 << 10
    """What a log of a few dozen small entries takes on a disk, with spares and snapshots, and what
    it takes if its process starts again and again: every start begins a segment."""

    def __init__(
        self,
        seed: int,
        servers: int,
        *,
        unreliable: bool = False,
        snapshots: bool = False,
        entries_max: int = 1024,
        delay: Nanos = MILLISECOND // 10,
        disk: Nanos = MILLISECOND // 5,
        checked: bool = True,
        judging: bool = True,
    ) -> None:
        """`entries_max`: of one message. `delay`, `disk`: how long a message and a sync take, mean.
        `checked`: assert the machines' own invariants after every turn. `judging`: let the
        trial's judge look at every event."""
        shape = {
            "members": servers,
            "spares": 0,
            "timing": LABS,
            "entries_max": entries_max,
            "delay": delay,
            "snapshot_every": SNAPSHOT_EVERY if snapshots else 0,
            "segment_bytes": 4096,
            "uncommitted_max": 1 << 20,
            "chunk_bytes": 1024,
            "disk": disk,
        }
        self.down: set[str] = set()
        super().__init__(seed, shape, keep=False, trace=False, checked=checked)
        self.judge = LabJudge(self, judging)
        self.network = LabNetwork(self.timeline, self.network.faults)
        self.rng = self.timeline.rng
        self.names = list(self.members)
        self.servers = servers
        self.connected = [True] * servers
        self.answers: dict[int, Placed | Refused] = {}
        self.requests: Counter[str] = Counter()
        self.bytes = 0
        """Of requests that were sent, and of replies that arrived."""
        self.rejections = 0
        """Of entries whose predecessor a follower did not have."""
        self.set_unreliable(unreliable)
        self.run_for(0.05)
        assert len(self.nodes()) == servers

    # --- time ------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the beginning."""
        return self.timeline.now / SECOND

    def run_for(self, seconds: float) -> None:
        """Let the time pass."""
        over: list[bool] = []
        self.timeline.after(_nanos(seconds), over.append, True)
        while not over:
            self.timeline.step()

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let the time pass until this holds, but no longer than so; whether it does. It is asked
        after every event."""
        deadline = self.timeline.now + _nanos(seconds)
        while not condition():
            if self.timeline.now > deadline:
                return False
            self.timeline.step()
        return True

    def together(self, *all_steps: Steps) -> Callable[[], bool]:
        """Let these go on while time passes; the answer tells whether all have ended."""
        going = [True] * len(all_steps)

        def step(at: int, steps: Steps) -> None:
            try:
                pause = next(steps)
            except StopIteration:
                going[at] = False
            else:
                self.timeline.after(_nanos(pause), step, at, steps)

        for at, steps in enumerate(all_steps):
            self.timeline.after(0, step, at, steps)
        return lambda: not any(going)

    # --- servers ---------------------------------------------------------------------------------

    def begin(self, name: str) -> None:
        """Not whoever the test wants to be dead."""
        if name in self.down or self.alive(name) is not None:
            return
        self.judge.begins(name)
        super().begin(name)

    def leads(self, node: Node) -> None:
        """No reign is cut short but by a test."""

    def server(self, at: int) -> Node:
        node = self.node(self.names[at])
        assert node is not None, f"server {at} is dead"
        return node

    def is_up(self, at: int) -> bool:
        return self.alive(self.names[at]) is not None

    def crash(self, *servers: int) -> None:
        """All memory is lost, and half of the time what no fsync covers; nobody reaches it."""
        for at in servers:
            self.disconnect(at)
            self.down.add(self.names[at])
            self.end(self.server(at), power=self.timeline.chance(0.5))

    def restart(self, *servers: int) -> None:
        """Start servers from their disks, and connect them; who is alive crashes first."""
        for at in servers:
            if self.is_up(at):
                self.crash(at)
            self.down.discard(self.names[at])
            self.begin(self.names[at])
            self.connect(at)

    def state(self, at: int) -> tuple[int, bool]:
        """(term, whether it believes to lead)."""
        raft = self.server(at).raft
        return raft.term, type(raft.role) is Leader

    def pause(self, at: int, seconds: float) -> None:
        self.server(at).pause(_nanos(seconds))

    def picture(self) -> str:
        return str(self.nodes())

    # --- what only an insider knows --------------------------------------------------------------

    def rejected(self) -> int:
        return self.rejections

    def loads(self) -> int:
        return int(self.seen["loaded"])

    def installs(self) -> int:
        return int(self.seen["InstallSnapshot"])

    def last(self, at: int) -> int:
        return int(self.server(at).raft.log.last)

    def durable(self, at: int) -> int:
        return int(self.server(at).raft.stable)

    def gave(self, at: int, index: int) -> bool:
        """Whether a server's leader knows that it has all up to this index."""
        leader, member = self.leader(), self.members[self.names[at]]
        role = leader.raft.role if leader is not None else None
        return (
            type(role) is Leader
            and member in role.progress
            and (role.progress[member].match >= index)
        )

    # --- network ---------------------------------------------------------------------------------

    def _cut(self) -> None:
        self.heal()
        off = [name for at, name in enumerate(self.names) if not self.connected[at]]
        self.cut(off, self.names)
        self.cut(self.names, off)

    def set_unreliable(self, unreliable: bool, *, reordering: bool = False) -> None:
        """labrpc's: a tenth of the requests and of the replies is lost, and requests are up to
        26 ms late; with `reordering`, two replies of three up to 2.2 s."""
        weather = LABRPC_REORDERING if reordering else LABRPC_UNRELIABLE
        self.network.weather = weather if unreliable else None

    def send(self, source: Process, link: Link, message: Any) -> None:
        if type(message) in REQUESTS:
            self.requests[source.name] += 1
            self.bytes += len(encode(message)[1])
        elif type(message) is AppendReply and not message.accepted:
            self.rejections += 1
        super().send(source, link, message)

    def _deliver(self, line: Any, to: Process, via: Link, sent: tuple[int, bytes]) -> None:
        source = line.dialer if to is line.listener else line.listener
        if (source.name, to.name) in self.cuts:
            return
        if sent[0] not in REQUEST_KINDS:
            self.bytes += len(sent[1])
        super()._deliver(line, to, via, sent)

    def rpc_count(self, at: int) -> int:
        """Requests that left this server."""
        return self.requests[self.names[at]]

    # --- commands --------------------------------------------------------------------------------

    def offer(self, at: int, body: bytes) -> int:
        """Ask a server to append a command; `placed` tells what it said `ANSWERED` later."""
        return self.propose_to(self.server(at), 0, body)

    def answered(self, node: Node, answer: Placed | Refused) -> None:
        self.answers[answer.context] = answer
        super().answered(node, answer)

    def settled(self, contexts: Iterable[int]) -> Steps:
        yield ANSWERED

    def placed(self, context: int) -> Start:
        answer = self.answers.get(context)
        if type(answer) is not Placed:
            return NOT_TAKEN
        number = self.judge.numbers[answer.first, answer.term]
        return Start(number, answer.term, True)

    def start_command(self, at: int, body: bytes) -> Start:
        """The labs' Start: it does not wait for agreement."""
        context = self.offer(at, body)
        self.until(lambda: context in self.answers, ANSWERED * 100)
        return self.placed(context)

    def n_committed(self, number: int) -> tuple[int, bytes | None]:
        """(how many live servers applied a command of this number, the command)."""
        count, found = 0, None
        for name in self.names:
            log = self.judge.logs.get(name, [])
            if self.alive(name) is not None and number <= len(log):
                mine = log[number - 1]
                assert found in (None, mine), f"{found!r} and {mine!r} both are command {number}"
                count, found = count + 1, mine
        return count, found

    def log(self, at: int) -> list[bytes]:
        """All commands that a server has applied."""
        return self.judge.logs[self.names[at]]

    # --- sizes -----------------------------------------------------------------------------------

    def log_bytes(self) -> int:
        """Of the longest live log: terms, votes and entries, as the codec writes them."""
        return max(map(self._log_bytes, self.nodes()))

    def _log_bytes(self, node: Node) -> int:
        raft, log = node.raft, node.raft.log
        entries = node.log.entries(GROUP, log.base + 1, log.last, 1 << 62) if log.terms else ()
        live = AppendEntries(raft.term, raft.vote, 0, log.base, log.base_term, 0, 0, entries)
        return len(encode(live)[1])

    def disk_bytes(self) -> int:
        """Of all files on the fullest disk."""
        return max(drive.used() for drive in self.drives.values())

    # --- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """And the members' own invariants."""
        super().finish()
        for node in self.nodes():
            if self.checked:
                node.raft.check()


def _nanos(seconds: float) -> Nanos:
    return int(seconds * SECOND)
