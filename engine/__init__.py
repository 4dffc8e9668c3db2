"""engine: a MapReduce engine whose every part is a real process, with its hot loops in Cython.

The parts, lowest first; imports run downwards only, which `tests/test_tidy.py` holds:

0. `errors`; `record`: tuples with names; `kernels`: compiled loops, from `ext/`
1. `contract`: machine, world, server; `wire.codec` and `wire.envelope`: bytes of messages
2. `storage`: bytes on disk; `wire.endpoint`: ZeroMQ
3. `runtime`: the real world; `sim`: the simulated one
6. `mapreduce`: jobs, scheduler, coordinator, workers
7. `corpora`: texts to count
8. `cmd/`, which is `engine_cmd`: the command line
"""

__version__ = "0.1.0"
