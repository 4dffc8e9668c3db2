"""The labs' jobcount: how often map was called, over all processes."""

import os
import random
import tempfile
import time

from engine.mapreduce import Job


class JobCount(Job):
    records = "files"
    options = {"folder": "", "seconds": "0.5"}

    def map(self, document, record):
        handle, _ = tempfile.mkstemp(
            prefix=f"mr-worker-jobcount-{os.getpid()}-", dir=self.settings["folder"]
        )
        os.close(handle)
        time.sleep(float(self.settings["seconds"]) * (1 + random.SystemRandom().random()))
        yield "a", "x"

    def reduce(self, key, values):
        names = os.listdir(self.settings["folder"])
        yield key, str(sum(name.startswith("mr-worker-jobcount") for name in names))
