"""The KV labs' tests (3A and 3B, kvsrv, kvsrv1, lock, kvraft1), by name, on real processes.

What happens in them stands in `kv_scenes` and `kv_memory_scenes`; the servers are those of
`kv_process_lab`, or yours: `pytest -m 3A --impl module:factory`, where
`factory(folder, seed, servers, **how)` is a context manager that gives what `KvLab` has.

Much of a test is waiting, so the chosen ones are played side by side, each lab in one thread, with
its own folder, processes and proxy. `-v` tells how long each took, and what memory tests found.
Clients work for a second or two where the labs' do three times for five, and pause after each
request; `make soak` has the labs' doses. Limits are never other ones.

`PLANTED` holds bugs that scenes are there to catch; `make soak` shows that they do.
"""

from __future__ import annotations

import importlib
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import kv_memory_scenes as memory
import kv_scenes as scenes
import pytest
from kv_bugs import CLERK_BUGS, SERVER_BUGS
from kv_process_lab import KvLab
from support import SCORES, dose

from engine.errors import EngineError
from engine.record import Record

pytestmark = pytest.mark.processes

WORKERS = 6
PROGRAM = str(Path(__file__).with_name("kv_planted.py"))
LIMIT = scenes.LIMIT
LINKS_MAX = 196
"""Of all that are played at a time: with five descriptors each, and a thousand for a process."""
CROWD = 18 * 7


class Scene(Record):
    """A test: what happens, and with what."""

    name: str
    lab: str
    play: Callable[..., None]
    about: tuple[tuple[str, Any], ...] = ()
    links: int = 30
    """Of clients with servers, about, each of which takes some descriptors."""

    def __str__(self) -> str:
        return self.name


LINKS = {"kvsrv": 12, "kvsrv1": 20, "lock": 20}
"""Of labs with one server."""


def scene(lab: str, play: Callable[..., None], name: str = "", **about: Any) -> Scene:
    links = LINKS.get(lab, 30)
    return Scene(name or play.__name__, lab, play, tuple(about.items()), links)


def crowded(one: Scene) -> Scene:
    """15 clients of seven servers."""
    return one._replace(links=CROWD)


def load(lab: str, name: str, clients: int, servers: int, **about: Any) -> Scene:
    """The labs' GenericTest. A split and a restart need longer than a load without."""
    seconds = 1.0 + about.get("partitions", False)
    how = {"rounds": dose(1, 3), "seconds": dose(seconds, 5.0), "pause": dose(0.004, 0.0)}
    one = scene(lab, scenes.generic, name, clients=clients, servers=servers, **how, **about)
    return one._replace(links=(clients + 3) * servers)


BAD: dict[str, Any] = {"unreliable": True}
DEATHS: dict[str, Any] = {"restarts": True}
SPLITS: dict[str, Any] = {"partitions": True}
ALL = BAD | DEATHS | SPLITS
SHORT: dict[str, Any] = {"limit": LIMIT}
VERSIONS: dict[str, Any] = {
    "rounds": dose(1, 3),
    "seconds": dose(1.5, 1.0),
    "pause": dose(0.004, 0.0),
    "keys": dose(30, 100),
}


