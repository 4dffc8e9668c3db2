"""Where a server may listen, and where nobody may."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from engine.errors import RefusedError, UsageError
from engine.wire.addresses import IPC_PATH_MAX, check_dial, check_listen, private_address
from engine.wire.endpoint import Dialer, Listener


@pytest.fixture
def private(tmp_path: Path) -> Path:
    folder = tmp_path / "p"
    folder.mkdir(0o700)
    return folder


def test_a_private_address_is_short_and_closed_to_others() -> None:
    address = private_address()
    folder = os.path.dirname(address.removeprefix("ipc://"))
    try:
        assert os.stat(folder).st_mode & 0o777 == 0o700
        assert len(os.fsencode(address)) - len("ipc://") <= IPC_PATH_MAX
        check_listen(address, None)
    finally:
        os.rmdir(folder)


def test_a_long_temporary_directory_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    address = private_address()
    os.rmdir(os.path.dirname(address.removeprefix("ipc://")))
    assert not address.startswith(f"ipc://{deep}")


def test_a_path_that_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ZeroMQ's are text: such a temporary directory is passed over, such an address refused."""
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    if sys.platform != "darwin":  # where the file system refuses it
        os.mkdir(odd, 0o700)
    monkeypatch.setenv("TMPDIR", os.fsdecode(odd))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    address = private_address()
    os.rmdir(os.path.dirname(address.removeprefix("ipc://")))
    assert "caf" not in address
    address = f"ipc://{os.fsdecode(odd)}/s"
    with pytest.raises(RefusedError, match=r"udce9.*is not UTF-8") as caught:
        Listener(address)
    assert str(caught.value).isascii()
    with pytest.raises(RefusedError, match="is not UTF-8"):
        Dialer(address, role="worker")


@pytest.mark.parametrize(
    "address",
    [
        "tcp://0.0.0.0:1",
        "tcp://*:1",
        "tcp://192.0.2.1:80",
        "tcp://localhost:80",
        "tcp://[::1]:80",
        "udp://127.0.0.1:1",
        "inproc://x",
        "127.0.0.1:80",
        "tcp://127.0.0.1.example.org:80",
        "",
    ],
)
def test_what_is_not_this_machine_is_refused_both_ways(address: str) -> None:
    for check in (check_listen, check_dial):
        with pytest.raises(RefusedError, match="not on this machine's loopback"):
            check(address, "token")


@pytest.mark.parametrize("port", ["", "x", "0", "65536", "-1", "1;x", "١"])
def test_a_port_is_a_number(port: str) -> None:
    with pytest.raises(UsageError, match="port"):
        check_dial(f"tcp://127.0.0.1:{port}", "token")


def test_loopback_needs_a_token() -> None:
    check_listen("tcp://127.0.0.1:*", "token")
    check_dial("tcp://127.0.0.1:5555", "token")
    with pytest.raises(RefusedError, match="token"):
        check_listen("tcp://127.0.0.1:5555", None)
    with pytest.raises(UsageError, match="no port"):
        check_dial("tcp://127.0.0.1:*", "token")


def test_a_socket_path_has_a_length(private: Path) -> None:
    with pytest.raises(UsageError, match="bytes"):
        check_dial("ipc://" + "x" * (IPC_PATH_MAX + 1), None)
    with pytest.raises(UsageError):
        check_dial("ipc://", None)
    check_dial("ipc://" + "x" * IPC_PATH_MAX, None)


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o755])
def test_a_directory_open_to_others_is_refused(private: Path, mode: int) -> None:
    private.chmod(mode)
    with pytest.raises(RefusedError, match="mode 0700"):
        check_listen(f"ipc://{private}/s", None)


def test_a_directory_that_is_not_there(private: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        check_listen(f"ipc://{private}/none/s", None)


def test_a_living_server_is_not_pushed_aside_and_a_dead_one_is(private: Path) -> None:
    path = private / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(RefusedError, match=rf"Process {os.getpid()} .* listens at"):
            check_listen(f"ipc://{path}", None)
        assert path.exists()
    check_listen(f"ipc://{path}", None)
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(RefusedError, match="not a socket"):
        check_listen(f"ipc://{path}", None)
    assert path.read_text() == "precious"


def test_a_directory_behind_a_link_is_refused(private: Path) -> None:
    """It may be another one by the time at which others look for us."""
    link = private.parent / f"{private.name}-link"
    link.symlink_to(private)
    try:
        with pytest.raises(RefusedError, match="symbolic link"):
            check_listen(f"ipc://{link}/s", None)
    finally:
        link.unlink()
