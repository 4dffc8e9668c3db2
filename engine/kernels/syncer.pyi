"""A thread that makes writes durable, and never takes the GIL (`ext/syncer.pyx`)."""

class Syncer:
    """Syncs files for tickets, in a thread that starts with the first of them.

    Syncing takes from a tenth of a millisecond to a second. Whatever is submitted while one round
    runs is covered by the next: under load a group of any size costs one. The thread is not one of
    Python's, since that would wait for the GIL before it can say that it is done.

    A failed sync is final. The kernel may have dropped the dirty pages, so that a second try would
    succeed without having written them: `durable` raises, and the process must end.
    """

    def __init__(self) -> None: ...
    def pollables(self) -> tuple[int]:
        """A descriptor that is readable when `durable` has news."""

    def submit(self, ticket: int, files: tuple[int, ...], folder: int = -1) -> None:
        """Sync these descriptors, then the folder if there is one; `ticket` is durable after it.

        Tickets only grow (ValueError). The descriptors stay open until then.
        """

    def durable(self) -> int:
        """The highest durable ticket, 0 before the first. OSError if a sync failed."""

    def close(self) -> None:
        """Finish what was submitted and stop. A second call does nothing."""
