"""Settings of providers and onboarding. Secrets are given as files."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from proxy.addresses import is_localhost_name, is_loopback
from proxy.settings.base import Count, Seconds, Section
from proxy.settings.urls import PAGE_HOST, BaseUrl, PageUrl, PeerUrl, Url, is_page_here

Expression = Annotated[str, Field(max_length=2_000)]
Action = Literal["allow", "refuse", "waitlist"]
Approval = Literal["device", "confirm"]


class HttpSettings(Section):
    """Requests to identity providers."""

    request_timeout_s: Seconds = 10
    """One request, from waiting for a free connection to the last byte of the reply."""
    connect_timeout_s: Seconds = 5
    max_reply_bytes: Annotated[int, Field(ge=1_024, le=64 * 1024 * 1024)] = 1024 * 1024
    max_connections: Count = 32
    proxy_url: str = ""
    """Forward proxy for these calls; the environment's HTTP_PROXY is not read."""
    ca_file: Path | None = None
    """Certificates of a private authority, trusted besides the system's."""


class MappingSettings(Section):
    """CEL expressions over `claims`; empty means the provider's default."""

    name: Expression = ""
    """User name of the account; must equal what the person typed."""
    full_name: Expression = ""
    email: Expression = ""
    """Rules match its domain, so it must be one that the provider verified."""
    groups: Expression = ""
    """List of organisations and groups; parts of a path are joined by `/`."""
    uid: Expression = ""
    """Numeric OS account, or null."""
    keys: Expression = ""
    """List of public key lines that the provider vouches for; null when it keeps none."""


class _Provider(Section):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")] = ""
    """Shown to people and recorded with users; default is the kind."""
    onboard: bool = True
    """False: keys and profiles are still read, but new users cannot come in this way."""
    mapping: MappingSettings = MappingSettings()

    @property
    def title(self) -> str:
        return self.name or str(getattr(self, "kind", ""))


class _Client(_Provider):
    client_id: Annotated[str, Field(min_length=1, max_length=500)]
    client_secret_file: Path | None = None
    """Needed by confidential clients, and by every client of Google."""


class GitHubSettings(_Client):
    """github.com, or GitHub Enterprise by its `url`."""

    kind: Literal["github"]
    url: BaseUrl = "https://github.com"
    approval: Approval = "device"
    groups: Literal["none", "organizations", "teams"] = "organizations"
    """What rules can match; asks for the scope `read:org` unless none."""


class GitLabSettings(_Client):
    """gitlab.com, or a self-managed GitLab by its `url`."""

    kind: Literal["gitlab"]
    url: BaseUrl = "https://gitlab.com"
    approval: Approval = "device"


class OidcSettings(_Client):
    """Any OpenID provider that publishes a discovery document."""

    kind: Literal["oidc"]
    issuer: Url
    """Exactly as the provider writes it, with or without a final slash."""
    approval: Approval = "confirm"
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    offline_access: bool = True
    """Ask for a refresh token where the provider offers one and `groups.key_file` can keep it; false for a
    client that may not have one."""
    algorithms: tuple[Literal["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"], ...] = (
        "RS256",
        "PS256",
        "ES256",
        "EdDSA",
        "Ed25519",
    )
    """Accepted signatures of ID tokens; only asymmetric ones can be chosen."""

    @model_validator(mode="after")
    def _keys_come_from_somewhere(self) -> "OidcSettings":
        if self.approval == "device" and not self.mapping.keys:
            raise ValueError(
                "approval: device needs mapping.keys, since a device code proves no key; "
                "without a claim that lists keys use approval: confirm"
            )
        if "openid" not in self.scopes:
            raise ValueError("scopes must hold openid")
        return self


class DevAccount(Section):
    """An account of the development provider that has more than a name."""

    name: str
    full_name: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()
    keys: tuple[str, ...] | None = None
    """Public key lines that the provider lists for it; None: the page's confirmation counts instead."""


