"""Pages of several replicas: a browser reaches any of them, and the terminal waits at one of them.

A ticket and the `state` of a visit begin with the tag of the replica that made them. Any other replica passes
the request on unchanged and returns the answer. Every decision and every secret stay with the replica whose
terminal waits. That needs no trust between replicas: the other's page is as public as this one.
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
"""Header of a request that was passed on already.

The replica that gets it answers, even if a client sent it.
"""
_REQUEST_HEADERS = ("Host", "Origin", "Content-Type", "User-Agent")
_OF_ONE_HOP = frozenset({"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"})
_MAX_ANSWER_BYTES = 256 * 1024
_MAX_CONNECTIONS = 32

Cookies = Sequence[tuple[str, str]]
"""Names and values."""


def tag_of(proxy_id: str) -> str:
    """Return the tag of a replica in links, which does not reveal its name."""
    return hashlib.sha256(proxy_id.encode()).hexdigest()[:_TAG_CHARACTERS]


class ReplicaPages(Protocol):
    """The replicas that can pass requests on to each other."""

    @property
    def own(self) -> str:
        """Return the tag of this replica; empty when no replica passes requests on."""

    def page_of(self, tag: str) -> str | None:
        """Return the URL of another replica's page; None when it is unknown or the replica has ended."""


class SingleReplica:
    """A single replica: every browser reaches this process."""

    own = ""

    def page_of(self, tag: str) -> str | None:
        """See ReplicaPages."""
        del tag
        return None


ALONE = SingleReplica()


class HandOver:
    """The passing on of requests to the replicas that made their tickets."""

    def __init__(self, peers: ReplicaPages, timeout_s: float) -> None:
        self._peers = peers
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    def tagged(self, word: str) -> str:
        """Return a random word with the tag of this replica."""
        return f"{self._peers.own}.{word}" if self._peers.own else word

    def other_page(self, request: web.Request) -> str | None:
        """Return the page that `request` is for; None when it is this one's, or no replica's."""
        word = request.match_info.get("id") or request.query.get("state", "")
        found = _TAGGED.match(word)
        if found is None or found[1] == self._peers.own or _HANDED_OVER in request.headers:
            return None
        return self._peers.page_of(found[1])

    async def ask(self, page: str, request: web.Request, cookies: Cookies) -> web.Response:
        """Let another replica answer; it gets `cookies` and none of other sites.

        Raises: HTTPBadGateway when it does not answer.
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
                allow_redirects=False,  # for the browser
            ) as reply:
                return await _copied(reply)
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            _log.warning("another replica's page does not answer", page=page, reason=str(exc))
            raise web.HTTPBadGateway(text="No login waits behind this link. Connect again.") from None

    async def close(self) -> None:
        """Close connections."""
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
