"""Settings of the web half: the addresses of apps of workspaces, and the limits of one client."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from proxy.addresses import Network, parse_networks
from proxy.settings.base import Audience, Section

_Seconds = Annotated[float, Field(gt=0, le=86_400)]
_Count = Annotated[int, Field(ge=1, le=1_000_000)]
_DEFAULT_PORTS = {"http": 80, "https": 443}


class WebTlsSettings(Section):
    """TLS spoken by Fairlead itself. Without it an edge proxy speaks TLS, or the web half is plain HTTP."""

    cert: Path | None = None
    """PEM file with the certificate of `*.<apps_domain>` and what it needs to be trusted."""
    key: Path | None = None
    """PEM file with its private key."""
    check_s: _Seconds = 10
    """How often both files are looked at; changed ones serve the next connection. A pair that cannot be
    loaded is logged and the last good one stays."""

    @model_validator(mode="after")
    def _both_or_none(self) -> "WebTlsSettings":
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        return self


class WebSessionSettings(Section):
    """Sessions of signed-in browsers."""

    idle_s: Annotated[float, Field(ge=60, le=31_536_000)] = 43_200
    """A session without a request for so long has ended."""
    life_s: Annotated[float, Field(ge=60, le=31_536_000)] = 604_800
    """From a sign-in to its end, however much the session is used."""
    certificate_life_s: Annotated[float, Field(ge=60, le=31_536_000)] = 28_800
    """The same for a browser that an SSH user certificate signed in: certificates are good for hours."""
    check_s: Annotated[float, Field(ge=0.1, le=60)] = 1
    """How long an answer of the store about a session is believed, and how often open WebSockets are
    compared with it: the bound for a sign-out on another replica without NATS."""
    per_user: Annotated[int, Field(ge=1, le=1_000)] = 50
    """Browsers that one user is signed in with; the oldest session ends when there is one more."""
    attempts_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 240
    """Requests to the login pages from one address (an IPv6 /64 is one) that make Fairlead ask a provider or
    its store; more are refused for a while."""


class PortalSettings(Section):
    """The portal, the pages of signed-in users on the login origin."""

    look_s: Annotated[float, Field(ge=0.2, le=60)] = 2
    """How often an open page looks whether something changed; all pages of one process share one look at the
    list of workspaces."""
    stream_s: Annotated[float, Field(ge=1, le=3_600)] = 45
    """Life of one stream of changes, after which the browser opens the next; less than `web.own_s`."""
    streams_per_user: Annotated[int, Field(ge=1, le=100)] = 8
    """Pages of one user that are kept up to date by one process; further ones show what was true when they
    were opened."""
    streams: Annotated[int, Field(ge=1, le=100_000)] = 500
    """The same of all users."""
    starts: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Workspaces that one process starts at the same time on request of a page."""
    read_s: _Seconds = 10
    """For what a page asks of the backend, of a workspace or of the store of recordings."""
    players: Annotated[int, Field(ge=1, le=100)] = 2
    """Recordings that one process prepares for playing at the same time: each takes one processor."""


