"""Heads of requests and answers: what they mean for framing, and what of them goes on. Pure.

`httptools` has split the head into fields and refused what is no HTTP/1 (bare CR and LF, obs-fold, NUL and
other control characters, blanks before a colon). Here is decided what a body is (RFC 9112 §6.3), and which
fields pass: two tables, REQUEST and ANSWER. Field names keep their case and fields their order.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from proxy.web.cookies import set_by_app, without_ours

Field = tuple[bytes, bytes]
Fields = Sequence[Field]

BEARER_PREFIX = b"flt_"
"""Begins every token of ours; an `Authorization` field with one is for us and not for the app."""

_DIGITS = re.compile(rb"[0-9]{1,18}")
_TARGET = re.compile(rb"(?:/[!-~]*|\*)")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)([/?][!-~]*)?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class HeadInvalid(Exception):
    """A head that is refused; the connection ends with the answer, because its framing is in doubt."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Body(Enum):
    """How the end of a body is found."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
    """Of answers only: it ends with the connection."""


@dataclass(frozen=True, slots=True)
class Request:
    """The head of one request, with its framing decided."""

    method: str
    target: bytes
    """Path and query as sent, or `*`."""
    is_http_1_0: bool
    host: bytes
    """The Host field."""
    fields: Fields
    body: Body
    length: int
    """Of the body in bytes; 0 unless `body` is LENGTH."""
    upgrade: bytes
    """`websocket` as the client spelled it, when that is asked for; else empty."""
    closes: bool
    """The client wants the connection closed after the answer."""

    @property
    def can_be_repeated(self) -> bool:
        """Whether asking twice does no harm: a safe method without a body (RFC 9110 §9.2.1)."""
        return self.method in _SAFE_METHODS and self.body is Body.NONE and not self.upgrade

    def first(self, name: bytes) -> bytes:
        """Return the first value of a field, by lower-case name; empty when there is none."""
        return next((value for key, value in self.fields if key.lower() == name), b"")


def read_request(method: str, target: bytes, version: str, fields: Fields) -> Request:
    """Decide what a request head means.

    Raises: HeadInvalid for what two readers could understand differently.
    """
    if version not in ("1.0", "1.1"):
        raise HeadInvalid(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if method == "CONNECT":
        raise HeadInvalid(501, "CONNECT is not served here")
    known = _known(fields)
    if len(known.hosts) != 1:
        raise HeadInvalid(400, "one Host field is needed")
    host = known.hosts[0]
    if not _TARGET.fullmatch(target):
        target = _of_absolute(target, host)
    if target == b"*" and method != "OPTIONS":
        raise HeadInvalid(400, "* is a target of OPTIONS only")
    body, length = _request_body(known, version)
    upgrade = known.upgrades[0] if _asks_for_websocket(known, method, version) else b""
    if upgrade and body is not Body.NONE:
        raise HeadInvalid(400, "a request for another protocol has no body")
    closes = version == "1.0" or b"close" in known.connection
    return Request(method, target, version == "1.0", host, fields, body, length, upgrade, closes)


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of one answer of an app, with its framing decided."""

    status: int
    reason: bytes
    fields: Fields
    body: Body
    length: int
    stays: bool
    """The app keeps the connection open after this answer."""


def read_answer(status: int, reason: bytes, version: str, fields: Fields, to: Request) -> Answer:
    """Decide what the head of an answer to a request means (RFC 9112 §6.3).

    Raises: HeadInvalid (502) for what two readers could understand differently.
    """
    known = _known(fields)
    stays = version == "1.1" and b"close" not in known.connection
    if version not in ("1.0", "1.1") or not 100 <= status <= 599:
        raise HeadInvalid(502, "the app speaks no HTTP/1")
    if status == 101:
        if not to.upgrade or [value.lower() for value in known.upgrades] != [b"websocket"]:
            raise HeadInvalid(502, "the app changed to a protocol that was not asked for")
        return Answer(status, reason, fields, Body.NONE, 0, stays=False)
    if to.method == "HEAD" or status < 200 or status in (204, 304):
        return Answer(status, reason, fields, Body.NONE, 0, stays)
    if known.codings:
        if version == "1.0" or known.lengths or _codings(known) != [b"chunked"]:
            raise HeadInvalid(502, "the app framed its answer in an unclear way")
        return Answer(status, reason, fields, Body.CHUNKED, 0, stays)
    if known.lengths:
        return Answer(status, reason, fields, Body.LENGTH, _length(known, 502), stays)
    return Answer(status, reason, fields, Body.CLOSE, 0, stays=False)


# ------------------------------------------------------------------------------------ framing


