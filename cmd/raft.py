"""`engine raft`: a replicated log of commands, on members that may fail."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from engine.errors import ConnectionFailed, EngineError, UsageError
from engine_cmd.flags import Family, client_flags, connection_flags, named, natural, shown
from engine_cmd.replicas import plan_of, replica_flags

if TYPE_CHECKING:
    from engine.raft.client import Operator
    from engine.raft.requests import Status

EXAMPLES = """\
examples, for a group of three on this machine (a, b and c are folders):
  engine raft init a b c                    says a number for each, say 11, 12 and 13
  I=11=ipc://$PWD/a/peers,12=ipc://$PWD/b/peers,13=ipc://$PWD/c/peers
  engine raft serve --dir a --initial $I    and the same for b and c
  engine raft submit hello --cluster a,b,c
  engine raft status --cluster a,b,c

A cluster is named by the folders of its replicas, or their endpoints (those for clients, or for
submit and look; those for operators otherwise).
"""


def init(argv: list[str]) -> int:
    """make the folders of members, and say their numbers"""
    parser = RAFT.parser("init", "Make a member's folder and draw its number; done before: say it.")
    parser.add_argument("folders", metavar="DIR", nargs="+")
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    flags = parser.parse_args(argv)
    from engine.storage.home import make

    made = {folder: make(folder) for folder in flags.folders}
    if flags.json:
        shown({"members": made, "error": None})
    else:
        for folder, member in made.items():
            print(f"{member} {folder}")
    return 0


def serve(argv: list[str]) -> int:
    """be a member, until it is ended"""
    parser = RAFT.parser("serve", "Be the member whose folder this is, until it is ended.")
    replica_flags(parser)
    parser.add_argument(
        "--snapshot-every",
        metavar="N",
        type=natural,
        default=100_000,
        help="entries (default: 100000); 0 for never",
    )
    parser.add_argument("--trace", metavar="FILE", default="", help="log every step, for a judge")
    parser.add_argument("--json", action="store_true", help="one JSON object when it serves")
    connection_flags(parser, "; made if it is not there")
    flags = parser.parse_args(argv)
    from engine.raft.replica import serve as serve_member
    from engine.raft.server import Limits

    reserve = min(1 << 20, flags.segment_bytes // 4)
    serve_member(plan_of(flags, Limits(flags.snapshot_every, reserve=reserve), trace=flags.trace))
    return 0


def submit(argv: list[str]) -> int:
    """append a command, and say which one of the log it became"""
    parser = RAFT.parser("submit", "Append a command; returns when it is decided.")
    parser.add_argument("command", metavar="COMMAND", help="the text, or - to read stdin")
    client_flags(parser, "the folders or clients' endpoints of its replicas: A,B,C")
    flags = parser.parse_args(argv)
    from engine.raft.client import Group

    command = flags.command.encode("utf-8", "surrogateescape")
    if flags.command == "-":
        command = sys.stdin.buffer.read()
    with Group(_endpoints(flags, "clients"), timeout=flags.timeout, **_way(flags)) as group:
        place = group.submit(command)
    if flags.json:
        shown({"command": place, "error": None})
    else:
        print(place)
    return 0


def look(argv: list[str]) -> int:
    """say how many commands there are"""
    parser = RAFT.parser("look", "Say how many commands there are, all that were done included.")
    client_flags(parser, "the folders or clients' endpoints of its replicas: A,B,C")
    flags = parser.parse_args(argv)
    from engine.raft.client import Group

    with Group(_endpoints(flags, "clients"), timeout=flags.timeout, **_way(flags)) as group:
        seen = group.look()
    if flags.json:
        shown({"commands": seen.commands, "digest": seen.digest, "error": None})
    else:
        print(seen.commands)
    return 0


def status(argv: list[str]) -> int:
    """say what the replicas know of themselves"""
    parser = RAFT.parser("status", "Say what each replica knows of itself.")
    client_flags(parser, "the folders or operators' endpoints of its replicas: A,B,C")
    flags = parser.parse_args(argv)
    addresses = _endpoints(flags, "admin")
    found = statuses(flags, addresses)
    if flags.json:
        replicas = [_plain(found.get(one), one) for one in addresses]
        shown({"replicas": replicas, "error": None})
    else:
        for one in addresses:
            print(_line(found.get(one), one))
    if not found:
        raise ConnectionFailed(f"0 of {len(addresses)} replicas reachable.")
    return 0


def statuses(flags: Namespace, addresses: list[str]) -> dict[str, Status]:
    """Of those that answer."""
    from engine.raft.client import Operator

    found = {}
    patience = min(flags.timeout or 2.0, 2.0)
    for address in addresses:
        try:
            with Operator(address, timeout=patience, **_way(flags)) as operator:
                found[address] = operator.status()
        except EngineError as error:
            if not isinstance(error, ConnectionFailed):
                raise
    return found


def _plain(status: Status | None, address: str) -> dict[str, Any]:
    if status is None:
        return {"admin": address, "reachable": False}
    plain = status._asdict()
    del plain["number"], plain["slow"], plain["redis"]  # those are the store's
    plain["seats"] = [seat._asdict() for seat in status.seats]
    plain["counters"] = dict(status.counters)
    return {"admin": address, "reachable": True, **plain}


def _line(status: Status | None, address: str) -> str:
    if status is None:
        return f"{address}: nobody answers"
    marks = "".join(f", {w}" for w, on in (("full", status.full), ("lost", status.lost)) if on)
    return (
        f"{address}: member {status.member} (pid {status.pid}), {status.role} of term "
        f"{status.term}, {status.commands} commands, committed {status.commit}, applied "
        f"{status.applied}, last {status.last}{marks}"
    )


def metrics(argv: list[str]) -> int:
    """print figures as Prometheus reads them, or serve them"""
    parser = RAFT.parser("metrics", "Print figures as Prometheus reads them, or serve them.")
    client_flags(parser, "the folders or operators' endpoints of its replicas: A,B,C")
    parser.add_argument(
        "--listen",
        metavar="127.0.0.1:PORT",
        help="serve them at /metrics instead, until it is ended",
    )
    flags = parser.parse_args(argv)
    from engine.raft.metrics import text_of

    addresses = _endpoints(flags, "admin")

    def text() -> str:
        return text_of(addresses, statuses(flags, addresses))

    if flags.listen:
        from engine.web.server import serve_text

        serve_text(flags.listen, text, as_json=flags.json)
    else:
        print(text(), end="")
    return 0


def members(argv: list[str]) -> int:
    """add, remove or replace members"""
    parser = RAFT.parser("members", "Add and remove members; returns when the change is placed.")
    parser.add_argument("--add", metavar="MEMBER=ENDPOINT", action="append", default=[])
    parser.add_argument("--learner", metavar="MEMBER=ENDPOINT", action="append", default=[])
    parser.add_argument("--remove", metavar="MEMBER", type=natural, action="append", default=[])
    client_flags(parser, "the folders or operators' endpoints of its replicas: A,B,C")
    flags = parser.parse_args(argv)
    from engine.raft.membership import LEARNER
    from engine.raft.replica import parse_initial

    def order(leader: Operator, status: Status) -> None:
        wanted = {seat.id: (seat.address, seat.role != LEARNER) for seat in status.seats}
        for member in flags.remove:
            if wanted.pop(member, None) is None:
                raise UsageError(f"There is no member {member}.")
        for texts, votes in ((flags.add, True), (flags.learner, False)):
            for member, address in parse_initial(texts).items():
                wanted[member] = (address, votes)
        leader.change([(member, *rest) for member, rest in wanted.items()])

    return _with_leader(flags, order)


def lead(argv: list[str]) -> int:
    """hand leadership to another member"""
    parser = RAFT.parser("lead", "Hand leadership to a member, or to whoever has most.")
    parser.add_argument("member", metavar="MEMBER", type=natural, nargs="?", default=0)
    client_flags(parser, "the folders or operators' endpoints of its replicas: A,B,C")
    flags = parser.parse_args(argv)
    return _with_leader(flags, lambda leader, status: leader.hand_over(flags.member))


def _with_leader(flags: Namespace, order: Any) -> int:
    from engine.raft.client import Operator, leader_of

    found = statuses(flags, _endpoints(flags, "admin"))
    address = leader_of(found)
    with Operator(address, timeout=flags.timeout, **_way(flags)) as leader:
        order(leader, found[address])
    if flags.json:
        shown({"leader": address, "error": None})
    return 0


def _endpoints(flags: Namespace, which: str) -> list[str]:
    """Folders are named by what is in them."""
    found = []
    for one in named(flags.cluster, "A,B,C").split(","):
        found.append(one if "://" in one else f"ipc://{os.path.abspath(one)}/{which}")
    return found


def _way(flags: Namespace) -> dict[str, Any]:
    return {"token": flags.token, "via": dict(flags.via)}


RAFT = Family(
    "raft",
    EXAMPLES,
    {
        "init": init,
        "serve": serve,
        "submit": submit,
        "look": look,
        "status": status,
        "metrics": metrics,
        "members": members,
        "lead": lead,
    },
)
main = RAFT.main
