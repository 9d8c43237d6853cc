"""Settings of identities."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from proxy.settings.base import Seconds, Section


class IdentitySettings(Section):
    """Identities: their database, their uids, and authorities of user certificates."""

    database_url: str = ""
    """SQLAlchemy URL of an async driver; default SQLite in `<home>`."""
    query_timeout_s: Seconds = 10
    failover_wait_s: Annotated[float, Field(ge=0, le=60)] = 5
    """A login waits this long for a PostgreSQL server that takes no connection, as one that fails over does;
    0 fails at once. A wait for SQLite is part of `query_timeout_s`."""
    first_uid: Annotated[int, Field(ge=1, lt=2**31)] = 10_000
    last_uid: Annotated[int, Field(ge=1, lt=2**31)] = 59_999
    """Users without a uid of their own get the next of these; none is ever given to a second user."""
    recheck_s: Seconds = 2
    """Live connections are compared with the directory this often, and a locked user's end: the bound that
    holds without NATS."""
    trusted_user_ca_keys: tuple[Path, ...] = ()
    """Files with public keys of authorities whose OpenSSH user certificates let a known user in, when one
    of the certificate's principals is the user's name."""
    revoked_keys: tuple[Path, ...] = ()
    """Files that `sshd` takes as RevokedKeys: KRLs of `ssh-keygen -k`, or public keys, one a line; at most
    16 MiB each. Read again when they change; while one cannot be read, every key is refused."""

    installation: Annotated[str, Field(pattern=r"^([0-9a-f-]{36})?$")] = ""
    """The installation that the database must belong to, as `fairlead database show` prints it. With it a
    proxy refuses an empty or another database even when its `home` does not outlive it."""
    census_s: Seconds = 10
    """Each proxy counts users and keys this often, and every `recheck_s` while some are missing."""
    vanished_s: Seconds = 60
    """Users and keys that are gone without a record of their removal count as removed once that has not
    changed for so long; restoring a table takes less than this between two rows."""
    max_vanished_share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """When more than this share of users or keys is gone without a record, or all are, they never count as
    removed: it is an outage until they are back, or until `fairlead database accept`."""

    @property
    def uids(self) -> range:
        """Return the uids that are assigned to users, `first_uid` to `last_uid`."""
        return range(self.first_uid, self.last_uid + 1)

    @model_validator(mode="after")
    def _uids_in_order(self) -> "IdentitySettings":
        if self.first_uid > self.last_uid:
            raise ValueError("first_uid must not exceed last_uid")
        return self
