"""Settings of protection: who must not get in, and how much of us those may have who are not in yet."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from proxy.addresses import Network, parse_networks
from proxy.settings.base import Section

_Seconds = Annotated[float, Field(gt=0, le=86_400 * 365)]
_Count = Annotated[int, Field(ge=1, le=1_000_000)]


class _Networks(Section):
    @staticmethod
    def _check(value: tuple[str, ...]) -> tuple[str, ...]:
        parse_networks(value)
        return value


class ProxyProtocolSettings(_Networks):
    """The PROXY protocol of load balancers, believed only from `trusted` addresses."""

    trusted: tuple[str, ...] = ()
    """Addresses and CIDR ranges of the load balancers. Empty: no header is read."""
    header: Literal["required", "optional"] = "required"
    """`optional` also takes connections without a header from trusted sources: health checks, mostly."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 3
    """From accept to the end of the header."""
    max_bytes: Annotated[int, Field(ge=107, le=65_551)] = 2_048
    """With its TLVs, which are skipped."""

    @field_validator("trusted")
    @classmethod
    def _trusted_are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return cls._check(value)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Return `trusted` as networks."""
        return parse_networks(self.trusted)


class BanSettings(Section):
    """Bans of addresses for failed logins, and their length."""

    window_s: _Seconds = 600
    failures: _Count = 10
    """Connections without a login within `window_s` that ban an address; half as many after each ban that is
    remembered, and at least one."""
    lengths_s: tuple[_Seconds, ...] = (60, 300, 1_800, 7_200, 86_400)
    """Of the first ban, the second, …; the last for all that follow."""
    memory_s: _Seconds = 7 * 86_400
    """Bans are remembered for this long after the last one."""
    probes_per_minute: Annotated[float, Field(ge=0, le=600)] = 6
    """Connections of a banned address that are heard all the same, so that a known user can prove a key."""
    max_sources: _Count = 50_000
    """Addresses whose failures are counted, and as many bans; the longest quiet go first."""
    command: tuple[str, ...] = ()
    """Run on every replica at each ban and its end, with `{action}` (`ban`, `unban`), `{address}`, `{family}`
    (`4`, `6`) and `{seconds}` filled in: a second line in the kernel. No shell."""
    command_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10
    command_queue_size: _Count = 1_000

    @model_validator(mode="after")
    def _some_length(self) -> "BanSettings":
        if not self.lengths_s:
            raise ValueError("lengths_s needs one length at least")
        return self


class ProtectionSettings(_Networks):
    """Limits for addresses; see docs/protection.md for how they work together."""

    allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Never banned and not limited one by one: monitoring, and other addresses that many users share."""
    bans: BanSettings = BanSettings()
    max_unauthenticated_per_source: _Count = 64
    """Connections of one address that are not logged in yet."""
    startups_begin: _Count = 500
    startups_percent: Annotated[int, Field(ge=0, le=100)] = 30
    startups_full: _Count = 2_000
    """As `MaxStartups begin:percent:full` of sshd: with so many unauthenticated connections in all, a new one
    is dropped by chance, and from `full` on always."""
    connections_per_minute: _Count = 600
    """Of one address."""
    max_sessions_per_user: _Count = 500
    """Connections of one user that are logged in at once, on one replica."""
    credit_s: _Seconds = 8 * 3_600
    """An address from which a known user logged in counts as theirs for this long."""
    strangers_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of the time of a process, what handshakes from all other addresses together may take."""

    @field_validator("allow")
    @classmethod
    def _allowed_are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return cls._check(value)

    @model_validator(mode="after")
    def _startups_in_order(self) -> "ProtectionSettings":
        if self.startups_begin > self.startups_full:
            raise ValueError("startups_begin must not exceed startups_full")
        return self

    @property
    def allowed(self) -> tuple[Network, ...]:
        """Return `allow` as networks."""
        return parse_networks(self.allow)
