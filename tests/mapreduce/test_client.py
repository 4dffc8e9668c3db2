"""`client.run`, inline: what is refused, what is kept, what is left."""

from __future__ import annotations

import os
import signal

import pytest

from engine.errors import DamagedData, JobFailed, NotFoundError, RefusedError, UsageError
from engine.mapreduce import client
from engine.mapreduce.client import Request, run
from engine.mapreduce.publish import OutputDirectory


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a rose is a rose\n")
    (tmp_path / "in" / "b.txt").write_text("is a\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(**changes) -> Request:
    return Request("wordcount", ("in",), "out", on="inline", reducers=2)._replace(**changes)


def lines(folder) -> list[str]:
    texts = [path.read_text() for path in folder.glob("out/mr-out-*")]
    return sorted("".join(texts).splitlines())


def test_a_job_from_inputs_to_outputs(folder):
    summary = run(request())
    assert lines(folder) == ["a 3", "is 2", "rose 2"]
    assert (summary.words, summary.distinct, summary.bytes) == (7, 3, 22)
    assert summary.attempts["committed"] == 4
    assert oct((folder / "out" / "mr-out-0").stat().st_mode & 0o777) == oct(0o666 & ~umask())


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"reducers": 0}, UsageError, "--reducers 0"),
        ({"workers": 1000, "on": "local"}, UsageError, "--workers 1000"),
        ({"memory": 5}, UsageError, "--memory"),
        ({"on": "spark"}, UsageError, "--on spark"),
        ({"scratch": "missing"}, UsageError, "--scratch missing"),
        ({"inputs": ("absent",)}, NotFoundError, "absent"),
        ({"app": "wordcuont"}, NotFoundError, "wordcuont"),
        ({"options": (("colour", "red"),)}, UsageError, "colour"),
        ({"out": "in"}, RefusedError, "not empty"),
        ({"out": "in/deep"}, None, ""),
        ({"inputs": (".",)}, None, ""),
    ],
)
def test_refusals_leave_nothing(folder, changes, error, text):
    if error is None:
        run(request(**changes))
        (folder / "out").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match="inside --out"):
            run(request(**changes, force=True))
        return
    with pytest.raises(error, match=text):
        run(request(**changes))
    assert sorted(os.listdir(folder)) == ["in"]
    assert sorted(os.listdir("in")) == ["a.txt", "b.txt"]


def test_resume_of_a_finished_job_is_the_same_job(folder):
    run(request())
    assert run(request(resume=True)).notes == {"complete": True}
    others = [
        {"reducers": 3},
        {"app": "index"},
        {"inputs": ("in/a.txt",)},
        {"options": (("fold_case", "yes"),)},
    ]
    for changes in others:
        with pytest.raises(RefusedError, match="finished output of a job with other"):
            run(request(resume=True, **changes))
    assert sorted(os.listdir("out")) == ["manifest.json", "mr-out-0", "mr-out-1"]


def test_a_damaged_journal_is_refused_and_kept(folder):
    os.makedirs("out/.job")
    with open("out/.job/journal", "wb") as file:
        file.write(b"not a journal at all" * 10)
    with pytest.raises((DamagedData, RefusedError)):
        run(request(resume=True))
    assert os.path.exists("out/.job/journal")
    run(request(force=True))
    assert lines(folder) == ["a 3", "is 2", "rose 2"]


def test_a_publication_that_fails_can_be_resumed(folder, monkeypatch):
    place = OutputDirectory._place

    def full(self, part):
        if part.partition:
            raise OSError(28, "No space left on device", part.path)
        place(self, part)

    monkeypatch.setattr(OutputDirectory, "_place", full)
    with pytest.raises(JobFailed, match="--resume"):
        run(request())
    assert not os.path.exists("out/manifest.json")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    run(request(resume=True))
    assert lines(folder) == ["a 3", "is 2", "rose 2"]
    assert sorted(os.listdir("out")) == ["manifest.json", "mr-out-0", "mr-out-1"]


def test_force_removes_the_scratch_of_a_killed_job(folder, monkeypatch):
    os.mkdir("scratch")
    monkeypatch.setattr(OutputDirectory, "release", lambda self, keep=False: self._unlock())
    monkeypatch.setattr("engine.mapreduce.runners.remove_tree", lambda path: None)
    monkeypatch.setattr("engine.mapreduce.inline.remove_tree", lambda path: None)
    run(request(scratch="scratch"))
    assert os.listdir("scratch")
    os.unlink("out/manifest.json")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    run(request(force=True))
    assert os.listdir("scratch") == []


def test_what_the_disk_refuses_is_one_sentence(folder, monkeypatch):
    def refuse(*_):
        raise OSError(5, "Input/output error", "out/.job/journal")

    monkeypatch.setattr("engine.storage.journal.Journal.create", refuse)
    with pytest.raises(JobFailed, match="journal: Input/output error"):
        run(request())
    assert not os.path.exists("out")


def test_sigterm_cleans_up(folder, monkeypatch):
    monkeypatch.setattr(
        "engine.mapreduce.splits.plan", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(client.Terminated):
        run(request())
    assert sorted(os.listdir(folder)) == ["in"]
