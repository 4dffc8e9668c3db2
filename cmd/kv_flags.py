"""Flags and results that all verbs of `engine kv` share."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from engine_cmd.flags import Parser, client_flags, shown


def kv_parser(verb: str, description: str) -> Parser:
    """For `engine kv VERB`."""
    return Parser(prog=f"engine kv {verb}", description=description)


def asked(parser: Parser, argv: list[str]) -> Namespace:
    """With what every verb takes that asks a cluster."""
    client_flags(parser, "the folder of `engine kv up`, or the replicas' clients' endpoints: A,B,C")
    flags: Namespace = parser.parse_args(argv)
    return flags


def said(flags: Namespace, result: dict[str, Any], line: str) -> None:
    """The result as one JSON object, or as a line."""
    if flags.json:
        shown({**result, "error": None})
    elif line:
        print(line)