class WebSettings(Section):
    """The HTTP front of apps; see docs/web.md."""

    listen: str = ""
    """`host:port`; empty: no web half. `fairlead run` takes 127.0.0.1:8022, or a free port when that is
    taken."""
    apps_domain: Annotated[
        str,
        Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$"),
    ] = "localhost"
    """Each app has the origin `<label>.<apps_domain>`. Best a registrable domain of its own, so that apps are
    another site than everything else; browsers take names below `localhost` for this machine."""
    public_scheme: Literal["http", "https"] | None = None
    """Of the addresses that browsers use; None: `https` with `tls`, else `http`. Set `https` behind an edge
    proxy that speaks TLS."""
    public_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """Of the addresses that browsers use; None: the port of `listen`, or the scheme's own where
    `public_scheme` is set."""
    tls: WebTlsSettings = WebTlsSettings()
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and CIDR ranges of edge proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    From all others these fields are dropped."""
    proxy_protocol: tuple[str, ...] = ()
    """Addresses and CIDR ranges of load balancers that begin each connection with a PROXY protocol header,
    versions 1 or 2. Their connections without one are closed."""
    proxy_header_s: _Seconds = 3
    """From accept to the end of that header."""
    backlog: _Count = 1_024
    max_head_bytes: Annotated[int, Field(ge=1_024, le=1024 * 1024)] = 64 * 1024
    """Of one request or answer, request line and fields together. Browsers of users with many cookies send
    more than 8 KiB."""
    max_fields: Annotated[int, Field(ge=10, le=10_000)] = 200
    """Header fields of one request or answer."""
    max_target_bytes: Annotated[int, Field(ge=256, le=1024 * 1024)] = 16 * 1024
    """Of the path and query of a request."""
    head_s: _Seconds = 15
    """From the first byte of a request head to its end; of the first one, and of a TLS handshake, from
    accept. Bodies have no time limit."""
    idle_s: _Seconds = 75
    """A connection without a request is closed after this long."""
    linger_s: _Seconds = 5
    """What a client still sends after our last word on a connection is discarded for so long, so that the
    client can read that word; then the connection is closed. Also the time for the closing handshake of a
    WebSocket that Fairlead ends."""
    half_closed_s: _Seconds = 60
    """An upgraded connection of which one direction has ended is broken off after so long without bytes."""
    max_connections: _Count = 10_000
    """Client connections of one process; further ones are closed at once."""
    max_connections_per_address: _Count = 512
    """Of one address (an IPv6 /64 is one). Trusted proxies and load balancers are not limited by this."""
    buffer_bytes: Annotated[int, Field(ge=16 * 1024, le=16 * 1024 * 1024)] = 256 * 1024
    """Bytes that may wait in one direction of a connection before its sender is stopped."""
    dial_s: _Seconds = 15
    """From a request to a connection with its app, when the workspace runs."""
    pool_size: Annotated[int, Field(ge=0, le=10_000)] = 32
    """Idle connections kept for one app."""
    pool_idle_s: _Seconds = 20
    """For how long."""
    own_s: _Seconds = 60
    """From the head of a request to the login pages to the end of its answer, a provider's time included."""
    wait_s: Annotated[float, Field(ge=1, le=3_600)] = 600
    """From a page that begins the start of a workspace to the end of the waiting page, and the longest
    `Prefer: wait`. More than starts take; a page that was left open does not start anything after it."""
    activity_s: Annotated[float, Field(ge=1, le=60)] = 5
    """The shortest time between two reports of activity to one workspace; the clock of idleness is that
    inexact."""
    session: WebSessionSettings = WebSessionSettings()
    dev_user: str = ""
    """User as whom the development provider signs in its account of the same name, which asks for no
    password. `fairlead run` sets it to the user whom it prints, while that provider is for this machine."""
    ssh_address: Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9.-]+:[0-9]{1,5}$")] = ""
    """`host:port` by which users reach SSH, for the command that the login pages show; empty: that of
    `listen` where it is this machine."""
    require: Literal["", "ssh-paired"] = ""
    """`ssh-paired`: browsers sign in by the link of `ssh <user>+lobby@<host> web` only, and no provider is
    asked; empty: by a provider as well."""
    operators: Audience = Audience()
    """Users who see workspaces, sessions, users and bans of all in the portal, and may stop, end, lock and
    ban."""
    portal: PortalSettings = PortalSettings()
    index_s: _Seconds = 10
    """How often the index of shared apps learns of new users; blueprints are followed at once."""
    share_max: Literal["owner", "users", "groups", "authenticated", "public"] = "public"
    """The widest share of any app, for blueprints and owners alike; `public` is no limit."""

    @field_validator("trusted_proxies", "proxy_protocol")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_networks(value)
        return value

    @model_validator(mode="after")
    def _target_fits(self) -> "WebSettings":
        if self.max_target_bytes >= self.max_head_bytes:
            raise ValueError("max_target_bytes must be less than max_head_bytes")
        return self

    @model_validator(mode="after")
    def _stream_ends_by_itself(self) -> "WebSettings":
        if self.portal.stream_s >= self.own_s:
            raise ValueError("portal.stream_s must be less than own_s")
        return self

    @property
    def scheme(self) -> str:
        """Scheme of the addresses that browsers use."""
        return self.public_scheme or ("http" if self.tls.cert is None else "https")

    @property
    def scheme_spoken(self) -> str:
        """Return the scheme of our own socket, which may differ from that of an edge proxy before it."""
        return "http" if self.tls.cert is None else "https"

    @property
    def has_login(self) -> bool:
        """Return whether browsers can sign in: over https, or by names directly below `localhost`.

        Over http, cookies have no prefix that keeps siblings from setting them; browsers let no page set one
        for `localhost` as a whole, and do so for any domain below it.
        """
        return self.scheme == "https" or self.apps_domain == "localhost"

    def port(self, bound: int) -> int:
        """Return the port of the addresses that browsers use; `bound` is the one that is listened on."""
        if self.public_port is not None:
            return self.public_port
        return bound if self.public_scheme is None else _DEFAULT_PORTS[self.public_scheme]

    @property
    def trusted_networks(self) -> tuple[Network, ...]:
        """Return `trusted_proxies` as networks."""
        return parse_networks(self.trusted_proxies)

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """Return `proxy_protocol` as networks."""
        return parse_networks(self.proxy_protocol)
