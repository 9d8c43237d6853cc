"""The gate with a login: who asks, by the session of this very origin, and whether the request is their own.

    public app ─▶ passes                     no session ─▶ a page that is opened: to the login origin and back
    session ─▶ sent by this origin? ─▶ theirs or shared? ─▶ passes     anything else: 401, never a redirect

Before a session is known, one index in memory is asked, for every request alike. What is absent and what is
forbidden get the same answer.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode

from proxy.http.cookies import CookieNames
from proxy.http.sessions import digest
from proxy.web.crossing import is_preflight, preflight_fields, reader_fields, reader_of
from proxy.web.gate import NOT_PUBLIC, RESERVED_PATH, Asked, Pass, Reply, Verdict
from proxy.web.heads import Field, Request
from proxy.web.index import SharedIndex
from proxy.web.origins import Origins
from proxy.web.places import Opened, Places
from proxy.web.returns import COMPLETED, MAX_PATH, Return, is_slot, new_slot
from proxy.web.road import Address, OwnApp
from proxy.web.sessions import Held, WebSessions

PRE_LIFE_S = 600
"""Time for a sign-in, from leaving an app's origin to coming back."""
REDEEM = RESERVED_PATH + b"/redeem"

NOT_THERE = Reply(404, "There is nothing here, or it is not for you")
"""The same words for an app that is absent, and for one that this user may not open."""

NOT_OF_THIS_PAGE = Reply(403, "Refused", "This request was sent by a page of another origin.")

_BANNED = Reply(403, "Refused", "Your address is banned.")
_NO_REDIRECT = Reply(405, "Not possible", "Use POST for this.", ((b"Allow", b"POST"),))


class LoginGate:
    """The gate of every request to an app's origin."""

    def __init__(
        self,
        index: SharedIndex,
        places: Places,
        sessions: WebSessions,
        origins: Origins,
        login_url: str,
        is_banned: Callable[[str], bool],
    ) -> None:
        """`login_url` is the login origin, without a final slash."""
        self._index = index
        self._places = places
        self._sessions = sessions
        self._origins = origins
        self._login_url = login_url
        self._is_banned = is_banned
        self._is_secure = origins.scheme == "https"
        self._session_cookie = CookieNames("", is_secure=self._is_secure)
        self._pre_cookies = CookieNames("pre", is_secure=self._is_secure)

    def at_once(self, asked: Asked) -> Verdict | None:
        """See Gate: decide without a look-up; None where one is needed."""
        if self._is_banned(asked.client.address):
            return _BANNED
        if asked.is_reserved:
            return None
        public = self._index.find(asked.host.label)
        if public is not None:
            return Pass(public, is_public=True)
        if is_preflight(asked.request) and (permitted := self._preflight(asked)) is not None:
            return permitted
        value = self._value(asked)
        if not self._sessions.is_issued(value, asked.host.name):
            return self._judge(asked, None)
        held = self._sessions.known(value, asked.host.name)
        return None if held is None else self._judge(asked, held)

    async def decide(self, asked: Asked) -> Verdict:
        """See Gate. Raises: StoreError."""
        verdict = self.at_once(asked)
        if verdict is not None:
            return verdict
        if asked.is_reserved:
            return await self._reserved(asked)
        return self._judge(asked, await self._held(asked))

    def _judge(self, asked: Asked, held: Held | None) -> Verdict:
        """Decide about a request to an app that is not public, by the session that came with it."""
        if held is None:
            return self._leave(asked) if asked.is_navigation and asked.request.method == "GET" else NOT_PUBLIC
        opened = self._places.find(held.user, asked.host.label)
        reader = b""
        if not is_own_request(asked.request, self._origins.origin(asked.host.label).encode()):
            reader = b"" if opened is None else self._reader(asked, opened)
            if not reader and not (opened is not None and opened.crossing.embed and is_framed(asked.request)):
                return NOT_OF_THIS_PAGE
        if opened is None:
            return NOT_THERE
        is_owner = opened.owner == held.user.name
        address = Address(
            opened.owner,
            opened.workspace,
            opened.target,
            opened.share,
            held.actor,
            starts=is_owner or opened.wakes,
            owner_id="" if is_owner else opened.owner_id,
            label=opened.label,
            app=opened.slug,
            activity=opened.activity,
            crossing=opened.crossing,
        )
        if not isinstance(opened.target, OwnApp):  # a terminal has a record of its own
            self._sessions.used(held, opened.workspace)
        fields = reader_fields(reader) if reader else ()
        return Pass(address, fields=fields, actor=held.user.name, tag=held)

    def _reader(self, asked: Asked, opened: Opened) -> bytes:
        """Return the origin of another app of the workspace whose page may send this request, or nothing."""
        return reader_of(asked.request, opened.crossing, opened.workspace, self._origins)

    def _preflight(self, asked: Asked) -> Reply | None:
        """Permit the request that a preflight asks about, which comes without a session; None to refuse."""
        opened = self._places.declared(asked.host.label)
        if opened is None or not (reader := self._reader(asked, opened)):
            return None
        return Reply(200, "Permitted", fields=preflight_fields(asked.request, reader))

    async def _held(self, asked: Asked) -> Held | None:
        return await self._sessions.find(self._value(asked), asked.host.name)

    def _value(self, asked: Asked) -> str:
        return self._session_cookie.value(_cookie_fields(asked.request))

    # --------------------------------------------------------------------------------- leaving

    def _leave(self, asked: Asked) -> Reply:
        """Send a browser to the login origin, with a cookie that it has to bring back."""
        slot, value = self._pre(asked)
        path = asked.request.target.decode("ascii")
        back = Return(
            asked.host.label,
            path if len(path) <= MAX_PATH else "/",
            slot,
            digest(value),
            f"{datetime.now(UTC).timestamp():.3f}",
        )
        return Reply(
            303,
            "Sign in",
            fields=(
                (b"Location", f"{self._login_url}/login?{urlencode(back.query())}".encode()),
                self._cookie(self._pre_cookies.name(slot), value, PRE_LIFE_S),
            ),
        )

    def _pre(self, asked: Asked) -> tuple[str, str]:
        """Return slot and value of the cookie that the browser has to bring back, old or new.

        Tabs share it. A cookie for each would have to be limited in number, and the first of many tabs would
        lose its own.
        """
        fields, purpose = _cookie_fields(asked.request), f"pre:{asked.host.name}"
        for slot in self._pre_cookies.slots(fields):
            value = self._pre_cookies.value(fields, slot)
            if is_slot(slot) and self._sessions.seals.is_issued(purpose, value):
                return slot, value
        return new_slot(), self._sessions.seals.issue(purpose)

    # ------------------------------------------------------------------------------- coming back

    async def _reserved(self, asked: Asked) -> Verdict:
        path, _, query = asked.request.target.partition(b"?")
        if asked.request.first(b"service-worker"):
            return Reply(400, "Refused", "This is no script.")
        match path.removeprefix(RESERVED_PATH):
            case b"/redeem":
                return await self._redeem(asked, query.decode("ascii"))
            case b"/sign-out":
                return await self._sign_out(asked)
            case b"/whoami":
                return await self._whoami(asked)
            case b"/wait" | b"/start":  # of the page that waits for an app: as a request to it
                return self._judge(asked, await self._held(asked))
            case _:
                return Reply(404, "There is nothing here")

    async def _redeem(self, asked: Asked, query: str) -> Reply:
        """Take the code that the login origin gave, from the browser that left here."""
        if not asked.is_navigation or asked.request.method != "GET":
            return Reply(400, "Refused", "This address is opened by the login only.")
        given = dict(parse_qsl(query))
        back = Return.read(given)
        fields, host = _cookie_fields(asked.request), asked.host
        if back is None or back.label != host.label:
            return Reply(400, "Refused", "This address is not complete.")
        origin = self._origins.origin(host.label)
        if await self._held(asked) is not None:  # another tab was faster
            return Reply(303, "Signed in", fields=((b"Location", f"{origin}{back.path}".encode()),))
        pre = self._pre_cookies.value(fields, back.slot)
        if not pre:
            return _without_cookie(origin)
        value = await self._sessions.redeem(given.get("code", ""), host.name, pre)
        end_pre = self._cookie(self._pre_cookies.name(back.slot), "", 0)
        if not value:
            return Reply(403, "That did not work", COMPLETED, (end_pre,))
        return Reply(
            303,
            "Signed in",
            fields=(
                (b"Location", f"{origin}{back.path}".encode()),
                self._cookie(self._session_cookie.name(), value, int(self._sessions.life_s)),
                end_pre,
            ),
        )

    async def _sign_out(self, asked: Asked) -> Reply:
        if asked.request.method != "POST":
            return _NO_REDIRECT
        if not is_own_request(asked.request, self._origins.origin(asked.host.label).encode()):
            return NOT_OF_THIS_PAGE
        held = await self._held(asked)
        if held is not None:
            await self._sessions.sign_out(held.record)
        return Reply(200, "Signed out", "", (self._cookie(self._session_cookie.name(), "", 0),))

    async def _whoami(self, asked: Asked) -> Reply:
        held = await self._held(asked)
        if held is None:
            return NOT_PUBLIC
        if not is_own_request(asked.request, self._origins.origin(asked.host.label).encode()):
            return NOT_OF_THIS_PAGE
        return Reply(200, json.dumps({"user": held.user.name, "session": held.record.id}))

    def _cookie(self, name: str, value: str, max_age_s: int) -> Field:
        secure = "; Secure" if self._is_secure else ""
        text = f"{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}"
        return b"Set-Cookie", text.encode()


