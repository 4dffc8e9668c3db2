"""engine: MapReduce, and small replicated services, whose every part is a real process.

The parts, lowest first; imports run downwards only, which `tests/test_tidy.py` holds:

0. `errors`; `record`: tuples with names; `kernels`: compiled loops, from `ext/`
1. `contract`: machine, world, server; `sessions`: requests done once; `wire.codec` and
   `wire.envelope`: bytes of messages
2. `calls`: a request until its outcome; `relay`: operations on their way to a backup;
   `storage`: bytes on disk; `wire.endpoint`: ZeroMQ; `verify`: judging what clients saw
3. `runtime`: the real world; `sim`: the simulated one
4. `raft`: consensus, and a replicated log of commands
5. `kv`: a replicated store of keys and values
6. `mapreduce`: jobs, scheduler, coordinator, workers; `locks`, `views`, `backup`: small services;
   `locks.fenced`: locks on the store
7. `corpora`: texts to count; `faults`: tools that attack
8. `cmd/`, which is `engine_cmd`: the command line
"""

__version__ = "0.1.0"
