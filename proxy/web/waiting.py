"""Requests for apps that do not run: the users who may start them, and the page until they do.

    a page that a user opens ─▶ starts it ─▶ waiting page ─▶ the page itself
    `Prefer: wait=N`         ─▶ starts it ─▶ the answer, or 503 after N seconds
    anything else            ─▶ 503: what a forgotten page sends in the background starts nothing

A stop on request is undone by the button of the page only, however long ago it was: a browser that restores
its tabs opens pages too.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import parse_qsl

import structlog

from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.errors.programs import AppNotReady, OpenFailed, OpenFailedKind
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import AppState, Phase, Progress
from proxy.web import waiting_page
from proxy.web.activity import is_opened_by_user, report_of
from proxy.web.gate import Asked, Pass, Reply, Stream
from proxy.web.heads import Field
from proxy.web.origins import Origins
from proxy.web.returns import MAX_PATH
from proxy.web.road import Address
from proxy.web.seals import ISSUED_AT, Seals
from proxy.web.statuses import status_of
from proxy.web.upstream import AppConnection, Pool
from proxy.web.waiting_page import News
from proxy.workspaces.backend import Report, Stop, WorkspaceRecord
from proxy.workspaces.stop_holds import NOT_ASKED_FOR, ago, who_stopped

_log = structlog.get_logger("web")

QUIET_S = 0.1
"""A start that takes less is not shown."""
_RETRY_S = 10
"""Of `Retry-After`, in seconds."""
_KEEPALIVE_S = 15.0
_SETTLE_S, _LOOK_S = 10.0, 0.5
"""An app that the workspace starts by itself has so long to listen, and is tried so often."""
_PREFER_WAIT = re.compile(rb"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,6})\"?\s*(?=$|[,;])")
_PATH = re.compile(r"/[!-~]*")


class Starter(Protocol):
    """The workspaces of apps."""

    async def look(self, address: Address) -> WorkspaceRecord | None:
        """Return the record of an app's workspace; None before its first start. Raises: FairleadError."""

    async def start(
        self, address: Address, report: Report, heard: Callable[[AppState], None], *, is_asked: bool
    ) -> None:
        """Start workspace and app, also after a stop by a user, and wait. Raises: FairleadError.

        `is_asked`: also an app that was stopped or given up. `heard` gets the states of the app.
        """

    def touch(self, address: Address, why: str) -> None:
        """Report an act of a user to a workspace that runs; returns at once."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """The wish of a user that an app runs."""

    address: Address
    actor: str
    """The user's name."""
    ticket: str = ""
    """Its proof, for the requests of the waiting page."""
    to: str = "/"
    """The path that was opened."""
    is_asked: bool = False
    """It was said by the button."""


class _Seen:
    """The latest step of a start."""

    def __init__(self) -> None:
        self.news = News("Starting the workspace")
        self.changed = asyncio.Event()

    def report(self, progress: Progress) -> None:
        """Take a step of the workspace's start."""
        text = "Opening the app" if progress.phase is Phase.READY else progress.text
        self._take(News(f"{text[:1].upper()}{text[1:]}"))

    def heard(self, state: AppState) -> None:
        """Take a state of the app."""
        reason = f": {state.reason}" if state.reason else ""
        self._take(News(f"App {state.slug} is {state.phase.value}{reason}", state.log_lines))

    def _take(self, news: News) -> None:
        self.news = news
        self.changed.set()


