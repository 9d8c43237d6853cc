"""The one door to the Kubernetes API: deadlines, retries, and errors of ours.

Every call here may be sent twice without harm (apply, merge, delete and reads are idempotent, and what was
created already is a conflict that callers expect), so all of them are retried: without an answer, when
the server is throttled and when it stumbles. The `kubernetes` package brings what is tedious to get
right, that is kubeconfigs, credentials and TLS; bodies are plain dictionaries.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import asyncio
import json
import random
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import structlog
from kubernetes.aio import config as credentials
from kubernetes.aio.client import ApiClient, Configuration

from proxy.errors import SettingsError
from proxy.errors.workspaces import (
    ClusterConflict,
    ClusterError,
    ClusterForbidden,
    ClusterNotFound,
    ClusterRefused,
    ClusterThrottled,
    ClusterUnavailable,
)
from proxy.settings.kubernetes import KubernetesSettings
from proxy.workspaces.kubernetes.objects import POD, Kind, Object, kind_of, name_of, namespace_of

FIELD_MANAGER = "fairlead"
MAX_LINE_BYTES = 16 * 1024 * 1024
"""One object of a watch, or one line of a log; etcd takes none larger than 1.5 MiB."""

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"
_DRY_RUN = (("dryRun", "All"),)
_FIRST_WAIT_S = 0.1
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_ERRORS: Mapping[int, type[ClusterError]] = {
    400: ClusterRefused,
    401: ClusterForbidden,
    403: ClusterForbidden,
    404: ClusterNotFound,
    409: ClusterConflict,
    410: ClusterConflict,
    413: ClusterRefused,
    422: ClusterRefused,
    429: ClusterThrottled,
}
_LACKS_A_RIGHT = re.compile(
    r'(\S+ ("[^"]*" )?is )?forbidden: User "(\\.|[^"\\])*" cannot \w+ (resource|path) '
)
"""How the server words a missing right; messages of policies and quotas begin otherwise.

Source: `forbiddenMessage` of k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go
"""
_FOREIGN = (aiohttp.ClientError, TimeoutError, OSError)

_log = structlog.get_logger("kubernetes")


@dataclass(frozen=True, slots=True)
class Query:
    """Some objects of one kind in one namespace."""

    kind: Kind
    namespace: str
    labels: str = ""
    """A label selector."""
    fields: str = ""
    """A field selector."""

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """Return the selectors as parameters of a URL."""
        given = [("labelSelector", self.labels), ("fieldSelector", self.fields)]
        return [(key, value) for key, value in given if value]


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects of a list, and the version from which a watch goes on."""

    items: Sequence[Object]
    version: str


