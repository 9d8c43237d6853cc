"""A real browser without a window, driven over its debugging WebSocket: what is the same for each kind.

A person has a cookie jar, and one window or several. The debugging protocols of Chromium and Firefox both
number commands and answers and name each navigation; a page is read when its navigation has loaded.
"""

import asyncio
import itertools
import os
import re
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import aiohttp

DEADLINE_S = 60
MOST_TABS = 150
KEYS = {"Tab": ("Tab", 9, "\ue004"), "Enter": ("Enter", 13, "\ue007"), "Escape": ("Escape", 27, "\ue00c")}
"""Code, number of Windows, and character of WebDriver (§17.4.2) of keys that tests press."""

_B = TypeVar("_B", bound="Browser")


class Browser(ABC):
    """A started browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    @abstractmethod
    async def start(self) -> None:
        """Make the connection ready for commands."""

    @abstractmethod
    async def person(self) -> "Person":
        """Open a window of a person who has been nowhere yet."""

    @abstractmethod
    async def forget_everyone(self) -> None:
        """Close every window that `person` opened, and destroy its jar."""

    @abstractmethod
    def happened(self, said: dict[str, Any]) -> None:
        """Take in an event."""

    async def call(self, method: str, session: str = "", /, **params: Any) -> dict[str, Any]:
        """Carry out one command. Raises: AssertionError with what the browser says against it."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        await self._socket.send_json(message | ({"sessionId": session} if session else {}))
        async with asyncio.timeout(DEADLINE_S):
            said = await answer
        assert "error" not in said, f"{method}: {said}"
        return dict(said["result"])

    async def listen(self) -> None:
        """Take in answers and events until the browser ends."""
        async for message in self._socket:
            said = message.json()
            if said.get("id") is None:
                self.happened(said)
            elif not (answer := self._answers.pop(said["id"])).done():
                answer.set_result(said)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result({"error": "the browser ended"})


