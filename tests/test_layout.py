"""Rules about the tree as a whole, each with a planted file that shows that it bites."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tidy import ROOT

NAMES_OF_THE_LAYOUT = "`ext/x.pyx` is `engine.kernels.x`, `cmd/x.py` is `engine_cmd.x`"


def unpaired_kernels(root: Path) -> list[str]:
    """Each kernel has its source, its face for Python and its test."""
    written = {path.stem for path in (root / "ext").glob("*.pyx")}
    typed = {path.stem for path in (root / "engine/kernels").glob("*.pyi")}
    tested = {path.stem[5:] for path in (root / "tests/kernels").glob("test_*.py")}
    return (
        [f"ext/{name}.pyx has no engine/kernels/{name}.pyi" for name in written - typed]
        + [f"engine/kernels/{name}.pyi has no ext/{name}.pyx" for name in typed - written]
        + [
            f"ext/{name}.pyx has no tests/kernels/test_{name}*.py"
            for name in written
            if not any(test == name or test.startswith(f"{name}_") for test in tested)
        ]
    )


def shadowing_commands(root: Path) -> list[str]:
    """`cmd` must stay a namespace candidate, and a script run by path puts cmd/ first."""
    found = ["cmd/__init__.py shadows the stdlib"] if (root / "cmd/__init__.py").exists() else []
    return found + [
        f"cmd/{path.name} is named like a module of the stdlib"
        for path in sorted((root / "cmd").glob("*.py"))
        if path.stem in sys.stdlib_module_names
    ]


def unlisted_packages(root: Path) -> list[str]:
    """Packages that pyproject.toml does not list would be missing from the wheel."""
    tool = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    mapped = {name for name, folder in tool["package-dir"].items() if name != folder}
    there = {
        ".".join(path.parent.relative_to(root).parts) for path in (root / "engine").rglob("*.py")
    }
    return [
        f"{name}: listed or there, not both" for name in set(tool["packages"]) ^ (there | mapped)
    ]


def unnamed_layout(root: Path) -> list[str]:
    """The two names that are learnt once are told in the three places where one looks."""
    return [
        name
        for name in ("README.md", "setup.py", "engine/kernels/__init__.py")
        if NAMES_OF_THE_LAYOUT not in " ".join((root / name).read_text("utf-8").split())
    ]


TREE_RULES = {
    unpaired_kernels: ("ext/planted.pyx", ""),
    shadowing_commands: ("cmd/queue.py", ""),
    unlisted_packages: ("engine/planted/__init__.py", ""),
    unnamed_layout: ("README.md", "Nothing about it."),
}


@pytest.mark.parametrize("rule", TREE_RULES, ids=lambda rule: rule.__name__)
def test_tree_rule_holds(rule: Callable[[Path], list[str]]) -> None:
    assert not rule(ROOT)


@pytest.mark.parametrize("rule", TREE_RULES, ids=lambda rule: rule.__name__)
def test_tree_rule_bites(rule: Callable[[Path], list[str]], tmp_path: Path) -> None:
    for name in ("ext", "cmd", "engine", "tests/kernels"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
    for name in ("README.md", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    before = rule(tmp_path)
    path, text = TREE_RULES[rule]
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text(text)
    assert len(rule(tmp_path)) > len(before)


@pytest.mark.parametrize("shadowed", [False, True], ids=["as-it-is", "with-init"])
def test_the_root_does_not_shadow_the_stdlib(shadowed: bool, tmp_path: Path) -> None:
    """From the root, `import cmd` is the stdlib's. An `__init__.py` in cmd/ would break doctest,
    pdb and `python -m pytest` for everyone who stands there."""
    folder = ROOT
    if shadowed:
        folder = tmp_path
        (folder / "cmd").mkdir()
        (folder / "cmd/__init__.py").touch()
    (tmp_path / "test_one.py").write_text("def test_one(): assert True\n")
    collect = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_one.py")]
    for command in (["-c", "import cmd, doctest, pdb; cmd.Cmd"], collect):
        ran = subprocess.run(
            [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=60
        )
        assert (ran.returncode != 0) == shadowed, ran.stdout + ran.stderr
