"""Requests that two readers could understand in two ways, by hand after what is known of such attacks.

Each is bytes with `{host}` for the Host field. A client that sends one and then asks for `/mine` on the same
connection must get its own answer or none, and other clients get theirs.
"""

import random

_GET = "GET /smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n"

_HEADS = [
    "Content-Length: {n}\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: {n}",
    "Content-Length: {n}\r\nContent-Length: 0",
    "Content-Length: 0\r\nContent-Length: {n}",
    "Content-Length: {n}\r\nContent-Length: {n}",
    "Content-Length: {n}, {n}",
    "Content-Length: +{n}",
    "Content-Length: -1",
    "Content-Length: 0x{n}",
    "Content-Length: {n} ",
    "Content-Length:\t{n}",
    "Content-Length : {n}",
    "Content-Length\t: {n}",
    " Content-Length: {n}",
    "Content-Length: \r\n {n}",
    "Content-Length: 99999999999999999999999",
    "Content-Length: {n}\nX: y",
    "Content-Length: {n}\rX: y",
    "Content-Length: 1e1",
    "Content-Length: 0{n}",
    "Content-Length: ",
    "Content_Length: {n}",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t:chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding: \x0cchunked",
    "Transfer-Encoding: chunked\x00",
    'Transfer-Encoding: "chunked"',
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding\r\n: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\r\n\rTransfer-Encoding: chunked",
    "Transfer_Encoding: chunked",
    "transfer-encoding: cow\r\nTransfer-Encoding: chunked",
    "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    "Connection: Content-Length\r\nContent-Length: {n}",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMA\r\nContent-Length: {n}",
    "Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: {n}",
    "Upgrade: websocket\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked",
    "Expect: 100-continue\r\nContent-Length: {n}",
    "Expect: 100-continue\r\nTransfer-Encoding: chunked",
    "X-Nothing: 1",
]
_BODIES = [
    _GET,
    "0\r\n\r\n" + _GET,
    "3\r\nabc\r\n0\r\n\r\n" + _GET,
    "0\n\r\n" + _GET,
    "0\r\n\n" + _GET,
    "0;\r\n\r\n" + _GET,
    '0;a="\r\n\r\n' + _GET,
    "0\r\nX: y\r\n\r\n" + _GET,
    "1\r\nZ\r\nQ\r\n\r\n" + _GET,
    "00000000000000000\r\n\r\n" + _GET,
    "-1\r\n\r\n" + _GET,
    "0x0\r\n\r\n" + _GET,
    " 0\r\n\r\n" + _GET,
    "fffffffffffffffff\r\n" + _GET,
    "3\r\nabcd0\r\n\r\n" + _GET,
    "0\r\nContent-Length: 5\r\n\r\n" + _GET,
    "",
]
_LINES = [
    "POST /attack HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n{body}",
    "GET /attack HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n{body}",
    "POST /attack HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n{fields}\r\n\r\n{body}",
    "HEAD /attack HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n{body}",
    "OPTIONS * HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n{body}",
    "POST http://{host}/attack HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n{body}",
    "POST http://other.localhost/attack HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n{body}",
    "POST /attack HTTP/1.1\r\n{fields}\r\nHost: {host}\r\n\r\n{body}",
    "POST /attack HTTP/1.1\r\nHost: {host}\r\nHost: other.localhost\r\n{fields}\r\n\r\n{body}",
    "POST /attack HTTP/1.1\nHost: {host}\n{fields}\n\n{body}",
    "POST /attack  HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n{body}",
    "POST /a\x00ttack HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n{body}",
    "\r\nPOST /attack HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n{body}",
    "POST /attack HTTP/1.1\r\nHost: {host}\r\n\tX: y\r\n{fields}\r\n\r\n{body}",
]


def corpus(count: int, seed: int = 1) -> list[str]:
    """Return so many attacks, the same for the same seed; each kind of head comes before any comes twice."""
    chosen = random.Random(seed)
    found = []
    while len(found) < count:
        heads = _HEADS[:]
        chosen.shuffle(heads)
        for fields in heads[: count - len(found)]:
            body = chosen.choice(_BODIES)
            size = chosen.choice((len(body), 4, 1, max(0, len(body) - len(_GET))))
            line = _LINES[0] if chosen.random() < 0.5 else chosen.choice(_LINES)
            whole = line.replace("{fields}", fields.replace("{n}", str(size)))
            found.append(whole.replace("{body}", body))
    return found