def is_own_request(request: Request, origin: bytes) -> bool:
    """Tell whether a request with our cookie was sent by the page of `origin`, or by its user.

    Browsers put `Origin` on every WebSocket, every unsafe request and every request of another origin that
    can be read; a request without it that changes nothing may be an image or script of another page, which
    `Sec-Fetch-Site` tells (Fetch Metadata Request Headers §2.3), and may be a page that a user opens.
    """
    said = [value for name, value in request.fields if name.lower() == b"origin"]
    if said:
        return said == [origin]
    if request.upgrade or request.method not in ("GET", "HEAD", "OPTIONS"):
        return False
    if request.first(b"sec-fetch-site") in (b"", b"same-origin", b"none"):
        return True
    is_opened = request.first(b"sec-fetch-mode") == b"navigate"
    return is_opened and request.first(b"sec-fetch-dest") == b"document"


def is_framed(request: Request) -> bool:
    """Tell whether a frame of another page is opened; `frame-ancestors` of the answer decides about it."""
    is_frame = request.first(b"sec-fetch-dest") in (b"iframe", b"frame")
    return request.method == "GET" and request.first(b"sec-fetch-mode") == b"navigate" and is_frame


def _cookie_fields(request: Request) -> list[bytes]:
    return [value for name, value in request.fields if name.lower() == b"cookie"]


def _without_cookie(origin: str) -> Reply:
    text = (
        "This browser did not send back a cookie that this page gave it a moment ago. Either it blocks "
        f"cookies of {origin}, or the sign-in took longer than {PRE_LIFE_S // 60} minutes. Permit cookies of "
        "this page, then open the address of the app again."
    )
    return Reply(403, "Your browser keeps no cookies of this page", text)