class Person(ABC):
    """A user at one window."""

    def __init__(self) -> None:
        self._read_already: set[str] = set()
        """Navigations whose page was read: a browser says again of an old one that it is loaded."""
        self._loaded: asyncio.Queue[str] = asyncio.Queue()
        self._statuses: dict[str, int] = {}
        """By navigation; a window's empty first page, which loads too, came by none."""
        self._failures: dict[str, str] = {}
        """What the browser says against a navigation."""
        self.status = 0
        """Of the last page."""

    @abstractmethod
    async def open(self, url: str) -> str:
        """Type an address; gives the text of the page that it ends at."""

    @abstractmethod
    async def reload(self) -> str:
        """Ask for the page once more; gives its text."""

    @abstractmethod
    async def run(self, script: str) -> Any:
        """Run a script in the page; gives its value, or what it promises."""

    @abstractmethod
    async def click(self, selector: str) -> None:
        """Press and release the mouse on the first match of a selector, once it is there."""

    @abstractmethod
    async def key(self, name: str) -> None:
        """Press and release a key of KEYS."""

    @abstractmethod
    async def type(self, line: str) -> None:
        """Type a line and the Enter key where the cursor is."""

    @abstractmethod
    async def look(self, *, dark: bool = False, width: int = 1_180, height: int = 800) -> None:
        """Show pages from now on as to a user who prefers light or dark, in a window of this size."""

    async def middle(self, selector: str) -> tuple[float, float]:
        """Wait for the first match of a selector, scroll to it, and give the middle of it."""
        script = (
            "(found => { if (!found) return null; found.scrollIntoView({block: 'center'});"
            " const box = found.getBoundingClientRect();"
            " return box.width ? [box.x + box.width / 2, box.y + box.height / 2] : null; })"
            f"(document.querySelector({selector!r}))"
        )
        x, y = await self.until(script, selector)
        return x, y

    async def tab_to(self, selector: str) -> None:
        """Press Tab until the first match of a selector has the focus, as a user without a mouse does."""
        await self.until(f"!!document.querySelector({selector!r})", selector)
        passed = []
        for _ in range(MOST_TABS):
            if await self.run(f"document.activeElement === document.querySelector({selector!r})"):
                return
            await self.key("Tab")
            passed.append(await self.run("document.activeElement?.id || document.activeElement?.tagName"))
        raise AssertionError(f"no Tab leads to {selector}: {passed}")

    async def goes_on(self, act: Awaitable[object]) -> str:
        """Do something that brings another page; gives its text."""
        self._skip_loaded()
        await act
        return await self._read()

    @abstractmethod
    async def tab(self) -> "Person":
        """Open another window with the same jar."""

    @abstractmethod
    async def cookies(self) -> dict[str, str]:
        """Give all that is in the jar, of every site."""

    @abstractmethod
    async def frames(self) -> list[str]:
        """Give the address of the document in each frame of the page; empty for one that was refused."""

    @abstractmethod
    async def picture(self) -> bytes:
        """Give what the window shows, as PNG."""

    async def press(self, decision: str, **fields: str) -> str:
        """Fill fields of the page and press a button; gives the text of the page that comes."""
        for name, value in fields.items():
            await self.run(f"document.querySelector('input[name={name}]').value = {value!r}")
        self._skip_loaded()
        await self.run(f"document.querySelector('button[value={decision}]').click()")
        return await self._read()

    async def address(self) -> str:
        return str(await self.run("location.href"))

    async def text(self) -> str:
        """Give the text of the page as it is now; empty between two pages."""
        return str(await self.run("document.body ? document.body.innerText : ''"))

    async def shows(self, text: str) -> None:
        """Wait until the window shows a text, whatever pages come before."""
        await self.until(f"!!document.body && document.body.innerText.includes({text!r})", text)

    async def until(self, script: str, what: str = "") -> Any:
        """Wait until a script has a value that counts as true; gives it. Pages may change meanwhile."""
        last: object = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    try:
                        if last := await self.run(script):
                            return last
                    except AssertionError as exc:  # the page that was asked is gone
                        last = exc
                    await asyncio.sleep(0.05)
        except TimeoutError:
            said = await self.text()
            raise AssertionError(f"never came: {what or script} (last: {last}). The page: {said}") from None

    def _skip_loaded(self) -> None:
        """Take pages that have loaded by now as read: what is done next brings another."""
        while not self._loaded.empty():
            self._read_already.add(self._loaded.get_nowait())

    async def _read(self, wanted: str = "") -> str:
        """Wait for a page, by default for any that was not read yet; gives its text."""
        async with asyncio.timeout(DEADLINE_S):
            while not self._is_new(loaded := await self._loaded.get(), wanted):
                assert not wanted or loaded not in self._failures, self._failures[loaded]
        self._read_already.add(loaded)
        self.status = self._statuses[loaded]
        return await self.text()

    def _is_new(self, loaded: str, wanted: str) -> bool:
        return loaded in self._statuses and loaded not in self._read_already and wanted in ("", loaded)


@asynccontextmanager
async def started(
    kind: Callable[[aiohttp.ClientWebSocketResponse], _B],
    command: Sequence[str],
    announces: str,
    path: str = "",
) -> AsyncIterator[_B]:
    """Start a browser, and end it with its renderers.

    It prints the address of its debugging socket on stderr behind `announces`; `path` is added to it.
    """
    program = shutil.which(command[0])
    assert program, f"there is no {command[0]}: this test should have been skipped"
    process = await asyncio.create_subprocess_exec(
        *(program, *command[1:]),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        url = await _debugger(process, announces) + path
        async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0) as socket:
            browser = kind(socket)
            listening = asyncio.ensure_future(browser.listen())
            drained = asyncio.ensure_future(_drain(process))
            try:
                await browser.start()
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


async def _debugger(process: asyncio.subprocess.Process, announces: str) -> str:
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(DEADLINE_S):
        while line := await process.stderr.readline():
            said += line
            if found := re.search(announces.encode() + rb" (ws://\S+)", line):
                return found.group(1).decode()
    raise AssertionError(f"the browser ended:\n{said.decode(errors='replace')}")


async def _drain(process: asyncio.subprocess.Process) -> None:
    """Read what the browser says, so that it does not wait for a reader."""
    assert process.stderr is not None
    while await process.stderr.read(65_536):
        pass
