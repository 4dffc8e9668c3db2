"""The labs' early_exit: some reduces take long; nobody may leave before all output is final."""

import time

from engine.mapreduce import Job


class EarlyExit(Job):
    records = "files"
    options = {"seconds": "1.5"}

    def map(self, document, record):
        yield document, "1"

    def reduce(self, key, values):
        if "sherlock" in key or "tom" in key:
            time.sleep(float(self.settings["seconds"]))
        yield key, str(len(list(values)))
