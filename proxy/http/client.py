"""The one HTTP client: bounded in time, size and reach; exceptions of its library end here.

Redirects are never followed, cookies never kept, proxies of the environment never used, and only https
(or http on loopback) is allowed. Names below `localhost` are loopback here (RFC 6761 §6.3), without the
system's resolver. URLs and bodies are not logged: either may hold a secret.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import quote_plus, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from proxy.addresses import is_localhost_name, is_loopback
from proxy.errors import SettingsError
from proxy.http.secret import Secret
from proxy.settings.onboarding import HttpSettings
from proxy.settings.urls import check_url

_USER_AGENT = "fairlead"
_PASSING_STATUSES = frozenset({408, 425, 429})
"""Request Timeout, Too Early and Too Many Requests (RFC 9110, RFC 8470, RFC 6585)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; a body makes it a POST of a form (application/x-www-form-urlencoded)."""

    url: str
    form: Mapping[str, str | Secret] | None = None
    bearer: Secret | None = None
    basic: tuple[str, Secret] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Request({'GET' if self.form is None else 'POST'} {_place(self.url)})"


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete reply; header names in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def media_type(self) -> str:
        """Return the content type without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_passing(self) -> bool:
        """Return whether a later attempt may succeed; GitHub reports a spent rate limit with status 403."""
        if self.status < 400:
            return False
        return (
            self.status >= 500
            or self.status in _PASSING_STATUSES
            or self.headers.get("x-ratelimit-remaining") == "0"
        )

    @property
    def retry_after_s(self) -> float:
        """Return the seconds that `Retry-After` asks to wait, 0 or more.

        0 without a readable one (RFC 9110 §10.2.3).
        """
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdecimal():
            return float(text[:9])
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        if moment.tzinfo is None:  # `-0000`: UTC without a claim about the place
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())

    def json(self) -> Any:
        """Decode the body, with any content type.

        Raises: ValueError, without any of the body.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise ValueError("the reply is not JSON") from None


def client_credentials(client_id: str, secret: Secret) -> tuple[str, Secret]:
    """Encode a client's id and secret for Basic authentication, as RFC 6749 §2.3.1 requires."""
    return quote_plus(client_id), Secret(quote_plus(secret.reveal()))


class HttpFailed(Exception):
    """A request without a complete reply; the text is safe to log.

    Callers translate it into an error of their own.
    """

    was_sent: bool = True
    """Whether the other side may have acted on the request."""


class HttpUnsent(HttpFailed):
    """A request that was not sent: it is not allowed, or no server accepted the connection."""

    was_sent = False


class Http(Protocol):
    """A client for requests."""

    async def send(self, request: Request) -> Reply:
        """Send a request; return the reply. Raises: HttpFailed."""


class HttpClient:
    """The client of a process: a bounded pool of connections, for one event loop."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._ssl = _trust(settings)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Reply:
        """Send one request; return its reply within `request_timeout_s`.

        Raises: HttpFailed when it is not allowed, or no complete reply within the size limit came.
        """
        place = _place(request.url)
        try:
            check_url(request.url)
        except ValueError as exc:
            raise HttpUnsent(str(exc)) from None
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                return await self._exchange(request)
        except TimeoutError:
            raise HttpFailed(f"{place} did not answer in time") from None
        except aiohttp.ClientConnectorError as exc:
            raise HttpUnsent(f"{place}: {_words(exc)}") from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise HttpFailed(f"{place}: {_words(exc)}") from None

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, request: Request) -> Reply:
        headers = {"User-Agent": _USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"}
        headers.update(request.headers)
        if request.bearer is not None:
            headers["Authorization"] = f"Bearer {request.bearer.reveal()}"
        elif request.basic is not None:
            login, password = request.basic
            headers["Authorization"] = aiohttp.encode_basic_auth(login, password.reveal())
        form = None if request.form is None else {key: _reveal(value) for key, value in request.form.items()}
        async with self._open_session().request(
            "GET" if form is None else "POST",
            request.url,
            data=form,
            headers=headers,
            allow_redirects=False,
            proxy=self._proxy_for(request.url),
        ) as response:
            body = await self._read(response)
            lowered = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status, lowered, body)

    def _proxy_for(self, url: str) -> str | None:
        """Return the forward proxy for a URL; none for this machine, which that proxy cannot reach."""
        host = urlsplit(url).hostname or ""
        is_here = is_loopback(host) or is_localhost_name(host)
        return None if is_here else self._settings.proxy_url or None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise ValueError("the reply is compressed, which was not asked for")
        return await read_at_most(response.content, self._settings.max_reply_bytes)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._settings.max_connections, ssl=self._ssl, resolver=LocalhostResolver()
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


class LocalhostResolver(AbstractResolver):
    """A resolver that maps names below `localhost` to loopback, as browsers do, and passes on the others.

    Source: RFC 6761 §6.3. glibc asks DNS for them unless a module of systemd is installed.
    """

    def __init__(self) -> None:
        self._others = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises: OSError."""
        if not is_localhost_name(host):
            return await self._others.resolve(host, port, family)
        loopback = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)
            for kind, address in loopback
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None:
        """Close the resolver of the other names."""
        await self._others.close()


async def read_at_most(content: aiohttp.StreamReader, limit_bytes: int) -> bytes:
    """Read a body to its end. Raises: ValueError when it is longer than `limit_bytes`."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise ValueError(f"the reply is larger than {limit_bytes} bytes")
    return bytes(body)


def _trust(settings: HttpSettings) -> ssl.SSLContext | bool:
    if settings.ca_file is None:
        return True
    try:
        context = ssl.create_default_context()
        context.load_verify_locations(settings.ca_file)
    except ssl.SSLError:
        raise SettingsError(
            f"front_door.http.ca_file: {settings.ca_file}: holds no certificate in PEM"
        ) from None
    except OSError as exc:
        raise SettingsError(f"front_door.http.ca_file: {settings.ca_file}: {exc.strerror}") from None
    return context


def _place(url: str) -> str:
    """Return scheme, host and path of a URL: the parts that a log may hold."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]


def _words(exc: Exception) -> str:
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({exc.certificate_error})"
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return f"no connection ({exc.os_error.strerror or exc.os_error})"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return "it hung up without an answer"
    if isinstance(exc, aiohttp.ClientPayloadError):
        return "it hung up in the middle of the answer"
    if type(exc) is ValueError:
        return str(exc)
    return type(exc).__name__


def _reveal(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value
