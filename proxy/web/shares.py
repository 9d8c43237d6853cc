"""The shares of owners as this process knows them: in memory, so that no request waits for the database.

    an owner's change ─▶ the database ─▶ an event ─▶ every replica reads what changed ─▶ `on_change`

The event only says: look. Without NATS the database is asked every `check_s` seconds for changes after the
last known revision, so that a change takes effect everywhere within that time. While the database does not
answer, the last known shares stay; sessions cannot be looked up then either.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from proxy.aio import TaskOwner
from proxy.events import schema, subjects
from proxy.events.lookout import Lookout
from proxy.events.publisher import Bus
from proxy.model import User
from proxy.web.share_store import PAGE, AppOf, OwnShare, ShareRecord, ShareStore

_log = structlog.get_logger("web")

_RELOAD_S = 60.0
"""How often everything is read: rows of removed users disappear without a revision."""


class Shares:
    """One per process."""

    def __init__(self, store: ShareStore, bus: Bus, check_s: float) -> None:
        self._store = store
        self._bus = bus
        self._records: dict[AppOf, ShareRecord] = {}
        self._revision = 0
        self._reload_at = 0.0
        self._lookout = Lookout(self._look, check_s, _log, outage="changes of shares cannot be read")
        self._observers: list[Callable[[], None]] = []
        self._tasks = TaskOwner("web-shares")

    async def open(self) -> None:
        """Read everything. Raises: StoreError."""
        await self._reload()

    def start(self) -> None:
        """Follow changes until closed."""
        self._reload_at = asyncio.get_running_loop().time() + _RELOAD_S
        self._lookout.start(self._tasks, self._bus.subscribe(subjects.WEB_SHARE_CHANGED))

    async def close(self) -> None:
        """Follow no more."""
        await self._tasks.close()

    def on_change(self, observer: Callable[[], None]) -> None:
        """Call `observer` after each change from now on; it must not raise."""
        self._observers.append(observer)

    def of(self, place: AppOf) -> ShareRecord | None:
        """Return the share of an app; None where its owner never changed it."""
        return self._records.get(place)

    @property
    def all(self) -> Iterable[ShareRecord]:
        """Return every record, those that share nothing included."""
        return self._records.values()

    async def change(
        self, owner: User, blueprint: str, app: str, edit: Callable[[OwnShare], OwnShare], by: str
    ) -> OwnShare:
        """Edit the share that `owner` gives of an app, here and everywhere; return it after the change.

        `by` is the user who changes it. `edit` may raise: then nothing changes. Raises: StoreError.
        """
        before, record = await self._store.change(owner, blueprint, app, edit, by)
        self._take([record])
        if record.own != before:
            share = record.own.share
            self._bus.publish(
                schema.WebShareChanged(
                    user=owner.name,
                    actor=by,
                    blueprint=blueprint,
                    app=app,
                    level=share.level,
                    users=tuple(guest.name for guest in share.guests),
                    groups=share.guest_groups,
                )
            )
            _log.info("share changed", owner=owner.name, actor=by, blueprint=blueprint, app=app)
        return record.own

    # ----------------------------------------------------------------------------- following

    async def refresh(self) -> None:
        """Read the changes since the last time. Raises: StoreError."""
        while changed := await self._store.since(self._revision):
            # The own changes are known before those of others with a lower revision.
            self._revision = changed[-1].revision
            self._take(changed)
            if len(changed) < PAGE:
                return

    def _take(self, changed: Iterable[ShareRecord]) -> None:
        is_other = False
        for record in changed:
            known = self._records.get(record.place)
            if known is None or known.revision < record.revision:
                self._records[record.place] = record
                is_other = True
        if is_other:
            self._changed()

    async def _reload(self) -> None:
        """Read every record, one page at a time; changes meanwhile have greater revisions, and follow."""
        until = await self._store.revision()
        records: dict[AppOf, ShareRecord] = {}
        at = 0
        while page := await self._store.since(at):
            at = page[-1].revision
            records.update((record.place, record) for record in page)
        gone = self._records.keys() - records.keys()
        self._revision = until
        is_other = bool(gone) or any(self._records.get(place) != one for place, one in records.items())
        self._records = records
        if is_other:
            self._changed()

    def _changed(self) -> None:
        for observer in self._observers:
            observer()

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._reload_at:
            await self.refresh()
        else:
            await self._reload()
            self._reload_at = now + _RELOAD_S
