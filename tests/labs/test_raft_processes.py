"""The Raft labs' tests (2A to 2D, and rsm), by name, on real processes.

What happens in them stands in `raft_scenes` and `rsm_scenes`; the servers are those of
`raft_process_lab`, or yours: `pytest -m 2B --impl module:factory`, where
`factory(folder, seed, servers, **how)` is a context manager that gives what `Tester` has.

Nearly all of a test is waiting, so the chosen ones are played side by side, each lab in one thread,
with its own folder, processes and proxy. What a test reports is its own scene's end; `-v` tells how
long each took. Repetitions are fewer than the labs' where they are only a dose: `make soak` has
those of the labs. Limits are never other ones.

`PLANTED` holds bugs that scenes are there to catch; `make soak` shows that they do.
"""

from __future__ import annotations

import importlib
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import raft_scenes
import rsm_scenes
from raft_process_lab import ProcessLab
from support import SCORES, dose

from engine.errors import EngineError
from engine.record import Record
from engine.sim.timeline import MILLISECOND

pytestmark = pytest.mark.processes

WORKERS = 6
PROGRAM = str(Path(__file__).with_name("raft_planted.py"))


class Scene(Record):
    """A test: what happens, with what, and on what servers."""

    name: str
    lab: str
    play: Callable[..., None]
    about: tuple[tuple[str, Any], ...] = ()
    """What the scene is told."""
    how: tuple[tuple[str, Any], ...] = ()
    """What its servers are told."""

    def __str__(self) -> str:
        return self.name


def scene(lab: str, play: Callable[..., None], name: str = "", **about: Any) -> Scene:
    return Scene(name or play.__name__, lab, play, tuple(about.items()))


def both(lab: str, play: Callable[..., None], name: str = "", **about: Any) -> list[Scene]:
    """On a network that is reliable, and on one that is not."""
    name = name or play.__name__
    return [
        scene(lab, play, f"{name}{end}", unreliable=bool(end), **about)
        for end in ("", "_unreliable")
    ]


S, R = raft_scenes, rsm_scenes
SLOW = 150 * MILLISECOND
"""One way: longer than it takes to see what a leader does and to cut it off."""

# The longest first, so that none is left over.
SCENES = [
    scene("2C", S.figure8, rounds=dose(200, 1000)),
    scene("2C", S.figure8_unreliable, rounds=dose(250, 1000)),
    scene("2C", S.persist2, rounds=dose(3, 5)),
    scene("2D", S.snapshot_install_unreliable, rounds=dose(8, 30)),
    scene("2D", S.snapshot_install_crash, rounds=dose(8, 30)),
    scene("2D", S.snapshot_install_un_crash, rounds=dose(8, 30)),
    scene("2D", S.snapshot_install, rounds=dose(8, 30)),
    scene("2A", S.many_elections, rounds=dose(5, 9)),
    *both("2D", S.snapshot_all_crash),
    scene("2A", S.re_election),
    scene("2C", S.reliable_churn, rounds=dose(10, 20)),
    scene("2C", S.unreliable_churn, rounds=dose(10, 20)),
    scene("2C", S.vote_outlives_crash, rounds=dose(1, 3)),
    scene("2C", S.figure8_step_by_step, delay=SLOW, tries=5)._replace(
        how=(("program", PROGRAM), ("flags", ("--entries-max", "1")))
    ),
    scene("rsm", R.restart_replay4a),
    scene("rsm", R.restart_submit4a),
    scene("2B", S.rejoin),
    scene("2C", S.unreliable_agree, rounds=dose(25, 49)),
    *both("2D", S.snapshot_init, "snapshot_init_12", before=12),
    *both("2D", S.snapshot_init, "snapshot_init_32", before=32),
    scene("2C", S.persist3),
    scene("2C", S.persist1),
    scene("2B", S.concurrent_starts),
    scene("2B", S.backup),
    scene("2B", S.leader_failure),
    scene("2B", S.follower_failure),
    scene("2A", S.initial_election),
    scene("2B", S.paused_leader),
    scene("2B", S.fail_no_agree),
    scene("2B", S.fail_agree),
    scene("2D", S.snapshot_basic, rounds=dose(16, 30)),
    scene("rsm", R.snapshot4c),
    scene("rsm", R.leader_failure4a),
    scene("rsm", R.shutdown4a),
    scene("rsm", R.leader_partition4a),
    scene("2B", S.count),
    scene("2B", S.basic_agree),
    scene("rsm", R.concurrent4a),
    scene("rsm", R.basic4a),
    scene("2B", S.rpc_bytes),
]


class Planted(Record):
    """A bug of `raft_bugs` that a scene is there to catch, within its first `TRIED` seeds."""

    bug: str
    scene: str

    def __str__(self) -> str:
        return f"{self.bug}-{self.scene}"


