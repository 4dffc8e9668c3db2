"""Replicated stores, three replicas each on this machine, for the benchmark of the store.

A module a store: how it is started, who leads, what its load is, and what it promises; a peer that
cannot take part here says what to install. `base.py` is what they have in common, `failover.py`,
`million.py` and `report.py` are the parts of the benchmark.
"""

from __future__ import annotations

from stores.base import Store
from stores.etcd import Etcd
from stores.nats import Nats
from stores.ours import Ours
from stores.pysyncobj import PySyncObj
from stores.redis import Redis
from stores.zookeeper import ZooKeeper

PEERS: dict[str, type[Store]] = {one.name: one for one in (Etcd, ZooKeeper, Nats, Redis, PySyncObj)}
"""In the order of the table, after ours."""

__all__ = ["PEERS", "Ours"]
