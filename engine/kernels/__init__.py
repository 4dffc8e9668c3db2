"""Compiled loops: `ext/x.pyx` is `engine.kernels.x`, `cmd/x.py` is `engine_cmd.x`.

Each has a `.pyi` here and a slow, obvious oracle in `tests/kernels/`.
"""

import importlib.machinery
import os

if not any(
    name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
    for name in os.listdir(os.path.dirname(__file__))
):
    raise ImportError(
        "engine's compiled kernels are missing from "
        f"{os.path.dirname(__file__)}: this is the source tree, not an installation. "
        "Run `make kernels` here, or run from another directory to use the installed package."
    )
