"""One file over HTTP, with short patience and a bound on its size.

`urllib` honours the proxy variables, and OpenSSL `SSL_CERT_FILE` and `SSL_CERT_DIR`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

CONNECT_SECONDS = 3.0
READ_SECONDS = 20.0
"""Longest silence while reading, once connected."""
AGENT = "engine-data-fetch/0.1 (a few texts, one request after another)"


class Unavailable(Exception):
    """A source cannot give the texts now; the next one may be tried. The text says why."""


class Missing(Unavailable):
    """The server answers, but has no such file."""


def public(url: str) -> str:
    """The URL without user name and password, fit to be shown and kept."""
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def get(url: str, *, limit: int) -> bytes:
    """The body of `url`, at most `limit` bytes. Missing, Unavailable."""
    import http.client
    import urllib.error
    import urllib.request

    shown = public(url)
    if not url.startswith(("http://", "https://")):
        raise Unavailable(f"{shown}: only http and https addresses are read")
    request = urllib.request.Request(url, headers={"User-Agent": AGENT})
    try:
        with _opener().open(request, timeout=CONNECT_SECONDS) as response:
            body: bytes = response.read(limit + 1)
    except urllib.error.HTTPError as error:
        kind = Missing if error.code in (404, 410) else Unavailable
        raise kind(f"{shown}: HTTP status {error.code}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unavailable(f"{shown}: {reason}") from error
    if len(body) > limit:
        raise Unavailable(f"{shown}: longer than {limit:,} bytes")
    return body


def _opener() -> OpenerDirector:
    """Short patience until connected, more while reading: `urllib` itself has one for both."""
    import http.client
    import ssl
    import urllib.request

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(READ_SECONDS)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(READ_SECONDS)

    class OpenPlain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, request)

    class OpenSecure(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, request, context=ssl.create_default_context())

    return urllib.request.build_opener(OpenPlain, OpenSecure)
