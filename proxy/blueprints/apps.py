"""Web apps that a blueprint declares: their names, where they listen, and who may open them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.functional_validators import AfterValidator

from proxy.blueprints.values import AbsolutePath, Part, Text, misfit
from proxy.model import Target, TcpTarget, UnixTarget

RESERVED = frozenset({"terminal", "files", "connect", "login"})
"""Slugs that Fairlead reserves for its own pages."""

MIN_SLUG, MAX_SLUG = 3, 20
"""Characters of a slug. With two, a label would have hyphens in places 3 and 4, which RFC 5891 §4.2.3.1
reserves.
"""


def _slug(text: str) -> str:
    parts = text.split("-")
    is_plain = text.isascii() and all(part.isalnum() for part in parts) and text == text.lower()
    if not is_plain or not text[0].isalpha() or not MIN_SLUG <= len(text) <= MAX_SLUG:
        raise ValueError(
            f"{text[:40]!r} is not {MIN_SLUG} to {MAX_SLUG} lower-case letters and digits that begin with a "
            "letter, with single hyphens between them"
        )
    if text in RESERVED:
        raise ValueError(f"{text!r} is kept for Fairlead's own pages")
    return text


Slug = Annotated[str, AfterValidator(_slug)]


class Listen(Part):
    """The address of an app in its workspace; exactly one field is set."""

    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """On localhost."""
    socket: AbsolutePath | None = None
    """Path of a Unix socket, at most 107 bytes."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "Listen":
        if (self.port is None) == (self.socket is None):
            raise misfit((), "give either port or socket")
        if self.socket is not None and len(self.socket.encode()) > 107:
            raise misfit(("socket",), "a socket path has at most 107 bytes")
        return self

    @property
    def target(self) -> Target:
        """Return the target to dial from inside the workspace."""
        if self.socket is not None:
            return UnixTarget(self.socket)
        assert self.port is not None
        return TcpTarget("localhost", self.port)


class App(Part):
    """One web app."""

    title: Text = ""
    """Shown to users; empty: the slug."""
    listen: Listen
    share: Literal["owner", "public"] = "owner"
    """`public`: every visitor of the web half may open it while the workspace runs, without a login."""
