"""Forwarding of one connection: its record, both of its ends, and the bytes between them.

Independent of SSH and gRPC: the caller passes two functions, one for each end.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from proxy.access.relay import Inbound, Outbound, relay_connection
from proxy.errors import FairleadError
from proxy.errors.programs import Refused
from proxy.sessions.live import LiveProgram
from proxy.sessions.records import End, EndReason
from proxy.upstream.client import Link
from proxy.upstream.streams import Connection

Opening = AbstractAsyncContextManager[tuple[Connection, Link]]
"""The workspace's end of a forward, while inside; see `Gateway.dial` and `Gateway.accept`."""


class ClientRefused(Exception):
    """The client did not take a connection; the message is the client's reason."""


async def carry(
    opening: Opening,
    open_client_end: Callable[[], Awaitable[None]],
    *,
    record: LiveProgram,
    inbound: Inbound,
    outbound: Outbound,
) -> None:
    """Open the workspace's end, then the client's, and carry bytes until both directions have ended.

    `open_client_end` returns when the client's end is open. The record ends with the forward, with the
    reason.

    Raises: FairleadError when the workspace's end cannot be opened, or breaks; ClientRefused by the client.
    """
    try:
        async with opening as (connection, link):
            await open_client_end()
            await relay_connection(connection, inbound, outbound, link.max_frame_bytes)
            record.ended(End(EndReason.CLOSED))
    except FairleadError as exc:
        reason = EndReason.REFUSED if isinstance(exc, Refused) else EndReason.FAILED
        record.ended(End(reason, f"{exc.code}: {exc}"))
        raise
    except ClientRefused as exc:
        record.ended(End(EndReason.FAILED, f"the client refused it: {exc}"))
        raise
    finally:
        record.ended(End(EndReason.LEFT))  # cancelled; every other end is recorded already