class Expired(ClusterConflict):
    """The server no longer knows the version that a watch or a list wanted to go on from: list anew."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    body: Any = None
    content_type: str = _JSON

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Api:
    """One per process and cluster. Safe to use from many tasks of one event loop."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        self._client: ApiClient | None = None
        self._opening = asyncio.Lock()

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Read one object. Raises: ClusterError, ClusterNotFound above all."""
        return await self._ask(_Request("GET", kind.path(namespace, name)))

    async def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Read one object, or None when there is none. Raises: ClusterError."""
        try:
            return await self.get(kind, namespace, name)
        except ClusterNotFound:
            return None

    async def list(self, query: Query) -> Listing:
        """Read all objects of a query, page by page. Raises: ClusterError."""
        path = query.kind.path(query.namespace)
        limit = ("limit", str(self._settings.page_size))
        items: list[Object] = []
        page: list[tuple[str, str]] = [limit]
        while True:
            try:
                answer = await self._ask(_Request("GET", path, [*query.parameters, *page]))
            except Expired:  # between two pages, because we were slow: take them all at once
                if not items:
                    raise
                items, page = [], []
                continue
            items += answer.get("items") or []
            if not (more := answer["metadata"].get("continue")):
                return Listing(items, answer["metadata"]["resourceVersion"])
            page = [limit, ("continue", more)]

    async def apply(
        self, body: Object, *, manager: str = FIELD_MANAGER, force: bool = True, dry_run: bool = False
    ) -> Object:
        """Make an object be as `body` says, as far as it says anything: server-side apply.

        Fields that `manager` applied before and leaves out now are removed; fields of others stay. With
        `force`, another manager of one of ours loses it. With `dry_run` the server judges it only.

        Raises: ClusterError; without `force` a ClusterConflict where another manager set it otherwise.
        """
        path = kind_of(body).path(namespace_of(body), name_of(body))
        query = [("fieldManager", manager), ("force", str(force).lower()), *_DRY_RUN[:dry_run]]
        return await self._ask(_Request("PATCH", path, query, body, _APPLY))

    async def create(self, body: Object, *, dry_run: bool = False) -> Object:
        """Make a new object, or with `dry_run` only have the server judge it.

        Raises: ClusterConflict when there is one of that name; ClusterError.
        """
        path = kind_of(body).path(namespace_of(body))
        query = [("fieldManager", FIELD_MANAGER), *_DRY_RUN[:dry_run]]
        return await self._ask(_Request("POST", path, query, body))

    async def merge(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        """Change some fields of an object; None removes one (RFC 7386). Raises: ClusterError."""
        query = [("fieldManager", FIELD_MANAGER)]
        return await self._ask(_Request("PATCH", kind.path(namespace, name), query, body, _MERGE))

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        foreground: bool = False,
        now: bool = False,
    ) -> None:
        """Delete an object; one that is gone is fine. Only the one with `uid`, when it is given.

        `foreground` keeps it until what it owns is gone; `now` does not wait for a pod's node.

        Raises: ClusterError; a conflict with a younger object of that name is none.
        """
        options: Object = {"propagationPolicy": "Foreground" if foreground else "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if now:
            options["gracePeriodSeconds"] = 0
        try:
            await self._ask(_Request("DELETE", kind.path(namespace, name), body=options))
        except ClusterNotFound:
            return
        except ClusterConflict:
            if not uid:
                raise

    async def watch(self, query: Query, version: str) -> AsyncIterator[Object]:
        """Yield the changes from `version` on, until the server or silence ends it: `{type, object}`.

        Raises: Expired; ClusterError.
        """
        lasting = self._settings.watch_timeout_s * random.uniform(0.8, 1)  # noqa: S311 - to spread load, no secret
        parameters = [
            *query.parameters,
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", str(max(1, int(lasting)))),
        ]
        request = _Request("GET", query.kind.path(query.namespace), parameters)
        silence_s = lasting + self._settings.request_timeout_s
        async with self._streaming(request, silence_s) as lines:
            async for line in lines:
                said = _parsed(line)
                if said.get("type") == "ERROR":
                    raise _error(int(said["object"].get("code") or 500), said["object"], str(request))
                yield said

    async def log(
        self, namespace: str, pod: str, container: str, *, follow: bool, tail: int
    ) -> AsyncIterator[str]:
        """Give lines that a container wrote, the last `tail` first. Raises: ClusterError."""
        query = [("container", container), ("tailLines", str(tail)), ("follow", str(follow).lower())]
        request = _Request("GET", POD.path(namespace, pod, "log"), query)
        silence_s = None if follow else self._settings.request_timeout_s
        async with self._streaming(request, silence_s) as lines:
            async for line in lines:
                yield line.decode(errors="replace")

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]
            self._client = None

    # ------------------------------------------------------------------------------- one request

    async def _ask(self, request: _Request) -> Object:
        """Send a request until it is answered, or `retry_for_s` have passed."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._settings.retry_for_s
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                return await self._ask_once(request)
            except ClusterUnavailable as exc:
                pause_s = max(exc.retry_after_s, random.uniform(wait_s / 2, wait_s))  # noqa: S311 - spreads load
                if loop.time() + pause_s >= give_up_at:
                    raise
                _log.debug("asking again", request=str(request), why=str(exc), wait_s=round(pause_s, 2))
            await asyncio.sleep(pause_s)
            wait_s = min(wait_s * 2, self._settings.retry_wait_max_s)

    async def _ask_once(self, request: _Request) -> Object:
        async with self._sent(request, total_s=self._settings.request_timeout_s) as response:
            return _parsed(await response.read())

    @asynccontextmanager
    async def _streaming(
        self, request: _Request, silence_s: float | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._sent(request, silence_s=silence_s) as response:
            lines = _lines(response.content)
            try:
                yield lines
            finally:
                await lines.aclose()

    @asynccontextmanager
    async def _sent(
        self, request: _Request, *, total_s: float | None = None, silence_s: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Hold the answer to a request, which was a success. Raises: ClusterError, also while it is read."""
        timeout = aiohttp.ClientTimeout(
            total=total_s, sock_read=silence_s, sock_connect=self._settings.request_timeout_s
        )
        try:
            response = await self._send(request, timeout)
            if response.status == 401:
                response.release()
                await self._renew()
                response = await self._send(request, timeout)
            try:
                if response.status >= 400:
                    raise await _refusal(response, str(request))
                yield response
            finally:
                response.close() if silence_s or total_s is None else response.release()
        except _FOREIGN as exc:
            why = str(exc) or type(exc).__name__
            raise ClusterUnavailable(f"{request}: {why}") from exc

    async def _send(self, request: _Request, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        client = self._client or await self._open()
        headers = {"Accept": _JSON, "Content-Type": request.content_type, "User-Agent": FIELD_MANAGER}
        await client.update_params_for_auth(headers, [], ["BearerToken"], "", "", None)
        url = client.configuration.host + request.path
        if request.query:
            url += "?" + urlencode(request.query)
        answer = await client.rest_client.request(  # type: ignore[no-untyped-call]
            request.method, url, headers=headers, body=request.body, _request_timeout=timeout
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _open(self) -> ApiClient:
        async with self._opening:
            if self._client is None:
                self._client = ApiClient(await _configuration(self._settings))
            return self._client

    async def _renew(self) -> None:
        """Read the credentials again: tokens of files and of helper programs expire.

        The connections stay; they carry no identity but a client certificate's, which a token outlives.
        """
        if self._client is not None:
            fresh = await _configuration(self._settings)
            self._client.configuration.api_key = fresh.api_key
            self._client.configuration.refresh_api_key_hook = fresh.refresh_api_key_hook


async def _configuration(settings: KubernetesSettings) -> Configuration:
    """Find the cluster and who we are to it. Raises: SettingsError."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = settings.max_connections
    # Authorities of many clusters lack extensions that newer OpenSSL asks for; the chain is verified anyway.
    configuration.disable_strict_ssl_verification = True
    try:
        if settings.kubeconfig is None and _has_service_account():
            credentials.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            await credentials.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=settings.kubeconfig and str(settings.kubeconfig.expanduser()),
                context=settings.context or None,
                client_configuration=configuration,
                persist_config=False,
            )
    except (credentials.ConfigException, OSError, ValueError, ssl.SSLError) as exc:
        raise SettingsError(f"kubernetes: no cluster can be found: {exc}") from exc
    return configuration


def _has_service_account() -> bool:
    """Return whether this process runs in a pod that may talk to its own cluster."""
    return _SERVICE_ACCOUNT.exists()


async def _refusal(response: aiohttp.ClientResponse, request: str) -> ClusterError:
    """Return the server's reason of a refusal; a body that is no Status comes from a proxy in between."""
    try:
        status = json.loads(await response.content.read(64 * 1024))
    except ValueError:
        status = {}
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {"message": f"HTTP {response.status} {response.reason}"}
    error = _error(response.status, status, request)
    if isinstance(error, ClusterUnavailable):
        after = response.headers.get("Retry-After", "")
        error.retry_after_s = float(after) if after.isdecimal() else 0.0
    return error


def _error(code: int, status: Object, request: str) -> ClusterError:
    """Name a failure. Forbidden by RBAC and refused by a quota share one code: only the words differ."""
    said = str(status.get("message") or status.get("reason") or code)
    message = f"{request}: {said}"
    if code == 410 or status.get("reason") == "Expired":
        return Expired(message)
    if code == 403 and not _LACKS_A_RIGHT.match(said):
        return ClusterRefused(message)
    return _ERRORS.get(code, ClusterUnavailable if code >= 500 else ClusterError)(message)


def _parsed(data: bytes) -> Object:
    try:
        value = json.loads(data)
    except ValueError as exc:
        raise ClusterUnavailable("the API server sent something that is not JSON") from exc
    if not isinstance(value, dict):
        raise ClusterUnavailable("the API server sent something that is no object")
    return value


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Cut a stream into lines, without the end of each; the last one may lack it."""
    rest = bytearray()
    async for chunk in content.iter_any():
        rest += chunk
        *whole, last = rest.split(b"\n") if b"\n" in chunk else (rest,)
        for line in whole:
            if line:
                yield bytes(line)
        rest = bytearray(last)
        if len(rest) > MAX_LINE_BYTES:
            raise ClusterUnavailable(f"the API server sent a line of more than {MAX_LINE_BYTES} bytes")
    if rest:
        yield bytes(rest)
