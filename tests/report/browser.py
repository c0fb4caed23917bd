"""Chromium without a window, told what to do by the DevTools protocol: real keys and clicks, pixels, and what it complains of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from base64 import b64decode
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# SwiftShader draws WebGL on the processor, so that no graphics card is needed.
FLAGS = (
    *("--headless=new", "--remote-debugging-port=0", "--no-first-run", "--disable-extensions", "--hide-scrollbars", "--mute-audio"),
    *("--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"),
)
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "PageUp": 33}


def find_chromium() -> str | None:
    """Path of a browser that can be driven, also from ``STSEG3D_CHROMIUM``."""
    return os.environ.get("STSEG3D_CHROMIUM") or next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page in a browser of its own, that ends with the ``with`` block."""

    def __init__(self, path: str, *flags: str, width: int = 1280, height: int = 900) -> None:
        self._command = [path, *FLAGS, *flags, f"--window-size={width},{height}"]
        self._count = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        import websocket

        self._home = TemporaryDirectory(ignore_cleanup_errors=True)
        home = Path(self._home.name)
        self._process = subprocess.Popen(
            [*self._command, f"--user-data-dir={home}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port_file = home / "DevToolsActivePort"
        self._until(lambda: port_file.is_file() and len(port_file.read_text().splitlines()) == 2, 60, "a browser")
        port, path = port_file.read_text().splitlines()
        self._socket = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", timeout=120, suppress_origin=True)
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)
        self._home.cleanup()

    def call(self, method: str, **params: Any) -> Any:
        """One command, and its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._count:
                if "error" in answer:
                    msg = f"{method}: {answer['error']}"
                    raise RuntimeError(msg)
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path | str) -> None:
        """Load a page from disk, and wait until all of it is there."""
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            msg = f"{expression}: {answer['exceptionDetails']}"
            raise RuntimeError(msg)
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Until the expression is true."""
        self._until(lambda: self.evaluate(expression), seconds, expression)

    @staticmethod
    def _until(true: Any, seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                msg = f"no {what} within {seconds:g} s"
                raise TimeoutError(msg)
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """The left mouse button on the middle of an element (of its first line), brought into view first."""
        box = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{box}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        rectangle = self.evaluate(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({box}.getClientRects()[0])")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=rectangle[0], y=rectangle[1], button="left", clickCount=1)

    def press(self, key: str) -> None:
        """One key, down and up."""
        text = {"Enter": "\r"}.get(key)
        more = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=KEYS[key], **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def screen(self, width: int, height: int, *, scale: float = 1, mobile: bool = False, dark: bool = False) -> None:
        """Another screen, and whether it is a dark one."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """What is on the screen, or all of the page, as PNG."""
        path.write_bytes(b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]))

    def complaints(self) -> list[str]:
        """Errors and refusals so far: uncaught, logged, or of the page's own policy."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"].get("exception", {}).get("description", params["exceptionDetails"]["text"])))
            elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
            elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] == "error":
                found.append(str([a.get("value", a.get("description")) for a in params["args"]]))
        return found

    def requests(self) -> list[str]:
        """Addresses that were asked for, those within the page left out."""
        sent = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:", "about:"))]
