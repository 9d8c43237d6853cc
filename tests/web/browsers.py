"""The browsers that a test of the web half runs in, each started once for a module."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes import firefox
from tests.fakes.chromium import open_chromium
from tests.fakes.firefox import open_firefox
from tests.fakes.remote import Browser, Person
from tests.wire.harness import needs

BOTH = (
    pytest.param("chromium", marks=needs("chromium")),
    pytest.param("firefox", marks=needs(firefox.PROGRAM)),
)


class Browsers:
    """Browsers that are started when they are first asked for; they look at no certificate."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._started: dict[str, Browser] = {}

    async def person(self, kind: str) -> Person:
        """Open a window of a person who has been nowhere yet, in the browser of that name."""
        browser = self._started.get(kind)
        if browser is None:
            directory = self._directory / kind
            opening = (
                open_chromium(directory, ["--ignore-certificate-errors"])
                if kind == "chromium"
                else open_firefox(directory)
            )
            browser = self._started[kind] = await self._stack.enter_async_context(opening)
        return await browser.person()

    async def forget_everyone(self) -> None:
        """Close every window, and destroy every jar."""
        for browser in self._started.values():
            await browser.forget_everyone()


@asynccontextmanager
async def open_browsers(directory: Path) -> AsyncIterator[Browsers]:
    """Start browsers with profiles below `directory` when they are asked for, and end them."""
    async with AsyncExitStack() as stack:
        yield Browsers(directory, stack)
