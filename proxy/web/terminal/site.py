"""The origin of a terminal: its page, the files of the page, and the WebSocket.

Served behind the gate, to the owner of the workspace only; never on the login origin.
"""

import logging
import secrets
from asyncio import Protocol
from html import escape

import structlog
from aiohttp import web

from proxy.model import Visit
from proxy.userstring import format_user_string
from proxy.web.in_process import ADDRESS
from proxy.web.road import Address
from proxy.web.terminal import assets
from proxy.web.terminal.assets import SCRIPTS, STYLES, Assets
from proxy.web.terminal.messages import SUBPROTOCOL
from proxy.web.terminal.session import TerminalParts, TerminalSession

_log = structlog.get_logger("terminal")
_UNHEARD = logging.getLogger("proxy.web.terminal.unheard")
"""Receives aiohttp's messages about unreadable requests: they quote lines of them."""
_UNHEARD.disabled = True
_MAX_MESSAGE_BYTES = 64 * 1024
_CLOSE_S = 1.0
"""For terminals to end when the process does; the front has closed their WebSockets by then."""
_KINDS = {".js": "text/javascript", ".css": "text/css"}
_KEPT = "private, max-age=31536000, immutable"


class TerminalSite:
    """One per process; `connection` makes the protocol of one connection from the front."""

    def __init__(self, parts: TerminalParts) -> None:
        self._parts = parts
        self._assets: Assets | None = None
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/assets/{version}/{name}", self._asset),
                web.get("/socket", self._socket),
            ]
        )
        self._runner = web.AppRunner(
            app, access_log=None, logger=_UNHEARD, handle_signals=False, shutdown_timeout=_CLOSE_S
        )
        self._server: web.Server | None = None

    async def start(self) -> None:
        """Be ready for connections."""
        await self._runner.setup()
        self._server = self._runner.server

    async def close(self) -> None:
        """End all connections."""
        await self._runner.cleanup()

    def connection(self) -> Protocol:
        """Make the protocol of one connection; after `start`."""
        assert self._server is not None
        return self._server()

    # --------------------------------------------------------------------------------- answers

    async def _page(self, request: web.Request) -> web.StreamResponse:
        """Answer with the terminal, or how to install the emulator."""
        visit = _visit(request)
        name = format_user_string(visit.address)
        files = self._files()
        if files is None:
            return _answer(503, _document(name, _MISSING), "default-src 'none'")
        nonce = secrets.token_urlsafe(16)
        body = f'<main id="terminal"></main>{_BAR}'
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; "
            # The emulator sets colours by style attributes; contents of the terminal are text nodes only.
            "style-src-attr 'unsafe-inline'; img-src data:; font-src 'self'; "
            f"connect-src 'self' {_socket_origin(request)}"
        )
        return _answer(200, _document(name, body, files.version, nonce), policy)

    def _files(self) -> Assets | None:
        """Return the files of the page; looked for again until the emulator is installed."""
        if self._assets is None:
            self._assets = assets.load()
        return self._assets

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        files = self._files()
        name = request.match_info["name"]
        if files is None or request.match_info["version"] != files.version or name not in files.files:
            raise web.HTTPNotFound(text="There is nothing here\n")
        kind = _KINDS[name[name.rindex(".") :]]
        headers = {"Cache-Control": _KEPT, "X-Content-Type-Options": "nosniff"}
        return web.Response(body=files.files[name], content_type=kind, charset="utf-8", headers=headers)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """Be a terminal; the gate has checked that a page of this origin asks."""
        visit = _visit(request)
        socket = web.WebSocketResponse(
            heartbeat=self._parts.connection.keepalive_interval_s,
            protocols=(SUBPROTOCOL,),
            compress=False,
            max_msg_size=_MAX_MESSAGE_BYTES,
        )
        if socket.can_prepare(request).protocol != SUBPROTOCOL:
            raise web.HTTPBadRequest(text="This is the WebSocket of the terminal page\n")
        await socket.prepare(request)
        client = request.headers.get("X-Forwarded-For", "")
        await TerminalSession(self._parts, visit, client, socket).serve()
        return socket


def _visit(request: web.Request) -> Visit:
    """Return the visit of a connection: the gate lets only the owner of the workspace pass."""
    address = None if request.transport is None else request.transport.get_extra_info(ADDRESS)
    if not isinstance(address, Address) or address.principal is None:
        raise web.HTTPForbidden(text="The terminal needs a login\n")
    principal = address.principal
    if principal.user.name != address.owner:
        raise web.HTTPForbidden(text="The terminal is the owner's\n")
    return Visit(principal, principal.user, address.workspace)


def _socket_origin(request: web.Request) -> str:
    """Write the origin of the WebSocket: not all browsers take it to be 'self'."""
    scheme = "wss" if request.headers.get("X-Forwarded-Proto") == "https" else "ws"
    return f"{scheme}://{request.host}"


_BAR = (
    '<footer id="bar" hidden><p id="words" role="status"></p>'
    '<button id="again" type="button">Open a new shell</button></footer>'
    "<noscript><p>A terminal needs JavaScript. Without it, use ssh.</p></noscript>"
)
_MISSING = (
    "<h1>The terminal is not installed</h1>"
    "<p>Its emulator, xterm.js, is no part of Fairlead. The operator adds it with npm, in the folder of "
    "the source:</p><pre>npm ci --prefix proxy/web/terminal/emulator</pre>"
    "<p>Then open this page again. Until then, <code>ssh</code> gives the same shell.</p>"
)


def _document(name: str, body: str, version: str = "", nonce: str = "") -> str:
    links = scripts = ""
    if version:
        links = "".join(f'<link rel="stylesheet" href="/assets/{version}/{one}">' for one in STYLES)
        scripts = "".join(
            f'<script nonce="{nonce}" src="/assets/{version}/{one}" defer></script>' for one in SCRIPTS
        )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title>{links}</head><body>{body}{scripts}</body></html>\n"
    )


def _answer(status: int, html: str, policy: str) -> web.Response:
    headers = {
        "Content-Security-Policy": f"{policy}; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "clipboard-read=(self), clipboard-write=(self)",
        "Cache-Control": "no-store",
    }
    return web.Response(status=status, text=html, content_type="text/html", headers=headers)
