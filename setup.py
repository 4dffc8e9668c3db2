"""Build the kernels: `ext/x.pyx` is `engine.kernels.x`, `cmd/x.py` is `engine_cmd.x`.

`ext/power.c` is no kernel, and nobody imports it: `engine.faults.power` preloads it into programs
under test. It is built beside the kernels, where Linux is; elsewhere it would not work.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

if sys.platform == "win32":
    sys.exit("engine needs POSIX processes, signals and ipc sockets: use Linux, macOS or WSL 2.")

sources = sorted(Path("ext").glob("*.pyx"))
if not sources:
    sys.exit("No ext/*.pyx found: a build without kernels would be broken (see MANIFEST.in).")

extensions = [
    Extension(
        f"engine.kernels.{path.stem}",
        [str(path)],
        depends=sorted(map(str, Path("ext").glob("*.h"))),
        include_dirs=["ext"],
        # Debug information would be seven eighths of the wheel.
        extra_compile_args=["-O3", "-g0", "-fno-strict-aliasing"],
    )
    for path in sources
]
if not {"sdist", "egg_info", "dist_info"} & set(sys.argv):  # they need no C, and it takes a while
    extensions = cythonize(
        extensions,
        build_dir="build/cython",
        include_path=["ext"],
        compiler_directives={"language_level": "3"},
    )

if sys.platform == "linux":
    preloaded = Extension(
        "engine.kernels.power",
        ["ext/power.c"],
        depends=sorted(map(str, Path("ext").glob("power*.h"))),
        extra_compile_args=["-O2", "-g0", "-fvisibility=hidden", "-U_FORTIFY_SOURCE"],
        libraries=["dl", "pthread"],
    )
    extensions.append(preloaded)

setup(ext_modules=extensions, options={"build_ext": {"parallel": os.cpu_count()}})
