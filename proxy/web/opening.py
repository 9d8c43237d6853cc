"""The step between the gate's verdict and the app: a connection with it, or an answer in its place."""

from typing import Protocol

from proxy.web.gate import Asked, Pass, Reply, Stream
from proxy.web.upstream import AppConnection, Pool


class Opener(Protocol):
    """The way from a request that passed the gate to its app."""

    @property
    def pool(self) -> Pool:
        """Return the connections that wait for a request."""

    async def open(self, asked: Asked, passed: Pass) -> AppConnection | Reply | Stream:
        """Return a connection with the app, or an answer in its place.

        A request for one of Fairlead's own paths never gets a connection.

        Raises: FairleadError when the app cannot be reached.
        """


class DirectOpener:
    """An opener that waits for the connection and starts nothing."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def open(self, asked: Asked, passed: Pass) -> AppConnection | Reply | Stream:
        """See Opener."""
        return (
            Reply(404, "There is nothing here")
            if asked.is_reserved
            else await self.pool.connect(passed.address)
        )
