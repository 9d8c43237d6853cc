"""Providers with fixed OAuth endpoints; each has its own profiles and key lists."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.errors.login import GrantEnded, ProviderMisconfigured
from proxy.http.secret import Secret
from proxy.identity.profile import Profile
from proxy.onboarding import device_flow
from proxy.onboarding.authcode import CodeClient, refresh
from proxy.onboarding.device_flow import Authorization, DeviceClient, Tokens
from proxy.onboarding.mapping import ClaimMapping
from proxy.onboarding.providers.base import (
    ApprovalFacts,
    Configured,
    Gate,
    KeepTokens,
    Tools,
    grant_missing,
    same_account,
)
from proxy.onboarding.providers.keylists import KeyLists
from proxy.settings.onboarding import GitHubSettings, GitLabSettings


@dataclass(frozen=True, slots=True)
class ForgeEndpoints:
    """The OAuth endpoints of a forge; absolute URLs."""

    device: str
    authorize: str
    token: str


class Forge(Configured[GitHubSettings | GitLabSettings]):
    """One OAuth application at one forge."""

    def __init__(
        self,
        settings: GitHubSettings | GitLabSettings,
        secret: Secret | None,
        tools: Tools,
        *,
        endpoints: ForgeEndpoints,
        scopes: Sequence[str],
    ) -> None:
        super().__init__(settings)
        self._secret = secret
        self._tools = tools
        self._endpoints = endpoints
        self._scopes = tuple(scopes)
        self._mapping = ClaimMapping(settings.title, settings.kind, settings.mapping)
        self._lists = KeyLists(settings.title, tools.keys, tools.clock)

    def _device_client(self, max_lifetime_s: float) -> DeviceClient:
        return DeviceClient(
            provider=self.name,
            device_url=self._endpoints.device,
            token_url=self._endpoints.token,
            client_id=self._settings.client_id,
            client_secret=self._secret,
            scopes=self._scopes,
            max_lifetime_s=max_lifetime_s,
        )

    async def start_device(self, about: ApprovalFacts, max_lifetime_s: float) -> Authorization:
        """See Provider."""
        del about  # its page has no place for it
        client = self._device_client(max_lifetime_s)
        return await device_flow.obtain(client, self._tools.http, self._tools.clock)

    async def poll_device(self, authorization: Authorization, gate: Gate | None = None) -> Tokens:
        """See Provider."""
        client, tools = self._device_client(0), self._tools
        return await device_flow.await_approval(client, authorization, tools.http, tools.clock, gate)

    @abstractmethod
    async def profile(self, tokens: Tokens, *, nonce: Secret | None = None) -> Profile:
        """See Provider."""

    @abstractmethod
    async def probe(self) -> None:
        """Request a public document. Raises: ProviderUnavailable."""

    async def renew(self, subject: str, grant: Secret | None, keep: KeepTokens) -> Profile:
        """See Provider."""
        if grant is None:
            await self.probe()
            raise grant_missing(self.name)
        tokens = await self._tokens_of(grant, keep)
        try:
            return same_account(await self.profile(tokens), subject)
        except ProviderMisconfigured as exc:
            if exc.is_token_refused:
                raise GrantEnded(str(exc), user_message=exc.user_message) from None
            raise

    async def _tokens_of(self, grant: Secret, keep: KeepTokens) -> Tokens:
        tokens = await refresh(await self.code_client(), grant, self._tools.http)
        await keep(tokens)
        return tokens

    async def code_client(self) -> CodeClient:
        """See Provider."""
        return CodeClient(
            provider=self.name,
            authorize_url=self._endpoints.authorize,
            token_url=self._endpoints.token,
            client_id=self._settings.client_id,
            client_secret=self._secret,
            scopes=self._scopes,
        )
