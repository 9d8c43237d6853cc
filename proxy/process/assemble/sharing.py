"""Sharing of apps: the shares of owners, the index of shared apps, and the end of visits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from proxy.process.assemble.common import Common
from proxy.process.assemble.identity import Identity
from proxy.process.assemble.workspaces import WorkspaceParts
from proxy.process.parts import running
from proxy.web.index import SharedIndex
from proxy.web.origins import Origins
from proxy.web.places import Places
from proxy.web.share_commands import ShareCommands
from proxy.web.share_store import ShareStore
from proxy.web.share_watch import Exchanges, ShareWatch
from proxy.web.shares import Shares


@dataclass(frozen=True, slots=True)
class Sharing:
    """The apps that users may open, their own and those of others."""

    common: Common
    identity: Identity
    workspaces: WorkspaceParts
    shares: Shares
    index: SharedIndex
    places: Places

    def commands(self, origins: Origins) -> ShareCommands:
        """Make the commands of the lobby."""
        settings = self.common.settings
        return ShareCommands(
            self.shares,
            self.places,
            self.workspaces.catalog,
            self.identity.directory,
            origins,
            settings.blueprint,
            share_max=settings.web.share_max,
        )

    def watch(self, exchanges: Exchanges) -> ShareWatch:
        """Make the watch over open exchanges with apps."""
        directory, bus = self.identity.directory, self.common.bus
        check_s = self.common.settings.web.session.check_s
        return ShareWatch(exchanges, self.index, self.places, directory, bus, self.shares, check_s)


@asynccontextmanager
async def open_sharing(
    common: Common, identity: Identity, workspaces: WorkspaceParts
) -> AsyncIterator[Sharing]:
    """Hold the index of shared apps, and follow changes by owners. Raises: StoreError."""
    web = common.settings.web
    shares = Shares(ShareStore(identity.database), common.bus, web.session.check_s)
    await shares.open()
    index = SharedIndex(
        workspaces.catalog, identity.directory, shares, every_s=web.index_s, share_max=web.share_max
    )
    async with running(shares), running(index):
        yield Sharing(common, identity, workspaces, shares, index, Places(index))
