"""Facts that running workspaces tell of themselves: failed init scripts, and the last activity."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from proxy.errors import FairleadError
from proxy.upstream.client import Links
from proxy.workspaces.backend import Backend, WorkspacePhase, WorkspaceRecord


async def as_reported(record: WorkspaceRecord, backend: Backend, links: Links) -> WorkspaceRecord:
    """Return a record completed by the status of its workspace; one that does not run stays as it is.

    A workspace that does not answer within the deadlines of a link says so in its detail.
    """
    if record.phase is not WorkspacePhase.RUNNING:
        return record
    try:
        endpoint = await backend.locate(record.name)
        if endpoint is None:
            return record
        async with links.use(endpoint) as link:
            status = await link.status()
    except FairleadError as exc:
        return replace(record, detail=record.detail or f"it does not say how it is: {exc.user_message}")
    return replace(
        record,
        detail="; ".join([*filter(None, [record.detail]), *status.failed_scripts]),
        active_at=datetime.now(UTC) - timedelta(seconds=status.idle_s),
        why=status.why,
    )
