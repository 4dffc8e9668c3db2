"""Jobs that misbehave on demand: dawdle, hang, crash hard, raise. Their records are lines."""

import ctypes
import os
import signal
import time

from engine.mapreduce import Job


class Slow(Job):
    """Counts words, taking its time over each line so that there is time to kill it."""

    split_bytes = 64 << 10
    options = {"seconds": "0.0005", "long": "0"}

    def map(self, document, record):
        # The slowness is the subject: it keeps the job alive long enough to be attacked.
        time.sleep(float(self.settings["seconds"]))
        if self.settings["long"] != "0" and document == "pg-grimm.txt":
            time.sleep(float(self.settings["long"]))
            self.settings["long"] = "0"
        for word in record.split():
            yield word, 1

    def reduce(self, key, values):
        yield key, sum(values)


class Poison(Job):
    """`what` happens at every line that holds `marker`: raise, segfault, hang, or kill."""

    split_bytes = 64 << 10
    options = {"marker": "poison", "what": "raise"}

    def map(self, document, record):
        if self.settings["marker"] in record:
            self.suffer()
        for word in record.split():
            yield word, 1

    def suffer(self):
        what = self.settings["what"]
        if what == "raise":
            raise ValueError("this line is poison")
        if what == "segfault":
            ctypes.string_at(0)
        if what == "hang":
            signal.pause()
        os._exit(3)

    def reduce(self, key, values):
        yield key, sum(values)


class Order(Job):
    """Values in the order of the input, whoever read which split."""

    split_bytes = 64 << 10

    def map(self, document, record):
        if record:
            yield record.split()[0], record

    def reduce(self, key, values):
        yield key, "|".join(values)
