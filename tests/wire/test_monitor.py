"""What a connection hears of its coming and going."""

from __future__ import annotations

import socket
from pathlib import Path
from threading import Event, Thread

import zmq
from support import patience

from engine.wire.handshake import MonitoredSocket


def test_a_monitor_that_nobody_reads_can_be_closed(tmp_path: Path) -> None:
    """It holds some thousand events; a peer that hangs up at once makes hundreds a second."""
    path, over, hung_up = str(tmp_path / "s"), Event(), 0
    ends = MonitoredSocket(zmq.DEALER, ((zmq.RECONNECT_IVL, 1),), events=zmq.EVENT_ALL)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        server.settimeout(0.5)

        def hang_up() -> None:
            nonlocal hung_up
            while not over.is_set():
                try:
                    server.accept()[0].close()
                except TimeoutError:
                    over.set()  # it dials no more: its thread waits to tell
                hung_up += 1

        Thread(target=hang_up, daemon=True).start()
        ends.socket.connect(f"ipc://{path}")
        assert over.wait(patience(30)), "the monitor is not full"
        assert hung_up > 100
        closing = Thread(target=ends.close, daemon=True)
        closing.start()
        closing.join(patience(10))
        assert not closing.is_alive()
