"""The login of browsers: sessions, pages of the login origin, links of `ssh … web`, revocation."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from proxy.access.revocation import RevocationMonitor
from proxy.process.assemble.common import Common
from proxy.process.assemble.identity import Identity
from proxy.process.assemble.logins import Logins
from proxy.process.assemble.portal import open_portal, ssh_reached
from proxy.process.assemble.sharing import Sharing
from proxy.process.parts import closing, running
from proxy.protection.guard import Guard
from proxy.sessions.tracker import Tracker
from proxy.settings.web import WebSettings
from proxy.userstring import LOBBY
from proxy.web.links import LinkPages
from proxy.web.login import LoginPages, LoginRules
from proxy.web.origins import Origins
from proxy.web.portal.portal import Portal
from proxy.web.seals import Seals
from proxy.web.session_records import WebRecords
from proxy.web.session_store import SessionStore
from proxy.web.sessions import WebSessions

_log = structlog.get_logger("web")


@dataclass(frozen=True, slots=True)
class WebLogin:
    """The parts that sign browsers in."""

    pages: LoginPages
    sessions: WebSessions
    portal: Portal


@asynccontextmanager
async def open_web_login(
    common: Common,
    identity: Identity,
    tracker: Tracker,
    guard: Guard,
    logins: Logins,
    origins: Origins,
    sharing: Sharing,
) -> AsyncIterator[WebLogin | None]:
    """Hold the login origin and its session store; None where browsers cannot sign in.

    Without https, names beyond this machine would carry sessions in the clear: then only public apps are
    served. Raises: StoreError.
    """
    settings, workspaces = common.settings.web, sharing.workspaces
    if not settings.has_login:
        _log.warning(
            "browsers cannot sign in: web apps need https beyond this machine; public apps are served"
        )
        yield None
        return
    rules = settings.session
    store = SessionStore(identity.database, idle_s=rules.idle_s, per_user=rules.per_user)
    seals = Seals(await store.key())
    directory, revocations, bus = identity.directory, identity.revocations, common.bus
    sessions = WebSessions(store, seals, directory, revocations, bus, rules, WebRecords(tracker))
    pages = LoginPages(
        sessions,
        sharing.places,
        origins,
        directory,
        list(logins.onboarding.providers.values()),
        logins.onboarding.http,
        LoginRules(
            is_ssh_only=settings.require == "ssh-paired",
            attempts_per_minute=rules.attempts_per_minute,
            dev_user=settings.dev_user,
            addresses=guard,
            ssh_line=_ssh_line(settings, common.settings.listen),
        ),
    )
    links = LinkPages(pages, bus)  # its pages belong to the site, so it is made before that starts
    portal = open_portal(common, identity, guard, sharing, pages, origins)  # likewise
    monitor = RevocationMonitor(
        directory, bus, sessions.live, common.settings.identity.recheck_s, revocations
    )
    async with closing(sessions), closing(pages), closing(portal):
        await pages.start()
        logins.onboarding.allow_redirect(pages.redirect_uri)
        workspaces.gateway.lobby.serve_web(links.make)
        workspaces.gateway.lobby.register(*sharing.commands(origins).commands)
        async with running(monitor):
            yield WebLogin(pages, sessions, portal)


def _ssh_line(settings: WebSettings, ssh: str) -> Callable[[str], str]:
    """Return the function that writes the command for signing in by SSH, which listens on `ssh`."""
    host, port = ssh_reached(settings, ssh)
    option = f"-p {port} " if port != 22 else ""
    return lambda user: f"ssh {option}{user}+{LOBBY}@{host} web"
