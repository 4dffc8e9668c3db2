"""Atomic files, private folders and the lock on a folder."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import RefusedError
from engine.storage import files
from engine.storage.files import (
    DirectoryLock,
    read_at,
    remove_gently,
    sync_directory,
    sync_file,
    write_at,
    write_atomically,
)


def test_write_atomically_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    for data in (b"first", b"", b"x" * 3_000_000):
        write_atomically(str(path), data)
        assert path.read_bytes() == data
        assert os.listdir(tmp_path) == ["manifest"]


def test_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomically("manifest", b"here")
    assert (tmp_path / "manifest").read_bytes() == b"here"


def test_mode_is_cut_by_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(str(tmp_path / "a"), b"", sync=False)
        write_atomically(str(tmp_path / "b"), b"", sync=False, mode=0o600)
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o600]


class Recorder:
    """Stands in for the system's calls, in order, and can make one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail: str = "") -> None:
        self.calls: list[str] = []
        self.monkeypatch, self.fail = monkeypatch, fail
        for name in ("write", "rename"):
            self.watch(os, name)
        for name in ("sync_file", "sync_directory"):
            self.watch(files, name)

    def watch(self, module: object, name: str) -> None:
        original = getattr(module, name)

        def call(*arguments: object) -> object:
            self.calls.append(name)
            if name == self.fail:
                raise OSError(28, "No space left on device")
            return original(*arguments)

        self.monkeypatch.setattr(module, name, call)


def test_order_of_what_makes_it_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        recorder = Recorder(patch)
        write_atomically(str(tmp_path / "a"), b"1")
        assert recorder.calls == ["write", "sync_file", "rename", "sync_directory"]
        recorder.calls.clear()
        write_atomically(str(tmp_path / "a"), b"2", sync=False)
        assert recorder.calls == ["write", "rename"]


@pytest.mark.parametrize("fail", ["write", "sync_file", "rename"])
def test_a_failure_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: str
) -> None:
    path = tmp_path / "manifest"
    write_atomically(str(path), b"old")
    with monkeypatch.context() as patch:
        Recorder(patch, fail)
        with pytest.raises(OSError, match="No space"):
            write_atomically(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["manifest"]


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
        write_atomically(str(tmp_path / "a"), b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_large_file_is_freed_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is gone for good before, and nobody waits for more than a step."""
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 3 * files._FREED_BYTES + 5)
    calls: list[object] = []
    unlink, truncate, sync = os.unlink, os.ftruncate, sync_directory
    monkeypatch.setattr(os, "unlink", lambda name: (calls.append("unlink"), unlink(name)))
    monkeypatch.setattr(files, "sync_directory", lambda name: (calls.append("names"), sync(name)))
    monkeypatch.setattr(os, "ftruncate", lambda fd, to: (calls.append(to), truncate(fd, to)))
    monkeypatch.setattr(files, "sync_file", lambda fd: calls.append("sync"))
    remove_gently(str(path))
    step = files._FREED_BYTES
    freed = [2 * step + 5, "sync", step + 5, "sync", 5, "sync"]
    assert calls == ["unlink", "names", *freed]
    assert os.listdir(tmp_path) == []
    path.write_bytes(b"a small one")
    calls.clear()
    remove_gently(str(path))
    assert calls == ["unlink"]
    with pytest.raises(FileNotFoundError):
        remove_gently(str(path))


def test_sync_passes_errors_on(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file(9999)
    with pytest.raises(FileNotFoundError):
        sync_directory(str(tmp_path / "none"))
    sync_directory(str(tmp_path))


def test_at_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little the system takes or gives at a time."""
    monkeypatch.setattr(files, "_PIECE_BYTES", 1000)
    pwrite, data = os.pwrite, random.Random(5).randbytes(4500)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:700], offset))
    reached: list[int] = []
    with (tmp_path / "file").open("w+b") as file:
        write_at(file.fileno(), data, 100)
        assert read_at(file.fileno(), 4500, 100, reached.append) == data
        assert reached == [1100, 2100, 3100, 4100, 4600]
        assert read_at(file.fileno(), 9999, 4000) == data[3900:]
        assert read_at(file.fileno(), 5, 98) == b"\0\0" + data[:3]
        assert read_at(file.fileno(), 5, 4600) == b""


# --- folders --------------------------------------------------------------------------------------


HOLDER = """
import sys
from engine.storage.files import DirectoryLock
lock = DirectoryLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RefusedError, match=f"in use by process {holder.pid}:"):
            DirectoryLock(str(tmp_path))
        holder.send_signal(signal.SIGKILL)
    finally:
        holder.kill()
        holder.communicate()
    with DirectoryLock(str(tmp_path)):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_lock_is_exclusive_within_a_process_too(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    with pytest.raises(RefusedError, match=f"process {os.getpid()}:"):
        DirectoryLock(str(tmp_path))
    lock.close()
    lock.close()
    DirectoryLock(str(tmp_path)).close()


FORKER = """
import os, sys
from engine.storage.files import DirectoryLock
lock = DirectoryLock(sys.argv[1])
ready, gate = os.pipe(), os.pipe()
if os.fork() == 0:
    os.write(ready[1], b".")
    os.close(gate[1])
    os.read(gate[0], 1)
    os._exit(0)
os.read(ready[0], 1)
DirectoryLockError = None
try:
    DirectoryLock(sys.argv[1])
except Exception as error:
    DirectoryLockError = error
assert DirectoryLockError is not None, "a child's fork unlocked its parent"
lock.close()
DirectoryLock(sys.argv[1]).close()
os.close(gate[1])
os.wait()
"""


def test_a_forked_child_neither_keeps_the_lock_nor_breaks_it(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FORKER, str(tmp_path)], capture_output=True, timeout=60
    )
    assert result.returncode == 0, result.stderr.decode()
