"""Heads of requests and answers: their framing, and the fields that are passed on. Pure.

`httptools` has split the head into fields and refused what is no HTTP/1 (bare CR and LF, obs-fold, NUL and
other control characters, blanks before a colon). Here is decided what a body is (RFC 9112 §6.3), and which
fields pass: two tables, REQUEST and ANSWER. Field names keep their case and fields their order.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple

from proxy.web.cookies import set_by_app, without_ours

Field = tuple[bytes, bytes]
Fields = Sequence[Field]

BEARER_PREFIX = b"flt_"
"""Begins every token of ours; an `Authorization` field with one is for us and not for the app."""

_DIGITS = re.compile(rb"[0-9]{1,18}")
_TARGET = re.compile(rb"(?:/[!-~]*|\*)")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)([/?][!-~]*)?")
_REASON = re.compile(rb"[\t -~\x80-\xff]*")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class HeadInvalid(Exception):
    """A head that is refused; the connection ends with the answer, because its framing is in doubt."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Body(Enum):
    """The way in which the end of a body is found."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
    """Of answers only: it ends with the connection."""


# ------------------------------------------------------------------------------------ both tables


class Rule(NamedTuple):
    """The treatment of one field."""

    become: Callable[[bytes], bytes | None]
    """Gives the value that is passed on; None: the field is left out."""
    decides: int | None = None
    """Where its values are kept, for fields that decide about framing or depend on where the answer is shown:
    an index of `_Framing`."""


def _drop(value: bytes) -> None:
    del value


def _keep(value: bytes) -> bytes:
    return value


def _cookie(value: bytes) -> bytes | None:
    return without_ours(value) or None


def _authorization(value: bytes) -> bytes | None:
    return None if is_our_token(value) else value


def _te(value: bytes) -> bytes | None:
    return b"trailers" if b"trailers" in _tokens([value]) else None


def is_our_token(value: bytes) -> bool:
    """Tell whether an Authorization field carries a token of ours (RFC 6750 §2.1)."""
    scheme, _, token = value.partition(b" ")
    return scheme.lower() == b"bearer" and token.strip(b" \t").startswith(BEARER_PREFIX)


HOSTS, LENGTHS, CODINGS, UPGRADES, CONNECTION, DEPENDING = range(6)

DROP = Rule(_drop)
HOST = Rule(_keep, HOSTS)
LENGTH = Rule(_keep, LENGTHS)
CODING = Rule(_drop, CODINGS)
UPGRADE = Rule(_keep, UPGRADES)
OF_CONNECTION = Rule(_drop, CONNECTION)
LOCATION = Rule(_keep, DEPENDING)
CORS = Rule(_keep, DEPENDING)

REQUEST: Mapping[bytes, Rule] = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": OF_CONNECTION,
    b"upgrade": UPGRADE,
    b"te": Rule(_te),
    b"cookie": Rule(_cookie),
    b"authorization": Rule(_authorization),
    # Of one connection only (RFC 9110 §7.6.1), or framing, which is ours.
    b"keep-alive": DROP,
    b"trailer": DROP,
    b"http2-settings": DROP,
    b"proxy": DROP,  # CGI makes HTTP_PROXY of it
    # Who the client is, which only we say.
    b"forwarded": DROP,
    b"x-forwarded": DROP,
    b"x-real-ip": DROP,
    b"x-client-ip": DROP,
    b"x-cluster-client-ip": DROP,
    b"true-client-ip": DROP,
    b"cf-connecting-ip": DROP,
    b"remote-user": DROP,
    b"x-remote-user": DROP,
}
"""By lower-case name; a name that is not here passes, but for REQUEST_PREFIXES."""

REQUEST_PREFIXES = (b"proxy-", b"x-forwarded-", b"x-original-", b"x-rewrite-", b"x-envoy-", b"x-fairlead-")
"""Names that begin so are dropped."""

ANSWER: Mapping[bytes, Rule] = {
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": OF_CONNECTION,
    b"upgrade": UPGRADE,
    b"set-cookie": Rule(set_by_app),
    b"location": LOCATION,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authentication-info": DROP,
    b"trailer": DROP,
    # Of the operator's domain, not of one app.
    b"strict-transport-security": DROP,
    b"public-key-pins": DROP,
    b"alt-svc": DROP,
    b"x-fairlead-request": DROP,
    b"access-control-allow-origin": CORS,
    b"access-control-allow-credentials": CORS,
    b"access-control-allow-methods": CORS,
    b"access-control-allow-headers": CORS,
    b"access-control-allow-private-network": CORS,
    b"access-control-expose-headers": CORS,
    b"access-control-max-age": CORS,
}
"""By lower-case name; a name that is not here passes. LOCATION and CORS depend on where it is shown."""

_NEVER_OF_CONNECTION = frozenset({b"host", b"upgrade", b"te", b"content-length", b"close", b"keep-alive"})
"""Tokens of `Connection` that name no field to be dropped: those fields have rules of their own."""


def request_rule(name: bytes) -> Rule | None:
    """Return the rule for a field of a request, by its name in any case; None: it passes."""
    key = name.lower()
    if (rule := REQUEST.get(key)) is not None:
        return rule
    # CGI and WSGI cannot tell `X_Forwarded_For` from `X-Forwarded-For`.
    plain = key.replace(b"_", b"-")
    if plain.startswith(REQUEST_PREFIXES) or (plain != key and plain in REQUEST):
        return DROP
    return None


def answer_rule(name: bytes) -> Rule | None:
    """Return the rule for a field of an answer, by its name in any case; None: it passes."""
    return ANSWER.get(name.lower())


class _Rules(dict[bytes, Rule | None]):
    """Rules by names as they are spelled; worked out once for each, as long as they are not too many."""

    _MOST = 2_048

    def __init__(self, rule_of: Callable[[bytes], Rule | None]) -> None:
        super().__init__()
        self._rule_of = rule_of

    def __missing__(self, name: bytes) -> Rule | None:
        if len(self) >= self._MOST:  # a client that makes names up costs some look-ups, and no memory
            self.clear()
        rule = self[name] = self._rule_of(name)
        return rule


_REQUEST_RULES = _Rules(request_rule)
_ANSWER_RULES = _Rules(answer_rule)

_Framing = tuple[list[bytes], list[bytes], list[bytes], list[bytes], list[bytes], list[bytes]]
"""Values of the fields that decide: by HOSTS, LENGTHS, CODINGS, UPGRADES, CONNECTION and DEPENDING."""


@dataclass(slots=True)
class Block:
    """The fields of one head with its table applied: all that does not depend on the line above them.

    A peer sends the same fields again and again; a block is shared by all heads that have them.
    """

    fields: Fields
    """As they were sent."""
    passing: Fields
    """Those that pass, without the ones that `Connection` names."""
    written: bytes
    """`passing` as lines of a head."""
    framing: _Framing
    connection: frozenset[bytes]
    """Tokens of `Connection`, in lower case."""

    @property
    def is_chunked(self) -> bool:
        """Return whether the fields announce a transfer coding, for which the parser reads on."""
        return bool(self.framing[CODINGS])


def request_block(fields: Fields) -> Block:
    """Apply the table of requests."""
    return _block(fields, _REQUEST_RULES)


def answer_block(fields: Fields) -> Block:
    """Apply the table of answers."""
    return _block(fields, _ANSWER_RULES)


def _block(fields: Fields, rules: _Rules) -> Block:
    passing, framing = _judged(fields, rules)
    connection = _tokens(framing[CONNECTION])
    if dropped := connection - _NEVER_OF_CONNECTION:
        passing = _without(passing, dropped)
    return Block(fields, passing, _written(passing), framing, connection)


def _without(fields: Fields, names: frozenset[bytes]) -> list[Field]:
    return [field for field in fields if field[0].lower() not in names]


def _written(fields: Fields) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def _judged(fields: Fields, rules: _Rules) -> tuple[list[Field], _Framing]:
    """Apply a table: return the fields that pass, and the values that decide about framing."""
    passing: list[Field] = []
    framing: _Framing = ([], [], [], [], [], [])
    for field in fields:
        rule = rules[field[0]]
        if rule is None:
            passing.append(field)
            continue
        name, value = field
        become, decides = rule
        if decides is not None:
            framing[decides].append(value)
        if (kept := become(value)) is not None:
            passing.append((name, kept))
    return passing, framing


_NO_TOKENS: frozenset[bytes] = frozenset()


def _tokens(values: Sequence[bytes]) -> frozenset[bytes]:
    if not values:
        return _NO_TOKENS
    return frozenset(token.strip(b" \t") for value in values for token in value.lower().split(b","))


def _is_websocket(framing: _Framing) -> bool:
    """Return whether this protocol, and no other, is asked for or agreed to."""
    return [value.lower() for value in framing[UPGRADES]] == [b"websocket"]


# ------------------------------------------------------------------------------------ requests


@dataclass(slots=True)
class Request:
    """The head of one request, with its framing decided. Not changed once it is read."""

    method: str
    target: bytes
    """Path and query as sent, or `*`."""
    is_http_1_0: bool
    host: bytes
    """The Host field."""
    fields: Fields
    """As they were sent."""
    passing: Fields
    """Those that go on to the app."""
    written: bytes
    """`passing` as lines of a head."""
    body: Body
    length: int
    """Of the body in bytes; 0 unless `body` is LENGTH."""
    upgrade: bytes
    """`websocket` as the client spelled it, when that is asked for; else empty."""
    closes: bool
    """The client wants the connection closed after the answer."""

    @property
    def can_be_repeated(self) -> bool:
        """Return whether asking twice does no harm: a safe method without a body (RFC 9110 §9.2.1)."""
        return self.body is Body.NONE and self.method in _SAFE_METHODS and not self.upgrade

    def first(self, name: bytes) -> bytes:
        """Return the first value of a field, by lower-case name; empty when there is none."""
        return next((value for key, value in self.fields if key.lower() == name), b"")


def read_request(method: str, target: bytes, version: str, block: Block) -> Request:
    """Read the head of a request, and decide its framing.

    Raises: HeadInvalid for what two readers could understand differently.
    """
    if version not in ("1.0", "1.1"):
        raise HeadInvalid(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if method == "CONNECT":
        raise HeadInvalid(501, "CONNECT is not served here")
    framing = block.framing
    if len(framing[HOSTS]) != 1:
        raise HeadInvalid(400, "one Host field is needed")
    host = framing[HOSTS][0]
    if not _TARGET.fullmatch(target):
        target = _of_absolute(target, host)
    if target == b"*" and method != "OPTIONS":
        raise HeadInvalid(400, "* is a target of OPTIONS only")
    is_http_1_0 = version == "1.0"
    body, length = _request_body(framing, is_http_1_0=is_http_1_0)
    passing, written = block.passing, block.written
    upgrade = b""
    if framing[UPGRADES]:
        if not is_http_1_0 and method == "GET" and b"upgrade" in block.connection:
            upgrade = _upgrade_of(framing, body)
        if not upgrade:
            passing = _without(passing, _UPGRADE)
            written = _written(passing)
    closes = is_http_1_0 or b"close" in block.connection
    return Request(
        method, target, is_http_1_0, host, block.fields, passing, written, body, length, upgrade, closes
    )


_UPGRADE = frozenset({b"upgrade"})


def _request_body(framing: _Framing, *, is_http_1_0: bool) -> tuple[Body, int]:
    lengths, codings = framing[LENGTHS], framing[CODINGS]
    if codings:
        if lengths:
            raise HeadInvalid(400, "Content-Length and Transfer-Encoding exclude each other")
        if is_http_1_0:
            raise HeadInvalid(400, "HTTP/1.0 has no Transfer-Encoding")
        if not _is_chunked(codings):
            raise HeadInvalid(501, "the only Transfer-Encoding here is chunked")
        return Body.CHUNKED, 0
    if not lengths:
        return Body.NONE, 0
    length = _length(lengths, 400)
    return (Body.LENGTH, length) if length else (Body.NONE, 0)


def _is_chunked(codings: Sequence[bytes]) -> bool:
    return len(codings) == 1 and codings[0].lower() == b"chunked"


def _length(lengths: Sequence[bytes], status: int) -> int:
    if len(lengths) != 1 or not _DIGITS.fullmatch(lengths[0]):
        raise HeadInvalid(status, "one Content-Length of digits is needed")
    return int(lengths[0])


def _of_absolute(target: bytes, host: bytes) -> bytes:
    """Return the origin form of a target in absolute form, whose authority must be the Host field."""
    matched = _ABSOLUTE.fullmatch(target)
    if matched is None:
        raise HeadInvalid(400, "the target of the request is none")
    if matched[1].lower() != host.lower():
        raise HeadInvalid(400, "the target of the request names another host than the Host field")
    rest = matched[2] or b"/"
    return rest if rest.startswith(b"/") else b"/" + rest


def _upgrade_of(framing: _Framing, body: Body) -> bytes:
    """Return the protocol to change to, as the client spelled it; any but websocket is not passed on."""
    if not _is_websocket(framing):
        return b""
    if body is not Body.NONE or framing[LENGTHS]:
        raise HeadInvalid(400, "a request for another protocol has no body")
    return framing[UPGRADES][0]


@dataclass(frozen=True, slots=True)
class Client:
    """The client of a request, as shown to the app; never taken from an untrusted peer."""

    address: str
    scheme: str


@dataclass(frozen=True, slots=True)
class ForApp:
    """The differences between a request as asked and as its app gets it."""

    host: bytes = b""
    """Value of Host; empty: as asked."""
    public: bytes = b""
    """The app's public origin: with `host`, Origin and Referer of it name `host` instead."""
    fields: tuple[Field, ...] = ()
    """Added; the client's own of these names never pass."""


