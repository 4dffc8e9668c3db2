"""The program `engine`: find the verb, run it, and turn what went wrong into a sentence.

Nothing is imported before the verb is known, and then only what that verb needs: bare Python is
up in 10 ms, and `engine --version` should not take much longer. The verbs parse flags, call the
engine and print; results go to stdout, progress and warnings to stderr.

Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 cannot connect, 5 timeout, 6 refused, 130
interrupted (`engine.errors` has the classes). With `--json` an error is one object on stdout,
`{"error": sentence, "exit_code": code, "detail": text}`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # `typing` takes 3 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from engine.errors import EngineError

VERBS = {
    "mr": "run MapReduce jobs: run, sequential, coordinator, worker, apps",
    "data": "fetch the texts of the catalogue, or generate some",
    "lock": "locks on a primary and a backup: serve, acquire, release",
    "view": "who serves: serve, get",
    "pb": "a store on a primary and a backup: serve, get, put, append",
    "raft": "a replicated log: init, serve, submit, look, status, metrics, members, lead",
    "kv": "a replicated store: up, down, get, put, delete, cas, range, watch, lease, status, …",
    "keys": "who may speak to servers beyond this machine: new, allow, revoke, list",
    "sim": "run a service in the simulator: engine sim mapreduce --seed 7",
    "chaos": "kill, cut and fill the replicas of a store, and judge it: engine chaos --dir DIR",
    "verify": "judge a history, or traces: engine verify HISTORY --model register",
    "doctor": "check this installation and machine",
}

EXAMPLES = """\
examples:
  engine data fetch --to texts
  engine mr run wordcount texts --out out --top 10
  engine mr run my_job.py books/*.txt --out out --workers 4
  engine doctor

`engine VERB --help` tells more; `--json` gives results and errors as one JSON object.
"""

BROKEN_PIPE = 128 + 13
INTERRUPTED = 128 + 2


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. Called without arguments it is the console script:
    it takes `sys.argv` and ends the process at once, without tearing the interpreter down."""
    if argv is not None:
        return run(argv)
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no bug
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    leave(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """The exit code of one command line; never raises for what a user or a peer can cause."""
    try:
        if sys.platform == "win32":
            from engine.errors import RefusedError

            raise RefusedError(
                "Windows has no fork, POSIX signals or ipc sockets: use Linux, macOS or WSL 2."
            )
        code = dispatch(argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as end:
        return getattr(end, "exit_code", INTERRUPTED)
    except BrokenPipeError:  # `engine … | head`: the reader has seen enough
        return BROKEN_PIPE
    except SystemExit as end:  # argparse's way to say that it has printed the help
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        return failed(error, as_json="--json" in argv)


def dispatch(argv: list[str]) -> int:
    """Call the verb's own `main` with the rest of the line."""
    verb, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if verb in ("--version", "-V", "version"):
        from engine import __version__

        print(f"engine {__version__}")
        return 0
    if verb in ("--help", "-h", "help"):
        print(help_text(), end="")
        return 0 if argv else 2
    return verb_main(verb)(rest)


def verb_main(verb: str) -> Callable[[list[str]], int]:
    """`main` of the module that a verb is named after, imported here and not before."""
    if verb not in VERBS:
        from engine.errors import UsageError

        raise UsageError(f"There is no `engine {verb}`: {suggestion(verb, VERBS)}.")
    from importlib import import_module

    main: Callable[[list[str]], int] = import_module(f"engine_cmd.{verb}").main
    return main


def help_text() -> str:
    """What `engine --help` prints."""
    verbs = "".join(f"  {verb:<10}{summary}\n" for verb, summary in VERBS.items())
    return f"usage: engine VERB …\n       engine --version\n\nverbs:\n{verbs}\n{EXAMPLES}"


def suggestion(word: str, known: dict[str, str]) -> str:
    """What a mistyped word may have meant, or the list of those there are."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"perhaps you mean `{close[0]}`" if close else f"there is {', '.join(known)}"


def failed(error: BaseException, as_json: bool) -> int:
    """Tell what went wrong, in the way that was asked for; the exit code."""
    from engine.errors import EngineError

    if not isinstance(error, EngineError):
        return bug(error, as_json)
    tell(error, as_json)
    return error.exit_code


def tell(error: EngineError, as_json: bool) -> None:
    """One sentence on stderr, or one JSON object on stdout; before it what is known beyond it,
    such as the traceback of a job's own code."""
    sentence = str(error) or type(error).__name__
    detail = "\n".join(getattr(error, "__notes__", ()))
    if as_json:
        try:
            print_json({"error": sentence, "exit_code": error.exit_code, "detail": detail})
            return
        except BrokenPipeError:
            pass  # whoever started a server has read that it serves, and no further
    if detail:
        print(detail.rstrip("\n"), file=sys.stderr)
    print(f"engine: {sentence}", file=sys.stderr)


def bug(error: BaseException, as_json: bool) -> int:
    """Anything that is not an operating error is ours to repair, so show all of it."""
    import traceback

    from engine import __version__

    traceback.print_exception(error)
    print(
        f"engine: this is a bug in engine {__version__} (or in a job's own code, if the last "
        "lines above are there); please report it with the lines above.",
        file=sys.stderr,
    )
    if as_json:
        print_json({"error": f"bug: {error!r}", "exit_code": 1, "detail": ""})
    return 1


def print_json(found: dict[str, object]) -> None:
    """One object on one line of stdout."""
    import json

    print(json.dumps(found, ensure_ascii=False), flush=True)


def leave(code: int) -> NoReturn:
    """Flush and end the process: freeing a million objects one by one helps nobody.

    Verbs have joined their processes and removed their files before they return; nothing here
    relies on `atexit`.
    """
    import os

    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the reader left, or the stream was closed at start
            code = code or BROKEN_PIPE
    os._exit(code)


if __name__ == "__main__":
    main()
