"""A person's browser, for tests that wait as people do: pages over real HTTP, cookies, forms, Origin."""

import asyncio
import re
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from tests.fakes.browser import Browser, Page

_T = TypeVar("_T")


@dataclass(frozen=True)
class Shown:
    """What a terminal told somebody to open."""

    url: str
    code: str

    @property
    def link(self) -> str:
        """What the QR code holds for a device code; the link of a confirm page needs no code."""
        return (
            f"{self.url}?{urlencode({'user_code': self.code})}" if self.url.endswith("/device") else self.url
        )


def find_shown(text: str) -> Shown | None:
    """Read address and code out of what a client printed; None while they are not there yet."""
    url = re.search(r"^open +(http\S+)", text, re.MULTILINE)
    code = re.search(r"^and (?:enter|compare) the code +([A-Z0-9-]+)", text, re.MULTILINE)
    return Shown(url.group(1), code.group(1)) if url and code else None


def decide(shown: Shown, decision: str = "approve", *, look_only: bool = False, **fields: str) -> Page:
    """Open what was shown in a fresh browser and press a button; `account` is who the person is."""

    async def visit() -> Page:
        async with Browser() as browser:
            page = await browser.get(shown.link)
            assert page.status == 200, page.text
            assert shown.code in page.text
            return page if look_only else await browser.submit(page, decision, **fields)

    return in_a_loop(visit())


def in_a_loop(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end in a thread of its own, whatever loop the test itself runs in."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as exc:
            results.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]  # type: ignore[no-any-return]
