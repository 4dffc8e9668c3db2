"""What replicas said in lives that are over: all of it is read, and the last of it is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.faults import chaos
from engine.faults.chaos import Chaos, Settings
from engine.faults.verdicts import Violation


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chaos:
    """Nobody is up, and two logs are kept."""
    monkeypatch.setattr(chaos, "LOGS_KEPT", 2)
    found = Chaos(Settings(str(tmp_path / "run"), 0, 1, 5, [], 0, "", 1), print)
    (tmp_path / "run" / "replicas").mkdir(exist_ok=True)
    group = SimpleNamespace(cluster=SimpleNamespace(crashes=list), running=list)
    monkeypatch.setattr(found, "group", group, raising=False)
    return found


def test_a_log_that_was_dropped_is_not_read_again(run: Chaos) -> None:
    """Names are not in the order of lives: the tenth comes before the second."""
    folder = run.folder / "replicas"
    for life in range(1, 30):
        (folder / f"{life}-n1.log").write_text("well")
        run._see_crashes()
    assert {log.name for log in folder.iterdir()} == {"28-n1.log", "29-n1.log"}


def test_what_is_broken_is_found_in_every_log(run: Chaos) -> None:
    folder = run.folder / "replicas"
    for life in range(1, 12):
        (folder / f"{life}-n1.log").write_text(chaos.BROKEN[0] if life == 11 else "well")
    with pytest.raises(Violation, match=r"11-n1\.log says"):
        run._see_crashes()
