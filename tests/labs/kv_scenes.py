"""The KV labs' tests, as what happens in them: for any lab that has what `KvLab` has.

They are those of MIT's lab 3 of 2021 (`3A`, `3B`: a replicated store with put, append and get), of
the single servers of 2024 (`kvsrv`) and 2025 (`kvsrv1`, values with versions), its `lock`, and of
lab 4 of 2025 (`kvraft1`) those that ask for more than the others. Each docstring says what is asked
for beyond the lab. For all of them: replicas die while clients are at work, where the labs' clients
stop first; and every history is explained by one copy, where the labs' checker may give up.
Memory is that of the server's process (`kv_memory_scenes`).

`rounds` and `seconds` are how often and how long clients work; the lab's numbers are the defaults.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from support import patience

from engine.errors import ConnectionFailed, EngineError, OutcomeUnknown
from engine.locks.fenced import FencedLock
from engine.verify.history import Operation

Make = Callable[..., Any]
"""`make(servers, unreliable=…, snapshot_bytes=…)`: a store that has just been started."""

LIMIT = 1000
"""The labs' maxraftstate."""
LOG_BYTES_MAX = 8 * LIMIT
SNAPSHOT_BYTES_MAX = 500
OPERATION_SECONDS_MAX = 0.1 / 3
"""Three in a heartbeat."""
HEAL_SECONDS = 3.0
"""In which what waited in a minority must end after the network healed."""
STUCK_SECONDS = 1.0
"""For which what was asked of a minority must not end."""
ROUND = 1_000_000
"""More than anybody appends in a round."""
LEAST = 5
"""What a client does at least, however long it was cut off."""
PIECE = re.compile(r"x (\d+) (\d+) y")


def piece(me: int, number: int) -> str:
    return f"x {me} {number} y"


# --- clients at work -----------------------------------------------------------------------------


class Load:
    """What the clients of one round do: of what is asked half are appends, and with random keys one
    of twenty a put. `values` are what clients with keys of their own must find there."""

    def __init__(self, keys: int, *, own: bool, pause: float, hasty: bool, tag: int) -> None:
        self.keys, self.own, self.pause, self.hasty, self.tag = keys, own, pause, hasty, tag
        self.values: dict[int, str] = {}

    def work(self, clerk: Any, me: int, over: threading.Event) -> int:
        """Until it is over, and `LEAST` were done; how much that was."""
        rng, expected, number = random.Random(f"{clerk.name} {self.tag}"), "", 0
        own = f"own {me}"
        if self.own:
            clerk.put(own, "")
        while not over.is_set() or number < LEAST:
            key = own if self.own else f"k {rng.randrange(self.keys)}"
            new, number = piece(me, ROUND * self.tag + number), number + 1
            chance = rng.random()
            try:
                if chance < 0.5:
                    clerk.append(key, new)
                    expected += new
                elif chance < 0.55 and not self.own:
                    clerk.put(key, new)
                else:
                    found = clerk.get(key)
                    assert not self.own or found == expected, f"{found!r} is not {expected!r}"
            except (OutcomeUnknown, ConnectionFailed):
                assert self.hasty, f"no answer: {clerk.lab.picture()}"
            if self.pause:
                over.wait(self.pause)
        self.values[me] = expected
        return number


def in_order(value: str, me: int, numbers: Sequence[int]) -> None:
    """These appends of a client are in the value, each once and in their order, and none besides
    that is not a piece."""
    assert PIECE.sub("", value) == "", f"torn: {PIECE.sub('', value)!r}"
    found = [int(number) for who, number in PIECE.findall(value) if int(who) == me]
    assert found == list(numbers), f"client {me}: {found} is not {list(numbers)}"


def trouble(lab: Any, seconds: float, *, restarts: bool, partitions: bool) -> None:
    """Let so much time pass, with a new split every 1.0 to 1.2 s, and in the middle the death of
    all at once, who start again."""
    lab.leader()
    end, crash_at = monotonic() + seconds, monotonic() + seconds / 2 if restarts else None
    split_at = monotonic() + min(0.2, seconds / 5) if partitions else None
    while (now := monotonic()) < end:
        if crash_at is not None and now >= crash_at:
            crash_at = None
            lab.kill(*range(lab.servers))
            lab.restart(*range(lab.servers))
            lab.leader()
            end = max(end, monotonic() + seconds / 3)
        elif split_at is not None and now >= split_at:
            lab.split_at_random()
            split_at = monotonic() + 1 + lab.rng.randrange(200) / 1000
        else:
            times = [t for t in (end, crash_at, split_at) if t is not None]
            lab.run_for(max(0.0, min(times) - now))
    lab.connect_all()