@dataclass(slots=True)
class _Known:
    """Values of the fields that decide about framing; tokens of `Connection` in lower case."""

    hosts: list[bytes]
    lengths: list[bytes]
    codings: list[bytes]
    upgrades: list[bytes]
    connection: frozenset[bytes]


def _known(fields: Fields) -> _Known:
    found: dict[bytes, list[bytes]] = {
        b"host": [],
        b"content-length": [],
        b"transfer-encoding": [],
        b"upgrade": [],
        b"connection": [],
    }
    for name, value in fields:
        if (values := found.get(name.lower())) is not None:
            values.append(value)
    hosts, lengths, codings, upgrades, connection = found.values()
    return _Known(hosts, lengths, codings, upgrades, _tokens(connection))


def _tokens(values: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(token.strip(b" \t").lower() for value in values for token in value.split(b","))


def _request_body(known: _Known, version: str) -> tuple[Body, int]:
    if known.codings:
        if known.lengths:
            raise HeadInvalid(400, "Content-Length and Transfer-Encoding exclude each other")
        if version == "1.0":
            raise HeadInvalid(400, "HTTP/1.0 has no Transfer-Encoding")
        if _codings(known) != [b"chunked"]:
            raise HeadInvalid(501, "the only Transfer-Encoding here is chunked")
        return Body.CHUNKED, 0
    if not known.lengths:
        return Body.NONE, 0
    length = _length(known, 400)
    return (Body.LENGTH, length) if length else (Body.NONE, 0)


def _codings(known: _Known) -> list[bytes]:
    return [value.lower() for value in known.codings]


def _length(known: _Known, status: int) -> int:
    if len(known.lengths) != 1 or not _DIGITS.fullmatch(known.lengths[0]):
        raise HeadInvalid(status, "one Content-Length of digits is needed")
    return int(known.lengths[0])


def _of_absolute(target: bytes, host: bytes) -> bytes:
    """Return the origin form of a target in absolute form, whose authority must be the Host field."""
    matched = _ABSOLUTE.fullmatch(target)
    if matched is None:
        raise HeadInvalid(400, "the target of the request is none")
    if matched[1].lower() != host.lower():
        raise HeadInvalid(400, "the target of the request names another host than the Host field")
    rest = matched[2] or b"/"
    return rest if rest.startswith(b"/") else b"/" + rest


def _asks_for_websocket(known: _Known, method: str, version: str) -> bool:
    return (
        bool(known.upgrades)
        and version == "1.1"
        and method == "GET"
        and b"upgrade" in known.connection
        and [value.lower() for value in known.upgrades] == [b"websocket"]
    )


# ------------------------------------------------------------------------------------ both tables


class Rule(Enum):
    """What becomes of one field."""

    DROP = "drop"
    COOKIE = "cookie"
    AUTHORIZATION = "authorization"
    UPGRADE = "upgrade"
    CONNECTION = "connection"
    TE = "te"
    SET_COOKIE = "set-cookie"
    LOCATION = "location"
    CORS = "cors"
    LENGTH = "length"


REQUEST: Mapping[bytes, Rule] = {
    b"connection": Rule.CONNECTION,
    b"upgrade": Rule.UPGRADE,
    b"te": Rule.TE,
    b"cookie": Rule.COOKIE,
    b"authorization": Rule.AUTHORIZATION,
    # Of one connection only (RFC 9110 §7.6.1), or framing, which is ours.
    b"keep-alive": Rule.DROP,
    b"transfer-encoding": Rule.DROP,
    b"trailer": Rule.DROP,
    b"http2-settings": Rule.DROP,
    # Who the client is, which only we say.
    b"forwarded": Rule.DROP,
    b"x-real-ip": Rule.DROP,
    b"x-client-ip": Rule.DROP,
    b"x-cluster-client-ip": Rule.DROP,
    b"true-client-ip": Rule.DROP,
    b"cf-connecting-ip": Rule.DROP,
    b"x-forwarded": Rule.DROP,
    b"x-remote-user": Rule.DROP,
    b"remote-user": Rule.DROP,
}
"""By lower-case name; a name that is not here passes, but for REQUEST_PREFIXES."""

REQUEST_PREFIXES = (b"proxy-", b"x-forwarded-", b"x-original-", b"x-envoy-", b"x-fairlead-", b"x-rewrite-")
"""Names that begin so are dropped."""

ANSWER: Mapping[bytes, Rule] = {
    b"connection": Rule.CONNECTION,
    b"upgrade": Rule.UPGRADE,
    b"set-cookie": Rule.SET_COOKIE,
    b"location": Rule.LOCATION,
    b"content-length": Rule.LENGTH,
    b"keep-alive": Rule.DROP,
    b"proxy-connection": Rule.DROP,
    b"proxy-authenticate": Rule.DROP,
    b"proxy-authentication-info": Rule.DROP,
    b"transfer-encoding": Rule.DROP,
    b"trailer": Rule.DROP,
    # Of the operator's domain, not of one app.
    b"strict-transport-security": Rule.DROP,
    b"alt-svc": Rule.DROP,
    b"public-key-pins": Rule.DROP,
    b"x-fairlead-request": Rule.DROP,
    b"access-control-allow-origin": Rule.CORS,
    b"access-control-allow-credentials": Rule.CORS,
    b"access-control-allow-methods": Rule.CORS,
    b"access-control-allow-headers": Rule.CORS,
    b"access-control-expose-headers": Rule.CORS,
    b"access-control-max-age": Rule.CORS,
    b"access-control-allow-private-network": Rule.CORS,
}
"""By lower-case name; a name that is not here passes."""

_FRAMES = b"Content-Security-Policy: frame-ancestors 'self'\r\n"
"""Beside the app's own policy: a browser obeys both, so that the app is framed by itself only."""


@dataclass(frozen=True, slots=True)
class Client:
    """Whose request it is, as far as the app is told; never taken from an untrusted peer."""

    address: str
    scheme: str


@dataclass(frozen=True, slots=True)
class Site:
    """What an answer is shown as."""

    host: bytes
    """As in the Host field."""
    scheme: str
    is_public: bool
    """The app answers cross-origin requests by its own `Access-Control-*` fields."""
    fields: Fields = ()
    """Added to the answer."""
    request_id: bytes = b""


def request_for_app(request: Request, client: Client) -> bytes:
    """Write the head that the app gets: HTTP/1.1, framed by us, with what only we may say."""
    dropped = _named_by_connection(request.fields)
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method.encode(), request.target)]
    for name, value in request.fields:
        key = name.lower()
        rule = REQUEST.get(key)
        if rule is None:
            if key in dropped or _is_dropped_by_prefix(key):
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        elif (kept := _request_field(rule, value, request)) is not None and key not in dropped:
            lines.append(b"%b: %b\r\n" % (name, kept))
    if request.upgrade:
        lines.append(b"Connection: Upgrade\r\n")
    if request.body is Body.CHUNKED:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    lines.append(_forwarded(request, client))
    return b"".join(lines)


