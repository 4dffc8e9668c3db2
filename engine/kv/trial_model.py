"""One key of the store, for the search for an order that explains what clients saw.

The state is (value, revision that changed it last, version): (None, 0, 0) for no key, and revision
None if nobody was told what it is.

============  =================================  ===================================
kind          argument                           result
============  =================================  ===================================
get                                              the state, or None: no key
put           value                              revision
append        value                              revision
delete                                           whether there was a key
cas           (value or None, new value)         revision; None if it was not as expected
cas_revision  (revision, new value)              revision; None if it was not as expected
version       (version, new value)               revision; None if it was not as expected
============  =================================  ===================================
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from engine.verify.history import Operation

ABSENT = (None, 0, 0)


class KeyModel:
    """See above. Where a revision is not known what was answered is believed."""

    initial: Hashable = ABSENT

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]:
        sure = operation.returned is not None
        argument, result = operation.argument, operation.result if sure else None
        value, revision, version = state
        match operation.kind:
            case "put":
                return True, (argument, result, version + 1)
            case "append":
                return True, ((value or b"") + argument, result, version + 1)
            case "delete":
                return not sure or result == (value is not None), ABSENT
            case "cas":
                done = value == argument[0]
                return not sure or (result is not None) == done, _after(state, operation, done)
            case "cas_revision":
                done = argument[0] == revision
                if revision is None:
                    done = result is not None or not sure
                return not sure or (result is not None) == done, _after(state, operation, done)
            case "version":
                done = argument[0] == version
                return not sure or (result is not None) == done, _after(state, operation, done)
        if not sure:
            return True, state
        found = ABSENT if result is None else result
        same = (found[0], found[2]) == (value, version)
        return same and revision in (None, found[1]), found


def _after(state: Any, operation: Operation, done: bool) -> Any:
    if not done:
        return state
    sure = operation.returned is not None
    return operation.argument[1], operation.result if sure else None, state[2] + 1