def spread(listed: list[Scene]) -> list[Scene]:
    """Those that are crowded have others between them, since there is no room for two."""
    crowds = [one for one in listed if one.links > LINKS_MAX // 2]
    rest = [one for one in listed if one.links <= LINKS_MAX // 2]
    found: list[Scene] = []
    for at, one in enumerate(rest):
        if at % WORKERS == 0 and crowds:
            found.append(crowds.pop(0))
        found.append(one)
    return found + crowds


# The longest first, so that none is left over.
LISTED = [
    load("3A", "persist_partition_unreliable_linearizable", 15, 7, random_keys=True, **ALL),
    load(
        "3B",
        "snapshot_unreliable_recover_concurrent_partition_linearizable",
        15,
        7,
        random_keys=True,
        **ALL,
        **SHORT,
    ),
    crowded(
        scene(
            "kvraft1",
            scenes.versions_linearizable,
            "persist_partition_unreliable_linearizable_versions",
            **VERSIONS,
        )
    ),
    crowded(
        scene(
            "kvraft1",
            scenes.versions_linearizable,
            "snapshot_unreliable_recover_concurrent_partition_linearizable_versions",
            **VERSIONS,
            **SHORT,
        )
    ),
    load("3A", "hasty_clients", 10, 5, random_keys=True, hasty=True, **ALL),
    load("3B", "snapshot_unreliable_recover_concurrent_partition", 5, 5, **ALL, **SHORT),
    load("3A", "persist_partition_unreliable", 5, 5, **ALL),
    load("3A", "persist_partition", 5, 5, **DEATHS, **SPLITS),
    scene("kvsrv1", scenes.unreliable_net),
    scene("kvsrv", memory.mem_put_many),
    load("3B", "snapshot_recover_many_clients", 20, 5, **DEATHS, **SHORT),
    load("3B", "snapshot_unreliable_recover", 5, 5, **BAD, **DEATHS, **SHORT),
    load("3A", "persist_concurrent_unreliable", 5, 5, **BAD, **DEATHS),
    load("3A", "persist_concurrent", 5, 5, **DEATHS),
    load("3A", "persist_one_client", 1, 5, **DEATHS),
    load("3B", "snapshot_recover", 1, 5, **DEATHS, **SHORT),
    scene("3B", scenes.deposed_leader),
    scene("lock", scenes.locks, "many_clients_unreliable", clients=10, unreliable=True),
    scene(
        "lock",
        scenes.locks,
        "many_clients_unreliable_by_version",
        clients=10,
        unreliable=True,
        lock=scenes.by_version,
    ),
    scene("kvraft1", scenes.one_partition_versions),
    load("3A", "many_partitions_many_clients", 5, 5, **SPLITS),
    load("3A", "many_partitions_one_client", 1, 5, **SPLITS),
    scene("3A", scenes.one_partition),
    scene("3A", scenes.unreliable_one_key),
    scene("kvsrv", scenes.unreliable_one_key, "unreliable_one_key_one_server", servers=1),
    load("3A", "unreliable", 5, 5, **BAD),
    load("3B", "snapshot_unreliable", 5, 5, **BAD, **SHORT),
    scene("3A", scenes.speed, "speed_3a", operations=dose(300, 1000)),
    scene("3B", scenes.speed, "speed_3b", operations=dose(300, 1000), **SHORT),
    scene("kvraft1", scenes.speed_versions, operations=dose(300, 1000)),
    scene("3B", scenes.snapshot_rpc),
    scene("3B", scenes.snapshot_size, rounds=dose(60, 200)),
    scene("3B", scenes.retry_across_snapshot),
    scene("kvraft1", scenes.snapshot_rpc_versions),
    scene("kvraft1", scenes.snapshot_size_versions, rounds=dose(60, 200)),
    load("3A", "concurrent", 5, 5),
    load("3A", "basic", 1, 5),
    scene("lock", scenes.locks, "many_clients", clients=10, seconds=dose(1.0, 2.0)),
    scene("lock", scenes.locks, "one_client", clients=1, seconds=dose(1.0, 2.0)),
    scene("lock", scenes.locks, "one_client_unreliable", clients=1, unreliable=True),
    scene("lock", scenes.lock_nested),
    scene("lock", scenes.lock_basic),
    scene("kvsrv", scenes.kvsrv, "kvsrv_basic", clients=1, rounds=dose(1, 3)),
    scene("kvsrv", scenes.kvsrv, "kvsrv_concurrent", clients=5, rounds=dose(1, 3)),
    scene(
        "kvsrv",
        scenes.kvsrv,
        "kvsrv_unreliable",
        clients=5,
        rounds=dose(1, 3),
        unreliable=True,
    ),
    scene("kvsrv", memory.mem_get),
    scene("kvsrv", memory.many_large_answers),
    scene("kvsrv", memory.mem_put),
    scene("kvsrv", memory.mem_append),
    scene("kvsrv", memory.mem_get_many),
    scene("kvsrv", memory.mem_appends),
    scene("kvsrv1", memory.mem_versions_many, clients=dose(40_000, 100_000)),
    scene("kvsrv1", scenes.put_concurrent),
    scene("kvsrv1", scenes.reliable_put),
]
SCENES = spread(LISTED)


class Planted(Record):
    """A bug of `kv_bugs` that a scene is there to catch, within its first `TRIED` seeds."""

    bug: str
    scene: str

    def __str__(self) -> str:
        return f"{self.bug}-{self.scene}"


TRIED = 6
PLANTED = [
    Planted("snapshot_without_sessions", "retry_across_snapshot"),
    Planted("unknown_is_no", "deposed_leader"),
    Planted("anybody_reads", "one_partition"),
    Planted("repeated_is_done_again", "unreliable_one_key_one_server"),
    Planted("new_sequence_when_asked_again", "unreliable_one_key"),
    Planted("new_sequence_when_asked_again", "kvsrv_unreliable"),
    Planted("session_of_a_connection", "retry_across_snapshot"),
    Planted("too_late_is_not_done", "deposed_leader"),
    Planted("reads_locally", "one_partition"),
    Planted("leader_reads_at_once", "one_partition"),
    Planted("answered_when_placed", "one_partition"),
    Planted("answered_when_placed", "one_partition_versions"),
    Planted("repeats_are_forgotten", "unreliable_net"),
    Planted("state_not_loaded", "snapshot_rpc"),
    Planted("state_not_loaded", "snapshot_recover"),
    Planted("log_never_compacted", "snapshot_size"),
    Planted("answers_are_kept", "mem_get"),
    Planted("answers_in_one_message", "many_large_answers"),
    Planted("sessions_are_large", "mem_put_many"),
    Planted("watches_once", "many_clients_unreliable"),
]
HUNTED = PLANTED[: dose(3, len(PLANTED))]


class Room:
    """For so many links at a time; whoever needs more waits."""

    def __init__(self, links: int) -> None:
        self._left, self._changed = links, threading.Condition()

    @contextmanager
    def taken(self, links: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._left >= links)
            self._left -= links
        try:
            yield
        finally:
            with self._changed:
                self._left += links
                self._changed.notify_all()


ROOM = Room(LINKS_MAX)


def factory_of(config: pytest.Config) -> Callable[..., Any]:
    """Whose servers: `--impl`, or ours."""
    text = config.getoption("--impl")
    if not text:
        return KvLab
    module, _, factory = text.partition(":")
    if not factory:
        raise pytest.UsageError(f"--impl {text}: it is MODULE:FACTORY")
    made: Callable[..., Any] = getattr(importlib.import_module(module), factory)
    return made


class Played(Record):
    """How long a scene took, and figures that it wants to be seen."""

    seconds: float
    scores: tuple[str, ...]


def play(one: Scene, number: int, factory: Callable[..., Any], folder: Path, **more: Any) -> Played:
    """Play a scene. Raises what went wrong."""
    seed = zlib.crc32(f"{one.name} {number}".encode())
    labs: list[Any] = []
    with ExitStack() as stack:
        stack.enter_context(ROOM.taken(one.links))
        began = monotonic()

        def make(servers: int, **how: Any) -> Any:
            how["flags"] = (*how.get("flags", ()), *more.get("flags", ()))
            lab = factory(folder, seed, servers, **{**more, **how})
            labs.append(stack.enter_context(lab))
            return labs[-1]

        one.play(make, **dict(one.about))
        for lab in labs:
            lab.finish()
    return Played(monotonic() - began, tuple(line for lab in labs for line in lab.scores))


def hunt(case: Planted, folder: Path, **more: Any) -> str:
    """What its scene finds if this bug is planted; "" if nothing."""
    one = next(one for one in SCENES if one.name == case.scene)
    if case.bug in CLERK_BUGS:
        more["clerk_bug"] = CLERK_BUGS[case.bug]
    else:
        assert case.bug in SERVER_BUGS
        more |= {"program": PROGRAM, "flags": ("--plant", case.bug)}
    for number in range(TRIED):
        place = folder / str(number)
        place.mkdir()
        try:
            play(one, number, KvLab, place, **more)
        except (AssertionError, EngineError) as error:  # a wrong answer, or a server that ended
            return f"{type(error).__name__}: {error}"
    return ""


@pytest.fixture(scope="module")
def playing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Any, Future[Any]]]:
    """All chosen scenes and hunts, side by side. Those that nobody waits for any more are ended."""
    chosen = {
        item.callspec.params["one"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and "one" in item.fixturenames
    }
    factory, over = factory_of(request.config), threading.Event()
    going: dict[Any, Future[Any]] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for one in (one for one in (*SCENES, *HUNTED) if one in chosen):
                folder = tmp_path_factory.mktemp(one[0][:30])
                if type(one) is Planted:
                    going[one] = pool.submit(hunt, one, folder, over=over)
                else:
                    going[one] = pool.submit(play, one, 0, factory, folder, over=over)
            yield going
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)


