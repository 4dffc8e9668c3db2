"""CLUSTER: the group as clients of Redis Cluster see it, one node that has all slots.

Each replica's gateway brings what it is asked to the leader, so a client needs no other one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.kv.commands import SLOTS, slot_of
from engine.redis.replies import Text

if TYPE_CHECKING:
    from engine.redis.gateway import Gateway


def cluster(
    gateway: Gateway, here: tuple[Any, ...], args: Sequence[bytes], unknown: Callable[..., Any]
) -> Any:
    """The reply to somebody who found us `here`. Problem."""
    word = args[1].upper().decode("latin-1")
    host, port = here[:2]
    name = b"%040x" % gateway.member
    if word == "MYID" and len(args) == 2:
        return name
    if word == "KEYSLOT" and len(args) == 3:
        return slot_of(args[2])
    if word == "SLOTS" and len(args) == 2:
        return [[0, SLOTS - 1, [host.encode(), port, name, []]]]
    if word == "SHARDS" and len(args) == 2:
        node = {
            b"id": name, b"port": port, b"ip": host.encode(), b"endpoint": host.encode(),
            b"role": b"master", b"replication-offset": gateway.applied, b"health": b"online",
        }  # fmt: skip
        return [{b"slots": [0, SLOTS - 1], b"nodes": [node]}]
    if word == "NODES" and len(args) == 2:
        line = f"{name.decode()} {host}:{port}@{port} myself,master - 0 0 1 connected 0-{SLOTS - 1}"
        return Text(line.encode() + b"\n")
    if word == "INFO" and len(args) == 2:
        state = "ok" if gateway.led else "fail"
        lines = (
            f"cluster_state:{state}", f"cluster_slots_assigned:{SLOTS}",
            f"cluster_slots_ok:{SLOTS}", "cluster_slots_pfail:0", "cluster_slots_fail:0",
            "cluster_known_nodes:1", "cluster_size:1", "cluster_current_epoch:1",
            "cluster_my_epoch:1",
        )  # fmt: skip
        return Text("".join([f"{line}\r\n" for line in lines]).encode())
    return unknown("cluster", args, ("MYID", "KEYSLOT", "SLOTS", "SHARDS", "NODES", "INFO"))
