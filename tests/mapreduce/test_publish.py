"""The output directory: whose it may be, and that publishing can be cut anywhere and repeated."""

from __future__ import annotations

import json
import shutil

import pytest

from engine.errors import RefusedError
from engine.kernels.checksum import crc32c
from engine.mapreduce.messages import OutputAccepted, Publish
from engine.mapreduce.publish import OutputDirectory, read_manifest


class Cut(Exception):
    pass


def nothing(name: str) -> None:
    pass


def parts(output: OutputDirectory, texts: list[bytes]) -> Publish:
    accepted = []
    for number, text in enumerate(texts):
        path = f"{output.parts_path}/part-{number}"
        with open(path, "wb") as file:
            file.write(text)
        accepted.append(OutputAccepted(number, path, len(text), crc32c(text), 1, 1))
    return Publish(tuple(accepted), (("bytes", 3),))


def published(path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name.startswith("mr-out")}


def complete(path, texts: list[bytes]) -> None:
    output = OutputDirectory(str(path))
    assert output.occupy(force=path.exists(), resume=False) == "fresh"
    assert output.publish(parts(output, texts), {"app": "x"}, nothing) == ()
    output.release()


def test_a_job_appears_whole_and_leaves_nothing_else(tmp_path):
    out = tmp_path / "out"
    complete(out, [b"a 1\n", b"b 2\n"])
    assert published(out) == {"mr-out-0": b"a 1\n", "mr-out-1": b"b 2\n"}
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "mr-out-0", "mr-out-1"]
    manifest = read_manifest(str(out))
    assert manifest is not None
    assert manifest["files"][1]["crc32c"] == f"{crc32c(b'b 2' + bytes([10])):08x}"


def test_what_is_not_ours_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(RefusedError, match="not empty and holds no manifest of ours"):
            OutputDirectory(str(tmp_path)).occupy(force=force, resume=False)
    (tmp_path / "manifest.json").write_text('{"format": "somebody else"}')
    with pytest.raises(RefusedError):
        OutputDirectory(str(tmp_path)).occupy(force=True, resume=False)
    with pytest.raises(RefusedError, match="not a directory"):
        OutputDirectory(str(tmp_path / "thesis.txt")).occupy(force=True, resume=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "thesis.txt"]


def test_finished_output_wants_force(tmp_path):
    out = tmp_path / "out"
    complete(out, [b"a 1\n", b"b 2\n", b"c 3\n"])
    with pytest.raises(RefusedError, match="--force"):
        OutputDirectory(str(out)).occupy(force=False, resume=False)
    (out / "notes.txt").write_text("beside")
    complete(out, [b"d 4\n"])
    assert published(out) == {"mr-out-0": b"d 4\n"}
    assert (out / "notes.txt").read_text() == "beside"


def test_old_output_stands_until_the_new_one_is_complete(tmp_path):
    out = tmp_path / "out"
    complete(out, [b"old 1\n"])
    output = OutputDirectory(str(out))
    output.occupy(force=True, resume=False)
    parts(output, [b"new 1\n"])
    assert published(out) == {"mr-out-0": b"old 1\n"}
    output.release()
    assert published(out) == {"mr-out-0": b"old 1\n"}
    assert read_manifest(str(out)) is not None


def test_a_running_job_is_not_replaced(tmp_path):
    first = OutputDirectory(str(tmp_path / "out"))
    first.occupy(force=False, resume=False)
    with open(first.journal_path, "w"):
        pass
    with pytest.raises(RefusedError):
        OutputDirectory(first.path).occupy(force=True, resume=False)
    first.release()
    assert not (tmp_path / "out").exists()


def test_a_killed_job_wants_resume_or_force(tmp_path):
    out = tmp_path / "out"
    (out / ".job").mkdir(parents=True)
    (out / ".job" / "journal").write_text("")
    with pytest.raises(RefusedError, match="--resume"):
        OutputDirectory(str(out)).occupy(force=False, resume=False)
    resumed = OutputDirectory(str(out))
    assert resumed.occupy(force=False, resume=True) == "resume"
    resumed.release(keep=True)
    assert (out / ".job" / "journal").exists()
    assert OutputDirectory(str(out)).occupy(force=True, resume=False) == "fresh"


