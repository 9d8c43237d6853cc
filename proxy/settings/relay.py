"""Settings of the relay of bytes."""

from typing import Annotated

from pydantic import Field

from proxy.settings.base import Bytes, Seconds, Section


class RelaySettings(Section):
    """The road of the bytes."""

    buffer_bytes: Bytes = 1024 * 1024
    """Held per direction of a channel before the writer is stopped."""
    window_bytes: Bytes = 2 * 1024 * 1024
    """SSH receive window of a channel: the most a client may have in flight (RFC 4254 §5.2)."""
    packet_bytes: Annotated[int, Field(ge=32_768, le=262_144)] = 32 * 1024
    """Largest payload that a client may put into one packet; RFC 4253 §6.1 asks for 32 KiB at least."""
    join_bytes: Bytes = 256 * 1024
    """SSH packets of one turn of the event loop leave in writes of up to this size. A client that leaves as
    many bytes of replies unread is heard no more until it reads them."""
    unread_timeout_s: Seconds = 60
    """After this long the connection of a client that is heard no more, because of unread replies, ends."""
