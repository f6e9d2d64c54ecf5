"""A real browser without a window, driven by its own protocol (DevTools)."""

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WAITING_S = 30


@dataclass
class Page:
    """One page. Every complaint of the browser's console is kept."""

    connection: Any
    session: str = ""
    complaints: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self.connection.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            told = json.loads(self.connection.recv(timeout=WAITING_S))
            if told.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(json.dumps(told["params"]))
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]

    def value(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def until(self, script: str) -> Any:
        """Its first value that is true."""
        ends = time.monotonic() + WAITING_S
        while time.monotonic() < ends:
            if found := self.value(script):
                return found
            time.sleep(0.02)
        raise AssertionError(f"never true: {script}; the page shows {self.value('document.body.innerText')}")

    def choose(self, selector: str, file: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def drop(self, selector: str, file: Path) -> None:
        place = self.value(
            f"(({{x, y}}) => [x + 5, y + 5])(document.querySelector('{selector}').getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=place[0], y=place[1], data=data)

    def press(self, key: str) -> None:
        code = {"Enter": 13, "Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if (key, kind) == ("Enter", "keyDown") else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)


@contextmanager
def opened(url: str, folder: Path) -> Iterator[Page]:
    """folder: for the browser's own files. Skips where there is no browser, or no client of its protocol."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on the PATH")
    client = pytest.importorskip("websockets.sync.client")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    browser = subprocess.Popen([program, *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert browser.stderr is not None
    try:
        told = (re.search(r"DevTools listening on (ws://\S+)", line) for line in browser.stderr)
        address = next(found[1] for found in told if found)
        with client.connect(address, max_size=None) as connection:
            page = Page(connection)
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Log", "Runtime", "Page", "DOM"):
                page.call(f"{domain}.enable")
            page.call("Page.navigate", url=url)
            page.until("document.readyState === 'complete'")
            yield page
            page.session = ""
            page.call("Browser.close")
    finally:
        browser.stderr.close()
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
