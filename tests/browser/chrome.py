"""A real browser for tests: Chromium without a window, driven over a pair of pipes.

The protocol is Chromium's own (DevTools), as JSON with a zero byte behind each message; over pipes
it needs no port and no library.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import IN_CI, patience
from waiting import eventually

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # root has none, and what is shown is ours
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--metrics-recording-only",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


def program() -> str:
    """Where it is. On a laptop its absence skips the test by name, in CI it fails it."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    advice = "no Chromium here: on Debian, apt install chromium-headless-shell"
    if IN_CI:
        pytest.fail(advice)
    pytest.skip(advice)


CODES = {"Tab": {"windowsVirtualKeyCode": 9}}


class Tab:
    """A page that is looked at. `errors` and `requests` are what it has had so far."""

    def __init__(self, chrome: Chrome, session: str) -> None:
        self.chrome, self.session = chrome, session
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        return self.chrome.ask(method, self.session, **parameters)

    def size(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        gone = self.ask("Page.navigate", url=address).get("errorText")
        assert gone is None, gone
        eventually(lambda: self.run("document.readyState") == "complete", what=address)

    def run(self, script: str) -> Any:
        """The value of an expression; promises are waited for."""
        told = self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=9
            )

    def picture(self, path: Path) -> None:
        told = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(b64decode(told["data"]))

    def tree(self) -> list[tuple[str, str]]:
        """(role, name) of all that a screen reader is told of."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [
            (one["role"]["value"], one.get("name", {}).get("value", ""))
            for one in nodes
            if not one["ignored"]
        ]

    @property
    def events(self) -> list[tuple[str, Any]]:
        self.run("0")  # whatever was said before has arrived with the answer
        mine = [one for one in self.chrome.events if one.get("sessionId") == self.session]
        return [(one["method"], one["params"]) for one in mine]

    @property
    def errors(self) -> list[str]:
        """What a developer would see in red, or in yellow."""
        found = []
        for method, told in self.events:
            if method == "Runtime.exceptionThrown":
                found.append(str(told["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled":
                found.append(str(told["args"]))
            elif method == "Log.entryAdded":
                found.append(told["entry"]["text"])
        return found

    @property
    def requests(self) -> list[str]:
        return [
            told["request"]["url"]
            for method, told in self.events
            if method == "Network.requestWillBeSent"
        ]


class Chrome:
    """A browser. `browser` starts one and ends it."""

    def __init__(self, folder: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._number, self._rest = 0, b""
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        flags = (*FLAGS, f"--user-data-dir={folder}", "about:blank")
        words = [program(), *flags]
        log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY, 0o600)
        # It reads 3 and writes 4; ours are moved there by way of numbers that are neither.
        far = [os.dup(end) for end in (theirs_in, theirs_out)]
        moves = [(far[0], 3), (far[1], 4), (log, 1), (log, 2)]
        self.pid = os.posix_spawn(
            words[0],
            words,
            os.environ | {"HOME": str(folder)},
            file_actions=[(os.POSIX_SPAWN_DUP2, one, other) for one, other in moves],
            setpgroup=0,
        )
        for end in (theirs_in, theirs_out, log, *far):
            os.close(end)

    def tab(self) -> Tab:
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        told = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        return Tab(self, told["sessionId"])

    def ask(self, method: str, session: str = "", **parameters: Any) -> Any:
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters}
        if session:
            asked["sessionId"] = session
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        while True:
            told = self._next(method)
            if told.get("id") == self._number:
                assert "error" not in told, (method, told["error"])
                return told["result"]
            if "method" in told:
                self.events.append(told)

    def _next(self, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + patience(20)
        while b"\0" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                pytest.fail(f"the browser does not answer {what}")
            data = os.read(self._in, 1 << 20)
            assert data, f"the browser ended before it answered {what}"
            self._rest += data
        told, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(told))

    def close(self) -> None:
        """End it, and all that it started."""
        for end in (self._in, self._out):
            os.close(end)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@contextmanager
def browser(folder: Path) -> Iterator[Chrome]:
    """One with a profile of its own."""
    program()
    folder.mkdir()
    chrome = Chrome(folder)
    try:
        yield chrome
    finally:
        chrome.close()