AS_ASKED = ForApp()
_OF_ORIGIN = frozenset({b"origin", b"referer"})


def _as_local(fields: Fields, given: ForApp) -> Fields:
    """Return fields for an app that is to know itself by the name `given.host` only."""
    local = b"http://" + given.host

    def changed(name: bytes, value: bytes) -> bytes:
        key = name.lower()
        if key == b"host":
            return given.host
        rest = value.removeprefix(given.public)
        is_ours = key in _OF_ORIGIN and value.startswith(given.public) and rest[:1] in (b"", b"/")
        return local + rest if is_ours and given.public else value

    return [(name, changed(name, value)) for name, value in fields]


def request_for_app(request: Request, client: Client, given: ForApp = AS_ASKED) -> bytes:
    """Write the head that the app gets: HTTP/1.1, framed by us, with the fields that only we may set."""
    written = _written(_as_local(request.passing, given)) if given.host else request.written
    framed = _written(given.fields)
    if request.upgrade:
        framed += b"Connection: Upgrade\r\n"
    elif request.body is Body.CHUNKED:
        framed += b"Transfer-Encoding: chunked\r\n"
    port = request.host.rpartition(b":")[2]
    if not port.isdigit():
        port = b"443" if client.scheme == "https" else b"80"
    return (
        b"%b %b HTTP/1.1\r\n%b%bX-Forwarded-For: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Proto: %b\r\n"
        b"X-Forwarded-Port: %b\r\n\r\n"
    ) % (
        request.method.encode(),
        request.target,
        written,
        framed,
        client.address.encode(),
        request.host,
        client.scheme.encode(),
        port,
    )


