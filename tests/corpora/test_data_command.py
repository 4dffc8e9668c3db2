"""`engine data`: what it prints, and where. No network: mirrors and the generator only."""

import importlib.util
import json
import os
import pathlib

import pytest

from engine.errors import RefusedError, UsageError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data():
    """`cmd/data.py` as this tree has it."""
    spec = importlib.util.spec_from_file_location("engine_cmd_data", ROOT / "cmd" / "data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generate_and_fetch_as_text(data, tmp_path, capsys):
    to = str(tmp_path / "texts")
    assert data.main(["generate", "--to", to, "--size", "64K", "--files", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{to}: 65,536 bytes in 2 files, ")
    assert "natural-2.txt: 32,768 bytes" in err
    assert data.main(["fetch", "--to", to]) == 0
    out, err = capsys.readouterr()
    assert out == f"{to}: already complete, 2 texts, 65,536 bytes, invented prose\n"
    assert data.main(["fetch", "--to", to, "--source", "generate"]) == 0
    out, err = capsys.readouterr()
    assert "invented prose" in out


def test_as_json(data, tmp_path, capsys):
    to = str(tmp_path / "texts")
    command = ["generate", "--to", to, "--size", "9000", "--preset", "cardinal", "--json"]
    assert data.main(command) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["size"], made["already"], made["exact"]["distinct"]) == (9000, False, 225)
    assert data.main(["fetch", "--to", to, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["source"], report["already"], report["bytes"]) == ("generator", True, 9000)


def test_the_list_names_titles_authors_licences(data, capsys):
    assert data.main(["fetch", "--list"]) == 0
    out = capsys.readouterr().out
    for part in ("Moby Dick, by Herman Melville", "David Wyllie", "Project Gutenberg License"):
        assert part in out
    assert data.main(["fetch", "--list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["texts"]) == 26


def test_strangers_are_mentioned(data, tmp_path, capsys):
    data.main(["generate", "--to", str(tmp_path), "--size", "9000"])
    (tmp_path / "mine.txt").write_text("mine")
    data.main(["fetch", "--to", str(tmp_path)])
    assert "also holds mine.txt" in capsys.readouterr().err


def test_errors_are_left_to_the_program(data, tmp_path):
    with pytest.raises(UsageError, match="is not a size"):
        data.main(["generate", "--to", str(tmp_path / "x"), "--size", "big"])
    os.mkdir(tmp_path / "empty")
    with pytest.raises(RefusedError, match="no text of the catalogue"):
        data.main(["fetch", "--to", str(tmp_path / "x"), "--mirror", str(tmp_path / "empty")])
    with pytest.raises(UsageError, match="invalid choice: 'ftp'"):
        data.main(["fetch", "--source", "ftp"])
