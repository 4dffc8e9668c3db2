"""`engine verify`: what it prints, and how it ends."""

from __future__ import annotations

import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from support import engine

from engine.verify.files import lines
from engine.verify.history import Operation
from engine_cmd import main as program
from engine_cmd import verify

GOOD = [Operation(1, "write", "x", "a", 0, 1), Operation(2, "read", "x", (), 2, 3, "a")]
BAD = [*GOOD, Operation(2, "read", "y", (), 4, 5, "a")]
HARD = [Operation(n, "write", "z", str(n), 0, 2) for n in range(26)]
HARD.append(Operation(99, "read", "z", (), 3, 4, "nobody wrote this"))


def saved(folder: Path, operations: list[Operation]) -> str:
    path = folder / "history.jsonl"
    path.write_text("".join(lines(operations)))
    return str(path)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = program.main(["verify", *arguments])
    return (code, *capsys.readouterr())


def test_a_right_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "wrong.html"
    flags = ("--model", "register", "--html", str(out))
    code, told, _ = call(capsys, saved(tmp_path, GOOD), *flags)
    assert (code, told) == (0, "linearizable: 2 operations on 1 keys\n")
    assert not out.exists(), "there is nothing to draw"


def test_a_wrong_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "wrong.html"
    flags = ("--model", "register", "--html", str(out))
    code, told, _ = call(capsys, saved(tmp_path, BAD), *flags)
    assert code == 1
    assert told.startswith("not linearizable: 3 operations on 2 keys, 1 of the keys wrong\n")
    assert '"y": no order of its 1 operations' in told
    assert told.endswith(f"drawn in {out}\n")
    assert "<svg" not in out.read_text()
    assert "Not linearizable" in out.read_text()


def test_what_takes_too_long_is_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, [*GOOD, *HARD])
    flags = ("--model", "register", "--timeout", "0.05")
    code, told, _ = call(capsys, path, *flags)
    assert code == 5
    assert told.startswith("undecided: 29 operations on 2 keys, 1 of the keys")
    assert "z: out of seconds after" in told
    code, told, _ = call(capsys, path, *flags, "--json")
    assert (code, json.loads(told)["verdict"]) == (5, "undecided")


def test_what_takes_too_much_memory_is_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "CONFIGURATIONS_MAX", 1000)
    path = saved(tmp_path, HARD)
    code, told, _ = call(capsys, path, "--model", "register", "--json", "--timeout", "never")
    assert (code, json.loads(told)["undecided"]) == (5, [{"key": "z", "bound": "configurations"}])


@pytest.mark.parametrize(("operations", "code"), [(GOOD, 0), (BAD, 1), ([], 0)])
def test_one_object(
    operations: list[Operation], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = call(capsys, saved(tmp_path, operations), "--model", "register", "--json")
    told: dict[str, Any] = json.loads(found[1])
    assert found[0] == code
    assert told["verdict"] == ("violation" if code else "ok")
    assert told["operations"] == len(operations)
    assert [one["key"] for one in told["wrong"]] == (["y"] if code else [])
    assert (told["html"], told["error"]) == (None, None)


def test_from_stdin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for text, code in (("".join(lines(BAD)), 1), ("".join(lines(GOOD)), 0), ("{", 2)):
        stdin = types.SimpleNamespace(buffer=io.BytesIO(text.encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        assert call(capsys, "-", "--model", "register")[0] == code


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["history.jsonl"], 2, "--model"),
        (["history.jsonl", "--model", "kv"], 2, "'kv'"),
        (["history.jsonl", "--model", "lock", "--timeout", "0"], 2, "timeout"),
        (["nothing.jsonl", "--model", "lock"], 3, "There is no history nothing.jsonl."),
        ([".", "--model", "lock"], 2, ". cannot be read"),
        (["history.jsonl", "--model", "lock"], 2, "history.jsonl, line 1: this model has no"),
        (["history.jsonl", "--model", "register", "--html", "no/x"], 6, "no/x cannot be written"),
    ],
)
def test_misuse_is_one_sentence(
    arguments: list[str],
    code: int,
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved(tmp_path, BAD)
    monkeypatch.chdir(tmp_path)
    found = call(capsys, *arguments)
    assert found[0] == code
    assert why in found[2]
    assert found[2].count("\n") == 1
    found = call(capsys, *arguments, "--json")
    assert found[0] == json.loads(found[1])["exit_code"] == code


def test_as_a_user_has_it(tmp_path: Path) -> None:
    ran = engine("verify", saved(tmp_path, BAD), "--model", "register")
    assert ran.code == 1
    assert "not linearizable" in ran.out
    assert "0 if it is linearizable" in engine("verify", "--help").out


def test_the_models_are_those_that_there_are() -> None:
    from engine.verify.models import MODELS

    assert tuple(MODELS) == verify.MODELS
