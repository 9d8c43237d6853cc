"""Common parts of Fairlead's web pages: one origin, headers, cookies, checks of forms, and the server.

Sources: RFC 6265bis §4.1.3 (name prefixes), CSP Level 3, Fetch §3.2 (Origin). `cookies` decides which cookies
are Fairlead's, and `sessions` which values were issued.

Over plain http, cookies ignore ports (RFC 6265 §8.5): a program on any port of this machine, or behind `ssh
-L`, that gets a browser to `login.localhost:<its port>` reads Fairlead's cookies there, and sets some. A page
therefore never relies on a cookie alone: it also requires a value that only its own origin was given, in an
address or in a form.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from proxy.errors import SettingsError
from proxy.http import listening, pages
from proxy.http.cookies import CookieNames
from proxy.http.sessions import LIFE_S
from proxy.settings.urls import PAGE_HOST, is_page_here

_log = structlog.get_logger("web")
MAX_FORM_BYTES = 16 * 1024
MAX_COOKIE_BYTES = 16 * 1024
"""Limit for all `Cookie` fields of a request: their names are judged in one turn of the event loop."""
_UNHEARD = logging.getLogger("proxy.http.site.unheard")
"""Receives aiohttp's messages about unreadable requests: they quote lines of them, `Cookie` included."""
_UNHEARD.disabled = True
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


_SETTINGS = {"confirm": "front_door.confirm.listen", "dev": "front_door.providers (dev)"}
"""The setting by which an operator moves each page."""


