"""The catalogue of texts, read from `datasets/catalogue.toml`.

`datasets/README.md` explains its fields. In an installation the folder is the namespace package
`engine_datasets`, as `cmd/` is `engine_cmd`; in a source tree it is a neighbour of `engine/`.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

FILE = "catalogue.toml"


class Digest(NamedTuple):
    """One text in one edition. `sha256` is that of the bytes put in place, which are UTF-8;
    where the source publishes another `encoding`, `published` is the digest of its bytes."""

    bytes: int
    sha256: str
    encoding: str = "utf-8"
    published: str = ""


class Text(NamedTuple):
    """A book. `opening` are phrases of its first page, `ebook` its number at Project Gutenberg."""

    set: str
    name: str
    title: str
    author: str
    licence: str
    ebook: int
    opening: tuple[str, ...]
    digests: dict[str, Digest]


class Edition(NamedTuple):
    """One form in which a whole set is published. `exact`: every text's digest is known."""

    name: str
    set: str
    about: str
    exact: bool
    urls: tuple[str, ...]
    package: str
    package_version: str
    integrity: str
    folder: str


class Catalogue(NamedTuple):
    texts: tuple[Text, ...]
    editions: dict[str, Edition]

    def of_set(self, name: str) -> dict[str, Text]:
        """The texts of a set by file name."""
        return {text.name: text for text in self.texts if text.set == name}

    def exact_editions(self) -> list[Edition]:
        return [edition for edition in self.editions.values() if edition.exact]


def find() -> str:
    """Where the catalogue lies. FileNotFoundError if the installation lacks it."""
    import importlib.util

    spec = importlib.util.find_spec("engine_datasets")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    here = os.path.dirname(os.path.abspath(__file__))
    folders.append(os.path.join(os.path.dirname(os.path.dirname(here)), "datasets"))
    for folder in folders:
        if os.path.isfile(os.path.join(folder, FILE)):
            return os.path.join(folder, FILE)
    raise FileNotFoundError(f"{FILE} is in none of {', '.join(folders)}: install engine again.")


def load(path: str | None = None) -> Catalogue:
    """The catalogue, by default the one that came with the engine."""
    import tomllib

    with open(path or find(), "rb") as file:
        data = tomllib.load(file)
    assert data["version"] == 1, f"catalogue version {data['version']}"
    editions = {name: _edition(name, entry) for name, entry in data["editions"].items()}
    return Catalogue(tuple(_text(entry, editions) for entry in data["texts"]), editions)


def _edition(name: str, entry: dict[str, Any]) -> Edition:
    return Edition(
        name=name,
        set=entry["set"],
        about=entry["about"],
        exact=entry["digests"] == "exact",
        urls=tuple(entry.get("urls", ())),
        package=entry.get("package", ""),
        package_version=entry.get("package_version", ""),
        integrity=entry.get("integrity", ""),
        folder=entry.get("folder", ""),
    )


def _text(entry: dict[str, Any], editions: dict[str, Edition]) -> Text:
    digests = {
        name: Digest(
            entry[name]["bytes"],
            entry[name]["sha256"],
            entry[name].get("encoding", "utf-8"),
            entry[name].get("published_sha256", ""),
        )
        for name in editions
        if name in entry
    }
    return Text(
        set=entry["set"],
        name=entry["name"],
        title=entry["title"],
        author=entry["author"],
        licence=entry["licence"],
        ebook=entry.get("ebook", 0),
        opening=tuple(entry.get("opening", ())),
        digests=digests,
    )
