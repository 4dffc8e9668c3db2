"""`engine lock`, `engine view` and `engine pb` as a user has them: processes, output, exit codes.

Servers and the clients of the stories are processes of their own; tables of errors are gone through
in this process, where a command takes a millisecond.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness import Program, programs
from support import Ran, engine, patience
from waiting import eventually

from engine.faults.control import Proxy
from engine_cmd import main as program

pytestmark = pytest.mark.processes

TCP = "tcp://127.0.0.1:*"
SHORTLY = ("--timeout", str(patience(0.8)))
"""For a request that will not be answered, but must reach its server."""
ELSEWHERE = "tcp://192.0.2.1:9"
"""An address for documentation (RFC 5737): never this machine's."""


class Served(NamedTuple):
    """A server that has said that it serves, and where."""

    program: Program
    address: str


Serve = Callable[..., Served]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's own shell says is not ours to use."""
    monkeypatch.delenv("ENGINE_CLUSTER", raising=False)


@pytest.fixture
def serve(tmp_path: Path, folder: Path) -> Iterator[Serve]:
    """`serve("lock", …)` runs `engine lock serve … --json` until the test is over.

    It listens in `folder` unless told otherwise: the private folder of a server that is killed, as
    they all are in the end, would stay.
    """
    with programs(tmp_path) as start:
        numbers = itertools.count(1)

        def started(family: str, *flags: str) -> Served:
            if "--listen" not in flags:
                flags = (*flags, "--listen", f"ipc://{folder}/{next(numbers)}")
            server = start(family, "serve", *flags, "--json")
            eventually(lambda: server.stdout().endswith("\n") or not server.running, 20, "a server")
            assert server.running, server.stdout() + server.stderr()
            said = server.json()
            assert said == {"address": said["address"], "pid": server.pid}
            return Served(server, said["address"])

        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For sockets and tokens; nobody else can enter it."""
    made = tmp_path / "run"
    made.mkdir(mode=0o700)
    return made


def fed(text: str, *arguments: str) -> Ran:
    """`engine …` with this on its stdin."""
    ended = subprocess.run(
        [sys.executable, "-m", "engine_cmd.main", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr)


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """The same in this process, with nothing on its stdin."""
    capsys.readouterr()
    code = program.main(list(arguments))
    return Ran(code, *capsys.readouterr())


def fails(capsys: pytest.CaptureFixture[str], code: int, word: str, *line: str) -> None:
    """One sentence on stderr, or with `--json` one object on stdout; and nothing else."""
    ran = called(capsys, *line)
    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.startswith("engine: ")
    assert ran.err.count("\n") == 1, ran.err
    assert word in ran.err
    fails_as_json(capsys, code, word, *line)


def fails_as_json(capsys: pytest.CaptureFixture[str], code: int, word: str, *line: str) -> None:
    """The second half, for errors that take their time."""
    ran = called(capsys, *line, "--json")
    assert (ran.code, ran.err) == (code, ""), ran
    told = json.loads(ran.out)
    assert told == {"error": told["error"], "exit_code": code, "detail": ""}
    assert word in told["error"]


# --- stories -------------------------------------------------------------------------------------


def test_locks(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a lock, find it taken, free it, find it free; in words and as JSON."""
    backup = serve("lock", "--backup")
    primary = serve("lock", "--primary", "--peer", backup.address)
    monkeypatch.setenv("ENGINE_CLUSTER", f"{primary.address},{backup.address}")
    story = [
        ("acquire", 0, "printer: acquired\n", {"acquired": True}),
        ("acquire", 3, "printer: held already\n", {"acquired": False}),
        ("release", 0, "printer: released\n", {"released": True}),
        ("release", 3, "printer: free already\n", {"released": False}),
    ]
    for verb, code, words, _ in story:
        assert engine("lock", verb, "printer") == (code, words, "")
    for verb, code, _, told in story:
        ran = engine("lock", verb, "printer", "--json")
        assert (ran.code, ran.err) == (code, "")
        assert json.loads(ran.out) == {"name": "printer", **told, "error": None}
    assert engine("lock", "acquire", "ключ ß").code == 0
    assert engine("lock", "acquire", "ключ ß", "--cluster", primary.address).code == 3


