"""`engine pb`: a key/value store on a primary and a backup, and its clients."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine_cmd.flags import (
    Family,
    Parser,
    client_flags,
    cluster_flag,
    named,
    serve_flags,
    shown,
    token_made,
)

if TYPE_CHECKING:
    from engine.backup.client import Store

EXAMPLES = """\
examples:
  engine view serve --listen ipc:///run/me/views
  engine pb serve --cluster ipc:///run/me/views      (twice: the second becomes backup)
  export ENGINE_CLUSTER=ipc:///run/me/views
  engine pb put greeting hello && engine pb append greeting ' world' && engine pb get greeting

get ends with 3 if there is no such key. VALUE may be `-`: then it is read from stdin.
"""
NO_KEY = 3


def serve(argv: list[str]) -> int:
    """serve as what the view service says, in memory, until it is ended"""
    parser = PB.parser("serve", "Serve as what the view service says, until it is ended.")
    cluster_flag(parser, "the view service's address")
    serve_flags(parser)
    flags = parser.parse_args(argv)
    from engine.backup.server import serve as serve_store

    serve_store(
        flags.listen,
        named(flags.cluster, "VIEWS"),
        token=token_made(flags.listen, flags.token),
        via=dict(flags.via),
        as_json=flags.json,
    )
    return 0


def get(argv: list[str]) -> int:
    """print the value of a key"""
    parser = PB.parser("get", "Print the value of a key; 3 if it has none.")

    def ask(store: Store, flags: Namespace) -> int:
        value = store.get(flags.key)
        if flags.json:
            shown({"key": flags.key, "value": value, "error": None})
        elif value is None:
            print(f"engine: there is no key {flags.key!a}.", file=sys.stderr)
        else:
            # As it came: a value may be any bytes (`engine.wire.codec`).
            sys.stdout.buffer.write(value.encode("utf-8", "surrogateescape") + b"\n")
            sys.stdout.buffer.flush()
        return NO_KEY if value is None else 0

    parser.add_argument("key", metavar="KEY")
    return _with_store(parser, ask, argv)


def put(argv: list[str]) -> int:
    """give a key a value"""
    return _change("put", "Give a key a value.", argv)


def append(argv: list[str]) -> int:
    """put text behind the value of a key"""
    return _change("append", "Put text behind the value of a key, which is empty at first.", argv)


def _change(verb: str, description: str, argv: list[str]) -> int:
    parser = PB.parser(verb, description)

    def ask(store: Store, flags: Namespace) -> int:
        value = flags.value
        if value == "-":
            value = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
        store.put(flags.key, value) if verb == "put" else store.append(flags.key, value)
        if flags.json:
            shown({"key": flags.key, "error": None})
        return 0

    parser.add_argument("key", metavar="KEY")
    parser.add_argument("value", metavar="VALUE", help="the text, or - to read stdin")
    return _with_store(parser, ask, argv)


def _with_store(parser: Parser, ask: Callable[[Store, Namespace], int], argv: list[str]) -> int:
    client_flags(parser, "the view service's address")
    flags = parser.parse_args(argv)
    from engine.backup.client import Store

    address = named(flags.cluster, "VIEWS")
    with Store(address, timeout=flags.timeout, token=flags.token, via=dict(flags.via)) as store:
        return ask(store, flags)


PB = Family("pb", EXAMPLES, {"serve": serve, "get": get, "put": put, "append": append})
main = PB.main
