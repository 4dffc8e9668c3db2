"""The command line: what each verb asks of the engine, what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from support import engine, patience, run

from engine import __version__, errors
from engine.mapreduce import client
from engine.mapreduce.apps import BUILT_IN, SUMMARIES
from engine.mapreduce.top import top
from engine_cmd import main as program

SUMMARY = client.Summary(
    seconds=2.0,
    bytes=6_000_000,
    words=1_000_000,
    distinct=50_000,
    workers=2,
    attempts={"committed": 4},
    rss_max_bytes=1 << 20,
    output="",
    skipped=0,
    samples=(),
    deaths=0,
    notes={},
)


class Called(NamedTuple):
    """What the command line asked of a stubbed engine."""

    requests: list[client.Request]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Called:
    """`client.run` that remembers its request and leaves a small output."""
    requests: list[client.Request] = []
    (tmp_path / "mr-out-0").write_text("a 3\nthe 12\n")
    (tmp_path / "mr-out-1").write_text("of 12\n")

    def run(request: client.Request) -> client.Summary:
        requests.append(request)
        return SUMMARY._replace(output=str(tmp_path))

    monkeypatch.setattr(client, "run", run)
    return Called(requests)


# --- requests ------------------------------------------------------------------------------------


def request(*inputs: str, **fields: Any) -> client.Request:
    """The request of `engine mr run wordcount INPUT… --out o`, but for these fields."""
    return client.Request(app="wordcount", inputs=inputs, out="o")._replace(**fields)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run wordcount a b --out o", request("a", "b")),
        ("run wordcount a --out o --workers 3 --on local", request("a", workers=3, on="local")),
        ("run wordcount a --out o --reducers 7 --scratch s", request("a", reducers=7, scratch="s")),
        ("run wordcount a --out o --memory 64", request("a", memory=64 << 20)),
        ("run wordcount a --out o --memory 64M", request("a", memory=64 << 20)),
        ("run wordcount a --out o --memory 1GiB", request("a", memory=1 << 30)),
        ("run wordcount a --out o --record-timeout 0.5", request("a", record_timeout=0.5)),
        ("run wordcount a --out o --skip-bad 9 --resume", request("a", skip_bad=9, resume=True)),
        ("run wordcount a --out o --force --isa sse2", request("a", force=True, isa="sse2")),
        (
            "run wordcount a --out o --set x=1 --set y=a=b --fold-case",
            request("a", options=(("x", "1"), ("y", "a=b"), ("fold_case", "yes"))),
        ),
        ("sequential wordcount a --out o", request("a", on="inline", workers=1, reducers=1)),
        (
            "coordinator wordcount a --out o --listen tcp://127.0.0.1:*",
            request("a", on="local", workers=0, listen="tcp://127.0.0.1:*"),
        ),
    ],
)
def test_flags_become_a_request(called: Called, line: str, expected: client.Request) -> None:
    assert program.main(["mr", *line.split()]) == 0
    assert called.requests == [expected]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("mr run wordcount --out o", "INPUT"),
        ("mr run wordcount a", "--out"),
        ("mr run wordcount a --out o --workers 0", "'0'"),
        ("mr run wordcount a --out o --workers two", "'two'"),
        ("mr run wordcount a --out o --memory 12X", "'12X'"),
        ("mr run wordcount a --out o --memory 0", "'0'"),
        ("mr run wordcount a --out o --record-timeout -1", "record-timeout"),
        ("mr run wordcount a --out o --record-timeout nan", "'nan'"),
        ("mr run wordcount a --out o --set x", "NAME=VALUE"),
        ("mr run wordcount a --out o --on mars", "'mars'"),
        ("mr run wordcount a --out o --resume --force", "--force"),
        ("mr run wordcount a --out o --wrkers 3", "--wrkers"),
        ("mr walk", "walk"),
        ("mrr", "`mr`"),
        ("doctor --cure", "--cure"),
        ("sim nothing", "'nothing'"),
    ],
)
def test_misuse_is_one_sentence_and_exit_2(
    called: Called, capsys: pytest.CaptureFixture[str], line: str, word: str
) -> None:
    assert program.main(line.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("engine: ")
    assert told.err.count("\n") == 1
    assert word in told.err
    assert program.main([*line.split(), "--json"]) == 2
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["exit_code"], told.err) == (2, "")
    assert word in found["error"]
    assert not called.requests


# --- results -------------------------------------------------------------------------------------


def test_a_result_is_one_line_and_a_table(
    called: Called, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    assert program.main(["mr", "run", "wordcount", "a", "--out", "o", "--top", "2"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "wordcount: 6.0 MB, 1,000,000 words, 50,000 distinct in 2.00 s (3.0 MB/s, 2 workers); "
        f"output in {tmp_path}",
        "12  of",
        "12  the",
    ]
    assert told.err == ""


def test_a_result_as_json_is_one_object(
    called: Called, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    assert program.main(["mr", "run", "wordcount", "a", "--out", "o", "--top", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "seconds": 2.0,
        "bytes": 6_000_000,
        "mb_per_second": 3.0,
        "words": 1_000_000,
        "distinct": 50_000,
        "workers": 2,
        "attempts": {"committed": 4},
        "rss_max_bytes": 1 << 20,
        "output": str(tmp_path),
        "skipped": 0,
        "deaths": 0,
        "notes": {},
        "version": __version__,
        "error": None,
        "top": [["of", 12]],
    }


def test_skipped_records_and_deaths_are_told(
    called: Called, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hurt = SUMMARY._replace(skipped=1, samples=("a.txt: byte 7: bad",), deaths=2)
    monkeypatch.setattr(client, "run", lambda request: hurt)
    assert program.main(["mr", "run", "wordcount", "a", "--out", "o", "--skip-bad", "1"]) == 0
    told = capsys.readouterr()
    assert "; 1 bad record skipped; 2 workers died and were replaced; " in told.out
    assert told.err == "engine: skipped: a.txt: byte 7: bad\n"


# --- how it ends ---------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[client.Request], client.Summary]:
    def run(request: client.Request) -> client.Summary:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.JobFailed("why"), 1),
        (errors.DamagedData("f", 3, "why"), 1),
        (errors.UsageError("why"), 2),
        (errors.NotFoundError("why"), 3),
        (errors.ConnectionFailed("why"), 4),
        (errors.RefusedError("why"), 6),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_codes(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: errors.EngineError,
    code: int,
) -> None:
    error.add_note("Traceback of the job")
    monkeypatch.setattr(client, "run", raising(error))
    line = ["mr", "run", "wordcount", "a", "--out", "o"]
    assert program.main(line) == code
    assert capsys.readouterr().err == f"Traceback of the job\nengine: {error}\n"
    assert program.main([*line, "--json"]) == code
    told = capsys.readouterr()
    assert json.loads(told.out) == {
        "error": str(error),
        "exit_code": code,
        "detail": "Traceback of the job",
    }
    assert told.err == ""


def test_a_bug_shows_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "run", raising(ZeroDivisionError("planted")))
    assert program.main(["mr", "run", "wordcount", "a", "--out", "o"]) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "ZeroDivisionError: planted" in told
    assert "this is a bug" in told


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141), (SystemExit(143), 143)],
)
def test_signals_end_quietly(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
) -> None:
    monkeypatch.setattr(client, "run", raising(error))
    assert program.main(["mr", "run", "wordcount", "a", "--out", "o"]) == code
    assert capsys.readouterr() == ("", "")


def test_windows_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "sys", types.SimpleNamespace(**{**vars(sys), "platform": "win32"}))
    assert program.main(["doctor"]) == 6
    assert "WSL 2" in capsys.readouterr().err


# --- the top list --------------------------------------------------------------------------------


def test_top_agrees_with_sorting(tmp_path: Any) -> None:
    counts = {f"w{n}": n * 7919 % 101 - 20 for n in range(500)}
    for part in range(3):
        lines = [f"{k} {v}\n" for n, (k, v) in enumerate(counts.items()) if n % 3 == part]
        (tmp_path / f"mr-out-{part}").write_text("".join(lines))
    (tmp_path / "manifest.json").write_text("{}")
    best = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    for k in (1, 2, 10, 499, 500, 600):
        assert top(str(tmp_path), k) == best[:k]


def test_top_keeps_keys_with_spaces_and_refuses_other_values(tmp_path: Any) -> None:
    (tmp_path / "mr-out-0").write_text("two words 3\n")
    assert top(str(tmp_path), 1) == [("two words", 3)]
    (tmp_path / "mr-out-1").write_text("a 1\nb x.txt,y.txt\n")
    with pytest.raises(errors.JobFailed, match=r"mr-out-1: line 2 ends in 'x\.txt,y\.txt'"):
        top(str(tmp_path), 1)
    with pytest.raises(errors.NotFoundError, match="cannot be listed"):
        top(str(tmp_path / "nowhere"), 1)


# --- real processes ------------------------------------------------------------------------------


def test_version_is_quick() -> None:
    """The aim is 50 ms; this takes processor time, which a busy machine stretches less, the best
    of five, and twice as much."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = engine("--version")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert (ran.code, ran.out) == (0, f"engine {__version__}\n")
    assert min(seconds) < patience(0.1)


