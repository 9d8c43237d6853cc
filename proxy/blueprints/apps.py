"""Web apps that a blueprint declares: their names, where they listen, and who may open them."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_serializer, model_validator
from pydantic.functional_validators import AfterValidator

from proxy.blueprints.sharing import Cap, Level, Share
from proxy.blueprints.values import AbsolutePath, Part, Pattern, Text, misfit
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


class AppShare(Part):
    """The users who may open an app besides its owner: a level, or a mapping that names users and groups."""

    level: Level = "owner"
    """`authenticated`: every user who is signed in; `public`: everybody, without a login."""
    users: tuple[Pattern, ...] = ()
    groups: tuple[Pattern, ...] = ()
    """Names of groups at the provider; without regard to case."""

    @model_validator(mode="before")
    @classmethod
    def _level_alone(cls, value: Any) -> Any:
        if isinstance(value, dict):  # a validator turns JSON into Python, where a list is no tuple
            return {key: tuple(one) if isinstance(one, list) else one for key, one in value.items()}
        if not isinstance(value, str):
            return value
        if value not in get_args(Level):
            raise ValueError(f"{value[:40]!r} is not 'owner', 'authenticated' or 'public'")
        return {"level": value}

    @model_serializer
    def _as_written(self) -> str | dict[str, object]:
        if not (self.users or self.groups):
            return self.level
        return {"level": self.level, "users": self.users, "groups": self.groups}

    @property
    def share(self) -> Share:
        """Return the value that decides."""
        return Share(self.level, self.users, self.groups)


class App(Part):
    """One web app."""

    title: Text = ""
    """Shown to users; empty: the slug."""
    listen: Listen
    share: AppShare = AppShare()
    share_max: Cap = "owner"
    """The widest share that an owner may add; what `share` gives is permitted in any case."""
    wake: Literal["owner", "visitors"] = "owner"
    """Whose requests start the workspace: the owner's, or also those of other users who are signed in."""
