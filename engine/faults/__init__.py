"""Tools that attack: they bring upon real processes what the simulator brings upon machines.

`proxy` is a process through which every directed link between real processes runs; it loses,
delays, repeats and cuts, and a test steers it with `control`. `pair` is one connection in it,
`zmtp` finds single messages in what ZeroMQ sends, `links` decides what happens to each. `cluster`
starts programs as a user would and puts the proxy between them; `subject` is what they run under,
so that they can be killed at a named point and never outlive a test.

`replicas` is a group of real replicas on that, `nemesis` brings accidents upon it (`accidents` says
which there are), and `chaos` has `witnesses` use a store meanwhile, whose histories a `court`
judges. `unsafe` breaks a store, to see whether anybody notices. Only `engine chaos`, tests and
benchmarks use this folder.
"""
