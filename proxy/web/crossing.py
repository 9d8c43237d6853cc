"""Apps and pages of other origins: pages that may read or frame an app, and fields for the app. Pure."""

from proxy.blueprints.apps import Crossing
from proxy.model import Principal, TcpTarget
from proxy.userstring import UserString
from proxy.web.heads import AS_ASKED, Field, ForApp, Request
from proxy.web.origins import Origins, Place, label_of
from proxy.web.road import Address

_PREFLIGHT_S = b"600"
_ORIGIN = b"origin"


def reader_of(request: Request, crossing: Crossing, workspace: UserString, origins: Origins) -> bytes:
    """Return the origin of a request that an app of `crossing.cors` sent; empty for every other one."""
    if not crossing.cors:
        return b""
    said = [value for name, value in request.fields if name.lower() == _ORIGIN]
    mates = {origins.origin(label_of(Place(slug, workspace))).encode() for slug in crossing.cors}
    return said[0] if len(said) == 1 and said[0] in mates else b""


def is_preflight(request: Request) -> bool:
    """Return whether a request only asks whether another one may be sent (Fetch §3.3.2)."""
    return (
        request.method == "OPTIONS"
        and bool(request.first(_ORIGIN))
        and bool(request.first(b"access-control-request-method"))
    )


def preflight_fields(request: Request, reader: bytes) -> tuple[Field, ...]:
    """Return the fields that permit the request of a preflight from `reader`."""
    fields = [*reader_fields(reader), (b"Access-Control-Max-Age", _PREFLIGHT_S)]
    for asked in (b"Method", b"Headers"):
        if value := request.first(b"access-control-request-" + asked.lower()):
            plural = b"Methods" if asked == b"Method" else asked
            fields.append((b"Access-Control-Allow-" + plural, value))
    return tuple(fields)


def reader_fields(reader: bytes) -> tuple[Field, ...]:
    """Return the fields by which a browser shows an answer to the page of `reader`."""
    return (
        (b"Access-Control-Allow-Origin", reader),
        (b"Access-Control-Allow-Credentials", b"true"),
        (b"Vary", b"Origin"),
    )


def framers(address: Address, origins: Origins) -> bytes:
    """Return the origins that may frame an app besides its own, as `frame-ancestors` lists them."""
    embed = address.crossing.embed
    names = (
        one if one.startswith("https://") else origins.origin(label_of(Place(one, address.workspace)))
        for one in embed
    )
    return " ".join(names).encode()


def for_app(address: Address, request: Request, origins: Origins) -> ForApp:
    """Return the differences between a request as asked and as the app gets it."""
    crossing = address.crossing
    fields = _identity(address) if crossing.identity_headers else ()
    if crossing.host_header != "local":
        return ForApp(fields=fields) if fields else AS_ASKED
    target = address.target
    port = f":{target.port}" if isinstance(target, TcpTarget) else ""
    public = origins.origin(address.label).encode() if address.label else b""
    return ForApp(f"localhost{port}".encode(), public, fields)


def _identity(address: Address) -> tuple[Field, ...]:
    """Return the fields that name the user who asks, and the owner; without a login only the owner."""
    principal: Principal | None = address.principal
    said = {b"X-Fairlead-Owner": address.owner}
    if principal is not None:
        said[b"X-Fairlead-User"] = principal.user.name
        said[b"X-Fairlead-Groups"] = ",".join(principal.user.groups)
    return tuple((name, _value(text)) for name, text in said.items() if text)


def _value(text: str) -> bytes:
    """Return text as a value of a field: UTF-8 without control characters."""
    return "".join(one if one.isprintable() else "?" for one in text).encode("utf-8", "replace")
