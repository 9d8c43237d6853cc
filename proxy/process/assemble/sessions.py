"""Records of sessions: the tracker, orders to end sessions, and the clean-up after lost proxies."""

import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from proxy.process.assemble.common import Common
from proxy.process.parts import running
from proxy.sessions.janitor import Janitor
from proxy.sessions.kills import KillExecutor
from proxy.sessions.store import ProxyProcess, SessionStore
from proxy.sessions.tracker import Tracker
from proxy.sessions.view import SessionView, open_view
from proxy.storage.database import Database


@asynccontextmanager
async def open_sessions(common: Common, database: Database) -> AsyncIterator[Tracker]:
    """Keep records, execute kill orders and close records of lost proxies while inside; wait for nothing."""
    settings, bus = common.settings.sessions, common.bus
    store = SessionStore(database)
    # A process id is used again after a restart, and in every container; this token is not.
    token = secrets.token_hex(16)
    started_at = datetime.now(UTC)
    proxy = ProxyProcess(token, common.settings.proxy_id, os.getpid(), socket.gethostname(), started_at)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        tracker = await enter(running(Tracker(store, bus, settings, proxy)))
        await enter(running(KillExecutor(store, bus, tracker, settings.kill_poll_s)))
        forget = None
        if common.settings.events.urls:  # without NATS there is one proxy, and no view that replicas share
            view = await enter(running(SessionView(open_view(common.buckets, settings), tracker, settings)))
            forget = view.forget
        await enter(running(Janitor(store, bus, settings, token, forget)))
        _add_values(common, tracker)
        yield tracker


def _add_values(common: Common, tracker: Tracker) -> None:
    common.health.add_gauge(
        "fairlead_sessions",
        "SSH connections and browsers at web apps whose user is logged in.",
        lambda: len(tracker.live),
    )
    common.health.add_counter(
        "fairlead_session_records",
        "Ended records that were not kept; see docs/sessions.md.",
        {"dropped": lambda: tracker.dropped},
    )
