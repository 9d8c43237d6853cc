"""The page before the first visit of another user's app: it names the owner, so that no app passes for ours.

    app ─▶ /login ─▶ the app is another user's, and this browser was not asked yet ─▶ this page
                     POST /continue ─▶ a cookie of the login origin ─▶ /login ─▶ back to the app

The cookie is good for one user, one owner and one app. Without it the page comes again, and nothing else.
"""

from collections.abc import Mapping

from aiohttp import web

from proxy.http import pages
from proxy.http.pages import Button, Fact
from proxy.http.sessions import digest
from proxy.http.site import Site
from proxy.model import User
from proxy.web.index import Opened
from proxy.web.origins import Origins
from proxy.web.returns import Return
from proxy.web.seals import Seals
from proxy.web.sessions import Held

CONTINUE = "/continue"

_LIFE_S = 365 * 24 * 3_600
_MAX_COOKIES = 20
"""Apps that one browser remembers; for the oldest the page comes again."""
_KIND = "seen-"


class Interstitial:
    """One per process; keeps nothing."""

    def __init__(self, site: Site, seals: Seals, origins: Origins) -> None:
        self._site = site
        self._seals = seals
        self._origins = origins

    def was_passed(self, request: web.Request, held: Held, owner: User, opened: Opened) -> bool:
        """Return whether this browser was asked about an app already, by the same user."""
        purpose = _purpose(held.user, owner, opened)
        return self._seals.is_issued(purpose, self._site.cookie(request, _slot(purpose)))

    def page(
        self, request: web.Request, held: Held, owner: User, opened: Opened, back: Return
    ) -> web.Response:
        """Return the page that asks."""
        shown = pages.facts(
            [
                Fact("Owner", owner.name),
                Fact("Name", owner.full_name),
                Fact("App", opened.title),
                Fact("Address", f"{self._origins.origin(opened.label)}/"),
                Fact("You are", held.user.name),
            ]
        )
        warning = (
            f"What this page shows and does is decided by {owner.name}, not by Fairlead. Type no password "
            "there that is not for it. Your acts there are done in the workspace of its owner."
        )
        csrf = self._site.csrf(self._site.cookie(request), _about(back.label))
        form = pages.form(
            CONTINUE,
            [*back.query().items(), ("csrf", csrf)],
            "",
            [Button("open", "Open it", go=True), Button("leave", "Do not open it")],
        )
        body = shown + pages.paragraph(warning, "warning") + form
        return self._site.page(f"This page is {owner.name}'s", body)

    def check(self, request: web.Request, back: Return, form: Mapping[str, str]) -> None:
        """Refuse an answer that is not from this browser's own page about this app. Raises: HTTPForbidden."""
        self._site.check_csrf(self._site.cookie(request), _about(back.label), form.get("csrf", ""))

    def remember(
        self, request: web.Request, response: web.StreamResponse, held: Held, owner: User, opened: Opened
    ) -> None:
        """Have the browser keep that it was asked."""
        purpose = _purpose(held.user, owner, opened)
        self._site.end_oldest_cookies(request, response, _KIND, _MAX_COOKIES - 1)
        self._site.give_cookie(response, self._seals.issue(purpose), _slot(purpose), life_s=_LIFE_S)


def _purpose(user: User, owner: User, opened: Opened) -> str:
    return f"seen:{user.id}:{owner.id}:{opened.label}"


def _slot(purpose: str) -> str:
    return f"{_KIND}{digest(purpose)[:8]}"


def _about(label: str) -> str:
    return f"pass on to {label}"
