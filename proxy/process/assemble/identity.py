"""Identities: their database, the directory in it, its audit, and the lists of revoked keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from proxy.identity.auditor import Auditor
from proxy.identity.revoked_keys import Revocations
from proxy.identity.store import SqlDirectory
from proxy.process.assemble.common import Common
from proxy.process.assemble.database import open_to_serve
from proxy.process.parts import closing, running
from proxy.storage.database import Database


@dataclass(frozen=True, slots=True)
class Identity:
    """Users and keys, and the lists of revoked keys."""

    database: Database
    directory: SqlDirectory
    revocations: Revocations


@asynccontextmanager
async def open_identity(common: Common) -> AsyncIterator[Identity]:
    """Hold the directory, compared with its last census before the first login.

    Raises: StoreError, SettingsError.
    """
    settings, identity = common.settings, common.settings.identity
    revocations = await Revocations(identity.revoked_keys).open()
    database = await open_to_serve(
        settings.database_url,
        query_timeout_s=identity.query_timeout_s,
        failover_wait_s=identity.failover_wait_s,
        pinned=identity.installation,
        memory=settings.installation_file,
    )
    async with closing(database):
        directory = await SqlDirectory.in_database(database, uids=identity.uids, groups=settings.groups)
        auditor = Auditor(
            directory,
            census_s=identity.census_s,
            recheck_s=identity.recheck_s,
            vanished_s=identity.vanished_s,
            max_vanished_share=identity.max_vanished_share,
        )
        await auditor.look()
        common.health.add_problem(
            "fairlead_directory_in_doubt",
            "1 while users or keys are lost, or the directory does not answer; see docs/operations.md.",
            lambda: auditor.problem,
        )
        async with running(auditor):
            yield Identity(database, directory, revocations)
