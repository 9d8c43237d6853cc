"""Run the ways in with every log at its loudest; log to stderr, and tell on stdout what must not be there.

Started by test_provider_secrecy.py in a process of its own, so that nothing else configures logging.
"""

import asyncio
import json
import logging
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

from proxy import log
from proxy.errors import FairleadError
from proxy.http.client import HttpClient, Reply, Request
from proxy.http.clock import REAL, Clock
from proxy.http.secret import Secret
from proxy.onboarding.service import OnboardingService
from proxy.settings.onboarding import ConfirmSettings, DevSettings, FrontDoorSettings, OnboardingSettings
from tests.fakes.browser import Browser
from tests.fakes.provider import Registered, new_key

SECRETS: set[str] = set()
ERRORS: list[str] = []
_NAMES = ("device_code", "user_code", "access_token", "id_token", "refresh_token", "code", "code_verifier")

_made = Secret.__init__


def _remember(self: Secret, value: str) -> None:
    SECRETS.add(value)
    _made(self, value)


_send = HttpClient.send


async def _overhear(self: HttpClient, request: Request) -> Reply:
    reply = await _send(self, request)
    try:
        answer = json.loads(reply.body)
    except ValueError:
        return reply
    if isinstance(answer, dict):
        SECRETS.update(str(answer[name]) for name in _NAMES if name in answer)
    return reply


class Hurried:
    def __init__(self) -> None:
        self.skipped = 0.0
        self.clock = Clock(lambda: REAL.now() + self.skipped, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.skipped += 0 if seconds > 100 else seconds
        await asyncio.sleep(seconds if seconds > 100 else 0.02)


async def attempt(coro: Any) -> None:
    try:
        await coro
    except FairleadError as exc:
        ERRORS.append(f"{exc} / {exc.user_message} / {exc!r} / {exc.__cause__!r} / {exc.__context__!r}")
    except Exception as exc:
        ERRORS.append(f"{exc} / {exc!r}")


async def open_door(approval: str, records: Registered) -> OnboardingService:
    settings = FrontDoorSettings(
        providers=(DevSettings(approval=approval),),  # type: ignore[arg-type]
        confirm=ConfirmSettings(listen="127.0.0.1:0"),
        onboarding=OnboardingSettings(linger_s=1000),
    )
    return await OnboardingService.open(settings.in_effect(embedded=True), records, clock=Hurried().clock)


async def flow(door: OnboardingService, decision: str, account: str) -> None:
    pending = await door.onboarding.begin("192.0.2.1", "alice", new_key().blob)
    SECRETS.add(pending.shown.user_code)
    waiting = asyncio.ensure_future(pending.outcome())
    async with Browser() as browser:
        page = await browser.get(pending.shown.verification_uri_complete)
        page = await browser.submit(page, decision, account=account)
        if page.forms and "confirm" in page.forms[0].buttons:
            page = await browser.submit(page, "confirm")
        elif page.forms:
            page = await browser.submit(page, page.forms[0].buttons[-1])
        await browser.get("".join(page.url))
        SECRETS.update(value for value in browser.cookies.values())
        for url in browser.visited:
            query = parse_qs(urlsplit(url).query)
            SECRETS.update(
                query[name][0] for name in ("code", "state", "nonce", "user_code", "view") if name in query
            )
    await waiting


async def bug(door: OnboardingService) -> None:
    """A bug below everything that holds a secret: its traceback goes to the log."""

    async def broken(self: HttpClient, response: Any) -> bytes:
        del self, response
        raise ZeroDivisionError("planted")

    read, HttpClient._read = HttpClient._read, broken  # type: ignore[method-assign]
    try:
        await door.onboarding.begin("192.0.2.9", "alice", new_key().blob)
    finally:
        HttpClient._read = read  # type: ignore[method-assign]


async def main() -> None:
    for approval in ("device", "confirm"):
        records = Registered()
        door = await open_door(approval, records)
        for decision, account in (("approve", "alice"), ("deny", "alice"), ("approve", "mallory")):
            await attempt(flow(door, decision, account))
        records.failure = ZeroDivisionError("planted in the store")
        await attempt(flow(door, "approve", "alice"))
        if approval == "device":
            await attempt(bug(door))
            for server in door._servers:
                await server.close()
            await attempt(door.onboarding.begin("192.0.2.7", "alice", new_key().blob))
        await door.close()


Secret.__init__ = _remember  # type: ignore[method-assign]
HttpClient.send = _overhear  # type: ignore[method-assign]
log.configure("debug", "json" if "json" in sys.argv else "text")
logging.getLogger().setLevel(logging.DEBUG)
asyncio.run(main(), debug=True)
json.dump({"secrets": sorted(SECRETS), "errors": ERRORS}, sys.stdout)