def test_publishing_cut_anywhere_and_repeated(tmp_path):
    texts = [b"a 1\n", b"b 2\n", b"c 3\n"]
    cuts = 0
    while True:
        out = tmp_path / "out"
        complete(out, [b"old 1\n"] * 5)
        output = OutputDirectory(str(out))
        output.occupy(force=True, resume=False)
        work = parts(output, texts)
        seen = 0

        def point(name: str, cut: int = cuts) -> None:
            nonlocal seen
            seen += 1
            if seen == cut:
                raise Cut

        try:
            output.publish(work, {}, point)
        except Cut:
            manifest = read_manifest(str(out))
            whole = manifest is None or len(manifest["files"]) == len(published(out))
            assert whole, "a manifest stands beside outputs of two jobs"
            assert output.publish(work, {}, nothing) == ()
        output.release()
        assert list(published(out).values()) == texts or set(published(out).values()) == set(texts)
        assert len(json.loads((out / "manifest.json").read_text())["files"]) == 3
        shutil.rmtree(out)
        if cuts > seen:
            break
        cuts += 1
    assert cuts > 6


def test_lost_and_damaged_parts_are_named_and_nothing_is_renamed(tmp_path):
    output = OutputDirectory(str(tmp_path / "out"))
    output.occupy(force=False, resume=False)
    work = parts(output, [b"a 1\n", b"b 2\n", b"c 3\n"])
    with open(work.parts[1].path, "r+b") as file:
        file.write(b"B")
    shutil.move(work.parts[2].path, tmp_path / "elsewhere")
    assert output.publish(work, {}, nothing) == (1, 2)
    assert published(tmp_path / "out") == {}
    output.release()


def test_a_publication_that_was_cut_is_torn_until_it_is_repeated(tmp_path):
    output = OutputDirectory(str(tmp_path / "out"))
    output.occupy(force=False, resume=False)
    work = parts(output, [b"a 1\n", b"b 2\n"])

    def cut(name: str) -> None:
        if name == "publish renamed":
            raise Cut

    with pytest.raises(Cut):
        output.publish(work, {}, cut)
    assert output.torn
    assert output.publish(work, {}, nothing) == ()
    assert not output.torn
    output.release()


def test_parts_that_vanish_while_publishing_never_get_a_manifest(tmp_path):
    out = tmp_path / "out"
    complete(out, [b"old 1\n", b"old 2\n"])
    output = OutputDirectory(str(out))
    output.occupy(force=True, resume=False)
    work = parts(output, [b"new 1\n", b"new 2\n"])

    def vanish(name: str) -> None:
        if name == "publish synced":
            shutil.rmtree(output.parts_path)

    with pytest.raises(FileNotFoundError):
        output.publish(work, {}, vanish)
    assert read_manifest(str(out)) is None
    assert output.torn


def test_halves_of_a_killed_publication_can_be_started_over(tmp_path):
    out = tmp_path / "out"
    (out / ".job").mkdir(parents=True)
    (out / ".job" / "journal").write_text("")
    (out / "mr-out-0").write_text("half")
    output = OutputDirectory(str(out))
    assert output.occupy(force=True, resume=False) == "fresh"
    output.release()
    assert list(out.iterdir()) == []
    assert OutputDirectory(str(out)).occupy(force=False, resume=False) == "fresh"


def test_a_lock_whose_file_was_removed_is_not_held(tmp_path):
    from engine.storage.files import DirectoryLock

    first = DirectoryLock(str(tmp_path))
    assert first.current()
    (tmp_path / "lock").unlink()
    assert not first.current()
    second = DirectoryLock(str(tmp_path))
    assert second.current()
    assert not first.current()
    first.close()
    second.close()
