"""What is shipped: an sdist that builds, and a wheel that works where there is no source tree.

Built once, from a copy of the tree, with the tools of this environment; the wheel is installed in
an environment of its own, which borrows the dependencies of this one. No network is needed.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from support import need, run
from tidy import ROOT

from engine import __version__

FOLDERS = ("engine", "ext", "cmd", "datasets", "docs", "tests")
CLEAN = {name: os.environ[name] for name in os.environ if not name.startswith("PYTHON")}


class Built(NamedTuple):
    """The two archives that are shipped."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    need("build", "build")
    need("Cython", "build")
    if int(need("setuptools", "build").__version__.partition(".")[0]) < 77:
        need("setuptools_77_or_later", "build")
    copy = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("*.so", "__pycache__", ".*", "out", "*.egg-info")
    for folder in FOLDERS:
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    dist = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(copy)]
    ran = run(command, seconds=300)
    assert ran.code == 0, ran.out[-4000:] + ran.err[-4000:]
    return Built(next(dist.glob("*.tar.gz")), next(dist.glob("*.whl")))


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that has the wheel, and borrows the rest."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin/python"
    ran = run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python),
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--no-compile",
            str(built.wheel),
        ]
    )
    assert ran.code == 0, ran.err
    # A plain path: the .pth files there, an editable engine's among them, are not obeyed.
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run([str(python), "-c", where]).out.strip())
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_sdist_holds_what_a_build_needs(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for path in (ROOT / "ext").iterdir():
        if path.suffix in (".pyx", ".pxd", ".pxi", ".h", ".c", ".py"):
            assert f"ext/{path.name}" in names
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md", "cmd/main.py"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
    assert [name for name in names if name.endswith(".c")] == ["ext/power.c"]  # none is generated


def test_wheel_holds_the_program_and_no_source(built: Built) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    for path in (ROOT / "ext").glob("*.pyx"):
        assert f"engine/kernels/{path.stem}{suffix}" in names
        assert f"engine/kernels/{path.stem}.pyi" in names
    if sys.platform == "linux":
        assert f"engine/kernels/power{suffix}" in names
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "engine").rglob("*.py")]
    commands = [f"engine_cmd/{path.name}" for path in (ROOT / "cmd").glob("*.py")]
    assert {"engine/py.typed", *modules, *commands} <= names
    folders = {name.split("/")[0] for name in names}
    listed = {"engine", "engine_cmd", "engine_datasets"}
    assert folders == listed | {f"engine-{__version__}.dist-info"}
    assert not [name for name in names if name.endswith((".pyx", ".pxi", ".pxd", ".h", ".c"))]
    assert "none-any" not in built.wheel.name


def test_installed_program_works_elsewhere(installed: Path, tmp_path: Path) -> None:
    ran = run([str(installed / "engine"), "--version"], cwd=tmp_path, env=CLEAN)
    assert (ran.code, ran.out) == (0, f"engine {__version__}\n"), ran.err
    where = (
        "import cmd, pdb, engine.kernels.words as w, engine_cmd.main as m; "
        "print(w.__file__, m.__file__)"
    )
    ran = run([str(installed / "python"), "-c", where], cwd=tmp_path, env=CLEAN)
    assert ran.code == 0, ran.err
    assert all(path.startswith(str(installed.parent)) for path in ran.out.split()), ran.out
    ran = run([str(installed / "engine"), "doctor"], cwd=tmp_path, env=CLEAN)
    assert ran.code == 0, ran.out


@pytest.mark.parametrize("on", ["inline", "local"])
def test_installed_program_counts_words(installed: Path, tmp_path: Path, on: str) -> None:
    (tmp_path / "a.txt").write_text("to be or not to be\n")
    (tmp_path / "b.txt").write_text("not to worry\n")
    command = [str(installed / "engine"), "mr", "run", "wordcount", "a.txt", "b.txt", "--out", "o"]
    command += ["--on", on, "--top", "2", "--reducers", "3"]
    ran = run(command, cwd=tmp_path, env=CLEAN)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[1:] == ["3  to", "2  be"]
    lines = [
        line
        for part in range(3)
        for line in (tmp_path / f"o/mr-out-{part}").read_text().splitlines()
    ]
    assert sorted(lines) == ["be 2", "not 2", "or 1", "to 3", "worry 1"]


def test_a_build_without_kernels_stops(tmp_path: Path) -> None:
    """A wheel without kernels would install well and then fail at its first import."""
    need("Cython", "build")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "ext").mkdir()
    ran = run([sys.executable, "setup.py", "--version"], cwd=tmp_path)
    assert ran.code == 1
    assert "No ext/*.pyx found" in ran.err
