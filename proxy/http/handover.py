"""Pages served by several replicas: a browser meets any of them, and one terminal waits at one of them.

A ticket and the `state` of a visit begin with the tag of the replica that made them. Whoever gets a request
for another's hands it over as it came and gives back the answer; what is decided, and every secret of it,
stays with the replica whose terminal waits. No trust is needed for that: the other's page is as public.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Protocol

import aiohttp
import structlog
from aiohttp import web
from yarl import URL

from proxy.http.client import read_at_most

_log = structlog.get_logger("confirm")

_TAG_CHARACTERS = 8
_TAGGED = re.compile(rf"([0-9a-f]{{{_TAG_CHARACTERS}}})\.")
_HANDED_OVER = "Fairlead-Handed-Over"
"""Header of a request that goes no further; a client that sends it is answered by whom it meets."""
_REQUEST_HEADERS = ("Host", "Origin", "Content-Type", "User-Agent")
_OF_ONE_HOP = frozenset({"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"})
_MAX_ANSWER_BYTES = 256 * 1024
_MAX_CONNECTIONS = 32

Cookies = Sequence[tuple[str, str]]
"""Names and values."""


def tag_of(proxy_id: str) -> str:
    """Name a replica in links, without telling what it is called."""
    return hashlib.sha256(proxy_id.encode()).hexdigest()[:_TAG_CHARACTERS]


class Peers(Protocol):
    """The replicas that can hand requests over."""

    @property
    def own(self) -> str:
        """Give the tag of this one; empty when nobody hands anything over."""

    def page_of(self, tag: str) -> str | None:
        """Give the URL at which another one's page is reached; None when it is not known, or gone."""


class Alone:
    """No replicas: every browser meets the one process there is."""

    own = ""

    def page_of(self, tag: str) -> str | None:
        """See Peers."""
        del tag
        return None


ALONE = Alone()


class HandOver:
    """Takes requests to the replicas that they are for."""

    def __init__(self, peers: Peers, timeout_s: float) -> None:
        self._peers = peers
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    def tagged(self, word: str) -> str:
        """Say in a random word of this replica's whose it is."""
        return f"{self._peers.own}.{word}" if self._peers.own else word

    def other_page(self, request: web.Request) -> str | None:
        """Give the page that `request` is for; None when that is ours, or nobody's."""
        word = request.match_info.get("id") or request.query.get("state", "")
        found = _TAGGED.match(word)
        if found is None or found[1] == self._peers.own or _HANDED_OVER in request.headers:
            return None
        return self._peers.page_of(found[1])

    async def ask(self, page: str, request: web.Request, cookies: Cookies) -> web.Response:
        """Have another replica answer, which gets `cookies` and none of other sites.

        Raises: HTTPBadGateway when it does not.
        """
        headers = [(_HANDED_OVER, "1")]
        if cookies:
            headers.append(("Cookie", "; ".join(f"{name}={value}" for name, value in cookies)))
        headers += [(name, one) for name in _REQUEST_HEADERS for one in request.headers.getall(name, ())]
        body = await request.read()
        try:
            async with self._client().request(
                request.method,
                URL(page + request.rel_url.raw_path_qs, encoded=True),
                data=body or None,
                headers=headers,
                allow_redirects=False,  # they are for the browser
            ) as reply:
                return await _copied(reply)
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            _log.warning("another replica's page does not answer", page=page, reason=str(exc))
            raise web.HTTPBadGateway(text="Nobody answers behind this link. Connect again.") from None

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                connector=aiohttp.TCPConnector(limit=_MAX_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                requote_redirect_url=False,
            )
        return self._session


async def _copied(reply: aiohttp.ClientResponse) -> web.Response:
    content = await read_at_most(reply.content, _MAX_ANSWER_BYTES)
    headers = [(name, value) for name, value in reply.headers.items() if name.lower() not in _OF_ONE_HOP]
    return web.Response(status=reply.status, body=content, headers=headers)
