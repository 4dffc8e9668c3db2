"""Random programs of changes and syncs, killed and taken the power, against models of a disk.

A program runs in a process of its own. The models here know nothing of the journal: they know every
version of every file and folder, which of them was synced, and so what a disk may have afterwards.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support import dose, patience

from engine.faults.power import Loss, Power

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="it is preloaded, on Linux"),
]

SECTOR = 512
RUNNER = """
import json, os, sys
os.chdir(sys.argv[1])
files, nodes = {}, {}
def fresh(number, path):
    nodes[number] = os.lstat(path).st_ino
def act(what, *a):
    if what == "create":
        files[a[0]] = os.open(a[1], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        fresh(*a)
    elif what == "open":
        files[a[0]] = os.open(a[1], os.O_RDWR)
    elif what == "write":
        assert os.pwrite(files[a[0]], bytes([a[3]]) * a[2], a[1]) == a[2]
    elif what == "append":
        fd = os.open(a[0], os.O_WRONLY | os.O_APPEND)
        assert os.write(os.dup(fd), bytes([a[2]]) * a[1]) == a[1]
    elif what == "cut":
        os.ftruncate(files[a[0]], a[1])
    elif what == "empty":
        os.close(os.open(a[0], os.O_WRONLY | os.O_TRUNC | os.O_CREAT))
    elif what == "sync":
        (os.fsync if a[0] % 2 else os.fdatasync)(files[a[0]])
    elif what == "rename":
        os.rename(*a)
    elif what == "link":
        os.link(*a)
    elif what == "remove":
        os.unlink(a[0])
    elif what == "mkdir":
        os.mkdir(a[1])
        fresh(*a)
    elif what == "rmdir":
        os.rmdir(a[0])
    elif what == "sync folder":
        fd = os.open(a[0], os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)
for step in json.loads(sys.argv[2]):
    try:
        act(*step)
    except OSError as error:
        print(json.dumps({"failed": step, "errno": error.errno}), flush=True)
print(json.dumps(nodes), flush=True)
os.kill(os.getpid(), 9)
"""
Step = list[Any]


class Kept:
    """All versions of a file (bytes) or folder ({name: number}), with the times they were made."""

    def __init__(self, first: Any, time: int) -> None:
        self.versions, self.times, self.synced = [first], [time], 0
        self.cuts: dict[int, tuple[int, int]] = {}
        """Bytes that a version cut off."""

    @property
    def now(self) -> Any:
        return self.versions[-1]

    def become(self, what: Any, time: int) -> None:
        self.versions.append(what)
        self.times.append(time)

    def sync(self) -> None:
        self.synced = len(self.versions) - 1

    def sync_to(self, time: int) -> bool:
        """Whether that is news."""
        before = self.synced
        self.synced = max(before, self._at(time))
        return self.synced > before

    def _at(self, time: int) -> int:
        return max((i for i, when in enumerate(self.times) if when <= time), default=0)

    def after(self, time: int) -> Any:
        """The version if what nobody synced is lost from that time on."""
        return self.versions[max(self.synced, self._at(time))]

    @property
    def synced_at(self) -> int:
        return self.times[self.synced]


class Model:
    """Files and folders by number; folder 0 is the one that is watched."""

    def __init__(self, rng: Random) -> None:
        self.rng, self.time = rng, 0
        self.files: dict[int, Kept] = {}
        self.folders: dict[int, Kept] = {0: Kept({}, 0)}
        self.steps: list[Step] = []
        self.opened: list[int] = []
        self.crossings: list[tuple[int, int, int]] = []
        self.made: dict[int, tuple[int, int]] = {}
        """Of a folder: (time, parent)."""
        self.removed: list[tuple[int, int, int]] = []
        self.next, self.fill = 1, 0

    # --- what there is ---------------------------------------------------------------------------

    def walk(self, number: int = 0, path: str = "") -> list[tuple[int, str, str, int]]:
        """(folder, its path with a slash, name, what it names)."""
        found = []
        for name, what in self.folders[number].now.items():
            found.append((number, path, name, what))
            if what in self.folders:
                found += self.walk(what, f"{path}{name}/")
        return found

    def places(self) -> list[tuple[int, str]]:
        return [(0, "")] + [
            (what, f"{path}{name}/") for _, path, name, what in self.walk() if what in self.folders
        ]

    def named(self) -> list[tuple[int, str, str, int]]:
        return [one for one in self.walk() if one[3] in self.files]

    def a_name(self) -> tuple[int, str, str]:
        folder, path = self.rng.choice(self.places())
        return folder, path, self.rng.choice("abcde")

    # --- steps: each says nothing if it would fail ---------------------------------------------

    def set(self, folder: int, name: str, what: int | None) -> None:
        names = dict(self.folders[folder].now)
        if what is None:
            del names[name]
        else:
            names[name] = what
        self.folders[folder].become(names, self.time)

    def create(self) -> None:
        folder, path, name = self.a_name()
        if name not in self.folders[folder].now:
            number, self.next = self.next, self.next + 1
            self.files[number] = Kept(b"", self.time)
            self.set(folder, name, number)
            self.opened.append(number)
            self.steps.append(["create", number, path + name])

    def filler(self) -> int:
        self.fill = self.fill % 255 + 1
        return self.fill

    def put(self, number: int, at: int, size: int, fill: int) -> None:
        old = self.files[number].now.ljust(at, b"\0")
        self.files[number].become(old[:at] + bytes([fill]) * size + old[at + size :], self.time)

    def write(self) -> None:
        if self.opened:
            number, fill = self.rng.choice(self.opened), self.filler()
            at, size = self.rng.choice((0, 100, 511, 512, 1000, 3000)), self.rng.randint(1, 1500)
            self.put(number, at, size, fill)
            self.steps.append(["write", number, at, size, fill])

    def append(self) -> None:
        if self.named():
            _, path, name, number = self.rng.choice(self.named())
            fill, size = self.filler(), self.rng.randint(1, 900)
            self.put(number, len(self.files[number].now), size, fill)
            self.steps.append(["append", path + name, size, fill])

    def shorten(self, number: int, size: int) -> None:
        kept = self.files[number]
        old = kept.now
        kept.become(old[:size].ljust(size, b"\0"), self.time)
        if size < len(old):
            kept.cuts[len(kept.versions) - 1] = (size, len(old))

    def cut(self) -> None:
        if self.opened:
            number, size = (
                self.rng.choice(self.opened),
                self.rng.choice((0, 1, 300, 512, 700, 4000)),
            )
            self.shorten(number, size)
            self.steps.append(["cut", number, size])

    def empty(self) -> None:
        if self.named():
            _, path, name, number = self.rng.choice(self.named())
            self.shorten(number, 0)
            self.steps.append(["empty", path + name])

    def sync(self) -> None:
        if self.opened:
            number = self.rng.choice(self.opened)
            self.files[number].sync()
            self.steps.append(["sync", number])

    def sync_folder(self) -> None:
        folder, path = self.rng.choice(self.places())
        self.folders[folder].sync()
        self.steps.append(["sync folder", path or "."])

    def rename(self) -> None:
        if not self.walk():
            return
        folder, path, name, what = self.rng.choice(self.walk())
        target, to, new = self.a_name()
        inside = f"{to}{new}/".startswith(f"{path}{name}/")
        there = self.folders[target].now.get(new)
        if inside or there == what or there in self.folders:
            return
        if what in self.folders and there is not None:
            return
        self.set(folder, name, None)
        if target == folder:
            self.folders[folder].now[new] = what
        else:
            self.set(target, new, what)
            self.crossings.append((self.time, folder, target))
        self.steps.append(["rename", path + name, to + new])

    def link(self) -> None:
        if self.named():
            _, path, name, number = self.rng.choice(self.named())
            target, to, new = self.a_name()
            if new not in self.folders[target].now:
                self.set(target, new, number)
                self.steps.append(["link", path + name, to + new])

    def remove(self) -> None:
        if self.named():
            folder, path, name, _ = self.rng.choice(self.named())
            self.set(folder, name, None)
            self.steps.append(["remove", path + name])

    def mkdir(self) -> None:
        folder, path, name = self.a_name()
        if name not in self.folders[folder].now and len(self.folders) < 5:
            number, self.next = self.next, self.next + 1
            self.folders[number] = Kept({}, self.time)
            self.made[number] = (self.time, folder)
            self.set(folder, name, number)
            self.steps.append(["mkdir", number, path + name])

    def rmdir(self) -> None:
        for folder, path, name, what in self.walk():
            if what in self.folders and not self.folders[what].now:
                self.set(folder, name, None)
                self.removed.append((self.time, folder, what))
                self.steps.append(["rmdir", path + name])
                return

    # --- what may be there afterwards ------------------------------------------------------------

    def close_over(self) -> None:
        """A rename between folders is in both or in none, and not into a folder that is not."""
        news = True
        while news:
            news = False
            for time, one, two in self.crossings:
                if max(self.folders[one].synced_at, self.folders[two].synced_at) >= time:
                    for number in (one, two):
                        news |= self.folders[number].sync_to(time)
                        while number in self.made:
                            born, number = self.made[number]
                            news |= self.folders[number].sync_to(born)
            for time, parent, gone in self.removed:
                if self.folders[parent].synced_at >= time:
                    news |= self.folders[gone].sync_to(time)


def sector_fits(kept: Kept, data: bytes, sector: int, size_of: int) -> bool:
    least, most = kept.synced, len(kept.versions) - 1
    for number, (begin, end) in kept.cuts.items():
        if number > kept.synced and begin < (sector + 1) * SECTOR and end > sector * SECTOR:
            if number <= size_of:
                least = max(least, number)
            else:
                most = min(most, number - 1)
    here = slice(sector * SECTOR, min((sector + 1) * SECTOR, len(data)))
    return any(
        kept.versions[number].ljust(len(data), b"\0")[here] == data[here]
        for number in range(least, most + 1)
    )


def torn_fits(kept: Kept, data: bytes) -> bool:
    """Whether some size that it had since the sync, and for each sector some version, give this."""
    return any(
        len(kept.versions[size_of]) == len(data)
        and all(sector_fits(kept, data, s, size_of) for s in range(-(-len(data) // SECTOR)))
        for size_of in range(kept.synced, len(kept.versions))
    )


class Judge:
    """Compares a folder with a model. `nodes` are the inodes by number."""

    def __init__(self, model: Model, root: Path, nodes: dict[int, int]) -> None:
        self.model, self.root, self.nodes = model, root, nodes

    def names_fit(self, time: int, number: int = 0, path: str = "") -> bool:
        """Whether the names are those that are left if the rest is lost from `time` on."""
        expected = self.model.folders[number].after(time)
        folder = self.root / path
        if sorted(os.listdir(folder)) != sorted(expected):
            return False
        for name, what in expected.items():
            here = folder / name
            if here.is_dir() != (what in self.model.folders):
                return False
            if what in self.model.folders:
                if not self.names_fit(time, what, f"{path}{name}/"):
                    return False
            elif here.stat().st_ino != self.nodes[what]:
                return False
        return True

    def there(self, time: int, number: int = 0, path: str = "") -> dict[int, bytes]:
        """Contents of the files by number, with names that are known to fit."""
        found: dict[int, bytes] = {}
        for name, what in self.model.folders[number].after(time).items():
            if what in self.model.folders:
                found |= self.there(time, what, f"{path}{name}/")
            else:
                found[what] = (self.root / path / name).read_bytes()
        return found

    def fits(self, way: str) -> bool:
        files = self.model.files
        times = [-1] if way == "all" else range(-1, self.model.time + 1)
        for time in times:
            if not self.names_fit(time):
                continue
            found = self.there(time)
            if way == "torn":
                if all(torn_fits(files[number], data) for number, data in found.items()):
                    return True
            elif all(files[number].after(time) == data for number, data in found.items()):
                return True
        return False


KINDS: list[tuple[Callable[[Model], None], int]] = [
    (Model.create, 3),
    (Model.write, 6),
    (Model.append, 3),
    (Model.cut, 2),
    (Model.empty, 1),
    (Model.sync, 3),
    (Model.sync_folder, 2),
    (Model.rename, 3),
    (Model.link, 1),
    (Model.remove, 2),
    (Model.mkdir, 1),
    (Model.rmdir, 1),
]


def begin(rng: Random, root: Path) -> tuple[Model, dict[int, int]]:
    """A folder with something durable in it."""
    model = Model(rng)
    nodes = {}
    for name in "ab":
        data = bytes([250 + model.next]) * rng.choice((10, 700, 2000))
        (root / name).write_bytes(data)
        nodes[model.next] = (root / name).stat().st_ino
        model.files[model.next] = Kept(data, 0)
        model.folders[0].now[name] = model.next
        model.opened.append(model.next)
        model.steps.append(["open", model.next, name])
        model.next += 1
    return model, nodes


def run_program(root: Path, steps: list[Step], power: Power) -> list[dict[str, Any]]:
    """What it said, line by line; it has killed itself."""
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", RUNNER, str(root), json.dumps(steps)],
        env={**os.environ, **power.environment()},
        capture_output=True,
        text=True,
        timeout=patience(30),
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def one_program(seed: int, root: Path, counts: Counter[str]) -> Loss:
    rng = Random(f"program {seed}")
    root.mkdir()
    model, nodes = begin(rng, root)
    kinds, weights = zip(*KINDS, strict=True)
    for _ in range(rng.randint(1, 40)):
        model.time += 1
        rng.choices(kinds, weights)[0](model)
    with Power(root, seed) as power:
        said = run_program(root, model.steps, power)
        assert len(said) == 1, said
        nodes |= {int(number): node for number, node in said[0].items()}
        loss = power.lose()
    model.close_over()
    if not Judge(model, root, nodes).fits(loss.way):
        left = {str(p.relative_to(root)): p.is_file() and p.stat() for p in root.rglob("*")}
        pytest.fail(f"seed {seed}: {loss} cannot be after {model.steps}: {left}")
    counts[loss.way] += 1
    for field in loss._fields[1:]:
        counts[field] += getattr(loss, field) > 0
    return loss


def test_what_is_left_is_what_a_disk_may_have(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    programs = dose(300, 10_000)
    for seed in range(programs):
        one_program(seed, tmp_path / str(seed), counts)
    for what in ("all", "prefix", "torn"):
        assert counts[what] > programs / 5, counts
    # Every kind of fate is met often enough to be judged.
    for what in Loss._fields[1:]:
        assert counts[what] > programs / 50, counts


# --- syncs that fail -----------------------------------------------------------------------------

PAGE = 4096


class CachedFile:
    """One file, its pages in the system's cache and those on the disk."""

    def __init__(self, data: bytes) -> None:
        self.cache, self.disk = bytearray(data), bytearray(data)
        self.dirty: set[int] = set()
        self.changed = False

    def write(self, at: int, size: int, fill: int) -> None:
        self.cache.extend(bytes(max(0, at + size - len(self.cache))))
        self.cache[at : at + size] = bytes([fill]) * size
        self.dirty |= set(range(at // PAGE, (at + size - 1) // PAGE + 1))
        self.changed = True

    def sync(self, fails: bool) -> None:
        if not fails and self.changed:
            size = len(self.cache)
            self.disk = self.disk[:size].ljust(size, b"\0")
            for page in self.dirty:
                here = slice(page * PAGE, min((page + 1) * PAGE, size))
                self.disk[here] = self.cache[here]
        self.dirty, self.changed = set(), False


def test_a_sync_that_fails_leaves_its_pages_clean(tmp_path: Path) -> None:
    """Programs on one file with syncs that fail: nothing is kept that a cache would not write."""
    lost = recovered = 0
    for seed in range(dose(100, 2000)):
        rng = Random(f"failing {seed}")
        root = tmp_path / str(seed)
        root.mkdir()
        start = bytes([255]) * rng.choice((0, 5000, 9000))
        (root / "a").write_bytes(start)
        model = CachedFile(start)
        skip, times = rng.randint(0, 4), rng.randint(1, 3)
        steps: list[Step] = [["open", 1, "a"]]
        syncs = 0
        for fill in range(1, rng.randint(3, 20)):
            if rng.random() < 0.4:
                fails = skip <= syncs < skip + times
                model.sync(fails)
                syncs += 1
                steps.append(["sync", 1])
            else:
                at, size = rng.choice((0, 700, 4000, 4096, 8000, 13_000)), rng.randint(1, 3000)
                model.write(at, size, fill)
                steps.append(["write", 1, at, size, fill])
        with Power(root, seed) as power:
            power.fail_sync(skip=skip, times=times, only="files")
            said = run_program(root, steps, power)
            failed = max(0, min(syncs - skip, times))
            assert len(said) - 1 == power.injected.failed_syncs == failed
            power.lose("all")
        assert (root / "a").read_bytes() == bytes(model.disk), (seed, steps, skip, times)
        lost += failed > 0 and model.disk != model.cache
        recovered += failed > 0 and syncs > skip + times
    assert lost > 20
    assert recovered > 5
