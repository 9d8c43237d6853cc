"""Apps by the lobby: `ssh alice+lobby@host app list | start | stop | logs | open`."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from proxy.access.app_controls import AppControls
from proxy.access.apps import not_ready
from proxy.access.lobby import Answer, Command, UsageError, Words
from proxy.errors.programs import AppNotStarted, Refused
from proxy.model import AppPhase, AppState, Visit
from proxy.printable import printable
from proxy.userstring import UserString
from proxy.workspaces.backend import WorkspaceRequest

UrlOf = Callable[[str, UserString], str]
"""Returns the address of the app of a slug in a workspace."""

_WORKSPACE_NAME = re.compile(r"[a-z0-9-]+-[0-9a-f]{10}")
_LINES = 100
_MOST_LINES = 10_000
_MOST_LOG_BYTES = 2 * 1024 * 1024


class AppCommands:
    """One per process."""

    def __init__(self, controls: AppControls, url_of: UrlOf | None = None) -> None:
        """Create it; `url_of` is None where apps are not served to browsers."""
        self._controls = controls
        self._url_of = url_of

    def serve_web(self, url_of: UrlOf) -> None:
        """Have `app open` print addresses from now on."""
        self._url_of = url_of

    @property
    def command(self) -> Command:
        """Return the command, to be registered with the lobby."""
        return Command(
            "app",
            "List, start and stop the apps of your workspace, read their logs, or print an address.",
            self._run,
            "list | start APP | stop APP | logs APP [-n LINES] | open APP  [-w BLUEPRINT|NAME]",
        )

    async def _run(self, visit: Visit, words: Sequence[str]) -> Answer:
        given = _parser().parse_args(words)
        if (given.verb == "list") == bool(given.app):
            raise UsageError("app: list takes no app, and every other command takes one")
        there = replace(visit, address=_place(visit, given.workspace))
        match given.verb:
            case "list":
                return await self._list(there)
            case "start":
                return await self._start(there, given.app)
            case "stop":
                return _answer(await self._controls.stop(there, given.app))
            case "logs":
                return await self._logs(there, given.app, given.lines)
            case _:
                return await self._open(there, given.app)

    async def _list(self, visit: Visit) -> Answer:
        states = await self._controls.states(visit)
        rows = [("APP", "PHASE", "RESTARTS", "REASON")]
        rows += [(one.slug, one.phase.value, str(one.restarts), one.reason) for one in states]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            f"{slug:{widths[0]}}  {phase:{widths[1]}}  {restarts:{widths[2]}}  {reason}".rstrip()
            for slug, phase, restarts, reason in rows
        ]
        return Answer({"apps": [document(one) for one in states]}, "\n".join([*lines, ""]))

    async def _start(self, visit: Visit, slug: str) -> Answer:
        last: AppState | None = None
        async for state in self._controls.ensure(visit, slug, lambda _: None):
            last = state
        if last is None or last.phase is not AppPhase.READY:
            raise AppNotStarted(f"app {slug} was not started") if last is None else not_ready(last)
        return _answer(last)

    async def _logs(self, visit: Visit, slug: str, lines: int) -> Answer:
        data = bytearray()
        async for piece in self._controls.log(visit, slug, lines, follow=False):
            data += piece
            del data[:-_MOST_LOG_BYTES]
        text = printable(data.decode("utf-8", "replace"), "\n\t")
        return Answer({"app": slug, "log": text.splitlines()}, text)

    async def _open(self, visit: Visit, slug: str) -> Answer:
        url = address_of(await self._controls.request(visit), slug, self._url_of)
        return Answer({"app": slug, "url": url}, f"{url}\n")


def address_of(request: WorkspaceRequest, slug: str, url_of: UrlOf | None) -> str:
    """Return the address of an app for browsers. Raises: AppNotStarted, Refused where it has none."""
    blueprint = request.blueprint
    if slug not in blueprint.apps:
        there = ", ".join(sorted(blueprint.apps)) or "none"
        raise AppNotStarted(f"blueprint {blueprint.name} has no app {slug[:40]!r}; it has: {there}")
    if url_of is None:
        raise Refused("apps have no addresses here: the web half is not served")
    if request.origin.repo or request.origin.workload:
        raise Refused(f"apps of {request.name} have no addresses: only those of a blueprint's workspace do")
    return url_of(slug, UserString(request.user.name, blueprint.name))


def document(state: AppState) -> Mapping[str, object]:
    """Return the state of an app for `--json`."""
    return {
        "app": state.slug,
        "phase": state.phase.value,
        "reason": state.reason,
        "restarts": state.restarts,
        "since_s": round(state.since_s, 1),
        "port": state.port or None,
        "socket": state.socket or None,
        "pid": state.pid or None,
        "stopped": state.stopped,
    }


def sentence(state: AppState) -> str:
    """Return the state of an app in one line."""
    reason = f": {state.reason}" if state.reason else ""
    return f"app {state.slug} is {state.phase.value}{reason}"


def _answer(state: AppState) -> Answer:
    return Answer(document(state), f"{sentence(state)}\n")


def _place(visit: Visit, name: str) -> UserString:
    """Return the user string of a workspace: by its name, by its blueprint, or the default one."""
    user = visit.owner.name
    if _WORKSPACE_NAME.fullmatch(name):
        return UserString(user, pod=name)
    return UserString(user, name) if name else UserString(user)


def _lines(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= _MOST_LINES:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number of 1 to {_MOST_LINES}")
    return int(text)


def _parser() -> Words:
    parser = Words("app")
    parser.add_argument("verb", choices=("list", "start", "stop", "logs", "open"))
    parser.add_argument("app", nargs="?", default="")
    parser.add_argument("-n", "--lines", type=_lines, default=_LINES)
    parser.add_argument("-w", "--workspace", default="")
    return parser
