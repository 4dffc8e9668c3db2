"""What a worker does with its orders, by itself: executors in this process, without a scheduler."""

from __future__ import annotations

import errno
import gc
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import run

from engine.contract import Job as WorldJob
from engine.contract import Link, Moved, Received, Send
from engine.errors import ConnectionFailed
from engine.mapreduce import Job, executor, gather, inline, progress, python, worker
from engine.mapreduce import messages as m
from engine.mapreduce.executor import AttemptFailed, Executor, make_executor
from engine.mapreduce.orders import Worker
from engine.mapreduce.splits import identify
from engine.storage import runs

Execute = Callable[..., Executor]


def new_page() -> memoryview:
    return memoryview(bytearray(8 * progress.WORDS)).cast("Q")


class Shown:
    """A page that remembers what it showed whenever it moved."""

    def __init__(self) -> None:
        self.words = [0] * progress.WORDS
        self.moves: list[tuple[int, ...]] = []

    def __getitem__(self, word: int) -> int:
        return self.words[word]

    def __setitem__(self, word: int, value: int) -> None:
        self.words[word] = value
        if word == progress.BEAT:
            self.moves.append(tuple(self.words))


class Echo(Job):
    """Lines by their first letter, in the order of the input."""

    def map(self, document: str, record: str) -> Iterator[tuple[str, str]]:
        yield record[:1], f"{document}:{record}"

    def reduce(self, key: str, values: Any) -> Iterator[tuple[str, str]]:
        for value in values:
            yield key, value


def configure(folder: Path, app: str = "wordcount", partitions: int = 2) -> m.Configure:
    for name in ("scratch", "parts"):
        (folder / name).mkdir(exist_ok=True)
    scratch, parts = str(folder / "scratch"), str(folder / "parts")
    return m.Configure(7, app, (), partitions, 8 << 20, scratch, parts, "", 0, 0, "")


@pytest.fixture
def echo(tmp_path: Path) -> python.PythonExecutor:
    return python.PythonExecutor(configure(tmp_path, partitions=1), Echo(), new_page())


@pytest.fixture
def words(tmp_path: Path) -> Executor:
    return make_executor(configure(tmp_path), new_page())


def order(path: Path, task: int, attempt: int = 0, **changes: Any) -> m.Map:
    size = path.stat().st_size
    return m.Map(attempt or task + 1, task, str(path), 0, size, identify(str(path)), ())._replace(
        **changes
    )


def committed(executor: Executor, folder: Path, texts: list[str], first: int = 0) -> list[Any]:
    """A run for each text, as `Reduce` names them."""
    found = []
    for task, text in enumerate(texts, first):
        path = folder / f"input-{task}"
        path.write_text(text)
        executor.scan(order(path, task))
        done = executor.commit()
        assert done is not None
        found.append((task + 1, done.path, done.size, done.digest))
    return found


