"""Firefox ESR, driven by WebDriver BiDi, which it speaks by itself.

Source: https://w3c.github.io/webdriver-bidi/
"""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.fakes.remote import KEYS, Browser, Person, started

PROGRAM = "firefox-esr"
_EVENTS = (
    "browsingContext.load",
    "browsingContext.navigationFailed",
    "network.responseStarted",
)
_REJECT_ALL = 2
"""Of `network.cookie.cookieBehavior`."""


class Firefox(Browser):
    """A started Firefox."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__(socket)
        self._windows: dict[str, FirefoxWindow] = {}
        """By browsing context."""

    async def start(self) -> None:
        """See Browser; certificates are not looked at."""
        await self.call("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        await self.call("session.subscribe", events=list(_EVENTS))

    async def person(self) -> "FirefoxWindow":
        """See Browser."""
        return await self.window((await self.call("browser.createUserContext"))["userContext"])

    async def window(self, jar: str) -> "FirefoxWindow":
        """Open a window with a jar that is there."""
        context = (await self.call("browsingContext.create", type="tab", userContext=jar))["context"]
        window = self._windows[context] = FirefoxWindow(self, context, jar)
        return window

    async def forget_everyone(self) -> None:
        """See Browser."""
        jars = {window.jar for window in self._windows.values()}
        self._windows.clear()
        for jar in jars:
            await self.call("browser.removeUserContext", userContext=jar)

    def happened(self, said: dict[str, Any]) -> None:
        """See Browser."""
        window = self._windows.get(said["params"].get("context") or "")
        if window is not None:
            window.happened(said["method"], said["params"])


class FirefoxWindow(Person):
    """A window of Firefox."""

    def __init__(self, browser: Firefox, context: str, jar: str) -> None:
        super().__init__()
        self._browser = browser
        self._context = context
        self.jar = jar
        """The user context, which has cookies of its own."""

    def happened(self, method: str, params: dict[str, Any]) -> None:
        """Take in an event of this window."""
        navigation = params.get("navigation")
        if navigation is None:
            return
        if method == "network.responseStarted":
            self._statuses[navigation] = params["response"]["status"]
        elif method == "browsingContext.load":
            self._loaded.put_nowait(navigation)
        else:
            self._failures[navigation] = params.get("message") or "the navigation failed"
            self._loaded.put_nowait(navigation)

    async def open(self, url: str) -> str:
        """See Person."""
        answer = await self._browser.call(
            "browsingContext.navigate", context=self._context, url=url, wait="none"
        )
        return await self._read(answer["navigation"])

    async def reload(self) -> str:
        """See Person."""
        self._skip_loaded()
        await self._browser.call("browsingContext.reload", context=self._context, wait="none")
        return await self._read()

    async def run(self, script: str) -> Any:
        """See Person."""
        return await self._run_in(self._context, script)

    async def _run_in(self, context: str, script: str) -> Any:
        said = await self._browser.call(
            "script.evaluate",
            expression=script,
            target={"context": context},
            awaitPromise=True,
            userActivation=True,
        )
        assert said["type"] == "success", said["exceptionDetails"]
        return _value(said["result"])

    async def click(self, selector: str) -> None:
        """See Person."""
        x, y = await self.middle(selector)
        move = {"type": "pointerMove", "x": round(x), "y": round(y)}
        await self._perform(
            "pointer", move, *({"type": one, "button": 0} for one in ("pointerDown", "pointerUp"))
        )

    async def key(self, name: str) -> None:
        """See Person."""
        await self._strike(KEYS[name][2])

    async def type(self, line: str) -> None:
        """See Person."""
        for character in line:
            await self._strike(character)
        await self.key("Enter")

    async def _strike(self, character: str) -> None:
        await self._perform("key", *({"type": one, "value": character} for one in ("keyDown", "keyUp")))

    async def _perform(self, kind: str, *actions: dict[str, Any]) -> None:
        # Only the window in front has the focus, and the last one that was opened is there.
        await self._browser.call("browsingContext.activate", context=self._context)
        device = {"type": kind, "id": kind, "actions": list(actions)}
        await self._browser.call("input.performActions", context=self._context, actions=[device])

    async def look(self, *, dark: bool = False, width: int = 1_180, height: int = 800) -> None:
        """See Person; this browser takes colours from its settings only, so `dark` is refused."""
        assert not dark, "Firefox is shown light only"
        size = {"width": width, "height": height}
        await self._browser.call("browsingContext.setViewport", context=self._context, viewport=size)

    async def tab(self) -> "FirefoxWindow":
        """See Person."""
        return await self._browser.window(self.jar)

    async def cookies(self) -> dict[str, str]:
        """See Person."""
        found = await self._browser.call(
            "storage.getCookies", partition={"type": "storageKey", "userContext": self.jar}
        )
        return {cookie["name"]: cookie["value"]["value"] for cookie in found["cookies"]}

    async def frames(self) -> list[str]:
        """See Person."""
        (tree,) = (await self._browser.call("browsingContext.getTree", root=self._context))["contexts"]
        shown = [str(await self._run_in(one["context"], "document.documentURI")) for one in tree["children"]]
        return ["" if address.startswith("about:") else address for address in shown]

    async def picture(self) -> bytes:
        """See Person."""
        said = await self._browser.call("browsingContext.captureScreenshot", context=self._context)
        return base64.b64decode(said["data"])


def _value(said: dict[str, Any]) -> Any:
    """Read a value of a script (WebDriver BiDi, `script.RemoteValue`); None for what has no JSON."""
    match said["type"]:
        case "array":
            return [_value(one) for one in said["value"]]
        case "object":
            return {name: _value(one) for name, one in said["value"]}
        case "string" | "number" | "boolean":
            return said["value"]
        case _:
            return None


@asynccontextmanager
async def open_firefox(directory: Path, *, keeps_cookies: bool = True) -> AsyncIterator[Firefox]:
    """Start a Firefox with its profile below `directory`, and end it."""
    profile = directory / "profile"
    profile.mkdir(parents=True)
    if not keeps_cookies:
        (profile / "user.js").write_text(f'user_pref("network.cookie.cookieBehavior", {_REJECT_ALL});\n')
    command = (PROGRAM, "--headless", "--no-remote", "--remote-debugging-port=0", "--profile", str(profile))
    async with started(Firefox, command, "WebDriver BiDi listening on", "/session") as browser:
        yield browser
