"""Web apps that a blueprint declares: names, addresses, start commands, and users who may open them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_serializer, model_validator
from pydantic.functional_validators import AfterValidator

from proxy.blueprints.sharing import Cap, Level, Share
from proxy.blueprints.values import AbsolutePath, Account, EnvName, Part, Pattern, Text, misfit
from proxy.model import AppSpec, AppTarget, Target, TcpTarget, UnixTarget

RESERVED = frozenset({"terminal", "connect", "login"})
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

_ICON = re.compile(
    r"[a-z0-9][a-z0-9-]{0,31}|data:image/[a-z+.-]+;base64,[A-Za-z0-9+/=]+|https://[\x21-\x7e]+"
)
MOST_ICON_BYTES = 8_192


def _icon(text: str) -> str:
    if text and (len(text) > MOST_ICON_BYTES or not _ICON.fullmatch(text)):
        raise ValueError(
            f"{text[:40]!r} is neither the name of an icon nor data:image/…;base64,… nor https://…, "
            f"at most {MOST_ICON_BYTES} bytes"
        )
    return text


Icon = Annotated[str, AfterValidator(_icon)]


class Listen(Part):
    """The address of an app in its workspace; exactly one field is set."""

    port: Annotated[int, Field(ge=1, le=65_535)] | Literal["auto"] | None = None
    """On a loopback address; `auto`: one that shelld chooses at each start. The app reads it from $PORT."""
    socket: AbsolutePath | Literal["auto"] | None = None
    """Path of a Unix socket, at most 107 bytes; `auto`: one of shelld's, in $FAIRLEAD_APP_SOCKET."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "Listen":
        if (self.port is None) == (self.socket is None):
            raise misfit((), "give either port or socket")
        if self.socket is not None and len(self.socket.encode()) > 107:
            raise misfit(("socket",), "a socket path has at most 107 bytes")
        return self

    @property
    def is_chosen(self) -> bool:
        """Return whether shelld chooses the address."""
        return "auto" in (self.port, self.socket)


class Ready(Part):
    """The sign that an app can be used."""

    path: Annotated[str, Field(pattern=r"^/[\x21-\x7e]*$", max_length=1_024)] | None = None
    """GET of it has to be answered with a status below 500; None: a connect suffices."""
    within_s: Annotated[float, Field(gt=0, le=3_600)] = 60
    """Seconds from a start; then the start has failed."""


class AppShare(Part):
    """The users who may open an app besides its owner: a level, or a mapping that names users and groups."""

    level: Level = "owner"
    """`authenticated`: every user who is signed in; `public`: any client, without a login."""
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


def _framer(text: str) -> str:
    if not _HTTPS_ORIGIN.fullmatch(text):
        try:
            return _slug(text)
        except ValueError:
            raise ValueError(
                f"{text[:40]!r} is neither an app of this blueprint nor an origin such as https://example.com"
            ) from None
    return text


_HTTPS_ORIGIN = re.compile(r"https://(?:[a-z0-9-]+\.)*[a-z0-9-]+(?::[0-9]{1,5})?")
Framer = Annotated[str, AfterValidator(_framer)]


@dataclass(frozen=True, slots=True)
class Crossing:
    """The dealings of an app with pages of other origins, and the fields that it is given."""

    cors: tuple[str, ...] = ()
    """Slugs of apps of the workspace whose pages may ask with the user's session, and read the answer."""
    embed: tuple[str, ...] = ()
    """Slugs, and origins of https, whose pages may frame the app."""
    host_header: Literal["public", "local"] = "public"
    identity_headers: bool = False


PLAIN = Crossing()

Workdir = Annotated[str, Field(pattern=r"^(~|~/[^\x00]+|/[^\x00]*)$")]