CLIENT_FIELD = b"x-fairlead-client"
"""Tells our own pages the address of the client; a client's field of that name never passes."""

_NOT_FOR_OWN_SITE = frozenset({b"cookie", b"content-length", b"expect", b"upgrade", b"te"})


def request_for_own_site(request: Request, client: Client) -> bytes:
    """Write the head that our own pages get: our cookies stay, and the connection ends behind the answer."""
    kept = [field for field in request.passing if field[0].lower() not in _NOT_FOR_OWN_SITE]
    kept += [field for field in request.fields if field[0].lower() == b"cookie"]
    if request.body is Body.LENGTH:
        kept.append((b"Content-Length", b"%d" % request.length))
    kept += [(CLIENT_FIELD, client.address.encode()), (b"Connection", b"close")]
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (request.method.encode(), request.target, _written(kept))


# ------------------------------------------------------------------------------------ answers


@dataclass(slots=True)
class Answer:
    """The head of one answer of an app, with its framing decided. Not changed once it is read."""

    status: int
    reason: bytes
    passing: Fields
    """Fields that go on to the client, but for what depends on where it is shown."""
    written: bytes
    """`passing` as lines of a head."""
    body: Body
    length: int
    stays: bool
    """The app keeps the connection open after this answer."""
    depends: bool
    """Some of `passing` depend on where the answer is shown."""


