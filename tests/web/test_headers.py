"""Crafted requests against an app that echoes raw bytes, and crafted answers: both tables, as data."""

import pytest

from tests.web.fronts import raw_echo, running, says

KEPT = [
    b"Accept: */*",
    b"accept-ENCODING: gzip, br",
    b"X-Custom: a,b;c",
    b"X-Empty:",
    b"User-Agent: x y z",
    b'If-None-Match: "a"',
    b"Range: bytes=0-1",
    b"Authorization: Basic YTpi",
    b"Authorization: Bearer abc",
    b"Authorization: bearer flx_1",
    b"Authorization: Negotiate flt_1",
    b"Origin: http://evil.example",
    b"Referer: http://x/",
    b"Expect: nothing",
    b"X-Requested-With: XMLHttpRequest",
    b"Sec-Fetch-Mode: cors",
    b"X-Forwardedish: 1",
    b"XForwarded-For: 1",
    b"My-X-Real-IP: 1",
    b"Cache-Control: no-cache",
    b"Pragma: no-cache",
    b"DNT: 1",
    b"Via: 1.0 x",
    b"Max-Forwards: 3",
    b"Upgrade-Insecure-Requests: 1",
    b"Sec-WebSocket-Protocol: a",
    b"X_custom_under: 1",
    b"content-type: text/plain",
    b"Content-Language: de",
    b"X-CSRFToken: 1",
    b"X-XSRFToken: 1",
    b"Accept-Language: \xc3\xa4",
    b"X-Tab: a\tb",
    b'X-Quote: "q\\"q"',
    b"TE: trailers",
    b"Priority: u=1, i",
    b"X-Long: " + b"y" * 8_000,
    b"Cookie: a=b",
    b'Cookie: a=b; c="d e";e=f',
    b"Cookie: fairleader=1",
    b"COOKIE: x",
    b"Cookie: ;;a",
    b'Cookie: _xsrf=2|1|3; username-x="2|1:0|10:1"',
    b"Cookie: __Host-mine=1; __Secure-theirs=2",
    b"Cookie: $Version=1; a=b",
    b"X-Http-Method-Override: PUT",
    b"Link: <x>",
    b"Proxied: 1",
    b"X-Real-IPs: 1",
    b"X-Fairleads: 1",
    b"Trailers: x",
]
DROPPED = [
    b"X-Forwarded-For: 6.6.6.6",
    b"x-forwarded-for: 6.6.6.6",
    b"X-FORWARDED-HOST: evil",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Port: 1",
    b"X-Forwarded-Prefix: /x",
    b"X-Forwarded-Server: x",
    b"X-Forwarded: for=6.6.6.6",
    b"Forwarded: for=6.6.6.6",
    b"X-Forwarded-User: root",
    b"X-Forwarded-Email: root@x",
    b"X-Real-IP: 6.6.6.6",
    b"X-Original-URL: /admin",
    b"X-Original-Host: x",
    b"X-Original-Forwarded-For: 6.6.6.6",
    b"X-Rewrite-URL: /admin",
    b"X-Envoy-External-Address: 6.6.6.6",
    b"X-Envoy-Internal: true",
    b"X-Fairlead-User: root",
    b"X-Fairlead-Groups: admin",
    b"X-Fairlead-Owner: root",
    b"x-fairlead-anything: 1",
    b"Proxy-Authorization: Basic x",
    b"Proxy-Connection: keep-alive",
    b"Proxy: http://evil",
    b"Keep-Alive: timeout=5",
    b"Trailer: X",
    b"HTTP2-Settings: AAMAAABkAAQAAP__",
    b"X_Forwarded_For: 6.6.6.6",
    b"X-Forwarded_For: 6.6.6.6",
    b"x_forwarded-host: evil",
    b"X_Real_IP: 6.6.6.6",
    b"X_Fairlead_User: root",
    b"X_Original_URL: /admin",
    b"Content_Length: 5",
    b"Transfer_Encoding: chunked",
    b"Proxy_Authorization: x",
    b"True-Client-IP: 6.6.6.6",
    b"CF-Connecting-IP: 6.6.6.6",
    b"X-Client-IP: 6.6.6.6",
    b"X-Cluster-Client-IP: 6.6.6.6",
    b"Remote-User: root",
    b"Remote_User: root",
    b"X-Remote-User: root",
    b"Upgrade: h2c",
    b"Upgrade: websocket",
    b"Upgrade: TLS/1.0, HTTP/2.0",
    b"TE: gzip",
    b"TE: deflate;q=0.5",
    b"Authorization: Bearer flt_abc",
    b"authorization: bearer  flt_abc",
    b"AUTHORIZATION: BEARER flt_abc",
    b"Connection: keep-alive",
    b"Cookie: fairlead=secret",
    b"Cookie: __Host-Http-fairlead=secret",
    b"cookie: __host-http-FAIRLEAD=secret",
    b"Cookie: __Host-Http-fairlead-pre-12345678=secret",
    b"Cookie: fairlead-login=secret; fairlead=secret",
]
CHANGED = [
    (b"Cookie: a=b; fairlead=secret; c=d", b"Cookie: a=b; c=d"),
    (b"Cookie: fairlead=secret; c=d", b"Cookie: c=d"),
    (b"Cookie: a=b;fairlead=secret", b"Cookie: a=b"),
    (b'Cookie: a=b;  "fairlead"=secret;  c=d', b"Cookie: a=b;  c=d"),
    (b"Cookie: a=b; fairlead=secret; fairlead=secret; c=d", b"Cookie: a=b; c=d"),
    (b"Cookie: a=b;\xc2\xa0fairlead=secret; c=d", b"Cookie: a=b; c=d"),
    (b"Cookie: a=b;\xa0fairlead=secret; c=d", b"Cookie: a=b; c=d"),
    (b"TE: trailers, deflate;q=0.5", b"TE: trailers"),
    (b"X-Blank:    a  b   ", b"X-Blank: a  b"),
]


