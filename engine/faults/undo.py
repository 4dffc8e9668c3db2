"""What a loss of power takes: reads the journal of a dead process, chooses, and takes back.

`ext/power.h` has the format of the journal, in which every change comes with what was there before.
Nothing here writes a byte that a program did not write: a piece of a file is put back to what it
was before a change, newest change first, and so is a name.

What may be lost is decided like this, which is what a journalling file system promises and no more:

* A sync of a file that returned keeps what was written to it before, and its size; a sync of a
  folder keeps its names. A sync that was under way when the process died keeps nothing for sure.
* After a sync of a file that failed, what it should have kept counts as written for the system, so
  later syncs do not keep it. But a page (4096 bytes) that is written to again is written whole.
  After a sync of a folder that failed, the journal is broken: no later one keeps its names.
* Of what nobody kept: names are lost from the end, as they are in one journal; of a file's sizes
  each may be the last; and of each sector (512 bytes) any version. Between files there is no order.
  That bytes were cut off is known to the same journal as the size, so both are lost or neither.
* A rename between folders is there if one of the two was synced, and with it what happened in both
  before; and a folder that it goes to exists. No other name is kept by another folder's sync.
"""

from __future__ import annotations

import os
import stat
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from engine.errors import EngineError
from engine.faults.sectors import Change, Fate, Restored, restore
from engine.record import Record

HEADER_BYTES = 8192
RECORD = struct.Struct("<IHHQQQQQQIIII")
WRITE, CUT, CREATE, LINK, UNLINK, RENAME, MKDIR, RMDIR, SYNC = range(1, 10)
BEGUN, DONE, FAILED = range(3)
ALL, PREFIX, TORN = "all", "prefix", "torn"
WAYS = (ALL, PREFIX, TORN)

Node = tuple[int, int]
"""An inode's number, and how many files had it before."""


class Loss(Record):
    """What became of what the processes had changed since the loss before.

    `way` is `all` (everything that nobody kept is lost), `prefix` (some changes from the last one
    back) or `torn` (each file and each sector by itself). `synced` changes were kept by syncs. Of
    the others, `writes_kept` writes and cuts are there whole, `writes_torn` in part, `writes_lost`
    not at all; `names_kept` and `names_lost` are creations, links, renames, removals, and the same
    of folders. `bytes_lost` were put back to what they were, and `sizes_lost` files have an older
    size. Changes of files that are gone for good are not counted.
    """

    way: str
    synced: int
    writes_kept: int
    writes_torn: int
    writes_lost: int
    names_kept: int
    names_lost: int
    bytes_lost: int
    sizes_lost: int


class Entry(NamedTuple):
    """One record of the journal, and where it is."""

    place: int
    kind: int
    state: int
    node: int
    folder: int
    other: int
    at: int
    length: int
    before: int
    image: tuple[int, int]
    """(offset in the journal, bytes); no bytes: all were 0."""
    path: str
    new_path: str
    grave: str


class Name:
    """A change of names; `folders` are those whose sync keeps it."""

    __slots__ = ("entry", "folders", "kept", "node")

    def __init__(self, entry: Entry, node: Node, folders: list[Node]) -> None:
        self.entry, self.node, self.folders, self.kept = entry, node, folders, False


def entries(journal: memoryview, end: int) -> Iterable[Entry]:
    """The records up to `end`, in their order, without what failed."""
    place = HEADER_BYTES
    while place < end:
        size, kind, state, node, folder, other, at, length, before, a, b, c, _ = RECORD.unpack_from(
            journal, place
        )
        begin = place + RECORD.size
        texts = ["", "", ""]
        if kind not in (WRITE, CUT, SYNC):
            for number, (left, many) in enumerate(((0, a), (a, b), (a + b, c))):
                piece = bytes(journal[begin + left : begin + left + many])
                texts[number] = os.fsdecode(piece)
        if state != FAILED or kind == SYNC:
            image = (begin, a)
            yield Entry(place, kind, state, node, folder, other, at, length, before, image, *texts)
        place += size