def marked(one: Scene) -> Any:
    return pytest.param(one, id=one.name, marks=getattr(pytest.mark, one.lab))


@pytest.mark.parametrize("one", [marked(one) for one in SCENES])
def test_lab(
    one: Scene, playing: dict[Any, Future[Played]], request: pytest.FixtureRequest
) -> None:
    played = playing[one].result()
    if request.config.get_verbosity() > 0:
        lines = [f"{played.seconds:6.1f} s  {one.name}", *(f"{'':10}{x}" for x in played.scores)]
        request.config.stash.setdefault(SCORES, []).extend(lines)


@pytest.mark.parametrize("one", HUNTED, ids=str)
def test_planted_bug_is_caught(one: Planted, playing: dict[Any, Future[str]]) -> None:
    assert playing[one].result(), f"{one} is not caught with {TRIED} seeds"


def test_all_of_the_labs_are_here() -> None:
    """23 of 2021, of which 14 are 3A, 10 of kvsrv, 4 of kvsrv1, 6 locks, 6 of kvraft1. Hasty
    clients, the answer that is lost across a snapshot, the deposed leader, many large answers and
    the lock made of versions are ours."""
    of_lab = {mark: sum(one.lab == mark for one in SCENES) for mark in {one.lab for one in SCENES}}
    assert of_lab == {
        "3A": 14 + 1,
        "3B": 9 + 2,
        "kvsrv": 10 + 1,
        "kvsrv1": 4,
        "lock": 6 + 1,
        "kvraft1": 6,
    }
    assert len({one.name for one in SCENES}) == len(SCENES)
    assert {case.scene for case in PLANTED} <= {one.name for one in SCENES}
