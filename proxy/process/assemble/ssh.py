"""SSH: host keys, the listener, and the revocation of its connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.access.revocation import RevocationMonitor
from proxy.process.assemble.common import Common
from proxy.process.assemble.identity import Identity
from proxy.process.assemble.logins import Logins
from proxy.process.assemble.workspaces import WorkspaceParts
from proxy.process.parts import running
from proxy.protection.guard import Guard
from proxy.sessions.tracker import Tracker
from proxy.settings import Settings
from proxy.ssh import hostkeys
from proxy.ssh.connection import ConnectionSections
from proxy.ssh.listener import Listener, ListenerSettings


@asynccontextmanager
async def open_ssh(
    common: Common,
    identity: Identity,
    logins: Logins,
    tracker: Tracker,
    guard: Guard,
    workspaces: WorkspaceParts,
) -> AsyncIterator[Listener]:
    """Accept SSH connections while inside; on leaving, those that are still open end at once.

    Raises: SettingsError naming what cannot be used.
    """
    settings = common.settings
    keys = hostkeys.load_or_create(settings.host_key_dir)
    listener = Listener(
        _sections(settings),
        workspaces.gateway,
        logins.authenticator,
        tracker,
        guard,
        keys,
        identity.revocations,
    )
    common.health.add_gauge(
        "fairlead_connections",
        "SSH connections that are open, logged in or not.",
        lambda: len(listener.connections()),
    )
    monitor = RevocationMonitor(
        identity.directory,
        common.bus,
        listener.connections,
        settings.identity.recheck_s,
        identity.revocations,
    )
    async with running(monitor):
        logins.refresh(lambda: _connected(listener))
        await listener.open()
        try:
            yield listener
        finally:
            await listener.close(0)


def _sections(settings: Settings) -> ListenerSettings:
    return ListenerSettings(
        listen=settings.listen,
        ssh=settings.ssh,
        proxy_protocol=settings.proxy_protocol,
        strangers_share=settings.protection.strangers_share,
        trusted_user_ca_keys=settings.identity.trusted_user_ca_keys,
        sections=ConnectionSections(
            proxy_id=settings.proxy_id,
            login=settings.login,
            connection=settings.connection,
            relay=settings.relay,
            sessions=settings.sessions,
            recheck_s=settings.identity.recheck_s,
        ),
    )


def _connected(listener: Listener) -> set[str]:
    """Return the names of the users who are connected to this process."""
    return {one.principal.user.name for one in listener.connections() if one.principal is not None}
