"""What may happen to a message of a link, for real links as for simulated ones.

A link has two directions: requests come from the dialer, replies from the listener. A fate is the
delays after which copies of a message are delivered; an empty one means that it is lost. Different
delays mean that messages overtake each other.

Pure: chance is handed in, so equal generators give equal fates. What cannot happen draws nothing.
"""

from __future__ import annotations

from random import Random

from engine.contract import Nanos
from engine.record import Record
from engine.sim.timeline import MILLISECOND

Span = tuple[Nanos, Nanos]
Fates = tuple[Nanos, ...]


class Weather(Record):
    """Rates per message (0 to 1), and delays drawn evenly from (low, high)."""

    request_loss: float = 0.0
    reply_loss: float = 0.0
    request_duplicate: float = 0.0
    """Of the requests that are not lost."""
    reply_duplicate: float = 0.0
    request_delay: Span = (0, 0)
    reply_delay: Span = (0, 0)
    hold_chance: float = 0.0
    """Of the replies (of each copy) that are held long enough for many others to overtake."""
    hold: Span = (0, 0)
    """(least, spread): least + up to (up to spread), both even: most are short, a few are long."""

    def request_fates(self, rng: Random) -> Fates:
        """What happens to the next request."""
        if _chance(rng, self.request_loss):
            return ()
        copies = 1 + _chance(rng, self.request_duplicate)
        return tuple([_even(rng, self.request_delay) for _ in range(copies)])

    def reply_fates(self, rng: Random) -> Fates:
        """What happens to the next reply."""
        if _chance(rng, self.reply_loss):
            return ()
        copies = 1 + _chance(rng, self.reply_duplicate)
        return tuple([_even(rng, self.reply_delay) + self._held(rng) for _ in range(copies)])

    def reordering(self) -> Weather:
        """This weather, and replies held as labrpc's long reordering holds them.

        With probability 2/3 (600 of 900) by 200 + rand(0..rand(0..1999)) ms.
        """
        return self._replace(hold_chance=2 / 3, hold=(200 * MILLISECOND, 1999 * MILLISECOND))

    def _held(self, rng: Random) -> Nanos:
        if not _chance(rng, self.hold_chance):
            return 0
        least, spread = self.hold
        return least + rng.randint(0, rng.randint(0, spread))


def _chance(rng: Random, probability: float) -> bool:
    return probability > 0 and rng.random() < probability


def _even(rng: Random, span: Span) -> Nanos:
    low, high = span
    return low if low == high else rng.randint(low, high)


CALM = Weather()
"""Nothing happens."""

LABRPC_UNRELIABLE = Weather(request_loss=0.1, reply_loss=0.1, request_delay=(0, 26 * MILLISECOND))
"""MIT's labrpc of 2021, unreliable: a request waits 0 to 26 ms and is lost in 100 of 1000 cases;
a reply is lost in 100 of 1000. There the caller learns of a loss; here nobody does."""

LABRPC_REORDERING = LABRPC_UNRELIABLE.reordering()
"""The same with long reordering: two replies of three come 0.2 to 2.2 s late."""

LABS_2012 = Weather(request_loss=0.1, reply_loss=0.2)
"""The servers of MIT's labs of 2012, unreliable: 100 of 1000 requests are discarded unread, and of
those carried out the replies of 200 of 1000: 10 % and 18 % of all calls."""
