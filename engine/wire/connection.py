"""The dialing half of the handshake, without any waiting: what `Dialer` and `Outgoing` share.

The handshake and the rules are in `engine.wire.endpoint`.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import zmq

from engine.contract import Link
from engine.errors import ConnectionFailed, EngineError, RefusedError, UsageError
from engine.kernels.frames import Frames
from engine.wire import addresses, codec, envelope, keys
from engine.wire.codec import WireError
from engine.wire.handshake import (
    HANDSHAKE_MS,
    Again,
    Challenge,
    Hello,
    MonitoredSocket,
    Proof,
    Refused,
    Welcome,
    frame_of,
)

if TYPE_CHECKING:
    from engine.wire.passport import Passport

RECONNECT_MS, RECONNECT_MAX_MS = 4, 250
CONNECT_MS = 2_000
"""A host that was cut off is dialed again soon: the system itself would wait for longer and longer
between its tries, and find out up to a minute after it is back."""
_TCP = ((zmq.CONNECT_TIMEOUT, CONNECT_MS), (zmq.HANDSHAKE_IVL, HANDSHAKE_MS))


class Connection:
    """One DEALER socket and who we are to the listener at its other end.

    `node` -1 asks the listener for a number. `cluster` 0 accepts whichever is there. `token` is the
    path of a token file or of keys (`engine.wire.curve`), for TCP. `context` None makes one of its
    own. RefusedError or UsageError for an address that is not of this machine, without keys.
    """

    def __init__(
        self,
        address: str,
        *,
        role: str,
        node: int = -1,
        incarnation: int = 0,
        token: str | None = None,
        cluster: int = 0,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        addresses.check_dial(address, token)
        self.address, self.cluster = address, cluster
        self.link: Link | None = None
        self._hello = Hello(role, node, incarnation, os.urandom(keys.NONCE_BYTES))
        self._token: str | None = None
        self._passport: Passport | None = None
        if token is not None and address.startswith("tcp://"):
            self._prove_by(token)
        self._number = 0
        self._trusted = self._token is None
        self._ends = MonitoredSocket(
            zmq.DEALER,
            (
                (zmq.IMMEDIATE, 1),
                (zmq.RECONNECT_IVL, RECONNECT_MS),
                (zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS),
                *(_TCP if address.startswith("tcp://") else ()),
                (zmq.IPV6, int(address.startswith("tcp://["))),
            ),
            context,
            events=0 if self._passport is None else self._passport.events,
        )
        self._socket, self._frames = self._ends.socket, self._ends.frames

    def _prove_by(self, token: str) -> None:
        """By keys, if that is what it is."""
        if keys.is_keys(token):
            from engine.wire.passport import Passport  # only who has keys needs it

            self._passport = Passport(token, self.address, self._hello.role)
        else:
            self._token = keys.read_token(token)

    def pollables(self) -> tuple[Frames | int, ...]:
        """What to wait on for reading before looking again."""
        return self._ends.pollables

    @property
    def frames(self) -> Frames:
        """The one of them where messages arrive."""
        return self._frames

    def close(self, linger_ms: int = 0) -> None:
        """Leave; messages already sent get `linger_ms` to do so too."""
        if not self._socket.closed:
            self._socket.setsockopt(zmq.LINGER, linger_ms)
        self._ends.close()

    # --- for subclasses --------------------------------------------------------------------------

    def _dial(self) -> None:
        """UsageError for what is no address to ZeroMQ."""
        if self._passport is not None:
            self._passport.show(self._socket)
        try:
            self._socket.connect(self.address)
        except zmq.ZMQError as error:
            self.close()
            raise UsageError(f"{self.address!a} cannot be dialed: {error.strerror}.") from None

    def _hang_up(self) -> None:
        """Before it dials anew."""
        try:
            self._socket.disconnect(self.address)
        except zmq.ZMQError as error:
            if error.errno != errno.ENOENT:
                raise

    def _receive_now(self) -> Any:
        """The next message for the user among those that have arrived, else None."""
        while True:
            _, frames = self._frames.receive(1, 1)
            if not frames:
                if not self._frames.malformed:
                    return None
                self._frames.malformed, frames = 0, [b""]  # what has many parts is none of ours
            (frame,) = frames
            try:
                kind, cluster, number, body = envelope.unpack(frame)
                value = codec.decode(kind, body)
            except WireError as error:
                self._refused(
                    ConnectionFailed(
                        f"{self.address} sent what is no message of ours ({error}): "
                        "another version?"
                    )
                )
                continue
            if isinstance(value, Refused):
                self._refused(_refusal(value, self.address), forgotten=value.why == "link")
            elif self._number:
                if (cluster, number) == (self.cluster, self._number) and kind not in _HANDSHAKE:
                    if self._passport is None or not self._passport.forged(value):
                        return value
                    self._refused(
                        RefusedError(f"{self.address} speaks in the name of another member.")
                    )
            elif isinstance(value, Challenge) and self._token is not None:
                self._answer(value)
            elif isinstance(value, Welcome) and self._trusted:
                self._welcome(cluster, number, value)

    def _refused(self, error: EngineError, *, forgotten: bool = False) -> None:
        """The listener does not want us, or is none of ours, or has forgotten us."""
        raise error

    def _answer(self, challenge: Challenge) -> None:
        assert self._token is not None
        nonces = self._hello.nonce, challenge.nonce
        if not keys.proves(challenge.proof, keys.proof(self._token, "listener", *nonces)):
            self._refused(
                ConnectionFailed(
                    f"Whoever listens at {self.address} does not know our token: is this the "
                    "server's token file?"
                )
            )
            return
        self._trusted = True
        self._say(Proof(keys.proof(self._token, "dialer", *nonces)))

    def _welcome(self, cluster: int, number: int, welcome: Welcome) -> None:
        if self.cluster not in (0, cluster):
            self._refused(
                RefusedError(f"The server at {self.address} belongs to another job or cluster.")
            )
            return
        self.cluster, self._number = cluster, number
        self.link = Link(self._hello.role, welcome.node, welcome.incarnation)

    def _introduce(self) -> None:
        self._say(Again() if self._number else self._hello)

    def _say(self, value: Any) -> bool:
        # If the connection went in this moment the next one says it again.
        frame = frame_of(value, self.cluster, self._number)
        error = self._frames.send(None, frame, b"")
        if error not in (0, zmq.EAGAIN):
            raise zmq.ZMQError(error)
        return not error


_HANDSHAKE = frozenset(range(1, 16))


def _refusal(refused: Refused, address: str) -> EngineError:
    if refused.why == "link":
        return ConnectionFailed(f"{address}: {refused.text}")
    return RefusedError(f"{address} refused: {refused.text}")
