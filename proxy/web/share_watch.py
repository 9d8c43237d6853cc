"""The end of open exchanges with apps that may not go on: WebSockets, streams and downloads.

    share removed · owner or user locked, removed or in other groups · blueprint changed ─▶ closed with 1008

An event only asks to look. While anything of another user's app is open, the directory is asked every
`check_s` seconds, so that without NATS the bound is that. Nothing ends because the directory does not answer.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import structlog

from proxy.access import policy
from proxy.aio import TaskOwner
from proxy.events import subjects
from proxy.events.lookout import Lookout
from proxy.events.publisher import Bus
from proxy.identity.directory import Directory, KeyStanding
from proxy.web.frames import POLICY_VIOLATION
from proxy.web.index import SharedIndex
from proxy.web.places import Places
from proxy.web.relay import Exchange
from proxy.web.road import Address
from proxy.web.sessions import Held
from proxy.web.shares import Shares

_log = structlog.get_logger("web")

_SHARE_ENDED = policy.NOT_SHARED.reason
_APP_GONE = "this app is not there any more"
_USER_REMOVED = "this user was removed"
_AT_ONCE = 500
"""Exchanges that are judged in one turn of the event loop."""

Standing = Mapping[tuple[str, str], KeyStanding]
Exchanges = Callable[[], Iterable[Exchange]]
"""The exchanges that have begun and not ended."""


class ShareWatch:
    """One per process."""

    def __init__(
        self,
        exchanges: Exchanges,
        index: SharedIndex,
        places: Places,
        directory: Directory,
        bus: Bus,
        shares: Shares,
        check_s: float,
    ) -> None:
        self._exchanges = exchanges
        self._places = places
        self._directory = directory
        self._bus = bus
        outage = "visits of shared apps cannot be compared with the store"
        self._lookout = Lookout(self.check, check_s, _log, outage=outage)
        self._tasks = TaskOwner("web-share-watch")
        shares.on_change(self._lookout.hurry)
        index.on_change(self._lookout.hurry)

    def start(self) -> None:
        """Look until closed."""
        self._lookout.start(self._tasks, self._bus.subscribe(subjects.ALL_USER))

    async def close(self) -> None:
        """Look no more; open exchanges go on."""
        await self._tasks.close()

    async def check(self) -> None:
        """Judge every open exchange with an app, and end those that may not stay. Raises: StoreError."""
        open_ = list(self._exchanges())
        addresses = {one.passed.address for one in open_ if not _is_own(one.passed.address)}
        standing = await self._standing(addresses)
        now = datetime.now(UTC)
        judged: dict[Address, str] = {}
        for number, exchange in enumerate(open_, start=1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            address = exchange.passed.address
            if _is_own(address):
                reason = self._judge_own(exchange)
            elif (known := judged.get(address)) is not None:
                reason = known
            else:
                reason = judged[address] = self._judge(address, standing, now)
            if reason:
                _log.info(
                    "closed", label=address.label, owner=address.owner, user=_actor(address), why=reason
                )
                exchange.end(POLICY_VIOLATION, reason)

    async def _standing(self, addresses: Iterable[Address]) -> Standing:
        """Look owners and users up, each as of now."""
        names = {name for one in addresses for name in (one.owner, _actor(one)) if name}
        return await self._directory.standing_of({(name, "") for name in names}) if names else {}

    def _judge(self, address: Address, standing: Standing, now: datetime) -> str:
        """Return the reason that ends an exchange with another user's app; empty for one that may stay."""
        opened = self._places.public(address.label)
        if address.principal is not None:
            actor = standing[address.principal.user.name, ""]
            if not actor.is_certain:
                return ""
            if actor.user is None or actor.user.id != address.principal.user.id:
                return _USER_REMOVED
            if not (decision := policy.may_login(actor.user, now)):
                return decision.reason
            opened = self._places.find(actor.user, address.label)
        owner = standing[address.owner, ""]
        if opened is None or not owner.is_certain:
            return _SHARE_ENDED if opened is None else ""
        return "" if self._places.is_offered(opened, owner.user, now) else _SHARE_ENDED

    def _judge_own(self, exchange: Exchange) -> str:
        """Return the reason that ends an owner's exchange, by known blueprints and groups; empty for none."""
        held = exchange.passed.tag
        label = exchange.passed.address.label
        if not isinstance(held, Held) or not label:
            return ""
        opened = self._places.find(held.user, label)
        blueprint = exchange.passed.address.workspace.blueprint
        is_there = opened is not None and self._places.may_have(held.user, blueprint)
        return "" if is_there else _APP_GONE


def _is_own(address: Address) -> bool:
    return _actor(address) == address.owner


def _actor(address: Address) -> str:
    """Return the name of the user who asks; empty for a visitor without a login."""
    return "" if address.principal is None else address.principal.user.name
