"""The secret that guards a TCP port on loopback: a token file, and proofs of knowing it.

A port on loopback is open to every user of the machine, unlike an ipc socket in a private
directory. So whoever opens one writes 32 random bytes as hex into a file that only its owner can
read, and who dials in must know them. The token itself never crosses: each side proves it by an
HMAC-SHA256 over both sides' nonces and its own role, so that a proof cannot be replayed or
reflected (the handshake is in `engine.wire.endpoint`).
"""

from __future__ import annotations

import os
import stat

from engine.errors import NotFoundError, RefusedError

TOKEN_BYTES = 32
NONCE_BYTES = 16


def is_keys(path: str) -> bool:
    """Whether it names a folder of keys (`engine.wire.curve`), or one key in it by FOLDER/NAME;
    else it is a token file."""
    return os.path.isdir(path) or os.path.isfile(f"{path}.secret")


def make_token(path: str) -> str:
    """Write a new token to `path` (mode 0600, never over an existing file); the token as hex."""
    token = os.urandom(TOKEN_BYTES).hex()
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise RefusedError(
            f"{path} exists: a token is never overwritten; remove the file or name another."
        ) from None
    try:
        os.fchmod(fd, 0o600)
        os.write(fd, token.encode() + b"\n")
    finally:
        os.close(fd)
    return token


def read_token(path: str) -> str:
    """The token in `path`, as hex. RefusedError if others could have read or written the file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(f"There is no token file {path}: name the server's own.") from None
    except OSError as error:
        raise RefusedError(f"The token file {path} cannot be read: {error.strerror}.") from None
    try:
        status = os.fstat(fd)
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    if status.st_uid != os.geteuid():
        raise RefusedError(f"The token file {path} belongs to another user, so it is not trusted.")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RefusedError(f"The token file {path} is open to other users: run chmod 600 {path}.")
    return _checked(text, path)


def _checked(text: bytes, path: str) -> str:
    try:
        token = text.decode("ascii").strip()
        if len(bytes.fromhex(token)) == TOKEN_BYTES:
            return token
    except ValueError:
        pass
    raise RefusedError(f"{path} does not hold a token of {2 * TOKEN_BYTES} hex digits.")


def proof(token: str, who: str, dialer_nonce: bytes, listener_nonce: bytes) -> bytes:
    """What only one that knows the token can say. `who` is "dialer" or "listener"."""
    import hmac  # 3 ms, and only TCP needs it

    said = who.encode() + b"\0" + dialer_nonce + listener_nonce
    return hmac.digest(bytes.fromhex(token), said, "sha256")


def proves(given: bytes, expected: bytes) -> bool:
    """Compare two proofs in constant time."""
    import hmac

    return hmac.compare_digest(given, expected)
