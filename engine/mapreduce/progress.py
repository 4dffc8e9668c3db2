"""The words of a worker's progress page, as the scheduler and the display read them.

A page is shared memory: 16 unsigned 64-bit words a worker, written by the worker (kernels included)
without locks and read by the coordinator as hints. Leases are renewed from *movement* of a page,
`--record-timeout` watches `RECORD`, and after a crash the page names the record.
"""

BEAT = 0
"""Counts every change; the last word written."""
ATTEMPT = 1
PHASE = 2
TASK = 3
"""Split or partition of the attempt."""
RECORD = 4
"""Records of this split begun, so 1 + the index of the one in hand; 0 outside user code."""
OFFSET = 5
"""Byte in the file (map) or bytes written (reduce): movement for native jobs."""
BYTES = 6
"""Input bytes read by this worker since it started."""
KEYS = 7
"""Keys in its table now."""
RECORD_SINCE = 8
"""CLOCK_MONOTONIC ns at which the record in hand was begun, as far as the worker knows."""
ALIVE = 9
"""Counted up several times a second, by a thread without the GIL, while the worker is where nothing
else moves: inside the job's own code, or writing. It stands still when the process is stopped."""

WORDS = 16

IDLE, READING, MAPPING, COMMITTING, REDUCING = range(5)
