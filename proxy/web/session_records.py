"""Records of browsers at web apps: a session for each origin that is in use, a program for each WebSocket.

Requests are counted by the metrics only: a page makes hundreds.
"""

from collections.abc import Callable
from dataclasses import dataclass

from proxy import userstring
from proxy.model import Principal, User, Visit
from proxy.sessions.live import Controls, LiveConnection, LiveProgram
from proxy.sessions.records import End, EndReason, Kind
from proxy.sessions.tracker import Tracker
from proxy.userstring import UserString
from proxy.web.frames import POLICY_VIOLATION
from proxy.web.relay import Exchange

CLIENT_TYPE = "browser"


class Recorded:
    """A session of a browser at one origin, with its record while it is in use."""

    live: LiveConnection | None = None


@dataclass(frozen=True, slots=True)
class _Traffic:
    """Payload of one WebSocket."""

    exchange: Exchange

    @property
    def from_client(self) -> int:
        return self.exchange.bytes_from_client

    @property
    def to_client(self) -> int:
        return self.exchange.bytes_to_client


@dataclass(frozen=True, slots=True)
class _Socket:
    """Controls of one WebSocket."""

    stop: Callable[[int, str], None]

    def warn(self, sentence: str) -> None:
        """Say nothing: the stream is the app's."""

    def end(self, sentence: str, end: End) -> None:
        """Close it with the sentence as its reason."""
        del end
        self.stop(POLICY_VIOLATION, sentence)


class WebRecords:
    """One per process; the `Sockets` of the front."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._programs: dict[Exchange, LiveProgram] = {}

    def open(self, principal: Principal, workspace: UserString, controls: Controls) -> LiveConnection:
        """Begin the record of a browser that uses an app, with its user and the owner of the workspace."""
        actor = principal.user
        visit = Visit(principal, actor if workspace.user == actor.name else User(workspace.user), workspace)
        live = self._tracker.open(visit, "", controls, client_type=CLIENT_TYPE)
        name = userstring.workspace_name(workspace, workspace.blueprint)
        live.placed(name, workspace.blueprint)
        return live

    def began(self, exchange: Exchange) -> None:
        """See front.Sockets."""
        tag = exchange.passed.tag
        live = tag.live if isinstance(tag, Recorded) else None
        if live is not None and live.is_open:
            path = exchange.request.target.partition(b"?")[0].decode("latin-1")
            controls = _Socket(exchange.stop)
            target = exchange.request.host.decode("latin-1") + path
            self._programs[exchange] = live.begin(Kind.WEBSOCKET, _Traffic(exchange), controls, target=target)

    def over(self, exchange: Exchange) -> None:
        """See front.Sockets."""
        program = self._programs.pop(exchange, None)
        if program is not None:
            program.ended(End(EndReason.CLOSED))
