"""Invented prose of any size, whose counts are known before anybody counts.

The generator keeps a tally per word as it writes, so `_counts.tsv` and the digests in the manifest
come from what was *written*, never from reading it again: they can judge a word counter. See
`engine.corpora.prose` for the statistics, `ext/corpus.pyx` for the loop.

The same arguments give the same bytes, on any platform and with any buffer size. A text is exactly
as long as asked; files end with a line break, after a whole word and, where a word no longer fits,
a line of dashes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.corpora import folder, prose
from engine.errors import EngineError, UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from io import FileIO

BUFFER = 4 << 20
FILE_BYTES = 64 << 20
"""Default size of one file: 1 GiB is 16 files, enough to keep any laptop's cores busy."""
FILE_BYTES_MIN = 64
SIZE_MAX = 1 << 44
WORDS_MAX = 1 << 28
LINES_AT_ONCE = 1 << 16

Progress = Callable[[str], None]


class Counts(NamedTuple):
    """What the generator knows: different forms, and SHA-256 of the sorted lines `word count`."""

    distinct: int
    sha256: str


class Generated(NamedTuple):
    """`exact` tells The from the, `folded` does not. `already`: it was there, nothing was done."""

    to: str
    files: list[dict[str, Any]]
    size: int
    words: int
    exact: Counts
    folded: Counts
    seconds: float
    already: bool


def parse_size(text: str) -> int:
    """Bytes of "64M", "1G", "4096": suffixes K, M, G, T are powers of 1024. UsageError."""
    number, suffix = text.strip(), ""
    if number[-1:].isalpha():
        number, suffix = number[:-1], number[-1:].upper()
    if suffix not in ("", "K", "M", "G", "T") or not number.isascii() or not number.isdigit():
        raise UsageError(f"{text!r} is not a size; write bytes, or 64M, 1G (powers of 1024).")
    return int(number) << 10 * ("KMGT".index(suffix) + 1 if suffix else 0)


def generate(
    to: str,
    size: int,
    seed: int = 1,
    *,
    preset: str = "natural",
    script: str = "latin",
    distinct: int | None = None,
    files: int | None = None,
    exponent: str | None = None,
    shift: str | None = None,
    beta: str | None = None,
    progress: Progress | None = None,
) -> Generated:
    """Write `size` bytes of text into the folder `to`, with its manifest and `_counts.tsv`.

    `distinct` is the number of different words, capitals aside; `exponent` and `shift` are those of
    Zipf–Mandelbrot, `beta` that of Heaps, as decimal numbers. What is left out comes from the
    preset. A folder that already holds exactly this is left alone. UsageError, EngineError.
    """
    arguments = _arguments(size, seed, preset, script, distinct, files, exponent, shift, beta)
    known = _already(to, arguments)
    if known is not None:
        return known
    return _write(to, arguments, progress or (lambda _: None))