def test_views_and_a_store(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store comes up server by server, and keeps what it was told when its primary dies."""
    views = serve("view")
    monkeypatch.setenv("ENGINE_CLUSTER", views.address)
    assert engine("view", "get") == (0, "view 0: primary nobody, backup nobody\n", "")
    first = serve("pb", "--cluster", views.address)
    assert engine("pb", "put", "greeting", "hello") == (0, "", "")
    assert engine("view", "get") == (0, f"view 1: primary {first.address}, backup nobody\n", "")
    second = serve("pb", "--cluster", views.address)
    eventually(lambda: view(views.address)["backup"] == second.address, 10, "a backup")
    assert engine("pb", "append", "greeting", " world", "--json").out == (
        '{"key": "greeting", "error": null}\n'
    )
    # What was answered after the second server joined, it has.
    first.program.kill()
    assert engine("pb", "get", "greeting") == (0, "hello world\n", "")
    found = view(views.address)
    assert (found["primary"], found["backup"], found["error"]) == (second.address, "", None)
    assert found["number"] >= 3


def view(address: str) -> dict[str, Any]:
    ran = engine("view", "get", "--cluster", address, "--json")
    assert ran.code == 0, ran
    told: dict[str, Any] = json.loads(ran.out)
    return told


def test_values(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the line or from stdin, whatever is in them; and no value at all."""
    views = serve("view")
    serve("pb", "--cluster", views.address)
    monkeypatch.setenv("ENGINE_CLUSTER", views.address)
    text = "zwei Zeilen,\nüber \N{SNOWMAN}\n"
    assert fed(text, "pb", "put", "k", "-") == (0, "", "")
    assert engine("pb", "get", "k") == (0, text + "\n", "")
    assert fed("mehr", "pb", "append", "k", "-").code == 0
    assert json.loads(engine("pb", "get", "k", "--json").out) == {
        "key": "k", "value": text + "mehr", "error": None,
    }  # fmt: skip
    assert engine("pb", "put", "k", "").code == 0
    assert engine("pb", "get", "k") == (0, "\n", "")
    ran = engine("pb", "get", "nothing")
    assert (ran.code, ran.out) == (3, "")
    assert "no key 'nothing'" in ran.err
    ran = engine("pb", "get", "nothing", "--json")
    assert (ran.code, ran.err) == (3, "")
    assert json.loads(ran.out) == {"key": "nothing", "value": None, "error": None}


def test_store_is_found_by_engine_cluster(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of the store looks for the view service where its clients do."""
    views = serve("view")
    monkeypatch.setenv("ENGINE_CLUSTER", views.address)
    server = serve("pb")
    eventually(lambda: view(views.address)["primary"] == server.address, 10, "a primary")


# --- servers -------------------------------------------------------------------------------------

SERVERS = {
    "lock": ("lock", "--primary"),
    "view": ("view",),
    "pb": ("pb", "--cluster", "ipc:///nobody/there"),
}


@pytest.mark.parametrize("name", SERVERS)
def test_server_says_where_it_serves(name: str, tmp_path: Path, folder: Path) -> None:
    """Without `--json` it is a sentence on stderr."""
    family, *flags = SERVERS[name]
    address = f"ipc://{folder}/s"
    with programs(tmp_path) as start:
        server = start(family, "serve", *flags, "--listen", address)
        eventually(lambda: server.stderr().endswith("\n"), 20, "its sentence")
        assert server.stderr().startswith("engine: ")
        assert server.stderr().endswith(f" at {address}\n")
        assert server.stdout() == ""


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_signal_ends_a_server(serve: Serve, name: str, number: signal.Signals) -> None:
    """It says nothing, ends with 0, and removes the folder that it has made."""
    family, *flags = SERVERS[name]
    server, address = serve(family, *flags, "--listen", "ipc://*")
    private = os.path.dirname(address.removeprefix("ipc://"))
    assert stat.S_IMODE(os.stat(private).st_mode) == 0o700
    server.process.send_signal(number)
    assert server.wait() == 0
    assert server.stderr() == ""
    assert not os.path.exists(private)


def test_ended_server_leaves_no_socket(serve: Serve, folder: Path) -> None:
    """Nor does it leave anything in a folder of the user's."""
    servers = [serve(family, *flags).program for family, *flags in SERVERS.values()]
    assert len(os.listdir(folder)) == len(servers)
    for server in servers:
        server.process.terminate()
    assert [server.wait() for server in servers] == [0, 0, 0]
    assert os.listdir(folder) == []


def test_one_server_for_one_address(
    serve: Serve, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second one is refused, and the first serves on; what a killed one left bars nobody."""
    address = f"ipc://{folder}/s"
    first = serve("lock", "--primary", "--listen", address)
    for name in SERVERS:
        family, *flags = SERVERS[name]
        fails(capsys, 6, "listens at", family, "serve", *flags, "--listen", address)
    assert called(capsys, "lock", "acquire", "a", "--cluster", address).code == 0
    first.program.kill()
    serve("lock", "--primary", "--listen", address)
    assert called(capsys, "lock", "acquire", "a", "--cluster", address).code == 0


# --- tokens --------------------------------------------------------------------------------------


def test_token_is_made_and_needed(
    serve: Serve, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On loopback TCP: the first server writes the token, everybody else reads it."""
    token = folder / "token"
    views = serve("view", "--listen", TCP, "--token", str(token))
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    written = token.read_text()
    assert views.address.startswith("tcp://127.0.0.1:")
    there = ("--cluster", views.address)
    mine = (*there, "--token", str(token))
    for _ in range(2):
        serve("pb", *mine, "--listen", TCP)
    assert token.read_text() == written
    eventually(lambda: json.loads(called(capsys, "view", "get", *mine, "--json").out)["backup"])
    assert called(capsys, "pb", "put", "k", "v", *mine) == (0, "", "")
    assert called(capsys, "pb", "get", "k", *mine) == (0, "v\n", "")
    fails(capsys, 6, "token", "pb", "get", "k", *there)
    fails(capsys, 3, "no token file", "pb", "get", "k", *there, "--token", f"{token}-none")
    token.chmod(0o644)
    fails(capsys, 6, "chmod 600", "pb", "get", "k", *mine)
    fails(capsys, 6, "chmod 600", "view", "serve", "--listen", TCP, "--token", str(token))


def test_locks_over_tcp(serve: Serve, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Primary, backup and client with one token."""
    token = ("--token", str(folder / "token"))
    backup = serve("lock", "--backup", "--listen", TCP, *token)
    primary = serve("lock", "--primary", "--peer", backup.address, "--listen", TCP, *token)
    there = ("--cluster", f"{primary.address},{backup.address}", *token)
    assert called(capsys, "lock", "acquire", "a", *there).code == 0
    assert called(capsys, "lock", "acquire", "a", *there).code == 3


def test_wrong_token(serve: Serve, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told at once, and not by silence until the timeout.

    Whether the client or the server has the wrong one, nobody can say: both 4 and 6 are true.
    """
    address = serve("lock", "--primary", "--listen", TCP, "--token", str(folder / "ours")).address
    serve("view", "--listen", TCP, "--token", str(folder / "theirs"))
    wrong = ("--cluster", address, "--token", str(folder / "theirs"), "--timeout", "3")
    ran = called(capsys, "lock", "acquire", "a", *wrong)
    assert ran.code in (4, 6), ran
    assert "token" in ran.err, ran.err
    right = ("--cluster", address, "--token", str(folder / "ours"))
    assert called(capsys, "lock", "acquire", "a", *right).code == 0, "it was taken without a token"


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("lock acquire a", "PRIMARY,BACKUP"),
        ("lock release", "NAME"),
        ("lock acquire a --cluster ipc:///x,ipc:///y,ipc:///z", "PRIMARY[,BACKUP]"),
        (f"lock acquire {'a' * 513} --cluster ipc:///x", "512"),
        ("lock serve", "--primary"),
        ("lock serve --primary --backup", "--backup"),
        ("lock serve --backup --peer ipc:///x", "--peer"),
        ("lock serve --primary --listen ipc:///nobody/there/s", "/nobody/there/s"),
        ("lock serve --primary --listen ipc://", "0 bytes"),
        ("lock take a", "acquire"),
        ("view get", "VIEWS"),
        ("view get extra --cluster ipc:///x", "extra"),
        ("view get --cluster ipc:///x --timeout 0", "'0'"),
        ("view get --cluster ipc:///x --timeout soon", "'soon'"),
        ("view get --cluster ipc:///x --via nonsense", "ADDRESS=WAY"),
        ("pb serve", "VIEWS"),
        ("pb get k", "VIEWS"),
        ("pb put k --cluster ipc:///x", "VALUE"),
        (f"pb get {'k' * 513} --cluster ipc:///x", "512"),
        (f"pb put k {'v' * (2**20 + 1)} --cluster ipc:///x", "1,048,576"),
        ("pb delete k", "append"),
    ],
    ids=lambda text: text[:40],
)
def test_misuse(capsys: pytest.CaptureFixture[str], line: str, word: str) -> None:
    """Told before anything is asked: 2."""
    fails(capsys, 2, word, *line.split())


def test_empty_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A lock must be called something."""
    fails(capsys, 2, "name", "lock", "acquire", "", "--cluster", "ipc:///x")


@pytest.mark.parametrize("family", ["lock", "view", "pb"])
def test_verbs_are_listed(capsys: pytest.CaptureFixture[str], family: str) -> None:
    """A family alone is misuse, but a helpful one."""
    alone, asked = called(capsys, family), called(capsys, family, "--help")
    assert (alone.code, asked.code) == (2, 0)
    assert alone.out == asked.out != ""
    assert "examples:" in asked.out


@pytest.mark.parametrize("line", ["lock acquire a", "lock release a", "view get", "pb put k v"])
def test_nobody_there(capsys: pytest.CaptureFixture[str], folder: Path, line: str) -> None:
    """Nothing was done: 4."""
    there = ("--cluster", f"ipc://{folder}/s", "--timeout", "0.2")
    fails(capsys, 4, f"{folder}/s", *line.split(), *there)


def test_nobody_is_primary(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """The view service is there, but no server of the store: 4 as well."""
    there = ("--cluster", serve("view").address, "--timeout", "0.2")
    fails(capsys, 4, "no primary", "pb", "put", "k", "v", *there)


def test_unknown_outcome_of_a_lock(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """The request arrives, its answer does not: 5. It had been done."""
    there = ("--cluster", serve("lock", "--primary").address)
    with Proxy() as proxy:
        way = proxy.link("client", "primary", there[1])
        proxy.swallow("client", "primary", hide=600)
        line = ("lock", "acquire", "a", *there, "--via", f"{there[1]}={way}", *SHORTLY)
        fails_as_json(capsys, 5, "may have been done", *line)
    assert called(capsys, "lock", "acquire", "a", *there).code == 3


def test_unknown_outcome_of_a_put(
    serve: Serve, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The primary has the request and cannot reach its backup, which the view service can: 5."""
    there = ("--cluster", serve("view").address)
    backup = f"ipc://{folder}/backup"
    serve("pb", *there, "--via", f"{backup}=ipc://{folder}/nowhere")
    eventually(lambda: view(there[1])["primary"], 10, "a primary")
    assert called(capsys, "pb", "put", "k", "alone", *there).code == 0
    serve("pb", *there, "--listen", backup)
    line = ("pb", "put", "k", "v", *there, *SHORTLY)
    # Until it hears of its backup it rightly serves alone.
    eventually(lambda: called(capsys, *line).code == 5, 10, "a primary that waits")
    fails_as_json(capsys, 5, "may have been done", *line)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (f"lock acquire a --cluster {ELSEWHERE} --token t", "loopback"),
        (f"view get --cluster {ELSEWHERE} --token t", "loopback"),
        (f"pb get k --cluster {ELSEWHERE} --token t", "loopback"),
        ("lock serve --primary --listen tcp://0.0.0.0:* --token t", "loopback"),
        ("view serve --listen tcp://0.0.0.0:* --token t", "loopback"),
        ("view serve --listen udp://somewhere", "loopback"),
        (f"view serve --listen {TCP}", "token"),
    ],
)
def test_refused_addresses(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any, tmp_path: Path, line: str, word: str
) -> None:
    """No byte of ours leaves the machine, and no port opens without a token: 6."""
    monkeypatch.chdir(tmp_path)
    fails(capsys, 6, word, *line.split())


def test_folder_open_to_others(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    """Others could give orders there: 6."""
    folder.chmod(0o755)
    for name in SERVERS:
        family, *flags = SERVERS[name]
        line = (family, "serve", *flags, "--listen", f"ipc://{folder}/s")
        fails(capsys, 6, "open to other users", *line)
