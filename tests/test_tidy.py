"""Rules of the house that no linter knows, each with a sample that shows that it bites.

A `Rule` is about one file: where it holds, what it finds, a bad sample. Size and the purity of
machines follow below; rules about the tree are in `test_layout.py`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator

import pytest
from tidy import FOLDERS, Found, Rule, Source, called, everywhere, imports, python, sources

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 450
TOO_LONG: dict[str, int] = {}
"""Files, and functions as `path:name`, that are longer, with their length. They may only shrink."""
UPWARD = {
    # A job file that is run by itself is a user of the command line.
    ("engine/mapreduce/__init__.py", "engine_cmd.main"),
    # The store speaks to the view service, and its trial runs that.
    ("engine/backup/client.py", "engine.views.messages"),
    ("engine/backup/machine.py", "engine.views.messages"),
    ("engine/backup/trial.py", "engine.views"),
    ("engine/backup/trial_bugs.py", "engine.views.machine"),
    ("engine/backup/trial_bugs.py", "engine.views.messages"),
}


# --- imports -------------------------------------------------------------------------------------

LAYERS = {
    "engine": 0,
    "engine.errors": 0,
    "engine.record": 0,
    "engine.kernels": 0,
    "engine.contract": 1,
    "engine.sessions": 1,
    "engine.calls": 2,
    "engine.relay": 2,
    "engine.wire": 2,
    "engine.wire.codec": 1,
    "engine.wire.envelope": 1,
    "engine.wire.fields": 1,
    "engine.storage": 2,
    "engine.verify": 2,
    "engine.runtime": 3,
    "engine.sim": 3,
    "engine.raft": 4,
    "engine.kv": 5,
    "engine.mapreduce": 6,
    "engine.locks": 6,
    "engine.views": 6,
    "engine.backup": 6,
    "engine.redis": 6,
    "engine.faults": 7,
    "engine.corpora": 7,
    "engine.web": 7,
    "engine_cmd": 8,
}


def layer(module: str) -> tuple[int, str]:
    """(layer, package) of a module; the layer is that of its longest known prefix."""
    name = module
    while name not in LAYERS:
        name, dot, _ = name.rpartition(".")
        if not dot:
            raise AssertionError(f"{module} has no layer: give it one in {__file__}")
    if name == "engine" and module != "engine":
        raise AssertionError(f"{module} has no layer: give it one in {__file__}")
    package = "engine_cmd" if name == "engine_cmd" else ".".join(module.split(".")[:2])
    return LAYERS[name], package


def targets(module: str, names: tuple[str, ...]) -> list[str]:
    """What `from module import names` imports: each name that has a layer of its own, or module."""
    submodules = [f"{module}.{name}" for name in names if f"{module}.{name}" in LAYERS]
    return submodules + ([module] if len(submodules) < max(len(names), 1) else [])


def upward_imports(source: Source) -> Found:
    own, package = layer(source.module)
    for line, module, names in imports(source):
        if module.startswith("."):
            yield line, "relative import: name the module from its root"
        if module.split(".")[0] not in ("engine", "engine_cmd"):
            continue
        for target in targets(module, names):
            theirs, other = layer(target)
            upward = theirs > own or (theirs == own and package != other and own > 0)
            if upward and (source.path, target) not in UPWARD:
                yield line, f"layer {own} imports {target} of layer {theirs}"


def is_trial(path: str) -> bool:
    """`trial.py` of a service, and the `trial_*.py` that it is made of."""
    return re.search(r"/trial(_\w+)?\.py$", path) is not None


def simulator_outside_trials(source: Source) -> Found:
    """Production never imports the simulator; a trial does, and only `cmd` and tests import it.
    The tools that attack real processes share its model of bad weather."""
    if is_trial(source.path) or source.path.startswith("engine/faults/"):
        return
    for line, module, names in imports(source):
        full = {module, *(f"{module}.{name}" for name in names)}
        for name in full:
            if re.match(r"engine\.sim\b", name) and not source.path.startswith("engine/sim/"):
                yield line, "only a trial imports engine.sim"
            if re.search(r"\.trial(_\w+)?(\.|$)", name):
                yield line, "only cmd and tests import a trial"


ASYNC_FACE = "aio.py"
"""A client for programs that are on asyncio already."""
UNWANTED = {"asyncio", "pickle", "shelve", "marshal", "cloudpickle", "dill"}


def unwanted_modules(source: Source) -> Found:
    for line, module, _ in imports(source):
        if module == "asyncio" and source.path.endswith(ASYNC_FACE):
            continue
        if module.split(".")[0] in UNWANTED:
            yield line, f"{module}: servers are plain loops, and bytes from others are never code"


SLOW = {"asyncio", "dataclasses", "logging", "pathlib", "psutil", "subprocess", "argparse"}


def slow_imports(source: Source) -> Found:
    """A small job is over in 100 ms; each of these takes 5 to 40 of them to import."""
    top_level = {node.lineno for node in source.tree().body}
    for line, module, _ in imports(source):
        if module == "asyncio" and source.path.endswith(ASYNC_FACE):
            continue
        if line in top_level and module.split(".")[0] in SLOW:
            yield line, f"{module} is slow to import: do it where it is used"


# --- one file ------------------------------------------------------------------------------------


def swallowed_exceptions(source: Source) -> Found:
    for node in ast.walk(source.tree()):
        if not isinstance(node, ast.ExceptHandler):
            continue
        wide = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
        silent = all(
            isinstance(statement, ast.Pass | ast.Continue)
            or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            for statement in node.body
        )
        if node.type is None or (wide and silent):
            yield node.lineno, "catches everything and says nothing"


def shells(source: Source) -> Found:
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            yield node.value.lineno, "shell=: give the program and its arguments as a list"
        if isinstance(node, ast.Call) and called(node) in ("os.system", "os.popen"):
            yield node.lineno, f"{called(node)} starts a shell"


def syncs(source: Source) -> Found:
    for node in ast.walk(source.tree()):
        name = getattr(node, "attr", None) or getattr(node, "id", None)
        if name in ("fsync", "fdatasync", "F_FULLFSYNC"):
            yield node.lineno, f"{name}: what is durable is decided in engine/storage"


def sleeps(source: Source) -> Found:
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.Call) and called(node).split(".")[-1] == "sleep":
            yield node.lineno, "sleeping is not synchronisation: wait for what you wait for"


def missing_docstring(source: Source) -> Found:
    if source.text.strip() and ast.get_docstring(source.tree()) is None:
        yield 1, "a module opens with what it is for"


def finder(pattern: str, why: str) -> Callable[[Source], Found]:
    """A rule that a regular expression finds, line by line."""

    def find(source: Source) -> Found:
        for number, line in enumerate(source.text.splitlines(), 1):
            if found := re.search(pattern, line):
                yield number, f"{found[0]!r}: {why}"

    return find


def not_storage(path: str) -> bool:
    return python("engine")(path) and not path.startswith("engine/storage/")


BESIDE = ("engine/sim/", "engine/corpora/", "engine/faults/", "engine/verify/")


def product(path: str) -> bool:
    """What a worker or a coordinator imports."""
    beside = path.startswith(BESIDE) or is_trial(path)
    return python("engine")(path) and not beside


def bad(path: str, text: str) -> Source:
    return Source(path, text)


RULES = [
    Rule(
        "imports run downwards",
        python("engine", "cmd"),
        upward_imports,
        bad("engine/wire/codec.py", "def f():\n    from engine.wire import endpoint\n"),
    ),
    Rule(
        "the simulator stays in trials",
        python("engine"),
        simulator_outside_trials,
        bad("engine/mapreduce/server.py", "from engine import sim\n"),
    ),
    Rule(
        "no pickle, no asyncio",
        python("engine"),
        unwanted_modules,
        bad("engine/wire/codec.py", "def f():\n    import pickle\n"),
    ),
    Rule(
        "slow modules are imported late",
        product,
        slow_imports,
        bad("engine/mapreduce/client.py", "from pathlib import Path\n"),
    ),
    Rule(
        "no exception is swallowed",
        python(*FOLDERS),
        swallowed_exceptions,
        bad("engine/x.py", "try:\n    f()\nexcept Exception:\n    pass\n"),
    ),
    Rule("no shell", python(*FOLDERS), shells, bad("cmd/x.py", "run('ls', shell=True)\n")),
    Rule(
        "only storage syncs",
        not_storage,
        syncs,
        bad("engine/mapreduce/x.py", "import os\nos.fdatasync(3)\n"),
    ),
    Rule("no sleep", product, sleeps, bad("engine/x.py", "import time\ntime.sleep(1)\n")),
    Rule(
        "modules say what they are", python(*FOLDERS), missing_docstring, bad("cmd/x.py", "a = 1")
    ),
    Rule(
        "nothing is left over",
        everywhere,
        finder(r"\b(FIXME|TODO|XXX|xfail)\b", "do it, or say in the docs that it is not there"),
        bad("docs/x.md", "It works (TODO: test).\n"),
    ),
    Rule(
        "no path of one machine",
        everywhere,
        finder(r"(?<![\w.$}>*])/(work|root|home)/", "nobody else has it"),
        bad("Makefile", "PY = /root/venv/bin/python\n"),
    ),
    Rule(
        "no fixed port",
        lambda path: python("engine", "cmd", "tests")(path) and "addresses" not in path,
        finder(
            r"(localhost|127\.0\.0\.1|\]):[0-9]{2,5}\b", "somebody else may have it: use 0 or *"
        ),
        bad("tests/x.py", 'ADDRESS = "tcp://127.0.0.1:5555"\n'),
    ),
]


def offences(rule: Rule, files: Iterable[Source]) -> list[str]:
    return [
        f"{source.path}:{line}: {what}"
        for source in files
        if rule.where(source.path) and everywhere(source.path)
        for line, what in rule.find(source)
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name.replace(" ", "-"))
def test_rule_holds(rule: Rule) -> None:
    found = offences(rule, sources())
    assert not found, f"{rule.name}:\n" + "\n".join(found)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name.replace(" ", "-"))
def test_rule_bites(rule: Rule) -> None:
    assert list(rule.find(rule.bad)), rule.bad.text


# --- size ----------------------------------------------------------------------------------------


def sizes(source: Source) -> Iterator[tuple[str, int, int]]:
    """(what, lines, limit) of a file and of its functions."""
    if not (source.path.startswith("tests/") or re.match(r"\W*generated", source.text.lower())):
        yield source.path, source.text.count("\n"), FILE_LINES_MAX
    if source.path.endswith(".py"):
        for node in ast.walk(source.tree()):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield f"{source.path}:{node.name}", lines, FUNCTION_LINES_MAX
    elif source.path.endswith(".pyx"):
        for name, lines in kernel_functions(source.text.splitlines()):
            yield f"{source.path}:{name}", lines, FUNCTION_LINES_MAX


def kernel_functions(lines: list[str]) -> Iterator[tuple[str, int]]:
    """(name, lines) of each `def`, `cdef` and `cpdef` function, by indentation."""
    for begin, line in enumerate(lines):
        found = re.match(r"(\s*)(?:def|cdef|cpdef)\b[^=(]*?(\w+)\(", line)
        if not found:
            continue
        last = begin
        for index in range(begin + 1, len(lines)):
            text = lines[index]
            inside = text.startswith((found[1] + " ", found[1] + ")")) or not text.strip()
            if not inside:
                break
            last = index if text.strip() else last
        yield found[2], last - begin + 1


CODE = (".py", ".pyx", ".pxd", ".h")


def too_long(files: Iterable[Source], known: dict[str, int]) -> list[str]:
    """What is over its limit and not known to be, or has grown; and exceptions that are stale."""
    measured = [size for source in files if source.path.endswith(CODE) for size in sizes(source)]
    over = {what: lines for what, lines, limit in measured if lines > limit}
    grown = [
        f"{what} has {lines} lines" for what, lines in over.items() if lines > known.get(what, 0)
    ]
    stale = [f"{what} is no exception any more: take it out" for what in known.keys() - over.keys()]
    return grown + stale


def test_nothing_grows_too_long() -> None:
    found = too_long(sources(), TOO_LONG)
    assert not found, "\n".join(found)


def test_the_size_ratchet_bites() -> None:
    long = Source("engine/x.py", "def f():\n" + "    a()\n" * 70)
    assert too_long([long], {}) == ["engine/x.py:f has 71 lines"]
    assert too_long([long], {"engine/x.py:f": 70}) == ["engine/x.py:f has 71 lines"]
    assert not too_long([long], {"engine/x.py:f": 71})
    short = Source("engine/x.py", "def f():\n" + "    a()\n" * 69)
    assert too_long([short], {"engine/x.py:f": 71})
    kernel = Source("ext/x.pyx", "cdef int f(\n    int a,\n) noexcept:\n" + "    a()\n\n" * 40)
    assert too_long([kernel], {}) == ["ext/x.pyx:f has 82 lines"]
    assert too_long([Source("ext/x.h", "\n" * 451)], {}) == ["ext/x.h has 451 lines"]


# --- machines are pure ---------------------------------------------------------------------------

IMPURE_MODULES = re.compile(
    "asyncio|concurrent|datetime|fcntl|io|logging|mmap|multiprocessing|os|pathlib|psutil|queue|"
    "resource|secrets|select|selectors|shutil|signal|socket|ssl|subprocess|sys|tempfile|threading|"
    "time|uuid|zmq"
)
IMPURE_CALLS = {"open", "print", "input", "hash", "id", "eval", "exec"}
"""The world, or something that differs from process to process, as hashes of strings do."""


def impurities(source: Source) -> Found:
    for line, module, names in imports(source, typing_too=False):
        if IMPURE_MODULES.fullmatch(module.split(".")[0]):
            yield line, f"imports {module}"
        if module == "random" and set(names) - {"Random"}:
            yield line, "takes functions of the global random"
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.Call):
            name = called(node)
            if name in IMPURE_CALLS or name.startswith("random.") or name == "Random":
                yield node.lineno, f"calls {name}(): time, chance and bytes are handed to a machine"


def reached(start: str, files: dict[str, Source]) -> list[Source]:
    """The engine's modules that `start` imports, however far; kernels are compiled and left out."""
    seen: dict[str, Source] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in files or name.startswith("engine.kernels"):
            continue
        seen[name] = files[name]
        for _, module, names in imports(files[name], typing_too=False):
            waiting += [module, *(f"{module}.{n}" for n in names)]
    return list(seen.values())


def impure_machines(files: Iterable[Source]) -> list[str]:
    by_module = {s.module: s for s in files if python("engine")(s.path)}
    return [
        f"{start}: {source.path}:{line} {what}"
        for start in by_module
        if start.endswith(".machine")
        for source in reached(start, by_module)
        for line, what in impurities(source)
    ]


def test_machines_are_pure() -> None:
    found = impure_machines(sources())
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "from os import path",
        "from random import choice",
        "import random; random.random()",
        "import random; random.Random(1)",
        "hash('a')",
        "def f():\n    import socket",
    ],
)
def test_machine_purity_bites(line: str) -> None:
    machine = Source("engine/x/machine.py", "from engine.x import helper\n")
    annotated = "import random\n\ndef f(rng: random.Random): return rng.random()\n"
    assert not impure_machines([machine, Source("engine/x/helper.py", annotated)])
    assert impure_machines([machine, Source("engine/x/helper.py", line + "\n")])