TRIED = 6
PLANTED = [
    Planted("commits_not_told", "basic_agree"),
    Planted("waiters_not_woken", "leader_partition4a"),
    Planted("applied_before_commit", "unreliable_churn"),
    Planted("never_backs_up", "reliable_churn"),
    Planted("no_up_to_date_check", "figure8"),
    Planted("truncates_matching_tail", "figure8_unreliable"),
    Planted("commit_old_term_by_counting", "figure8_step_by_step"),
    Planted("vote_not_persisted", "vote_outlives_crash"),
    Planted("log_kept_after_install", "snapshot_install_unreliable"),
    Planted("commits_not_told", "leader_failure4a"),
    Planted("commits_not_told", "basic4a"),
    Planted("zombie_leader", "many_elections"),
    Planted("log_kept_after_install", "snapshot_install"),
    Planted("snapshot_off_by_one", "snapshot_install"),
    Planted("snapshot_not_loaded", "snapshot_install_crash"),
    Planted("suffix_discarded_at_install", "snapshot_install_crash"),
    Planted("snapshot_without_members", "snapshot_install_un_crash"),
    Planted("last_entry_forgotten", "snapshot_all_crash"),
    Planted("snapshots_removed", "snapshot_init_32"),
    Planted("snapshots_removed", "snapshot_init_32_unreliable"),
    Planted("state_not_loaded", "snapshot_init_32"),
    Planted("truncates_matching_tail", "unreliable_agree"),
    Planted("log_forgotten", "restart_replay4a"),
    Planted("log_forgotten", "restart_submit4a"),
    Planted("no_up_to_date_check", "persist2"),
    Planted("no_up_to_date_check", "persist3"),
    Planted("last_entry_forgotten", "persist1"),
    Planted("log_forgotten", "persist1"),
    Planted("no_check_quorum", "re_election"),
    Planted("no_heartbeats", "initial_election"),
    Planted("said_three_times", "rpc_bytes"),
    Planted("one_is_enough", "follower_failure"),
    Planted("one_is_enough", "leader_failure"),
    Planted("never_backs_up", "fail_agree"),
    Planted("two_are_enough", "fail_no_agree"),
    Planted("same_index_for_all", "concurrent_starts"),
    Planted("no_previous_term_check", "rejoin"),
    Planted("length_before_term", "rejoin"),
    Planted("backs_up_by_one", "backup"),
    Planted("talks_all_the_time", "count"),
    Planted("zombie_leader", "paused_leader"),
    Planted("log_never_compacted", "snapshot_basic"),
    Planted("segments_never_retired", "snapshot_basic"),
    Planted("state_not_loaded", "snapshot4c"),
    Planted("log_never_compacted", "snapshot4c"),
    Planted("answered_when_placed", "leader_partition4a"),
    Planted("answered_when_placed", "concurrent4a"),
    Planted("answered_when_placed", "shutdown4a"),
]
HUNTED = PLANTED[: dose(2, len(PLANTED))]


def factory_of(config: pytest.Config) -> Callable[..., Any]:
    """Whose servers: `--impl`, or ours."""
    text = config.getoption("--impl")
    if not text:
        return ProcessLab
    module, _, factory = text.partition(":")
    if not factory:
        raise pytest.UsageError(f"--impl {text}: it is MODULE:FACTORY")
    made: Callable[..., Any] = getattr(importlib.import_module(module), factory)
    return made


def play(one: Scene, number: int, factory: Callable[..., Any], folder: Path, **more: Any) -> float:
    """Play a scene; how long it took. Raises what went wrong."""
    began = monotonic()
    seed = zlib.crc32(f"{one.name} {number}".encode())
    labs: list[Any] = []
    with ExitStack() as stack:

        def make(servers: int, **how: Any) -> Any:
            how.pop("entries_max", None)  # processes take a flag for that
            lab = factory(folder, seed, servers, **how, **dict(one.how), **more)
            labs.append(stack.enter_context(lab))
            return labs[-1]

        one.play(make, **dict(one.about))
        for lab in labs:
            lab.finish()
    return monotonic() - began


def hunt(case: Planted, folder: Path, **more: Any) -> str:
    """What its scene finds if this bug is planted; "" if nothing."""
    one = next(one for one in SCENES if one.name == case.scene)
    flags = (*dict(one.how).get("flags", ()), "--plant", case.bug)
    sick = one._replace(how=(("program", PROGRAM), ("flags", flags)))
    for number in range(TRIED):
        place = folder / str(number)
        place.mkdir()
        try:
            play(sick, number, ProcessLab, place, **more)
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
                folder = tmp_path_factory.mktemp(one[0])
                if type(one) is Planted:
                    going[one] = pool.submit(hunt, one, folder, over=over)
                elif factory is ProcessLab or not one.how:
                    going[one] = pool.submit(play, one, 0, factory, folder, over=over)
            yield going
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)


def marked(one: Scene) -> Any:
    return pytest.param(one, id=one.name, marks=getattr(pytest.mark, one.lab))


@pytest.mark.parametrize("one", [marked(one) for one in SCENES])
def test_lab(one: Scene, playing: dict[Any, Future[float]], request: pytest.FixtureRequest) -> None:
    if one not in playing:
        pytest.skip("it needs a program of our own")
    seconds = playing[one].result()
    if request.config.get_verbosity() > 0:
        request.config.stash.setdefault(SCORES, []).append(f"{seconds:6.1f} s  {one.name}")


@pytest.mark.parametrize("one", HUNTED, ids=str)
def test_planted_bug_is_caught(one: Planted, playing: dict[Any, Future[str]]) -> None:
    assert playing[one].result(), f"{one} is not caught with {TRIED} seeds"


def test_every_scene_has_a_planted_bug() -> None:
    """The labs have 28 tests of Raft and 8 of rsm; a paused leader, figure 8 step by step and the
    vote that is asked for twice are ours."""
    caught = {one.play for one in SCENES if one.name in {case.scene for case in PLANTED}}
    assert caught == {one.play for one in SCENES}
    of_lab = [sum(lab == one.lab for one in SCENES) for lab in ("2A", "2B", "2C", "2D", "rsm")]
    assert of_lab == [3, 10 + 1, 8 + 2, 7 + 4, 8]  # some of 2D also on another network
