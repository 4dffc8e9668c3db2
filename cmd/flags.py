"""Flags of all verbs: a parser whose errors are the engine's own."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any, NoReturn

from engine.errors import UsageError


class Parser(ArgumentParser):
    """An argument parser that raises `UsageError`, so that `--json` holds for misuse as well."""

    def __init__(self, **options: Any) -> None:
        kept = {"formatter_class": RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**{**kept, **options})

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`).")
