"""`engine`, whose log is never synced and says that it was: a bug that only the power shows.

raft_unsynced.py raft serve …
"""

from __future__ import annotations

import sys
from typing import Any

from engine.storage.log import Log
from engine_cmd.main import main

begin_sync = Log.begin_sync


def begin_nothing(self: Log) -> tuple[int, Any, bool]:
    mark, _, _ = begin_sync(self)
    return mark, (), False


Log.begin_sync = begin_nothing  # type: ignore[method-assign, assignment]
sys.exit(main())
