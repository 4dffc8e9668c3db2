"""Is there an order in which one copy would have given these answers? (`ext/linear.pyx`)

Wing and Gong's depth-first search ("Testing and Verifying Concurrent Objects", 1993) with Lowe's
memory of configurations ("Testing for linearizability", 2017), for one key. GIL released, but for
models in Python.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

# --- kinds of steps: (kind, a, b), where states are numbers --------------------------------------

READ: int
"""Right in state a."""
WRITE: int
"""Always right; the state is b then."""
SWAP: int
"""Right in state a; it is b then."""
UNLESS: int
"""Right in every state but a."""
MAYBE: int
"""Always right; state a becomes b, every other stays."""
APPEND: int
"""Always right; text number a of `texts` is appended, as `Tree.after` says."""
PUT: int
"""States are version << 32 | value from here on, 0 is "no key". Right at version a; then b."""
PUT_STALE: int
"""Right where there is a key, of another version than a."""
PUT_MAYBE: int
"""Always right; version a becomes state b, everything else stays."""

RIGHT: str
WRONG: str
UNDECIDED: str

Found = tuple[str, int, int, str, list[list[int]], dict[int, int]]
"""(verdict, operations tried, configurations remembered, which bound, orders, longest).

RIGHT has one order, which explains everything. WRONG has, if it was to be explained, an order for
each operation that is the longest legal one it is in, each once, and `longest`, operation -> which.
UNDECIDED has none; the bound is "tries", "configurations" or "seconds".
"""

class Tree:
    """All beginnings of some texts; 0 is the empty one. Texts that begin none are one state."""

    def __init__(self, texts: Iterable[bytes]) -> None: ...
    def after(self, state: int, text: bytes) -> int:
        """The state after `text` is appended to the one at `state`; ValueError if there is none."""

def search(
    called: list[int],
    returned: Sequence[int | None],
    steps: list[tuple[int, int, int]],
    *,
    initial: int = 0,
    tree: Tree | None = None,
    texts: list[bytes] | None = None,
    tries: int | None = None,
    configurations: int | None = None,
    seconds: float | None = None,
    explain: bool = False,
) -> Found:
    """Search by a table: operation i was called at `called[i]`, returned at `returned[i]`, and is
    `steps[i]`. `returned[i]` None is an unknown outcome: at any time after the call, or never; it
    is in an order only where it changes the state. At equal times, calls come before returns.

    `tries`, `configurations` (each takes 24 bytes or more) and `seconds` are bounds. ValueError for
    arguments that make no sense, MemoryError.
    """

def search_calling(
    called: list[int],
    returned: Sequence[int | None],
    step: Callable[[int, Any], tuple[bool, Hashable]],
    initial: Hashable,
    *,
    tries: int | None = None,
    configurations: int | None = None,
    seconds: float | None = None,
    explain: bool = False,
) -> Found:
    """The same search where `step(i, state)` says whether operation i is right, and the state then.

    What `step` raises ends the search and is raised here.
    """