def read_answer(status: int, reason: bytes, version: str, block: Block, to: Request) -> Answer:
    """Read the head of an answer to a request, and decide its framing (RFC 9112 §6.3).

    Raises: HeadInvalid (502) for what two readers could understand differently.
    """
    if version not in ("1.0", "1.1") or not 100 <= status <= 599:
        raise HeadInvalid(502, "the app speaks no HTTP/1")
    framing = block.framing
    if status == 101 and not (to.upgrade and _is_websocket(framing)):
        raise HeadInvalid(502, "the app changed to a protocol that was not asked for")
    body, length = _answer_body(framing, status, version, to)
    passing, written = block.passing, block.written
    dropped: frozenset[bytes] = frozenset()
    if framing[LENGTHS] and (status < 200 or status in _BARE):
        dropped |= {b"content-length"}
    if framing[UPGRADES] and status != 101:
        dropped |= _UPGRADE
    if dropped:
        passing = _without(passing, dropped)
        written = _written(passing)
    is_open = version == "1.1" and b"close" not in block.connection
    stays = is_open and body is not Body.CLOSE and status != 101
    shown = reason if _REASON.fullmatch(reason) else b""
    return Answer(status, shown, passing, written, body, length, stays, bool(framing[DEPENDING]))


_BARE = frozenset({101, 204})
"""Statuses whose answers have no Content-Length (RFC 9110 §8.6), as those of 1xx."""