def generic(
    make: Make,
    clients: int,
    servers: int,
    *,
    unreliable: bool = False,
    restarts: bool = False,
    partitions: bool = False,
    limit: int = 0,
    random_keys: bool = False,
    hasty: bool = False,
    rounds: int = 3,
    seconds: float = 5.0,
    pause: float = 0.0,
) -> None:
    """Clients at work on a key of their own, or on random ones, with trouble of these kinds. Each
    append is there once and in order; logs are short if there are snapshots, and no snapshots are
    taken if there is no limit. Beyond the lab: all die while clients work; and `hasty` clients give
    up within a moment, so that some do not know what became of what they asked."""
    lab = make(servers, unreliable=unreliable, snapshot_bytes=limit)
    clerks = [lab.clerk(0.3) if hasty else lab.clerk() for _ in range(clients)]
    looker = lab.clerk()
    for turn in range(rounds):
        load = Load(clients, own=not random_keys, pause=pause, hasty=hasty, tag=turn)
        crowd = lab.together(clerks, load.work)
        trouble(lab, seconds, restarts=restarts, partitions=partitions)
        crowd.stop()
        for me, value in load.values.items() if not random_keys else ():
            found = looker.get(f"own {me}")
            assert found == value, f"{found!r} is not {value!r}"
            numbers = [int(number) for _, number in PIECE.findall(value)]
            in_order(found, me, numbers)
            assert numbers == sorted(set(numbers))
        check_sizes(lab, limit)
    if random_keys:
        lab.set_unreliable(False)
        final = {f"k {n}": looker.get(f"k {n}") for n in range(clients)}
        once(final, lab.operations("append"))


def once(final: dict[str, str], operations: Sequence[Operation]) -> None:
    """No piece is there twice, whatever the checker says of it."""
    seen = {(o.key, str(o.result)) for o in operations if o.kind == "get"} | set(final.items())
    for key, value in seen:
        pieces = PIECE.findall(value)
        assert len(pieces) == len(set(pieces)), f"twice in {key}: {value!r}"


def check_sizes(lab: Any, limit: int) -> None:
    """Soon after the last request: an idle replica must get there by itself."""
    if limit:
        small = lab.until(lambda: lab.log_bytes() <= 8 * limit, 2.0)
        assert small, f"{lab.log_bytes()} bytes of log"
        assert lab.until(lambda: len(lab.snapshots()) > 0, 1.0), "no snapshot was taken"
    else:
        assert not lab.snapshots(), "a snapshot was taken, and none was to be"


# --- 3A: without snapshots -----------------------------------------------------------------------


def speed(make: Make, limit: int = 0, operations: int = 1000) -> None:
    """A client that waits for each answer has three of them in a heartbeat."""
    lab = make(3, snapshot_bytes=limit)
    clerk = lab.clerk()
    clerk.get("x")
    expected, began = [], monotonic()
    for number in range(operations):
        clerk.append("x", piece(0, number))
        expected.append(number)
    took = (monotonic() - began) / operations
    in_order(clerk.get("x"), 0, expected)
    assert took <= patience(OPERATION_SECONDS_MAX), f"{took * 1000:.1f} ms each"
    check_sizes(lab, limit)


def unreliable_one_key(make: Make, clients: int = 5, appends: int = 10, servers: int = 3) -> None:
    """All appends of several clients to one key are there once, and each one's in order."""
    lab = make(servers, unreliable=True)
    looker = lab.clerk()
    looker.put("k", "")

    def work(clerk: Any, me: int, _: threading.Event) -> None:
        for number in range(appends):
            clerk.append("k", piece(me, number))

    crowd = lab.crowd(clients, work)
    assert lab.until(lambda: crowd.ended, 60), "no end"
    crowd.stop()
    value = looker.get("k")
    for me in range(clients):
        in_order(value, me, range(appends))


