"""Requests for apps whose workspace does not run: who may start it, and what is shown meanwhile.

    a page that a user opens ─▶ starts it ─▶ waiting page ─▶ the page itself
    `Prefer: wait=N`         ─▶ starts it ─▶ the answer, or 503 after N seconds
    anything else            ─▶ 503: what a forgotten page sends in the background starts nothing

A stop on request is undone by the button of the page only, however long ago it was: a browser that restores
its tabs opens pages too.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import parse_qsl

import structlog

from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.errors.programs import OpenFailed, OpenFailedKind
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import Phase, Progress
from proxy.web import waiting_page
from proxy.web.activity import is_opened_by_user
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

    async def start(self, address: Address, report: Report) -> None:
        """Start the workspace, whoever stopped it, and wait until it answers. Raises: FairleadError."""


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
        except WorkspaceNotFound:
            if not passed.address.starts:
                raise
        return await self._without_workspace(asked, passed)

    async def _without_workspace(self, asked: Asked, passed: Pass) -> AppConnection | Reply:
        """Start the workspace if this request may, else say why it does not. Raises: FairleadError."""
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
            return await self._wait(passed.address, min(wait_s, self._wait_s))
        return await self._page(asked, passed, self._ticket(asked, passed), to_of(asked))

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
        held = _held_by(record, since) if since else None
        follows = waiting_page.EVENTS.encode() in asked.request.first(b"accept")
        if since is not None and held is None:
            if follows:
                left_s = self._wait_s - (datetime.now(UTC) - since).total_seconds()
                return Stream(waiting_page.EVENTS, self._events(passed.address, left_s))
            opened = await self._page(asked, passed, ticket, to)
            return opened if isinstance(opened, Reply) else self._landed(asked, opened, to)
        news = _wanted(held, passed.actor) if held is not None else _idle(record)
        if follows:
            return Stream(waiting_page.EVENTS, _only(waiting_page.over_event(news)))
        return self._over(asked, 503, news, "Start", to)

    def _begun(self, asked: Asked, passed: Pass, to: str) -> Reply:
        """Answer the button: its user wants a start from now on, in spite of any stop before."""
        if asked.request.method != "POST":
            return Reply(405, "Not possible", "Use POST for this.", ((b"Allow", b"POST"),))
        path = waiting_page.wait_path(self._ticket(asked, passed), to)
        return Reply(303, "Starting", fields=(self._location(asked, path),))

    async def _page(self, asked: Asked, passed: Pass, ticket: str, to: str) -> AppConnection | Reply:
        """Begin or join the start; show the waiting page when it takes longer than an instant."""
        news = News(f"Starting workspace {passed.address.workspace.blueprint}")

        def report(progress: Progress) -> None:
            nonlocal news
            news = _news(progress)

        try:
            async with asyncio.timeout(QUIET_S) as quiet:
                app = await self._bring(passed.address, report)
        except TimeoutError:
            if not quiet.expired():
                raise
        except FairleadError as exc:
            return self._failed(asked, exc, to)
        else:
            return app
        nonce = secrets.token_urlsafe(16)
        shown = News(news.text, news.lines, _starting_title(passed.address))
        html = waiting_page.starting(nonce, shown, ticket, self._origins.origin(asked.host.label), to)
        return self._html(asked, 503, shown, nonce, html, (_RETRY_AFTER,))

    def _landed(self, asked: Asked, app: AppConnection, to: str) -> Reply:
        self.pool.give_back(app)
        return Reply(303, "Ready", fields=(self._location(asked, to),))

    def _location(self, asked: Asked, path: str) -> Field:
        return b"Location", f"{self._origins.origin(asked.host.label)}{path}".encode()

    # -------------------------------------------------------------------------------- the start

    async def _bring(self, address: Address, report: Report) -> AppConnection:
        """Start what is missing, and connect. Raises: FairleadError."""
        await self._starter.start(address, report)
        give_up_at = asyncio.get_running_loop().time() + _SETTLE_S
        while True:
            try:
                return await self.pool.connect(address)
            except OpenFailed as exc:
                is_absent = exc.kind in (OpenFailedKind.REFUSED, OpenFailedKind.NOT_FOUND)
                if not is_absent or asyncio.get_running_loop().time() >= give_up_at:
                    raise
            report(Progress(Phase.STARTING, "waiting for the app to listen"))
            await asyncio.sleep(_LOOK_S)

    async def _wait(self, address: Address, wait_s: float) -> AppConnection | Reply:
        """Start and wait, as a client without a page asked. Raises: FairleadError."""
        try:
            async with asyncio.timeout(wait_s) as patience:
                return await self._bring(address, _ignore)
        except TimeoutError:
            if not patience.expired():
                raise
        return _unavailable("The workspace is starting.")

    async def _events(self, address: Address, left_s: float) -> AsyncGenerator[bytes, None]:
        """Follow a start to its end, for at most `left_s` seconds."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + left_s
        latest: News | None = None
        changed = asyncio.Event()

        def report(progress: Progress) -> None:
            nonlocal latest
            latest = _news(progress)
            changed.set()

        bringing = self._tasks.spawn(self._bring(address, report), name="follow")
        bringing.add_done_callback(lambda _: changed.set())
        try:
            while not bringing.done() and loop.time() < give_up_at:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(_KEEPALIVE_S, give_up_at - loop.time())):
                        await changed.wait()
                changed.clear()
                news, latest = latest, None
                yield waiting_page.KEEPALIVE if news is None else waiting_page.progress_event(news)
            yield self._outcome(bringing)
        finally:
            bringing.cancel()

    def _outcome(self, bringing: "asyncio.Task[AppConnection]") -> bytes:
        """Write the last event of a start."""
        if not bringing.done() or bringing.cancelled():
            return waiting_page.over_event(_TOO_LONG)
        failure = bringing.exception()
        if failure is None:
            self.pool.give_back(bringing.result())
            return waiting_page.READY_EVENT
        if not isinstance(failure, FairleadError):
            return waiting_page.over_event(News("Something went wrong inside Fairlead.", title=_FAILED))
        _log.info("start failed", code=failure.code, reason=str(failure))
        return waiting_page.over_event(News(_sentence(failure), title=_FAILED))

    # ------------------------------------------------------------------------------ what is said

    def _ticket(self, asked: Asked, passed: Pass) -> str:
        """Write the proof that this user asked for a start, now."""
        return self._seals.seal(_purpose(asked), {"user": passed.actor})

    def _stopped(self, asked: Asked, passed: Pass, stop: Stop) -> Reply:
        return self._over(asked, 503, _wanted(stop, passed.actor), "Start", to_of(asked))

    def _failed(self, asked: Asked, exc: FairleadError, to: str) -> Reply:
        _log.info("start failed", code=exc.code, reason=str(exc))
        status, title = status_of(exc)
        return self._over(asked, status, News(_sentence(exc), title=title), "Try again", to)

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
_TOO_LONG = News("It has not started in time.", title=_FAILED)
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


def _news(progress: Progress) -> News:
    text = progress.text
    return News(f"{text[:1].upper()}{text[1:]}" if progress.phase is not Phase.READY else "Opening the app")


def _sentence(exc: FairleadError) -> str:
    """Return the words of an error as a sentence of a page."""
    text = exc.user_message
    return f"{text[:1].upper()}{text[1:]}."


def _unavailable(text: str) -> Reply:
    return Reply(503, "Not now", text, (_RETRY_AFTER,))


def _purpose(asked: Asked) -> str:
    return f"wait:{asked.host.name}"


def _ignore(_: Progress) -> None:
    """Ignore progress: there is no page to show it."""


async def _only(piece: bytes) -> AsyncGenerator[bytes, None]:
    """Yield one piece."""
    yield piece
