"""A GitLab by script, in a thread: it counts what it is asked, and says yes when the test does.

Also a program: `python -m tests.wire.forge INTERVAL_S` prints its address, where `/asked` tells the counts.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.fakes.provider import HANG_UP, Say, Scripted, fixture, said
from tests.wire.newcomer import public_line

START, POLL = "/oauth/authorize_device", "/oauth/token"
DEVICE_CODE = "device-code-that-nobody-may-see"
ACCESS = "access-token-that-nobody-may-see"
REFRESH = "refresh-token-that-nobody-may-see"
CLIENT_SECRET = "client-secret-that-nobody-may-see"
SECRETS = (DEVICE_CODE, ACCESS, REFRESH, CLIENT_SECRET)


class Forge:
    """As `alice` with the keys given; every device code is the same but for its number."""

    def __init__(self, server: Scripted, keys: list[Path]) -> None:
        self.server = server
        self.interval_s = 1
        self.expires_s = 300
        self.groups: list[str] = []
        self.refreshes = 0
        self._started = 0
        self._is_approved = threading.Event()
        self._entries = [
            {"id": n, "key": public_line(key), "usage_type": "auth"} for n, key in enumerate(keys)
        ]
        self.live()

    def live(self) -> None:
        """Answer everybody as a GitLab does, from now on."""
        server, pages = self.server, fixture("gitlab")
        self.groups = list(pages["userinfo"]["body"]["groups"])
        server.on(START, self._start)
        server.on(POLL, self._poll)
        server.on("/api/v4/user", said(pages["user"]))
        server.on("/oauth/userinfo", self._userinfo)
        server.on("/.well-known/openid-configuration", Say({"issuer": server.url}))
        server.on("/api/v4/users/42/keys?per_page=100", Say(self._entries))

    @property
    def provider(self) -> dict[str, Any]:
        """Settings that point here; the secret's file is put there by the test."""
        return {"kind": "gitlab", "url": self.server.url, "client_id": "fairlead"}

    def approve(self) -> None:
        """The person says yes to whoever asks from now on."""
        self._is_approved.set()

    def block(self) -> None:
        """Disable Alice's account."""
        self.server.on("/api/v4/user", Say({**fixture("gitlab")["user"]["body"], "state": "blocked"}))

    def die(self) -> None:
        """Hang up on everybody from now on."""
        for path in (START, POLL, "/api/v4/user", "/.well-known/openid-configuration"):
            self.server.on(path, HANG_UP)

    @property
    def starts(self) -> int:
        return self.server.count(START)

    @property
    def polls(self) -> int:
        return self.server.count(POLL)

    async def _start(self, request: web.Request) -> web.StreamResponse:
        del request
        self._started += 1
        return web.json_response(
            {
                "device_code": f"{DEVICE_CODE}-{self._started}",
                "user_code": f"CODE{self._started:04}",
                "verification_uri": f"{self.server.url}/oauth/device",
                "expires_in": self.expires_s,
                "interval": self.interval_s,
            }
        )

    async def _userinfo(self, request: web.Request) -> web.StreamResponse:
        del request
        return web.json_response({**fixture("gitlab")["userinfo"]["body"], "groups": self.groups})

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        """Answer a poll, or rotate the one refresh token that is good."""
        form = await request.post()
        if form.get("grant_type") == "refresh_token":
            if form.get("refresh_token") != self._refresh_token:
                return web.json_response({"error": "invalid_grant"}, status=400)
            self.refreshes += 1
            return web.json_response(
                {"access_token": ACCESS, "token_type": "Bearer", "refresh_token": self._refresh_token}
            )
        if not self._is_approved.is_set():
            return web.json_response({"error": "authorization_pending"}, status=400)
        return web.json_response(
            {
                "access_token": ACCESS,
                "token_type": "Bearer",
                "refresh_token": self._refresh_token,
                "expires_in": 7200,
            }
        )

    @property
    def _refresh_token(self) -> str:
        return f"{REFRESH}-{self.refreshes}" if self.refreshes else REFRESH


@contextmanager
def open_forge(keys: list[Path]) -> Iterator[Forge]:
    """Serve from a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(make: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), loop).result(60)

    server = Scripted()
    try:
        run(server.__aenter__)
        try:
            yield Forge(server, keys)
        finally:
            run(server.__aexit__)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


async def _serve(interval_s: int) -> None:
    async with Scripted() as server:
        forge = Forge(server, [])
        forge.interval_s = interval_s

        async def asked(request: web.Request) -> web.StreamResponse:
            del request
            return web.json_response({"starts": forge.starts, "polls": forge.polls})

        server.on("/asked", asked)
        print(server.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
