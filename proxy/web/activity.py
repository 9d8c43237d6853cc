"""Activity of users at apps: which requests and WebSocket frames count, and the reports about them.

Counted: pages that users open, requests that change something, and data that a page's WebSocket sends. Not
counted: requests that pages send by themselves to look for news, pings, everything that an app sends unasked,
failures, and visitors of public apps. Some apps' pages send more by themselves; presets say what.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from proxy.web.gate import Pass
from proxy.web.heads import Request
from proxy.web.road import Address

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_MAX_PATH = 80
"""Characters of a path in a report."""


@dataclass(frozen=True, slots=True)
class SocketRule:
    """The data of a client by which a WebSocket is in use: so many bytes within so many seconds."""

    over_bytes: int = 0
    """Only frames with a larger payload count, as they pass: masked, and compressed where that was agreed."""
    at_least_bytes: int = 1
    within_s: float = 0
    """0: they may come at any time."""


ANY_DATA = SocketRule()


@dataclass(frozen=True, slots=True)
class Preset:
    """The traffic of one kind of app that its pages cause without their user."""

    unasked: re.Pattern[bytes] | None = None
    """Matches method and path of requests that are sent by themselves, though they are no GET."""
    sockets: tuple[tuple[re.Pattern[bytes], SocketRule], ...] = ((re.compile(rb""), ANY_DATA),)
    """By path; the first that matches. A WebSocket that none matches never counts."""

    def is_unasked(self, request: Request) -> bool:
        """Return whether a page sends such a request without its user."""
        asked = b"%b %b" % (request.method.encode(), path_of(request))
        return self.unasked is not None and self.unasked.search(asked) is not None

    def socket_rule(self, request: Request) -> SocketRule | None:
        """Return the rule of a WebSocket; None: its data never counts."""
        path = path_of(request)
        return next((rule for pattern, rule in self.sockets if pattern.search(path)), None)


PRESETS = {
    "http": Preset(),
    "jupyter": Preset(
        # Telemetry, and the layout of the page, which JupyterLab 4 saves every 10 s in any case.
        unasked=re.compile(rb"^POST .*/api/events$|^PUT .*/lab/api/workspaces/[^/]*$"),
        sockets=(
            # A cell that is run is hundreds of bytes; 32 are less than any message of the protocol.
            (re.compile(rb"/api/kernels/[^/]+/channels$"), SocketRule(over_bytes=32)),
            (re.compile(rb"/terminals/websocket/[^/]+$"), ANY_DATA),
        ),
    ),
    "vscode": Preset(
        unasked=re.compile(rb"^POST .*/mint-key$"),
        # Both sides send a frame of some ten bytes every 5 s; a line that is typed is more than 1 KiB.
        sockets=((re.compile(rb""), SocketRule(at_least_bytes=1024, within_s=60)),),
    ),
}
"""By the name that a blueprint gives in `activity`."""


def path_of(request: Request) -> bytes:
    """Return the path without its query, which may hold a token."""
    return request.target.partition(b"?")[0]


def is_opened_by_user(request: Request) -> bool:
    """Return whether a user opens a page, by Fetch Metadata Request Headers (§2.2 to §2.4).

    A page that loads itself again has no user activation and the same origin. Browsers that send no
    `Sec-Fetch-User` are believed for pages that are opened from elsewhere.
    """
    if request.method not in ("GET", "HEAD") or request.upgrade or request.first(b"sec-purpose"):
        return False
    mode = request.first(b"sec-fetch-mode")
    if not mode:
        return b"text/html" in request.first(b"accept")
    if mode != b"navigate":
        return False
    is_page = request.first(b"sec-fetch-dest") in (b"document", b"")
    from_elsewhere = is_page and request.first(b"sec-fetch-site") != b"same-origin"
    return from_elsewhere or request.first(b"sec-fetch-user") == b"?1"


def counts(request: Request, preset: Preset) -> bool:
    """Return whether a request that succeeds is an act of its user; of a WebSocket its data decides."""
    if request.method in _SAFE_METHODS:
        return is_opened_by_user(request)
    return not preset.is_unasked(request)


class Moving:
    """Bytes that count while they move: the data of a WebSocket, or the content of a request that counts."""

    __slots__ = ("_base", "_rule", "_seen", "_since")

    def __init__(self, rule: SocketRule, now: float) -> None:
        self._rule = rule
        self._since = now
        self._base = self._seen = 0

    def look(self, total: int, now: float) -> bool:
        """Return whether bytes came since the last look that make up an act; `total` never falls."""
        rule = self._rule
        if rule.within_s and now - self._since > rule.within_s:
            self._since, self._base = now, self._seen
        self._seen = total
        if total - self._base < rule.at_least_bytes:
            return False
        self._since, self._base = now, total
        return True


@dataclass(slots=True)
class Acting:
    """One exchange whose bytes may count."""

    address: Address
    why: str
    """The report: what, by whom, through which app."""
    moving: Moving
    over_bytes: int


class Activity:
    """The reports of one process: the first at once, then the last one of every `every_s` seconds."""

    def __init__(
        self, touch: Callable[[Address, str], None], every_s: float, clock: Callable[[], float]
    ) -> None:
        """`touch` reports an act to a workspace and returns at once; `clock` gives seconds."""
        self._touch = touch
        self._every_s = every_s
        self._clock = clock
        self._sent: dict[tuple[str, object], float] = {}
        self._waiting: dict[tuple[str, object], tuple[Address, str]] = {}

    def begin(self, request: Request, passed: Pass) -> Acting | None:
        """Look at a request that goes to its app; None where nothing of it counts."""
        if passed.is_public or not passed.actor:
            return None
        preset = PRESETS[passed.address.activity]
        rule: SocketRule | None = ANY_DATA
        if request.upgrade:
            rule = preset.socket_rule(request)
        elif not counts(request, preset):
            rule = None
        if rule is None:
            return None
        why = _sentence(request, passed)
        return Acting(passed.address, why, Moving(rule, self._clock()), rule.over_bytes)

    def look(self, acting: Acting, total: int) -> None:
        """Report an exchange whose bytes moved since the last look; `total` is `Exchange.moved`."""
        if acting.moving.look(total, self._clock()):
            self.act(acting)

    def act(self, acting: Acting) -> None:
        """Report an act, at once or as the last of a short while."""
        key = acting.address.owner, acting.address.workspace
        now = self._clock()
        if now - self._sent.get(key, float("-inf")) < self._every_s:
            self._waiting[key] = acting.address, acting.why
            return
        self._sent[key] = now
        self._waiting.pop(key, None)
        self._touch(acting.address, acting.why)

    def tick(self) -> None:
        """Send reports that waited long enough; called about once a second."""
        now = self._clock()
        for key, sent_at in tuple(self._sent.items()):
            if now - sent_at < self._every_s:
                continue
            if (waiting := self._waiting.pop(key, None)) is None:
                del self._sent[key]
            else:
                self._sent[key] = now
                self._touch(*waiting)


def _sentence(request: Request, passed: Pass) -> str:
    path = path_of(request).decode("ascii", errors="replace")
    what = "WebSocket" if request.upgrade else request.method
    return report_of(what, path, passed.actor, passed.address.app)


def report_of(what: str, target: str, actor: str, app: str) -> str:
    """Write the sentence about an act: the request, its user and the app."""
    path = target.partition("?")[0]
    shown = path if len(path) <= _MAX_PATH else f"{path[:_MAX_PATH]}…"
    return f"{what} {shown} by {actor}" + (f" through {app}" if app else "")
