"""Recordings in a bucket of an S3-compatible store; the only importer of obstore.

    <prefix>2026-02-03/<id>.json            the manifest
    <prefix>2026-02-03/<id>/00000001        the blocks of the body, one object each

A block is one object, so it is readable and safe as soon as it is stored, and a killed proxy leaves no
partial upload behind. Only the manifest tells the format of the body.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from proxy.errors import SettingsError
from proxy.recording.manifest import Place
from proxy.recording.store import StorageError
from proxy.settings.recording import S3Settings

_T = TypeVar("_T")
_MANIFEST = ".json"


class ObjectStore:
    """A store in a bucket."""

    def __init__(self, settings: S3Settings, *, timeout_s: float) -> None:
        """Create it; `timeout_s` limits one request, and callers repeat failed ones.

        Raises: SettingsError.
        """
        self._prefix = settings.prefix
        self._store = _open(settings, timeout_s)

    async def append(self, place: Place, number: int, offset: int, block: bytes) -> None:
        """Store a block; `offset` is unused, because objects are ordered by number."""
        del offset
        await self._do(obstore.put_async(self._store, self._block(place, number), block, use_multipart=False))

    async def finish(self, place: Place) -> None:
        """Do nothing: an object needs no change at the end."""

    async def put_manifest(self, place: Place, content: bytes) -> None:
        """Replace the manifest."""
        name = self._manifest(place.day, place.id)
        await self._do(obstore.put_async(self._store, name, content, use_multipart=False))

    async def manifest(self, day: str, recording: str) -> bytes | None:
        """Read a manifest."""
        return await self._do(self._get(self._manifest(day, recording)))

    async def read(self, place: Place) -> AsyncIterator[bytes]:
        """Yield the body, block by block."""
        number = 1
        while (block := await self._do(self._get(self._block(place, number)))) is not None:
            yield block
            number += 1

    async def days(self) -> Sequence[str]:
        """List the days."""
        found = await self._do(obstore.list_with_delimiter_async(self._store, self._prefix or None))
        names = (path.removesuffix("/").rpartition("/")[2] for path in found["common_prefixes"])
        return sorted(names)

    async def ids(self, day: str, prefix: str = "") -> Sequence[str]:
        """List the manifests of a day."""
        found = await self._do(obstore.list_with_delimiter_async(self._store, f"{self._prefix}{day}/"))
        names = (item["path"].rpartition("/")[2] for item in found["objects"])
        ids = (name.removesuffix(_MANIFEST) for name in names if name.endswith(_MANIFEST))
        return sorted(one for one in ids if one.startswith(prefix))

    async def delete(self, place: Place) -> None:
        """Delete the blocks, then the manifest, so that an interrupted deletion is found again."""
        found = await self._do(
            obstore.list_with_delimiter_async(self._store, f"{self._prefix}{place.day}/{place.id}/")
        )
        if blocks := [item["path"] for item in found["objects"]]:
            await self._do(obstore.delete_async(self._store, blocks))
        await self._do(obstore.delete_async(self._store, self._manifest(place.day, place.id)))

    async def probe(self) -> None:
        """Write an object called `check`, with the right that recording needs. Raises: StorageError."""
        await self._do(obstore.put_async(self._store, f"{self._prefix}check", b"", use_multipart=False))

    async def close(self) -> None:
        """Do nothing: connections end by themselves."""

    async def _get(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            found = await obstore.get_async(self._store, name)
            return bytes(await found.bytes_async())
        return None

    async def _do(self, operation: Awaitable[_T]) -> _T:
        """Await an operation. Raises: StorageError."""
        try:
            return await operation
        except (BaseError, OSError, ValueError) as exc:
            raise StorageError(str(exc).partition("\n")[0][:500]) from exc

    def _manifest(self, day: str, recording: str) -> str:
        return f"{self._prefix}{day}/{recording}{_MANIFEST}"

    def _block(self, place: Place, number: int) -> str:
        return f"{self._prefix}{place.day}/{place.id}/{number:08d}"


def _open(settings: S3Settings, timeout_s: float) -> S3Store:
    config: Any = {}
    try:
        if settings.secret_access_key_file is not None:
            config["access_key_id"] = settings.access_key_id
            config["secret_access_key"] = settings.secret_access_key_file.read_text().strip()
        if settings.session_token_file is not None:
            config["session_token"] = settings.session_token_file.read_text().strip()
    except OSError as exc:
        raise SettingsError(f"recording.s3: {exc.filename}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError("recording.s3: a file with a secret is not UTF-8 text") from exc
    if settings.endpoint:
        config["endpoint"] = settings.endpoint
    limit = timedelta(seconds=timeout_s)
    try:
        return S3Store(
            settings.bucket,
            region=settings.region,
            client_options={
                "allow_http": settings.endpoint.startswith("http://"),
                "timeout": limit,
                "connect_timeout": limit,
            },
            retry_config={"max_retries": 0, "retry_timeout": limit},
            config=config,
        )
    except (BaseError, ValueError) as exc:
        raise SettingsError(f"recording.s3: {exc}") from exc