class App(Part):
    """One web app."""

    title: Text = ""
    """Shown to users; empty: the slug."""
    icon: Icon = ""
    """Name of a built-in icon, or a `data:image/` or `https:` address; empty: none."""
    built_in: Literal["files"] | None = None
    """A program of shelld, in the place of `start` and `listen`; `files`: `workdir` in the browser."""
    listen: Listen
    share: AppShare = AppShare()
    share_max: Cap = "owner"
    """The widest share that an owner may add; what `share` gives is permitted in any case."""
    wake: Literal["owner", "visitors"] = "owner"
    """Whose requests start the workspace: the owner's, or also those of other users who are signed in."""
    start: Text = ""
    """A command line for /bin/sh; empty: something else starts the app."""
    when: Literal["demand", "boot", "never"] = "demand"
    """When it is started: by the first request, with the workspace, or by `app start` only."""
    restart: Literal["on-failure", "always", "no"] = "on-failure"
    """After 1 s, doubled with each failure to 60 s; at most 5 times in 10 minutes."""
    ready: Ready = Ready()
    env: Mapping[EnvName, Text] = {}
    account: Account | None = None
    """One of the blueprint's `accounts`; None: the workspace's own."""
    workdir: Workdir = "~"
    activity: Literal["http", "jupyter", "vscode"] = "http"
    """The kind of the app, for which of its traffic counts as activity of a user."""
    cors: Annotated[tuple[Slug, ...], Field(max_length=20)] = ()
    """Apps of this blueprint whose pages may ask this one with the user's session, and read the answers."""
    embed: Annotated[tuple[Framer, ...], Field(max_length=20)] = ()
    """Apps of this blueprint, and https origins, whose pages may frame this one; its own always may."""
    host_header: Literal["public", "local"] = "public"
    """`local`: the app gets `Host: localhost`, with a port that is fixed, and Origin and Referer to fit."""
    identity_headers: bool = False
    """Whether the app gets X-Fairlead-User, X-Fairlead-Groups and X-Fairlead-Owner."""

    @model_validator(mode="before")
    @classmethod
    def _built_in_starts(cls, value: Any) -> Any:
        """Fill in start command and address of a built-in app."""
        if not isinstance(value, dict):
            return value
        # A validator turns JSON into Python, where a list is no tuple.
        value = {key: tuple(one) if isinstance(one, list) else one for key, one in value.items()}
        if not isinstance(value.get("built_in"), str):
            return value
        return {"start": f"@{value['built_in']}", "listen": {"socket": "auto"}, **value}

    @model_validator(mode="after")
    def _is_as_built_in(self) -> "App":
        if self.built_in is None:
            if self.start.startswith("@"):
                raise misfit(("start",), "a command does not begin with @")
            return self
        own = {"start": f"@{self.built_in}", "listen": Listen(socket="auto"), "ready": Ready()}
        if taken := next((field for field, value in own.items() if getattr(self, field) != value), None):
            raise misfit((taken,), "a built-in app has its own")
        for field in ("share", "share_max"):
            known = type(self).model_fields.get(field)
            if known is not None and getattr(self, field) != known.default:
                raise misfit((field,), "a built-in app is its owner's: a visitor could change every file")
        return self

    @property
    def crossing(self) -> Crossing:
        """Return the fields that concern pages of other origins."""
        return Crossing(self.cors, self.embed, self.host_header, self.identity_headers)

    @model_validator(mode="after")
    def _needs_start(self) -> "App":
        if self.start.strip():
            return self
        if self.listen.is_chosen:
            raise misfit(("listen",), "auto needs `start`: only an app that shelld starts learns the address")
        needing = ("when", "restart", "ready", "env", "account", "workdir")
        if given := next((field for field in needing if field in self.model_fields_set), None):
            raise misfit((given,), "this has a meaning only with `start`")
        return self

    def target(self, slug: str) -> Target:
        """Return the target to dial from inside the workspace."""
        if self.start:
            return AppTarget(slug, self.account or "")
        if self.listen.socket is not None:
            return UnixTarget(self.listen.socket)
        assert isinstance(self.listen.port, int)
        return TcpTarget("localhost", self.listen.port)

    def spec(self, slug: str) -> AppSpec:
        """Return the description for shelld of an app that has `start`."""
        port = 0 if self.listen.port == "auto" else self.listen.port
        return AppSpec(
            slug=slug,
            start=self.start,
            env=dict(self.env),
            account=self.account or "",
            workdir=self.workdir,
            port=port,
            socket="" if self.listen.socket in ("auto", None) else self.listen.socket,
            restart=self.restart,
            ready_path=self.ready.path or "",
            within_s=self.ready.within_s,
        )