def _answer_body(framing: _Framing, status: int, version: str, to: Request) -> tuple[Body, int]:
    lengths, codings = framing[LENGTHS], framing[CODINGS]
    if to.method == "HEAD" or status < 200 or status in (204, 304):
        return Body.NONE, 0
    if codings:
        if version == "1.0" or lengths or not _is_chunked(codings):
            raise HeadInvalid(502, "the app framed its answer in an unclear way")
        return Body.CHUNKED, 0
    if lengths:
        return Body.LENGTH, _length(lengths, 502)
    return Body.CLOSE, 0


@dataclass(frozen=True, slots=True)
class Site:
    """The origin that an answer is shown under."""

    host: bytes
    """As in the Host field."""
    scheme: str
    is_public: bool
    """The app answers cross-origin requests by its own `Access-Control-*` fields."""
    fields: Fields = ()
    """Added to the answer."""
    request_id: bytes = b""
    framers: bytes = b""
    """Origins that may frame the app besides its own, as `frame-ancestors` lists them."""


_FRAMES = b"Content-Security-Policy: frame-ancestors 'self'%b\r\n"
"""Beside the app's own policy: a browser obeys both, so that the app is framed by those only."""


def answer_for_client(answer: Answer, request: Request, site: Site, *, closes: bool) -> bytes:
    """Write the head that the client gets; `closes` says that the connection ends behind the answer."""
    lines = [_written(_shown_at(site, answer.passing)) if answer.depends else answer.written]
    if answer.status == 101:
        lines.append(b"Connection: Upgrade\r\n")
    elif answer.status >= 200:
        if answer.body in (Body.CHUNKED, Body.CLOSE) and not request.is_http_1_0:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        if closes:
            lines.append(b"Connection: close\r\n")
        lines.append(_FRAMES % (b" " + site.framers if site.framers else b""))
        lines.append(_written(site.fields))
    if answer.status >= 200 or answer.status == 101:
        lines.append(b"X-Fairlead-Request: %b\r\n" % site.request_id)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status, answer.reason, b"".join(lines))


