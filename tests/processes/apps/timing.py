"""The labs' mtiming and rtiming: how many workers are inside map, or reduce, at the same time."""

import os
import time

from engine.mapreduce import Job


def parallel(folder: str, phase: str, seconds: float) -> int:
    """Announce this process, count the live ones that did, stay a while, leave."""
    mine = os.path.join(folder, f"mr-worker-{phase}-{os.getpid()}")
    with open(mine, "w"):
        pass
    count = 0
    for name in os.listdir(folder):
        prefix, _, pid = name.rpartition("-")
        if prefix == f"mr-worker-{phase}" and alive(int(pid)):
            count += 1
    # Staying is what the labs' jobs do: it makes overlap visible, it waits for nobody.
    time.sleep(seconds)
    os.unlink(mine)
    return count


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class MapTiming(Job):
    records = "files"
    options = {"folder": "", "seconds": "1"}

    def map(self, document, record):
        began = time.time()
        count = parallel(self.settings["folder"], "map", float(self.settings["seconds"]))
        yield f"times-{os.getpid()}", f"{began:.1f}"
        yield f"parallel-{os.getpid()}", str(count)

    def reduce(self, key, values):
        yield key, " ".join(sorted(values))


class ReduceTiming(Job):
    records = "files"
    options = {"folder": "", "seconds": "1"}

    def map(self, document, record):
        for letter in "abcdefghij":
            yield letter, "1"

    def reduce(self, key, values):
        count = parallel(self.settings["folder"], "reduce", float(self.settings["seconds"]))
        yield key, str(count)
