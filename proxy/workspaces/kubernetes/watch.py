"""A list and its changes, for as long as there is a reader: broken watches are taken up again.

A watch ends by its own time, by a restart of the API server, by a proxy in between, or because the server
forgot the version it should go on from (410). The first three go on where they were; the last one lists anew.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import structlog

from proxy.errors.workspaces import ClusterError
from proxy.workspaces.kubernetes.api import Api, Expired, Query
from proxy.workspaces.kubernetes.objects import Object

_FIRST_WAIT_S = 0.1
_log = structlog.get_logger("kubernetes")


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects: they replace the ones that were known before."""

    items: Sequence[Object]
    version: str
    """Of the whole list: an object of a later version is newer than what is said here."""


@dataclass(frozen=True, slots=True)
class Changed:
    """An object is new, or not as it was."""

    item: Object


@dataclass(frozen=True, slots=True)
class Gone:
    """An object is gone; as it was last."""

    item: Object


@dataclass(frozen=True, slots=True)
class Lost:
    """The watch is broken: the known objects may be old, until other news come."""

    reason: str


@dataclass(frozen=True, slots=True)
class Current:
    """The watch goes on where it was."""


News = Listed | Changed | Gone | Lost | Current


async def follow(api: Api, query: Query, *, wait_max_s: float) -> AsyncIterator[News]:
    """Yield the objects and their changes, until the reader leaves. Never raises a ClusterError.

    Begins with Listed, and after a 410 says it again. `wait_max_s` bounds the pause between attempts.
    """
    version = ""
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            if not version:
                listing = await api.list(query)
                version = listing.version
                yield Listed(listing.items, version)
            else:
                yield Current()
            async for said in api.watch(query, version):
                version = said["object"]["metadata"]["resourceVersion"]
                wait_s = _FIRST_WAIT_S
                if (news := _news(said)) is not None:
                    yield news
            wait_s = _FIRST_WAIT_S
            continue  # it ended by its own time
        except Expired as exc:
            version = ""
            _log.info("listing anew", kind=query.kind.name, why=str(exc))
            yield Lost(str(exc))
        except ClusterError as exc:
            _log.warning("watch lost", kind=query.kind.name, why=str(exc))
            yield Lost(str(exc))
        await asyncio.sleep(random.uniform(wait_s / 2, wait_s))  # noqa: S311 - spreads load, no secret
        wait_s = min(wait_s * 2, wait_max_s)


def _news(said: Object) -> News | None:
    match said["type"]:
        case "ADDED" | "MODIFIED":
            return Changed(said["object"])
        case "DELETED":
            return Gone(said["object"])
        case _:  # a bookmark tells a version only
            return None