CLIENT_FIELD = b"x-fairlead-client"
"""Tells our own pages the address of the client; the client's own field of that name is dropped."""

_OF_BODY = frozenset({b"content-length", b"expect"})


def request_for_own_site(request: Request, client: Client) -> bytes:
    """Write the head that our own pages get: our cookies stay, and the connection ends behind the answer."""
    dropped = _named_by_connection(request.fields)
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method.encode(), request.target)]
    for name, value in request.fields:
        key = name.lower()
        is_kept = key == b"cookie" or REQUEST.get(key) is None and not _is_dropped_by_prefix(key)
        if is_kept and key not in dropped and key not in _OF_BODY:
            lines.append(b"%b: %b\r\n" % (name, value))
    if request.body is Body.LENGTH:
        lines.append(b"Content-Length: %d\r\n" % request.length)
    lines.append(b"%b: %b\r\nConnection: close\r\n\r\n" % (CLIENT_FIELD, client.address.encode()))
    return b"".join(lines)


def _request_field(rule: Rule, value: bytes, request: Request) -> bytes | None:
    """Return what a field of the table becomes; None: it is left out."""
    match rule:
        case Rule.COOKIE:
            return without_ours(value) or None
        case Rule.AUTHORIZATION:
            return None if is_our_token(value) else value
        case Rule.UPGRADE:
            return request.upgrade or None
        case Rule.TE:
            return b"trailers" if b"trailers" in _tokens([value]) else None
        case _:
            return None


def is_our_token(value: bytes) -> bool:
    """Tell whether an Authorization field carries a token of ours (RFC 6750 §2.1)."""
    scheme, _, token = value.partition(b" ")
    return scheme.lower() == b"bearer" and token.strip(b" \t").startswith(BEARER_PREFIX)


def _named_by_connection(fields: Fields) -> frozenset[bytes]:
    """Return the names that `Connection` limits to this connection, but for those that it never may."""
    tokens = _tokens(value for name, value in fields if name.lower() == b"connection")
    return tokens - {b"host", b"upgrade", b"te", b"content-length"}


