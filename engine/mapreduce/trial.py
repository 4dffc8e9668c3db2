"""The scheduler's proof: its cluster under thousands of seeds, and bugs that must not survive them.

What must hold stands in `trial_judge`, what may go wrong in `trial_cluster`, the planted bugs in
`trial_bugs`.
"""

from __future__ import annotations

from engine.mapreduce.trial_bugs import BUGS
from engine.mapreduce.trial_cluster import Cluster
from engine.sim.experiment import Experiment

TRIAL = Experiment("mapreduce", Cluster, BUGS)

if __name__ == "__main__":
    raise SystemExit(TRIAL.main())
