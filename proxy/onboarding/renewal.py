"""One refresh of an account: claim its grant, ask the provider, record the result.

renewed        groups and the rest are replaced by the provider's answer
ended          the account is deleted or disabled: its groups and the keys that came from it end
refused        the grant is deleted; where no key list decides, that ends the account's keys too
missing        there is no grant; groups end with their age
no answer      recorded; an outage removes nothing by itself
"""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from proxy.aio import TaskOwner
from proxy.errors.login import AccountEnded, GrantEnded, GrantMissing, OnboardingError, ProviderUnavailable
from proxy.http.secret import Secret
from proxy.identity.directory import Account, Directory
from proxy.identity.grants import Claim, Grants, Unclaimed
from proxy.identity.profile import Profile
from proxy.onboarding.device_flow import Tokens
from proxy.onboarding.providers.base import Provider
from proxy.onboarding.providers.keylists import parse_lines
from proxy.onboarding.vault import Vault

_log = structlog.get_logger("renewal")

LEASE_MARGIN_S = 30.0
"""Seconds by which a lease outlives the longest request, since the clocks of replicas differ."""
_POLL_S = 0.25
_WRITE_GRACE_S = 5.0


class Renewals:
    """The refreshes of this process; claims separate them from those of other replicas."""

    def __init__(self, directory: Directory, grants: Grants, vault: Vault | None, timeout_s: float) -> None:
        """Take the parts; `vault` encrypts grants, and without one none is kept.

        `timeout_s` bounds one refresh.
        """
        self._directory = directory
        self._grants = grants
        self._vault = vault
        self._timeout_s = timeout_s
        self._writes = TaskOwner("renewal")

    @property
    def keeps_grants(self) -> bool:
        """Return whether there is a key that encrypts grants."""
        return self._vault is not None

    async def close(self) -> None:
        """Wait for writes in progress: a rotated grant that is lost cannot be requested again."""
        await self._writes.close(grace_s=_WRITE_GRACE_S)

    async def keep(self, name: str, profile: Profile, grant: Secret | None, tokens: Tokens) -> None:
        """Keep the grant that came with `tokens` for a user. Raises: StoreError."""
        if self._vault is not None and grant is not None:
            sealed = self._vault.seal(grant, profile.issuer, profile.subject)
            await self._grants.keep(name, sealed, _end_of(tokens))

    async def renew(self, name: str, account: Account, provider: Provider) -> None:
        """Refresh an account, or wait for the replica that does so now. Raises: StoreError."""
        claim: Claim | Unclaimed = Unclaimed.NONE
        if self._vault is not None:
            claim = await self._grants.claim(name, self._timeout_s + LEASE_MARGIN_S)
        if claim is Unclaimed.IN_USE:
            await self._await_other(name, account)
        else:
            use = _Use(name, account, provider, claim if isinstance(claim, Claim) else None)
            await self._ask(use)

    async def _await_other(self, name: str, account: Account) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                while True:
                    found = await self._directory.account_of(name)
                    if found is None or found.reading != account.reading:
                        return
                    await asyncio.sleep(_POLL_S)

    async def _ask(self, use: "_Use") -> None:
        grant = await self._grant_of(use)

        async def keep(tokens: Tokens) -> None:
            await self._rotate(use, tokens)

        try:
            async with asyncio.timeout(self._timeout_s):
                profile = await use.provider.renew(use.account.subject, grant, keep)
        except (AccountEnded, GrantEnded) as exc:
            await self._refused(use, exc)
        except GrantMissing:
            await self._note(use, answers=True)
        except OnboardingError as exc:
            spent = isinstance(exc, ProviderUnavailable) and exc.may_have_acted
            await self._unanswered(use, str(exc), may_be_spent=spent)
        except TimeoutError:
            reason = f"no answer within {self._timeout_s:g} s"
            await self._unanswered(use, reason, may_be_spent=grant is not None)
        else:
            await self._renewed(use, profile)

    async def _grant_of(self, use: "_Use") -> Secret | None:
        """Decrypt the claimed grant; delete one that has expired, or that no key decrypts."""
        claim = use.claim
        if claim is None or self._vault is None:
            return None
        if claim.expires_at is None or claim.expires_at > datetime.now(UTC):
            if (grant := self._vault.open(claim.sealed, use.account.issuer, use.account.subject)) is not None:
                return grant
            _log.warning("a grant cannot be decrypted and is forgotten", user=use.name)
        await self._forget(use)
        return None

    async def _rotate(self, use: "_Use", tokens: Tokens) -> None:
        """Keep a rotated grant at once, also when the refresh itself is cancelled meanwhile."""
        grant = use.provider.grant_of(tokens)
        if use.claim is not None and self._vault is not None and grant is not None:
            sealed = self._vault.seal(grant, use.account.issuer, use.account.subject)
            use.is_rotated = True
            await self._whole(self._grants.replace(use.claim, sealed, _end_of(tokens)))

    async def _whole(self, write: Awaitable[None]) -> None:
        """Complete a write even when its caller is cancelled."""

        async def run() -> None:
            await write

        await asyncio.shield(self._writes.spawn(run(), name="grant"))

    async def _renewed(self, use: "_Use", profile: Profile) -> None:
        await self._directory.renew(profile, use.name)
        if profile.keys is not None:
            listed = parse_lines(profile.keys, len(profile.keys))
            gone = await self._directory.drop_unlisted(
                use.name, profile.provider, listed, datetime.now(UTC) - timedelta(seconds=self._timeout_s)
            )
            if gone:
                _log.info("keys not listed any more", user=use.name, provider=profile.provider, keys=gone)
        await self._release(use, in_doubt=False)
        if set(profile.groups) != set(use.account.groups):
            lost, won = (
                sorted(set(one) - set(other))
                for one, other in (
                    (use.account.groups, profile.groups),
                    (profile.groups, use.account.groups),
                )
            )
            _log.info("groups changed", user=use.name, provider=profile.provider, lost=lost, won=won)

    async def _refused(self, use: "_Use", exc: OnboardingError) -> None:
        """End an account, unless the refusal only means that the grant was spent or revoked."""
        in_doubt = use.claim is not None and use.claim.in_doubt
        is_over = isinstance(exc, AccountEnded) or not (use.provider.lists_keys or in_doubt)
        if not await self._forget(use):
            return  # the user approved meanwhile, which counts more than the refusal of an old grant
        if is_over:
            await self._directory.account_ended(use.name)
        else:
            await self._note(use, answers=True)
        _log.info(
            "account ended" if is_over else "grant refused",
            user=use.name,
            provider=use.account.provider,
            reason=str(exc),
        )

    async def _unanswered(self, use: "_Use", reason: str, *, may_be_spent: bool) -> None:
        was_in_doubt = use.claim is not None and use.claim.in_doubt
        await self._release(use, in_doubt=not use.is_rotated and (may_be_spent or was_in_doubt))
        await self._directory.note_provider(use.name, answers=False)
        _log.warning("account not refreshed", user=use.name, provider=use.account.provider, reason=reason)

    async def _note(self, use: "_Use", *, answers: bool) -> None:
        reading = use.account.reading
        if reading is not None and reading.failed_at is not None:
            await self._directory.note_provider(use.name, answers=answers)

    async def _release(self, use: "_Use", *, in_doubt: bool) -> None:
        if use.claim is not None:
            await self._grants.release(use.claim, in_doubt=in_doubt)

    async def _forget(self, use: "_Use") -> bool:
        """Delete the grant; return False when another has replaced it meanwhile."""
        claim, use.claim = use.claim, None
        return claim is None or await self._grants.drop(claim)


@dataclass(slots=True)
class _Use:
    """One refresh in progress."""

    name: str
    account: Account
    provider: Provider
    claim: Claim | None
    """None without a grant."""
    is_rotated: bool = False
    """A new grant is kept in place of the used one."""


def _end_of(tokens: Tokens) -> datetime | None:
    """Return when the grant of these tokens expires; None when the provider does not say."""
    if tokens.refresh_lifetime_s is None:
        return None
    return datetime.now(UTC) + timedelta(seconds=tokens.refresh_lifetime_s)
