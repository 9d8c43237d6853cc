"""What our web pages have in common: headers, cookies, who may post, and being served. Decides nothing else.

Sources: RFC 6265bis §4.1.3 (`__Host-`), CSP Level 3, Fetch §3.2 (Origin); sibling hosts and other ports of
loopback can set cookies for us, so a cookie that comes twice counts as none.
"""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from proxy.errors import SettingsError
from proxy.identity import pages
from proxy.settings.front_door import is_loopback

_log = structlog.get_logger("web")
MAX_FORM_BYTES = 16 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """One origin that we serve: its cookies, its checks, its socket."""

    def __init__(self, purpose: str, host: str, port: int, public_url: str = "") -> None:
        """`purpose` names cookies and logs; `public_url` is how browsers come, if not by host and port."""
        self._purpose = purpose
        self._host = host
        self._port = port
        self._public_url = public_url.rstrip("/")
        self._key = secrets.token_bytes(32)
        self._runner: web.AppRunner | None = None
        self.app = web.Application(middlewares=[self._guard], client_max_size=MAX_FORM_BYTES)

    # --------------------------------------------------------------------------------- addresses

    @property
    def port(self) -> int:
        """The port in use, once started."""
        return self._port

    @property
    def public_url(self) -> str:
        """How browsers come here; without a final slash."""
        return self._public_url or self.local_url

    @property
    def local_url(self) -> str:
        """How this process itself comes here."""
        host = "127.0.0.1" if self._host in ("", "0.0.0.0", "::") else self._host  # noqa: S104 - compared
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    @property
    def _origin(self) -> str:
        parts = urlsplit(self.public_url)
        return f"{parts.scheme}://{parts.netloc}".lower()

    def _hosts(self) -> set[str]:
        """Give the values of Host that mean us; others are names somebody pointed at our address."""
        hosts = {urlsplit(self.public_url).netloc.lower(), urlsplit(self.local_url).netloc.lower()}
        if is_loopback(urlsplit(self.local_url).hostname or ""):
            hosts.add(f"localhost:{self._port}")
        return hosts

    # ---------------------------------------------------------------------------------- lifetime

    async def start(self) -> None:
        """Listen. Raises: SettingsError when the address cannot be had."""
        runner = web.AppRunner(self.app, access_log=None, handle_signals=False, keepalive_timeout=15)
        await runner.setup()
        site = web.TCPSite(runner, self._host or None, self._port, backlog=128)
        try:
            await site.start()
        except OSError as exc:
            await runner.cleanup()
            raise SettingsError(
                f"{self._purpose}: cannot listen on {self._host}:{self._port}: {exc}"
            ) from None
        self._runner = runner
        self._port = runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening; requests in progress get a moment."""
        if self._runner is not None:
            await self._runner.cleanup()

    # ------------------------------------------------------------------------------------ checks

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what is not for this origin; a bug is logged with its traceback and says nothing."""
        if request.host.lower() not in self._hosts():
            return web.Response(status=421, text="This server does not go by that name.\n")
        try:
            return await handler(request)
        except web.HTTPException as exc:
            if exc.status >= 400 and exc.content_type == "text/plain":
                return self.page(
                    "That did not work", pages.paragraph(exc.text or exc.reason), status=exc.status
                )
            raise
        except Exception:  # noqa: BLE001 - the edge: whatever gets here is a bug
            _log.exception("request failed", site=self._purpose, method=request.method)
            return web.Response(status=500, text="Internal error.\n")

    def check_origin(self, request: web.Request) -> None:
        """Refuse a form that another site sent; browsers put Origin on every POST."""
        if request.headers.get("Origin", "").lower() != self._origin:
            raise web.HTTPForbidden(text="This form was not sent from our page.")

    def session(self, request: web.Request) -> str:
        """Give the value of our cookie; empty when there is none, or more than one."""
        found = [
            value.strip()
            for header in request.headers.getall("Cookie", [])
            for name, _, value in (part.partition("=") for part in header.split(";"))
            if name.strip() == self._cookie
        ]
        return found[0] if len(found) == 1 and 20 <= len(found[0]) <= 100 else ""

    def give_session(self, response: web.StreamResponse, session: str) -> None:
        """Bind a browser to `session`. Lax: the way back from a provider is a cross-site link."""
        response.set_cookie(
            self._cookie,
            session,
            path="/",
            httponly=True,
            samesite="Lax",
            secure=self._is_secure,
            max_age=3_600,
        )

    def csrf(self, session: str, about: str) -> str:
        """Make a token that only a form of ours for this browser and this matter can hold."""
        return hmac.new(self._key, f"{session}\0{about}".encode(), hashlib.sha256).hexdigest()

    def check_csrf(self, session: str, about: str, token: str) -> None:
        """Refuse a form that was not made by `csrf` for the same browser and matter."""
        if not session or not hmac.compare_digest(self.csrf(session, about).encode(), token.encode()):
            raise web.HTTPForbidden(text="This form is not yours, or too old. Open the link again.")

    @property
    def _is_secure(self) -> bool:
        return self.public_url.startswith("https:")

    @property
    def _cookie(self) -> str:
        name = f"fairlead-{self._purpose}"
        return f"__Host-{name}" if self._is_secure else name

    # ----------------------------------------------------------------------------------- answers

    def page(
        self, title: str, body: str, *, status: int = 200, form_targets: Sequence[str] = ()
    ) -> web.Response:
        """Answer with a page; `form_targets` are other origins that a form may end up at."""
        nonce = secrets.token_urlsafe(16)
        targets = " ".join(["'self'", *form_targets])
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; form-action {targets}; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        headers = {
            "Content-Security-Policy": policy,
            "X-Frame-Options": "DENY",
            "X-Content-Type-Options": "nosniff",
            # Not no-referrer: browsers would then send `Origin: null` with our own forms.
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        if self._is_secure:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        html = pages.document(title, body, nonce)
        return web.Response(status=status, text=html, content_type="text/html", headers=headers)


def new_session() -> str:
    """Make a value for a browser's cookie."""
    return secrets.token_urlsafe(32)


def redirect(location: str) -> web.Response:
    """Send the browser on with GET, keeping the address bar's history out of referrers and caches."""
    headers = {"Location": location, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return web.Response(status=303, headers=headers)


async def read_form(request: web.Request) -> dict[str, str]:
    """Read a form; a field that comes twice is refused, so that nobody sees another value than we do."""
    posted = await request.post()
    if len(set(posted)) != len(posted) or any(not isinstance(value, str) for value in posted.values()):
        raise web.HTTPBadRequest(text="A field of the form came twice, or is a file.")
    return {name: str(value) for name, value in posted.items()}


def read_query(request: web.Request) -> dict[str, str]:
    """Read the query; a parameter that comes twice is refused (RFC 6749 §3.1)."""
    if len(set(request.query)) != len(request.query):
        raise web.HTTPBadRequest(text="A parameter of the address came twice.")
    return dict(request.query)
