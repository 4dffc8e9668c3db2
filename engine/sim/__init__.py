"""The simulated world: weeks of accidents in minutes, each of which can be replayed.

A service's trial puts its own machines and its own server turn on these parts and draws everything
that may go wrong from one seed: `timeline` (clock, order of events, chance, trace), `network`
(pipes that lose, delay, repeat and break), `disk` (forgets what was not fsynced) and `swarm` (which
accidents a seed has, and how often). Nothing here knows a service.
"""
