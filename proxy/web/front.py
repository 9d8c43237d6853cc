"""The client connections of one process, and the state that they share."""

import asyncio
import itertools
import secrets
from collections import Counter
from contextlib import suppress
from typing import Protocol

from proxy.addresses import source_of
from proxy.aio import TaskOwner
from proxy.settings.web import WebSettings
from proxy.web.activity import Activity
from proxy.web.frames import GOING_AWAY
from proxy.web.gate import Gate
from proxy.web.opening import Opener
from proxy.web.origins import Host, Origins
from proxy.web.relay import Exchange

_TICK_S = 1.0
_FAREWELL_S = 1.0
"""For sockets that were broken off to be gone."""
_MOST_HOSTS = 1_024
"""Host fields whose meaning is remembered."""
_AT_ONCE = 500
"""Connections whose deadlines are looked at in one turn of the event loop."""


class Connected(Protocol):
    """A client connection, as the front ends it and looks after its deadlines."""

    @property
    def splice(self) -> Exchange | None:
        """Return the exchange under way, where it was upgraded."""

    @property
    def under_way(self) -> Exchange | None:
        """Return the exchange under way, upgraded or not."""

    def check(self, now: float) -> None:
        """End a request or a connection that takes too long; `now` is seconds of the event loop's clock."""

    def finish(self) -> None:
        """Close an idle connection; one with a request is closed behind its answer."""

    def abort(self) -> None:
        """Close it at once."""


class OwnSite(Protocol):
    """Pages of Fairlead itself, on an origin of their own beside the apps."""

    label: str
    """The DNS label before the domain of apps."""

    def connection(self) -> asyncio.Protocol:
        """Make the protocol that answers one request and closes the connection."""


class Sockets(Protocol):
    """An observer of upgraded exchanges; must not raise."""

    def began(self, exchange: Exchange) -> None:
        """Learn of one that was upgraded just now."""

    def over(self, exchange: Exchange) -> None:
        """Learn of its end; each ends once."""


class Front:
    """The client connections of one process, and their shared state."""

    def __init__(
        self,
        settings: WebSettings,
        origins: Origins,
        gate: Gate,
        opener: Opener,
        *,
        own: OwnSite | None = None,
        sockets: Sockets | None = None,
        activity: Activity | None = None,
    ) -> None:
        """Create it; `own` has an origin beside the apps, `sockets` observes WebSockets."""
        self.settings = settings
        self.origins = origins
        self.gate = gate
        self.pool = opener.pool
        self.tasks = TaskOwner("web")
        self.own = own
        self.sockets = sockets
        self.opener = opener
        self.activity = activity
        self.is_closing = False
        self.trusted = settings.trusted_networks
        self._connections: set[Connected] = set()
        self._by_source: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._hosts: dict[bytes, Host] = {}
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        """Count client connections."""
        return len(self._connections)

    @property
    def upgraded(self) -> list[Exchange]:
        """Return the open upgraded exchanges, each with the gate's verdict and `stop`."""
        return [exchange for one in self._connections if (exchange := one.splice) is not None]

    @property
    def under_way(self) -> list[Exchange]:
        """Return the exchanges that have begun and not ended, each with the gate's verdict and `end`."""
        return [exchange for one in self._connections if (exchange := one.under_way) is not None]

    def has_room(self, address: str, *, is_counted: bool) -> bool:
        """Tell whether another connection of an address is taken."""
        if self.is_closing or len(self._connections) >= self.settings.max_connections:
            return False
        limit = self.settings.max_connections_per_address
        return not is_counted or self._by_source[source_of(address)] < limit

    def start(self) -> None:
        """Look after deadlines until closed."""
        self.tasks.spawn(self._tick(), name="deadlines")

    async def close(self, grace_s: float) -> None:
        """End WebSockets with a reason, let other requests end for `grace_s` seconds, then break off."""
        self.is_closing = True
        for exchange in self.upgraded:
            exchange.stop(GOING_AWAY, "the server is shutting down")
        for connection in tuple(self._connections):
            connection.finish()
        await self._all_gone(grace_s)
        for connection in tuple(self._connections):
            connection.abort()
        await self._all_gone(_FAREWELL_S)
        self.pool.close()
        await self.tasks.close()

    async def _all_gone(self, within_s: float) -> None:
        """Wait until no client is connected, at most for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._connections:
                    self._changed.clear()
                    await self._changed.wait()

    def added(self, connection: Connected, source: str) -> None:
        """Count a connection."""
        self._connections.add(connection)
        if source:
            self._by_source[source] += 1

    def removed(self, connection: Connected, source: str) -> None:
        """Count a connection no longer."""
        self._connections.discard(connection)
        self._changed.set()
        if source:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]

    def host(self, field: bytes) -> Host:
        """Read a Host field; recent ones are remembered. Raises: HostInvalid, Misdirected."""
        if (known := self._hosts.get(field)) is None:
            if len(self._hosts) >= _MOST_HOSTS:
                self._hosts.clear()
            known = self._hosts[field] = self.origins.read(field)
        return known

    def request_id(self) -> bytes:
        """Return a new id for a request: for the answer, and for its log entries."""
        return b"%b-%d" % (self._prefix.encode(), next(self._numbers))

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            now = loop.time()
            self.pool.sweep(now)
            if self.activity is not None:
                self.activity.tick()
            for number, connection in enumerate(tuple(self._connections), start=1):
                connection.check(now)
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