def _arguments(
    size: int,
    seed: int,
    preset: str,
    script: str,
    distinct: int | None,
    files: int | None,
    exponent: str | None,
    shift: str | None,
    beta: str | None,
) -> dict[str, Any]:
    """Every default filled in: what the text depends on, and nothing else."""
    _check_names(preset, script)
    chosen = prose.PRESETS[preset]
    count = max(1, size // FILE_BYTES) if files is None else files
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"Seed {seed} is not in 0 … 2^64 - 1.")
    if count < 1 or not FILE_BYTES_MIN * count <= size <= SIZE_MAX:
        raise UsageError(
            f"{size} bytes in {count} files: a file has {FILE_BYTES_MIN} bytes or more, "
            f"and the whole at most {SIZE_MAX >> 40} TiB."
        )
    room = min(count * (size // count // prose.TOKEN_BYTES_MAX), WORDS_MAX)
    words = min(prose.vocabulary_of(chosen, size), room) if distinct is None else distinct
    if not 1 <= words <= room:
        raise UsageError(f"{words} different words do not fit {size} bytes: ask for 1 to {room}.")
    return {
        "generator": 1,
        "size": size,
        "seed": seed,
        "preset": preset,
        "script": script,
        "distinct": words,
        "files": count,
        "exponent": _decimal("exponent", exponent or chosen.exponent, 0, 4),
        "shift": _decimal("shift", shift or chosen.shift, 0, 1000),
        "beta": _decimal("beta", beta or chosen.beta, 0, 1),
    }


def _check_names(preset: str, script: str) -> None:
    for name, what, known in (
        (preset, "preset", prose.PRESETS),
        (script, "script", prose.SCRIPTS),
    ):
        if name not in known:
            raise UsageError(f"There is no {what} {name!r}; there are {', '.join(known)}.")


def _decimal(name: str, text: str, low: int, high: int) -> str:
    from decimal import Decimal, InvalidOperation

    try:
        if low <= Decimal(text) <= high:
            return str(Decimal(text).normalize())
    except InvalidOperation:
        pass
    raise UsageError(f"{name} {text!r} is not a number from {low} to {high}.")


def _already(to: str, arguments: dict[str, Any]) -> Generated | None:
    """What the folder holds, if that is what would be made. Judged by the manifest and sizes."""
    manifest = folder.read_manifest(to)
    if manifest is None or manifest.get("arguments") != arguments:
        return None
    try:
        for entry in manifest["files"]:
            if os.stat(os.path.join(to, entry["name"])).st_size != entry["bytes"]:
                return None
        exact, folded = Counts(**manifest["exact"]), Counts(**manifest["folded"])
        words = int(manifest["words"])
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return Generated(to, manifest["files"], arguments["size"], words, exact, folded, 0.0, True)


def _write(to: str, arguments: dict[str, Any], progress: Progress) -> Generated:
    import time

    begun = time.monotonic()
    with folder.workspace(to) as private:
        _check_space(private, arguments["size"])
        progress(f"inventing {arguments['distinct']:,} words")
        generator = make_generator(arguments)
        try:
            files = _write_files(private, arguments, generator, progress)
            progress("sorting what is known")
            exact = _write_counts(os.path.join(private, folder.COUNTS), generator)
        except OSError as error:
            raise EngineError(f"{to}: cannot be written ({error.strerror}).") from error
        folded = _digest_counts(generator) if _capitals(arguments) else exact
        manifest = {
            "source": "generator",
            "arguments": arguments,
            "words": generator.written,
            "exact": exact._asdict(),
            "folded": folded._asdict(),
            "files": files,
        }
        folder.place(private, to, manifest)
    seconds = time.monotonic() - begun
    size, words = arguments["size"], generator.written
    return Generated(to, files, size, words, exact, folded, seconds, False)


def _check_space(private: str, size: int) -> None:
    status = os.statvfs(private)
    free = status.f_bavail * status.f_frsize
    if free < size:
        raise EngineError(
            f"{size:,} bytes do not fit: {os.path.dirname(private)} has {free:,} free."
        )


def _capitals(arguments: dict[str, Any]) -> bool:
    """Whether sentences begin with a capital."""
    preset, script = prose.PRESETS[arguments["preset"]], prose.SCRIPTS[arguments["script"]]
    return preset.capitals and script.capitals


def make_generator(arguments: dict[str, Any]) -> Any:
    """The kernel's generator for these arguments (as `generate` fills them in). UsageError."""
    from engine.kernels.corpus import Generator

    preset, script = prose.PRESETS[arguments["preset"]], prose.SCRIPTS[arguments["script"]]
    small = script.small + script.accents
    words, size = arguments["distinct"], arguments["size"]
    try:
        return Generator(
            arguments["seed"],
            letters=[(letter.encode(), letter.upper().encode()) for letter in small],
            draw=prose.draws(script),
            accents=bytes(range(len(script.small), len(small))),
            accented=8,  # of 256: about 3 % of the words
            lengths=prose.lengths(preset, script),
            slots=prose.slots(words, arguments["exponent"], arguments["shift"]),
            growth=prose.growth(words, size, arguments["beta"]),
            separators=prose.separators(script),
            line=script.line,
            capitals=_capitals(arguments),
        )
    except OverflowError as error:
        raise UsageError(f"{error}; ask for fewer with --distinct.") from error
    except MemoryError as error:
        raise EngineError(f"{words:,} different words do not fit in memory.") from error


def _write_files(
    private: str, arguments: dict[str, Any], generator: Any, progress: Progress
) -> list[dict[str, Any]]:
    """One thread writes what the other has just drawn: both are outside the interpreter's lock."""
    from concurrent.futures import ThreadPoolExecutor

    size, count = arguments["size"], arguments["files"]
    buffers = (bytearray(BUFFER), bytearray(BUFFER))
    digits = len(str(count))
    files = []
    with ThreadPoolExecutor(max_workers=1) as writer:
        for number in range(count):
            length = size * (number + 1) // count - size * number // count
            name = f"{arguments['preset']}-{number + 1:0{digits}}.txt"
            generator.begin(length)
            crc = _write_file(os.path.join(private, name), generator, buffers, writer)
            files.append({"name": name, "bytes": length, "crc32c": f"{crc:08x}"})
            progress(f"{name}: {length:,} bytes")
    assert generator.vocabulary == arguments["distinct"], "every word was to be shown"
    return files


def _write_file(
    path: str, generator: Any, buffers: tuple[bytearray, bytearray], writer: Executor
) -> int:
    """The CRC32C of the file. OSError."""
    crc, turn = 0, 0
    with open(path, "wb", buffering=0) as file:
        writing = None
        while filled := generator.fill(buffers[turn]):
            if writing is not None:
                crc = writing.result()
            writing = writer.submit(_append, file, memoryview(buffers[turn])[:filled], crc)
            turn = 1 - turn
        return writing.result() if writing is not None else crc


def _append(file: FileIO, data: memoryview, crc: int) -> int:
    from engine.kernels.checksum import crc32c

    done = 0
    while done < len(data):
        done += file.write(data[done:])
    return crc32c(data, crc)


def _write_counts(path: str, generator: Any) -> Counts:
    import hashlib

    digest = hashlib.sha256()
    with open(path, "wb") as file:
        forms = generator.sort()
        for first in range(0, forms, LINES_AT_ONCE):
            lines = generator.lines(first, min(first + LINES_AT_ONCE, forms))
            digest.update(lines)
            file.write(lines)
    return Counts(forms, digest.hexdigest())


def _digest_counts(generator: Any) -> Counts:
    """Of the counts with capitals folded."""
    import hashlib

    digest = hashlib.sha256()
    forms = generator.sort(folded=True)
    for first in range(0, forms, LINES_AT_ONCE):
        digest.update(generator.lines(first, min(first + LINES_AT_ONCE, forms), folded=True))
    return Counts(forms, digest.hexdigest())