class Undo:
    """One loss. `folders` are what is watched, and `graveyard` has what was removed from it."""

    def __init__(
        self, journal: memoryview, end: int, folders: Sequence[str], graveyard: str, rng: Random
    ) -> None:
        self._journal, self._graveyard, self._rng = journal, graveyard, rng
        self._files: dict[int, str] = {}
        self._descriptors: dict[int, int] = {}
        self._generations: defaultdict[int, int] = defaultdict(int)
        self._changes: defaultdict[Node, list[Change]] = defaultdict(list)
        self._names: list[Name] = []
        self._marks: dict[Node, int] = {}
        self._spoiled: set[Node] = set()
        self._fresh: dict[Node, int] = {}
        try:
            for folder in [*folders, graveyard]:
                self._scan(folder)
            for entry in entries(journal, end):
                self._take(entry)
            self._close_over()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for fd in [*self._descriptors.values(), *self._fresh.values()]:
            os.close(fd)
        self._descriptors, self._fresh = {}, {}

    # --- reading ---------------------------------------------------------------------------------

    def _scan(self, folder: str) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._descriptors[os.fstat(fd).st_ino] = fd
        with os.scandir(folder) as found:
            for one in found:
                if one.is_dir(follow_symlinks=False):
                    self._scan(one.path)
                else:
                    self._files[one.inode()] = one.path

    def _node(self, number: int) -> Node:
        return number, self._generations[number]

    def _take(self, entry: Entry) -> None:
        if entry.kind in (WRITE, CUT):
            change = Change(entry.place, entry.at, entry.length, entry.before, entry.image)
            change.cuts = entry.kind == CUT
            change.spoiled = entry.kind == WRITE and entry.other == 1
            self._changes[self._node(entry.node)].append(change)
        elif entry.kind == SYNC:
            self._sync(entry)
        else:
            self._name(entry)

    def _sync(self, entry: Entry) -> None:
        if entry.state == BEGUN:
            return
        if entry.node == 0:
            nodes, folders = list(self._changes), [self._node(n) for n in self._generations]
            folders += [self._node(n) for n in self._descriptors]
        else:
            node = self._node(entry.node)
            nodes, folders = ([], [node]) if entry.before else ([node], [])
        good = entry.state == DONE
        for node in nodes:
            for change in reversed(self._changes[node]):
                if change.kept:
                    break  # and so is, or never will be, what is older
                if good and not change.spoiled:
                    change.kept = True
                elif not good:
                    change.spoiled = True
        for node in folders:
            if not good:
                self._spoiled.add(node)
            elif node not in self._spoiled:
                self._marks[node] = entry.place

    def _name(self, entry: Entry) -> None:
        if entry.state == BEGUN:
            found = self._settle(entry)
            if found is None:
                return
            entry = found
        if entry.kind in (CREATE, MKDIR):
            self._generations[entry.node] += 1
        numbers = [entry.folder] if entry.kind != RENAME else [entry.folder, entry.other]
        folders = [self._node(number) for number in dict.fromkeys(numbers)]
        self._names.append(Name(entry, self._node(entry.node), folders))

    def _settle(self, entry: Entry) -> Entry | None:
        """The process died in the midst of this change: as it was made, or None."""
        try:
            found = os.lstat(entry.path)
        except FileNotFoundError:
            return entry if entry.kind in (UNLINK, RENAME, RMDIR) else None
        if entry.kind in (CREATE, MKDIR):
            return entry._replace(node=found.st_ino)
        if entry.kind == RENAME:
            return entry if found.st_ino != entry.node else None
        return entry if entry.kind == LINK else None

    def _close_over(self) -> None:
        """Find the names that are kept: newest first, each keeps what it needs."""
        marks = dict(self._marks)
        needed: set[Node] = set()
        for name in reversed(self._names):
            place, kind = name.entry.place, name.entry.kind
            kept = any(marks.get(folder, 0) > place for folder in name.folders)
            kept = kept or (kind == MKDIR and name.node in needed)
            if not kept:
                continue
            name.kept = True
            for folder in name.folders:
                marks[folder] = max(marks.get(folder, 0), place + 1)
            if kind == RMDIR:
                marks[name.node] = max(marks.get(name.node, 0), place + 1)
            if (kind == RENAME and len(name.folders) == 2) or name.node in needed:
                needed.update(name.folders)

    # --- the loss --------------------------------------------------------------------------------

    def lose(self, way: str) -> Loss:
        """Take back what is lost, if this is the way of it; contents first, then names."""
        rng = self._rng
        loose = [name for name in self._names if not name.kept]
        open_changes = [
            change.place
            for changes in self._changes.values()
            for change in changes
            if not change.kept
        ]
        places = sorted([*open_changes, *(name.entry.place for name in loose)])
        bound = 0
        if way == PREFIX and places:
            bound = rng.choice([*places, places[-1] + 1])
        names = [name for name in loose if name.entry.place >= bound]
        if way == TORN:
            names = loose[rng.randint(0, len(loose)) :] if rng.random() < 0.8 else loose
        total = self._restore(way, bound)
        synced = sum(change.kept for c in self._changes.values() for change in c)
        for name in reversed(names):
            self._take_back(name)
        return Loss(
            way,
            synced + sum(name.kept for name in self._names),
            total.kept,
            total.torn,
            total.lost,
            len(loose) - len(names),
            len(names),
            total.bytes_lost,
            total.sizes,
        )

    def _restore(self, way: str, bound: int) -> Restored:
        total = Restored()
        for node, changes in self._changes.items():
            path = self._files.get(node[0])
            if path is None or node != self._node(node[0]):
                continue  # it has no name any more that could come back
            if all(change.kept for change in changes):
                continue
            fate = Fate(bound, self._rng if way == TORN else None)
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                restore(fd, changes, fate, self._journal, total)
            finally:
                os.close(fd)
        return total

    def _folder(self, node: Node) -> int | None:
        """The descriptor of a folder; None if it is gone for good."""
        if node in self._fresh:
            return self._fresh[node]
        return self._descriptors.get(node[0]) if node == self._node(node[0]) else None

    def _take_back(self, name: Name) -> None:
        entry = name.entry
        fds = [self._folder(folder) for folder in name.folders]
        one, two = fds[0], fds[-1]
        if one is None or two is None:
            return
        old, new = os.path.basename(entry.path), os.path.basename(entry.new_path)
        if entry.kind in (CREATE, LINK):
            os.unlink(old, dir_fd=one)
        elif entry.kind == UNLINK:
            self._unbury(entry.grave, old, one)
        elif entry.kind == RENAME:
            os.rename(new, old, src_dir_fd=two, dst_dir_fd=one)
            if entry.grave:
                self._unbury(entry.grave, new, two)
        elif entry.kind == MKDIR:
            _remove_tree(old, one)
        elif entry.kind == RMDIR:
            os.mkdir(old, dir_fd=one)
            fd = os.open(old, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=one)
            self._fresh[name.node] = fd
            os.fchmod(fd, entry.at)

    def _unbury(self, grave: str, name: str, folder: int) -> None:
        path = os.path.join(self._graveyard, grave)
        try:
            os.link(path, name, dst_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            raise EngineError(f"{path} is missing: who empties the graveyard?") from None


def _remove_tree(name: str, folder: int) -> None:
    """A folder and all in it, whoever kept that: there is no way to it any more."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        for one in os.listdir(fd):
            if stat.S_ISDIR(os.stat(one, dir_fd=fd, follow_symlinks=False).st_mode):
                _remove_tree(one, fd)
            else:
                os.unlink(one, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=folder)
