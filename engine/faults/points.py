"""Named places in a server's life at which an experiment can end it, by SIGKILL.

    heard AppendEntries        it arrived, and the turn that it is for has not begun
    said VoteReply             it was handed to the network, and nothing that comes after it
    before opening rename      of files: before and after each operation on each kind of them, and
    amid segment write         in the middle of what is written (half of the bytes are), or when
    after folder sync          the log's thread was asked for a sync
    applying, loaded, …        what a replica's state machine is told
    chunk stored, …            what its long work comes to, on the thread of that
    drained, …, turned         `engine.contract.Server.turn`

Programs know nothing of this: `engine.faults.traps` wraps their world, their state machine, and
the storage's files and folders. A kind of file is what its name says: `segment`, `opening`,
`spare`, `taking` and `receiving` (snapshots under their private names), `snapshot`, and `member`
(`engine.storage.home`); names change with `rename`, which is counted by the old one. `folder` is
what all these are in.

Which points end it is told in the beginning, or at any time through a `Control`.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable

TURN = ("drained", "stepped", "written", "sent", "turned")
"""What `engine.contract.Server.turn` passes, in this order; a world without a disk never writes."""
STATE = {
    "apply": ("applying", "applied"),
    "load": ("loading", "loaded"),
    "pieces": ("", "snapshot begun"),
    "confirmed": ("confirming", ""),
    "answered": ("", "answered"),
}
"""By method of `engine.raft.server.StateMachine`: before and after it."""
WORK = {
    "WritePiece": "piece written",
    "CloseSnapshot": "snapshot closed",
    "StoreChunk": "chunk stored",
    "FinishSnapshot": "snapshot received",
    "Maintain": "maintained",
}
"""By class of what `engine.raft.server.RaftServer.work` did."""
PEERS = (
    "VoteRequest",
    "VoteReply",
    "AppendEntries",
    "AppendReply",
    "InstallSnapshot",
    "SnapshotReply",
    "TimeoutNow",
)
HEARD = (*PEERS, "Submit", "Look", "Reconfigure", "HandOver")
SAID = (*PEERS, "Submitted", "Seen", "Ordered")
FILES = {
    "create": ("opening", "spare", "taking", "receiving", "member"),
    "write": ("segment", "opening", "spare", "taking", "receiving", "member"),
    "sync": ("segment", "opening", "spare", "taking", "receiving", "member", "folder"),
    "rename": ("segment", "opening", "spare", "taking", "receiving", "member"),
    "remove": ("segment", "opening", "spare", "taking", "receiving", "snapshot"),
}
"""The kinds of files by what is done to them."""
SIGNS = {".taking": "taking", ".receiving": "receiving", ".member": "member"}

Passing = tuple[str, int]
"""A point, and the how manieth time."""
CONTROL_BYTES = 1 << 14
HEADS = struct.Struct("<II")


def every() -> tuple[str, ...]:
    """All points that there are."""
    found = [*TURN]
    found += [name for pair in STATE.values() for name in pair if name]
    found += WORK.values()
    found += [f"heard {name}" for name in HEARD]
    found += [f"said {name}" for name in SAID]
    for doing, kinds in FILES.items():
        for kind in kinds:
            found += [f"before {kind} {doing}", f"after {kind} {doing}"]
            if doing == "write" or (doing, kind) == ("sync", "segment"):
                found.append(f"amid {kind} {doing}")
    return tuple(found)


def parse(text: str) -> Passing:
    """`POINT` or `POINT:N`. ValueError: a point that never comes would be an experiment that does
    nothing."""
    name, colon, count = text.partition(":")
    if name not in every():
        raise ValueError(f"there is no point {name!r}; see --list-points")
    if colon and (not count.isdecimal() or int(count) < 1):
        raise ValueError(f"{count!r} is not a number from 1 up")
    return name, int(count) if colon else 1


def kind_of(name: str) -> str:
    """Of a file by its name; "" for one that is of no interest."""
    if "." in name:
        return next((kind for sign, kind in SIGNS.items() if sign in name), "")
    first = name.split("-")[0]
    return "segment" if first == "log" else first


class Control:
    """A file through which a running process is told its points, and says at which one it died.

    The experimenter makes it anew (`create`), the process opens what is there. Points that are
    armed count from then on, and replace those before.
    """

    def __init__(self, path: str, *, create: bool = False) -> None:
        """OSError."""
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        fd = os.open(path, flags, 0o600)
        try:
            if create:
                os.ftruncate(fd, 0)
                os.ftruncate(fd, 2 * CONTROL_BYTES)
            self._page = mmap.mmap(fd, 2 * CONTROL_BYTES)
        finally:
            os.close(fd)
        self._seen = 0

    def arm(self, points: Iterable[str] = ()) -> None:
        """End the process at whichever of these comes first; none: let it live. ValueError."""
        texts = list(points)
        for text in texts:
            parse(text)
        body = "\n".join(texts).encode()
        assert len(body) <= CONTROL_BYTES - HEADS.size, "too many points"
        HEADS.pack_into(self._page, CONTROL_BYTES, 0, 0)
        number, _ = HEADS.unpack_from(self._page, 0)
        self._page[HEADS.size : HEADS.size + len(body)] = body
        # The number last: with it all is there.
        self._page[4:8] = len(body).to_bytes(4, "little")
        self._page[:4] = (number + 1).to_bytes(4, "little")

    def news(self) -> frozenset[Passing] | None:
        """What is armed now, if that has changed since the last call."""
        number, size = HEADS.unpack_from(self._page, 0)
        if number == self._seen:
            return None
        self._seen = number
        texts = self._page[HEADS.size : HEADS.size + size].decode()
        return frozenset(map(parse, texts.split("\n"))) if texts else frozenset()

    def tell(self, point: str, role: str) -> None:
        """The process is about to end there; `role` is what it is in its group, if anything."""
        body = f"{point}\n{role}".encode()
        begin = CONTROL_BYTES + HEADS.size
        self._page[begin : begin + len(body)] = body
        HEADS.pack_into(self._page, CONTROL_BYTES, 1, len(body))

    def died(self) -> tuple[str, str] | None:
        """(the point at which it ended, its role) since it was armed."""
        there, size = HEADS.unpack_from(self._page, CONTROL_BYTES)
        begin = CONTROL_BYTES + HEADS.size
        if not there:
            return None
        point, _, role = self._page[begin : begin + size].decode().partition("\n")
        return point, role

    def close(self) -> None:
        self._page.close()
