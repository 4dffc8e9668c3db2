"""A folder of texts and its manifest, changed in whole steps.

Texts are made ready in a private folder beside, and moved in by renames; the manifest
`_source.json` comes last and says what is there: source, edition, and a digest per file. Whoever
kills the program finds the folder as it was, or a folder whose manifest does not fit, which the
next run mends. Files that no manifest mentions are never touched.

Names that begin with `_` or `.` are not input to a job, so the manifest does no harm among texts.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

from engine.errors import EngineError, UsageError

MANIFEST = "_source.json"
COUNTS = "_counts.tsv"
BLOCK = 1 << 20


def sha256(path: str) -> str:
    """The hexadecimal SHA-256 of a file. OSError."""
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: str) -> dict[str, Any] | None:
    """The folder's manifest, or None if it has none that can be read."""
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            manifest = json.load(file)
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def names_of(manifest: dict[str, Any] | None) -> set[str]:
    """The files that a manifest claims, plain names only."""
    files = (manifest or {}).get("files")
    entries = files if isinstance(files, list) else []
    names = {entry.get("name") for entry in entries if isinstance(entry, dict)}
    return {
        name
        for name in names
        if isinstance(name, str) and name == os.path.basename(name) and name not in ("", ".", "..")
    }


def strangers(folder: str, known: set[str]) -> list[str]:
    """Other files in the folder that a job would read, too."""
    try:
        present = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(name for name in present if name[0] not in "._" and name not in known)


@contextlib.contextmanager
def workspace(folder: str) -> Iterator[str]:
    """A private folder on the same file system as `folder`, gone afterwards."""
    import shutil
    import tempfile

    folder = os.path.abspath(folder)
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UsageError(f"{folder}: is not a folder; name another with --to.")
    parent = os.path.dirname(folder)
    try:
        os.makedirs(parent, exist_ok=True)
        private = tempfile.mkdtemp(prefix=".engine-data-", dir=parent)
    except OSError as error:
        raise EngineError(f"{parent}: no folder can be made here ({error.strerror}).") from error
    try:
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)


def place(private: str, folder: str, manifest: dict[str, Any]) -> None:
    """Move everything from the workspace into `folder`, the manifest last. EngineError."""
    with open(os.path.join(private, MANIFEST), "w", encoding="utf-8") as file:
        json.dump(manifest, file, ensure_ascii=False, indent=1)
        file.write("\n")
    try:
        if not os.path.isdir(folder) and _rename_whole(private, folder):
            return
        _rename_each(private, folder)
    except OSError as error:
        raise EngineError(f"{folder}: cannot be written ({error.strerror}).") from error


def _rename_whole(private: str, folder: str) -> bool:
    """False if another program made the folder in the meantime."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(private, 0o777 & ~mask)
    try:
        os.rename(private, folder)
    except OSError:
        if os.path.isdir(folder):
            return False
        raise
    return True


def _rename_each(private: str, folder: str) -> None:
    new = set(os.listdir(private))
    for name in (names_of(read_manifest(folder)) | {COUNTS}) - new:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    for name in sorted(new - {MANIFEST}):
        os.replace(os.path.join(private, name), os.path.join(folder, name))
    os.replace(os.path.join(private, MANIFEST), os.path.join(folder, MANIFEST))


def write(path: str, data: bytes) -> None:
    """A new file in a workspace. EngineError, for one when the disk is full."""
    try:
        with open(path, "xb") as file:
            file.write(data)
    except OSError as error:
        raise EngineError(f"{path}: cannot be written ({error.strerror}).") from error


def damaged(folder: str, manifest: dict[str, Any]) -> list[str]:
    """The files of a manifest that are not there, or not as it says. [""] if it says nothing."""
    files = manifest.get("files")
    if not isinstance(files, list) or len(names_of(manifest)) != len(files) or not files:
        return [""]
    return [entry["name"] for entry in files if not _fits(folder, entry)]


def _fits(folder: str, entry: dict[str, Any]) -> bool:
    path = os.path.join(folder, entry["name"])
    try:
        if os.stat(path).st_size != entry.get("bytes"):
            return False
        if "sha256" in entry:
            return bool(sha256(path) == entry["sha256"])
        return bool(crc32c_of(path) == entry.get("crc32c"))
    except OSError:
        return False


def crc32c_of(path: str) -> str:
    """The CRC32C of a file, as eight hexadecimal digits. OSError."""
    from engine.kernels.checksum import crc32c

    crc = 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            crc = crc32c(block, crc)
    return f"{crc:08x}"
