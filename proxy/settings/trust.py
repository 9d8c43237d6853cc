"""Settings of trust between proxies and workspaces: who vouches, for how long, and when that changes."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from proxy.settings.base import Section

_DAY_S = 86_400
_Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
_Seconds = Annotated[float, Field(gt=0, le=_DAY_S * 36_500)]


class TrustSettings(Section):
    """Certificates and token keys of workspaces that are reached over TCP; the same for every proxy."""

    mode: Literal["own", "cert-manager"] = "own"
    """Who signs certificates: an authority of Fairlead's own, or cert-manager. Token keys are always ours."""

    file: Path | None = None
    """Where authority and master key are kept without Kubernetes; default `<home>/trust.json`."""
    secret_name: _Name = "fairlead-trust"  # noqa: S105 - the name of an object
    secret_namespace: _Name | Literal[""] = ""
    """Where they are kept with Kubernetes; the namespace is that of workspaces by default, and better the
    proxies' own, which only they can read."""

    authority_lifetime_s: _Seconds = _DAY_S * 730
    rotate_after_s: _Seconds = _DAY_S * 365
    """An authority and a master key that have been in use for this long get a successor."""
    announce_s: _Seconds = _DAY_S
    """A successor is trusted for this long before it signs anything: longer than it takes until every
    workspace has read its Secret again, minutes with kubelet."""
    retire_s: _Seconds = _DAY_S
    """The predecessor stays trusted for this long after that: until every workspace has a new certificate."""
    server_lifetime_s: _Seconds = _DAY_S * 90
    """A workspace's certificate; renewed when a third of it is left."""
    client_lifetime_s: _Seconds = _DAY_S
    """A proxy's certificate; it exists in the proxy's memory only and is renewed likewise."""
    back_date_s: Annotated[float, Field(ge=0, le=_DAY_S)] = 3_600
    """Certificates are valid this long before they were made, for machines whose clock lags."""
    token_lifetime_s: Annotated[float, Field(ge=30, le=600)] = 300
    refresh_s: _Seconds = 60
    """How often a proxy reads what other proxies may have changed."""
    store_timeout_s: _Seconds = 15
    """One read or write of the store."""

    issuer_name: str = ""
    issuer_kind: Literal["Issuer", "ClusterIssuer"] = "Issuer"
    issuer_group: str = "cert-manager.io"
    """cert-manager: whom to ask for the certificate of each workspace."""
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    client_ca_file: Path | None = None
    """cert-manager: this proxy's certificate (name `fairlead-proxy`, usage client auth), its key and the
    authority of workspaces, mounted from a Secret; read again when they change."""

    @model_validator(mode="after")
    def _consistent(self) -> "TrustSettings":
        if self.announce_s <= self.refresh_s:
            raise ValueError("announce_s must exceed refresh_s, or a proxy could miss a successor")
        if self.rotate_after_s < self.announce_s + self.retire_s:
            raise ValueError("rotate_after_s must not be shorter than announce_s and retire_s together")
        if self.authority_lifetime_s < self.rotate_after_s + self.announce_s + self.retire_s:
            raise ValueError("an authority must outlive its rotation: raise authority_lifetime_s")
        files = (self.client_cert_file, self.client_key_file, self.client_ca_file)
        if self.mode == "cert-manager" and (not all(files) or not self.issuer_name):
            raise ValueError(
                "cert-manager needs issuer_name, client_cert_file, client_key_file and client_ca_file"
            )
        return self
