"""What an installation from source cannot do without, told before anything is installed.

Run with the Python that is to hold the virtual environment; one sentence, or nothing.
"""

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec

OLDEST_PYTHON = (3, 11)


def missing() -> str:
    """The first thing that is missing, and what to do; "" if nothing is."""
    if sys.platform == "win32":
        return "it needs POSIX processes, signals and ipc sockets: use Linux, macOS or WSL 2."
    if sys.version_info[:2] < OLDEST_PYTHON:
        found = sys.version.split()[0]
        return f"it needs Python 3.11 or later, not {found}: make PYTHON=python3.12 …"
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        return "Python's venv is missing: on Debian and Ubuntu, apt install python3-venv."
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    if not os.path.exists(header):
        return f"{header} is missing: on Debian and Ubuntu, apt install python3-dev."
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"the C compiler {compiler} is missing: apt install gcc, or set CC to yours."
    return ""


if __name__ == "__main__" and (what := missing()):
    sys.exit(f"engine cannot be built here: {what}")
