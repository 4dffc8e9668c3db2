"""`engine`, but with a planted bug, or smaller messages: the program of some labs' servers.

raft_planted.py raft serve … [--plant BUG] [--entries-max N]
"""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from raft_bugs import CORE_BUGS, PROCESS_BUGS

from engine.raft.machine import Raft
from engine.sim.planting import Patch
from engine_cmd.main import main


def taken(flag: str) -> str:
    """The value of a flag that is ours, which the program is not to see."""
    if flag not in sys.argv:
        return ""
    at = sys.argv.index(flag)
    value = sys.argv[at + 1]
    del sys.argv[at : at + 2]
    return value


def in_messages_of(entries_max: int) -> Patch:
    """So many entries in one message."""

    def make(original: Any) -> Any:
        def begin(self: Raft, settings: Any, *rest: Any) -> None:
            original(self, settings._replace(entries_max=entries_max), *rest)

        return begin

    return Patch(Raft, "__init__", make)


bug, entries = taken("--plant"), taken("--entries-max")
patches = (CORE_BUGS | PROCESS_BUGS)[bug] if bug else ()
for patch in (*patches, *((in_messages_of(int(entries)),) if entries else ())):
    setattr(patch.owner, patch.name, patch.make(patch.owner.__dict__[patch.name]))
sys.exit(main())
