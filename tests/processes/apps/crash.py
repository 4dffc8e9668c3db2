"""The labs' crash: a third of all calls ends the process, a third dawdles."""

import os
import random
import time

from engine.mapreduce import Job


def maybe_crash(seconds: float) -> None:
    chance = random.SystemRandom().randrange(1000)
    if chance < 330:
        os._exit(1)
    elif chance < 660:
        # The dawdling is the subject of the test: it keeps results late, never waits for anything.
        time.sleep(random.SystemRandom().random() * seconds)


class Crash(Job):
    """Four facts of each file, written down by processes that keep dying."""

    records = "files"
    options = {"faults": "yes", "seconds": "0.5"}

    def _maybe_crash(self):
        if self.settings["faults"] == "yes":
            maybe_crash(float(self.settings["seconds"]))

    def map(self, document, record):
        self._maybe_crash()
        yield "a", document
        yield "b", str(len(document))
        yield "c", str(len(record))
        yield "d", "xyzzy"

    def reduce(self, key, values):
        self._maybe_crash()
        yield key, " ".join(sorted(values))
