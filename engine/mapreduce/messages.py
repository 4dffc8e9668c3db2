"""What coordinator and workers say to each other, what the scheduler asks for, what is journalled.

Who may say what: a worker joins with `Join`, is answered once with `Configure`, and from then on
receives `Map`, `Flush`, `Reduce` and `Stop` and answers with `Scanned`, `Committed`, `Reduced`
and `Failed`. A worker inside user code answers nobody, and need not: its progress page tells where
it is, and to cancel is to kill.

*Reading and committing differ.* A split is the unit of reading. A worker folds splits into one
table (`Scanned`, once each) and commits them as one run (`Committed`, naming all attempts since its
last commit). Until then they are lost with the worker.

Paths are absolute strings; sizes, offsets and memory are bytes; `digest` is the CRC32C of a run's
index, or of an output's bytes.
"""

# Annotations stay types here, not text: the codec reads them, and text would have to be compiled.
from typing import Any

from engine.record import Record
from engine.wire.codec import message

# --- from a worker (kinds 16-31) -----------------------------------------------------------------


@message(16)
class Join(Record):
    """The first word of a worker."""

    pid: int


class Counters(Record):
    """What a commit or an output adds up to. Sent as an array; all are sums."""

    bytes: int = 0
    records: int = 0
    """Words for a native job, records (lines or files) read for any other."""
    skipped: int = 0


@message(17)
class Scanned(Record):
    """The split of `attempt` is in the worker's table (not safe yet): its window is free."""

    attempt: int


@message(18)
class Committed(Record):
    """A private run file that holds the splits of `attempts`, in this order."""

    attempts: tuple[int, ...]
    path: str
    size: int
    digest: int
    counters: tuple[int, ...]
    samples: tuple[str, ...]
    """A few skipped records, each as one sentence naming file, offset and error."""


@message(19)
class Reduced(Record):
    """A private file that is the whole output of a partition."""

    attempt: int
    path: str
    size: int
    digest: int
    keys: int
    total: int
    """Sum of all counts for a native job, lines written for any other."""


NO_RUN = -1
"""In `Failed.where`."""


@message(20)
class Failed(Record):
    """An attempt cannot end well.

    `reason`: `user` (the job's own code raised), `input` (missing, unreadable, changed), `word`
    (a word or key too long), `run` (a run is missing or damaged: `where` is its number, or `NO_RUN`
    for a file of the merge's own, which is worth another try), `space` (no space left), `memory`.
    `text` is one sentence for the user that names file, offset, record.
    """

    attempt: int
    reason: str
    text: str
    where: int
    detail: str
    """A traceback, or ""."""


# --- to a worker (kinds 32-47) -------------------------------------------------------------------


@message(32)
class Configure(Record):
    """All that a worker needs to know of the job."""

    job: int
    app: str
    """Built-in name, `module:Class`, or file path with an optional `:Class`."""
    options: tuple[tuple[str, str], ...]
    partitions: int
    memory: int
    scratch: str
    """Directory for runs."""
    parts: str
    """Directory for outputs until they are published; on the output's own file system."""
    page: str
    slot: int
    skip_bad: int
    isa: str


@message(33)
class Map(Record):
    """Read bytes [start, end) of a file into the table.

    `identity` is (size, mtime in ns, inode), which must still be the file's. `skip` lists the
    records of this split (counted from 0) that killed a worker before and are to be passed over.
    """

    attempt: int
    task: int
    path: str
    start: int
    end: int
    identity: tuple[int, int, int]
    skip: tuple[int, ...]


@message(34)
class Flush(Record):
    """Commit what the table holds: there is nothing more to read for now."""

    after: int
    """The last attempt sent before; lets a reader of a trace see what was meant."""


@message(35)
class Reduce(Record):
    """Merge a partition of all runs, in this order, into one output file."""

    attempt: int
    partition: int
    runs: tuple[tuple[int, str, int, int], ...]
    """(number of the run, path, size, digest)"""


@message(36)
class Stop(Record):
    """The job is over and its output is final: leave."""

    outcome: str


# --- the journal (kinds 64-79) -------------------------------------------------------------------


@message(64)
class Planned(Record):
    """The first record: what job this is. A resume with another plan is refused."""

    job: int
    app: str
    options: tuple[tuple[str, str], ...]
    partitions: int
    scratch: str
    splits: tuple[tuple[str, int, int, tuple[int, int, int]], ...]
    """(path, start, end, identity)"""
    extra: tuple[tuple[str, str], ...]
    """What else must be equal, or is worth knowing: version, letters table, creation time."""


@message(65)
class RunAccepted(Record):
    """From now on this file *is* the output of these tasks."""

    run: int
    tasks: tuple[int, ...]
    path: str
    size: int
    digest: int
    counters: tuple[int, ...]


@message(66)
class RunDropped(Record):
    """The run turned out missing or damaged: its tasks are to be done again."""

    run: int


@message(67)
class OutputAccepted(Record):
    """From now on this file *is* the output of the partition."""

    partition: int
    path: str
    size: int
    digest: int
    keys: int
    total: int


@message(68)
class OutputDropped(Record):
    """The part turned out missing or damaged before it was published."""

    partition: int


@message(69)
class Publishing(Record):
    """All outputs are accepted; they are being renamed into place."""

    partitions: int


@message(70)
class Published(Record):
    """The manifest is in place and durable: the job is done."""

    partitions: int


@message(71)
class Resumed(Record):
    """A coordinator went on from this journal: the `epoch`-th to do so is 2, 3, …

    Attempts are numbered from `epoch << EPOCH_BITS`, so that no worker of an earlier coordinator
    can report, or name a file like, an attempt of this one. It is durable before the first `Map`.
    """

    epoch: int


EPOCH_BITS = 22
"""Four million attempts an epoch (a plan has at most one million splits), and a thousand epochs in
the 32 bits that a run's block header has."""


# --- jobs of the scheduler (never cross the wire) ------------------------------------------------


class Spawn(Record):
    """Start worker process `node`. Ends with `Finished(result=pid)`; its death is an `Exited`."""

    node: int


class Kill(Record):
    """SIGKILL worker `node` if it still runs. Its `Exited` follows if it was supervised."""

    node: int


class Publish(Record):
    """fsync the parts, rename them into place, write the manifest last, fsync the directory.

    Repeatable: a part that is already in place is left there. Result: a tuple of the partitions
    whose part is missing or does not verify (then nothing was renamed).
    """

    parts: tuple[OutputAccepted, ...]
    summary: tuple[tuple[str, Any], ...]


class Discard(Record):
    """Unlink files that are garbage; missing ones are fine."""

    paths: tuple[str, ...]


class Sweep(Record):
    """Remove the job's scratch folder with all that is left in it, named to the scheduler or not.

    Asked for once, when the job is published. A stopped worker that wakes up later finds no folder
    to write to.
    """
