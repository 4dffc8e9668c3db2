"""What the Raft labs' tester can do on any group: agree, wait, look for leaders.

A lab gives the servers, their network and the passing of time: `raft_lab` in the simulator,
`raft_process_lab` with real processes. Servers have numbers from 0. A command's *number* counts
commands from 1, as the labs' indexes do where a leader adds no entry of its own.

Things that go on while others do are generators (`Steps`): they yield seconds to wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from random import Random
from typing import Any

from engine.record import Record

Steps = Generator[float, None, Any]
"""Something that goes on in a lab's time: it yields seconds to wait."""

ELECTION = 1.0
"""Seconds in which an election is over, by the labs (RaftElectionTimeout)."""
SNAPSHOT_EVERY = 10
LOG_BYTES_MAX = 2000
TEST_SECONDS_MAX = 120.0
AGREE_SECONDS, OFFER_SECONDS = 10.0, 2.0
RETURN_SECONDS = 11.0
"""In which everybody must hear what became of what they asked for, whatever happened to servers."""
POLL = 0.02


class Start(Record):
    """What became of a command that a server was offered, as the labs' `Start` returns it."""

    number: int
    """Of the command, if it stays; -1 if the server does not lead."""
    term: int
    leads: bool


NOT_TAKEN = Start(-1, -1, False)