class DevSettings(_Provider):
    """The development provider: anyone who reaches it can become any user."""

    kind: Literal["dev"] = "dev"
    approval: Approval = "device"
    host: str = "127.0.0.1"
    """`127.0.0.1` or `::1`; `0.0.0.0` and `::` need `dev_anyone_may_be_any_user`. The proxy itself
    always comes by loopback."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """0 takes any free one."""
    public_url: PageUrl = ""
    """How browsers reach it, by default `http://login.localhost:<port>`."""
    accounts: tuple[DevAccount, ...] = ()
    any_account: bool = True
    """False: only the listed accounts exist."""
    code_lifetime_s: Annotated[int, Field(ge=10, le=3_600)] = 600
    poll_interval_s: Annotated[int, Field(ge=1, le=60)] = 1
    max_pending: Count = 1_000
    """Device codes, page visits and tokens alive at once, each."""

    @field_validator("host")
    @classmethod
    def _proxy_reaches_it_by_loopback(cls, value: str) -> str:
        if not is_page_here(value):
            raise ValueError(f"{value!r} is not one of 127.0.0.1, ::1, 0.0.0.0 and ::")
        return value

    @property
    def is_for_this_machine(self) -> bool:
        """Return whether its page is reached from this machine only."""
        if self.public_url and not is_localhost_name(urlsplit(self.public_url).hostname or ""):
            return False
        return is_loopback(self.host)


ProviderSettings = Annotated[
    GitHubSettings | GitLabSettings | OidcSettings | DevSettings, Field(discriminator="kind")
]


class RuleSettings(Section):
    """One rule; every condition given must hold, and one entry of it suffices."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """In logs, and in what an operator sees of a refusal."""
    action: Action
    organizations: tuple[str, ...] = ()
    """Member of it, or of any team or subgroup below it."""
    groups: tuple[str, ...] = ()
    """Exactly that group; `*` and `?` stand for characters, as in file names."""
    email_domains: tuple[str, ...] = ()
    """Exactly that domain of a verified address; subdomains are others."""
    names: tuple[str, ...] = ()
    """Patterns of user names."""
    providers: tuple[str, ...] = ()


class OnboardingSettings(Section):
    """Onboarding by approval in a browser, and the limits of users who wait."""

    rules: tuple[RuleSettings, ...] = ()
    """First match decides."""
    otherwise: Action | None = None
    """When no rule matches; default refuse, but allow when only the development provider is there."""
    max_pending: Count = 200
    max_pending_per_source: Count = 5
    max_pending_per_name: Count = 5
    starts_per_minute: Count = 60
    """Codes asked of providers, for all users together; GitHub allows an app 50 approvals an hour."""
    starts_per_source_per_hour: Count = 30
    polls_per_s: Annotated[float, Field(gt=0, le=1_000)] = 50
    """Questions to providers whether a user approved, by all together; more take turns."""
    linger_s: Seconds = 60
    """A code outlives the last client that waited for it by this, and a reconnecting one sees it again."""
    max_lifetime_s: Seconds = 900
    """Cuts the lifetime that a provider gives to its code."""
    start_timeout_s: Seconds = 20
    """From a proved key to a code to show."""
    settle_timeout_s: Seconds = 30
    """From the approval to the answer: profile, groups and key list of the account."""


class KeyListSettings(Section):
    """Public keys that providers publish."""

    fresh_s: Seconds = 300
    """A list this young is used without asking."""
    max_stale_s: Seconds = 7 * 86_400
    """While the provider is down, the last known list is used up to this age."""
    lookup_timeout_s: Seconds = 8
    """The whole list of one account; after that the last known one serves."""
    max_keys: Count = 500
    max_pages: Count = 20
    max_accounts: Count = 10_000
    """Lists held in memory; the longest unused goes first."""


class ConfirmSettings(Section):
    """The page on which a person confirms a key."""

    listen: str = "127.0.0.1:8022"
    public_url: PageUrl = ""
    """How browsers reach it, by default `http://login.localhost:<port>`; register `<public_url>/callback`
    with the provider. Needed when `listen` names an address that is neither loopback nor a wildcard."""
    outcome_wait_s: Annotated[float, Field(gt=0, le=60)] = 5
    """After a confirmation the page waits this long for the decision of the rules, to say whether the user is
    let in; then it says only that the key is confirmed."""
    max_visits: Count = 1_000
    """Browsers on their way through a provider at once."""
    peer_url: PeerUrl | Literal[""] = ""
    """How the other replicas reach this one's page; it differs on each: `http://<address of the pod>:8022`.
    Needed where a load balancer sends browsers to any of several replicas: the terminal waits at one."""
    peer_timeout_s: Seconds = 30
    """Another replica's answer, the provider's answers to it included."""

    @property
    def page_url(self) -> str:
        """Return the address for browsers, without a final slash, unless `listen` leaves the port open."""
        return self.public_url or f"http://{PAGE_HOST}:{self.listen.rpartition(':')[2]}"


class FrontDoorSettings(Section):
    """All of the above: the way in for new users, and the providers' data about known ones."""

    providers: tuple[ProviderSettings, ...] = ()
    """In order; the first that can onboard is the one that strangers are sent to. None at all: new users
    cannot come in, except in embedded mode, which has the development provider."""
    dev_on_loopback: bool = True
    """Without providers, and with SSH reached from this machine only, the development provider stands in."""
    dev_anyone_may_be_any_user: bool = False
    """The development provider may also start where others reach SSH or its page: it asks for no password,
    so that anyone who reaches its page may become any user. Never with `proxy_protocol.trusted`."""
    http: HttpSettings = HttpSettings()
    keys: KeyListSettings = KeyListSettings()
    onboarding: OnboardingSettings = OnboardingSettings()
    confirm: ConfirmSettings = ConfirmSettings()

    @property
    def has_page(self) -> bool:
        """Return whether users may have to confirm a key on our page."""
        return any(provider.approval == "confirm" for provider in self.providers)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "FrontDoorSettings":
        names = [provider.title for provider in self.providers]
        if len(set(names)) != len(names):
            raise ValueError("two providers have the same name; give each a name of its own")
        known = {*names, "dev"}
        for rule in self.onboarding.rules:
            if strange := sorted(set(rule.providers) - known):
                raise ValueError(f"rule {rule.name!r} names unknown providers: {', '.join(strange)}")
        return self

    def dev_beyond_this_machine(self) -> str | None:
        """Name the setting by which others reach the page of a configured development provider, if any."""
        for number, provider in enumerate(self.providers):
            if isinstance(provider, DevSettings) and not provider.is_for_this_machine:
                field = "host" if not is_loopback(provider.host) else "public_url"
                return f"front_door.providers.{number}.{field}"
        return None

    def in_effect(self, *, embedded: bool) -> "FrontDoorSettings":
        """Fill in values that depend on the rest: the provider of embedded mode, and the default rule.

        `embedded` must be true only when SSH itself is reached from this machine alone.
        """
        providers = self.providers or ((DevSettings(),) if embedded and self.dev_on_loopback else ())
        otherwise = self.onboarding.otherwise
        if otherwise is None:
            only_dev = bool(providers) and all(provider.kind == "dev" for provider in providers)
            otherwise = "allow" if only_dev and not self.onboarding.rules else "refuse"
        onboarding = self.onboarding.model_copy(update={"otherwise": otherwise})
        return self.model_copy(update={"providers": providers, "onboarding": onboarding})
