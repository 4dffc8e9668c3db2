"""How much memory a process has used."""

from __future__ import annotations


def peak_of(pid: int) -> int:
    """Largest resident memory of a process so far, in bytes; 0 if it is gone or not known here."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            for line in file.read().splitlines():
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
