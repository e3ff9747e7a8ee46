"""A headless Chromium, driven through the pipe of its DevTools protocol: no further package, no open port.

with Browser(folder) as browser:
    page = browser.open(path); page.key("3"); page.run("document.title")
"""
import base64
import fcntl
import json
import os
import shutil
import subprocess
import time

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no chromium or google-chrome here")
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Escape": 27, "Delete": 46,
        "Tab": 9}


class Browser:
    """`folder`: where its profile lies, and downloads in `downloads`."""

    def __init__(self, folder):
        self.folder, self.number, self.events = folder, 0, []

    def __enter__(self):
        (self.folder / "downloads").mkdir(parents=True, exist_ok=True)
        low = [*os.pipe(), *os.pipe()]
        to_read, self.write, self.read, to_write = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in low)  # not 3 and 4
        for fd in low:
            os.close(fd)
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "bash", CHROMIUM, "--headless=new", "--no-sandbox",
             "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-pipe",
             f"--user-data-dir={self.folder / 'profile'}"],
            pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.buffer = b""
        self.send("Browser.setDownloadBehavior", downloadPath=str(self.folder / "downloads"),
                  behavior="allow")  # codespell:ignore behavior
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        os.close(self.write)
        os.close(self.read)
        shutil.rmtree(self.folder / "profile", ignore_errors=True)

    def send(self, method, session=None, **params):
        """A command -> its result; what happens meanwhile goes into `events`."""
        self.number += 1
        number, message = self.number, {"id": self.number, "method": method, "params": params}
        os.write(self.write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                if not (more := os.read(self.read, 2**20)):
                    raise RuntimeError("Chromium has ended")
                self.buffer += more
            text, _, self.buffer = self.buffer.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def open(self, path, width=1400, height=900, scheme="light"):
        """A page of this size, loaded."""
        return Tab(self, path, width, height, scheme)


class Tab:
    def __init__(self, browser, path, width, height, scheme):
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.browser = browser
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.show(width, height, scheme)
        self.send("Page.navigate", url=f"file://{path}")
        self.wait("document.readyState == 'complete'")

    def send(self, method, **params):
        return self.browser.send(method, self.session, **params)

    def show(self, width, height, scheme="light"):
        """Another size, or the dark scheme."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, script):
        """The value of an expression, awaited."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition, seconds=30):
        until = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < until, condition
            time.sleep(0.02)

    def key(self, *names):
        """Press keys one after another: characters, or names of `KEYS`."""
        for name in names:
            code = {"windowsVirtualKeyCode": KEYS.get(name, 0)}
            text = {"text": "\r" if name == "Enter" else name} if name == "Enter" or name not in KEYS else {}
            self.send("Input.dispatchKeyEvent", type="keyDown", key=name, **code, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=name, **code)

    def write(self, text):
        self.key(*text)

    def mouse(self, kind, x, y, **more):
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def print(self, path):
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"]))

    def faults(self):
        """What the browser says against the page: exceptions, errors of its log, requests to elsewhere."""
        found = []
        for event in self.browser.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("exception", params["exceptionDetails"]).get("description"))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
            elif event["method"] == "Network.requestWillBeSent":
                found += [params["request"]["url"]] * (not params["request"]["url"].startswith(("file:", "blob:")))
        return found
