"""The real world: processes, shared memory, a thread that syncs. It knows no service.

`processes` supervises workers (`zygote` and `starters` are the ways to start them, `child` is what
they do first), `pages` shows where they are, `syncer` makes writes durable, `samples` weighs them.
"""
