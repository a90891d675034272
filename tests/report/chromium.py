"""Chromium without a window, driven through a pipe: pages are opened, clicked, read and drawn. Needs nothing but Chromium."""

import base64
import json
import os
import shutil
import subprocess
import time


class Page:
    """One page. What the console says, and what is not found, is in `errors`."""

    def __init__(self, width=1440, height=1000, dark=False):
        program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not program:
            raise SystemExit("no Chromium: install Debian's package `chromium`, or set CHROMIUM to another")
        its_in, self.write_to = os.pipe()
        its_out_read, its_out = os.pipe()
        self.read_from = os.fdopen(its_out_read, "rb")

        def plug():
            # The protocol's pipes are descriptors 3 and 4. Moved away first, so that neither lands on the other.
            a, b = os.dup2(its_in, 63), os.dup2(its_out, 64)
            os.dup2(a, 3)
            os.dup2(b, 4)

        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe", f"--window-size={width},{height}", "about:blank"]
        self.process = subprocess.Popen([program, *arguments], preexec_fn=plug, close_fds=False, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        os.close(its_in)
        os.close(its_out)
        self.errors, self.number, self.session = [], 0, None
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log"]:
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def send(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        while True:
            found = self.receive()
            if found.get("id") == self.number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]

    def receive(self):
        text = bytearray()
        while (byte := self.read_from.read(1)) != b"\0":
            if not byte:
                raise SystemExit("Chromium has ended")
            text += byte
        found = json.loads(text)
        params = found.get("params", {})
        if found.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        if found.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        if found.get("method") == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(str(params["args"]))
        return found

    def open(self, address):
        self.send("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def value(self, expression):
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", expression))
        return found["result"].get("value")

    def until(self, expression, seconds=10):
        end = time.monotonic() + seconds
        while not self.value(expression):
            if time.monotonic() > end:
                raise RuntimeError(f"this never came true: {expression}")
            time.sleep(0.02)

    def click(self, selector, text):
        """Clicks the first element of a selector with this text, as a person who reads would."""
        expression = f"""(() => {{ const wanted = {json.dumps(text)};
            const found = [...document.querySelectorAll({json.dumps(selector)})].find((it) => it.textContent.trim().includes(wanted));
            if (!found) return false; found.dispatchEvent(new MouseEvent('click', {{ bubbles: true, cancelable: true }})); return true; }})()"""
        if not self.value(expression):
            raise RuntimeError(f"no `{selector}` says `{text}` at {self.value('location.hash')}")
        self.settle()

    def settle(self):
        """Waits for the page to be drawn after a change of address."""
        self.value("new Promise((done) => setTimeout(() => requestAnimationFrame(() => done(true)), 0))")

    def text(self, selector="#main"):
        return self.value(f"(document.querySelector({json.dumps(selector)}) || {{}}).innerText || ''")

    def screenshot(self, path, whole=False):
        clip = {}
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {**size, "height": min(size["height"], 6000), "scale": 1}, "captureBeyondViewport": True}
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.send("Page.captureScreenshot", format="png", **clip)["data"]))

    def close(self):
        try:
            os.write(self.write_to, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        except BrokenPipeError:
            pass
        self.process.wait(10)
