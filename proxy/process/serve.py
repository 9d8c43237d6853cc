"""The composition root: it opens every part in order, and closes them in reverse order.

Each part is a context manager in `assemble`: what belongs to one part is opened, started and closed there.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from proxy import tuning
from proxy.aio import TaskOwner
from proxy.process.assemble.checks import open_checks
from proxy.process.assemble.common import open_common
from proxy.process.assemble.identity import open_identity
from proxy.process.assemble.logins import open_logins
from proxy.process.assemble.protection import open_guard
from proxy.process.assemble.recordings import open_recordings
from proxy.process.assemble.reserved import own_of
from proxy.process.assemble.sessions import open_sessions
from proxy.process.assemble.ssh import open_ssh
from proxy.process.assemble.web import Web, open_web
from proxy.process.assemble.workspaces import open_workspaces
from proxy.process.health import Health
from proxy.settings import Settings
from proxy.ssh.hostkeys import HostKeys
from proxy.ssh.listener import Listener

_log = structlog.get_logger("app")

Ready = Callable[[str, int, HostKeys, Web | None], None]
"""Called once with host, port, host keys and the web half when connections are accepted."""


@dataclass(frozen=True, slots=True)
class Process:
    """The parts of a process that accept connections, and the page that says so."""

    health: Health
    ssh: Listener
    web: Web | None


async def serve(settings: Settings, *, on_ready: Ready | None = None) -> None:
    """Run until SIGTERM or SIGINT, then let live sessions end for `shutdown_grace_s`.

    Raises: SettingsError, StoreError, TrustError when a part cannot start.
    """
    tuning.keep_buffers()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with assembled(settings) as process:
        host, port = process.ssh.address
        process.health.set_ready(True)
        _log.info("listening", host=host, port=port, home=str(settings.state_dir))
        if on_ready is not None:
            on_ready(host, port, process.ssh.host_keys, process.web)
        tuning.settle_heap()
        await stop.wait()
        await _drain(process, settings)


@asynccontextmanager
async def assembled(settings: Settings) -> AsyncIterator[Process]:
    """Hold every part of one process. Raises: SettingsError, StoreError, TrustError, BlueprintError."""
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        part = stack.enter_async_context
        common = await part(open_common(settings))
        identity = await part(open_identity(common))
        tracker = await part(open_sessions(common, identity.database))
        guard = await part(open_guard(common))
        logins = await part(open_logins(common, identity))
        recordings = await part(open_recordings(common))
        workspaces = await part(open_workspaces(common, identity.directory, recordings))
        web = await part(open_web(common, identity, logins, tracker, guard, workspaces))
        ssh = await part(open_ssh(common, identity, logins, tracker, guard, workspaces))
        # Nothing is awaited since SSH listens, so no forward comes before this.
        ports = {ssh.address[1], *logins.onboarding.ports, *({web.port} if web else ())}
        workspaces.gateway.reserve(own_of(settings, ports))
        await part(common.health.listening())
        await part(open_checks(common))
        yield Process(common.health, ssh, web)


async def _drain(process: Process, settings: Settings) -> None:
    """Say that no connection may be sent here, then end those that are open, browsers and SSH alike."""
    process.health.set_ready(False)
    _log.info("shutting down", drain_s=settings.health.drain_s, grace_s=settings.shutdown_grace_s)
    await asyncio.sleep(settings.health.drain_s)
    closing = TaskOwner("closing")
    if process.web is not None:
        closing.spawn(process.web.close(settings.shutdown_grace_s), name="web")
    await process.ssh.close(settings.shutdown_grace_s)
    await closing.close(grace_s=1)
