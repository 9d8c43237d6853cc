"""Chromium, driven by its DevTools protocol."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.fakes.remote import DEADLINE_S as DEADLINE_S
from tests.fakes.remote import KEYS, Browser, Person, started

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
_NO_COOKIES = {"profile": {"default_content_setting_values": {"cookies": 2}}}


class Chromium(Browser):
    """A started Chromium."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__(socket)
        self._windows: dict[str, ChromiumWindow] = {}
        """By the session of the debugger."""

    async def start(self) -> None:
        """See Browser."""

    async def person(self) -> "ChromiumWindow":
        """See Browser."""
        return await self.window((await self.call("Target.createBrowserContext"))["browserContextId"])

    async def window(self, jar: str) -> "ChromiumWindow":
        """Open a window with a jar that is there."""
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=jar)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        window = self._windows[attached["sessionId"]] = ChromiumWindow(self, attached["sessionId"], jar)
        await window.call("Page.enable")
        await window.call("Page.setLifecycleEventsEnabled", enabled=True)
        await window.call("Network.enable")
        # Windows of a browser without a screen have the focus one at a time, as those of a screen do.
        await window.call("Emulation.setFocusEmulationEnabled", enabled=True)
        return window

    async def forget_everyone(self) -> None:
        """See Browser."""
        jars = {window.jar for window in self._windows.values()}
        self._windows.clear()
        for jar in jars:
            await self.call("Target.disposeBrowserContext", browserContextId=jar)

    def happened(self, said: dict[str, Any]) -> None:
        """See Browser."""
        if said.get("sessionId") in self._windows:
            self._windows[said["sessionId"]].happened(said["method"], said["params"])


class ChromiumWindow(Person):
    """A window of Chromium."""

    def __init__(self, browser: Chromium, session: str, jar: str) -> None:
        super().__init__()
        self._browser = browser
        self._session = session
        self.jar = jar
        """The browser's name of the person's cookie jar."""
        self._choosers: asyncio.Queue[int] = asyncio.Queue()
        """Nodes for which the page asked for a file."""
        self.heard: list[str] = []
        """Messages that the page got by WebSocket."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Carry out one command in this window."""
        return await self._browser.call(method, self._session, **params)

    def happened(self, method: str, params: dict[str, Any]) -> None:
        """Take in an event of this window."""
        if method == "Network.responseReceived" and params["type"] == "Document":
            self._statuses[params["loaderId"]] = params["response"]["status"]
        elif method == "Page.lifecycleEvent" and params["name"] == "load":
            self._loaded.put_nowait(params["loaderId"])
        elif method == "Network.webSocketFrameReceived":
            self.heard.append(params["response"]["payloadData"])
        elif method == "Page.fileChooserOpened":
            self._choosers.put_nowait(params["backendNodeId"])

    async def open(self, url: str) -> str:
        """See Person."""
        answer = await self.call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"
        return await self._read(answer["loaderId"])

    async def reload(self) -> str:
        """See Person."""
        self._skip_loaded()
        await self.call("Page.reload")
        return await self._read()

    async def run(self, script: str) -> Any:
        """See Person."""
        said = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def click(self, selector: str) -> None:
        """See Person."""
        x, y = await self.middle(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    async def key(self, name: str) -> None:
        """See Person."""
        code, number, _ = KEYS[name]
        key = {"key": name, "code": code, "windowsVirtualKeyCode": number}
        text = {"text": "\r"} if name == "Enter" else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **text, **key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    async def look(self, *, dark: bool = False, width: int = 1_180, height: int = 800) -> None:
        """See Person."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)

    async def choose(self, selector: str, file: Path) -> None:
        """Click on what asks for a file, and choose this one."""
        await self.call("Page.setInterceptFileChooserDialog", enabled=True)
        await self.click(selector)
        async with asyncio.timeout(DEADLINE_S):
            node = await self._choosers.get()
        await self.call("DOM.setFileInputFiles", files=[str(file)], backendNodeId=node)

    async def type(self, line: str) -> None:
        """See Person."""
        await self.call("Input.insertText", text=line)
        await self.key("Enter")

    async def tab(self) -> "ChromiumWindow":
        """See Person."""
        return await self._browser.window(self.jar)

    async def cookies(self) -> dict[str, str]:
        """See Person."""
        found = await self._browser.call("Storage.getCookies", browserContextId=self.jar)
        return {cookie["name"]: cookie["value"] for cookie in found["cookies"]}

    async def cookies_for(self, url: str) -> dict[str, str]:
        """Give what a request to an address would carry."""
        found = await self.call("Network.getCookies", urls=[url])
        return {cookie["name"]: cookie["value"] for cookie in found["cookies"]}

    async def frames(self) -> list[str]:
        """See Person."""
        tree = await self.call("Page.getFrameTree")
        # A frame that is missing here is shown by another process, as every page of another site is.
        frames = [child["frame"] for child in tree["frameTree"].get("childFrames", [])]
        is_refused = [one.get("unreachableUrl") or one["url"].startswith("chrome-error") for one in frames]
        return ["" if refused else one["url"] for one, refused in zip(frames, is_refused, strict=True)]

    async def picture(self) -> bytes:
        """See Person."""
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])


@asynccontextmanager
async def open_chromium(
    directory: Path, flags: Sequence[str] = (), *, keeps_cookies: bool = True
) -> AsyncIterator[Chromium]:
    """Start a Chromium with its profile below `directory`, and end it."""
    profile = directory / "profile"
    if not keeps_cookies:
        (profile / "Default").mkdir(parents=True)
        (profile / "Default" / "Preferences").write_text(json.dumps(_NO_COOKIES))
    command = ("chromium", *_FLAGS, *flags, f"--user-data-dir={profile}", "about:blank")
    async with started(Chromium, command, "DevTools listening on") as browser:
        yield browser