def one_partition(make: Make) -> None:
    """A minority does nothing, and what waits in it is done after the heal. The lab does not see
    whether the get of the minority ever ends: here it must, as the put, within 3 s."""
    lab = make(5)
    first = lab.clerk()
    first.put("1", "13")
    leader = lab.leader()
    others = [at for at in range(5) if at != leader]
    lab.split(others[1:], [leader, others[0]])
    many, putter, getter = lab.clerk(), lab.clerk(), lab.clerk()
    for clerk, side in ((many, 0), (putter, 1), (getter, 1)):
        lab.confine(clerk, side)
    many.put("1", "14")
    assert many.get("1") == "14"

    def work(clerk: Any, me: int, _: threading.Event) -> str:
        return clerk.get("1") if me else clerk.put("1", "15") or ""

    crowd = lab.together([putter, getter], work)
    lab.run_for(STUCK_SECONDS)
    assert not crowd.results, f"a minority has answered: {crowd.results}"
    assert many.get("1") == "14"
    many.put("1", "16")
    assert many.get("1") == "16"
    assert not crowd.results, f"a minority has answered: {crowd.results}"
    lab.connect_all()
    healed = monotonic()
    assert crowd.stop(HEAL_SECONDS)[1] in ("15", "16")
    assert monotonic() - healed <= patience(HEAL_SECONDS)
    assert first.get("1") == "15"


# --- 3B: with snapshots --------------------------------------------------------------------------


def snapshot_rpc(make: Make) -> None:
    """Whoever was away while logs were cut off is sent a snapshot. Beyond the lab, where another
    one answers, it then has just what that one has; and disks stay small."""
    lab = make(3, snapshot_bytes=LIMIT)
    everywhere, most = lab.clerk(), lab.clerk()
    everywhere.put("a", "A")
    lab.split([0, 1], [2])
    lab.confine(most, 0)
    for number in range(50):
        most.put(f"{number}", f"{number}")
    lab.run_for(1.0)
    most.put("b", "B")
    size = lab.log_bytes()
    assert size <= LOG_BYTES_MAX, f"{size} bytes of log"
    lab.split([0, 2], [1])
    for key, value in (("c", "C"), ("d", "D")):
        most.put(key, value)
    for key, value in (("a", "A"), ("b", "B"), ("1", "1"), ("49", "49")):
        assert most.get(key) == value
    lab.agree(0, 2)
    lab.connect_all()
    everywhere.put("e", "E")
    for key, value in (("c", "C"), ("e", "E"), ("1", "1")):
        assert everywhere.get(key) == value
    assert min(status.snapshot for status in lab.statuses().values()) > 0
    assert lab.disk_bytes() <= 64 << 10, f"{lab.disk_bytes()} bytes on a disk"


def without_history(lab: Any) -> None:
    """As the labs' store, which nobody can watch: what happened is not kept."""
    lab.configure(history_events=0)


def snapshot_size(make: Make, rounds: int = 200, seconds: float = 20.0) -> None:
    """A store with one key has a small snapshot, and a short log. It keeps no history, which the
    labs' has not either."""
    lab = make(3, snapshot_bytes=LIMIT)
    without_history(lab)
    clerk = lab.clerk()
    began = monotonic()
    for _ in range(rounds):
        for value in ("0", "1"):
            clerk.put("x", value)
            assert clerk.get("x") == value
    assert monotonic() - began < patience(seconds)
    check_sizes(lab, LIMIT)
    assert max(lab.snapshots()) <= SNAPSHOT_BYTES_MAX, f"{lab.snapshots()} bytes of snapshot"


def retry_across_snapshot(make: Make) -> None:
    """Beyond the labs, which hope that it comes about: an append is done, its answer is lost, and a
    snapshot takes its place in the log. All die; the client asks again, and it is done no more."""
    lab = make(3, snapshot_bytes=LIMIT)
    clerk, other = lab.clerk(), lab.clerk()
    clerk.append("k", piece(0, 0))
    lab.proxy.cut(clerk.name, "*", "reply")
    crowd = lab.together([clerk], lambda one, me, over: one.append("k", piece(0, 1)))
    assert lab.until(lambda: piece(0, 1) in other.get("k"), 10.0), "it is not done"
    before = lab.statuses()[lab.leader()].applied
    number = 0
    while min(s.snapshot for s in lab.statuses().values()) <= before:
        other.put("more", "." * 100)
        number += 1
        assert number < 1000, f"no snapshot: {lab.picture()}"
    assert not crowd.results
    lab.kill(0, 1, 2)
    lab.proxy.heal(clerk.name, "*")
    lab.restart(0, 1, 2)
    crowd.stop()
    in_order(other.get("k"), 0, [0, 1])


