"""What is served of a cluster: its page with the figures behind it, or the figures alone.

A thread looks at the replicas once a second, for speeds are made of what was seen before; readers
get what it saw last, however many they are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from threading import Event, Lock, Thread
from time import monotonic

from engine.kv.metrics import text_of
from engine.web.board import Board
from engine.web.lookout import Lookout, Sight
from engine.web.page import POLICY, page
from engine.web.server import PROMETHEUS, Answer, serve, serve_text

EVERY_SECONDS = 1.0


class Watch:
    """Looks from a thread of its own. A context manager; on leaving it looks no more."""

    def __init__(self, folder: str, *, keys: bool = False) -> None:
        self._board, self._folder = Board(folder, keys=keys), folder
        self._lock, self._over = Lock(), Event()
        self._seen = Event()
        self._thread = Thread(target=self._run, name="lookout", daemon=True)

    def _run(self) -> None:
        try:
            self._look()
        finally:
            self._seen.set()  # or whoever waits for us would wait for ever

    def _look(self) -> None:
        with Lookout(self._folder) as lookout:
            due = monotonic()
            while not self._over.is_set():
                sight = lookout.look()
                with self._lock:
                    self._board.see(sight)
                self._seen.set()
                due = max(due + EVERY_SECONDS, monotonic())
                self._over.wait(due - monotonic())

    def sight(self) -> Sight:
        """The last one."""
        with self._lock:
            assert self._board.sight is not None
            return self._board.sight

    def status(self) -> Answer:
        """What the page shows, as JSON."""
        with self._lock:
            told = self._board.told(monotonic())
        return Answer("application/json", json.dumps(told, separators=(",", ":")).encode())

    def __enter__(self) -> Watch:
        self._thread.start()
        self._seen.wait()  # nobody is shown a page that knows nothing
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def metrics_of(sight: Sight) -> str:
    """For Prometheus."""
    if sight.problem:
        sys.stderr.write(f"engine: {sight.problem}\n")
    return text_of(sight.seats, sight.statuses, sight.processes)


def serve_page(folder: str, listen: str, *, as_json: bool, keys: bool = False) -> None:
    """The page of the cluster in a folder, until a signal ends it. Only with `keys` it shows some.

    UsageError, RefusedError if the port is taken.
    """
    with Watch(folder, keys=keys) as watch:
        paths: dict[str, Callable[[], Answer]] = {
            "/": lambda: Answer("text/html; charset=utf-8", page(folder), POLICY),
            "/status.json": watch.status,
            "/metrics": lambda: Answer(PROMETHEUS, metrics_of(watch.sight()).encode()),
        }
        serve(listen, paths, as_json=as_json)


def serve_metrics(folder: str, listen: str, *, as_json: bool) -> None:
    """The figures at /metrics, looked at whenever somebody asks; as `serve_page`."""
    turn = Lock()  # readers come in threads, and a lookout is for one at a time
    with Lookout(folder) as lookout:

        def metrics() -> str:
            with turn:
                return metrics_of(lookout.look())

        serve_text(listen, metrics, as_json=as_json)
