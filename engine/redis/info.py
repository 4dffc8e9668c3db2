"""What a gateway says of itself: INFO, CONFIG GET, CLIENT LIST."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine import __version__
from engine.redis import access
from engine.redis.door import BULK_MAX

if TYPE_CHECKING:
    from engine.redis.door import Client
    from engine.redis.gateway import Gateway

REDIS_VERSION = "7.0.0"
"""Whose commands and errors these are; clients ask, and leave out what later ones have."""


def info(gateway: Gateway, wanted: Sequence[str]) -> bytes:
    """Sections by name; none, `default`, `all` and `everything` are all of them."""
    sections = _sections(gateway)
    everything = not wanted or not {"all", "default", "everything"}.isdisjoint(wanted)
    told = []
    for name, lines in sections.items():
        if everything or name.lower() in wanted:
            body = "".join([f"{what}:{value}\r\n" for what, value in lines.items()])
            told.append(f"# {name}\r\n{body}")
    return "\r\n".join(told).encode()


def _sections(gateway: Gateway) -> dict[str, dict[str, Any]]:
    assert gateway.replica is not None
    replica, counts = gateway.replica, gateway.counts
    raft, machine = replica.raft, gateway.front.machine
    members = raft.members.now.members
    return {
        "Server": {
            "redis_version": REDIS_VERSION,
            "redis_mode": "standalone",
            "engine_version": __version__,
            "arch_bits": 64,
            "process_id": os.getpid(),
            "tcp_port": gateway.door.address[1],
            "uptime_in_seconds": replica.up_seconds,
        },
        "Clients": {
            "connected_clients": counts["clients"],
            "maxclients": gateway.door.clients_max,
            "blocked_clients": 0,
        },
        "Memory": {"used_memory_dataset": machine.store.size},
        "Persistence": {"loading": 0, "aof_enabled": 1},
        "Stats": {
            "total_connections_received": counts["connections"],
            "rejected_connections": counts["refused"],
            "slow_path_commands": counts["commands"],
            "frames": counts["frames"],
            "frames_repeated": counts["repeated"],
        },
        "Replication": {
            "role": "master",
            "connected_slaves": 0,
            "master_repl_offset": replica.applied,
        },
        "Raft": {
            "raft_role": type(raft.role).__name__.lower(),
            "raft_member": raft.me,
            "raft_term": raft.term,
            "raft_leader": raft.leader,
            "raft_commit": raft.commit,
            "raft_applied": replica.applied,
            "raft_members": ",".join([f"{one.id}={one.role}" for one in members]),
            "store_revision": machine.revision,
        },
        "Cluster": {"cluster_enabled": 0},
        "Keyspace": {
            "db0": f"keys={len(machine.store.table)},expires={len(machine.leases.by_id)},avg_ttl=0"
        },
    }


def settings(gateway: Gateway) -> dict[str, str]:
    """As CONFIG GET has them. Everything is on disk before it is answered."""
    return {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "databases": "1",
        "maxclients": str(gateway.door.clients_max),
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "port": str(gateway.door.address[1]),
        "proto-max-bulk-len": str(BULK_MAX),
        "timeout": "0",
    }


def of_client(client: Client) -> bytes:
    """A line of CLIENT LIST."""
    host, port = client.address[:2]
    age = int(time.monotonic() - client.born)
    multi = -1 if client.queue is None else len(client.queue)
    user = access.who(client)
    library = [client.library[what].decode() for what in (b"lib-name", b"lib-ver")]
    return (
        f"id={client.id} addr={host}:{port} name={client.name.decode()} age={age} db=0 "
        f"multi={multi} watch={len(client.watched)} qbuf={client.stream.unread} "
        f"omem={client.stream.unsent} resp={3 if client.stream.resp3 else 2} "
        f"user={user} lib-name={library[0]} lib-ver={library[1]}\n"
    ).encode()
