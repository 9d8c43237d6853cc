"""Execution of an operator's kill orders by the replica that holds the session.

An order is a row in the database, which is read every `kill_poll_s` seconds. An event announces a new order,
so that it takes effect at once with NATS. The event alone ends nothing, so the right to publish events is not
enough to end sessions.
"""

import asyncio
from contextlib import suppress

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import StoreError
from proxy.events import subjects
from proxy.events.publisher import Bus, Subscription
from proxy.sessions.records import End, EndReason, KillOrder
from proxy.sessions.store import SessionStore
from proxy.sessions.tracker import Tracker

_log = structlog.get_logger("sessions")


class KillExecutor:
    """The task that executes kill orders; one for each process."""

    def __init__(self, store: SessionStore, bus: Bus, tracker: Tracker, poll_s: float) -> None:
        self._store = store
        self._bus = bus
        self._tracker = tracker
        self._poll_s = poll_s
        self._due = asyncio.Event()
        self._tasks = TaskOwner("kills")

    def start(self) -> None:
        """Start."""
        subscription = self._bus.subscribe(subjects.SESSION_KILL_ORDERED)
        self._tasks.spawn(self._listen(subscription), name="events")
        self._tasks.spawn(self._run(), name="look")

    async def close(self) -> None:
        """Stop."""
        await self._tasks.close()

    async def carry_out_orders(self) -> None:
        """Read the orders, and end those of their sessions that are in this process. Raises: StoreError."""
        if not self._tracker.live:
            return
        done = [order.id for order in await self._store.kill_orders() if self._carry_out(order)]
        if done:
            await self._store.forget_kills(done)

    def _carry_out(self, order: KillOrder) -> bool:
        session = self._tracker.find(order.session)
        if session is None:
            return False
        _log.info("session killed", session=order.session, actor=order.actor, reason=order.reason)
        who = "you, from another place" if order.actor == session.user else "an operator"
        why = f": {order.reason}" if order.reason else ""
        session.controls.end(f"ended by {who}{why}", End(EndReason.KILLED, order.reason, by=order.actor))
        return True

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._due.wait()
            self._due.clear()
            try:
                await self.carry_out_orders()
            except StoreError as exc:
                _log.debug("orders cannot be looked for", reason=str(exc))
            except Exception:  # noqa: BLE001 (a bug in one round must not end all later ones)
                _log.exception("orders failed")

    async def _listen(self, subscription: Subscription) -> None:
        try:
            async for _ in subscription:
                self._due.set()
        finally:
            subscription.close()
