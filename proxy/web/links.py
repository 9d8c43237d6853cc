"""An SSH key as a login for the browser: a link that is printed in a terminal, good once and for 60 s.

    ssh alice+lobby@host web ─▶ link and code        GET  /link/{token}  whose key, from where, which code
                                                     POST /link/{token}  spends it and signs the browser in

Opening the link spends nothing, so that a program which looks at links does no harm. The form is of this
browser only, and a session that the browser has already is never replaced without asking.
"""

import secrets
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from aiohttp import web

from proxy.access import policy
from proxy.access.lobby import Link
from proxy.events import schema
from proxy.events.publisher import Publisher
from proxy.http import pages
from proxy.http.pages import Button, Fact
from proxy.http.sessions import digest
from proxy.http.site import read_form
from proxy.model import CertificateProof, KeyProof, Principal
from proxy.web.login import LoginPages, client_of
from proxy.web.session_store import Invitation
from proxy.web.sessions import SignIn

LIFE_S = 60
MAX_COOKIES = 3
_TOKEN, _BROWSER = "link", "link-browser"
_WORDS = "BCDFGHJKLMNPQRSTVWXZ"
_GONE = "This link was used already, or it is older than a minute. Type the command again."


class LinkPages:
    """Links for signing in, and their pages on the login origin."""

    def __init__(self, login: LoginPages, publisher: Publisher) -> None:
        self._login = login
        self._site = login.site
        self._sessions = login.sessions
        self._publisher = publisher
        self._site.app.add_routes(
            [web.get("/link/{token}", self._ask), web.post("/link/{token}", self._answer)]
        )

    async def make(self, principal: Principal) -> Link:
        """Make a link for the holder of the key that `principal` proved. Raises: StoreError."""
        proof = principal.credential
        if not isinstance(proof, KeyProof | CertificateProof):
            raise TypeError("only an SSH key makes a link")
        token = self._sessions.seals.issue(_TOKEN)
        code = "".join(secrets.choice(_WORDS) for _ in range(4))
        user, client = principal.user, principal.client
        expires_at = datetime.now(UTC) + timedelta(seconds=LIFE_S)
        invitation = Invitation(user.name, user.id, proof, client.host, code, expires_at)
        await self._sessions.store.invite(invitation, token)
        self._publisher.publish(
            schema.WebLinkMade(
                user=user.name,
                client_address=client.host,
                connection_id=client.conn_id,
                fingerprint=proof.fingerprint,
            )
        )
        return Link(f"{self._login.url}/link/{token}", code, LIFE_S)

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        token = request.match_info["token"]
        invitation = await self._invitation(token)
        if invitation is None:
            return self._login.sorry("This link is not good", _GONE, 404)
        held = await self._login.held(request)
        browser = self._sessions.seals.issue(_BROWSER)
        shown = pages.facts(
            [
                Fact("Code", invitation.code, code=True),
                Fact("User name", invitation.user),
                Fact("From address", invitation.client),
                Fact("With key", invitation.proof.fingerprint),
                Fact("Signed in here", "" if held is None else held.user.name),
            ]
        )
        warning = (
            "Go on only if you typed the command yourself, at this address, and your terminal shows this "
            "code. "
            "From then on this browser acts as the user above."
        )
        if held is not None:
            warning += f" It is signed in as {held.user.name}, and that session ends."
        about = _about(token, "" if held is None else held.record.id)
        buttons = [Button("sign-in", "Sign in", go=True), Button("leave", "Do not sign in")]
        form = pages.form(request.path, [("csrf", self._site.csrf(browser, about))], "", buttons)
        response = self._site.page("Is this you?", shown + pages.paragraph(warning, "warning") + form)
        self._site.end_oldest_cookies(request, response, "link-", MAX_COOKIES - 1)
        self._site.give_cookie(response, browser, _slot(token), life_s=LIFE_S * 2)
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self._site.check_origin(request)
        token = request.match_info["token"]
        form = await read_form(request)
        browser = self._site.cookie(request, _slot(token))
        held = await self._login.held(request)
        about = _about(token, "" if held is None else held.record.id)
        is_ours = self._sessions.seals.is_issued(_BROWSER, browser)
        self._site.check_csrf(browser if is_ours else "", about, form.get("csrf", ""))
        invitation = await self._invitation(token, spends=True)
        if invitation is None:
            return self._login.sorry("This link is not good", _GONE, 404)
        if form.get("decision") != "sign-in":
            return self._login.sorry("Not signed in", "The link is not good any more.", 200)
        user = await self._login.directory.find(invitation.user)
        is_same = user is not None and user.id == invitation.user_id
        if user is None or not is_same or not policy.may_login(user, datetime.now(UTC)):
            self._login.refused(request, "", "user_not_admitted", invitation.user)
            return self._login.sorry("Not signed in", "This user may not log in.")
        who = SignIn(user, client_of(request), proof=invitation.proof)
        response = await self._login.signed_in(request, who, None)
        self._site.end_cookie(response, _slot(token))
        return response

    async def _invitation(self, token: str, *, spends: bool = False) -> Invitation | None:
        """Find the invitation of a link; a made-up link costs no look-up. Raises: StoreError."""
        if not self._sessions.seals.is_issued(_TOKEN, token):
            return None
        store = self._sessions.store
        return await (store.spend(token) if spends else store.invitation(token))


def _about(token: str, session: str) -> str:
    """Name the decision of a form: one link, for a browser with one session or none."""
    return f"link {digest(token)} {quote(session)}"


def _slot(token: str) -> str:
    return f"link-{digest(token)[:8]}"
