"""Workspaces as pages show them: phase, the reason for it, the time to the next stop, possible acts.

A user's cards are the workspaces that exist, and one for each blueprint that the user may start and has not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from proxy.blueprints.catalog import Catalog
from proxy.blueprints.resolve import usable
from proxy.errors import FairleadError
from proxy.errors.login import UserStringInvalid
from proxy.model import User
from proxy.upstream.frames import Status
from proxy.userstring import Form, UserString, format_user_string, parse
from proxy.web.portal.apps import Tile
from proxy.web.portal.looks import Looks
from proxy.web.portal.starts import Starts
from proxy.web.portal.words import counted, remaining, span
from proxy.workspaces.backend import Stop, WorkspacePhase, WorkspaceRecord
from proxy.workspaces.lifetimes import Bounds
from proxy.workspaces.ownership import title_to
from proxy.workspaces.stop_holds import who_stopped

ABSENT = "absent"
"""Phase of a workspace that its first start will make."""

_CAN_START = frozenset({ABSENT, "stopped", "failed"})
_CAN_STOP = frozenset({"running", "starting", "failed"})


@dataclass(frozen=True, slots=True)
class Card:
    """One workspace on a page."""

    title: str
    name: str
    """Of the workspace; empty for one that is absent."""
    address: str
    """The user string that leads there."""
    owner: str
    """Name of the user."""
    blueprint: str
    phase: str
    """`absent`, or a value of WorkspacePhase."""
    phase_since: datetime | None = None
    why: tuple[str, ...] = ()
    """Sentences: why it runs, does not run, or does not start."""
    stops: tuple[str, ...] = ()
    """Sentences about the next stop."""
    is_about_to_stop: bool = False
    tiles: list[Tile] = field(default_factory=list)

    @property
    def can_start(self) -> bool:
        """Return whether a start changes something."""
        return self.phase in _CAN_START

    @property
    def can_stop(self) -> bool:
        """Return whether a stop changes something."""
        return self.phase in _CAN_STOP

    @property
    def key(self) -> str:
        """Return an id for the elements of the card, without spaces."""
        return (self.name or f"new-{self.blueprint}").replace(" ", "-")


BoundsOf = Callable[[WorkspaceRecord], Awaitable[Bounds]]

_ORDER = (
    WorkspacePhase.FAILED,
    WorkspacePhase.STARTING,
    WorkspacePhase.STOPPING,
    WorkspacePhase.RUNNING,
    WorkspacePhase.STOPPED,
)

_SAME_S = 5.0
"""An act counts as the last activity when it is no older than that by more than this."""


class Cards:
    """The cards of one process."""

    def __init__(self, looks: Looks, starts: Starts, catalog: Catalog, bounds_of: BoundsOf) -> None:
        self._looks = looks
        self._starts = starts
        self._catalog = catalog
        self._bounds_of = bounds_of

    async def of(self, user: User, tiles: dict[UserString, list[Tile]]) -> list[Card]:
        """Return the workspaces of a user with their apps, those that exist first. Raises: WorkspaceError."""
        own = [one for one in await self._looks.records() if title_to(one, user)]
        cards = await asyncio.gather(*(self._card(one, user, tiles) for one in own))
        taken = {card.address for card in cards}
        absent = [
            self._absent(user, value, tiles)
            for definition in usable(self._catalog.current(), user)
            if format_user_string(value := UserString(user.name, definition.name)) not in taken
        ]
        return [*cards, *absent]

    async def all(self, of: str, most: int) -> tuple[list[Card], int]:
        """Return the workspaces of users whose names hold `of`, at most so many, and the number of all.

        Those that failed come first, then those that run, by user. Raises: WorkspaceError.
        """
        records = [one for one in await self._looks.records() if of in one.user]
        records.sort(key=lambda one: (_ORDER.index(one.phase), one.user, one.name))
        cards = await asyncio.gather(*(self.one(record) for record in records[:most]))
        return list(cards), len(records)

    async def one(self, record: WorkspaceRecord) -> Card:
        """Return the card of any workspace, without apps."""
        return await self._card(record, User(record.user, id=record.owner), {}, is_own=False)

    async def _card(
        self,
        record: WorkspaceRecord,
        user: User,
        tiles: dict[UserString, list[Tile]],
        *,
        is_own: bool = True,
    ) -> Card:
        value = address_of(record, user.name)
        address = format_user_string(value)
        status = await self._looks.status(record)
        stops, is_soon = await self._stops(record, status)
        progress = self._starts.progress_of(user.id, address)
        failure = self._starts.failure_of(user.id, address)
        phase = "starting" if progress else record.phase.value
        said = [progress] if progress else why(record, status, user.name if is_own else "")
        return Card(
            _title(value, record),
            record.name,
            address,
            record.user,
            record.blueprint,
            phase,
            record.started_at if phase == "running" else None,
            (*said, f"the last start failed: {failure}") if failure else tuple(said),
            tuple(stops),
            is_soon,
            tiles.get(value, []),
        )

    def _absent(self, user: User, value: UserString, tiles: dict[UserString, list[Tile]]) -> Card:
        address = format_user_string(value)
        progress = self._starts.progress_of(user.id, address)
        failure = self._starts.failure_of(user.id, address)
        said = progress or (f"the last start failed: {failure}" if failure else "")
        return Card(
            value.blueprint,
            "",
            address,
            user.name,
            value.blueprint,
            "starting" if progress else ABSENT,
            why=(said,) if said else (),
            tiles=tiles.get(value, []),
        )

    async def _stops(self, record: WorkspaceRecord, status: Status | None) -> tuple[list[str], bool]:
        """Return sentences on when a workspace stops by itself, and whether that is soon."""
        if status is None:
            return [], False
        try:
            bounds = await self._bounds_of(record)
        except FairleadError:
            return [], False  # its user or blueprint is gone, so nothing stops it by itself
        return next_stops(bounds, status)


def why(record: WorkspaceRecord, status: Status | None, reader: str) -> list[str]:
    """Return sentences on the phase of a workspace; `reader` is its user, empty for an operator. Pure."""
    said = []
    if status is not None:
        said += [_running(status), _activity(status)]
        said += status.failed_scripts
    elif record.phase is WorkspacePhase.RUNNING:
        said.append("it does not say how it is, so far")
    if record.detail:
        said.append(record.detail)
    if record.stop is not None and record.phase is WorkspacePhase.STOPPED:
        who = who_stopped(record.stop, reader) if reader else _by(record.stop)
        said.append(f"stopped by {who}, {span(datetime.now(UTC) - record.stop.at)} ago")
    return said


def _by(stop: Stop) -> str:
    """Return for operators by whom a workspace was stopped."""
    return f"{stop.by} ({stop.reason})" if stop.reason else stop.by


def _running(status: Status) -> str:
    """Return the counts of programs and connections in a workspace."""
    counts = ((status.programs, "program"), (status.connections, "connection"))
    return " and ".join(counted(number, what) for number, what in counts if number) or "nothing runs in it"


def _activity(status: Status) -> str:
    """Return the time of the last activity, and the act behind it where it is the last one."""
    ago = span(timedelta(seconds=status.idle_s))
    # A program or a transfer may have been active since the last act that a proxy saw.
    is_it = bool(status.why) and status.why_s <= status.idle_s + _SAME_S
    return f"last activity {ago} ago" + (f": {status.why}" if is_it else "")


def next_stops(bounds: Bounds, status: Status) -> tuple[list[str], bool]:
    """Return sentences on the stops that are ahead, and whether users are warned of one by now. Pure."""
    if status.draining:
        return ["it is being stopped"], True
    said, is_soon = [], False
    if bounds.idle_stop_s:
        left_s = bounds.idle_stop_s - status.idle_s
        is_soon |= left_s <= bounds.idle_warn_s
        said.append(f"stops in {_left(left_s)} if nothing happens")
    if bounds.lifetime_s:
        left_s = bounds.lifetime_s - status.uptime_s
        is_soon |= left_s <= bounds.lifetime_warn_s
        allowed = span(timedelta(seconds=bounds.lifetime_s))
        said.append(f"stops in {_left(left_s)} in any case: it may run {allowed}")
    return said or ["it does not stop by itself"], is_soon


def _left(seconds: float) -> str:
    return remaining(timedelta(seconds=max(0.0, seconds)))


def address_of(record: WorkspaceRecord, user: str) -> UserString:
    """Return the user string that leads to a workspace, in the name that its owner has now."""
    try:
        made_as = parse(record.user_string)
    except UserStringInvalid:  # an older release stored none
        return UserString(user, pod=record.name)
    if made_as.user != user:
        return UserString(user, pod=record.name)
    if made_as.form is Form.IMPLICIT and record.blueprint:
        return UserString(user, record.blueprint)  # the default blueprint may be another one by now
    return replace(made_as, account="")


def _title(value: UserString, record: WorkspaceRecord) -> str:
    if value.repo:
        return value.repo + (f" @ {value.ref}" if value.ref else "")
    if value.workload:
        return f"{value.workload} in {value.ns}"
    return value.blueprint or record.blueprint or record.name
