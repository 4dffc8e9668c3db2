"""ZeroMQ endpoints that know who they talk to: a `Listener` (ROUTER) and who dialed it (DEALER).

A `Dialer` waits for what it wants, as a worker does; an `Outgoing` never does, for loops that have
other things to do.

Handshake, one envelope each::

    dialer    Hello(role, node, incarnation, nonce)
    listener  Challenge(nonce, proof)               with a token only; the dialer checks the proof
    dialer    Proof(proof)                          with a token only
    listener  Welcome(node, incarnation)            the header carries the link and cluster numbers
              Refused(why, text)                    instead, at any point

Over ipc the private directory is the proof. With keys (`engine.wire.curve`) CURVE has proven both
sides before the hello, and what a key may be is in a list: `engine.wire.zap` guards the listener,
`engine.wire.passport` is what a dialer has. From `Welcome` on every envelope of this dialer carries
its random link number. That number, never ZeroMQ's routing id, says who speaks: a dialer that lost
its connection and got another (with another routing id) says `Again` and is the same link.

ZeroMQ is silent about much and keeps stale messages, hence: nothing is queued for who is not
connected (IMMEDIATE, ROUTER_MANDATORY, LINGER 0), queues and frames are bounded, heartbeats find
the dead, and a monitor says when a connection went. ROUTER_HANDOVER stays off: nobody sets a
routing id, so one that collides is a stranger's, to be ignored and not obeyed.
"""

from engine.wire.dialer import Dialer
from engine.wire.listener import ASSIGNED_NODE_FIRST, Listener
from engine.wire.outgoing import Outgoing

__all__ = ["ASSIGNED_NODE_FIRST", "Dialer", "Listener", "Outgoing"]
