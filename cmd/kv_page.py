"""The verbs of `engine kv` that show figures: as text, and as a page."""

from __future__ import annotations

from argparse import ArgumentParser

from engine_cmd.flags import cluster_flag, named
from engine_cmd.kv_flags import kv_parser

FOLDER = "the folder of `engine kv up`"


def metrics(argv: list[str]) -> int:
    """print figures as Prometheus reads them, or serve them"""
    parser = kv_parser("metrics", "Print figures as Prometheus reads them, or serve them.")
    parser.add_argument(
        "--listen",
        metavar="127.0.0.1:PORT",
        help="serve them at /metrics instead, until it is ended; PORT 0: any that is free",
    )
    _flags(parser)
    flags = parser.parse_args(argv)
    folder = _cluster(flags.cluster)
    if flags.listen:
        from engine.web.watch import serve_metrics

        serve_metrics(folder, flags.listen, as_json=flags.json)
        return 0
    from engine.web.lookout import Lookout
    from engine.web.watch import metrics_of

    with Lookout(folder) as lookout:
        sight = lookout.look()
    print(metrics_of(sight), end="")
    return 0


def page(argv: list[str]) -> int:
    """serve a page that shows how the cluster is"""
    parser = kv_parser(
        "page",
        "Serve a page that shows how the cluster is, to browsers of this machine, until it is "
        "ended. The same figures are at /status.json, and at /metrics for Prometheus.",
    )
    parser.add_argument(
        "--listen", metavar="127.0.0.1:PORT", default="0", help="default: any port that is free"
    )
    parser.add_argument(
        "--show-keys",
        action="store_true",
        help="of slow requests, to all who have an account on this machine",
    )
    _flags(parser)
    flags = parser.parse_args(argv)
    folder = _cluster(flags.cluster)
    from engine.web.watch import serve_page

    serve_page(folder, flags.listen, as_json=flags.json, keys=flags.show_keys)
    return 0


def _flags(parser: ArgumentParser) -> None:
    cluster_flag(parser, FOLDER)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object when it serves, errors too"
    )


def _cluster(cluster: str | None) -> str:
    """The folder, in which there is a cluster now. NotFoundError, RefusedError, UsageError."""
    from engine.kv.up import found

    folder: str = named(cluster, "DIR")
    found(folder)
    return folder
