"""Execution of an operator's kill orders by the replica that holds the session.

An order is a row in the database, which is read every `kill_poll_s` seconds. An event announces a new order,
so that it takes effect at once with NATS. The event alone ends nothing, so the right to publish events is not
enough to end sessions.
"""

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import StoreError
from proxy.events import subjects
from proxy.events.lookout import Lookout
from proxy.events.publisher import Bus
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
        self._lookout = Lookout(self._look, poll_s, _log, outage="orders cannot be looked for")
        self._tasks = TaskOwner("kills")

    def start(self) -> None:
        """Start."""
        self._lookout.start(self._tasks, self._bus.subscribe(subjects.SESSION_KILL_ORDERED))

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

    async def _look(self) -> None:
        try:
            await self.carry_out_orders()
        except StoreError as exc:  # the users of the store have said so louder
            _log.debug("orders cannot be looked for", reason=str(exc))