def in_contexts(field: bytes) -> list[bytes]:
    """Put a field alone, between others, and twice."""
    return [field, b"A: 1\r\n" + field + b"\r\nB: 2", field + b"\r\n" + field]


REQUESTS = [(context, True) for field in KEPT for context in in_contexts(field)[:2]] + [
    (context, False) for field in DROPPED for context in in_contexts(field)
]


def test_there_are_at_least_200_requests() -> None:
    assert len(REQUESTS) + len(CHANGED) >= 200


async def test_200_requests_reach_an_app_that_echoes_raw_bytes_as_the_table_says() -> None:
    """What passes passes to the byte, in case and order; what is dropped is dropped in every place."""
    async with running() as front:
        await front.app(raw_echo)
        talk = await front.connect()
        for number, (fields, passes) in enumerate(REQUESTS):
            asked = b"GET /x?%d HTTP/1.1\r\nHost: %b\r\n%b\r\n\r\n" % (number, front.host(), fields)
            reply = await talk.ask(asked)
            assert reply.status == 200, (fields, reply.body)
            lines = reply.body.split(b"\r\n")
            passed = [line for line in fields.split(b"\r\n") if passes or line in (b"A: 1", b"B: 2")]
            expected = [line if line != b"X-Empty:" else b"X-Empty: " for line in passed]
            assert lines == [
                b"GET /x?%d HTTP/1.1" % number,
                b"Host: " + front.host(),
                *expected,
                b"X-Forwarded-For: 127.0.0.1",
                b"X-Forwarded-Host: " + front.host(),
                b"X-Forwarded-Proto: http",
                b"X-Forwarded-Port: %d" % front.port,
                b"",
                b"",
            ], fields
            assert b"secret" not in reply.body
            assert b"6.6.6.6" not in reply.body
        await talk.close()


async def test_fields_that_change_change_by_no_other_byte() -> None:
    async with running() as front:
        await front.app(raw_echo)
        talk = await front.connect()
        for sent, passed in CHANGED:
            reply = await talk.ask(b"GET / HTTP/1.1\r\nHost: %b\r\n%b\r\n\r\n" % (front.host(), sent))
            assert b"\r\n" + passed + b"\r\n" in reply.body, sent
            assert b"secret" not in reply.body
        await talk.close()


async def test_what_connection_names_is_of_this_hop_only() -> None:
    async with running() as front:
        await front.app(raw_echo)
        talk = await front.connect()
        reply = await talk.ask(
            b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: X-Hop, close, host\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n"
            % front.host()
        )
        assert b"X-Hop" not in reply.body
        assert b"X-End: 2\r\n" in reply.body
        assert b"\r\nHost: " in reply.body
        await talk.close()


