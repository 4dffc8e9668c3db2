"""Jobs are found by name; what cannot be found is said in one sentence."""

from __future__ import annotations

import pytest

from engine.errors import NotFoundError, UsageError
from engine.mapreduce import Job
from engine.mapreduce.load import absolute, load

ONE = """
from engine.mapreduce import Job
class Only(Job):
    options = {"width": "3"}
    def map(self, document, record):
        yield record[: int(self.settings["width"])], 1
if __name__ == "__main__":
    raise SystemExit("the file was run, not imported")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text(ONE)
    (tmp_path / "two.py").write_text(ONE + "\nclass Other(Job):\n    pass\n")
    (tmp_path / "job_of_module.py").write_text(ONE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_built_in():
    job = load("wordcount")
    assert isinstance(job, Job)
    assert job.native == "words"


def test_file_with_one_job(folder):
    assert type(load("one.py")).__name__ == "Only"
    assert list(load(str(folder / "one.py"), (("width", "2"),)).map("a", "letters")) == [("le", 1)]


def test_file_with_two_jobs_wants_a_name(folder):
    with pytest.raises(UsageError, match=r"two\.py must hold one Job.*Only, Other"):
        load("two.py")
    assert type(load("two.py:Other")).__name__ == "Other"


def test_module(folder):
    assert type(load("job_of_module:Only")).__name__ == "Only"


@pytest.mark.parametrize(
    ("app", "error", "text"),
    [
        ("wordcuont", NotFoundError, "built-in .*wordcount"),
        ("missing.py", NotFoundError, "no such file"),
        ("no_such_module:Job", NotFoundError, "cannot import 'no_such_module'"),
        ("one.py:Absent", NotFoundError, "no Job class called Absent"),
        ("__main__:Job", UsageError, "__main__ is not imported again"),
    ],
)
def test_errors(folder, app, error, text):
    with pytest.raises(error, match=text):
        load(app)


def test_unknown_option(folder):
    with pytest.raises(UsageError, match="no option 'colour'; its options: width"):
        load("one.py", (("colour", "red"),))


def test_absolute_names_files_for_other_directories(folder):
    assert absolute("one.py:Only") == str(folder / "one.py") + ":Only"
    assert absolute("wordcount") == "wordcount"
    assert absolute("json:Job") == "json:Job"
