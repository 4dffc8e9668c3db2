"""What verbs share: a parser whose errors are the engine's own, and flags that mean the same."""

from __future__ import annotations

import os
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import Any, NoReturn

from engine.errors import UsageError


class Parser(ArgumentParser):
    """An argument parser that raises `UsageError`, so that `--json` holds for misuse as well."""

    def __init__(self, **options: Any) -> None:
        kept = {"formatter_class": RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**{**kept, **options})

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`).")


def pair(text: str) -> tuple[str, str]:
    """`ADDRESS=WAY` of `--via`."""
    address, _, way = text.partition("=")
    if not address or not way:
        raise ArgumentTypeError(f"{text!r} is not ADDRESS=WAY")
    return address, way


def seconds(text: str) -> float | None:
    """A positive number, or `never`."""
    if text == "never":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a positive number of seconds, nor never")
    return value


def natural(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def keys(text: str) -> str:
    """`--keys`: a folder of keys, or one of several in it."""
    if not os.path.isdir(text) and not os.path.isfile(f"{text}.secret"):
        raise ArgumentTypeError(f"{text!r} is no folder of keys: `engine keys new` makes one")
    return text


def serve_flags(parser: ArgumentParser) -> None:
    """What every server takes."""
    parser.add_argument(
        "--listen",
        metavar="ENDPOINT",
        default="ipc://*",
        help="ipc:///PATH in a directory of your own, or tcp://127.0.0.1:PORT (default: a new one)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object when it serves")
    connection_flags(parser, "; made if it is not there")


def client_flags(parser: ArgumentParser, cluster: str) -> None:
    """What every command takes that asks a service, which `cluster` says how to name."""
    cluster_flag(parser, cluster)
    parser.add_argument(
        "--timeout", type=seconds, metavar="S", default=10.0, help="seconds, or never (default: 10)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, errors too")
    connection_flags(parser, "")


def cluster_flag(parser: ArgumentParser, cluster: str) -> None:
    parser.add_argument(
        "--cluster",
        metavar="ENDPOINT",
        default=os.environ.get("ENGINE_CLUSTER"),
        help=f"{cluster} (default: $ENGINE_CLUSTER)",
    )


def connection_flags(parser: ArgumentParser, made: str) -> None:
    keys_flag(parser, "token")  # whichever of both is given
    parser.add_argument(
        "--token", metavar="FILE", default=SUPPRESS, help=f"the token file, for tcp{made}"
    )
    parser.add_argument(
        "--via",
        metavar="ADDRESS=WAY",
        type=pair,
        action="append",
        default=[],
        help="reach ADDRESS over WAY: a proxy or a tunnel; repeatable",
    )


def keys_flag(parser: ArgumentParser, dest: str) -> None:
    parser.add_argument(
        "--keys",
        metavar="DIR",
        type=keys,
        dest=dest,
        default=os.environ.get("ENGINE_KEYS") or None,
        help="our keys, for tcp beyond this machine (`engine keys`; default: $ENGINE_KEYS)",
    )


def named(cluster: str | None, what: str) -> str:
    """`--cluster`, which must be given somehow."""
    if not cluster:
        raise UsageError(f"Which service? Give --cluster {what}, or set ENGINE_CLUSTER.")
    return cluster


def token_made(listen: str, token: str | None) -> str | None:
    """The token file of a server on TCP, made if it is not there."""
    if token is not None and listen.startswith("tcp://") and not os.path.lexists(token):
        from engine.wire.keys import make_token

        make_token(token)
    return token


def shown(value: dict[str, Any]) -> None:
    """One JSON object on one line of stdout."""
    import json

    print(json.dumps(value, ensure_ascii=False), flush=True)


class Family:
    """A verb with verbs of its own, `engine NAME VERB`: their functions, and the help for them."""

    def __init__(
        self, name: str, examples: str, verbs: dict[str, Callable[[list[str]], int]]
    ) -> None:
        self.name, self.examples, self.verbs = name, examples, verbs

    def main(self, argv: list[str]) -> int:
        """Run one of them; its exit code. Operating errors are raised."""
        verb, rest = (argv[0], argv[1:]) if argv else ("--help", [])
        if verb in ("--help", "-h"):
            print(self.usage(), end="")
            return 0 if argv else 2
        if verb not in self.verbs:
            known = ", ".join(self.verbs)
            raise UsageError(f"There is no `engine {self.name} {verb}`; there is {known}.")
        return self.verbs[verb](rest)

    def usage(self) -> str:
        verbs = "".join(f"  {name:<13}{call.__doc__}\n" for name, call in self.verbs.items())
        return f"usage: engine {self.name} VERB …\n\nverbs:\n{verbs}\n{self.examples}"

    def parser(self, verb: str, description: str) -> Parser:
        return Parser(prog=f"engine {self.name} {verb}", description=description)