def deposed_leader(make: Make) -> None:
    """Beyond the labs: a leader hears nobody, and is heard. What it is asked is done, by its
    successor, and it cannot know: a client that it alone can answer must not be told "no"."""
    lab = make(3)
    looker = lab.clerk()
    looker.put("k", "")
    leader = lab.leader()
    name, others = lab.names[leader], [n for n in lab.names if n != lab.names[leader]]
    hasty = lab.clerk(4.0)
    for other in others:
        lab.proxy.cut(other, name, "request")  # what it says where it dialed,
        lab.proxy.cut(name, other, "reply")  # and what it answers where it was
        lab.proxy.cut(hasty.name, other)
    answers = {}
    try:
        hasty.append("k", piece(0, 0))
    except EngineError as error:
        answers["append"] = error
    lab.proxy.heal()
    assert lab.until(lambda: looker.get("k") == piece(0, 0), 10.0), "it was not done"
    assert isinstance(answers["append"], OutcomeUnknown), answers


# --- kvsrv: one server ---------------------------------------------------------------------------


def kvsrv(
    make: Make, clients: int, unreliable: bool = False, rounds: int = 3, seconds: float = 1.0
) -> None:
    """Appends of several clients to keys of their own are told what was there before: the value up
    to the client's last append, and not the new one. Beyond the lab half of them go to one key, and
    what each was told before must be just what stood before it."""
    lab = make(1, unreliable=unreliable)
    for turn in range(rounds):
        told: list[tuple[int, str, str]] = []

        def work(
            clerk: Any,
            me: int,
            over: threading.Event,
            turn: int = turn,
            told: list[tuple[int, str, str]] = told,
        ) -> None:
            number, expected, own = 0, "", f"own {turn} {me}"
            while not over.is_set():
                new, number = piece(me, number), number + 1
                if number % 3 == 0:
                    assert clerk.get(own) == expected
                elif number % 3 == 1:
                    assert clerk.append_old(own, new) == expected
                    expected += new
                else:
                    told.append((me, new, clerk.append_old(f"shared {turn}", new)))

        crowd = lab.crowd(clients, work)
        lab.run_for(seconds)
        lab.until(lambda told=told: bool(told), 20)  # type: ignore[misc]
        crowd.stop()
        crowd.leave()
        _stood_before(told, lab.clerk().get(f"shared {turn}"))


def _stood_before(told: Sequence[tuple[int, str, str]], whole: str) -> None:
    """Each append was told exactly what stood before it, and nothing else is there."""
    assert told, "nothing was done"
    assert len(whole) == sum(len(new) for _, new, _ in told), f"lost, or done twice: {whole!r}"
    for me, new, old in told:
        assert new not in old, f"{new!r} was told to be there before it came"
        assert whole.startswith(old + new), f"client {me}: {old + new!r} never stood in {whole!r}"
    assert len({old for _, _, old in told}) == len(told), "two were told the same"


# --- kvsrv1: values with versions ----------------------------------------------------------------


def reliable_put(make: Make) -> None:
    """What a version must be."""
    lab = make(1)
    clerk = lab.clerk()
    assert clerk.put_version("k", "6.824", 0) == "ok"
    assert clerk.get_version("k") == ("6.824", 1)
    assert clerk.put_version("k", "6.824", 0) == "version"
    assert clerk.put_version("y", "6.824", 1) == "nokey"
    assert clerk.get_version("y") == ("", 0)


def put_concurrent(make: Make, clients: int = 10, seconds: float = 1.0) -> None:
    """Of those who race for a version one wins."""
    lab = make(1)
    won = one_puts(lab, clients, lambda: lab.run_for(seconds), keys=1)
    assert won["maybe"] == 0
    assert lab.clerk().get_version("k 0")[1] == won["ok"] > 0


def one_puts(
    lab: Any, clients: int, meanwhile: Callable[[], None], *, keys: int, pause: float = 0.0
) -> dict[str, int]:
    """Clients that look at a version and put the next one, while something happens; how many were
    told what."""
    won = dict.fromkeys(("ok", "version", "maybe", "nokey"), 0)
    lock = threading.Lock()

    def work(clerk: Any, me: int, over: threading.Event) -> None:
        rng, number = random.Random(f"{clerk.name}"), 0
        while not over.is_set():
            key, number = f"k {rng.randrange(keys)}", number + 1
            version = clerk.get_version(key)[1]
            told = clerk.put_version(key, f"{clerk.name} {number}", version)
            with lock:
                won[told] += 1
            if pause:
                over.wait(pause)

    crowd = lab.crowd(clients, work)
    meanwhile()
    crowd.stop()
    crowd.leave()
    assert not won["nokey"], "a key has gone"
    return won


