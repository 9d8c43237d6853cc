"""The common road of every request to the portal: session, defence, errors in words, and the frame of pages.

request ─▶ session? ─▶ form of ours? ─▶ handler ─▶ page, or the next page after a form
             │ none: the ways to sign in            │ FairleadError: a page with its sentence
"""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web

from proxy.access.administration import Administration
from proxy.addresses import source_of
from proxy.errors import FairleadError
from proxy.errors.programs import Refused
from proxy.errors.stores import KeyNotFound, RecordingNotFound, StoreError, UserNotFound
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import Decision
from proxy.web.login import LoginPages, client_of
from proxy.web.portal.forms import Forms
from proxy.web.portal.rendering import ASSETS, POLICY, Renderer
from proxy.web.sessions import Held

_log = structlog.get_logger("portal")

SignedIn = Callable[[web.Request, Held], Awaitable[web.StreamResponse]]
Act = Callable[[web.Request, Held, dict[str, str]], Awaitable[web.StreamResponse]]
"""A form that was sent by our own page, with its fields."""

_NOT_FOUND = (WorkspaceNotFound, KeyNotFound, RecordingNotFound, UserNotFound)
_ASSET_LIFE_S = 31_536_000
LIVE = "/live/"
"""Of the paths of streams, which are no use of a session: an open page alone keeps no browser signed in."""


class Desk:
    """The common part of all pages of one process."""

    def __init__(self, login: LoginPages, renderer: Renderer, rights: Administration) -> None:
        self.login = login
        self.rights = rights
        self.forms = Forms(login.site, login.sessions.seals)
        self._renderer = renderer
        self._assets = {one.path: one for one in renderer.assets.values()}
        login.site.app.router.add_get(f"{ASSETS}{{digest}}/{{name}}", self._asset)

    def get(self, path: str, handler: SignedIn) -> None:
        """Serve a page to signed-in users."""
        self.login.site.app.router.add_get(path, self.signed_in(handler))

    def post(self, path: str, act: Act) -> None:
        """Serve a form of our pages to signed-in users."""

        async def checked(request: web.Request, held: Held) -> web.StreamResponse:
            return await act(request, held, await self.forms.read(request))

        self.login.site.app.router.add_post(path, self.signed_in(checked))

    def signed_in(self, handler: SignedIn) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Wrap a handler: it gets requests with a session, and its errors become pages."""

        async def answer(request: web.Request) -> web.StreamResponse:
            held = await self.login.held(request, is_use=not request.path.startswith(LIVE))
            if held is None:
                return self.login.choose(None)
            try:
                return await handler(request, held)
            except StoreError:
                raise  # answered for all pages of this origin alike
            except FairleadError as exc:
                return self._failed(request, held, exc)

        return answer

    def require(self, decision: Decision) -> None:
        """Go on only when the policy allows it. Raises: Refused."""
        if not decision:
            raise Refused(decision.reason)

    def note(self, held: Held, act: str, **about: str) -> None:
        """Write an act, its user and its object to the log."""
        _log.info("portal act", act=act, user=held.user.name, session=held.record.id, **about)

    # ---------------------------------------------------------------------------------- pages

    def page(
        self, request: web.Request, held: Held, template: str, /, *, status: int = 200, **values: Any
    ) -> web.Response:
        """Return a page of a template, with the values that every page shows."""
        html = self._renderer.page(template, self.common(request, held) | values)
        headers = self.login.site.page_headers(POLICY)
        return web.Response(status=status, text=html, content_type="text/html", headers=headers)

    def part(self, request: web.Request, held: Held, template: str, **values: Any) -> str:
        """Return the part of a page that a template makes."""
        return self._renderer.page(template, self.common(request, held) | values)

    def common(self, request: web.Request, held: Held) -> dict[str, Any]:
        """Return the values that every template may use."""
        session = self.login.site.cookie(request)
        user = held.user
        return {
            "user": user,
            "path": request.path,
            "said": self.forms.said(request),
            "token": lambda action: self.forms.token(session, action),
            "sign_out_token": self.login.site.csrf(session, "sign-out"),
            "is_operator": bool(self.rights.may_operate(user)),
            "sees_recordings": bool(
                self.rights.may_list_recordings(user, "") or self.rights.may_list_recordings(user, user.name)
            ),
            "own_address": source_of(client_of(request)),
        }

    def _failed(self, request: web.Request, held: Held, exc: FairleadError) -> web.Response:
        status = 403 if isinstance(exc, Refused) else 404 if isinstance(exc, _NOT_FOUND) else 503
        _log.info("portal refused", path=request.path, user=held.user.name, code=exc.code, reason=str(exc))
        text = exc.user_message
        return self.page(
            request,
            held,
            "sorry.html",
            status=status,
            text=f"{text[:1].upper()}{text[1:]}.",
            back=_back(request),
        )

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        asset = self._assets.get(request.path)
        if asset is None:
            raise web.HTTPNotFound(text="There is no such file.")
        headers = {
            "Cache-Control": f"public, max-age={_ASSET_LIFE_S}, immutable",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        return web.Response(
            body=asset.body, content_type=asset.content_type, charset="utf-8", headers=headers
        )


def _back(request: web.Request) -> str:
    """Return the page on which a form stood, as far as it is known: the first part of its path."""
    head = request.path.strip("/").split("/")[0]
    return "/operators" if head == "operators" else f"/{head}" if request.method == "GET" else "/"
