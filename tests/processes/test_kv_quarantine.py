"""A replica that makes something else of the same entries is found out, and serves no more.

The program of one of three is broken by a `sitecustomize` that only it obeys: from some entry on it
counts one revision more. Nothing but the comparison of digests can tell.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kv.live import Cluster, cluster
from support import engine, patience
from waiting import eventually

from engine.kv.client import Store
from engine.kv.digests import EVERY

pytestmark = pytest.mark.processes

BROKEN = """
import sys

if "--dir" in sys.argv and sys.argv[sys.argv.index("--dir") + 1].endswith("/store/{number}"):
    from engine.kv.machine import Machine

    right = Machine.apply

    def wrong(self, body):
        if self.revision == {revision}:
            self.revision += 1
        return right(self, body)

    Machine.apply = wrong
"""


def _break(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int, revision: int) -> None:
    (folder / "site").mkdir()
    code = BROKEN.format(number=number, revision=revision)
    (folder / "site" / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder / "site"))


def _ended(made: Cluster) -> bool:
    return "replica 2 ended with code 6" in made.keeper.stderr()


@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_a_broken_replica_is_found_out(
    leads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever it is, within as many entries as digests are apart; and then it can be replaced."""
    _break(monkeypatch, tmp_path, 2, revision=100)
    with cluster(tmp_path) as made, Store(made.dir, timeout=patience(20)) as store:
        ran = engine("kv", "member", "lead", "2" if leads else "1", "--cluster", made.dir)
        assert ran.code == 0, ran
        written = 0
        while not _ended(made) and written < 3 * EVERY:
            written += 1
            store.put("k", str(written))
        eventually(lambda: _ended(made), 10, "it to be found out")
        assert written >= 100
        log = Path(made.dir, "2.log").read_text()
        assert f"{made.dir}/2 is in quarantine: what this replica has after entry {EVERY}" in log
        assert Path(made.dir, "2", "quarantine").exists()
        found = store.get("k")
        assert found is not None
        assert found.value == str(written).encode()
        monkeypatch.delenv("PYTHONPATH")
        ran = engine("kv", "member", "replace", "2", "--cluster", made.dir)
        assert (ran.code, ran.out) == (0, "4\n"), ran
        store.put("k", "mended")
        assert made.keeper.stderr().count("replica 2 ended") == 1, "it was not started again"
        eventually(lambda: made.pids().keys() == {1, 3, 4}, 20, "three again")
        ran = engine("kv", "hash", "--cluster", made.dir)
        assert ran.code == 0, ran
