"""Logins: the providers, the onboarding of new users, the keys and accounts of known ones."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from proxy.access.authentication import Authenticator, key_event
from proxy.http.handover import ALONE, ReplicaPages
from proxy.identity.grants import SqlGrants
from proxy.onboarding import vault
from proxy.onboarding.keysource import KeySource
from proxy.onboarding.refresher import Refresher
from proxy.onboarding.service import OnboardingService
from proxy.onboarding.vault import Vault
from proxy.process.assemble.common import Common
from proxy.process.assemble.identity import Identity
from proxy.process.parts import closing, running
from proxy.settings import Settings
from proxy.shared.page_registry import PageRegistry

_log = structlog.get_logger("app")


@dataclass(frozen=True, slots=True)
class Logins:
    """The authentication of users, and the providers behind it."""

    authenticator: Authenticator
    onboarding: OnboardingService
    accounts: Refresher

    def refresh(self, connected: Callable[[], Collection[str]]) -> None:
        """Keep the accounts of the users whom `connected` names up to date from now on."""
        self.accounts.start(self.onboarding.providers, self.onboarding.issuers, connected)


@asynccontextmanager
async def open_logins(common: Common, identity: Identity) -> AsyncIterator[Logins]:
    """Hold the logins; no provider is called yet.

    Raises: SettingsError listing everything unusable.
    """
    settings, directory, bus = common.settings, identity.directory, common.bus
    chosen = settings.front_door_in_effect
    if settings.is_dev_provider_held_back:
        _log.warning("no new user can come in: no development provider while proxy_protocol.trusted is set")
    accounts = Refresher(directory, SqlGrants(identity.database), _open_vault(settings), settings.groups)
    keep = accounts.keep if accounts.keeps_grants else None
    async with _open_replica_pages(common) as peers:
        onboarding = await OnboardingService.open(chosen, directory, peers=peers, keep=keep)
        keys = KeySource(
            directory,
            onboarding,
            onboarding.issuers,
            lambda change: bus.publish(key_event(change)),
            max_keys=settings.front_door.keys.max_keys,
        )
        common.health.add_gauge(
            "fairlead_onboardings_pending",
            "People who are shown a code at the moment.",
            lambda: len(onboarding.onboarding),
        )
        async with closing(onboarding), closing(accounts), closing(keys):
            authenticator = Authenticator(directory, keys, bus, onboarding.onboarding, accounts)
            yield Logins(authenticator, onboarding, accounts)


@asynccontextmanager
async def _open_replica_pages(common: Common) -> AsyncIterator[ReplicaPages]:
    """Hold the register of pages; a browser may reach any of the replicas that reach each other."""
    chosen = common.settings.front_door_in_effect
    if not (chosen.confirm.peer_url and chosen.has_page):
        yield ALONE
        return
    proxy_id, url = common.settings.proxy_id, chosen.confirm.peer_url
    async with running(PageRegistry(common.buckets, proxy_id=proxy_id, url=url)) as replicas:
        yield replicas


def _open_vault(settings: Settings) -> Vault | None:
    """Read the key that encrypts refresh tokens; without one they are neither kept nor asked for."""
    if (file := settings.grant_key_file) is None:
        if settings.front_door.providers:
            _log.warning(
                "refresh tokens are not kept: users approve again when their groups are too old; "
                "give every replica the same groups.key_file",
                max_age_s=settings.groups.max_age_s,
            )
        return None
    return vault.load(file, create=settings.groups.key_file is None)
