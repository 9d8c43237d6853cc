"""Forms of the portal: their defence, and the sentence about their outcome on the next page.

A form counts when this origin's page sent it: `Origin` is this one, `Sec-Fetch-Site` where the browser sends
it is `same-origin` (Fetch Metadata Request Headers §2.3), and the token is that of this session and action.
"""

from aiohttp import web

from proxy.http.site import Site, read_form, redirect
from proxy.web.seals import Seals

_SAID_LIFE_S = 60
_MAX_SAID = 1_000


class Forms:
    """The forms of one process, good at every replica."""

    def __init__(self, site: Site, seals: Seals) -> None:
        self._site = site
        self._seals = seals

    def token(self, session: str, action: str) -> str:
        """Return the token of a form that posts to the path `action`; `session` is the cookie's value."""
        return self._site.csrf(session, f"portal {action}")

    async def read(self, request: web.Request) -> dict[str, str]:
        """Return the fields of a form of ours. Raises: HTTPForbidden for any other, HTTPBadRequest."""
        self._site.check_origin(request)
        check_same_origin(request)
        form = await read_form(request)
        session = self._site.cookie(request)
        self._site.check_csrf(session, f"portal {request.path}", form.pop("csrf", ""))
        return form

    def done(self, request: web.Request, path: str, sentence: str) -> web.Response:
        """Answer a form: the browser gets the page `path`, which says the sentence."""
        sealed = self._seals.seal(self._purpose(request), {"text": sentence[:_MAX_SAID]})
        joint = "&" if "?" in path else "?"
        return redirect(f"{path}{joint}said={sealed}")

    def said(self, request: web.Request) -> str:
        """Return the sentence that `done` sent along; empty for none, and for one that is not ours or old."""
        given = request.query.get("said", "")
        about = self._seals.open(self._purpose(request), given, _SAID_LIFE_S) if given else None
        return "" if about is None else about.get("text", "")

    def _purpose(self, request: web.Request) -> str:
        """Bind a sentence to one session, so that no user can send another one a link with it."""
        return f"portal-said {self._site.cookie(request)}"


def check_same_origin(request: web.Request) -> None:
    """Refuse a request that another site's page began. Raises: HTTPForbidden."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise web.HTTPForbidden(text="This request was sent by a page of another site.")
