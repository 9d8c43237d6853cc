"""The database of a serving proxy: created or upgraded if needed, and never that of another installation."""

from pathlib import Path

from proxy.storage import installation
from proxy.storage.database import Database


async def open_to_serve(
    url: str, *, query_timeout_s: float, failover_wait_s: float = 0, pinned: str, memory: Path | None
) -> Database:
    """Open the database of installation `pinned`, else of the one that an earlier start stored in `memory`.

    Without either, open that of any installation; an empty one becomes a new installation. `memory` is
    updated.

    Raises: StoreError, as Database.open does.
    """
    served = expected(pinned, memory)
    database = await Database.open(
        url, query_timeout_s=query_timeout_s, failover_wait_s=failover_wait_s, upgrade=True, served=served
    )
    if memory is not None and database.installation != served:
        installation.note(memory, database.installation)
    return database


def expected(pinned: str, memory: Path | None) -> str:
    """Return the installation that the database must belong to; empty for any. Raises: StoreError."""
    return pinned or (installation.recall(memory) if memory is not None else "")