class Waiting:
    """The opener of requests with a login; one per process."""

    def __init__(self, starter: Starter, pool: Pool, seals: Seals, origins: Origins, wait_s: float) -> None:
        """`wait_s` is how long a start that a user asked for is followed, in seconds."""
        self._starter = starter
        self.pool = pool
        self._seals = seals
        self._origins = origins
        self._wait_s = wait_s
        self._tasks = TaskOwner("web-waiting")

    def __len__(self) -> int:
        """Count the event streams of waiting pages."""
        return len(self._tasks)

    async def close(self) -> None:
        """End every event stream; starts go on."""
        await self._tasks.close()

    async def open(self, asked: Asked, passed: Pass) -> AppConnection | Reply | Stream:
        """See Opener."""
        if asked.is_reserved:
            return await self._own(asked, passed)
        try:
            return await self.pool.connect(passed.address)
        except (WorkspaceNotFound, AppNotReady):
            if not passed.address.starts:
                raise
        return await self._without_workspace(asked, passed)

    async def _without_workspace(self, asked: Asked, passed: Pass) -> AppConnection | Reply:
        """Start the workspace if this request may, else answer with the reason. Raises: FairleadError."""
        record = await self._starter.look(passed.address)
        wait_s = prefers_to_wait_s(asked)
        if wait_s is None and not asked.is_navigation:
            return _unavailable("The workspace does not run; a page that is opened starts it.")
        if (held := _held_by(record, None)) is not None:
            if not _is_owner(passed):
                return _STOPPED_BY_OWNER
            return self._stopped(asked, passed, held)
        if wait_s is None and not is_opened_by_user(asked.request):
            return self._over(asked, 503, _idle(record), "Start", to_of(asked))
        if wait_s is not None:
            wish = _Wish(passed.address, passed.actor, to=to_of(asked))
            return await self._wait(wish, min(wait_s, self._wait_s))
        wish = _Wish(passed.address, passed.actor, self._ticket(asked, passed), to_of(asked))
        return await self._page(asked, wish)

    # --------------------------------------------------------------------------- paths of our own

    async def _own(self, asked: Asked, passed: Pass) -> Reply | Stream:
        """Answer a request for the waiting page itself."""
        path, _, query = asked.request.target.partition(b"?")
        given = dict(parse_qsl(query.decode("ascii")))
        to = given.get("to", "/")
        if not passed.address.starts or len(to) > MAX_PATH or not _PATH.fullmatch(to):
            return Reply(404, "There is nothing here")
        if path == waiting_page.START:
            if not _is_owner(passed) and _held_by(await self._starter.look(passed.address), None) is not None:
                return _STOPPED_BY_OWNER
            return self._begun(asked, passed, to)
        if path != waiting_page.WAIT or asked.request.method != "GET":
            return Reply(404, "There is nothing here")
        ticket = given.get("ticket", "")
        about = self._seals.open(_purpose(asked), ticket, self._wait_s)
        is_theirs = about is not None and about["user"] == passed.actor
        since = datetime.fromtimestamp(float(about[ISSUED_AT]), UTC) if about and is_theirs else None
        record = await self._starter.look(passed.address)
        is_owner = passed.actor == passed.address.owner
        held = _held_by(record, since if is_owner else None)
        follows = waiting_page.EVENTS.encode() in asked.request.first(b"accept")
        if since is not None and held is None:
            wish = _Wish(passed.address, passed.actor, ticket, to, is_asked=bool(about and about["is_asked"]))
            if follows:
                left_s = self._wait_s - (datetime.now(UTC) - since).total_seconds()
                return Stream(waiting_page.EVENTS, self._events(wish, left_s))
            opened = await self._page(asked, wish)
            return opened if isinstance(opened, Reply) else self._landed(asked, opened, to)
        news = _wanted(held, passed.actor) if held is not None else _idle(record)
        if follows:
            return Stream(waiting_page.EVENTS, _only(waiting_page.over_event(news)))
        return self._over(asked, 503, news, "Start", to)

    def _begun(self, asked: Asked, passed: Pass, to: str) -> Reply:
        """Answer the button: its user wants a start from now on, in spite of any stop before."""
        if asked.request.method != "POST":
            return Reply(405, "Not possible", "Use POST for this.", ((b"Allow", b"POST"),))
        path = waiting_page.wait_path(self._ticket(asked, passed, is_asked=True), to)
        return Reply(303, "Starting", fields=(self._location(asked, path),))

    async def _page(self, asked: Asked, wish: "_Wish") -> AppConnection | Reply:
        """Begin or join the start; show the waiting page when it takes longer than an instant."""
        seen = _Seen()
        try:
            async with asyncio.timeout(QUIET_S) as quiet:
                return await self._bring(wish, seen)
        except TimeoutError:
            if not quiet.expired():
                raise
        except FairleadError as exc:
            _log.info("start failed", code=exc.code, reason=str(exc))
            news = News(_sentence(exc), seen.news.lines, status_of(exc)[1])
            return self._over(asked, status_of(exc)[0], news, "Try again", wish.to)
        nonce = secrets.token_urlsafe(16)
        shown = replace(seen.news, title=_starting_title(wish.address))
        html = waiting_page.starting(
            nonce, shown, wish.ticket, self._origins.origin(asked.host.label), wish.to
        )
        return self._html(asked, 503, shown, nonce, html, (_RETRY_AFTER,))

    def _landed(self, asked: Asked, app: AppConnection, to: str) -> Reply:
        self.pool.give_back(app)
        return Reply(303, "Ready", fields=(self._location(asked, to),))

    def _location(self, asked: Asked, path: str) -> Field:
        return b"Location", f"{self._origins.origin(asked.host.label)}{path}".encode()

    # -------------------------------------------------------------------------------- the start

    async def _bring(self, wish: "_Wish", seen: "_Seen") -> AppConnection:
        """Start workspace and app where they do not run, and connect. Raises: FairleadError."""
        await self._starter.start(wish.address, seen.report, seen.heard, is_asked=wish.is_asked)
        give_up_at = asyncio.get_running_loop().time() + _SETTLE_S
        while True:
            try:
                app = await self.pool.connect(wish.address)
            except OpenFailed as exc:
                is_absent = exc.kind in (OpenFailedKind.REFUSED, OpenFailedKind.NOT_FOUND)
                if not is_absent or asyncio.get_running_loop().time() >= give_up_at:
                    raise
            else:
                self._starter.touch(wish.address, report_of("GET", wish.to, wish.actor, wish.address.app))
                return app
            seen.report(Progress(Phase.STARTING, "waiting for the app to listen"))
            await asyncio.sleep(_LOOK_S)

    async def _wait(self, wish: "_Wish", wait_s: float) -> AppConnection | Reply:
        """Start and wait, as a client without a page asked. Raises: FairleadError."""
        try:
            async with asyncio.timeout(wait_s) as patience:
                return await self._bring(wish, _Seen())
        except TimeoutError:
            if not patience.expired():
                raise
        return _unavailable("The app is starting.")

    async def _events(self, wish: "_Wish", left_s: float) -> AsyncGenerator[bytes, None]:
        """Follow a start to its end, for at most `left_s` seconds."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + left_s
        seen = _Seen()
        bringing = self._tasks.spawn(self._bring(wish, seen), name="follow")
        bringing.add_done_callback(lambda _: seen.changed.set())
        try:
            while not bringing.done() and loop.time() < give_up_at:
                before = seen.news
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(_KEEPALIVE_S, give_up_at - loop.time())):
                        await seen.changed.wait()
                seen.changed.clear()
                is_new = seen.news is not before
                yield waiting_page.progress_event(seen.news) if is_new else waiting_page.KEEPALIVE
            yield self._outcome(bringing, seen.news.lines)
        finally:
            bringing.cancel()

    def _outcome(self, bringing: "asyncio.Task[AppConnection]", lines: tuple[str, ...]) -> bytes:
        """Write the last event of a start."""
        if not bringing.done() or bringing.cancelled():
            return waiting_page.over_event(News("It has not started in time.", lines, _FAILED))
        failure = bringing.exception()
        if failure is None:
            self.pool.give_back(bringing.result())
            return waiting_page.READY_EVENT
        if not isinstance(failure, FairleadError):
            return waiting_page.over_event(News("Something went wrong inside Fairlead.", title=_FAILED))
        _log.info("start failed", code=failure.code, reason=str(failure))
        return waiting_page.over_event(News(_sentence(failure), lines, _FAILED))

    # ------------------------------------------------------------------------------ what is said

    def _ticket(self, asked: Asked, passed: Pass, *, is_asked: bool = False) -> str:
        """Write the proof that this user wants a start, now; `is_asked`: by the button."""
        return self._seals.seal(
            _purpose(asked), {"user": passed.actor, "is_asked": "yes" if is_asked else ""}
        )

    def _stopped(self, asked: Asked, passed: Pass, stop: Stop) -> Reply:
        return self._over(asked, 503, _wanted(stop, passed.actor), "Start", to_of(asked))

    def _over(self, asked: Asked, status: int, news: News, label: str, to: str) -> Reply:
        nonce = secrets.token_urlsafe(16)
        return self._html(asked, status, news, nonce, waiting_page.over(nonce, news, label, to))

    def _html(
        self, asked: Asked, status: int, news: News, nonce: str, html: bytes, fields: tuple[Field, ...] = ()
    ) -> Reply:
        policy = waiting_page.policy(nonce, self._origins.origin(asked.host.label))
        # Without a referrer, browsers send `Origin: null` with the button's form.
        own: tuple[Field, ...] = (
            (b"Content-Security-Policy", policy),
            (b"Referrer-Policy", b"same-origin"),
            *fields,
        )
        return Reply(status, news.title, news.text, own, html if asked.is_navigation else b"")


def prefers_to_wait_s(asked: Asked) -> float | None:
    """Return the seconds that a client asks to be kept waiting (RFC 7240 §4.3); None without such a wish."""
    found = _PREFER_WAIT.search(asked.request.first(b"prefer").lower())
    return None if found is None else float(found[1])


def to_of(asked: Asked) -> str:
    """Return the path that a request is for, as it is kept while its user waits."""
    target = asked.request.target.decode("ascii")
    return target if len(target) <= MAX_PATH else "/"


def _held_by(record: WorkspaceRecord | None, since: datetime | None) -> Stop | None:
    """Return the stop that was asked for and is to be respected by a wish of `since`; None for no stop."""
    stop = None if record is None else record.stop
    if stop is None or stop.by in NOT_ASKED_FOR or (since is not None and stop.at <= since):
        return None
    return stop


def _is_owner(passed: Pass) -> bool:
    """Return whether the user who asks is the owner of the workspace, whose stop others do not undo."""
    return passed.actor == passed.address.owner


_FAILED = "That did not start"
_STOPPED = "This workspace is stopped"
_RETRY_AFTER: Field = (b"Retry-After", b"%d" % _RETRY_S)
_STOPPED_BY_OWNER = Reply(
    503, _STOPPED, "It was stopped on request, and its owner starts it again.", (_RETRY_AFTER,)
)


def _wanted(stop: Stop, user: str) -> News:
    who = who_stopped(stop, user)
    return News(f"It was stopped by {who}, {ago(datetime.now(UTC) - stop.at)}.", title=_STOPPED)


def _idle(record: WorkspaceRecord | None) -> News:
    why = "" if record is None or record.stop is None else record.stop.reason
    return News(f"{why[:1].upper()}{why[1:]}" if why else "It does not run.", title=_STOPPED)


def _starting_title(address: Address) -> str:
    workspace = address.workspace.blueprint or address.workspace.pod
    return f"{address.app or 'The app'} of workspace {workspace} is starting"


def _sentence(exc: FairleadError) -> str:
    """Return the words of an error as a sentence of a page."""
    text = exc.user_message
    return f"{text[:1].upper()}{text[1:]}."


def _unavailable(text: str) -> Reply:
    return Reply(503, "Not now", text, (_RETRY_AFTER,))


def _purpose(asked: Asked) -> str:
    return f"wait:{asked.host.name}"


async def _only(piece: bytes) -> AsyncGenerator[bytes, None]:
    """Yield one piece."""
    yield piece
