"""Published key lists: read page by page, requested rarely, kept through an outage.

A list is used for `fresh_s` without a request, then requested with its ETags. While the provider fails, the
last known list serves up to `max_stale_s`, marked as stale. Only keys that `keys` accepts are kept, as blobs:
the text around them is the provider's and has no meaning here.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

import structlog

from proxy.errors.login import OnboardingError
from proxy.errors.stores import KeyInvalid
from proxy.http.client import HttpFailed, Request
from proxy.http.clock import Clock
from proxy.identity.keys import parse_public_key
from proxy.identity.profile import KeyList
from proxy.onboarding.providers.base import Tools, misconfigured, unavailable
from proxy.settings.onboarding import KeyListSettings

_log = structlog.get_logger("providers")
RETRY_S = 15.0
"""Seconds without requests after a failure.

Otherwise five hundred logins would each wait for the same time-out.
"""
_NEXT = re.compile(r'<([^<>]{1,2000})>\s*(?:;[^,]*?)?;\s*rel="?next"?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """One page as last read."""

    etag: str
    document: Any = field(repr=False)
    next_url: str


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pages: dict[str, Page] = field(default_factory=dict)
    blobs: frozenset[bytes] | None = None
    fetched_at: float = 0.0
    failed_at: float = float("-inf")
    failure: OnboardingError | None = None


Fetch = Callable[["dict[str, Page]"], Awaitable[list[str]]]


class KeyLists:
    """Lists of one provider by account; at most `max_accounts` of them."""

    def __init__(self, provider: str, settings: KeyListSettings, clock: Clock) -> None:
        self._provider = provider
        self._settings = settings
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    async def get(self, account: str, fetch: Fetch, *, fresh: bool = False) -> KeyList:
        """Return the list of an account; `fetch` reads its lines, given the pages of last time.

        One request at a time for an account; other callers wait for its result. `fresh` sends a request even
        when a list is recent, and still falls back to that list.

        Raises: the error of `fetch`, when there is no list of an acceptable age.
        """
        entry = self._entries.setdefault(account, _Entry())
        self._entries.move_to_end(account)
        while len(self._entries) > self._settings.max_accounts:
            self._entries.popitem(last=False)
        limit_s = 0.0 if fresh else self._settings.fresh_s
        async with entry.lock:
            now = self._clock.now()
            if entry.blobs is not None and now - entry.fetched_at < limit_s:
                return KeyList(entry.blobs, age_s=now - entry.fetched_at)
            if fresh or now - entry.failed_at >= RETRY_S:
                await self._refresh(account, entry, fetch)
        return self._answer(entry)

    async def _refresh(self, account: str, entry: _Entry, fetch: Fetch) -> None:
        try:
            async with asyncio.timeout(self._settings.lookup_timeout_s):
                lines = await fetch(entry.pages)
        except (OnboardingError, TimeoutError) as exc:
            failure = unavailable(self._provider, "its key list took too long")
            entry.failure = exc if isinstance(exc, OnboardingError) else failure
            entry.failed_at = self._clock.now()
            _log.warning(
                "key list not to be had",
                provider=self._provider,
                account=account,
                reason=str(entry.failure),
            )
        else:
            entry.blobs = parse_lines(lines, self._settings.max_keys)
            entry.fetched_at, entry.failure = self._clock.now(), None

    def _answer(self, entry: _Entry) -> KeyList:
        age_s = self._clock.now() - entry.fetched_at
        if entry.failure is None and entry.blobs is not None:
            return KeyList(entry.blobs, age_s=age_s)
        if entry.blobs is not None and age_s <= self._settings.max_stale_s:
            return KeyList(entry.blobs, stale=True, age_s=age_s)
        assert entry.failure is not None
        raise type(entry.failure)(str(entry.failure), user_message=entry.failure.user_message)


def parse_lines(lines: Iterable[str], limit: int) -> frozenset[bytes]:
    """Return the blobs of usable keys, at most `limit`; weak and unknown ones are left out silently."""
    blobs: set[bytes] = set()
    for line in lines:
        try:
            blobs.add(parse_public_key(line).blob)
        except KeyInvalid:
            continue
        if len(blobs) >= limit:
            break
    return frozenset(blobs)


async def read_pages(tools: Tools, provider: str, first: Request, pages: dict[str, Page]) -> list[Any] | None:
    """Read a list that may have pages (RFC 8288 `next`), each requested with its ETag; None for 404.

    Raises: ProviderUnavailable; ProviderMisconfigured for a list that leads elsewhere or does not end.
    """
    entries: list[Any] = []
    seen: dict[str, Page] = {}
    request = first
    while True:
        page = await _read_page(tools, provider, request, pages.get(request.url))
        if page is None:
            return None
        if not isinstance(page.document, list):
            raise misconfigured(provider, f"{request!r}: not a list")
        seen[request.url] = page
        entries.extend(page.document)
        if not page.next_url:
            break
        if len(seen) >= tools.keys.max_pages or len(entries) >= 2 * tools.keys.max_keys:
            break
        if page.next_url in seen or _origin(page.next_url) != _origin(first.url):
            raise misconfigured(provider, f"{request!r}: its next page leads elsewhere")
        request = replace(first, url=page.next_url)
    pages.clear()
    pages.update(seen)
    return entries


async def _read_page(tools: Tools, provider: str, request: Request, known: Page | None) -> Page | None:
    headers = dict(request.headers)
    if known is not None and known.etag:
        headers["If-None-Match"] = known.etag
    try:
        reply = await tools.http.send(replace(request, headers=headers))
        if reply.status == 304 and known is not None:
            return known
        if reply.status == 404:
            return None
        if reply.status == 200:
            return Page(reply.headers.get("etag", ""), reply.json(), _next_url(request.url, reply.headers))
    except (HttpFailed, ValueError) as exc:
        raise unavailable(provider, f"{request!r}: {exc}") from None
    if reply.is_passing:
        raise unavailable(provider, f"{request!r}: status {reply.status}")
    raise misconfigured(provider, f"{request!r}: status {reply.status}")


def _next_url(url: str, headers: Any) -> str:
    found = _NEXT.search(headers.get("link", ""))
    return urljoin(url, found[1]) if found else ""


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
