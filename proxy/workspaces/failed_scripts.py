"""Init scripts that failed in workspaces which run, as the workspaces themselves tell."""

from dataclasses import replace

from proxy.errors import FairleadError
from proxy.upstream.client import Links
from proxy.workspaces.backend import Backend, WorkspacePhase, WorkspaceRecord


async def with_failed_scripts(record: WorkspaceRecord, backend: Backend, links: Links) -> WorkspaceRecord:
    """Return a record whose detail names the init scripts that failed; one that does not run stays as it is.

    A workspace that does not answer within the deadlines of a link says so in its detail.
    """
    if record.phase is not WorkspacePhase.RUNNING:
        return record
    try:
        endpoint = await backend.locate(record.name)
        if endpoint is None:
            return record
        async with links.use(endpoint) as link:
            failed = (await link.status()).failed_scripts
    except FairleadError as exc:
        return replace(record, detail=record.detail or f"it does not say how it is: {exc.user_message}")
    return replace(record, detail="; ".join([*filter(None, [record.detail]), *failed]))