class Site:
    """One origin: its cookies, its checks, its sockets."""

    def __init__(
        self,
        purpose: str,
        host: str,
        port: int,
        public_url: str = "",
        *,
        is_for_programs: bool = False,
        key: bytes = b"",
    ) -> None:
        """Take the address to listen on; `purpose` names cookies and logs.

        `public_url` is the URL that browsers use, if it is not `login.localhost`. With `is_for_programs`,
        programs of this machine may use `local_url` as well. `key` makes forms valid at every replica that
        has it; without one they are valid at this process only.

        Raises: SettingsError when browsers cannot use `host`, and there is no `public_url`.
        """
        self._purpose = purpose
        self._setting = _SETTINGS.get(purpose, purpose)
        if not public_url and not is_page_here(host):
            raise SettingsError(
                f"{self._setting}: a page that listens on {host} needs a public_url, by which browsers come"
            )
        self._host = host
        self._port = port
        self._public_url = public_url.rstrip("/")
        self._is_for_programs = is_for_programs
        self._key = key or secrets.token_bytes(32)
        self._runner: web.AppRunner | None = None
        self._cookies = CookieNames(purpose, is_secure=self._is_secure)
        self.app = web.Application(middlewares=[self._guard], client_max_size=MAX_FORM_BYTES)

    # --------------------------------------------------------------------------------- addresses

    @property
    def port(self) -> int:
        """Return the port in use; valid after `start`."""
        return self._port

    @property
    def public_url(self) -> str:
        """Return the URL that browsers use, without a final slash."""
        return self._public_url or self.local_url

    @property
    def local_url(self) -> str:
        """Return the URL for programs and browsers of this machine; see PAGE_HOST."""
        return f"http://{PAGE_HOST}:{self._port}"

    @property
    def _origin(self) -> str:
        return f"{urlsplit(self.public_url).scheme}://{_authority(self.public_url)}"

    def _is_meant(self, request: web.Request) -> bool:
        """Return whether the one Host of a request is this origin; other names may point at this address."""
        hosts = [value for name, value in request.raw_headers if name.lower() == b"host"]
        urls = (self.public_url, self.local_url) if self._is_for_programs else (self.public_url,)
        ours = {_authority(url).encode() for url in urls}
        return len(hosts) == 1 and _without_default_port(hosts[0].lower(), self.public_url) in ours

    # ---------------------------------------------------------------------------------- lifetime

    async def start(self) -> None:
        """Listen. Raises: SettingsError when the address is not available."""
        runner = await self._run()
        try:
            sockets = await listening.open_sockets(self._host, self._port)
            for listener in sockets:
                await web.SockSite(runner, listener).start()
        except OSError as exc:
            await runner.cleanup()
            raise SettingsError(f"{self._setting}: cannot listen on {exc.strerror}") from None
        self._runner = runner
        self._port = runner.addresses[0][1]

    async def start_behind(self) -> None:
        """Serve connections that another listener accepts and hands to `connection`; do not listen."""
        self._runner = await self._run()

    def connection(self) -> asyncio.Protocol:
        """Make the protocol of one connection that was accepted elsewhere; after `start_behind`."""
        assert self._runner is not None
        assert self._runner.server is not None
        return self._runner.server()

    async def _run(self) -> web.AppRunner:
        runner = web.AppRunner(
            self.app, access_log=None, logger=_UNHEARD, handle_signals=False, keepalive_timeout=15
        )
        await runner.setup()
        return runner

    async def close(self) -> None:
        """Stop listening; requests in progress get a short grace period."""
        if self._runner is not None:
            await self._runner.cleanup()

    # ------------------------------------------------------------------------------------ checks

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests that are not for this origin.

        Log a bug with its traceback and show nothing of it.
        """
        if not self._is_meant(request):
            return web.Response(status=421, text=f"This page is at {self.public_url} and nowhere else.\n")
        fields = _cookie_fields(request)
        if sum(map(len, fields)) > MAX_COOKIE_BYTES:
            text = "There are too many cookies. Delete those of this site, then open the link again."
            return self.page("That did not work", pages.paragraph(text), status=431)
        imitation = self._cookies.imitation(fields)
        if imitation is not None:
            _log.warning("a cookie imitates ours", site=self._purpose, name=ascii(imitation)[:100])
            text = "A cookie imitates one of ours. Delete the cookies of this site, then open the link again."
            return self.page("That did not work", pages.paragraph(text), status=400)
        try:
            return await handler(request)
        except web.HTTPException as exc:
            if exc.status >= 400 and exc.content_type == "text/plain":
                return self.page(
                    "That did not work", pages.paragraph(exc.text or exc.reason), status=exc.status
                )
            raise
        except Exception:  # noqa: BLE001 - the outermost handler: any exception here is a bug
            _log.exception("request failed", site=self._purpose, method=request.method)
            return web.Response(status=500, text="Internal error.\n")

    def check_origin(self, request: web.Request) -> None:
        """Refuse a form that another site sent; browsers put Origin on every POST."""
        if request.headers.get("Origin", "") != self._origin:
            raise web.HTTPForbidden(text="This form was not sent from our page.")

    def cookie(self, request: web.Request, slot: str = "") -> str:
        """Return the value of one of this site's cookies; empty when there is none, or more than one.

        Only its form is checked: `sessions` decides whether it was issued.
        """
        return self._cookies.value(_cookie_fields(request), slot)

    def own_cookies(self, request: web.Request) -> list[tuple[str, str]]:
        """Return the cookies of a request that have this site's names."""
        return self._cookies.own(_cookie_fields(request))

    def give_cookie(
        self, response: web.StreamResponse, value: str, slot: str = "", *, life_s: float = LIFE_S
    ) -> None:
        """Set a cookie. Lax: the way back from a provider is a cross-site link."""
        self._set_cookie(response, slot, value, int(life_s))

    def end_cookie(self, response: web.StreamResponse, slot: str = "") -> None:
        """Delete a cookie."""
        self._set_cookie(response, slot, "", 0)

    def end_oldest_cookies(
        self, request: web.Request, response: web.StreamResponse, kind: str, at_most: int
    ) -> None:
        """Delete cookies whose slot begins with `kind`, until `at_most` are left.

        Browsers send the oldest first (RFC 6265 §5.4).
        """
        slots = self.slots(request, kind)
        for slot in slots[: max(0, len(slots) - at_most)]:
            self.end_cookie(response, kind + slot)

    def slots(self, request: web.Request, kind: str) -> list[str]:
        """Return the rest of each slot of a request's cookies that begins with `kind`, in order."""
        slots = self._cookies.slots(_cookie_fields(request))
        return [slot.removeprefix(kind) for slot in slots if slot.startswith(kind)]

    def _set_cookie(self, response: web.StreamResponse, slot: str, value: str, max_age_s: int) -> None:
        response.set_cookie(
            self._cookies.name(slot),
            value,
            path="/",
            httponly=True,
            samesite="Lax",
            secure=self._is_secure,
            max_age=max_age_s,
        )

    def csrf(self, session: str, about: str) -> str:
        """Return a token that only this site's form for this browser and this matter can hold."""
        return hmac.new(self._key, f"{session}\0{about}".encode(), hashlib.sha256).hexdigest()

    def check_csrf(self, session: str, about: str, token: str) -> None:
        """Refuse a form whose token is not of `csrf` for the same browser and matter."""
        if not session or not hmac.compare_digest(self.csrf(session, about).encode(), token.encode()):
            raise web.HTTPForbidden(
                text="This form is not yours, or too old, or your browser keeps no cookies of this page. "
                "Permit cookies, then open the address or link again that brought you here."
            )

    @property
    def _is_secure(self) -> bool:
        return self.public_url.startswith("https:")

    # ----------------------------------------------------------------------------------- answers

    def page(
        self, title: str, body: str, *, status: int = 200, form_targets: Sequence[str] = ()
    ) -> web.Response:
        """Return a page as response; `form_targets` are other origins to which a form may lead."""
        nonce = secrets.token_urlsafe(16)
        targets = " ".join(["'self'", *form_targets])
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; form-action {targets}; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        html = pages.document(title, body, nonce)
        return web.Response(
            status=status, text=html, content_type="text/html", headers=self.page_headers(policy)
        )

    def page_headers(self, policy: str) -> dict[str, str]:
        """Return the header fields of every page; `policy` is its Content-Security-Policy."""
        headers = {
            "Content-Security-Policy": policy,
            "X-Frame-Options": "DENY",
            "X-Content-Type-Options": "nosniff",
            # Not no-referrer: browsers would then send `Origin: null` with this site's own forms.
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        if self._is_secure:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        return headers


def _cookie_fields(request: web.Request) -> list[bytes]:
    return [value for name, value in request.raw_headers if name.lower() == b"cookie"]


def _authority(url: str) -> str:
    """Return host and port of a URL as browsers write them into Host and Origin (RFC 6454 §6.2)."""
    return _without_default_port(urlsplit(url).netloc.lower().encode(), url).decode()


def _without_default_port(authority: bytes, url: str) -> bytes:
    return authority.removesuffix(_DEFAULT_PORTS[urlsplit(url).scheme].encode())


def redirect(location: str) -> web.Response:
    """Redirect the browser with GET, without a referrer and without caching."""
    headers = {"Location": location, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return web.Response(status=303, headers=headers)


async def read_form(request: web.Request) -> dict[str, str]:
    """Read a form; refuse a repeated field, because two readers could see different values."""
    posted = await request.post()
    if len(set(posted)) != len(posted) or any(not isinstance(value, str) for value in posted.values()):
        raise web.HTTPBadRequest(text="A field of the form came twice, or is a file.")
    return {name: str(value) for name, value in posted.items()}


def read_query(request: web.Request) -> dict[str, str]:
    """Read the query; refuse a repeated parameter (RFC 6749 §3.1)."""
    if len(set(request.query)) != len(request.query):
        raise web.HTTPBadRequest(text="A parameter of the address came twice.")
    return dict(request.query)
