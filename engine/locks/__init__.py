"""Locks by name, held on two servers: the smallest service that survives a death.

`acquire` takes a lock if it is free, `release` frees it if it is held; neither waits, and anybody
may release. A *primary* and a *backup* are fixed when they are started. A client asks the primary.
The primary puts requests into an order, forwards them, and an operation *takes effect* there when
the backup has it: then it is answered. So when the primary dies the client asks the backup, which
knows every operation that anybody was ever told of, and the last answer of each client
(`engine.sessions`): a request that is repeated there is answered and not done again.

The parts: `messages`; `machine`, both servers as a pure machine; `server`, the process; `client`;
`trial`, the proof in the simulator.

What it does not survive

* The death of both, or of one and then the other: there is no repair, and state is in memory only.
* A *partition*. Silence is all that the living can see, so when primary and backup cannot reach
  each other the primary goes on alone, and clients that cannot reach it go to the backup: both
  serve, and a lock has two holders. When they meet again they notice, and both retire, but by then
  it has happened. `engine sim locks --beyond partition` shows it. Deciding who serves takes a third
  party (`engine.views`).
* A server that is stopped for longer than its peers' patience looks dead. Whoever took its place
  tells it so when it wakes, and it retires; so this alone is harmless.
"""
