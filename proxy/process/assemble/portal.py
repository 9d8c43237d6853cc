"""The portal: the pages of signed-in users, with the parts of the process that they are about."""

from proxy.access.administration import Administration
from proxy.addresses import split_address
from proxy.process.assemble.common import Common
from proxy.process.assemble.identity import Identity
from proxy.process.assemble.recordings import open_archive
from proxy.process.assemble.sharing import Sharing
from proxy.protection.guard import Guard
from proxy.sessions.store import SessionStore
from proxy.settings.web import WebSettings
from proxy.web.index import TERMINAL
from proxy.web.login import LoginPages
from proxy.web.origins import Origins
from proxy.web.portal.connecting import Reached
from proxy.web.portal.portal import Portal, Sources
from proxy.web.terminal import assets


def open_portal(
    common: Common,
    identity: Identity,
    guard: Guard,
    sharing: Sharing,
    pages: LoginPages,
    origins: Origins,
) -> Portal:
    """Add the portal to the site of the login origin, which must not have started yet.

    Raises: SettingsError for a store of recordings that cannot be used.
    """
    workspaces = sharing.workspaces
    settings, recording = common.settings.web, common.settings.recording
    sources = Sources(
        workspaces.backend,
        workspaces.control,
        workspaces.links,
        workspaces.catalog,
        workspaces.lifetimes,
        workspaces.gateway,
        sharing.places,
        origins,
        ssh_reached(settings, common.settings.listen),
        identity.directory,
        SessionStore(identity.database),
        open_archive(common.settings),
        guard.bans,
        common.bus,
        missing=frozenset({TERMINAL} if assets.load() is None else ()),
    )
    rights = Administration(settings.operators, recording.viewers, recording.owner_may_view)
    return Portal(pages, sources, rights, settings.portal)


def ssh_reached(settings: WebSettings, ssh: str) -> Reached:
    """Return the address by which users reach SSH, which listens on `ssh`."""
    host, port = split_address(settings.ssh_address or ssh)
    return Reached(host if settings.ssh_address or host.startswith("127.") else "<host>", port)