def reduced(executor: Executor, found: list[Any], partition: int = 0) -> str:
    report = executor.reduce(m.Reduce(900 + partition, partition, tuple(found)))
    assert os.path.getsize(report.path) == report.size
    with open(report.path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


# --- commits -------------------------------------------------------------------------------------


def test_a_commit_is_never_thought_to_be_free(words: Executor, tmp_path: Path) -> None:
    """A few words, read again and again: by the keys alone it would commit every millisecond."""
    committed(words, tmp_path, ["a b c"])
    path = tmp_path / "input-0"
    words.scan(order(path, 1))
    words._busy_ns = executor.COMMIT_SHARE * executor.COMMIT_COST_MIN_NS - 1
    assert not words.wants_commit()
    words._busy_ns += 2
    assert words.wants_commit()


# --- gathering runs ------------------------------------------------------------------------------

MANY_RUNS = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
sys.path[:0] = sys.argv[2:]
import test_executor as t
folder = Path(sys.argv[1])
for name in ("words", "echo"):
    (folder / (name + ".d")).mkdir()
    given = t.configure(folder / (name + ".d"), partitions=1 + (name == "words"))
    if name == "words":
        executor = t.make_executor(given, t.new_page())
    else:
        executor = t.python.PythonExecutor(given, t.Echo(), t.new_page())
    found = t.committed(executor, folder, [f"a {'b' * (n % 7 + 1)}\\n" for n in range(300)])
    text = "".join(t.reduced(executor, found, p) for p in range(executor.configure.partitions))
    (folder / name).write_text(text)
"""


def test_more_runs_than_descriptors(tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parent
    paths = [str(tests), str(tests.parent), str(tests.parents[1])]
    ran = run([sys.executable, "-c", MANY_RUNS, str(tmp_path), *paths])
    assert ran.code == 0, ran.err
    texts = [f"a {'b' * (n % 7 + 1)}" for n in range(300)]
    counts = Counter(word for text in texts for word in text.split())
    assert sorted((tmp_path / "words").read_text().splitlines()) == [
        f"{word} {count}" for word, count in sorted(counts.items())
    ]
    expected = [f"a input-{n}:{text}" for n, text in enumerate(texts)]
    assert (tmp_path / "echo").read_text().splitlines() == expected
    for name in ("words", "echo"):
        left = os.listdir(tmp_path / f"{name}.d" / "scratch")
        assert all(entry.startswith("run-") for entry in left)


@pytest.mark.parametrize("at_once", [2, 3, 64])
@pytest.mark.parametrize("fan_in", [2, 64])
def test_values_keep_their_order_however_runs_are_grouped(
    echo: python.PythonExecutor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    fan_in: int,
) -> None:
    """Each run holds two splits that lie far apart, and all of them interleave."""
    monkeypatch.setattr(gather, "open_at_once", lambda: at_once)
    monkeypatch.setattr(runs, "fan_in", lambda memory: fan_in)
    found = []
    for n in range(6):
        for task in (n, 11 - n):
            path = tmp_path / f"input-{task:02}"
            path.write_text(f"x{task}\n")
            echo.scan(order(path, task))
        done = echo.commit()
        assert done is not None
        found.append((n + 1, done.path, done.size, done.digest))
    before = len(os.listdir("/dev/fd"))
    lines = reduced(echo, found).splitlines()
    assert lines == [f"x input-{task:02}:x{task}" for task in range(12)]
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("at_once", [2, 64])
@pytest.mark.parametrize("harm", ["unlinked", "a block", "the index"])
def test_a_bad_run_is_named(
    words: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, harm: str
) -> None:
    """Also if its index was read, and kept, before."""
    monkeypatch.setattr(gather, "open_at_once", lambda: at_once)
    found = committed(words, tmp_path, ["A b cc D e ff"] * 5)
    assert reduced(words, found, 0)
    if harm == "the index":
        words = make_executor(words.configure, new_page())
    path = Path(found[3][1])
    data = bytearray(path.read_bytes())
    data[-30 if harm == "the index" else data.rindex(b"ENBL") + 50] ^= 1
    path.unlink()
    if harm != "unlinked":
        path.write_bytes(data)
    with pytest.raises(AttemptFailed) as caught:
        reduced(words, found, 1)
    assert (caught.value.reason, caught.value.where) == ("run", 4)
    assert str(path) in caught.value.text
    assert not list((tmp_path / "parts").glob("part-1-*"))


def test_damage_to_a_file_of_the_merge_is_nobodys_run(
    words: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "open_at_once", lambda: 2)
    found = committed(words, tmp_path, ["a b c d e f"] * 5)
    merged = words.merge_to_section

    def damaging(segments: Any, out: int, offset: int, **rest: Any) -> tuple[int, int, int]:
        segment = merged(segments, out, offset, **rest)
        os.pwrite(out, b"?", segment[0] + 50)
        return segment

    monkeypatch.setattr(words, "merge_to_section", damaging)
    with pytest.raises(AttemptFailed, match="intermediate merge") as caught:
        reduced(words, found)
    assert (caught.value.reason, caught.value.where) == ("run", m.NO_RUN)


def test_indexes_are_read_once_and_forgotten_with_their_run(
    words: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    really = gather.open_run
    monkeypatch.setattr(
        gather, "open_run", lambda path, **rest: read.append(path) or really(path, **rest)
    )
    found = committed(words, tmp_path, ["a b c", "d e f"])
    for partition in (0, 1):
        reduced(words, found, partition)
    assert read == [run[1] for run in found]
    again = committed(words, tmp_path, ["g"], first=2)
    words.reduce(m.Reduce(902, 1, (found[0], again[0])))
    assert [run[0] for run in words._gatherer._kept] == [1, 3]
    monkeypatch.setattr(gather, "INDEX_BYTES_KEPT", 2 * 8)  # one index: one section, two partitions
    words = make_executor(words.configure, new_page())
    words.reduce(m.Reduce(903, 1, (*found, *again)))
    assert [run[0] for run in words._gatherer._kept] == [1]


def test_the_limit_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"soft": 100, "hard": 5000}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits["soft"], limits["hard"]))
    monkeypatch.setattr(resource, "setrlimit", lambda which, new: limits.update(soft=new[0]))
    assert gather.open_at_once() == 100 - gather.DESCRIPTORS_KEPT
    gather.raise_descriptor_limit()
    assert limits["soft"] == 5000
    assert gather.open_at_once() == gather.RUNS_OPEN_MAX
    limits["soft"] = resource.RLIM_INFINITY
    assert gather.open_at_once() == gather.RUNS_OPEN_MAX
    limits["soft"] = 10
    assert gather.open_at_once() == 2


# --- outputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["words", "echo"])
def test_a_part_has_the_mode_that_the_umask_leaves(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    executor = request.getfixturevalue(name)
    found = committed(executor, tmp_path, ["a b"])
    before = os.umask(0o027)
    try:
        report = executor.reduce(m.Reduce(900, 0, tuple(found)))
    finally:
        os.umask(before)
    assert os.stat(report.path).st_mode & 0o777 == 0o640


class Many(Echo):
    """One key whose output is large, by lines or by bytes."""

    length = 0

    def reduce(self, key: str, values: Any) -> Iterator[tuple[str, str]]:
        for number in range(2000 if self.length else 20000):
            self.written.append(os.path.getsize(self.part()))
            yield key, f"{number}" + "é" * self.length

    def part(self) -> Path:
        return next(self.parts.iterdir())


@pytest.mark.parametrize(("length", "held"), [(0, 100_000), (10_000, 3 << 20)])
def test_one_key_may_yield_more_than_memory_holds(tmp_path: Path, length: int, held: int) -> None:
    job = Many()
    job.length, job.written, job.parts = length, [], tmp_path / "parts"
    executor = python.PythonExecutor(configure(tmp_path, partitions=1), job, new_page())
    report = executor.reduce(m.Reduce(900, 0, tuple(committed(executor, tmp_path, ["x"]))))
    assert report.total == len(job.written)
    assert max(b - a for a, b in zip(job.written, job.written[1:], strict=False)) < held
    assert report.size - job.written[-1] < held
    lines = Path(report.path).read_text().splitlines()
    assert lines == [f"x {n}" + "é" * length for n in range(len(lines))]


def test_a_full_disk_is_not_the_jobs_fault(
    echo: python.PythonExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = committed(echo, tmp_path, ["x\n" * 5000])

    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(python, "write_all", full)
    with pytest.raises(AttemptFailed, match="no space left") as caught:
        reduced(echo, found)
    assert caught.value.reason == "space"


# --- what the job's code does --------------------------------------------------------------------


class Exits(Echo):
    where = "map"

    def map(self, document: str, record: str) -> Iterator[tuple[str, str]]:
        if self.where == "map":
            sys.exit(3)
        yield record, record

    def reduce(self, key: str, values: Any) -> Iterator[tuple[str, str]]:
        if self.where == "reduce":
            sys.exit("enough")
        yield key, ""

    def line(self, key: str, value: str) -> str:
        sys.exit()


@pytest.mark.parametrize("where", ["map", "reduce", "line"])
def test_sys_exit_in_a_job_fails_the_attempt_not_the_worker(tmp_path: Path, where: str) -> None:
    job = Exits()
    job.where = where
    executor = python.PythonExecutor(configure(tmp_path, partitions=1), job, new_page())
    sent: list[Any] = []
    worker = Worker(executor, sent.append)
    path = tmp_path / "in"
    path.write_text("one\n")
    worker.handle(order(path, 0))
    worker.handle(m.Flush(1))
    if where != "map":
        done = sent.pop()
        worker.handle(m.Reduce(2, 0, ((1, done.path, done.size, done.digest),)))
    failed = sent[-1]
    assert isinstance(failed, m.Failed)
    assert failed.reason == "user"
    assert "SystemExit" in failed.text


def test_a_record_that_exits_can_be_skipped(tmp_path: Path) -> None:
    given = configure(tmp_path, partitions=1)._replace(skip_bad=1)
    executor = python.PythonExecutor(given, Exits(), new_page())
    path = tmp_path / "in"
    path.write_text("one\n")
    executor.scan(order(path, 0))
    done = executor.commit()
    assert done is not None
    assert "SystemExit: 3" in done.samples[0]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are any bytes on Linux")
def test_a_document_whose_name_is_not_utf8(echo: python.PythonExecutor, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_text("x\n")
    echo.scan(order(path, 0))
    done = echo.commit()
    assert done is not None
    text = reduced(echo, [(1, done.path, done.size, done.digest)])
    assert text == "x caf\ufffd.txt:x\n"


@pytest.mark.parametrize("records", ["lines", "files"])
def test_the_page_moves_while_much_is_read(tmp_path: Path, records: str) -> None:
    job, page = Echo(), Shown()
    job.records = records  # type: ignore[misc]
    path = tmp_path / "in"
    path.write_text("x\n" * (5 << 19))
    executor = python.PythonExecutor(
        configure(tmp_path, partitions=1),
        job,
        page,  # type: ignore[arg-type]
    )
    executor._feed = lambda *rest: None  # type: ignore[method-assign]
    executor.scan(order(path, 0))
    reading = [move for move in page.moves if move[progress.PHASE] == progress.READING]
    offsets = [move[progress.OFFSET] for move in reading]
    assert offsets == sorted(offsets)
    assert len(set(offsets)) >= 5
    beats = [move[progress.BEAT] for move in page.moves]
    assert beats == list(range(1, len(beats) + 1))


# --- the inline world ----------------------------------------------------------------------------


class NoJournal:
    def append(self, records: Any) -> None: ...

    def sync(self) -> None: ...


def world_of(*orders: Any) -> inline.InlineWorld:
    world = inline.InlineWorld(NoJournal(), None, "", dict)  # type: ignore[arg-type]
    world.send(Send(Link("worker", 3), order) for order in orders)
    return world


def test_each_inline_report_comes_with_the_page(tmp_path: Path) -> None:
    """Or the scheduler would take it that its only worker stands still."""
    path = tmp_path / "in"
    path.write_text("a b c")
    world = world_of(configure(tmp_path), order(path, 0, 5), order(path, 1, 6), m.Flush(6))
    events = [event for _ in range(4) for event in world.drain(100, 100)]
    assert [type(event) for event in events] == [Moved, Received] * 3
    first, _, second, scanned, last, done = events
    assert [e.process for e in (first, second, last)] == [3, 3, 3]
    assert [e.position[progress.ATTEMPT] for e in (first, second, last)] == [5, 6, 6]
    beats = [e.position[progress.BEAT] for e in (first, second, last)]
    assert beats == sorted(set(beats))
    assert isinstance(scanned.message, m.Scanned)
    assert done.message.attempts == (5, 6)


@pytest.mark.parametrize("end", ["Configure", "Stop"])
def test_an_inline_worker_that_is_replaced_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(
        inline, "make_executor", lambda given, page: python.PythonExecutor(given, Echo(), page)
    )
    path = tmp_path / "in"
    path.write_text("a\n")
    given = configure(tmp_path, partitions=1)
    after = given if end == "Configure" else m.Stop("done")
    world = world_of(given, order(path, 0), order(path, 9), after)
    for _ in range(3):
        world.drain(100, 100)
    assert len(os.listdir(given.scratch)) == 1
    world.drain(100, 100)
    assert os.listdir(given.scratch) == []
    world.start(WorldJob(1, m.Spawn(3)))


# --- the worker process --------------------------------------------------------------------------


class Line:
    """The wire of a worker, and what it was told."""

    def __init__(self, *incoming: Any) -> None:
        self.incoming = list(incoming)
        self.sent: list[Any] = []
        self.patience: float | None = -1.0

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *error: object) -> None: ...

    def connect(self, seconds: float | None) -> None:
        self.patience = seconds

    def send(self, value: Any) -> None:
        self.sent.append(value)

    def receive(self) -> Any:
        return self.incoming.pop(0)


@pytest.mark.parametrize("pipe", [None, 5])
def test_a_supervised_worker_waits_for_its_coordinator(
    monkeypatch: pytest.MonkeyPatch, pipe: int | None
) -> None:
    """As long as that lives, which the pipe tells; one that joined by itself does not."""
    line = Line(m.Stop("done"))
    made: dict[str, Any] = {}
    monkeypatch.setattr(worker, "Dialer", lambda address, **rest: made.update(rest) or line)
    monkeypatch.setattr(worker, "parent_pipe", lambda: pipe)
    monkeypatch.setattr(worker, "raise_descriptor_limit", lambda: None)
    monkeypatch.setattr(worker.gc, "disable", lambda: None)
    worker.main(0, "ipc://x", ())
    assert made["watch"] == (() if pipe is None else (pipe,))
    assert line.patience == (worker.CONNECT_SECONDS if pipe is None else None)
    line.incoming = [m.Stop("done")]
    monkeypatch.setattr(worker, "set_title", lambda title: None)
    worker.join("ipc://x")
    assert line.patience == worker.CONNECT_SECONDS


SERVE = """
import gc, json, os, sys
from engine.mapreduce import messages as m, progress, worker
from engine.runtime.pages import Pages
app, pages, folder = sys.argv[1:]
Pages.create(pages, 1)
given = m.Configure(7, app, (), 1, 1 << 20, folder, folder, pages, 0, 0, "")
class Line:
    incoming = [given]
    def connect(self, seconds): pass
    def send(self, value): pass
    def receive(self):
        if self.incoming:
            return self.incoming.pop()
        phase = Pages.attach(pages).read(0)[progress.PHASE]
        print(json.dumps([gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 0, phase]))
        return m.Stop("done")
worker._serve(Line(), None)
"""

SLOW_JOB = """
import time
from engine.mapreduce import Job, progress
from engine.runtime.pages import Pages
page = Pages.attach({pages!r}).slot(0)
before, deadline = page[progress.ALIVE], time.monotonic() + 30
while page[progress.ALIVE] < before + 2:
    assert time.monotonic() < deadline, "the heart does not beat"
assert page[progress.RECORD] == 0
class Slow(Job):
    pass
"""


@pytest.mark.parametrize("native", [True, False])
def test_serving(tmp_path: Path, native: bool) -> None:
    """The heart beats while a job is imported; only a job in Python needs the collector."""
    pages, job = str(tmp_path / "pages"), tmp_path / "job.py"
    job.write_text(SLOW_JOB.format(pages=pages))
    root = Path(__file__).resolve().parents[2]
    app = "wordcount" if native else str(job)
    ran = run([sys.executable, "-c", SERVE, app, pages, str(tmp_path)], cwd=root)
    assert ran.code == 0, ran.err
    untouched = f"[false, {list(gc.get_threshold())}, false, 0]"  # what Python begins with
    expected = untouched if native else "[true, [50000, 10, 50], true, 0]"
    assert ran.out.strip() == expected


def test_an_order_of_another_version_is_refused(words: Executor) -> None:
    with pytest.raises(ConnectionFailed, match="other version"):
        Worker(words, print).carry_out(m.Stop("x"))
