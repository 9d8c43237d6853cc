"""The identity of a database: the installation that it belongs to, and the counts that it should hold.

A database that is replaced, restored in stages or emptied answers queries like any other, and every answer is
wrong. The one row of `installation` shows whether a database is the right one.
"""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.errors.stores import StoreError
from proxy.storage.tables import UtcDateTime, metadata

installation = sa.Table(
    "installation",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    # Least numbers of rows in the tables of the directory. A recorded removal lowers them, so that a
    # shortfall is a loss of data.
    sa.Column("users", sa.BigInteger, nullable=False),
    sa.Column("keys", sa.BigInteger, nullable=False),
    # The oldest schema whose releases can use this database as it is.
    sa.Column("oldest_schema", sa.String(32), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

_IDS = sa.select(installation.c.id).limit(2)


async def read_id(connection: AsyncConnection) -> str:
    """Return the id of the installation; empty when the row is missing or not the only one."""
    ids = (await connection.execute(_IDS)).scalars().all()
    return ids[0] if len(ids) == 1 else ""


def recall(file: Path) -> str:
    """Return the id that a proxy wrote to `file` at an earlier start; empty when there is none.

    Raises: StoreError when the file cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        raise StoreError(f"{file}: cannot be read: {exc}") from None


def note(file: Path, id_: str) -> None:
    """Write the id to `file` for later starts. Raises: StoreError."""
    draft = file.with_name(file.name + ".new")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.write_text(f"{id_}\n", encoding="utf-8")
        draft.replace(file)
    except OSError as exc:
        raise StoreError(f"{file}: cannot be written: {exc.strerror}") from None