def _is_dropped_by_prefix(key: bytes) -> bool:
    if key.startswith(REQUEST_PREFIXES):
        return True
    if b"_" not in key:
        return False
    # CGI and WSGI cannot tell `X_Forwarded_For` from `X-Forwarded-For`.
    plain = key.replace(b"_", b"-")
    return plain.startswith(REQUEST_PREFIXES) or plain in REQUEST or plain in (b"content-length", b"host")


def _forwarded(request: Request, client: Client) -> bytes:
    port = request.host.rpartition(b":")[2]
    if not port.isdigit():
        port = b"443" if client.scheme == "https" else b"80"
    said = {
        b"For": client.address.encode(),
        b"Host": request.host,
        b"Proto": client.scheme.encode(),
        b"Port": port,
    }
    return b"".join(b"X-Forwarded-%b: %b\r\n" % field for field in said.items()) + b"\r\n"


def answer_for_client(answer: Answer, request: Request, site: Site, *, closes: bool) -> bytes:
    """Write the head that the client gets; `closes` says that the connection ends behind the answer."""
    dropped = _named_by_connection(answer.fields)
    lines = [b"HTTP/1.1 %d %b\r\n" % (answer.status, answer.reason)]
    for name, value in answer.fields:
        key = name.lower()
        rule = ANSWER.get(key)
        if rule is None:
            if key not in dropped:
                lines.append(b"%b: %b\r\n" % (name, value))
        elif (kept := _answer_field(rule, value, answer, site)) is not None:
            lines.append(b"%b: %b\r\n" % (name, kept))
    lines.append(_ending(answer, request, site, closes=closes))
    return b"".join(lines)


def _answer_field(rule: Rule, value: bytes, answer: Answer, site: Site) -> bytes | None:
    match rule:
        case Rule.SET_COOKIE:
            return set_by_app(value)
        case Rule.LOCATION:
            return _location(value, site)
        case Rule.CORS:
            return value if site.is_public else None
        case Rule.LENGTH:
            is_meant = answer.body is Body.LENGTH or (answer.body is Body.NONE and answer.status not in _BARE)
            return value if is_meant and answer.status >= 200 else None
        case Rule.UPGRADE:
            return value if answer.status == 101 else None
        case _:
            return None


_BARE = frozenset({101, 204})
"""Statuses whose answers have no Content-Length (RFC 9110 §8.6)."""


def _location(value: bytes, site: Site) -> bytes:
    """Keep a redirect of an app that does not know of the edge's TLS on https."""
    plain = b"http://" + site.host
    if site.scheme == "https" and value.startswith(plain) and value[len(plain) :][:1] in (b"", b"/", b"?"):
        return b"https://" + value[len(b"http://") :]
    return value


def _ending(answer: Answer, request: Request, site: Site, *, closes: bool) -> bytes:
    if answer.status == 101:
        return b"Connection: Upgrade\r\n" + _added(site) + b"\r\n"
    if answer.status < 200:
        return b"\r\n"
    framing = b""
    if answer.body in (Body.CHUNKED, Body.CLOSE) and not request.is_http_1_0:
        framing = b"Transfer-Encoding: chunked\r\n"
    connection = b"Connection: close\r\n" if closes else b""
    return b"%b%b%b%b\r\n" % (framing, connection, _FRAMES, _added(site))


def _added(site: Site) -> bytes:
    own = b"".join(b"%b: %b\r\n" % field for field in site.fields)
    return b"%bX-Fairlead-Request: %b\r\n" % (own, site.request_id)


# ------------------------------------------------------------------------------------ trailers

_NO_TRAILERS = frozenset(
    {
        b"host",
        b"content-length",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"set-cookie",
        b"expect",
    }
)
"""What framing, routing or authentication needs before the body (RFC 9110 §6.5.1)."""


def trailers(fields: Fields, table: Mapping[bytes, Rule]) -> bytes:
    """Write the fields behind a chunked body; those that mean something in a head are left out."""
    kept = [
        (name, value)
        for name, value in fields
        if (key := name.lower()) not in table and key not in _NO_TRAILERS and not _is_dropped_by_prefix(key)
    ]
    return b"".join(b"%b: %b\r\n" % field for field in kept)


def own_answer(
    status: int, body: bytes, kind: str, *, fields: Fields = (), request: Request | None = None, closes: bool
) -> bytes:
    """Write an answer of our own, head and body; never stored by a cache, never framed, without scripts."""
    lines = [
        b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode()),
        b"Content-Type: %b; charset=utf-8\r\nContent-Length: %d\r\n" % (kind.encode(), len(body)),
        b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n",
        *(b"%b: %b\r\n" % field for field in fields),
        b"Connection: close\r\n" if closes else b"",
        b"\r\n",
    ]
    if request is None or request.method != "HEAD":
        lines.append(body)
    return b"".join(lines)