class Tester:
    """The part of a lab that all labs share. Subclasses give what raises NotImplementedError here;
    AssertionError for whatever does not hold."""

    servers: int
    connected: list[bool]
    rng: Random
    poll = POLL
    """How often agreement is looked for, in seconds."""
    disk_max: int
    """Bytes that a disk may hold if snapshots are taken, with a server that stays alive …"""
    crashed_disk_max: int
    """… and with one that starts again and again."""
    bytes: int
    """Of requests that were sent, and of replies that arrived."""
    _unique = 0

    # --- time ------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the beginning."""
        raise NotImplementedError

    def patience(self, seconds: float) -> float:
        """How long to wait before giving up, where the lab has so many seconds."""
        return seconds

    def run_for(self, seconds: float) -> None:
        """Let the time pass."""
        raise NotImplementedError

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let the time pass until this holds, but no longer than so; whether it does."""
        raise NotImplementedError

    def together(self, *all_steps: Steps) -> Callable[[], bool]:
        """Let these go on while time passes; the answer tells whether all have ended."""
        raise NotImplementedError

    def carry_out(self, steps: Steps) -> Any:
        """To its end; what it returns."""
        while True:
            try:
                pause = next(steps)
            except StopIteration as end:
                return end.value
            self.run_for(pause)

    # --- servers and network ---------------------------------------------------------------------

    def is_up(self, at: int) -> bool:
        raise NotImplementedError

    def state(self, at: int) -> tuple[int, bool]:
        """(term, whether it believes to lead)."""
        raise NotImplementedError

    def role(self, at: int) -> tuple[str, int]:
        """(`follower`, `candidate` or `leader`, term)."""
        raise NotImplementedError

    def crash(self, *servers: int) -> None:
        """All memory is lost; nobody reaches them."""
        raise NotImplementedError

    def restart(self, *servers: int) -> None:
        """Start servers from their disks, and connect them; who is alive crashes first."""
        raise NotImplementedError

    def pause(self, at: int, seconds: float) -> None:
        """Stop a server, and let it go on so much later."""
        raise NotImplementedError

    def connect(self, *servers: int) -> None:
        for at in servers:
            self.connected[at] = True
        self._cut()

    def disconnect(self, *servers: int) -> None:
        """Nothing reaches them or leaves them, also of what is on its way."""
        for at in servers:
            self.connected[at] = False
        self._cut()

    def connect_all(self) -> None:
        self.connect(*range(self.servers))

    def bridge(self, at: int) -> None:
        """All reach this server, and no other; until something else is ordered."""
        raise NotImplementedError

    def _cut(self) -> None:
        """Make it so that exactly the connected reach each other."""
        raise NotImplementedError

    def set_unreliable(self, unreliable: bool, *, reordering: bool = False) -> None:
        """labrpc's: a tenth of the requests and of the replies is lost, and requests are up to
        26 ms late; with `reordering`, two replies of three up to 2.2 s."""
        raise NotImplementedError

    def rpcs(self) -> int:
        """Requests that left any server."""
        return sum(map(self.rpc_count, range(self.servers)))

    def rpc_count(self, at: int) -> int:
        """Requests that left this server."""
        raise NotImplementedError

    # --- what only an insider knows --------------------------------------------------------------

    def rejected(self) -> int | None:
        """Entries whose predecessor a follower did not have; None if this lab cannot see that."""
        raise NotImplementedError

    def loads(self) -> int:
        """How often a server began from a snapshot, its own or another's."""
        raise NotImplementedError

    def installs(self) -> int:
        """How often a server was sent a snapshot."""
        raise NotImplementedError

    def last(self, at: int) -> int:
        """The last index of a server's log, written or not."""
        raise NotImplementedError

    def durable(self, at: int) -> int:
        """The last index that is on its disk."""
        raise NotImplementedError

    def gave(self, at: int, index: int) -> bool:
        """Whether a leader knows that this server has all up to this index."""
        raise NotImplementedError

    # --- commands --------------------------------------------------------------------------------

    def command(self, size: int = 9) -> bytes:
        """One that was never given before, of so many bytes."""
        self._unique += 1
        return (b"%d" % self._unique).rjust(size, b".")

    def offer(self, at: int, body: bytes) -> int:
        """Ask a server to append a command; `placed` tells what it said, once it is `settled`."""
        raise NotImplementedError

    def settled(self, contexts: Iterable[int]) -> Steps:
        """Wait until all these offers were answered, by whoever can."""
        raise NotImplementedError

    def placed(self, context: int) -> Start:
        """What became of an offer; the server may have died of it meanwhile."""
        raise NotImplementedError

    def start_command(self, at: int, body: bytes) -> Start:
        """The labs' Start: it does not wait for agreement."""
        return self.start_commands(at, [body])[0]

    def start_commands(self, at: int, bodies: Iterable[bytes]) -> list[Start]:
        """All at once."""
        contexts = [self.offer(at, body) for body in bodies]
        self.carry_out(self.settled(contexts))
        return [self.placed(context) for context in contexts]

    def n_committed(self, number: int) -> tuple[int, bytes | None]:
        """(how many live servers applied a command of this number, the command)."""
        raise NotImplementedError

    def log(self, at: int) -> list[bytes]:
        """All commands that a server has applied."""
        raise NotImplementedError

    # --- agreement -------------------------------------------------------------------------------

    def agreeing(self, body: bytes, servers: int, retry: bool) -> Steps:
        """Offer it to one server after another until one takes it, and wait until so many servers
        have applied it; its number. Ten seconds in all, two for each try, or only one try."""
        deadline, at = self.now() + self.patience(AGREE_SECONDS), 0
        while self.now() < deadline:
            start = NOT_TAKEN
            for _ in range(self.servers):
                at = (at + 1) % self.servers
                if self.connected[at] and not start.leads:
                    context = self.offer(at, body)
                    yield from self.settled([context])
                    start = self.placed(context)
            if not start.leads:
                yield 0.05
                continue
            until = self.now() + self.patience(OFFER_SECONDS)
            while self.now() < until:
                count, found = self.n_committed(start.number)
                if count >= servers and found == body:
                    return start.number
                yield self.poll
            assert retry, f"no agreement on {body!r} in {OFFER_SECONDS} s"
        raise AssertionError(f"no agreement on {body!r} in {AGREE_SECONDS} s: {self.picture()}")

    def one(self, servers: int, *, retry: bool = True, body: bytes = b"") -> int:
        """Agree on a command, or a new one; its number."""
        number = self.carry_out(self.agreeing(body or self.command(), servers, retry))
        assert isinstance(number, int)
        return number

    def wait(self, number: int, servers: int, term: int) -> bytes | None:
        """The command of this number once so many have applied it, or None if a server went past
        this term; at most 31 s."""
        pause = 0.01
        for _ in range(30):
            if self.n_committed(number)[0] >= servers:
                break
            self.run_for(pause)
            pause = min(1.28, pause * 2)
            if any(self.state(at)[0] > term for at in range(self.servers) if self.is_up(at)):
                return None
        count, found = self.n_committed(number)
        assert count >= servers, f"only {count} of {servers} have command {number}"
        return found

    def check_one_leader(self) -> int:
        """Who leads the latest term among the connected, as soon as somebody does; no term has two.
        Ten looks, 450 to 549 ms apart."""
        for _ in range(round(self.patience(10))):
            self.run_for(0.45 + self.rng.randrange(100) / 1000)
            leaders: dict[int, list[int]] = {}
            for at in self.reachable():
                term, leads = self.state(at)
                if leads:
                    leaders.setdefault(term, []).append(at)
            for term, several in leaders.items():
                assert len(several) == 1, f"{several} all lead term {term}"
            if leaders:
                return leaders[max(leaders)][0]
        raise AssertionError(f"nobody leads: {self.picture()}")

    def check_terms(self) -> int:
        """The term, on which all that are connected agree."""
        terms = {self.state(at)[0] for at in self.reachable()}
        assert len(terms) == 1, f"terms {terms}: {self.picture()}"
        return terms.pop()

    def check_no_leader(self) -> None:
        """Nobody that is connected believes to lead."""
        leading = [at for at in self.reachable() if self.state(at)[1]]
        assert not leading, f"{leading} believe to lead"

    def reachable(self) -> Sequence[int]:
        return [at for at in range(self.servers) if self.connected[at] and self.is_up(at)]

    def picture(self) -> str:
        """All servers, for an error's sentence."""
        raise NotImplementedError

    # --- sizes -----------------------------------------------------------------------------------

    def log_bytes(self) -> int:
        """Of the longest live log: terms, votes and entries, as the codec writes them."""
        raise NotImplementedError

    def disk_bytes(self) -> int:
        """Of all files on the fullest disk."""
        raise NotImplementedError

    # --- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """What must hold in the end, and the labs' limit of a test."""
        seconds = self.patience(TEST_SECONDS_MAX)
        assert self.now() < seconds, f"the test took {self.now():.0f} s"
