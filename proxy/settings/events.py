"""Settings of events: where NATS is, who we are to it, and how much may wait for it.

Secrets stand in files, never here: a value of this section may be logged as it is. The files are read at
every connection, so that a rotated one is taken up by the next.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from proxy.settings.base import Section

_Seconds = Annotated[float, Field(gt=0, le=3_600)]
_TOKEN = r"[A-Za-z0-9_-]{1,64}"  # noqa: S105 (of a NATS subject, not a secret)


class EventsSettings(Section):
    """Events, sent to NATS, or, without `urls`, to this process only."""

    model_config = ConfigDict(hide_input_in_errors=True)

    urls: tuple[str, ...] = ()
    """`nats://host:4222` or `tls://host:4222`, one or more of a cluster; tried in turn. From the environment
    also as one text with commas. Empty: events stay in this process."""
    user: str = ""
    password_file: Path | None = None
    """Holds the password of `user`."""
    token_file: Path | None = None
    """Holds a token; instead of a user."""
    creds_file: Path | None = None
    """A `.creds` file of NATS (JWT and seed); instead of a user."""
    tls_ca_file: Path | None = None
    """Authorities that may vouch for the server; default those of this machine."""
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    """Our certificate, for servers that ask for one."""

    prefix: Annotated[str, Field(pattern=rf"^{_TOKEN}(\.{_TOKEN})*$", max_length=64)] = "fairlead"
    """Stands for `fairlead` in the subjects on the wire, so that installations can share one NATS account.
    The `type` of an event stays `fairlead.…`."""
    delivery: Literal["auto", "stream", "core"] = "auto"
    """`stream`: JetStream acknowledges each event. `core`: an event without a reader is lost. `auto`: stream
    where the account has JetStream."""
    stream: Annotated[str, Field(pattern=rf"^{_TOKEN}$")] = "fairlead"
    """The JetStream stream that captures `<prefix>.>`; made when there is none, never changed."""
    stream_max_age_s: Annotated[float, Field(ge=60, le=86_400 * 3_650)] = 86_400 * 30
    stream_max_bytes: Annotated[int, Field(ge=1024 * 1024)] = 1024 * 1024 * 1024
    stream_replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """These three hold for a stream that we make."""

    queue_size: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Events that may wait for NATS; one more drops the oldest. About 600 bytes each."""
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Events sent before their acknowledgement is awaited; they wait beside the queue."""
    subscription_queue_size: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    """Messages that may wait for one reader in this process; one more drops the oldest."""
    connect_timeout_s: _Seconds = 5
    command_wait_s: Annotated[float, Field(gt=0, le=60)] = 2
    """A command waits this long for what replicas share in NATS, then goes by what this home knows."""
    ack_timeout_s: _Seconds = 5
    """A connection whose server acknowledges nothing for this long is given up."""
    keepalive_interval_s: _Seconds = 20
    """Silence after which the server is asked whether it is there."""
    reconnect_wait_s: _Seconds = 0.5
    """Before the second attempt; doubles up to `reconnect_wait_max_s`, with jitter."""
    reconnect_wait_max_s: _Seconds = 15
    close_timeout_s: _Seconds = 3
    """What waits at shutdown has this long to leave."""

    @field_validator("urls", mode="before")
    @classmethod
    def _one_text_is_a_list(cls, value: Any) -> Any:
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )

    @field_validator("urls")
    @classmethod
    def _urls_are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if "@" in url:
                raise ValueError("a URL must not carry credentials: name a file that holds them")
            if not _is_address(url):
                raise ValueError("a URL must be nats://host:port or tls://host:port")
        if len({urlsplit(url).scheme for url in value}) > 1:
            raise ValueError("either all URLs are tls:// or none is")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "EventsSettings":
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("user and password_file go together")
        if sum(map(bool, (self.user, self.token_file, self.creds_file))) > 1:
            raise ValueError("only one of user, token_file and creds_file")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together")
        if self.reconnect_wait_s > self.reconnect_wait_max_s:
            raise ValueError("reconnect_wait_s must not exceed reconnect_wait_max_s")
        return self

    @property
    def encrypted(self) -> bool:
        """Return whether the connection must be TLS; then a server that offers none is refused."""
        scheme_is_tls = any(url.startswith("tls://") for url in self.urls)
        return scheme_is_tls or self.tls_ca_file is not None or self.tls_cert_file is not None


def _is_address(url: str) -> bool:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:  # its text would repeat what was typed
        return False
    bare = not re.search(r"[\s/?#]", url.partition("://")[2])
    return parts.scheme in ("nats", "tls") and bool(parts.hostname) and port != 0 and bare