def _shown_at(site: Site, fields: Fields) -> Fields:
    """Apply the rules that depend on where an answer is shown."""
    shown = []
    for name, value in fields:
        rule = _ANSWER_RULES[name]
        if rule is LOCATION:
            shown.append((name, _location(value, site)))
        elif rule is not CORS or site.is_public:
            shown.append((name, value))
    return shown


def _location(value: bytes, site: Site) -> bytes:
    """Keep a redirect of an app that does not know of the edge's TLS on https."""
    plain = b"http://" + site.host
    if site.scheme == "https" and value.startswith(plain) and value[len(plain) :][:1] in (b"", b"/", b"?"):
        return b"https://" + value[len(b"http://") :]
    return value


# ------------------------------------------------------------------------------------ trailers

_NO_TRAILERS = frozenset(
    {b"content-encoding", b"content-type", b"content-range", b"set-cookie", b"location", b"expect", b"range"}
)
"""What is needed before the body, besides what has a rule (RFC 9110 §6.5.1)."""


def trailers(fields: Fields) -> bytes:
    """Write the fields behind a chunked body; those that mean something in a head are left out."""
    return b"".join(
        b"%b: %b\r\n" % (name, value)
        for name, value in fields
        if request_rule(name) is None and answer_rule(name) is None and name.lower() not in _NO_TRAILERS
    )


# -------------------------------------------------------------------------------- our own answers


def own_answer(
    status: int, body: bytes, kind: str, *, fields: Fields = (), request: Request | None = None, closes: bool
) -> bytes:
    """Write an answer of our own, head and body; never stored by a cache, never framed, without scripts."""
    return b"".join(
        (
            b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode()),
            b"Content-Type: %b; charset=utf-8\r\nContent-Length: %d\r\n" % (kind.encode(), len(body)),
            b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            b"" if _has(fields, b"referrer-policy") else b"Referrer-Policy: no-referrer\r\n",
            b"" if _has(fields, b"content-security-policy") else _OWN_POLICY,
            *(b"%b: %b\r\n" % field for field in fields),
            b"Connection: close\r\n" if closes else b"",
            b"\r\n",
            b"" if request is not None and request.method == "HEAD" else body,
        )
    )


def own_stream_head(kind: str) -> bytes:
    """Write the head of an answer that ends with its connection; edge proxies are asked not to buffer it."""
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: %b; charset=utf-8\r\nCache-Control: no-store\r\n"
        b"X-Content-Type-Options: nosniff\r\nX-Accel-Buffering: no\r\n%bConnection: close\r\n\r\n"
    ) % (kind.encode(), _OWN_POLICY)


_OWN_POLICY = b"Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"


def _has(fields: Fields, wanted: bytes) -> bool:
    return any(name.lower() == wanted for name, _ in fields)