def unreliable_net(make: Make, rounds: int = 100) -> None:
    """Who asks again and is told that the version has gone cannot know by whom, and says so."""
    lab = make(1, unreliable=True)
    clerk, maybes = lab.clerk(), 0
    for version in range(rounds):
        first = clerk.put_version("k", f"{version}", version)
        if first == "maybe":
            maybes += 1
            assert clerk.put_version("k", f"{version} again", version) in ("version", "maybe")
        else:
            assert first == "ok", f"{first}: nobody else puts"
        assert clerk.get_version("k") == (f"{version}", version + 1)
    assert maybes, "no answer was lost"


# --- kvraft1: the same on replicas ---------------------------------------------------------------


def put_at_least_once(clerk: Any, key: str, value: str, version: int) -> int:
    """The labs' helper: with later and later versions until one is taken; which."""
    while (told := clerk.put_version(key, value, version)) != "ok":
        if told == "maybe" and clerk.get_version(key) == (value, version + 1):
            break
        version += 1
    return version


def one_partition_versions(make: Make) -> None:
    """As `one_partition`, on an unreliable network and with versions."""
    lab = make(5, unreliable=True)
    first = lab.clerk()
    version = put_at_least_once(first, "1", "13", 0)
    leader = lab.leader()
    others = [at for at in range(5) if at != leader]
    lab.split(others[1:], [leader, others[0]])
    many, putter, getter = lab.clerk(), lab.clerk(), lab.clerk()
    for clerk, side in ((many, 0), (putter, 1), (getter, 1)):
        lab.confine(clerk, side)
    version = put_at_least_once(many, "1", "14", version + 1)
    assert many.get_version("1") == ("14", version + 1)

    def work(clerk: Any, me: int, _: threading.Event) -> Any:
        if me:
            return clerk.get_version("1")[0]
        return put_at_least_once(clerk, "1", "15", version + 1)

    crowd = lab.together([putter, getter], work)
    lab.run_for(STUCK_SECONDS)
    assert not crowd.results, f"a minority has answered: {crowd.results}"
    assert many.get_version("1") == ("14", version + 1)
    put_at_least_once(many, "1", "16", version + 1)
    assert many.get_version("1")[0] == "16"
    assert not crowd.results, f"a minority has answered: {crowd.results}"
    lab.connect_all()
    assert crowd.stop(HEAL_SECONDS)[1] in ("15", "16")
    assert first.get_version("1")[0] == "15"


def versions_linearizable(
    make: Make,
    limit: int = 0,
    rounds: int = 3,
    seconds: float = 1.0,
    pause: float = 0.0,
    keys: int = 100,
) -> None:
    """15 clients, seven replicas, an unreliable network, partitions, deaths of all. The versions
    that there are in the end are as many as puts were done, or may have been."""
    lab = make(7, unreliable=True, snapshot_bytes=limit)
    ok = maybe = 0
    for _ in range(rounds):
        won = one_puts(
            lab,
            15,
            lambda: trouble(lab, seconds, restarts=True, partitions=True),
            keys=keys,
            pause=pause,
        )
        ok, maybe = ok + won["ok"], maybe + won["maybe"]
        check_sizes(lab, limit)
    lab.set_unreliable(False)
    clerk = lab.clerk()
    versions = sum(clerk.get_version(f"k {number}")[1] for number in range(keys))
    assert ok <= versions <= ok + maybe, f"{versions} versions of {ok} puts and {maybe} maybes"
    assert ok