def loaded_by(*arguments: str) -> set[str]:
    """Modules that an interpreter imports to do this."""
    ran = run([sys.executable, "-X", "importtime", *arguments])
    return {line.rpartition("|")[2].strip() for line in ran.err.splitlines()}


def test_version_imports_next_to_nothing() -> None:
    """Beyond what any interpreter here imports, the hook of an editable installation included."""
    loaded = loaded_by("-m", "engine_cmd.main", "--version") - loaded_by("-m", "this")
    assert {name for name in loaded if name.startswith("engine")} <= {"engine", "engine_cmd"}
    assert "engine" in loaded
    assert not loaded & {"argparse", "json", "re", "typing", "zmq"}


def test_apps_lists_every_built_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["mr", "apps"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == sorted(BUILT_IN)
    assert program.main(["mr", "apps", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["apps"] == SUMMARIES


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {verb} " in told for verb in program.VERBS)
    for verb in program.VERBS:
        assert program.main([verb, "--help"]) == 0
        assert f"engine {verb}" in capsys.readouterr().out


def test_a_reader_that_left_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "engine_cmd.main", "--help"],
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=patience(20),
            check=False,
        )
    finally:
        os.close(write)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_the_client_imports_nothing_slow() -> None:
    """What a job's processes import before they work, transitively."""
    slow = {"asyncio", "dataclasses", "logging", "psutil", "subprocess", "argparse", "pathlib"}
    code = f"""
import sys
before = set(sys.modules)  # an installed package's import hook may have taken some itself
import engine.mapreduce.client
print(sorted((set(sys.modules) - before) & {slow!r}))
"""
    ran = run([sys.executable, "-c", code])
    assert (ran.code, ran.out) == (0, "[]\n"), ran.err


def test_doctor_passes_here_and_its_json_says_the_same() -> None:
    plain, as_json = engine("doctor"), engine("doctor", "--json")
    found = json.loads(as_json.out)
    assert plain.code == as_json.code == 0, plain.out
    assert found["ok"]
    lines = plain.out.splitlines()
    assert [line.split()[0] for line in lines] == [c["state"] for c in found["checks"].values()]


def test_doctor_tells_of_a_temporary_folder_that_is_too_deep(tmp_path: Any) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    ran = engine("doctor", "--json", env={**os.environ, "TMPDIR": str(deep)})
    found = json.loads(ran.out)
    assert (ran.code, found["ok"]) == (1, False)
    assert found["checks"]["sockets"]["state"] == "FAIL"
    assert "TMPDIR" in found["checks"]["sockets"]["hint"]
