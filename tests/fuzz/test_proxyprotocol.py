"""Headers of the PROXY protocol: what is read, what is refused, and that nothing else can happen."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.proxyprotocol import V2_SIGNATURE, Addresses, Header, HeaderInvalid, may_be_header, parse

MAX_BYTES = 536

V4 = (ipaddress.IPv4Address("192.0.2.7").packed, ipaddress.IPv4Address("198.51.100.1").packed)
V6 = (ipaddress.IPv6Address("2001:db8::7").packed, ipaddress.IPv6Address("2001:db8::1").packed)
PORTS = (50_022).to_bytes(2, "big") + (22).to_bytes(2, "big")


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return V2_SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + body


TLV = b"\x04\x00\x03abc" + b"\x20\x00\x02\x01\x00"

GOOD = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 50022 22\r\n", ("192.0.2.7", "198.51.100.1")),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 50022 22\r\n", ("2001:db8::7", "2001:db8::1")),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 50022 22\r\n", ("192.0.2.7", "::1")),
    (v2(0x21, 0x11, b"".join(V4) + PORTS), ("192.0.2.7", "198.51.100.1")),
    (v2(0x21, 0x11, b"".join(V4) + PORTS + TLV), ("192.0.2.7", "198.51.100.1")),
    (v2(0x21, 0x21, b"".join(V6) + PORTS), ("2001:db8::7", "2001:db8::1")),
    (v2(0x21, 0x21, b"".join(V6) + PORTS + TLV * 20), ("2001:db8::7", "2001:db8::1")),
]

WITHOUT = [
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    v2(0x20, 0x00, b""),
    v2(0x20, 0x11, b"".join(V4) + PORTS),
    v2(0x20, 0x00, TLV),
    v2(0x21, 0x00, b""),
    v2(0x21, 0x31, b"\0" * 216),
]

BAD = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"PROXX",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 50022\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 50022 22 7\r\n",
    b"PROXY TCP4  192.0.2.7 198.51.100.1 50022 22\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 50022 22\r\n",
    b"PROXY TCP6 192.0.2.7 198.51.100.1 50022 22\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 50022 22\r\n",
    b"PROXY TCP4 192.0.2.07 198.51.100.1 50022 22\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 22\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 050022 22\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 22\r\n",
    "PROXY TCP4 192.0.2.7 198.51.100.1 \u0665 22\r\n".encode(),
    b"PROXY UDP4 192.0.2.7 198.51.100.1 50022 22\r\n",
    b"PROXY \r\n",
    b"PROXY " + b"x" * 200,
    v2(0x11, 0x11, b"".join(V4) + PORTS),
    v2(0x22, 0x11, b"".join(V4) + PORTS),
    v2(0x21, 0x11, b"".join(V4)),
    v2(0x21, 0x21, b"".join(V4) + PORTS),
    v2(0x21, 0x11, b"", length=65_535),
]


@pytest.mark.parametrize(("header", "addresses"), GOOD)
def test_the_client_is_who_the_header_says(header: bytes, addresses: tuple[str, str]) -> None:
    expected = Addresses((addresses[0], 50_022), (addresses[1], 22))
    for rest in (b"", b"SSH-2.0-OpenSSH_9.2\r\n"):
        assert parse(header + rest, MAX_BYTES) == Header(len(header), expected)


@pytest.mark.parametrize("header", WITHOUT)
def test_some_headers_say_nothing_of_a_client(header: bytes) -> None:
    assert parse(header + b"SSH-", MAX_BYTES) == Header(len(header), None)


@pytest.mark.parametrize("header", [header for header, _ in GOOD] + WITHOUT)
def test_a_header_that_comes_in_pieces_is_waited_for(header: bytes) -> None:
    for size in range(len(header)):
        assert may_be_header(header[:size])
        assert parse(header[:size], MAX_BYTES) is None


@pytest.mark.parametrize("data", BAD)
def test_what_is_no_header_is_refused_without_repeating_it(data: bytes) -> None:
    with pytest.raises(HeaderInvalid) as caught:
        parse(data, MAX_BYTES)
    assert "192.0.2" not in str(caught.value)


def test_an_endless_header_is_refused_at_its_bound() -> None:
    assert parse(b"PROXY " + b"x" * 100, MAX_BYTES) is None
    with pytest.raises(HeaderInvalid):
        parse(b"PROXY " + b"x" * 101, MAX_BYTES)


def check(data: bytes) -> None:
    """Whatever comes: a header within the bound, more wanted within the bound, or a refusal."""
    try:
        header = parse(data, MAX_BYTES)
    except HeaderInvalid:
        return
    if header is None:
        assert len(data) < MAX_BYTES
        return
    assert 0 < header.size <= min(len(data), MAX_BYTES)
    if header.addresses is not None:
        for host, port in (header.addresses.client, header.addresses.server):
            assert str(ipaddress.ip_address(host)) == host
            assert 0 <= port < 65_536
    assert parse(data[: header.size], MAX_BYTES) == header


_TAMPERED = st.tuples(
    st.sampled_from([header for header, _ in GOOD] + WITHOUT + BAD),
    st.lists(st.tuples(st.integers(0, 600), st.binary(max_size=3)), max_size=4),
    st.binary(max_size=40),
)


def tampered(header: bytes, edits: list[tuple[int, bytes]], rest: bytes) -> bytes:
    for at, piece in edits:
        place = at % (len(header) + 1)
        header = header[:place] + piece + header[place + len(piece) :]
    return header + rest


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    check(data)


@given(_TAMPERED)
def test_headers_that_were_tampered_with(parts: tuple[bytes, list[tuple[int, bytes]], bytes]) -> None:
    check(tampered(*parts))


@pytest.mark.slow
@given(_TAMPERED)
def test_very_many_headers_that_were_tampered_with(
    parts: tuple[bytes, list[tuple[int, bytes]], bytes],
) -> None:
    check(tampered(*parts))


@given(
    st.ip_addresses(),
    st.ip_addresses(),
    st.integers(0, 65_535),
    st.integers(0, 65_535),
    st.binary(max_size=99),
)
def test_what_is_written_is_read(
    client: ipaddress.IPv4Address | ipaddress.IPv6Address,
    server: ipaddress.IPv4Address | ipaddress.IPv6Address,
    client_port: int,
    server_port: int,
    tlvs: bytes,
) -> None:
    if client.version != server.version:
        return
    ports = client_port.to_bytes(2, "big") + server_port.to_bytes(2, "big")
    family = 0x11 if client.version == 4 else 0x21
    one = f"PROXY TCP{client.version} {client} {server} {client_port} {server_port}\r\n".encode()
    two = v2(0x21, family, client.packed + server.packed + ports + tlvs)
    read = [parse(header, MAX_BYTES) for header in (one, two)]
    assert all(header is not None and header.addresses is not None for header in read)
    assert [header.size for header in read if header] == [len(one), len(two)]
    assert read[0] is not None
    assert read[1] is not None
    assert read[0].addresses == read[1].addresses
