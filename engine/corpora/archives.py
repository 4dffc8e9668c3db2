"""The texts in an archive, read into memory: nothing in an archive decides where a file goes.

An archive that holds anything but plain files and folders with plain relative names is refused as
a whole, and so is one that is larger than texts can be.
"""

from __future__ import annotations

import io

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".zip")
MEMBERS_MAX = 4096
MEMBER_BYTES_MAX = 32 << 20
TOTAL_BYTES_MAX = 256 << 20


class UnsafeArchive(Exception):
    """The archive cannot be read, or holds what no archive of texts has."""


def is_archive(name: str) -> bool:
    """By its name."""
    return name.lower().endswith(SUFFIXES)


def read(data: bytes, name: str, folder: str = "") -> dict[str, bytes]:
    """The `.txt` files by base name: those directly in `folder`, or anywhere. UnsafeArchive."""
    import lzma
    import tarfile
    import zipfile
    import zlib

    reader = _read_zip if name.lower().endswith(".zip") else _read_tar
    texts: dict[str, bytes] = {}
    try:
        for path, body in reader(data):
            parent, _, base = path.rpartition("/")
            if base.startswith(".") or not base.endswith(".txt"):
                continue
            if folder and parent != folder:
                continue
            if base in texts:
                raise UnsafeArchive(f"{base} is in it more than once")
            texts[base] = body
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error) as error:
        raise UnsafeArchive(f"it cannot be unpacked ({error})") from error
    except (OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise UnsafeArchive(f"it cannot be unpacked ({error})") from error
    return texts


class _Bounds:
    """Checks each member before its bytes are unpacked."""

    def __init__(self) -> None:
        self.members = 0
        self.total = 0

    def check(self, path: str, size: int) -> None:
        self.members += 1
        self.total += size
        if path.startswith("/") or "\\" in path or ".." in path.split("/"):
            raise UnsafeArchive(f"{path!r} would lie outside its folder")
        if size > MEMBER_BYTES_MAX or self.total > TOTAL_BYTES_MAX or self.members > MEMBERS_MAX:
            raise UnsafeArchive(f"it is too large at {path!r}")


def _read_tar(data: bytes) -> list[tuple[str, bytes]]:
    import tarfile

    bounds, found = _Bounds(), []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            bounds.check(member.name, member.size)
            if member.isdir():
                continue
            if not member.isreg():
                raise UnsafeArchive(f"{member.name!r} is neither a file nor a folder")
            body = archive.extractfile(member)
            assert body is not None, "a regular file has bytes"
            found.append((member.name, body.read()))
    return found


def _read_zip(data: bytes) -> list[tuple[str, bytes]]:
    import stat
    import zipfile

    bounds, found = _Bounds(), []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            bounds.check(member.filename, member.file_size)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise UnsafeArchive(f"{member.filename!r} is neither a file nor a folder")
            with archive.open(member) as file:
                body = file.read(member.file_size + 1)
            if len(body) != member.file_size:
                raise UnsafeArchive(f"{member.filename!r} is not as long as it says")
            found.append((member.filename, body))
    return found