def snapshot_rpc_versions(make: Make) -> None:
    """As `snapshot_rpc`, with versions, which a snapshot carries as well."""
    lab = make(3, snapshot_bytes=LIMIT)
    everywhere, most = lab.clerk(), lab.clerk()
    assert everywhere.put_version("a", "A", 0) == "ok"
    lab.split([0, 1], [2])
    lab.confine(most, 0)
    for number in range(50):
        put_at_least_once(most, f"{number % 25}", f"{number}", number // 25)
    lab.run_for(1.0)
    put_at_least_once(most, "b", "B", 0)
    size = lab.log_bytes()
    assert size <= LOG_BYTES_MAX, f"{size} bytes of log"
    lab.split([0, 2], [1])
    put_at_least_once(most, "c", "C", 0)
    for key, found in (("a", ("A", 1)), ("b", ("B", 1)), ("1", ("26", 2)), ("24", ("49", 2))):
        assert most.get_version(key) == found
    lab.agree(0, 2)
    lab.connect_all()
    assert everywhere.put_version("1", "27", 2) == "ok"
    for key, found in (("c", ("C", 1)), ("1", ("27", 3))):
        assert everywhere.get_version(key) == found


def snapshot_size_versions(make: Make, rounds: int = 200) -> None:
    """As `snapshot_size`, with versions."""
    lab = make(3, snapshot_bytes=LIMIT)
    without_history(lab)
    clerk = lab.clerk()
    for number in range(2 * rounds):
        assert clerk.put_version("x", f"{number % 2}", number) == "ok"
        assert clerk.get_version("x") == (f"{number % 2}", number + 1)
    check_sizes(lab, LIMIT)
    assert max(lab.snapshots()) <= SNAPSHOT_BYTES_MAX, f"{lab.snapshots()} bytes of snapshot"


def speed_versions(make: Make, limit: int = 0, operations: int = 1000) -> None:
    """As `speed`, with versions."""
    lab = make(3, snapshot_bytes=limit)
    clerk = lab.clerk()
    began = monotonic()
    for number in range(operations):
        assert clerk.put_version("x", f"{number}", number) == "ok"
    took = (monotonic() - began) / operations
    assert clerk.get_version("x") == (f"{operations - 1}", operations)
    assert took <= patience(OPERATION_SECONDS_MAX), f"{took * 1000:.1f} ms each"


# --- locks ---------------------------------------------------------------------------------------


class VersionLock:
    """The lab's lock, made of versioned puts alone. Who was told "maybe" looks whose it is."""

    def __init__(self, clerk: Any, name: str) -> None:
        self.clerk, self.name, self.me = clerk, name, f"{clerk.name}"
        self._version = 0

    def acquire(self) -> None:
        while True:
            holder, version = self.clerk.get_version(self.name)
            if holder != self.me:
                if holder:
                    self.clerk.lab.over.wait(0.01)
                    continue
                told = self.clerk.put_version(self.name, self.me, version)
                if told == "ok":
                    self._version = version + 1
                    return
                continue
            self._version = version
            return

    def release(self) -> None:
        while True:
            if self.clerk.put_version(self.name, "", self._version) == "ok":
                return
            if self.clerk.get_version(self.name)[0] != self.me:
                return


def fenced(clerk: Any, name: str) -> Any:
    return FencedLock(clerk.store, name, ttl=patience(10))


def by_version(clerk: Any, name: str) -> Any:
    return VersionLock(clerk, name)


def lock_basic(make: Make, lock: Callable[..., Any] = fenced) -> None:
    """It is acquired, and released, and so again."""
    lab = make(1)
    one = lock(lab.clerk(), "l")
    for _ in range(3):
        one.acquire()
        one.release()


def lock_nested(make: Make, lock: Callable[..., Any] = fenced) -> None:
    """Two at a time, in any order."""
    lab = make(1)
    clerk = lab.clerk()
    a, b = lock(clerk, "a"), lock(clerk, "b")
    for first, second, third, last in ((a, b, b, a), (a, b, a, b), (b, a, a, b), (b, a, b, a)):
        first.acquire()
        second.acquire()
        third.release()
        last.release()


def locks(
    make: Make,
    clients: int,
    lock: Callable[..., Any] = fenced,
    unreliable: bool = False,
    seconds: float = 2.0,
) -> None:
    """Who holds it is alone: each writes its name where it must find nobody's. Beyond the lab,
    where a client that has waited in vain passes, each must have had it; and tokens grow."""
    lab = make(1, unreliable=unreliable)
    tokens: list[int] = []

    def work(clerk: Any, me: int, over: threading.Event) -> int:
        one, turns = lock(clerk, "lock"), 0
        while not over.is_set() or not turns:
            token = one.acquire()
            holder, version = clerk.get_version("l0")
            assert holder == "", f"{clerk.name} has the lock, and so has {holder}"
            assert clerk.put_version("l0", clerk.name, version) in ("ok", "maybe")
            over.wait(0.01)
            assert clerk.get_version("l0") == (clerk.name, version + 1), "somebody else was there"
            assert clerk.put_version("l0", "", version + 1) in ("ok", "maybe")
            if token is not None:
                tokens.append(token)
            one.release()
            turns += 1
        return turns

    crowd = lab.crowd(clients, work)
    lab.run_for(seconds)
    crowd.stop()
    assert tokens == sorted(set(tokens)), "a token is not greater than the one before"
