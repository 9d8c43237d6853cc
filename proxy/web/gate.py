"""The gate: the question that the front asks for every request, and the answer without a login."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from proxy.web.heads import Client, Field, Request
from proxy.web.index import SharedIndex
from proxy.web.origins import Host
from proxy.web.road import Address

RESERVED_PATH = b"/.fairlead"
"""Below it every origin answers for Fairlead itself; no request for it ever reaches an app."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as the gate sees it."""

    request: Request
    host: Host
    client: Client

    @property
    def is_reserved(self) -> bool:
        """Return whether the path is one of Fairlead's own."""
        path = self.request.target.partition(b"?")[0]
        return path == RESERVED_PATH or path.startswith(RESERVED_PATH + b"/")

    @property
    def is_navigation(self) -> bool:
        """Return whether a user opens a page: a GET that browsers mark as such, or one that asks for HTML."""
        request = self.request
        if request.method not in ("GET", "HEAD") or request.upgrade:
            return False
        mode = request.first(b"sec-fetch-mode")
        if mode:
            return mode == b"navigate" and request.first(b"sec-fetch-dest") in (b"document", b"")
        return b"text/html" in request.first(b"accept")


@dataclass(frozen=True, slots=True)
class Pass:
    """The request goes to an app."""

    address: Address
    is_public: bool = False
    """Without a login: the app's own `Access-Control-*` fields are passed on."""
    fields: tuple[Field, ...] = ()
    """Added to the answer."""
    actor: str = ""
    """User who asks; empty without a login."""
    tag: object = None
    """The gate's own, by which it finds open upgrades again (`Front.upgraded`)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The request is answered here."""

    status: int
    title: str
    text: str = ""
    """A sentence; shown escaped."""
    fields: tuple[Field, ...] = ()
    html: bytes = b""
    """A whole page in place of title and text."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The request is answered here, piece by piece; the connection ends behind the last one."""

    kind: str
    """Media type of the content, in UTF-8."""
    pieces: AsyncGenerator[bytes, None]
    """Closed by the connection; a client that does not read is broken off, so that nothing piles up."""


Verdict = Pass | Reply


class Gate(Protocol):
    """The decision about every request, before anything is asked of a workspace."""

    def at_once(self, asked: Asked) -> Verdict | None:
        """Return the verdict on a request where it is known without waiting; None: `decide` has to be asked.

        Spares a task for each request; never guesses.
        """

    async def decide(self, asked: Asked) -> Verdict:
        """Return the verdict on a request. Raises: FairleadError when it cannot be found out now."""


NOT_PUBLIC = Reply(
    401,
    "Not here without a login",
    "There is no such app, or it is not public.",
    ((b"WWW-Authenticate", b'Bearer realm="fairlead"'),),
)
"""The same words whether an app is absent, is not public, or is not available to any user."""


class PublicGate:
    """The gate without a login: public apps pass, everything else is refused in the same words."""

    def __init__(self, index: SharedIndex) -> None:
        self._index = index

    async def decide(self, asked: Asked) -> Verdict:
        """See Gate."""
        return self.at_once(asked)

    def at_once(self, asked: Asked) -> Verdict:
        """See Gate."""
        if asked.is_reserved:
            return Reply(404, "There is nothing here")
        address = self._index.find(asked.host.label)
        return NOT_PUBLIC if address is None else Pass(address, is_public=True)
