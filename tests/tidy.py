"""What the tests of the house's rules read: the project's own files, and what they import."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("engine", "ext", "cmd", "tests", "benchmarks", "docs", "datasets")
TEXTS = (".py", ".pyi", ".pyx", ".pxd", ".h", ".md", ".toml", ".in", "")


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


class Source(NamedTuple):
    """A file of the project: its path from the root, with slashes, and its text."""

    path: str
    text: str

    def tree(self) -> ast.Module:
        return _parsed(self.text)

    @property
    def module(self) -> str:
        """The name that it is imported by."""
        name = self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return re.sub(r"^cmd\b", "engine_cmd", name)


Found = Iterator[tuple[int, str]]


class Rule(NamedTuple):
    """Something that is never found in the files that `where` picks."""

    name: str
    where: Callable[[str], bool]
    find: Callable[[Source], Found]
    bad: Source


@cache
def sources(root: Path = ROOT) -> list[Source]:
    """Every text file that is the project's own."""
    paths = [path for path in root.iterdir() if path.is_file()]
    for folder in FOLDERS:
        paths += (path for path in (root / folder).rglob("*") if path.is_file())
    return [
        Source(path.relative_to(root).as_posix(), path.read_text("utf-8"))
        for path in sorted(paths)
        if path.suffix in TEXTS
        and not path.name.startswith(".")
        and not {"__pycache__", "out"} & set(path.parts)
    ]


def python(*folders: str) -> Callable[[str], bool]:
    """Python files, of these folders if any are given."""
    return lambda path: path.endswith(".py") and path.startswith(tuple(f"{f}/" for f in folders))


def everywhere(path: str) -> bool:
    return path != "tests/test_tidy.py"  # which must name what it forbids


def imports(source: Source, typing_too: bool = True) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """(line, module, names) of every import, those inside functions included."""
    skipped = set() if typing_too else {n.lineno for n in typing_only(source.tree())}
    for node in ast.walk(source.tree()):
        if getattr(node, "lineno", 0) in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or ""), names_of(node)
        elif isinstance(node, ast.Call) and called(node).endswith(("import_module", "__import__")):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value, ()


def names_of(node: ast.ImportFrom) -> tuple[str, ...]:
    return tuple(alias.name for alias in node.names)


def called(node: ast.Call) -> str:
    """The function of a call as written: `os.fsync`, `open`."""
    return ast.unparse(node.func)


def typing_only(tree: ast.Module) -> tuple[ast.stmt, ...]:
    """Imports under `if TYPE_CHECKING:`."""
    return tuple(
        statement
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
    )
