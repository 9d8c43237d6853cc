"""A real Chromium without a window, driven by its DevTools protocol, with a cookie jar for each person."""

import asyncio
import itertools
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

DEADLINE_S = 60
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


class Chromium:
    """A started browser; `person` opens a window with a jar of its own."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._people: dict[str, Person] = {}

    async def person(self) -> "Person":
        """Open a window of a person who has been nowhere yet."""
        jar = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=jar)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        person = Person(self, attached["sessionId"], jar)
        self._people[attached["sessionId"]] = person
        await person.call("Page.enable")
        await person.call("Page.setLifecycleEventsEnabled", enabled=True)
        await person.call("Network.enable")
        return person

    async def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Carry out one command. Raises: AssertionError with what the browser says against it."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        await self._socket.send_json(message | ({"sessionId": session} if session else {}))
        async with asyncio.timeout(DEADLINE_S):
            said = await answer
        assert "error" not in said, f"{method}: {said['error']}"
        return dict(said["result"])

    async def forget_everyone(self) -> None:
        """Close every window that `person` opened, and destroy its jar."""
        people = list(self._people.values())
        self._people.clear()
        for person in people:
            await self.call("Target.disposeBrowserContext", browserContextId=person.jar)

    async def listen(self) -> None:
        """Take in answers and events until the browser ends."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                answer = self._answers.pop(said["id"])
                if not answer.done():
                    answer.set_result(said)
            elif said.get("sessionId") in self._people:
                self._people[said["sessionId"]].happened(said["method"], said["params"])


class Person:
    """A user at one window."""

    def __init__(self, browser: Chromium, session: str, jar: str) -> None:
        self._browser = browser
        self._session = session
        self.jar = jar
        """The browser's name of the person's cookie jar."""
        self._read_already: set[str] = set()
        """Navigations whose page was read: a browser says again of an old one that it is loaded."""
        self._loaded: asyncio.Queue[str] = asyncio.Queue()
        self._statuses: dict[str, int] = {}
        """By navigation; a window's empty first page, which loads too, came by none."""
        self.status = 0
        """Of the last page."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **params)

    def happened(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.responseReceived" and params["type"] == "Document":
            self._statuses[params["loaderId"]] = params["response"]["status"]
        elif method == "Page.lifecycleEvent" and params["name"] == "load":
            self._loaded.put_nowait(params["loaderId"])

    async def open(self, url: str) -> str:
        """Type an address; gives the text of the page that it ends at."""
        answer = await self.call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"
        return await self._read(answer["loaderId"])

    async def press(self, decision: str, **fields: str) -> str:
        """Fill fields of the page and press a button; gives the text of the page that comes."""
        for name, value in fields.items():
            await self.run(f"document.querySelector('input[name={name}]').value = {value!r}")
        await self.run(f"document.querySelector('button[value={decision}]').click()")
        return await self._read()

    async def reload(self) -> str:
        """Ask for the page once more; gives its text."""
        await self.call("Page.reload")
        return await self._read()

    async def run(self, script: str) -> Any:
        """Run a script in the page; gives its value."""
        said = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def cookies(self) -> dict[str, str]:
        """Give all that is in the jar, of every site."""
        found = await self._browser.call("Storage.getCookies", browserContextId=self.jar)
        return {cookie["name"]: cookie["value"] for cookie in found["cookies"]}

    async def cookies_for(self, url: str) -> dict[str, str]:
        """Give what a request to an address would carry."""
        found = await self.call("Network.getCookies", urls=[url])
        return {cookie["name"]: cookie["value"] for cookie in found["cookies"]}

    async def _read(self, wanted: str = "") -> str:
        """Wait for a page, by default for any that was not read yet; gives its text."""
        async with asyncio.timeout(DEADLINE_S):
            while not self._is_new(loaded := await self._loaded.get(), wanted):
                pass
        self._read_already.add(loaded)
        self.status = self._statuses[loaded]
        return str(await self.run("document.body.innerText"))

    def _is_new(self, loaded: str, wanted: str) -> bool:
        return loaded in self._statuses and loaded not in self._read_already and wanted in ("", loaded)

    async def address(self) -> str:
        return str(await self.run("location.href"))


@asynccontextmanager
async def open_chromium(directory: Path, flags: Sequence[str] = ()) -> AsyncIterator[Chromium]:
    """Start a Chromium with its profile below `directory`, and end it."""
    program = shutil.which("chromium")
    assert program, "there is no chromium: this test should have been skipped"
    process = await asyncio.create_subprocess_exec(
        *(program, *_FLAGS, *flags, f"--user-data-dir={directory / 'profile'}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        url = await _debugger(process)
        async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0) as socket:
            browser = Chromium(socket)
            listening = asyncio.ensure_future(browser.listen())
            drained = asyncio.ensure_future(_drain(process))
            try:
                yield browser
            finally:
                await socket.close()
                await listening
                _end(process)
                await drained
    finally:
        _end(process)
        await process.wait()


def _end(process: asyncio.subprocess.Process) -> None:
    """End the browser with its renderers."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _debugger(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(DEADLINE_S):
        while line := await process.stderr.readline():
            said += line
            if found := re.search(rb"DevTools listening on (ws://\S+)", line):
                return found.group(1).decode()
    raise AssertionError(f"chromium ended:\n{said.decode(errors='replace')}")


async def _drain(process: asyncio.subprocess.Process) -> None:
    """Read what the browser says, so that it does not wait for a reader."""
    assert process.stderr is not None
    while await process.stderr.read(65_536):
        pass
