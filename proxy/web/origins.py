"""Origins of apps: which place a host name stands for, and which host name a place has. Pure.

    label  = app "--" blueprint "--" user              ; form 1
           / app "--" slug "-" id                      ; form 2: id = 13 base32 digits of SHA-256(user string)
    app    = letter *( letter / digit ), single hyphens inside, 3 to 20 characters
    name   = 1*( letter / digit ), single hyphens inside           ; blueprint, user, slug

No part contains `--`, so the number of `--` tells the forms apart, and form 1 stands for one place only.
Form 2 is for places that form 1 cannot name: other characters, a repository, a workspace by name, or more
than 63 characters (RFC 1035 §2.3.4). A place that form 1 can name is never answered under form 2.
"""

import base64
import hashlib
import re
from dataclasses import dataclass, replace

from proxy.userstring import Form, UserString, format_user_string

MAX_LABEL = 63

_APP = re.compile(r"(?=.{3,20}\Z)[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_HASHED = re.compile(r"(?:[a-z0-9]+-)+(?P<id>[a-z2-7]{13})")
_ID_DIGITS = 13
_HOST = re.compile(rb"(?P<name>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\.?(?::(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class HostInvalid(Exception):
    """The Host field is none of RFC 9110 §7.2 as browsers write it: the answer is 400."""


class Misdirected(Exception):
    """The Host field names something that is not served here: the answer is 421 (RFC 9110 §15.5.20)."""


@dataclass(frozen=True, slots=True)
class Place:
    """One app of one workspace."""

    app: str
    workspace: UserString
    """User and blueprint, repository or name; without an account."""


@dataclass(frozen=True, slots=True)
class Named:
    """A label of form 1."""

    app: str
    blueprint: str
    user: str

    @property
    def place(self) -> Place:
        """Return the place that the label stands for."""
        return Place(self.app, UserString(self.user, self.blueprint))


@dataclass(frozen=True, slots=True)
class Hashed:
    """A label of form 2; which place it stands for has to be looked up by `app` and `id`."""

    app: str
    id: str


Label = Named | Hashed


def label_of(place: Place) -> str:
    """Return the one label of a place; distinct places have distinct ones but for collisions of 65 bits."""
    value = place.workspace
    if value.form is Form.EXPLICIT and not (value.ns or value.workload):
        label = f"{place.app}--{value.blueprint}--{value.user}"
        is_plain = _NAME.fullmatch(value.blueprint) and _NAME.fullmatch(value.user)
        if is_plain and len(label) <= MAX_LABEL:
            return label
    room = MAX_LABEL - len(place.app) - len("--") - len("-") - _ID_DIGITS
    slug = re.sub(r"[^a-z0-9]+", "-", value.user).strip("-")[:room].strip("-") or "user"
    return f"{place.app}--{slug}-{place_id(value)}"


def place_id(workspace: UserString) -> str:
    """Return the id that labels of form 2 carry: the same for every spelling of a user string."""
    text = format_user_string(replace(workspace, account=""))
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(digest).decode().lower()[:_ID_DIGITS]


def parse_label(label: str) -> Label | None:
    """Read a label; None for text that no place has as its label."""
    if len(label) > MAX_LABEL:
        return None
    parts = label.split("--")
    if not _APP.fullmatch(parts[0]):
        return None
    if len(parts) == 3 and all(_NAME.fullmatch(part) for part in parts[1:]):
        return Named(*parts)
    if len(parts) == 2 and (hashed := _HASHED.fullmatch(parts[1])):
        return Hashed(parts[0], hashed["id"])
    return None


@dataclass(frozen=True, slots=True)
class Host:
    """The meaning of a Host field, in one spelling."""

    name: str
    """Lower case, without port and final dot."""
    port: int
    label: str
    """The one DNS label before the domain of apps."""


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins under which browsers find apps."""

    scheme: str
    domain: str
    """Of apps; lower case, without dots at its ends."""
    port: int

    def origin(self, label: str) -> str:
        """Write an origin as browsers serialise it (RFC 6454 §6.2)."""
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{label}.{self.domain}{port}"

    def url(self, place: Place) -> str:
        """Write the address to open in a browser."""
        return f"{self.origin(label_of(place))}/"

    def read(self, field: bytes) -> Host:
        """Read a Host field once and exactly.

        Raises: HostInvalid for what is no host of a browser (IPv6 literals, user information, percent signs,
            other characters); Misdirected for every other name, another port, or more labels than one.
        """
        matched = _HOST.fullmatch(field)
        if matched is None:
            raise HostInvalid("the Host field is not a name with an optional port")
        name = matched["name"].decode().lower()
        port = int(matched["port"] or _DEFAULT_PORTS[self.scheme])
        label, dot, domain = name.partition(".")
        if not dot or domain != self.domain or port != self.port:
            raise Misdirected(f"no app is served as {name}:{port}")
        return Host(name, port, label)
