"""Memory as it is seen from outside."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.runtime.samples import peak_of


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_peak_stays_when_the_memory_is_gone() -> None:
    code = "x = bytearray(80 << 20); del x; print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 80 << 20 < peak_of(process.pid) < 200 << 20
        process.kill()
    assert peak_of(process.pid) == 0
