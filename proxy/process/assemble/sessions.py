"""The parts of `sessions`, assembled for one process."""

import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

from proxy.events.publisher import Bus
from proxy.sessions.janitor import Janitor
from proxy.sessions.kills import KillExecutor
from proxy.sessions.store import ProxyProcess, SessionStore
from proxy.sessions.tracker import Tracker
from proxy.sessions.view import SessionView, open_view
from proxy.settings.sessions import SessionSettings
from proxy.shared.buckets import Buckets
from proxy.storage.database import Database


@asynccontextmanager
async def open_sessions(
    database: Database, bus: Bus, buckets: Buckets | None, settings: SessionSettings, proxy_id: str
) -> AsyncIterator[Tracker]:
    """Keep records, execute kill orders and close records of lost proxies while inside; wait for nothing.

    `buckets` are those that replicas share; None for a single proxy.
    """
    store = SessionStore(database)
    # A process id is used again after a restart, and in every container; this token is not.
    token = secrets.token_hex(16)
    proxy = ProxyProcess(token, proxy_id, os.getpid(), socket.gethostname(), datetime.now(UTC))
    tracker = Tracker(store, bus, settings, proxy)
    view = SessionView(open_view(buckets, settings), tracker, settings) if buckets is not None else None
    parts: list[_Part] = [tracker, KillExecutor(store, bus, tracker, settings.kill_poll_s)]
    parts += [view] if view is not None else []
    parts += [Janitor(store, bus, settings, token, view.forget if view is not None else None)]
    for part in parts:
        part.start()
    try:
        yield tracker
    finally:
        for part in reversed(parts):
            await part.close()


class _Part(Protocol):
    """A part that runs beside the connections."""

    def start(self) -> None: ...

    async def close(self) -> None: ...