BODIES = [b"", b"x", b"abc" * 1_000, bytes(range(256)) * 40, b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
async def test_a_body_is_framed_by_us_and_untouched(body: bytes) -> None:
    async with running() as front:
        await front.app(raw_echo)
        talk = await front.connect()
        sized = b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n" % (front.host(), len(body))
        reply = await talk.ask(sized + body)
        assert reply.body.partition(b"\r\n\r\n")[2] == body
        assert b"\r\nContent-Length: %d\r\n" % len(body) in reply.body
        pieces = [body[at : at + 700] for at in range(0, len(body), 700)]
        chunks = b"".join(b"%X;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        head = b"POST / HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: Chunked\r\n\r\n" % front.host()
        reply = await talk.ask(head + chunks + b"0\r\nX-Sum: 1\r\nCookie: a=b\r\nX-Forwarded-For: 6\r\n\r\n")
        got_head, _, got = reply.body.partition(b"\r\n\r\n")
        assert got_head.count(b"Transfer-Encoding: chunked") == 1
        assert b"ext=1" not in got
        assert _unchunked(got) == (body, b"X-Sum: 1\r\n")
        await talk.close()


def _unchunked(raw: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, _, raw = raw.partition(b"\r\n")
        if (size := int(line, 16)) == 0:
            return body, raw.removesuffix(b"\r\n")
        body, raw = body + raw[:size], raw[size + 2 :]


ANSWERS_KEPT = [
    b"Content-Type: text/html",
    b'ETag: "x"',
    b"Server: X",
    b"Set-Cookie: a=b; Path=/; HttpOnly",
    b"X-Frame-Options: DENY",
    b"Content-Security-Policy: default-src 'self'",
    b'Clear-Site-Data: "cookies"',
    b"Service-Worker-Allowed: /",
    b"Location: /x",
    b"Location: http://other.example/",
    b"Content-Encoding: gzip",
    b"X-Odd-CASE: 1",
    b"Link: </a>; rel=preload",
    b"Access-Control-Allow-Origin: *",
    b"Vary: Origin",
    b"WWW-Authenticate: Basic",
    b"Refresh: 1",
    b"Set-Cookie: fairleader=1",
]
ANSWERS_DROPPED = [
    b"Strict-Transport-Security: max-age=1",
    b'Alt-Svc: h3=":443"',
    b"Keep-Alive: timeout=5",
    b"Proxy-Authenticate: Basic",
    b"Set-Cookie: fairlead=evil",
    b"Set-Cookie: __Host-Http-fairlead=evil; Secure; Path=/",
    b"set-cookie: FAIRLEAD-login=evil",
    b"Upgrade: h2c",
    b"Trailer: X",
    b"X-Fairlead-Request: forged",
    b"Public-Key-Pins: x",
]


async def test_answers_reach_the_browser_as_the_table_says() -> None:
    async with running(pool_size=0) as front:
        talk = await front.connect()
        for number, field in enumerate([*ANSWERS_KEPT, *ANSWERS_DROPPED]):
            await front.app(
                says(b"HTTP/1.1 200 Fine\r\n%b\r\nContent-Length: 2\r\n\r\nok" % field), f"app{number}"
            )
            reply = await talk.ask(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % front.host(f"app{number}"))
            assert (reply.status, reply.body) == (200, b"ok"), field
            assert reply.head.startswith(b"HTTP/1.1 200 Fine\r\n")
            assert (field in reply.head.split(b"\r\n")) == (field in ANSWERS_KEPT), field
            assert "frame-ancestors 'self'" in reply.all("content-security-policy")
            assert reply.one("x-fairlead-request") != "forged"
        await talk.close()


async def test_what_an_app_that_is_not_public_says_of_other_origins_is_not_passed_on() -> None:
    async with running() as front:
        answer = (
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Origin\r\nContent-Length: 0\r\n\r\n"
        )
        await front.app(says(answer), is_public=False, fields=((b"Set-Cookie", b"fairlead=renewed"),))
        talk = await front.connect()
        reply = await talk.ask(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % front.host())
        assert reply.all("access-control-allow-origin") == []
        assert reply.all("vary") == ["Origin"]
        assert reply.all("set-cookie") == ["fairlead=renewed"], "the gate's own is added"
        await talk.close()


async def test_a_trusted_edge_says_who_the_client_is_and_nobody_else_does() -> None:
    async with running(trusted_proxies=["127.0.0.1"], public_scheme="https", public_port=443) as front:
        await front.app(raw_echo)
        talk = await front.connect()
        reply = await talk.ask(
            b"GET / HTTP/1.1\r\nHost: app.localhost\r\nX-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n"
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\r\n"
        )
        assert b"X-Forwarded-For: 192.0.2.7\r\n" in reply.body
        assert b"X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n" in reply.body
        assert reply.body.count(b"X-Forwarded-For") == 1
        assert b"evil" not in reply.body
        await talk.close()


async def test_a_redirect_of_an_app_that_does_not_know_of_tls_stays_on_https() -> None:
    async with running(trusted_proxies=["127.0.0.1"], public_scheme="https") as front:
        talk = await front.connect()
        for number, (sent, passed) in enumerate(
            [
                (b"http://app0.localhost/x", "https://app0.localhost/x"),
                (b"http://app1.localhost.evil/", "http://app1.localhost.evil/"),
            ]
        ):
            answer = b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % sent
            await front.app(says(answer), f"app{number}")
            reply = await talk.ask(
                b"GET / HTTP/1.1\r\nHost: app%d.localhost\r\nX-Forwarded-Proto: https\r\n\r\n" % number
            )
            assert reply.one("location") == passed
        await talk.close()
